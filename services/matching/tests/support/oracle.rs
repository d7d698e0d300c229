//! The rules of matching by brute force: a list of messages, looked through from the beginning each time, and comparisons
//! of what the messages say. No digest, no table, no packed number.

use jiff::civil::Date;
use matching::{Action, Indicator, Status};

use super::Message;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Application {
    Trades,
    Settlements,
}

/// What a message means. The version is the one that it replaces; the words are reason codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Open(Option<u32>, Vec<&'static str>),
    Agreed(Option<u32>, Status),
    Mismatched(Option<u32>, Vec<&'static str>),
    Cancelled(Option<u32>, Vec<&'static str>),
    Repeat,
    Refused(Vec<&'static str>),
}

pub struct Oracle {
    application: Application,
    /// The message that holds for each side, and where it stands.
    pub sides: Vec<(Message, Status)>,
}

impl Oracle {
    pub fn new(application: Application) -> Self {
        Self { application, sides: Vec::new() }
    }

    pub fn take(&mut self, message: &Message) -> Verdict {
        let own = self.sides.iter().position(|(known, _)| self.same_side(known, message));
        if let Some(own) = own {
            let (known, status) = &self.sides[own];
            if message.version < known.version {
                return Verdict::Refused(vec!["SUPERSEDED"]);
            }
            if message.version == known.version {
                return if self.says(known) == self.says(message) {
                    Verdict::Repeat
                } else {
                    Verdict::Refused(vec!["CONFLICT"])
                };
            }
            if !matches!(status, Status::Unmatched | Status::Cancelled) {
                return Verdict::Refused(vec!["TOO_LATE"]);
            }
        }
        let replaced = own.map(|own| self.sides.remove(own).0.version);
        if message.action == Action::Cancel {
            self.sides.push((*message, Status::Cancelled));
            return Verdict::Cancelled(replaced, vec!["CANCELLED"]);
        }
        let waiting = self.sides.iter().position(|(known, status)| {
            *status == Status::Unmatched && known.sender != message.sender && self.same_key(known, message)
        });
        let Some(waiting) = waiting else {
            self.sides.push((*message, Status::Unmatched));
            return Verdict::Open(replaced, vec!["NO_COUNTERPART"]);
        };
        let codes = self.disagreements(&self.sides[waiting].0, message);
        let status = match (codes.is_empty(), self.application) {
            (false, _) => Status::Mismatched,
            (true, Application::Trades) => Status::Matched,
            (true, Application::Settlements) => Status::Settled,
        };
        self.sides[waiting].1 = status;
        self.sides.push((*message, status));
        if codes.is_empty() {
            Verdict::Agreed(replaced, status)
        } else {
            Verdict::Mismatched(replaced, codes)
        }
    }

    pub fn expire(&mut self, today: Date) {
        for (message, status) in &mut self.sides {
            if *status == Status::Unmatched && message.last_day < today {
                *status = Status::Expired;
            }
        }
    }

    pub fn same_side(&self, a: &Message, b: &Message) -> bool {
        let same = a.trade_date == b.trade_date
            && a.sender == b.sender
            && a.broker == b.broker
            && a.trade == b.trade;
        match self.application {
            Application::Trades => same,
            Application::Settlements => same && a.allocation == b.allocation,
        }
    }

    pub fn same_key(&self, a: &Message, b: &Message) -> bool {
        let same = a.broker == b.broker && a.trade == b.trade && a.trade_date == b.trade_date;
        match self.application {
            Application::Trades => {
                same && a.indicator == b.indicator && a.settlement_date == b.settlement_date
            }
            Application::Settlements => same && a.allocation == b.allocation,
        }
    }

    pub fn disagreements(&self, a: &Message, b: &Message) -> Vec<&'static str> {
        let settlement = self.application == Application::Settlements;
        let mut codes = Vec::new();
        for (code, differs) in [
            ("SECURITY_DIFFERS", a.security != b.security),
            ("PRICE_DIFFERS", a.cents != b.cents),
            ("QUANTITY_DIFFERS", a.quantity != b.quantity),
            ("INDICATOR_DIFFERS", settlement && a.indicator != b.indicator),
            ("SETTLEMENT_DATE_DIFFERS", settlement && a.settlement_date != b.settlement_date),
            ("ACCOUNT_DIFFERS", settlement && a.account != b.account),
        ] {
            if differs {
                codes.push(code);
            }
        }
        codes
    }

    /// All that a report says; one of a trade says nothing about allocations in these tests.
    fn says(
        &self,
        message: &Message,
    ) -> (Action, Date, Indicator, &'static str, i64, i32, Date, &'static str, Option<&'static str>) {
        let account = (self.application == Application::Settlements).then_some(message.account);
        (
            message.action,
            message.settlement_date,
            message.indicator,
            message.security,
            message.cents,
            message.quantity,
            message.last_day,
            message.rest,
            account,
        )
    }
}
