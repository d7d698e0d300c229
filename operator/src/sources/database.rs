//! The database instance of the own region, by address: reading the lease, and the acts on it. Connections are kept and made
//! anew after a failure; acts and checks have their own, so that a slow one never delays the reading.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use region_lease::{ConnectOptions, LeaseError, LeaseRow, Reading, ValidUntil, WayBack, connect, read_lease};
use region_plan::{Epoch, GrantId, LeaseView, Opened, Region, Released, RunId, Validity};
use tokio::sync::Mutex;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::cluster::SecretData;
use crate::deadline::within;

/// What one look at the lease tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The row, if there is one.
    pub lease: Option<LeaseView>,
    /// The instance takes writes.
    pub writable: bool,
    /// How long guards still accept without a renewal; `None`: no limit, or nobody holds it.
    pub remaining: Option<SignedDuration>,
    /// On a standby: the age of the newest renewal that has arrived, an upper bound of how far it is behind. `None` where
    /// nobody renews.
    pub lag: Option<SignedDuration>,
}

/// One connection that is made when it is needed.
#[derive(Default)]
struct Slot(Mutex<Option<Arc<Client>>>);

impl Slot {
    async fn get(&self, options: &ConnectOptions, read_only: bool) -> Result<Arc<Client>, String> {
        let mut kept = self.0.lock().await;
        if let Some(client) = kept.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let client = connect(options).await.map_err(|error| error.to_string())?;
        if read_only {
            let set = client.batch_execute("SET default_transaction_read_only = on").await;
            set.map_err(|error| LeaseError::from_postgres("connect", &error).to_string())?;
        }
        let client = Arc::new(client);
        *kept = Some(Arc::clone(&client));
        Ok(client)
    }

    async fn drop_connection(&self) {
        *self.0.lock().await = None;
    }
}

/// The instance.
pub struct Database {
    app: String,
    options: ConnectOptions,
    deadline: Duration,
    reading: Slot,
    acting: Slot,
    checking: Slot,
}

impl Database {
    /// No connection is made yet. `instance` is `host:port`; the secret holds the operator's login and the CA.
    ///
    /// # Errors
    /// What is wrong with the address or the secret.
    pub fn new(
        app: &str,
        instance: &str,
        dbname: &str,
        secret: &SecretData,
        deadline: Duration,
    ) -> Result<Self, String> {
        let address =
            instance.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let (host, port) =
            address.ok_or_else(|| format!("database instance {instance:?} is not HOST:PORT"))?;
        let text = |key: &str| secret.text(key).map(str::to_owned).map_err(|error| error.to_string());
        let mut options = ConnectOptions::new(host, port, dbname, text("operator-username")?);
        options.password = Some(text("operator-password")?);
        options.ca_pem = Some(text("ca.crt")?);
        options.connect_timeout = deadline;
        options.application_name = "region-operator".to_owned();
        // A certificate authority that cannot be used is told now and not in each pass.
        options.tls_connector().map_err(|error| error.to_string())?;
        Ok(Self {
            app: app.to_owned(),
            options,
            deadline,
            reading: Slot::default(),
            acting: Slot::default(),
            checking: Slot::default(),
        })
    }

    /// The lease as this instance shows it now.
    ///
    /// # Errors
    /// Why it is not known, in words.
    pub async fn look(&self) -> Result<Seen, String> {
        let asked = async {
            let client = self.reading.get(&self.options, false).await?;
            read_lease(&client, &self.app).await.map_err(|error| error.to_string())
        };
        let answer = match within(self.deadline, &format!("the database {:?}", self.options), asked).await {
            Ok(answer) => answer,
            Err(late) => Err(late.to_string()),
        };
        match answer {
            Ok(reading) => Ok(seen(reading)),
            Err(why) => {
                self.reading.drop_connection().await;
                Err(why)
            }
        }
    }

    /// A count from the application's tables, read-only.
    ///
    /// # Errors
    /// Why there is no count, in words.
    pub async fn number(&self, query: &str) -> Result<u64, String> {
        let mut options = self.options.clone();
        options.statement_timeout = self.deadline;
        let asked = async {
            let client = self.checking.get(&options, true).await?;
            // Inside of another query it can be one SELECT only, and any numeric type is read.
            let sql =
                format!("SELECT checked.n::text FROM ({}) AS checked(n)", query.trim().trim_end_matches(';'));
            let row = client.query_opt(&sql, &[]).await;
            let row = row.map_err(|error| LeaseError::from_postgres("drain check", &error).to_string())?;
            let row = row.ok_or("the query gives no row")?;
            let text: Option<&str> = row.try_get(0).map_err(|error| error.to_string())?;
            let text = text.ok_or("the query gives NULL")?;
            text.parse::<u64>().map_err(|_| format!("{text:?} is not a count"))
        };
        let answer = within(self.deadline, "the drain query", asked)
            .await
            .unwrap_or_else(|late| Err(late.to_string()));
        if answer.is_err() {
            self.checking.drop_connection().await;
        }
        answer
    }

    /// The application's name in the lease.
    pub fn app(&self) -> &str {
        &self.app
    }

    /// A connection for an act. The act bounds itself.
    ///
    /// # Errors
    /// Why none could be made: nothing was sent.
    pub async fn acting(&self) -> Result<Arc<Client>, String> {
        self.acting.get(&self.options, false).await
    }
}

#[expect(clippy::needless_pass_by_value, reason = "a reading is used up by what it shows")]
fn seen(reading: Reading) -> Seen {
    let now = reading.clock.now;
    let row = reading.row.as_ref();
    let remaining = row.filter(|row| row.holder.is_some()).and_then(|row| match row.valid_until {
        ValidUntil::At(end) => Some(end.duration_since(now).max(SignedDuration::ZERO)),
        ValidUntil::NegInfinity => Some(SignedDuration::ZERO),
        ValidUntil::Infinity => None,
    });
    let lag = row
        .filter(|row| reading.in_recovery && row.valid_until != ValidUntil::Infinity)
        .and_then(|row| row.renewed_at)
        .map(|renewed| now.duration_since(renewed).max(SignedDuration::ZERO));
    let lease = row.map(|row| view(row, &reading));
    Seen { lease, writable: !reading.in_recovery, remaining, lag }
}

fn view(row: &LeaseRow, reading: &Reading) -> LeaseView {
    LeaseView {
        epoch: Epoch(row.epoch),
        grant_id: GrantId(row.grant_id.unwrap_or(Uuid::nil())),
        holder: row.holder.clone().map(Region),
        opened: match row.opened {
            region_lease::Opened::None => Opened::None,
            region_lease::Opened::Core => Opened::Core,
            region_lease::Opened::Intake => Opened::Intake,
        },
        validity: validity(row, reading),
        released: row.released.as_ref().map(|released| Released {
            epoch: Epoch(released.epoch),
            to: Region(released.to.clone()),
            run: RunId(released.run),
        }),
        aborted_run: row.aborted_run.map(RunId),
    }
}

/// On the writer a lease that was not renewed since the server's start is not valid, as its guards see it. A standby's own
/// start says nothing about the writer.
fn validity(row: &LeaseRow, reading: &Reading) -> Validity {
    match row.valid_until {
        ValidUntil::Infinity => match row.way_back {
            WayBack::None => Validity::Unlimited,
            WayBack::Open => Validity::HandedBack,
            WayBack::Asked => Validity::LimitAsked,
        },
        ValidUntil::NegInfinity => Validity::NeverRenewed,
        ValidUntil::At(end) if end <= reading.clock.now && reading.in_recovery => Validity::Unconfirmed,
        ValidUntil::At(end) if end <= reading.clock.now => Validity::Expired,
        ValidUntil::At(_) if reading.in_recovery || row.server_start == Some(reading.clock.server_start) => {
            Validity::Valid
        }
        ValidUntil::At(_) => Validity::Expired,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use region_lease::Clock;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn reading(valid_until: ValidUntil, in_recovery: bool) -> Reading {
        let row = LeaseRow {
            app: "app".to_owned(),
            epoch: 4,
            grant_id: Some(Uuid::nil()),
            granted_run: None,
            holder: Some("a".to_owned()),
            opened: region_lease::Opened::Core,
            valid_until,
            way_back: WayBack::None,
            server_start: Some(at(10)),
            renewed_at: Some(at(95)),
            lease_duration: Duration::from_secs(20),
            released: None,
            aborted_run: None,
        };
        Reading { row: Some(row), in_recovery, clock: Clock { now: at(100), server_start: at(10) } }
    }

    #[test]
    fn a_lease_that_was_not_renewed_since_the_writers_start_is_not_valid() {
        let mut restarted = reading(ValidUntil::At(at(115)), false);
        assert_eq!(seen(restarted.clone()).lease.unwrap().validity, Validity::Valid);
        restarted.clock.server_start = at(99);
        assert_eq!(seen(restarted.clone()).lease.unwrap().validity, Validity::Expired);
        restarted.in_recovery = true;
        assert_eq!(
            seen(restarted).lease.unwrap().validity,
            Validity::Valid,
            "a standby's start does not count"
        );
    }

    #[test]
    fn an_endless_lease_shows_whether_and_how_far_its_end_comes_back() {
        for (way_back, validity) in [
            (WayBack::None, Validity::Unlimited),
            (WayBack::Open, Validity::HandedBack),
            (WayBack::Asked, Validity::LimitAsked),
        ] {
            let mut endless = reading(ValidUntil::Infinity, false);
            endless.row.as_mut().unwrap().way_back = way_back;
            assert_eq!(seen(endless).lease.unwrap().validity, validity);
        }
    }

    #[test]
    fn what_is_left_of_a_lease_is_never_negative_and_without_a_limit_there_is_none() {
        assert_eq!(
            seen(reading(ValidUntil::At(at(115)), false)).remaining,
            Some(SignedDuration::from_secs(15))
        );
        assert_eq!(seen(reading(ValidUntil::At(at(90)), false)).remaining, Some(SignedDuration::ZERO));
        assert_eq!(seen(reading(ValidUntil::Infinity, false)).remaining, None);
    }

    #[test]
    fn only_a_standby_lags() {
        assert_eq!(seen(reading(ValidUntil::At(at(115)), true)).lag, Some(SignedDuration::from_secs(5)));
        assert_eq!(seen(reading(ValidUntil::At(at(115)), false)).lag, None);
        assert_eq!(seen(reading(ValidUntil::Infinity, true)).lag, None, "nobody renews it");
    }
}
