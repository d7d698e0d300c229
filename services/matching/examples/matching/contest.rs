//! The book beside maps with texts as keys, on the same stream.

use std::collections::hash_map::Entry;

use ahash::AHashMap;
use jiff::civil::Date;
use matching::{Book, Decision, Digester, Indicator, Outcome, Side, Terms};
use nix::time::{ClockId, clock_gettime};
use rust_decimal::Decimal;

use crate::market::{Market, Parsed};

/// Reports that are parsed ahead. Their texts stay in a cache, as those of a batch that was just read do.
const BLOCK: usize = 4096;

/// What became of a stream; equal for all that decide it right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) open: u64,
    pub(crate) agreed: u64,
    pub(crate) mismatched: u64,
}

/// Something that decides reports.
pub(crate) trait Contestant: Default {
    fn decide(&mut self, reports: &[Parsed], tally: &mut Tally);
}

/// Makes one side of one application out of a report.
pub(crate) type Make<T> = fn(&mut Digester, &Parsed) -> Option<Side<T>>;

pub(crate) fn trade(digester: &mut Digester, parsed: &Parsed) -> Option<Side<matching::TradeTerms>> {
    digester.trade(&parsed.report()).ok()
}

pub(crate) fn settlement(
    digester: &mut Digester,
    parsed: &Parsed,
) -> Option<Side<matching::SettlementTerms>> {
    digester.settlement(&parsed.report(), &parsed.allocation()).ok()
}

/// The crate that is measured.
pub(crate) struct Digests {
    book: Book<matching::TradeTerms>,
    digester: Digester,
}

impl Default for Digests {
    fn default() -> Self {
        Self { book: Book::default(), digester: Digester::new(0x5eed) }
    }
}

impl Contestant for Digests {
    fn decide(&mut self, reports: &[Parsed], tally: &mut Tally) {
        decide(&mut self.book, &mut self.digester, trade, reports, tally);
    }
}

pub(crate) fn decide<T: Terms>(
    book: &mut Book<T>,
    digester: &mut Digester,
    make: Make<T>,
    reports: &[Parsed],
    tally: &mut Tally,
) {
    let sides: Vec<Side<T>> = reports.iter().filter_map(|parsed| make(digester, parsed)).collect();
    for decision in book.take_all(&sides) {
        match decision {
            Decision::Open(_) => tally.open += 1,
            Decision::Paired { outcome, .. } => {
                tally.open -= 1;
                match outcome {
                    Outcome::Agreed(_) => tally.agreed += 1,
                    Outcome::Mismatched(_) => tally.mismatched += 1,
                }
            }
            Decision::Cancelled(_) | Decision::Repeat | Decision::Refused(_) => {}
        }
    }
}

type TextKey = (String, String, String, Indicator, Date, Date);

struct Waiting {
    sender: String,
    security: String,
    price: Decimal,
    quantity: i32,
}

/// The naive way to pair: a map from the key's texts to the side that waits. It knows nothing of repeats, conflicts,
/// versions and expiry.
#[derive(Default)]
pub(crate) struct PairingOnly {
    waiting: AHashMap<TextKey, Waiting>,
}

impl PairingOnly {
    fn take(&mut self, parsed: &Parsed, tally: &mut Tally) {
        let key = (
            parsed.im.clone(),
            parsed.broker.clone(),
            parsed.trade.clone(),
            parsed.indicator,
            parsed.trade_date,
            parsed.settlement_date,
        );
        match self.waiting.entry(key) {
            Entry::Vacant(place) => {
                place.insert(Waiting {
                    sender: parsed.sender.clone(),
                    security: parsed.security.clone(),
                    price: parsed.price,
                    quantity: parsed.quantity,
                });
                tally.open += 1;
            }
            Entry::Occupied(place) => {
                if place.get().sender == parsed.sender {
                    return;
                }
                let other = place.remove();
                tally.open -= 1;
                let same = other.security == parsed.security
                    && other.price == parsed.price
                    && other.quantity == parsed.quantity;
                *(if same { &mut tally.agreed } else { &mut tally.mismatched }) += 1;
            }
        }
    }
}

impl Contestant for PairingOnly {
    fn decide(&mut self, reports: &[Parsed], tally: &mut Tally) {
        for parsed in reports {
            self.take(parsed, tally);
        }
    }
}

/// The naive way with the same memory: a second map, from the identity's texts to the whole report, tells repeats and
/// conflicts. Still without versions and expiry.
#[derive(Default)]
pub(crate) struct SameMemory {
    pairing: PairingOnly,
    known: AHashMap<(Date, String, String, String, String), Parsed>,
}

impl Contestant for SameMemory {
    fn decide(&mut self, reports: &[Parsed], tally: &mut Tally) {
        for parsed in reports {
            let identity = (
                parsed.trade_date,
                parsed.sender.clone(),
                parsed.im.clone(),
                parsed.broker.clone(),
                parsed.trade.clone(),
            );
            if let Entry::Vacant(place) = self.known.entry(identity) {
                place.insert(parsed.clone());
                self.pairing.take(parsed, tally);
            }
        }
    }
}

/// Seconds of this thread on a processor: others on the machine count as little as possible.
fn processor_seconds() -> f64 {
    let Ok(time) = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID) else { return f64::NAN };
    time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
}

/// Decides a whole stream from an empty start: sides per second of processor time, and what became of them.
pub(crate) fn run<C: Contestant>(market: &Market, arrivals: &[u32]) -> (f64, Tally) {
    let (mut contestant, mut tally, mut seconds) = (C::default(), Tally::default(), 0.0);
    for block in arrivals.chunks(BLOCK) {
        let reports: Vec<Parsed> =
            block.iter().map(|side| market.report(u64::from(side / 2), side % 2 == 1)).collect();
        let begin = processor_seconds();
        contestant.decide(&reports, &mut tally);
        seconds += processor_seconds() - begin;
    }
    (arrivals.len() as f64 / seconds, tally)
}
