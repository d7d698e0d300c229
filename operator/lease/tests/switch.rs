//! Fence, abort, grant and restart on a real PostgreSQL, with writers that race them.
#![allow(clippy::panic, clippy::unwrap_used, unreachable_pub, reason = "a test ends at the first surprise")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::{join, join_all};
use lab::temporary::Postgres;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use region_lease::{
    Clock, Guard, LeaseError, LeaseErrorKind as Kind, NewGrant, Opened, Released, ValidUntil, WayBack,
    read_lease,
};
use support::{APP, Database, EAST, INSERT, WEST, later, sorted, to_west, write};
use tokio_postgres::Client;
use uuid::Uuid;

const WRITERS: usize = 8;
const LEVELS: [&str; 4] = ["READ COMMITTED", "READ UNCOMMITTED", "REPEATABLE READ", "SERIALIZABLE"];
/// The epoch that a writer without a guard claims.
const FORGOT: i64 = 1;

/// A generator whose seed is printed, and can be given as `LEASE_SEED`.
fn random() -> StdRng {
    let seed = option_env!("LEASE_SEED").and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("LEASE_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Writes by `claim` until refused; gives how many transactions were accepted and the refusal.
async fn write_until_refused(client: &Client, claim: &Guard, mut random: StdRng) -> (i64, Kind) {
    let mut accepted = 0;
    loop {
        let level = LEVELS[random.random_range(0..LEVELS.len())];
        match write(client, claim, &format!("BEGIN ISOLATION LEVEL {level}")).await {
            Ok(()) => accepted += 1,
            Err(error) if error.kind == Kind::Isolation => {}
            Err(error) => return (accepted, error.kind),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_of_any_isolation_level_is_accepted_after_the_fence_returned() {
    let mut random = random();
    for _ in 0..10 {
        let database = Database::new().await;
        let roles = database.roles().await;
        let claim = roles.holding().await;
        let writers = join_all((0..WRITERS).map(|_| database.as_user("trading_core"))).await;
        let writing = join_all(
            writers.iter().map(|writer| write_until_refused(writer, &claim, StdRng::from_rng(&mut random))),
        );
        let some = i64::from(random.random_range(1..40));
        let fencing = async {
            tokio::time::timeout(support::SOON, async { while roles.trades().await < some {} })
                .await
                .unwrap();
            roles.fenced(&claim, Uuid::new_v4()).await.unwrap();
            roles.trades().await
        };
        let (results, when_fenced) = join(writing, fencing).await;
        assert!(results.iter().all(|(_, refusal)| *refusal == Kind::Fenced), "{results:?}");
        let accepted: i64 = results.iter().map(|(accepted, _)| accepted).sum();
        assert_eq!(roles.trades().await, when_fenced, "a write was accepted after the fence returned");
        assert_eq!(accepted, when_fenced, "what writers were told differs from what is there");
    }
}

/// What writers of one kind were told while the lease went from nothing to open to fenced.
async fn write_until(client: &Client, claim: Option<&Guard>, mut random: StdRng, stop: &AtomicBool) -> i64 {
    let mut accepted = 0;
    while !stop.load(Ordering::Relaxed) {
        let begin = format!("BEGIN ISOLATION LEVEL {}", LEVELS[random.random_range(0..LEVELS.len())]);
        let written = match claim {
            Some(claim) => write(client, claim, &begin).await,
            None => write_without_guard(client, &begin, random.random_bool(0.5)).await,
        };
        accepted += i64::from(written.is_ok());
    }
    accepted
}

/// What code does that forgot the guard, in a transaction of its own or without one.
async fn write_without_guard(client: &Client, begin: &str, in_transaction: bool) -> Result<(), LeaseError> {
    let run = async {
        if in_transaction {
            client.batch_execute(begin).await.map_err(sorted)?;
        }
        client.execute(INSERT, &[&1_i64, &FORGOT]).await.map_err(sorted)?;
        if in_transaction { client.batch_execute("COMMIT").await.map_err(sorted) } else { Ok(()) }
    };
    let result = run.await;
    if result.is_err() && in_transaction {
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    result
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_race_a_grant_and_its_opening_write_only_once_it_is_open_and_never_without_a_guard() {
    let mut random = random();
    for _ in 0..10 {
        let database = Database::new().await;
        let roles = database.roles().await;
        let new = Guard::new(APP, EAST, 1, Uuid::new_v4());
        let stop = AtomicBool::new(false);
        let clients = join_all((0..WRITERS).map(|_| database.as_user("trading_core"))).await;
        let writing = join_all(clients.iter().enumerate().map(|(index, client)| {
            let claim = (index % 2 == 0).then_some(&new);
            write_until(client, claim, StdRng::from_rng(&mut random), &stop)
        }));
        let opening = async {
            let grant = NewGrant {
                app: APP,
                from_epoch: 0,
                epoch: 1,
                grant_id: new.grant_id,
                region: EAST,
                run: Uuid::new_v4(),
            };
            region_lease::grant(&roles.operator, grant).await.unwrap();
            let before = roles.trades().await;
            roles.renewed(&new).await;
            tokio::time::timeout(support::SOON, async { while roles.trades().await < 20 {} }).await.unwrap();
            stop.store(true, Ordering::Relaxed);
            before
        };
        let (accepted, before) = join(writing, opening).await;
        assert_eq!(before, 0, "a write was accepted before the grant was opened");
        let forgot: i64 = accepted.iter().skip(1).step_by(2).sum();
        assert_eq!(forgot, 0, "a write without a guard was accepted: {accepted:?}");
        assert_eq!(
            roles.trades().await,
            accepted.iter().sum::<i64>(),
            "what writers were told is what is there"
        );
    }
}

#[tokio::test]
async fn an_old_snapshot_that_waits_for_the_fence_is_refused() {
    let database = Database::new().await;
    let roles = database.roles().await;
    let claim = roles.holding().await;
    // The fence is made but not committed: the guard has to wait for its lock, then see its row.
    roles.operator.batch_execute("BEGIN").await.unwrap();
    roles.fenced(&claim, Uuid::new_v4()).await.unwrap();
    let writing = write(&roles.writer, &claim, "BEGIN");
    let committing = async {
        wait_for_a_blocked_lock(&roles.root).await;
        roles.operator.batch_execute("COMMIT").await.unwrap();
    };
    let (written, ()) = join(writing, committing).await;
    assert_eq!(written.unwrap_err().kind, Kind::Fenced);
    assert_eq!(roles.trades().await, 0);
}

async fn wait_for_a_blocked_lock(root: &Client) {
    let blocked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    tokio::time::timeout(support::SOON, async {
        while root.query_one(blocked, &[]).await.unwrap().get::<_, i64>(0) == 0 {}
    })
    .await
    .expect("somebody waits for the lock");
}

#[tokio::test]
async fn the_guard_rolled_back_with_a_savepoint_does_not_carry_a_write_past_a_fence() {
    // On a server that knows no prepared transactions, where a guard may stand in a savepoint.
    let server = Postgres::start().await.unwrap();
    let root = support::client(&server, "postgres", "postgres").await;
    root.batch_execute("ALTER SYSTEM SET max_prepared_transactions = 0").await.unwrap();
    server.restart().await.unwrap();
    support::prepare(&server, "postgres").await;
    let as_user = async |user: &'static str| support::client(&server, user, "postgres").await;
    let roles = support::Roles {
        root: as_user("postgres").await,
        operator: as_user("region_operator").await,
        keeper: as_user("region_keeper").await,
        writer: as_user("trading_core").await,
    };
    let claim = roles.holding().await;
    roles.writer.batch_execute("BEGIN; SAVEPOINT s").await.unwrap();
    claim.check(&roles.writer).await.unwrap();
    let read = "SELECT current_setting('region.marker')";
    let marker: String = roles.writer.query_one(read, &[]).await.unwrap().get(0);
    roles.writer.batch_execute("ROLLBACK TO s").await.unwrap();
    let set = "SELECT set_config('region.marker', $1, true)";
    roles.writer.query_one(set, &[&marker]).await.unwrap();
    // The marker is true, but its lock is gone: the fence does not wait for this transaction.
    roles.fenced(&claim, Uuid::new_v4()).await.unwrap();
    let error = roles.writer.execute(INSERT, &[&1_i64, &1_i64]).await.map_err(support::sorted).unwrap_err();
    assert_eq!(error.kind, Kind::Fenced);
}

#[tokio::test]
async fn a_fence_ends_a_writer_that_hangs_and_loses_its_write() {
    let roles = Database::new().await.roles().await;
    let claim = roles.holding().await;
    roles.writer.batch_execute("BEGIN").await.unwrap();
    claim.check(&roles.writer).await.unwrap();
    roles.writer.execute(INSERT, &[&1_i64, &1_i64]).await.unwrap();
    // It switches its own limit off, so only the fence can end it.
    roles.writer.batch_execute("SET transaction_timeout = 0").await.unwrap();
    let began = Instant::now();
    roles.fenced(&claim, Uuid::new_v4()).await.unwrap();
    assert!(began.elapsed() >= region_lease::LONGEST_TRANSACTION, "it was given its whole time");
    assert!(roles.writer.batch_execute("COMMIT").await.is_err());
    assert_eq!(roles.trades().await, 0);
}

#[tokio::test]
async fn a_fence_is_idempotent_for_its_run_and_refuses_what_differs() {
    let roles = Database::new().await.roles().await;
    let claim = roles.holding().await;
    roles.opened(&claim, Opened::Intake).await.unwrap();
    let run = Uuid::new_v4();
    let stale = Guard::new(APP, EAST, claim.epoch(), Uuid::new_v4());
    assert_eq!(roles.fenced(&stale, run).await.unwrap_err().kind, Kind::Refused);
    for _ in 0..2 {
        roles.fenced(&claim, run).await.unwrap();
    }
    assert_eq!(roles.fenced(&claim, Uuid::new_v4()).await.unwrap_err().kind, Kind::Refused);
    let row = read_lease(&roles.operator, APP).await.unwrap().row.unwrap();
    assert_eq!((row.holder, row.opened, row.valid_until), (None, Opened::None, ValidUntil::NegInfinity));
    assert_eq!(row.released, Some(Released { epoch: claim.epoch(), to: WEST.to_owned(), run }));
    let observed = region_lease::clock(&roles.keeper).await.unwrap();
    let renewal = region_lease::renew(&roles.keeper, &claim, observed).await;
    assert_eq!(renewal.unwrap_err().kind, Kind::Fenced, "nobody renews what was fenced");
}

#[tokio::test]
async fn an_aborted_run_never_fences_even_after_a_later_abort() {
    let roles = Database::new().await.roles().await;
    let claim = roles.holding().await;
    let (first, second, third) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    for run in [first, first, second] {
        region_lease::abort(&roles.operator, APP, run).await.unwrap();
    }
    for run in [first, second] {
        assert_eq!(roles.fenced(&claim, run).await.unwrap_err().kind, Kind::RunAborted);
    }
    write(&roles.writer, &claim, "BEGIN").await.unwrap();
    roles.fenced(&claim, third).await.unwrap();
    let late = region_lease::abort(&roles.operator, APP, third).await.unwrap_err();
    assert_eq!(late.kind, Kind::Refused, "what has fenced is not aborted: {late}");
    let row = read_lease(&roles.operator, APP).await.unwrap().row.unwrap();
    assert_eq!(row.aborted_run, Some(second));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_abort_and_a_fence_that_race_exactly_one_wins() {
    for _ in 0..20 {
        let database = Database::new().await;
        let roles = database.roles().await;
        let claim = roles.holding().await;
        let other = database.as_user("region_operator").await;
        let run = Uuid::new_v4();
        let (fenced, aborted) = join(roles.fenced(&claim, run), region_lease::abort(&other, APP, run)).await;
        assert_ne!(fenced.is_ok(), aborted.is_ok(), "fence {fenced:?}, abort {aborted:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_granters_from_one_epoch_exactly_one_wins() {
    let database = Database::new().await;
    let roles = database.roles().await;
    let clients = join_all((0..WRITERS).map(|_| database.as_user("region_operator"))).await;
    let mut from_epoch = 0;
    for _ in 0..20 {
        let grants: Vec<NewGrant<'_>> = (0..WRITERS)
            .map(|index| NewGrant {
                app: APP,
                from_epoch,
                epoch: from_epoch + 1 + (index as u64 % 2),
                grant_id: Uuid::new_v4(),
                region: [EAST, WEST][index % 2],
                run: Uuid::new_v4(),
            })
            .collect();
        let racing = clients.iter().zip(&grants).map(|(client, new)| region_lease::grant(client, *new));
        let results = join_all(racing).await;
        let winners: Vec<_> = (0..WRITERS).filter(|&index| results[index].is_ok()).collect();
        let row = read_lease(&roles.operator, APP).await.unwrap().row.unwrap();
        // Nobody renewed, so the next may follow the first at once, but never from the same epoch.
        assert_eq!(winners.len(), 1, "{results:?}");
        assert_eq!(row.grant_id, Some(grants[winners[0]].grant_id));
        from_epoch = row.epoch;
    }
}

#[tokio::test]
async fn a_grant_is_idempotent_and_takes_nothing_from_a_valid_holder() {
    let roles = Database::new().await.roles().await;
    let claim = roles.holding().await;
    let grant = |from_epoch, epoch, grant_id, region| {
        let new = NewGrant { app: APP, from_epoch, epoch, grant_id, region, run: Uuid::new_v4() };
        region_lease::grant(&roles.operator, new)
    };
    grant(0, claim.epoch(), claim.grant_id, EAST).await.unwrap();
    write(&roles.writer, &claim, "BEGIN").await.unwrap();
    assert_eq!(grant(1, 2, Uuid::new_v4(), WEST).await.unwrap_err().kind, Kind::Refused, "still valid");
    assert_eq!(grant(0, 5, Uuid::new_v4(), WEST).await.unwrap_err().kind, Kind::Refused, "wrong epoch");
    roles.fenced(&claim, Uuid::new_v4()).await.unwrap();
    assert_eq!(grant(1, 1, Uuid::new_v4(), WEST).await.unwrap_err().kind, Kind::Refused, "not above");
    let west = roles.granted(1, WEST).await;
    assert!(write(&roles.writer, &west, "BEGIN").await.is_err(), "closed until renewed");
    roles.renewed(&west).await;
    write(&roles.writer, &west, "BEGIN").await.unwrap();
    assert_eq!(write(&roles.writer, &claim, "BEGIN").await.unwrap_err().kind, Kind::Fenced);
}

#[tokio::test]
async fn after_a_server_restart_only_a_renewal_made_on_the_new_start_opens_the_lease_again() {
    let server = Postgres::start().await.unwrap();
    support::prepare(&server, "postgres").await;
    let as_user = async |user: &'static str| support::client(&server, user, "postgres").await;
    let roles = async || support::Roles {
        root: as_user("postgres").await,
        operator: as_user("region_operator").await,
        keeper: as_user("region_keeper").await,
        writer: as_user("trading_core").await,
    };
    let before = roles().await;
    let claim = before.holding().await;
    let observed = region_lease::clock(&before.keeper).await.unwrap();
    server.restart().await.unwrap();
    let broken = write(&before.writer, &claim, "BEGIN").await.unwrap_err();
    assert_eq!(broken.kind, Kind::Connection, "{broken}");

    let after = roles().await;
    assert!(!read_lease(&after.writer, APP).await.unwrap().accepts_writes());
    assert_eq!(write(&after.writer, &claim, "BEGIN").await.unwrap_err().kind, Kind::ServerRestarted);
    let stale = region_lease::renew(&after.keeper, &claim, observed).await.unwrap_err();
    assert_eq!(stale.kind, Kind::ServerRestarted);
    after.renewed(&claim).await;
    write(&after.writer, &claim, "BEGIN").await.unwrap();
}

#[tokio::test]
async fn a_standby_shows_the_release_only_after_all_writes_before_it_and_takes_no_change() {
    let primary = Postgres::start().await.unwrap();
    support::prepare(&primary, "postgres").await;
    let standby = Postgres::standby(&primary).await.unwrap();
    let as_user = async |user: &'static str| support::client(&primary, user, "postgres").await;
    let roles = support::Roles {
        root: as_user("postgres").await,
        operator: as_user("region_operator").await,
        keeper: as_user("region_keeper").await,
        writer: as_user("trading_core").await,
    };
    let claim = roles.holding().await;
    for _ in 0..50 {
        write(&roles.writer, &claim, "BEGIN").await.unwrap();
    }
    let run = Uuid::new_v4();
    roles.fenced(&claim, run).await.unwrap();

    let there = support::client(&standby, "region_operator", "postgres").await;
    let root = support::client(&standby, "postgres", "postgres").await;
    let released = Released { epoch: claim.epoch(), to: WEST.to_owned(), run };
    tokio::time::timeout(support::SOON, async {
        loop {
            let reading = read_lease(&there, APP).await.unwrap();
            assert!(reading.in_recovery);
            if reading.row.is_some_and(|row| row.released.as_ref() == Some(&released)) {
                return;
            }
        }
    })
    .await
    .expect("the release arrives");
    let trades: i64 = root.query_one("SELECT count(*) FROM trade", &[]).await.unwrap().get(0);
    assert_eq!(trades, 50);

    let fence = region_lease::fence(&there, to_west(&claim, run)).await.unwrap_err();
    assert_eq!(fence.kind, Kind::ReadOnly, "{fence}");
    let writer = support::client(&standby, "trading_core", "postgres").await;
    let error = write(&writer, &claim, "BEGIN").await.unwrap_err();
    assert_eq!(error.kind, Kind::ReadOnly, "{error}");
    let keeper = support::client(&standby, "region_keeper", "postgres").await;
    let clock = later(region_lease::clock(&keeper).await.unwrap(), Duration::ZERO);
    assert_eq!(region_lease::renew(&keeper, &claim, clock).await.unwrap_err().kind, Kind::ReadOnly);
}

/// The row's end and the way back from having none.
async fn end(roles: &support::Roles) -> (ValidUntil, WayBack) {
    let row = read_lease(&roles.operator, APP).await.unwrap().row.unwrap();
    (row.valid_until, row.way_back)
}

#[tokio::test]
async fn a_lease_that_was_handed_back_is_limited_again_by_a_permitted_renewal_and_never_closed_between() {
    let roles = Database::new().await.roles().await;
    let claim = roles.holding().await;
    let hand_back = || region_lease::hand_back(&roles.operator, APP, claim.epoch(), claim.grant_id);
    let limit = || region_lease::limit_again(&roles.operator, APP, claim.epoch(), claim.grant_id);
    limit().await.unwrap();
    assert_ne!(end(&roles).await.0, ValidUntil::Infinity, "it has its limit already");
    hand_back().await.unwrap();
    roles.renewed(&claim).await;
    assert_eq!(end(&roles).await, (ValidUntil::Infinity, WayBack::Open), "nobody asked yet");

    limit().await.unwrap();
    assert_eq!(end(&roles).await, (ValidUntil::Infinity, WayBack::Asked), "asking alone sets no end");
    write(&roles.writer, &claim, "BEGIN").await.unwrap();
    let now = region_lease::clock(&roles.keeper).await.unwrap();
    let late = Clock { now: now.now - Duration::from_secs(11), ..now };
    region_lease::renew(&roles.keeper, &claim, late).await.unwrap();
    assert_eq!(end(&roles).await, (ValidUntil::Infinity, WayBack::Asked), "too late to leave time enough");

    hand_back().await.unwrap();
    roles.renewed(&claim).await;
    assert_eq!(end(&roles).await, (ValidUntil::Infinity, WayBack::Open), "deleted again before the renewal");
    limit().await.unwrap();
    let observed = region_lease::clock(&roles.keeper).await.unwrap();
    let until = region_lease::renew(&roles.keeper, &claim, observed).await.unwrap();
    assert_eq!(until, ValidUntil::At(observed.now + Duration::from_secs(20)));
    assert_eq!(end(&roles).await, (until, WayBack::None));
    write(&roles.writer, &claim, "BEGIN").await.unwrap();
    roles.expire().await;
    assert_eq!(write(&roles.writer, &claim, "BEGIN").await.unwrap_err().kind, Kind::Expired, "as any other");
}

#[tokio::test]
async fn what_a_person_left_without_a_limit_is_not_limited_again() {
    let roles = Database::new().await.roles().await;
    let claim = roles.holding().await;
    let named = (APP, claim.epoch(), claim.grant_id);
    region_lease::hand_back(&roles.operator, named.0, named.1, named.2).await.unwrap();
    region_lease::limit_again(&roles.operator, named.0, named.1, named.2).await.unwrap();
    region_lease::release_unlimited(&roles.operator, named.0, named.1, named.2).await.unwrap();
    roles.renewed(&claim).await;
    assert_eq!(end(&roles).await, (ValidUntil::Infinity, WayBack::None));
    let refused = region_lease::limit_again(&roles.operator, named.0, named.1, named.2).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Refused, "{refused}");
    region_lease::hand_back(&roles.operator, named.0, named.1, named.2).await.unwrap();
    assert_eq!(end(&roles).await, (ValidUntil::Infinity, WayBack::None), "a deletion does not change it");
}

#[tokio::test]
async fn a_fence_closes_the_way_back_of_the_grant_that_it_ends() {
    let roles = Database::new().await.roles().await;
    let claim = roles.holding().await;
    region_lease::hand_back(&roles.operator, APP, claim.epoch(), claim.grant_id).await.unwrap();
    region_lease::limit_again(&roles.operator, APP, claim.epoch(), claim.grant_id).await.unwrap();
    roles.fenced(&claim, Uuid::new_v4()).await.unwrap();
    assert_eq!(end(&roles).await, (ValidUntil::NegInfinity, WayBack::None));
}
