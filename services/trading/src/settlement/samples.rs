//! A trade for tests, as both of its parties report it.

use crate::message::Trade;
use crate::parse;

/// When both reports were taken: 2022-02-08T09:25:45.678Z.
pub(super) const TAKEN_MS: i64 = 1_644_312_345_678;

const MANAGER: &str = r#"{"senderID":"QAINS012","imID":"QAINS012","brokerID":"QABRO010","tradeID":"3500017","security":"AMZN","transactionIndicator":"B","price":18.5,"quantity":2,"tradeDate":"2022-02-08T00:00:00Z","settlementDate":"2022-02-10T00:00:00Z","deliveryInstructions":"lorem","status":"Unmatched","allocations":["{\"allocationID\":1,\"quantity\":33,\"account\":\"1538552570\",\"status\":\"Unmatched\"}","{\"allocationID\":2,\"quantity\":67,\"account\":\"4208812345\",\"status\":\"Unmatched\"}"]}"#;

/// The investment manager's report.
pub(super) fn manager_trade() -> Trade {
    parse::trade(MANAGER, "QAINS012-QAINS012-QABRO010-3500017").unwrap()
}

/// The broker's report of the same trade.
pub(super) fn broker_trade() -> Trade {
    let broker = MANAGER.replacen("QAINS012", "QABRO010", 1);
    parse::trade(&broker, "QABRO010-QAINS012-QABRO010-3500017").unwrap()
}
