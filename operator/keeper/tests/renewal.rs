//! The keeper on a real PostgreSQL and the simulated ARC cluster.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

#[path = "../../aws/tests/support/simulator.rs"]
mod simulator;

use std::path::PathBuf;
use std::time::Duration;

use aws_simulator::ControlState::{Off, On};
use jiff::SignedDuration;
use lab::temporary::Postgres;
use region_aws::{ArcClient, AwsAccess, CallTimeouts, ControlState, CredentialSource, FlipLimits};
use region_keeper::Config;
use region_lease::{Clock, ConnectOptions, Fence, Guard, NewGrant, Reading, ValidUntil};
use simulator::{Account, control};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const APP: &str = "trade-matching";
const ME: &str = "us-east-1";
const LEASE: Duration = Duration::from_secs(4);
/// For what takes milliseconds, on a machine that may be busy building.
const SOON: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);

/// A database with the lease, an ARC cluster, and keepers to start on them.
struct Scene {
    postgres: Postgres,
    account: Account,
    admin: Client,
    folder: TempDir,
}

struct Keeper {
    stop: CancellationToken,
    ended: JoinHandle<Result<(), region_keeper::KeeperError>>,
    address: String,
}

impl Scene {
    async fn start(state: aws_simulator::ControlState) -> Self {
        let postgres = Postgres::start().await.unwrap();
        let options = ConnectOptions::new(postgres.host(), postgres.port(), "postgres", "postgres");
        let mut admin = region_lease::connect(&options).await.unwrap();
        region_lease::migrate(&mut admin).await.unwrap();
        region_lease::enroll(&admin, APP, LEASE).await.unwrap();
        let account = Account::start(&[("app-east", state), ("app-west", Off)]).await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("password"), "trusted\n").unwrap();
        Self { postgres, account, admin, folder }
    }

    /// Grants the lease to `region`, closed as every grant is.
    async fn grant(&self, from_epoch: u64, epoch: u64, region: &str) -> Uuid {
        let grant_id = Uuid::new_v4();
        let new = NewGrant { app: APP, from_epoch, epoch, grant_id, region, run: Uuid::new_v4() };
        region_lease::grant(&self.admin, new).await.unwrap();
        grant_id
    }

    async fn read(&self) -> Reading {
        region_lease::read_lease(&self.admin, APP).await.unwrap()
    }

    async fn end_of_lease(&self) -> ValidUntil {
        self.read().await.row.unwrap().valid_until
    }

    /// Reads the lease until `wanted` holds.
    async fn until(&self, what: &str, limit: Duration, wanted: impl Fn(&Reading) -> bool) -> Reading {
        let began = Instant::now();
        loop {
            let reading = self.read().await;
            if wanted(&reading) {
                return reading;
            }
            assert!(began.elapsed() < limit, "not within {limit:?}: {what}; {reading:?}");
            sleep(POLL).await;
        }
    }

    async fn set_control(&self, state: ControlState) {
        let source = CredentialSource::Folder(self.account.credentials_folder.clone());
        let access = AwsAccess::new(source, Some(&self.account.ca()), CallTimeouts::default()).await.unwrap();
        let arc = ArcClient::new(&self.account.endpoints, &access).unwrap();
        let outcome = arc.flip(&[(control("app-east"), state)], FlipLimits::default()).await;
        assert!(outcome.holds(), "{outcome}");
    }

    fn config(&self, listen: &str) -> Config {
        let endpoints: Vec<String> = self
            .account
            .endpoints
            .iter()
            .map(|endpoint| format!("{{region: {}, url: \"{}\"}}", endpoint.region, endpoint.url))
            .collect();
        let path = |path: &PathBuf| path.display().to_string();
        Config::parse(&format!(
            "listen: {listen}\n\
             aws: {{credentialsFolder: {}, caFile: {}}}\n\
             apps:\n- app: {APP}\n  region: {ME}\n  period: 500ms\n  arc:\n    control: {}\n    endpoints: [{}]\n  \
             database: {{host: 127.0.0.1, port: {}, name: postgres, user: region_keeper, passwordFile: {}}}\n",
            path(&self.account.credentials_folder),
            path(&self.account.ca_file),
            control("app-east"),
            endpoints.join(", "),
            self.postgres.port(),
            path(&self.folder.path().join("password")),
        ))
        .unwrap()
    }

    fn keeper(&self) -> Keeper {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let stop = CancellationToken::new();
        let ended = tokio::spawn(region_keeper::run(self.config(&address), stop.clone()));
        Keeper { stop, ended, address }
    }
}

impl Keeper {
    async fn end(self) {
        self.stop.cancel();
        self.ended.await.unwrap().unwrap();
    }

    /// Asks the keeper's HTTP side; `None` while it does not listen yet.
    async fn get(&self, path: &str) -> Option<String> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(&self.address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: keeper\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }

    async fn until_says(&self, path: &str, words: &str) -> String {
        let began = Instant::now();
        loop {
            let answer = self.get(path).await.unwrap_or_default();
            if answer.contains(words) {
                return answer;
            }
            assert!(began.elapsed() < SOON, "{path} does not say {words:?}: {answer}");
            sleep(POLL).await;
        }
    }
}

fn end(reading: &Reading) -> ValidUntil {
    reading.row.as_ref().unwrap().valid_until
}

#[tokio::test]
async fn a_grant_is_opened_kept_open_and_shown_in_the_metrics() {
    let scene = Scene::start(On).await;
    let keeper = scene.keeper();
    keeper.until_says("/readyz", "200 OK").await;
    scene.grant(0, 1, ME).await;
    let first = scene.until("opened", SOON, Reading::accepts_writes).await;
    scene.until("renewed", SOON, |now| end(now) > end(&first)).await;
    let metrics =
        keeper.until_says("/metrics", "renewals_total{app=\"trade-matching\",outcome=\"opened\"} 1").await;
    assert!(metrics.contains("region_keeper_holder{app=\"trade-matching\"} 1"), "{metrics}");
    assert!(metrics.contains("region_keeper_lease_remaining_seconds{"), "{metrics}");
    keeper.end().await;
}

#[tokio::test]
async fn renewal_stops_when_the_control_turns_off_and_begins_again_when_it_turns_on() {
    let scene = Scene::start(On).await;
    let keeper = scene.keeper();
    scene.grant(0, 1, ME).await;
    scene.until("opened", SOON, Reading::accepts_writes).await;
    scene.set_control(ControlState::Off).await;
    keeper.until_says("/metrics", "outcome=\"too_few_on\"} 1").await;
    let expired = scene.until("expired", LEASE + SOON, |now| !now.accepts_writes()).await;
    // Two periods more, counted in refusals, and the lease has not moved.
    keeper.until_says("/metrics", "outcome=\"too_few_on\"} 4").await;
    assert_eq!(scene.end_of_lease().await, end(&expired));
    scene.set_control(ControlState::On).await;
    scene.until("renewed again", SOON, Reading::accepts_writes).await;
    keeper.end().await;
}

#[tokio::test]
async fn a_grant_without_permission_stays_closed() {
    let scene = Scene::start(Off).await;
    let keeper = scene.keeper();
    scene.grant(0, 1, ME).await;
    keeper.until_says("/metrics", "outcome=\"too_few_on\"} 3").await;
    assert_eq!(scene.end_of_lease().await, ValidUntil::NegInfinity);
    assert!(keeper.get("/livez").await.unwrap().contains("200 OK"));
    keeper.end().await;
}

#[tokio::test]
async fn the_lease_of_another_region_is_left_alone() {
    let scene = Scene::start(On).await;
    let keeper = scene.keeper();
    scene.grant(0, 1, "us-west-2").await;
    keeper.until_says("/metrics", "region_keeper_holder{app=\"trade-matching\"} 0").await;
    assert_eq!(scene.end_of_lease().await, ValidUntil::NegInfinity);
    keeper.end().await;
}

#[tokio::test]
async fn three_keepers_at_once_keep_one_lease_and_survive_the_loss_of_two() {
    let scene = Scene::start(On).await;
    let [one, two, three] = [scene.keeper(), scene.keeper(), scene.keeper()];
    scene.grant(0, 1, ME).await;
    let first = scene.until("opened", SOON, Reading::accepts_writes).await;
    let later = scene.until("renewed", SOON, |now| end(now) > end(&first)).await;
    one.end().await;
    two.end().await;
    scene.until("renewed by the last", SOON, |now| end(now) > end(&later)).await;
    let reading = scene.read().await;
    let ValidUntil::At(end) = end(&reading) else { panic!("{reading:?}") };
    // However many renew, the lease never reaches further than its duration from now.
    let reach = end.duration_since(reading.clock.now);
    assert!(reach <= SignedDuration::try_from(LEASE).unwrap(), "{reach:?}");
    three.end().await;
}

#[tokio::test]
async fn a_restarted_database_is_opened_again() {
    let scene = Scene::start(On).await;
    let keeper = scene.keeper();
    scene.grant(0, 1, ME).await;
    let before = scene.until("opened", SOON, Reading::accepts_writes).await;
    scene.postgres.restart().await.unwrap();
    let options = ConnectOptions::new(scene.postgres.host(), scene.postgres.port(), "postgres", "postgres");
    let admin = region_lease::connect(&options).await.unwrap();
    let scene = Scene { admin, ..scene };
    let after = scene.until("opened on the new start", SOON, Reading::accepts_writes).await;
    assert!(after.clock.server_start > before.clock.server_start);
    keeper.end().await;
}

#[tokio::test]
async fn a_fence_ends_the_keepers_renewals_for_good() {
    let scene = Scene::start(On).await;
    let keeper = scene.keeper();
    let grant_id = scene.grant(0, 1, ME).await;
    scene.until("opened", SOON, Reading::accepts_writes).await;
    let fence = Fence { app: APP, epoch: 1, grant_id, run: Uuid::new_v4(), to_region: "us-west-2" };
    region_lease::fence(&scene.admin, fence).await.unwrap();
    keeper.until_says("/metrics", "region_keeper_holder{app=\"trade-matching\"} 0").await;
    let reading = scene.read().await;
    assert!(!reading.accepts_writes() && reading.row.unwrap().holder.is_none());
    keeper.end().await;
}

#[tokio::test]
async fn a_renewal_that_was_paused_after_permission_widens_nothing() {
    let scene = Scene::start(On).await;
    let grant_id = scene.grant(0, 1, ME).await;
    let claim = Guard::new(APP, ME, 1, grant_id);
    let paused: Clock = region_lease::clock(&scene.admin).await.unwrap();
    let keeper = scene.keeper();
    scene.until("opened", SOON, Reading::accepts_writes).await;
    scene.set_control(ControlState::Off).await;
    let expired = scene.until("expired", LEASE + SOON, |now| !now.accepts_writes()).await;
    let options =
        ConnectOptions::new(scene.postgres.host(), scene.postgres.port(), "postgres", "region_keeper");
    let other_replica = region_lease::connect(&options).await.unwrap();
    region_lease::renew(&other_replica, &claim, paused).await.unwrap();
    let after = scene.read().await;
    assert_eq!(end(&after), end(&expired));
    assert!(!after.accepts_writes());
    keeper.end().await;
}

#[tokio::test]
async fn a_lease_that_was_handed_back_is_limited_again_with_permission_only() {
    let scene = Scene::start(On).await;
    let grant = scene.grant(0, 1, ME).await;
    let keeper = scene.keeper();
    scene.until("the grant to be opened", SOON, Reading::accepts_writes).await;
    region_lease::hand_back(&scene.admin, APP, 1, grant).await.unwrap();
    scene.set_control(ControlState::Off).await;
    region_lease::limit_again(&scene.admin, APP, 1, grant).await.unwrap();
    keeper.until_says("/metrics", "outcome=\"too_few_on\"} 2").await;
    assert_eq!(scene.end_of_lease().await, ValidUntil::Infinity);
    scene.set_control(ControlState::On).await;
    let limited = scene.until("a limit", SOON, |reading| end(reading) != ValidUntil::Infinity).await;
    assert!(limited.accepts_writes(), "{limited:?}");
    scene.until("renewals from then on", SOON, |reading| end(reading) > end(&limited)).await;
    keeper.end().await;
}

#[tokio::test]
async fn without_its_database_the_keeper_lives_but_is_not_ready() {
    let scene = Scene::start(On).await;
    let account = &scene.account;
    let mut config = scene.config("127.0.0.1:0");
    assert_eq!(account.endpoints.len(), 5);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    config.listen = address;
    config.apps[0].database.port = 1;
    let stop = CancellationToken::new();
    let ended = tokio::spawn(region_keeper::run(config, stop.clone()));
    let keeper = Keeper { stop, ended, address: address.to_string() };
    keeper.until_says("/readyz", "the lease row was never read: lease: connect").await;
    assert!(keeper.get("/livez").await.unwrap().contains("200 OK"));
    keeper.until_says("/metrics", "outcome=\"database_error\"} 2").await;
    keeper.end().await;
}
