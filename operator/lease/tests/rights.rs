//! Each role may do its own and nothing else.
#![allow(clippy::panic, clippy::unwrap_used, unreachable_pub, reason = "a test ends at the first surprise")]

mod support;

use std::time::Duration;

use region_lease::{ConnectOptions, LeaseErrorKind as Kind, Retry, connect};
use support::{APP, Database};
use tokio_postgres::config::SslMode;

const OPERATOR: &[&str] =
    &["abort", "clock", "fence", "grant", "hand_back", "limit_again", "open", "release_unlimited"];
const KEEPER: &[&str] = &["clock", "renew"];
const WRITER: &[&str] = &["clock", "guard"];

#[tokio::test]
async fn each_role_may_call_exactly_its_own_functions() {
    let root = Database::new().await.as_user("postgres").await;
    let sql = "SELECT DISTINCT p.proname::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
               WHERE n.nspname = 'region' AND has_function_privilege($1, p.oid, 'EXECUTE') ORDER BY 1";
    root.batch_execute("CREATE ROLE nobody_special").await.unwrap();
    for (role, expected) in [
        ("region_operator", OPERATOR),
        ("region_keeper", KEEPER),
        ("region_writer", WRITER),
        ("trading_core", WRITER),
        ("trading_owner", &[]),
        ("nobody_special", &[]),
    ] {
        let rows = root.query(sql, &[&role]).await.unwrap();
        let allowed: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(allowed, expected, "{role}");
    }
    root.batch_execute("DROP ROLE nobody_special").await.unwrap();
}

#[tokio::test]
async fn the_row_is_read_by_its_users_and_written_by_no_role() {
    let root = Database::new().await.as_user("postgres").await;
    let sql =
        "SELECT has_table_privilege($1, c.oid, $2) FROM pg_class c WHERE c.oid = ('region.' || $3)::regclass";
    for role in ["region_operator", "region_keeper", "region_writer", "trading_core", "trading_owner"] {
        for table in ["lease", "aborted", "secret"] {
            for right in ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER"] {
                let allowed: bool = root.query_one(sql, &[&role, &right, &table]).await.unwrap().get(0);
                let expected = table == "lease" && right == "SELECT" && role != "trading_owner";
                assert_eq!(allowed, expected, "{role} {right} region.{table}");
            }
        }
    }
}

#[tokio::test]
async fn every_definer_function_belongs_to_the_owner_and_has_a_fixed_search_path() {
    let root = Database::new().await.as_user("postgres").await;
    let sql = "SELECT p.proname::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
               WHERE n.nspname = 'region' AND (p.proowner <> 'region_owner'::regrole OR p.prosecdef AND NOT \
               coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false))";
    let wrong: Vec<String> = root.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test]
async fn a_role_that_tries_what_is_not_its_own_is_denied() {
    let database = Database::new().await;
    let roles = database.roles().await;
    let claim = roles.holding().await;
    let claimed = format!("'{APP}', {}, '{}'", claim.epoch(), claim.grant_id);
    for (client, statements) in [
        (
            &roles.keeper,
            vec![format!("SELECT region.open({claimed}, 'core')"), "DELETE FROM region.lease".into()],
        ),
        (&roles.operator, vec!["SELECT region.sign('x')".into(), "UPDATE region.lease SET epoch = 9".into()]),
        (
            &roles.writer,
            vec![
                format!("SELECT region.release_unlimited({claimed})"),
                format!("SELECT region.limit_again({claimed})"),
                "ALTER TABLE trade DISABLE TRIGGER region_guard".into(),
                "DROP TRIGGER region_guard ON trade".into(),
                "SET session_replication_role = replica".into(),
                "CREATE FUNCTION region.mine() RETURNS void LANGUAGE sql AS ''".into(),
            ],
        ),
    ] {
        for statement in statements {
            let error = client.batch_execute(&statement).await.map_err(support::sorted).unwrap_err();
            assert_eq!(error.kind, Kind::Denied, "{statement}: {error}");
        }
    }
}

#[tokio::test]
async fn migrating_again_changes_nothing_and_needs_no_superuser() {
    let database = Database::new().await;
    let root = database.as_user("postgres").await;
    root.batch_execute("CREATE ROLE test_migrator LOGIN; GRANT region_owner TO test_migrator").await.unwrap();
    let mut migrator = database.as_user("test_migrator").await;
    assert_eq!(region_lease::migrate(&mut migrator).await.unwrap(), Vec::<String>::new());
    for (duration, taken) in [(1, true), (20, true), (60, true), (0, false), (61, false)] {
        let result = region_lease::enroll(&migrator, APP, Duration::from_secs(duration)).await;
        assert_eq!(result.is_ok(), taken, "{duration} s: {result:?}");
    }
    drop(migrator);
}

#[tokio::test]
async fn connecting_tells_a_wrong_role_from_an_absent_server_and_a_wrong_certificate() {
    let database = Database::new().await;
    let good = database.options("region_keeper");
    let unknown = connect(&ConnectOptions { user: "nobody".into(), ..good.clone() }).await.unwrap_err();
    assert_eq!(unknown.kind, Kind::Denied, "{unknown}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let absent = connect(&ConnectOptions { port: free, ..good.clone() }).await.unwrap_err();
    assert_eq!(absent.kind, Kind::Connection, "{absent}");
    let garbage = connect(&ConnectOptions { ca_pem: Some("garbage".into()), ..good }).await.unwrap_err();
    assert_eq!(garbage.kind, Kind::Other, "{garbage}");
}

#[tokio::test]
async fn without_a_certificate_authority_only_this_machine_is_connected_to() {
    for host in ["db.example", "10.99.1.2", "128.0.0.1", "::2", "localhost.example", ""] {
        let options = ConnectOptions::new(host, 5432, "trading", "region_keeper");
        let refused = connect(&options).await.unwrap_err();
        assert_eq!((refused.kind, refused.retry()), (Kind::Other, Retry::Never), "{refused}");
        assert!(refused.to_string().contains("a certificate authority must be given"), "{refused}");
        // Nor does a caller who forgets to ask for the connector.
        assert_eq!(options.pg_config().get_ssl_mode(), SslMode::Require, "{host}");
    }
    for host in ["127.0.0.1", "127.0.1.1", "::1", "localhost"] {
        let options = ConnectOptions::new(host, 5432, "trading", "region_keeper");
        assert!(options.tls_connector().unwrap().is_none(), "{host}");
    }
}
