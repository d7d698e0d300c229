use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    args: GenerateArgs,
}

const BROKER: [&str; 7] = [
    "generate",
    "--broker-url",
    "amqp://localhost",
    "--submit-password-file",
    "submit",
    "--answers-password-file",
    "answers",
];

fn parse(options: &str) -> Result<GenerateArgs, String> {
    let words = BROKER.into_iter().chain(options.split_whitespace());
    Program::try_parse_from(words).map(|program| program.args).map_err(|error| error.to_string())
}

/// What is said about these options, by the parser or by the checks after it.
fn refusal(options: &str) -> String {
    let args = match parse(options) {
        Ok(args) => args,
        Err(refused) => return refused,
    };
    let order = args.order(Timestamp::UNIX_EPOCH, 1).and_then(|_| {
        args.users(
            ("--submit-user", &args.submit_user),
            ("--submit-password-file", &args.submit_password_file),
        )
    });
    order.expect_err(options).to_string()
}

#[test]
fn each_wrong_option_is_refused_with_its_name() {
    for (options, option, reason) in [
        ("--rate 0", "--rate", "above 0"),
        ("--rate NaN", "--rate", "above 0"),
        ("--rate 1e9", "--rate", "at most"),
        ("--rate 1000000 --duration 60", "--duration", "50 million"),
        ("--rate 1000000 --duration 90 --count 80000000", "--count", "50 million"),
        ("--dry-run --count 60000000", "--count", "50 million"),
        ("--duration 99999999", "--duration", "31536000"),
        ("--burst 0", "--burst", "1..="),
        ("--count 0", "--count", "0"),
        ("--count 3 --customers 4", "--count", "4 customers"),
        ("--customers 0", "--customers", "1..="),
        ("--customers 65", "--customers", "64"),
        ("--run-id 10000000", "--run-id", "10000000"),
        ("--seed x", "--seed", "invalid digit"),
        ("--bad-share 1.1", "--bad-share", "between 0 and 1"),
        ("--bad-share NaN", "--bad-share", "between 0 and 1"),
        ("--bad-share 0.1 --bad-kinds truncatd", "--bad-kinds", "none of: truncated"),
        ("--bad-kinds truncated", "--bad-share", "required"),
        ("--odds matched=x", "--odds", "no weight"),
        ("--quantity 0..2", "--quantity", "INVALID quantity"),
        ("--allocations 1..101", "--allocations", "100"),
        ("--block-size 5", "--block-size", "10 allocations"),
        ("--managers A,A-B", "--managers", "imID"),
        ("--managers QABRO010", "--brokers", "parties"),
        ("--prices 1.005", "--prices", "INVALID price"),
        ("--prices 1 --price-range 1..2", "--price-range", "cannot be used"),
        ("--price-range 2..1", "--price-range", "range of prices"),
        ("--trade-date 2026-02-30", "--trade-date", "day"),
        ("--trade-date 1800-01-01", "--trade-date", "tradeDate"),
        ("--settlement-days 70000", "--settlement-days", "65535"),
        ("--trade-date 2999-12-31 --settlement-days 1", "--settlement-days", "settlementDate"),
        ("--record-limit 0", "--record-limit", "0"),
        ("--dry-run", "--count", "required"),
        ("--dry-run --count 5 --ledger x", "--ledger", "cannot be used"),
        ("--dry-run --count 5 --wait 5", "--wait", "cannot be used"),
        ("--dry-run --count 5 --settled", "--settled", "cannot be used"),
        ("--submit-user a --submit-user b", "--submit-user", "2 times"),
        ("--customers 2 --submit-user a --submit-user b", "--submit-password-file", "1 times"),
        ("--output yaml", "--output", "json"),
        ("--dns nowhere", "--dns", "invalid"),
    ] {
        let refused = refusal(options);
        assert!(refused.contains(option) && refused.contains(reason), "{options}: {refused}");
    }
    let nothing = Program::try_parse_from(["generate"]).unwrap_err().to_string();
    assert!(nothing.contains("--broker-url") && nothing.contains("--submit-password-file"), "{nothing}");
}

fn order(options: &str) -> Order {
    parse(options).unwrap().order(Timestamp::UNIX_EPOCH, 1).unwrap()
}

#[test]
fn customers_share_the_rate_and_the_count_and_take_turns() {
    let order = order("--customers 3 --rate 30 --count 10");
    let paces: Vec<_> = order.sources.iter().map(|(_, pace)| *pace).collect();
    assert!(paces.iter().all(|pace| (pace.rate - 10.0).abs() < 1e-9));
    assert_eq!(paces.iter().map(|pace| pace.count.unwrap()).collect::<Vec<_>>(), [4, 3, 3]);
    let mut due: Vec<_> = paces.iter().flat_map(|pace| [pace.due(0), pace.due(1)]).collect();
    due.sort_unstable();
    let apart = |pair: &[Duration]| (pair[1] - pair[0]).as_secs_f64();
    assert!(due.windows(2).all(|pair| (apart(pair) - 1.0 / 30.0).abs() < 1e-6), "{due:?}");
}

#[test]
fn the_options_of_the_original_are_the_defaults() {
    let args = parse("").unwrap();
    assert_eq!(args.mix.mix(), Mix::default());
}

#[test]
fn each_user_of_several_customers_has_its_own_password_or_all_have_one() {
    let options = "--customers 2 --submit-user a --submit-user b --submit-password-file other";
    let args = parse(options).unwrap();
    let submit = ("--submit-user", &*args.submit_user);
    let users = args.users(submit, ("--submit-password-file", &args.submit_password_file)).unwrap();
    assert_eq!(users, [("a", &PathBuf::from("submit")), ("b", &PathBuf::from("other"))]);
    let answers = ("--answers-user", &*args.answers_user);
    let users = args.users(answers, ("--answers-password-file", &args.answers_password_file)).unwrap();
    assert_eq!(users, [("customer-answers", &PathBuf::from("answers"))]);
}

/// The lines of a dry run.
fn lines(options: &str) -> Vec<serde_json::Value> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lines");
    let mut records = Records::create(Some(&file), None, 10_000).unwrap();
    let written = order(&format!("--dry-run {options}")).write(&mut records);
    records.finish().unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len() as u64, written);
    lines
}

#[test]
fn a_dry_run_needs_no_broker_and_writes_the_same_for_the_same_seed() {
    let words = ["generate", "--dry-run", "--count", "7"];
    let args = Program::try_parse_from(words).unwrap().args;
    args.order(Timestamp::UNIX_EPOCH, 1).unwrap();
    let options = "--seed 5 --run-id 3 --count 200 --customers 2 --bad-share 0.2 --bad-kinds all";
    let first = lines(options);
    assert_eq!(first, lines(options));
    assert_ne!(first, lines(&options.replace("--seed 5", "--seed 6")));
    let counterparts = first.iter().filter(|line| line["kind"] == "counterpart").count();
    // Each customer may have been in the middle of a pair.
    assert!((200..=202).contains(&(first.len() - counterparts)) && counterparts > 20, "{counterparts}");
    let due: Vec<_> = first[..200].iter().map(|line| line["dueSeconds"].as_f64().unwrap()).collect();
    assert!(due.is_sorted());
    let customers: std::collections::HashSet<_> =
        first.iter().map(|line| line["customer"].as_u64()).collect();
    assert_eq!(customers.len(), 2);
}
