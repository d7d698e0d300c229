//! An application's PostgreSQL pair: one server in each region, a primary and its streaming standby.
//!
//! Both servers have the same kind of configuration, which names the other as the primary to follow. Only the
//! file `standby.signal` in the data folder decides which of the two a server is.

mod roles;
mod switch;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::application::Application;
use crate::cache::{create_folder, read, remove_folder, write, write_secret};
use crate::command::{run, run_with_input};
use crate::credentials::{Credentials, REPLICATOR};
use crate::error::{Error, Result};
use crate::layout::Lab;
use crate::process::{self, Program, StopSignal};
use crate::region::Region;
use crate::rootfs::{Chroot, own};
use crate::wait::Look;

const USER: &str = "postgres";
/// Where a server's folder is seen inside the Debian folder.
const HOME: &str = "/var/lib/postgresql";

const CALL: Duration = Duration::from_secs(20);
const READY: Duration = Duration::from_secs(60);
const COPY: Duration = Duration::from_secs(300);
const STOP: Duration = Duration::from_secs(45);

/// The PostgreSQL server of an application in a region.
pub struct Database<'a> {
    lab: &'a Lab,
    application: Application,
    region: Region,
    root: PathBuf,
    credentials: &'a Credentials,
}

impl<'a> Database<'a> {
    /// The server of an application in a region; it need not run.
    ///
    /// # Errors
    /// When the Debian folder cannot be made.
    pub fn new(
        lab: &'a Lab,
        application: Application,
        region: Region,
        credentials: &'a Credentials,
    ) -> Result<Self> {
        Ok(Self { lab, application, region, root: crate::rootfs::ensure()?, credentials })
    }

    fn folder(&self) -> PathBuf {
        self.lab.place(self.region).join("databases").join(self.application.name())
    }

    fn data(&self) -> PathBuf {
        self.folder().join("data")
    }

    fn peer(&self) -> Self {
        Self {
            lab: self.lab,
            application: self.application,
            region: self.region.peer(),
            root: self.root.clone(),
            credentials: self.credentials,
        }
    }

    /// Programs of PostgreSQL see the server's folder as their home.
    fn chroot(&self) -> Chroot {
        Chroot::new(&self.root, USER)
            .in_namespace(&self.lab.plan.namespace(self.region))
            .bind(&self.folder(), HOME)
    }

    /// Runs a program of PostgreSQL. The password goes by the environment: command lines are for all to see, and
    /// stand in error messages.
    fn tool(&self, name: &str, arguments: &[&str], bound: Duration) -> Result<String> {
        let mut command = self.chroot().command(name, arguments);
        run(command.env("PGPASSWORD", self.password(REPLICATOR)?), bound)
    }

    fn password(&self, role: &str) -> Result<&str> {
        self.credentials.database(self.application, role)
    }

    /// The process's name among those of its region.
    fn process(&self) -> &'static str {
        self.application.database_process()
    }

    /// Runs SQL on the application's database as the superuser and gives unadorned rows, columns separated by `|`.
    ///
    /// # Errors
    /// When the server does not answer or refuses the statement.
    pub fn sql(&self, text: &str) -> Result<String> {
        self.sql_on(self.application.database_name(), text)
    }

    /// The same on the database that is there before and beside it.
    fn server_sql(&self, text: &str) -> Result<String> {
        self.sql_on("postgres", text)
    }

    fn sql_on(&self, database: &str, text: &str) -> Result<String> {
        // The socket's name has it too.
        let port = self.application.database_port().to_string();
        let arguments = [
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--set=ON_ERROR_STOP=1",
            "--host=/var/lib/postgresql/run",
            "--port",
            &port,
            "--username=postgres",
            "--dbname",
            database,
        ];
        let answer = run_with_input(&mut self.chroot().command("psql", arguments), text.as_bytes(), CALL)?;
        Ok(answer.trim().to_owned())
    }

    /// How one server reaches the other, for replication and for rewinding; without the password.
    fn connection_to_peer(&self) -> String {
        format!(
            "host={} port={} user={REPLICATOR} dbname=postgres sslmode=verify-full \
             sslrootcert={HOME}/conf/ca.crt connect_timeout=5 application_name={}",
            self.lab.plan.address(self.region.peer()),
            self.application.database_port(),
            self.region.identifier(),
        )
    }

    fn program(&self) -> Program {
        let arguments =
            [format!("-D{HOME}/data"), "-c".into(), format!("config_file={HOME}/conf/postgresql.conf")];
        Program {
            name: self.process().into(),
            place: self.region.into(),
            order: 20,
            command: self.chroot().command_line("postgres", arguments),
            environment: crate::rootfs::ENVIRONMENT.map(|(name, value)| (name.into(), value.into())).into(),
            // Fast shutdown: sessions are ended, and standbys get all that was written.
            stop_signal: StopSignal::Interrupt,
        }
    }

    /// Starts the server and waits until it answers.
    fn start(&self) -> Result<()> {
        let program = self.program();
        process::start(self.lab, &program)?;
        process::until_ready(self.lab, &program, READY, || {
            Ok(match self.server_sql("select 1") {
                Ok(_) => Look::Ready(()),
                Err(error) => Look::NotYet(error.to_string()),
            })
        })
    }

    fn is_running(&self) -> Result<bool> {
        process::is_alive(self.lab, self.region, self.process())
    }

    /// Makes the folders and configuration, without data.
    fn prepare(&self) -> Result<()> {
        let conf = self.folder().join("conf");
        create_folder(&conf)?;
        create_folder(&self.folder().join("run"))?;
        write_secret(&conf.join("postgresql.conf"), configuration(self)?)?;
        write(&conf.join("pg_hba.conf"), ACCESS)?;
        write(&conf.join("ca.crt"), read(&self.lab.ca_file())?)?;
        for file in ["server.crt", "server.key"] {
            write_secret(&conf.join(file), read(&self.lab.place(self.region).join("tls").join(file))?)?;
        }
        own(&self.root, &self.folder(), USER)
    }

    /// Makes a new primary with the lab's users and the empty database, and starts it.
    pub(crate) fn create_primary(&self) -> Result<()> {
        self.prepare()?;
        let data = format!("--pgdata={HOME}/data");
        let arguments =
            [data.as_str(), "--username=postgres", "--auth=peer", "--encoding=UTF8", "--locale=C.UTF-8"];
        self.tool("initdb", &arguments, COPY)?;
        self.start()?;
        self.server_sql(&roles::statements(|role| self.password(role))?)?;
        let database = self.application.database_name();
        self.server_sql(&roles::database_statement(database))?;
        self.sql(&roles::database_grants(database)).map(drop)
    }

    /// Makes a new standby of the other region's running primary, and starts it.
    pub(crate) fn create_standby(&self) -> Result<()> {
        self.prepare()?;
        self.copy_from_peer()?;
        self.start_standby()
    }

    /// Replaces the data by a copy of the peer's.
    fn copy_from_peer(&self) -> Result<()> {
        self.peer().ensure_slot_for(self.region)?;
        remove_folder(&self.data())?;
        let connection = self.connection_to_peer();
        let (data, slot) = (format!("--pgdata={HOME}/data"), format!("--slot={}", self.region.identifier()));
        let arguments = [
            data.as_str(),
            slot.as_str(),
            "--wal-method=stream",
            "--checkpoint=fast",
            "--no-password",
            "--dbname",
            connection.as_str(),
        ];
        self.tool("pg_basebackup", &arguments, COPY).map(drop)
    }

    /// The slot keeps what the standby has not yet received, up to `max_slot_wal_keep_size`.
    fn ensure_slot_for(&self, standby: Region) -> Result<()> {
        let slot = standby.identifier();
        self.server_sql(&format!(
            "select pg_create_physical_replication_slot('{slot}') \
             where not exists (select from pg_replication_slots where slot_name = '{slot}')"
        ))
        .map(drop)
    }

    fn start_standby(&self) -> Result<()> {
        write(&self.data().join("standby.signal"), "")?;
        own(&self.root, &self.data().join("standby.signal"), USER)?;
        self.start()?;
        self.wait_until_streaming()
    }

    /// Waits until this standby receives from its primary.
    fn wait_until_streaming(&self) -> Result<()> {
        process::until_ready(self.lab, &self.program(), READY, || {
            let state = self.server_sql("select coalesce((select status from pg_stat_wal_receiver), 'none')");
            Ok(match state {
                Ok(status) if status == "streaming" => Look::Ready(()),
                Ok(status) => Look::NotYet(format!("its receiver's status is {status}")),
                Err(error) => Look::NotYet(error.to_string()),
            })
        })
    }
}

impl fmt::Display for Database<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PostgreSQL of {} in {}", self.application, self.region)
    }
}

/// TLS for everyone but the superuser on the server's own socket.
const ACCESS: &str = "\
local   all         postgres                     peer
hostssl all         all             0.0.0.0/0    scram-sha-256
hostssl replication lab_replicator  0.0.0.0/0    scram-sha-256
";

fn configuration(database: &Database<'_>) -> Result<String> {
    Ok(format!(
        "listen_addresses = '*'
port = {port}
unix_socket_directories = '{HOME}/run'
hba_file = '{HOME}/conf/pg_hba.conf'
ssl = on
ssl_cert_file = '{HOME}/conf/server.crt'
ssl_key_file = '{HOME}/conf/server.key'
ssl_ca_file = '{HOME}/conf/ca.crt'
password_encryption = 'scram-sha-256'
max_connections = 300
shared_buffers = '{buffers}'
wal_level = replica
# Pages are written whole after each checkpoint: rarely, and compressed.
max_wal_size = '2GB'
checkpoint_timeout = '15min'
wal_compression = lz4
# Lets pg_rewind bring an old primary back.
wal_log_hints = on
max_wal_senders = 10
max_replication_slots = 10
wal_keep_size = '128MB'
max_slot_wal_keep_size = '2GB'
hot_standby = on
hot_standby_feedback = off
wal_receiver_status_interval = '1s'
wal_receiver_timeout = '5s'
wal_sender_timeout = '5s'
wal_retrieve_retry_interval = '500ms'
primary_conninfo = '{connection} password={password}'
primary_slot_name = '{slot}'
log_line_prefix = '%m [%p] %u@%d '
log_timezone = 'UTC'
timezone = 'UTC'
",
        port = database.application.database_port(),
        buffers = database.application.shared_buffers(),
        connection = database.connection_to_peer(),
        password = database.password(REPLICATOR)?,
        slot = database.region.identifier(),
    ))
}

/// The environment variables by which the AWS simulator tells a database command more.
#[derive(Debug, Clone, Default)]
pub struct SwitchContext {
    /// `OLD_PRIMARY_POSITION`: what `stop` of the old primary printed.
    pub old_primary_position: Option<String>,
    /// `PRIMARY_ADDRESS`: whom to follow.
    pub primary_address: Option<String>,
}

impl SwitchContext {
    fn require_peer(&self, database: &Database<'_>) -> Result<()> {
        let peer = database.peer();
        let expected = format!("{}:{}", peer.lab.plan.address(peer.region), peer.application.database_port());
        match &self.primary_address {
            Some(address) if *address != expected => Err(Error::Request(format!(
                "{database} can only follow {expected}, and was told to follow {address}"
            ))),
            _ => Ok(()),
        }
    }
}
