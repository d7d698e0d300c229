//! `services lease migrate` as people run it.

#![expect(clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

use std::process::{Command, Output};

use lab::temporary::Postgres;

fn migrate(server: &Postgres, more: &[&str]) -> Output {
    let password = tempfile::NamedTempFile::new().unwrap();
    let (port, file) = (server.port().to_string(), password.path().display().to_string());
    Command::new(env!("CARGO_BIN_EXE_services"))
        .args(["lease", "migrate", "--database-host", server.host(), "--database-port", &port])
        .args(["--database-user", "postgres", "--database-password-file", &file])
        .args(more)
        .env_clear()
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn the_lease_of_an_own_application_is_made_once_and_arrives_at_the_standby() {
    let server = Postgres::start().await.unwrap();
    let standby = Postgres::standby(&server).await.unwrap();
    let named = ["--app", "orders", "--database-name", "postgres"];
    let first = migrate(&server, &named);
    assert!(first.status.success(), "{}", text(&first.stderr));
    assert!(
        text(&first.stdout).ends_with("enrolled orders with a lease of 20 s\n"),
        "{}",
        text(&first.stdout)
    );
    let again = migrate(&server, &[&named[..], &["--lease-seconds", "30"]].concat());
    assert_eq!(text(&again.stdout), "enrolled orders with a lease of 30 s\n", "{}", text(&again.stderr));
    let there = migrate(&standby, &named);
    assert!(there.status.success() && text(&there.stdout).contains("standby"), "{}", text(&there.stderr));
}

#[tokio::test]
async fn application_and_database_must_be_named() {
    let server = Postgres::start().await.unwrap();
    for (missing, given) in
        [("--app", ["--database-name", "postgres"]), ("--database-name", ["--app", "orders"])]
    {
        let refused = migrate(&server, &given);
        assert_eq!(refused.status.code(), Some(2));
        assert!(text(&refused.stderr).contains(missing), "{}", text(&refused.stderr));
    }
}
