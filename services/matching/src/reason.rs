//! Why a report is not matched: a reason for every one.

use crate::{Allocation, Decision, Difference, Differences, Outcome, Refusal, Report};

/// Why a side is not matched, or a report was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The other party has reported nothing like it.
    NoCounterpart,
    /// The other party's report differs in these; never empty. Of an open side: the other party reported the same trade
    /// under another key.
    Differs(Differences),
    /// Withdrawn by its sender.
    Cancelled,
    /// Its last day passed.
    Expired,
    /// The report changes nothing.
    Refused(Refusal),
}

impl Reason {
    /// Stable reason codes for messages; never empty, and more than one only for differences.
    pub fn codes(self) -> Vec<&'static str> {
        match self {
            Self::NoCounterpart => vec!["NO_COUNTERPART"],
            Self::Differs(differences) => differences.iter().map(Difference::code).collect(),
            Self::Cancelled => vec!["CANCELLED"],
            Self::Expired => vec!["EXPIRED"],
            Self::Refused(refusal) => vec![refusal.code()],
        }
    }
}

impl Decision {
    /// Why the report is not matched; `None` when it is, or was decided before.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Open(_) => Some(Reason::NoCounterpart),
            Self::Paired { outcome: Outcome::Mismatched(differences), .. } => {
                Some(Reason::Differs(*differences))
            }
            Self::Cancelled(_) => Some(Reason::Cancelled),
            Self::Refused(refusal) => Some(Reason::Refused(*refusal)),
            Self::Paired { outcome: Outcome::Agreed(_), .. } | Self::Repeat => None,
        }
    }
}

/// Why a trade is open, given the reports of other open sides; those of other trades are passed over.
///
/// Where the other party reported the trade more than once, the one that differs least counts. Meant for questions and
/// lists, not for each report: it looks at all that it is given.
pub fn why_trade_is_open<'a>(report: &Report<'_>, open: impl IntoIterator<Item = &'a Report<'a>>) -> Reason {
    let differences = open.into_iter().filter(|other| same_trade(report, other)).map(|other| {
        Differences::found([
            (Difference::Indicator, other.indicator != report.indicator),
            (Difference::TradeDate, other.trade_date != report.trade_date),
            (Difference::SettlementDate, other.settlement_date != report.settlement_date),
        ])
    });
    least(differences)
}

/// Why a settlement is open, given the reports of other open sides; those of other allocations are passed over.
///
/// As [`why_trade_is_open`]. Indicator and settlement date are no part of the key here: only the trade date can keep
/// two sides of an allocation apart.
pub fn why_settlement_is_open<'a>(
    (report, allocation): (&Report<'_>, &Allocation<'_>),
    open: impl IntoIterator<Item = (&'a Report<'a>, &'a Allocation<'a>)>,
) -> Reason {
    let same = |(other, part): &(&Report<'_>, &Allocation<'_>)| {
        same_trade(report, other) && part.number == allocation.number
    };
    let differences = open.into_iter().filter(same).map(|(other, _)| {
        Differences::found([(Difference::TradeDate, other.trade_date != report.trade_date)])
    });
    least(differences)
}

fn same_trade(report: &Report<'_>, other: &Report<'_>) -> bool {
    (other.im, other.broker, other.trade) == (report.im, report.broker, report.trade)
        && other.sender != report.sender
}

/// Fewest differences first, then their order: the same answer for every order of the reports.
fn least(differences: impl Iterator<Item = Differences>) -> Reason {
    let closest = differences
        .filter(|differences| !differences.is_empty())
        .min_by_key(|differences| (differences.len(), *differences));
    closest.map_or(Reason::NoCounterpart, Reason::Differs)
}
