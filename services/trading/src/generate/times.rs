//! Times of single messages, and what share of them is below what.

use jiff::Timestamp;
use serde::Serialize;

/// Each in microseconds; the last value stands for all above 71 minutes.
#[derive(Debug, Default)]
pub(super) struct Times(Vec<u32>);

/// How long it took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// How many were timed.
    pub count: u64,
    /// Half took at most this.
    pub p50: f64,
    /// 99 of 100 took at most this.
    pub p99: f64,
    /// 999 of 1000 took at most this.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Times {
    /// From a time to another. Clocks may jump back: that is no time at all.
    pub(super) fn note(&mut self, from: Timestamp, to: Timestamp) {
        let micros = (to.as_microsecond() - from.as_microsecond()).max(0);
        self.0.push(u32::try_from(micros).unwrap_or(u32::MAX));
    }

    pub(super) fn percentiles(&self) -> Percentiles {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        // The smallest time that so many of a thousand do not exceed.
        let at = |thousandths: usize| {
            let rank = (sorted.len() * thousandths).div_ceil(1000);
            sorted.get(rank.saturating_sub(1)).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
        };
        Percentiles { count: sorted.len() as u64, p50: at(500), p99: at(990), p999: at(999), max: at(1000) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(millis: impl Iterator<Item = i64>) -> Percentiles {
        let mut times = Times::default();
        let begin = Timestamp::from_second(1_770_000_000).unwrap();
        for milli in millis {
            times.note(begin, Timestamp::from_millisecond(begin.as_millisecond() + milli).unwrap());
        }
        times.percentiles()
    }

    #[test]
    fn a_percentile_is_the_smallest_time_that_so_many_do_not_exceed() {
        let all = times((1..=1000).rev());
        assert_eq!(all, Percentiles { count: 1000, p50: 500.0, p99: 990.0, p999: 999.0, max: 1000.0 });
        let one = times([7].into_iter());
        assert_eq!(one, Percentiles { count: 1, p50: 7.0, p99: 7.0, p999: 7.0, max: 7.0 });
        assert_eq!(times([].into_iter()), Percentiles::default());
    }

    #[test]
    fn a_clock_that_jumps_back_makes_no_negative_time_and_a_very_long_time_is_the_longest() {
        assert!(times([-5].into_iter()).max.abs() < f64::EPSILON);
        assert!(times([i64::from(u32::MAX)].into_iter()).max > 4_294_967.0);
    }
}
