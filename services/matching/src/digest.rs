//! Compact sides: what the book keeps of a report.
//!
//! Names, numbers of trades and whole contents are kept as digests by SipHash-1-3 under a key that the caller draws.
//! Digests live as long as their book and are never stored, so a new key for each book is fine, and the result is the
//! same under every key. Nobody who writes reports knows the key: to them a digest is a random number. That any two of a
//! billion sides share the 127 bits of an identity has a chance below 10^-20. Contents (128 bits) and the longer texts among
//! terms (56 bits) are only ever compared between two reports of one side or two sides of one key; that two different ones
//! look equal has a chance below 10^-37 and 10^-16. So hits are not verified.

use jiff::civil::Date;
use siphasher::sip128::SipHasher13;

use crate::places::Digits;
use crate::report::{Party, hundredths, ordinal};
use crate::terms::Direction;
use crate::{Action, Allocation, Report, ReportError, SettlementTerms, Status, TradeTerms};

/// Which side a report is about, whatever its version: a digest of business date, sender, investment manager, broker,
/// trade and, for a settlement, allocation. Means the same only within the [`Digester`]s of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Spread evenly, and the same for both parties: their sides are found by one look.
    pair: u64,
    /// The lowest bit is the party.
    pair_and_party: u64,
}

impl Identity {
    fn new(pair: [u64; 2], party: Party) -> Self {
        let bit = match party {
            Party::Manager => 0,
            Party::Broker => 1,
        };
        Self { pair: pair[0], pair_and_party: pair[1] & !1 | bit }
    }

    /// The identity of the other party's side.
    #[must_use]
    pub fn other_party(self) -> Self {
        Self { pair_and_party: self.pair_and_party ^ 1, ..self }
    }

    /// The same for both parties.
    pub(crate) fn digits(self) -> Digits {
        (self.pair >> 32) as Digits
    }
}

/// One report as the book sees it: plain numbers, without the texts. At most 80 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side<T> {
    pub(crate) identity: Identity,
    /// Of everything that may differ between two reports of one identity, except for the version.
    pub(crate) content: [u64; 2],
    pub(crate) terms: T,
    /// What the key names beyond what both identities share.
    pub(crate) direction: Direction,
    pub(crate) version: u32,
    pub(crate) last_day: i32,
    /// As the report wishes it; in the book, as it was decided.
    pub(crate) status: Status,
}

impl<T> Side<T> {
    /// Which side the report is about.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The version of the report.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// What the other side must agree on.
    pub fn terms(&self) -> &T {
        &self.terms
    }

    /// The same side with another last day of its wait. How long sides wait is no part of what was reported: it may be set anew
    /// without making another report of a repeated one.
    #[must_use]
    pub fn waiting_until(self, last_day: Date) -> Self {
        Self { last_day: ordinal(last_day), ..self }
    }
}

/// Where a side stands before the other party's is looked at.
fn wished(action: Action) -> Status {
    match action {
        Action::State => Status::Unmatched,
        Action::Cancel => Status::Cancelled,
    }
}

/// Makes sides of reports.
#[derive(Debug)]
pub struct Digester {
    hasher: SipHasher13,
    /// The text that is being digested; kept for its memory.
    text: Vec<u8>,
}

impl Digester {
    /// A digester under a key, which should be random and must be the same for all sides of one book.
    pub fn new(key: u128) -> Self {
        Self { hasher: SipHasher13::new_with_key(&key.to_le_bytes()), text: Vec::new() }
    }

    /// The side of a trade.
    ///
    /// # Errors
    /// The sender, the parties or the price.
    pub fn trade(&mut self, report: &Report<'_>) -> Result<Side<TradeTerms>, ReportError> {
        let price = hundredths(report.price)?;
        self.begin(report);
        let identity = Identity::new(self.digest(), report.party()?);
        self.text.clear();
        Ok(Side {
            identity,
            content: self.content(report, price),
            terms: TradeTerms { security: self.short(report.security), price, quantity: report.quantity },
            direction: Direction::of(report),
            version: report.version,
            last_day: ordinal(report.last_day),
            status: wished(report.action),
        })
    }

    /// The side of one allocation of a trade.
    ///
    /// # Errors
    /// The sender, the parties or the price.
    pub fn settlement(
        &mut self,
        report: &Report<'_>,
        allocation: &Allocation<'_>,
    ) -> Result<Side<SettlementTerms>, ReportError> {
        let price = hundredths(report.price)?;
        self.begin(report);
        self.text.extend_from_slice(&allocation.number.to_le_bytes());
        let identity = Identity::new(self.digest(), report.party()?);
        self.text.clear();
        self.add(allocation.account);
        Ok(Side {
            identity,
            content: self.content(report, price),
            terms: SettlementTerms {
                security: self.short(report.security),
                account: self.short(allocation.account),
                price,
                quantity: report.quantity,
                direction: Direction::of(report),
            },
            direction: Direction::ANY,
            version: report.version,
            last_day: ordinal(report.last_day),
            status: wished(report.action),
        })
    }

    /// Begins the text with what both parties' identities share.
    fn begin(&mut self, report: &Report<'_>) {
        self.text.clear();
        self.text.extend_from_slice(&ordinal(report.trade_date).to_le_bytes());
        for name in [report.im, report.broker, report.trade] {
            self.add(name);
        }
    }

    /// The digest of all that the report says beyond its identity and its version, which are compared by themselves.
    fn content(&mut self, report: &Report<'_>, price: i64) -> [u64; 2] {
        self.text.extend_from_slice(&price.to_le_bytes());
        let cancels = i32::from(report.action == Action::Cancel);
        let numbers = [report.quantity, Direction::of(report).number(), ordinal(report.last_day), cancels];
        for number in numbers {
            self.text.extend_from_slice(&number.to_le_bytes());
        }
        self.add(report.security);
        self.text.extend_from_slice(report.rest);
        self.digest()
    }

    /// Adds a text and a byte that is in no text, so that texts cannot be shifted into each other.
    fn add(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
        self.text.push(0xff);
    }

    fn digest(&self) -> [u64; 2] {
        let (first, second) = self.hasher.hash(&self.text).as_u64();
        [first, second]
    }

    /// A text as one number: itself if it has no more than seven bytes, otherwise half a digest. The uppermost byte tells
    /// one from the other.
    fn short(&self, text: &str) -> u64 {
        let bytes = text.as_bytes();
        match u8::try_from(bytes.len()) {
            Ok(length @ ..=7) => {
                let mut number = [0, 0, 0, 0, 0, 0, 0, length];
                number[..bytes.len()].copy_from_slice(bytes);
                u64::from_le_bytes(number)
            }
            _ => self.hasher.hash(bytes).as_u64().0 | 0xff << 56,
        }
    }
}
