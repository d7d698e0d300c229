//! What trade matching makes of the settlements that come back for a trade.

use jiff::civil::Date;
use matching::Status;

use super::{Returned, Settlement, SettlementStatus};
use crate::message::{Allocation, Trade};

/// One side of a trade whose settlements are on their way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettlingTrade {
    /// The customer's id of the side.
    pub id: String,
    /// Business date: the id may return on another one.
    pub trade_date: Date,
    /// The version that was matched.
    pub version: u32,
    /// Where the trade stands.
    pub status: Status,
    /// Where its allocations stand.
    pub allocations: Vec<AllocationStanding>,
}

/// Where one allocation of a trade stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocationStanding {
    /// Its number within the trade.
    pub allocation_id: i64,
    /// Its account.
    pub account: String,
    /// Its share.
    pub quantity: i32,
    /// The latest of the statuses that came back.
    pub status: SettlementStatus,
}

/// What a returned settlement does to its trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The allocation gets the status.
    Moved {
        /// Number of the allocation.
        allocation_id: i64,
        /// Its status from now on.
        status: SettlementStatus,
        /// Whether it was the last one, so that the trade is SETTLED with it. True once in the life of a trade.
        trade_settled: bool,
    },
    /// The allocation had the status already.
    Repeat,
}

/// Why a returned settlement changes nothing, and is not a mere repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is about another trade, or about another day's or version's.
    OtherTrade,
    /// The trade is not matched, as far as is known here.
    NotMatched,
    /// The trade has no allocation with this number.
    UnknownAllocation,
    /// The allocation with this number is another account's.
    OtherAccount,
    /// The account's allocation with this number has another quantity.
    OtherQuantity,
    /// The allocation has a later status.
    Backwards,
}

impl Unfit {
    /// Stable reason code.
    pub fn code(self) -> &'static str {
        match self {
            Self::OtherTrade => "OTHER_TRADE",
            Self::NotMatched => "NOT_MATCHED",
            Self::UnknownAllocation => "UNKNOWN_ALLOCATION",
            Self::OtherAccount => "OTHER_ACCOUNT",
            Self::OtherQuantity => "OTHER_QUANTITY",
            Self::Backwards => "BACKWARDS",
        }
    }
}

impl SettlingTrade {
    /// A trade that has just been matched.
    pub fn of_matched(trade: &Trade) -> Self {
        let standing = |allocation: &Allocation| AllocationStanding {
            allocation_id: allocation.allocation_id,
            account: allocation.account.clone(),
            quantity: allocation.quantity,
            status: SettlementStatus::Unmatched,
        };
        Self {
            id: trade.id(),
            trade_date: trade.trade_date,
            version: trade.version,
            status: Status::Matched,
            allocations: trade.allocations.iter().map(standing).collect(),
        }
    }

    /// Takes a returned settlement and remembers its status.
    ///
    /// Each allocation has the latest status of those that came for it, so what a trade becomes depends on which ones
    /// came, not on their order, nor on how often.
    ///
    /// # Errors
    /// It does not fit the trade, which stays as it is.
    pub fn take(&mut self, returned: &Returned) -> Result<Effect, Unfit> {
        let places = self.places(&returned.settlement)?;
        let status = returned.status;
        let mut standings = places.iter().filter_map(|place| self.allocations.get(*place));
        if standings.all(|standing| standing.status == status) {
            return Ok(Effect::Repeat);
        }
        let mut moved = false;
        for place in places {
            if let Some(standing) = self.allocations.get_mut(place).filter(|known| known.status < status) {
                standing.status = status;
                moved = true;
            }
        }
        if !moved {
            return Err(Unfit::Backwards);
        }
        let before = self.status;
        self.status =
            before.after_settlements(self.allocations.iter().map(|standing| standing.status.into()));
        Ok(Effect::Moved {
            allocation_id: returned.settlement.allocation_id,
            status,
            trade_settled: self.status != before,
        })
    }

    /// Which allocations the settlement is about. More than one only if the trade names the same one twice: those have
    /// one settlement between them.
    fn places(&self, settlement: &Settlement) -> Result<Vec<usize>, Unfit> {
        if settlement.trade_id() != self.id
            || settlement.trade_date != self.trade_date
            || settlement.version != self.version
        {
            return Err(Unfit::OtherTrade);
        }
        if !matches!(self.status, Status::Matched | Status::Settled) {
            return Err(Unfit::NotMatched);
        }
        let mut left: Vec<(usize, &AllocationStanding)> = self.allocations.iter().enumerate().collect();
        let mut narrow = |same: &dyn Fn(&AllocationStanding) -> bool, otherwise| {
            left.retain(|(_, standing)| same(standing));
            if left.is_empty() { Err(otherwise) } else { Ok(()) }
        };
        narrow(&|known| known.allocation_id == settlement.allocation_id, Unfit::UnknownAllocation)?;
        narrow(&|known| known.account == settlement.account, Unfit::OtherAccount)?;
        narrow(&|known| known.quantity == settlement.quantity, Unfit::OtherQuantity)?;
        Ok(left.into_iter().map(|(place, _)| place).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settlement::of_trade;
    use crate::settlement::samples::{TAKEN_MS, broker_trade, manager_trade};

    const SETTLED: SettlementStatus = SettlementStatus::Settled;
    const MISMATCHED: SettlementStatus = SettlementStatus::Mismatched;
    const UNMATCHED: SettlementStatus = SettlementStatus::Unmatched;

    type Change = fn(&mut Settlement);

    /// The settlement of the allocation at this place, as it comes back.
    fn returned(place: usize, status: SettlementStatus) -> Returned {
        Returned { settlement: of_trade(&manager_trade(), TAKEN_MS).swap_remove(place), status }
    }

    fn moved(allocation_id: i64, status: SettlementStatus, trade_settled: bool) -> Result<Effect, Unfit> {
        Ok(Effect::Moved { allocation_id, status, trade_settled })
    }

    #[test]
    fn a_trade_is_settled_with_its_last_allocation() {
        let mut trade = SettlingTrade::of_matched(&manager_trade());
        assert_eq!(trade.take(&returned(1, SETTLED)), moved(2, SETTLED, false));
        assert_eq!(trade.status, Status::Matched);
        assert_eq!(trade.take(&returned(0, SETTLED)), moved(1, SETTLED, true));
        assert_eq!(trade.status, Status::Settled);
    }

    #[test]
    fn a_trade_with_a_mismatched_allocation_stays_matched() {
        let mut trade = SettlingTrade::of_matched(&manager_trade());
        assert_eq!(trade.take(&returned(0, MISMATCHED)), moved(1, MISMATCHED, false));
        assert_eq!(trade.take(&returned(1, SETTLED)), moved(2, SETTLED, false));
        assert_eq!(trade.status, Status::Matched);
    }

    #[test]
    fn the_same_settlement_again_changes_nothing() {
        let mut trade = SettlingTrade::of_matched(&manager_trade());
        assert_eq!(trade.take(&returned(0, UNMATCHED)), Ok(Effect::Repeat));
        trade.take(&returned(0, SETTLED)).unwrap();
        assert_eq!(trade.take(&returned(0, SETTLED)), Ok(Effect::Repeat));
        trade.take(&returned(1, SETTLED)).unwrap();
        let settled = trade.clone();
        assert_eq!(trade.take(&returned(1, SETTLED)), Ok(Effect::Repeat));
        assert_eq!(trade, settled);
    }

    #[test]
    fn no_status_goes_backwards() {
        for (later, earlier) in [(SETTLED, MISMATCHED), (SETTLED, UNMATCHED), (MISMATCHED, UNMATCHED)] {
            let mut trade = SettlingTrade::of_matched(&manager_trade());
            trade.take(&returned(0, later)).unwrap();
            let before = trade.clone();
            assert_eq!(trade.take(&returned(0, earlier)), Err(Unfit::Backwards));
            assert_eq!(trade, before);
        }
    }

    /// The rules of matching never do so, but the reference's do, and somebody may have to correct a mismatch.
    #[test]
    fn a_mismatched_allocation_may_still_settle() {
        let mut trade = SettlingTrade::of_matched(&manager_trade());
        trade.take(&returned(0, MISMATCHED)).unwrap();
        assert_eq!(trade.take(&returned(0, SETTLED)), moved(1, SETTLED, false));
    }

    #[test]
    fn what_fits_nothing_changes_nothing_and_has_a_reason() {
        let cases: [(Change, Unfit); 7] = [
            (|one| one.allocation_id = 3, Unfit::UnknownAllocation),
            (|one| one.account = "4208812345".into(), Unfit::OtherAccount),
            (|one| one.quantity = 34, Unfit::OtherQuantity),
            (|one| one.trade = "3500018".into(), Unfit::OtherTrade),
            (|one| one.sender = one.broker.clone(), Unfit::OtherTrade),
            (|one| one.trade_date = jiff::civil::date(2022, 2, 9), Unfit::OtherTrade),
            (|one| one.version = 2, Unfit::OtherTrade),
        ];
        for (change, unfit) in cases {
            let mut trade = SettlingTrade::of_matched(&manager_trade());
            let before = trade.clone();
            let mut other = returned(0, SETTLED);
            change(&mut other.settlement);
            assert_eq!(trade.take(&other), Err(unfit), "{}", unfit.code());
            assert_eq!(trade, before);
        }
    }

    #[test]
    fn a_trade_that_is_not_matched_has_no_settlements() {
        for status in [Status::Unmatched, Status::Mismatched, Status::Cancelled, Status::Expired] {
            let mut trade = SettlingTrade { status, ..SettlingTrade::of_matched(&manager_trade()) };
            assert_eq!(trade.take(&returned(0, SETTLED)), Err(Unfit::NotMatched));
        }
    }

    #[test]
    fn each_side_of_a_trade_settles_by_its_own_settlements() {
        let mut trade = SettlingTrade::of_matched(&broker_trade());
        assert_eq!(trade.take(&returned(0, SETTLED)), Err(Unfit::OtherTrade));
        for settlement in of_trade(&broker_trade(), TAKEN_MS) {
            trade.take(&Returned { settlement, status: SETTLED }).unwrap();
        }
        assert_eq!(trade.status, Status::Settled);
    }

    #[test]
    fn an_allocation_that_is_named_twice_is_settled_once() {
        let mut reported = manager_trade();
        let mut other_account = reported.allocations[1].clone();
        other_account.allocation_id = 1;
        reported.allocations =
            vec![reported.allocations[0].clone(), other_account, reported.allocations[0].clone()];
        let settlements = of_trade(&reported, TAKEN_MS);
        let mut trade = SettlingTrade::of_matched(&reported);
        let mut take =
            |place: usize| trade.take(&Returned { settlement: settlements[place].clone(), status: SETTLED });
        assert_eq!(take(0), moved(1, SETTLED, false));
        assert_eq!(take(2), Ok(Effect::Repeat));
        assert_eq!(take(1), moved(1, SETTLED, true));
    }

    /// Every sequence of five out of all that can come for two allocations, with a stranger among it: so every order,
    /// and every number of repetitions.
    #[test]
    fn what_a_trade_becomes_does_not_depend_on_order_or_repetitions() {
        let statuses = [UNMATCHED, MISMATCHED, SETTLED];
        let mut possible: Vec<Returned> =
            [0, 1].into_iter().flat_map(|place| statuses.map(|status| returned(place, status))).collect();
        let mut stranger = returned(0, SETTLED);
        stranger.settlement.quantity += 1;
        possible.push(stranger);
        let count = possible.len();
        for number in 0..count.pow(5) {
            let sequence: Vec<usize> =
                (0..5).scan(number, |rest, _| Some(std::mem::replace(rest, *rest / count) % count)).collect();
            let mut trade = SettlingTrade::of_matched(&manager_trade());
            let settled = sequence
                .iter()
                .filter(|which| {
                    let effect = trade.take(&possible[**which]);
                    matches!(effect, Ok(Effect::Moved { trade_settled: true, .. }))
                })
                .count();
            // What it must be is told by the set of those that came alone.
            let latest = |of: std::ops::Range<usize>| {
                of.rev().find(|which| sequence.contains(which)).map_or(UNMATCHED, |which| statuses[which % 3])
            };
            let expected = [latest(0..3), latest(3..6)];
            let found: Vec<_> = trade.allocations.iter().map(|standing| standing.status).collect();
            assert_eq!(found, expected, "{sequence:?}");
            let all = expected == [SETTLED, SETTLED];
            assert_eq!(trade.status, if all { Status::Settled } else { Status::Matched }, "{sequence:?}");
            assert_eq!(settled, usize::from(all), "{sequence:?}");
        }
    }
}
