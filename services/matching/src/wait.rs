//! How long a side waits for the other one.

use jiff::ToSpan;
use jiff::civil::Date;

/// The last business date on which a side of a trade waits, if it waits for so many days after the trade date: with 0 days on the
/// trade date alone. Days are those of the calendar, in UTC. A day that no calendar has is the last one that it has.
pub fn last_day(trade_date: Date, days: u16) -> Date {
    trade_date.saturating_add(i64::from(days).days())
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn days_are_counted_over_months_years_and_the_end_of_the_calendar() {
        assert_eq!(last_day(date(2026, 2, 9), 0), date(2026, 2, 9));
        assert_eq!(last_day(date(2026, 2, 26), 3), date(2026, 3, 1));
        assert_eq!(last_day(date(2027, 12, 31), 60), date(2028, 2, 29));
        assert_eq!(last_day(Date::MAX, 1), Date::MAX);
    }
}
