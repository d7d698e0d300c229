//! Random histories of reports, and the rules again, written as plainly as possible. Shared by the property tests and by
//! the benchmark, which runs many more.

#![allow(dead_code, unreachable_pub, reason = "each user has its own part of the support module")]

pub mod oracle;

use jiff::civil::{Date, date};
use matching::{
    Action, Allocation, Book, Decision, Digester, Indicator, Known, Outcome, Report, SettlementTerms, Side,
    Status, Taken, Terms, TradeTerms,
};
use oracle::{Application, Oracle, Verdict};
use rust_decimal::Decimal;

pub const IM: &str = "QAINS012";
pub const BROKER: &str = "QABRO010";

/// One report with all that it says, for either application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub sender: &'static str,
    pub broker: &'static str,
    pub trade: &'static str,
    pub allocation: i64,
    pub account: &'static str,
    pub indicator: Indicator,
    pub trade_date: Date,
    pub settlement_date: Date,
    pub security: &'static str,
    pub cents: i64,
    pub quantity: i32,
    pub version: u32,
    pub action: Action,
    pub last_day: Date,
    pub rest: &'static str,
}

/// What most reports of the tests say.
pub const USUAL: Message = Message {
    sender: IM,
    broker: BROKER,
    trade: "1",
    allocation: 1,
    account: "0123456789",
    indicator: Indicator::Buy,
    trade_date: date(2026, 2, 9),
    settlement_date: date(2026, 2, 11),
    security: "AMZN",
    cents: 1850,
    quantity: 2,
    version: 1,
    action: Action::State,
    last_day: date(2026, 2, 11),
    rest: "",
};

impl Message {
    pub fn report(&self) -> Report<'_> {
        Report {
            sender: self.sender,
            im: IM,
            broker: self.broker,
            trade: self.trade,
            indicator: self.indicator,
            trade_date: self.trade_date,
            settlement_date: self.settlement_date,
            security: self.security,
            price: Decimal::new(self.cents, 2),
            quantity: self.quantity,
            version: self.version,
            action: self.action,
            last_day: self.last_day,
            rest: self.rest.as_bytes(),
        }
    }

    pub fn allocation(&self) -> Allocation<'_> {
        Allocation { number: self.allocation, account: self.account }
    }

    /// A message out of few trades, parties, versions and terms, so that every situation is common.
    pub fn drawn(number: u64) -> Self {
        let mut left = number;
        // The remainder of one division is one choice; 0 is always the usual one.
        let mut draw = |choices: u64| {
            let choice = left % choices;
            left /= choices;
            choice
        };
        let from_broker = draw(2) == 1;
        let broker = if draw(8) == 7 { "FIDE0226" } else { BROKER };
        Self {
            sender: if from_broker { broker } else { IM },
            broker,
            trade: ["1", "2", "3"][draw(3) as usize],
            allocation: [1, 1, 2][draw(3) as usize],
            version: [1, 1, 1, 2, 2, 3][draw(6) as usize],
            action: if draw(6) == 5 { Action::Cancel } else { Action::State },
            trade_date: if draw(8) == 7 { date(2026, 2, 10) } else { USUAL.trade_date },
            settlement_date: if draw(8) == 7 { date(2026, 2, 12) } else { USUAL.settlement_date },
            indicator: if draw(8) == 7 { Indicator::Sell } else { Indicator::Buy },
            security: if draw(8) == 7 { "MSFT" } else { "AMZN" },
            cents: if draw(8) == 7 { 1851 } else { 1850 },
            quantity: if draw(8) == 7 { 1 } else { 2 },
            account: if draw(8) == 7 { "9876543210" } else { USUAL.account },
            last_day: [USUAL.last_day, date(2026, 2, 12), date(2026, 2, 13)][draw(3) as usize],
            rest: if draw(8) == 7 { "other instructions" } else { "" },
        }
    }
}

/// What happens after a batch was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The same book goes on.
    GoesOn,
    /// Decisions were stored; a new book begins with them.
    Restarts,
    /// A crash before the decisions were stored: the batch comes again.
    LostAndRepeated,
    /// A crash after they were stored and before anybody was told: the batch comes again.
    StoredAndRepeated,
}

/// Messages that are decided together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Before the messages, waits that ended before this day are given up.
    pub expire: Option<Date>,
    pub messages: Vec<Message>,
    pub ending: Ending,
}

impl Batch {
    /// The batch of random numbers.
    pub fn drawn(number: u64, messages: &[u64]) -> Self {
        let endings = [Ending::GoesOn, Ending::Restarts, Ending::LostAndRepeated, Ending::StoredAndRepeated];
        let expire = match number / 4 % 16 {
            14 => Some(date(2026, 2, 12)),
            15 => Some(date(2026, 2, 13)),
            _ => None,
        };
        Self {
            expire,
            messages: messages.iter().map(|number| Message::drawn(*number)).collect(),
            ending: endings[(number % 4) as usize],
        }
    }

    /// The same where each side waits for so many days after its trade date. Its waits are given up more often, on days around
    /// the last ones.
    pub fn waiting(self, days: u16) -> Self {
        // Day after day, by the calendar.
        let last_day =
            |message: &Message| (0..days).fold(message.trade_date, |day, _| day.tomorrow().unwrap());
        let messages: Vec<Message> =
            self.messages.iter().map(|message| Message { last_day: last_day(message), ..*message }).collect();
        let around =
            (0..messages.len() % 3).fold(messages.first().map(last_day), |day, _| day?.tomorrow().ok());
        Self { expire: self.expire.or(around), messages, ..self }
    }
}

/// Terms that know how a side comes from a message.
pub trait Sided: Terms {
    const APPLICATION: Application;
    fn side(digester: &mut Digester, message: &Message) -> Side<Self>;
}

impl Sided for TradeTerms {
    const APPLICATION: Application = Application::Trades;
    fn side(digester: &mut Digester, message: &Message) -> Side<Self> {
        digester.trade(&message.report()).unwrap()
    }
}

impl Sided for SettlementTerms {
    const APPLICATION: Application = Application::Settlements;
    fn side(digester: &mut Digester, message: &Message) -> Side<Self> {
        digester.settlement(&message.report(), &message.allocation()).unwrap()
    }
}

/// What a service would have in its database: written from decisions only.
#[derive(Clone)]
pub struct Store<T>(pub Vec<Known<T>>);

impl<T: Sided> Store<T> {
    pub fn write(&mut self, side: Side<T>, decision: &Decision) {
        let (status, taken) = match *decision {
            Decision::Open(taken) => (Status::Unmatched, taken),
            Decision::Cancelled(taken) => (Status::Cancelled, taken),
            Decision::Paired { taken, counterpart, outcome } => {
                assert_eq!(counterpart, side.identity().other_party());
                let other = self.0.iter_mut().find(|known| known.side.identity() == counterpart).unwrap();
                assert_eq!(other.status, Status::Unmatched);
                other.status = outcome.status();
                (outcome.status(), taken)
            }
            Decision::Repeat | Decision::Refused(_) => return,
        };
        match taken {
            Taken::First => self.0.push(Known { side, status }),
            Taken::Replaces(version) => {
                let own = self.0.iter_mut().find(|known| known.side.identity() == side.identity()).unwrap();
                assert_eq!(own.side.version(), version);
                *own = Known { side, status };
            }
        }
    }

    fn expire(&mut self, book: &mut Book<T>, today: Date) {
        for identity in book.expire(today) {
            let known = self.0.iter_mut().find(|known| known.side.identity() == identity).unwrap();
            assert_eq!(known.status, Status::Unmatched);
            known.status = Status::Expired;
        }
    }
}

/// Lets book and oracle decide the same history; tells the first difference.
pub fn compare<T: Sided>(history: &[Batch], key: u128) -> Result<(), String> {
    compare_sides::<T>(history, key, T::side)
}

/// The same with sides that are made in another way.
pub fn compare_sides<T: Sided>(
    history: &[Batch],
    key: u128,
    side_of: impl Fn(&mut Digester, &Message) -> Side<T>,
) -> Result<(), String> {
    let mut digester = Digester::new(key);
    let mut oracle = Oracle::new(T::APPLICATION);
    let (mut book, mut store) = (Book::default(), Store::<T>(Vec::new()));
    for batch in history {
        if let Some(today) = batch.expire {
            store.expire(&mut book, today);
            oracle.expire(today);
        }
        if batch.ending == Ending::LostAndRepeated {
            for message in &batch.messages {
                book.take(side_of(&mut digester, message));
            }
            book = Book::new(store.0.iter().rev().copied());
        }
        let times = if batch.ending == Ending::StoredAndRepeated { 2 } else { 1 };
        for _ in 0..times {
            let sides: Vec<Side<T>> =
                batch.messages.iter().map(|message| side_of(&mut digester, message)).collect();
            let decisions: Vec<Decision> = match batch.ending {
                Ending::GoesOn => sides.iter().map(|side| book.take(*side)).collect(),
                Ending::Restarts | Ending::LostAndRepeated | Ending::StoredAndRepeated => {
                    book.take_all(&sides)
                }
            };
            for ((side, decision), message) in sides.iter().zip(&decisions).zip(&batch.messages) {
                store.write(*side, decision);
                same(&verdict(decision), &oracle.take(message), message)?;
            }
            if batch.ending != Ending::GoesOn {
                book = Book::new(store.0.iter().rev().copied());
            }
        }
    }
    for (message, status) in &oracle.sides {
        let identity = side_of(&mut digester, message).identity();
        same(&book.status(identity), &Some(*status), message)?;
        let stored = store.0.iter().find(|known| known.side.identity() == identity);
        same(&stored.map(|known| known.status), &Some(*status), message)?;
    }
    same(&book.len(), &oracle.sides.len(), &USUAL)
}

fn same<V: PartialEq + std::fmt::Debug>(book: &V, oracle: &V, message: &Message) -> Result<(), String> {
    if book == oracle {
        return Ok(());
    }
    Err(format!("the book says {book:?}, the oracle says {oracle:?}, of {message:?}"))
}

/// A decision in the words of the oracle. Everything that is not matched must carry a reason code.
fn verdict(decision: &Decision) -> Verdict {
    let version = |taken: Taken| match taken {
        Taken::First => None,
        Taken::Replaces(version) => Some(version),
    };
    let codes = decision.reason().map(matching::Reason::codes);
    match *decision {
        Decision::Open(taken) => Verdict::Open(version(taken), codes.unwrap()),
        Decision::Paired { taken, outcome: Outcome::Agreed(status), .. } => {
            assert_eq!(codes, None);
            Verdict::Agreed(version(taken), status)
        }
        Decision::Paired { taken, outcome: Outcome::Mismatched(_), .. } => {
            Verdict::Mismatched(version(taken), codes.unwrap())
        }
        Decision::Cancelled(taken) => Verdict::Cancelled(version(taken), codes.unwrap()),
        Decision::Repeat => Verdict::Repeat,
        Decision::Refused(_) => Verdict::Refused(codes.unwrap()),
    }
}
