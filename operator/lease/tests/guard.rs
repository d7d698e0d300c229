//! What the database refuses to writers, and what it takes, on a real PostgreSQL.
#![allow(clippy::panic, clippy::unwrap_used, unreachable_pub, reason = "a test ends at the first surprise")]

mod support;

use std::time::Duration;

use region_lease::{Guard, LeaseErrorKind as Kind, LeaseErrorKind, Opened, ValidUntil, read_lease};
use support::{APP, Database, EAST, INSERT, WEST, sorted, write};
use uuid::Uuid;

/// Runs statements one by one and gives the kind of the first refusal.
async fn refusal(client: &tokio_postgres::Client, statements: &[&str]) -> Option<Kind> {
    let mut refused = None;
    for statement in statements {
        if let Err(error) = client.batch_execute(statement).await {
            refused = Some(sorted(error).kind);
            break;
        }
    }
    if !client.is_closed() {
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    refused
}

fn call(claim: &Guard) -> String {
    format!(
        "SELECT region.guard('{}', '{}', {}, '{}')",
        claim.app,
        claim.region,
        claim.epoch(),
        claim.grant_id
    )
}

#[tokio::test]
async fn a_holder_writes_once_its_grant_was_renewed_and_not_before() {
    let roles = Database::new().await.roles().await;
    let claim = roles.granted(0, EAST).await;
    assert_eq!(write(&roles.writer, &claim, "BEGIN").await.unwrap_err().kind, Kind::ServerRestarted);
    assert_eq!(roles.trades().await, 0);
    roles.renewed(&claim).await;
    write(&roles.writer, &claim, "BEGIN").await.unwrap();
    assert_eq!(roles.trades().await, 1);
}

#[tokio::test]
async fn a_claim_that_differs_in_any_part_is_fenced() {
    let roles = Database::new().await.roles().await;
    let claim = roles.holding().await;
    let wrong = [
        Guard::new("other", EAST, claim.epoch(), claim.grant_id),
        Guard::new(APP, WEST, claim.epoch(), claim.grant_id),
        Guard::new(APP, EAST, claim.epoch() + 1, claim.grant_id),
        Guard::new(APP, EAST, claim.epoch(), Uuid::new_v4()),
        Guard::new(APP, EAST, u64::MAX, claim.grant_id),
    ];
    for other in wrong {
        assert_eq!(write(&roles.writer, &other, "BEGIN").await.unwrap_err().kind, Kind::Fenced, "{other:?}");
    }
    assert_eq!(roles.trades().await, 0);
}

#[tokio::test]
async fn only_read_committed_is_taken() {
    let roles = Database::new().await.roles().await;
    let claim = roles.holding().await;
    for (level, refused) in [
        ("READ UNCOMMITTED", None),
        ("READ COMMITTED", None),
        ("REPEATABLE READ", Some(Kind::Isolation)),
        ("SERIALIZABLE", Some(Kind::Isolation)),
    ] {
        let result = write(&roles.writer, &claim, &format!("BEGIN ISOLATION LEVEL {level}")).await;
        assert_eq!(result.err().map(|error| error.kind), refused, "{level}");
    }
}

#[tokio::test]
async fn an_expired_lease_is_refused_and_may_be_renewed_by_its_holder() {
    let roles = Database::new().await.roles().await;
    let claim = roles.holding().await;
    roles.expire().await;
    assert_eq!(write(&roles.writer, &claim, "BEGIN").await.unwrap_err().kind, Kind::Expired);
    roles.renewed(&claim).await;
    write(&roles.writer, &claim, "BEGIN").await.unwrap();
}

#[tokio::test]
async fn a_lease_that_runs_out_inside_a_transaction_stops_its_last_guard_and_its_next_write() {
    let roles = Database::new().await.roles().await;
    let claim = roles.holding().await;
    for next in [call(&claim), "INSERT INTO trade VALUES (1, 1)".to_owned()] {
        roles.renewed(&claim).await;
        roles.writer.batch_execute("BEGIN").await.unwrap();
        roles.writer.batch_execute(&call(&claim)).await.unwrap();
        roles.writer.execute(INSERT, &[&1_i64, &1_i64]).await.unwrap();
        roles.expire().await;
        assert_eq!(refusal(&roles.writer, &[&next]).await, Some(Kind::Expired), "{next}");
    }
    assert_eq!(roles.trades().await, 0);
}

#[tokio::test]
async fn a_transaction_without_a_short_timeout_is_refused() {
    let roles = Database::new().await.roles().await;
    let claim = roles.holding().await;
    for (timeout, refused) in
        [("0", true), ("5001ms", true), ("1h", true), ("5s", false), ("250ms", false), ("1s", false)]
    {
        let set = format!("SET transaction_timeout = '{timeout}'");
        let refusal = refusal(&roles.writer, &[&set, "BEGIN", &call(&claim)]).await;
        assert_eq!(refusal, refused.then_some(Kind::TransactionTimeout), "{timeout}");
    }
}

#[tokio::test]
async fn a_timeout_shortened_in_mid_transaction_counts_from_its_begin() {
    let roles = Database::new().await.roles().await;
    let claim = roles.holding().await;
    // The session's timer of one hour runs already; PostgreSQL does not move it for the second SET.
    let statements = ["SET transaction_timeout = '1h'", "BEGIN", "SET LOCAL transaction_timeout = '300ms'"];
    roles.writer.batch_execute(&statements.join(";")).await.unwrap();
    roles.writer.batch_execute(&call(&claim)).await.unwrap();
    roles.writer.execute(INSERT, &[&1_i64, &1_i64]).await.unwrap();
    let ended = tokio::time::timeout(support::SOON, async {
        while !roles.writer.is_closed() {
            // The server ends the session by itself; reading notices.
            let _ = roles.root.query_one("SELECT pg_sleep(0.02)", &[]).await;
        }
    });
    ended.await.expect("the guard arms the timer anew");
    assert_eq!(roles.trades().await, 0);
}

#[tokio::test]
async fn a_guarded_transaction_can_not_be_prepared() {
    let roles = Database::new().await.roles().await;
    let claim = roles.holding().await;
    for statements in [
        vec!["BEGIN", "GUARD", "PREPARE TRANSACTION 'p'"],
        vec!["BEGIN", "GUARD", "INSERT INTO trade VALUES (1, 1)", "PREPARE TRANSACTION 'p'"],
        vec!["BEGIN", "GUARD", "SELECT pg_advisory_unlock_all()", "PREPARE TRANSACTION 'p'"],
    ] {
        let (last, first) = statements.split_last().unwrap();
        for statement in first {
            let sql = if *statement == "GUARD" { call(&claim) } else { (*statement).to_owned() };
            roles.writer.batch_execute(&sql).await.unwrap();
        }
        let error = roles.writer.batch_execute(last).await.unwrap_err();
        assert!(format!("{:?}", error.as_db_error()).contains("cannot PREPARE"), "{error:?}");
    }
    // Nor when the guard hides in a savepoint that is rolled back.
    let statements = ["BEGIN", "SAVEPOINT s", &call(&claim)];
    assert_eq!(refusal(&roles.writer, &statements).await, Some(Kind::Other));
    let prepared: i64 =
        roles.root.query_one("SELECT count(*) FROM pg_prepared_xacts", &[]).await.unwrap().get(0);
    assert_eq!(prepared, 0);
}

#[tokio::test]
async fn every_kind_of_write_without_the_guard_is_refused() {
    let database = Database::new().await;
    let roles = database.roles().await;
    let claim = roles.holding().await;
    write(&roles.writer, &claim, "BEGIN").await.unwrap();
    for statement in [
        "INSERT INTO trade VALUES (2, 1)",
        "UPDATE trade SET id = 3",
        "DELETE FROM trade",
        "TRUNCATE trade",
        "MERGE INTO trade USING (SELECT 9 AS id) s ON trade.id = s.id WHEN NOT MATCHED THEN INSERT VALUES (9, 1)",
        // Even one that touches no row.
        "DELETE FROM trade WHERE false",
    ] {
        let plain = refusal(&roles.writer, &[statement]).await;
        assert_eq!(plain, Some(Kind::GuardMissing), "{statement}");
    }
    // The guard of an earlier transaction does not count, and neither the owner nor replica mode escapes.
    let earlier = ["BEGIN", &call(&claim), "COMMIT", "INSERT INTO trade VALUES (2, 1)"];
    assert_eq!(refusal(&roles.writer, &earlier).await, Some(Kind::GuardMissing));
    let owner = ["SET ROLE trading_owner", "INSERT INTO trade VALUES (2, 1)"];
    assert_eq!(refusal(&roles.root, &owner).await, Some(Kind::GuardMissing));
    let replica = ["RESET ROLE", "SET session_replication_role = replica", "INSERT INTO trade VALUES (2, 1)"];
    assert_eq!(refusal(&roles.root, &replica).await, Some(Kind::GuardMissing));
    assert_eq!(roles.trades().await, 1);
}

#[tokio::test]
async fn a_forged_marker_is_refused() {
    let roles = Database::new().await.roles().await;
    let claim = roles.holding().await;
    let payload = format!(
        "json_build_array(pg_current_xact_id()::text, '{APP}', '{EAST}', {}, '{}')::text",
        claim.epoch(),
        claim.grant_id
    );
    let forgeries = [
        format!("SELECT set_config('region.marker', {payload}, true)"),
        format!("SELECT set_config('region.marker', repeat('0', 64) || {payload}, true)"),
        format!(
            "SELECT set_config('region.marker', encode(sha256(convert_to({payload}, 'UTF8')), 'hex') || {payload}, true)"
        ),
        "SELECT set_config('region.marker', 'nonsense', true)".to_owned(),
    ];
    for forgery in &forgeries {
        let statements = ["BEGIN", forgery, "INSERT INTO trade VALUES (2, 1)"];
        assert_eq!(refusal(&roles.writer, &statements).await, Some(Kind::GuardMissing), "{forgery}");
    }
    // A true marker, kept from an earlier transaction.
    roles.writer.batch_execute("BEGIN").await.unwrap();
    roles.writer.batch_execute(&call(&claim)).await.unwrap();
    let read = "SELECT current_setting('region.marker')";
    let kept: String = roles.writer.query_one(read, &[]).await.unwrap().get(0);
    roles.writer.batch_execute("COMMIT").await.unwrap();
    let replay = format!("SELECT set_config('region.marker', '{kept}', true)");
    let statements = ["BEGIN", &replay, "INSERT INTO trade VALUES (2, 1)"];
    assert_eq!(refusal(&roles.writer, &statements).await, Some(Kind::GuardMissing));
    for secret in ["SELECT * FROM region.secret", "SELECT region.sign('x')"] {
        assert_eq!(refusal(&roles.writer, &[secret]).await, Some(Kind::Denied), "{secret}");
    }
    assert_eq!(roles.trades().await, 0);
}

#[tokio::test]
async fn a_grant_is_for_the_core_stages_and_the_intake_opens_only_while_it_is_valid() {
    let roles = Database::new().await.roles().await;
    let claim = roles.granted(0, EAST).await;
    assert_eq!(roles.opened(&claim, Opened::Intake).await.unwrap_err().kind, Kind::ServerRestarted);
    roles.renewed(&claim).await;
    assert_eq!(read_lease(&roles.keeper, APP).await.unwrap().row.unwrap().opened, Opened::Core);
    for _ in 0..2 {
        roles.opened(&claim, Opened::Intake).await.unwrap();
    }
    assert_eq!(roles.opened(&claim, Opened::Core).await.unwrap_err().kind, Kind::Refused);
    roles.expire().await;
    assert_eq!(roles.opened(&claim, Opened::Intake).await.unwrap_err().kind, Kind::Expired);
    let other = Guard::new(APP, EAST, claim.epoch(), Uuid::new_v4());
    assert_eq!(roles.opened(&other, Opened::Intake).await.unwrap_err().kind, Kind::Fenced);
}

#[tokio::test]
async fn a_delayed_renewal_widens_nothing_and_an_observation_from_the_future_is_refused() {
    let roles = Database::new().await.roles().await;
    let claim = roles.granted(0, EAST).await;
    let old = region_lease::clock(&roles.keeper).await.unwrap();
    roles.renewed(&claim).await;
    let before = read_lease(&roles.keeper, APP).await.unwrap().row.unwrap();
    let ValidUntil::At(end) = before.valid_until else { panic!("{before:?}") };
    assert_eq!(end, before.renewed_at.unwrap() + before.lease_duration, "D counts from the observation");

    // The delayed request arrives now: the end stays, it neither moves forward nor back.
    assert_eq!(region_lease::renew(&roles.keeper, &claim, old).await.unwrap(), ValidUntil::At(end));
    let future = support::later(region_lease::clock(&roles.keeper).await.unwrap(), Duration::from_secs(60));
    let error = region_lease::renew(&roles.keeper, &claim, future).await.unwrap_err();
    assert_eq!(error.kind, LeaseErrorKind::Other, "{error}");
    assert_eq!(read_lease(&roles.keeper, APP).await.unwrap().row.unwrap().valid_until, ValidUntil::At(end));
}

#[tokio::test]
async fn an_unlimited_lease_stays_with_its_holder_and_only_a_valid_one_becomes_unlimited() {
    let roles = Database::new().await.roles().await;
    let claim = roles.holding().await;
    roles.expire().await;
    let release = || region_lease::release_unlimited(&roles.operator, APP, claim.epoch(), claim.grant_id);
    assert_eq!(release().await.unwrap_err().kind, Kind::Expired);
    roles.renewed(&claim).await;
    release().await.unwrap();
    release().await.unwrap();
    roles.renewed(&claim).await;
    let reading = read_lease(&roles.writer, APP).await.unwrap();
    assert!(reading.accepts_writes());
    assert_eq!(reading.row.unwrap().valid_until, ValidUntil::Infinity);
    write(&roles.writer, &claim, "BEGIN").await.unwrap();
}
