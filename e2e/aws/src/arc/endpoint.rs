//! What belongs to one endpoint: its limit of mutating calls, and whose turn of maintenance it is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};

use crate::faults::Maintenance;

/// Mutating calls that one endpoint takes in a second.
pub(crate) const MUTATIONS_PER_SECOND: usize = 3;

/// Counts the mutating calls of the last second.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    admitted: VecDeque<Instant>,
}

impl Throttle {
    /// Whether one more mutating call is within the limit; if so it is counted.
    pub(crate) fn admit(&mut self, now: Instant) -> bool {
        while self
            .admitted
            .front()
            .is_some_and(|&at| now.saturating_duration_since(at) >= Duration::from_secs(1))
        {
            self.admitted.pop_front();
        }
        let within = self.admitted.len() < MUTATIONS_PER_SECOND;
        if within {
            self.admitted.push_back(now);
        }
        within
    }
}

/// Whether an endpoint is down for maintenance: the endpoints take turns in an order that the seed shuffles.
pub(crate) fn in_maintenance(
    turns: Maintenance,
    seed: u64,
    endpoints: usize,
    endpoint: usize,
    since_start: Duration,
) -> bool {
    if endpoints == 0 {
        return false;
    }
    let mut order: Vec<usize> = (0..endpoints).collect();
    order.shuffle(&mut StdRng::seed_from_u64(seed));
    let turn = usize::try_from(since_start.as_secs() / turns.turn_seconds.max(1)).unwrap_or(usize::MAX);
    let first = (turn % endpoints) * turns.down_at_once % endpoints;
    (0..turns.down_at_once.min(endpoints)).any(|offset| order[(first + offset) % endpoints] == endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fourth_mutation_within_a_second_is_refused() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut throttle = Throttle::default();
        assert!([0, 300, 900].into_iter().all(|ms| throttle.admit(at(ms))));
        assert!(!throttle.admit(at(999)));
        assert!(throttle.admit(at(1_000)), "the first one is a second old");
        assert!(!throttle.admit(at(1_299)));
    }

    #[test]
    fn maintenance_takes_exactly_the_set_number_down_and_visits_every_endpoint() {
        for seed in 0..20 {
            for down_at_once in 0..=2 {
                let turns = Maintenance { turn_seconds: 10, down_at_once, beyond_documented: false };
                let mut visited = [false; 5];
                for turn in 0..5 {
                    let since = Duration::from_secs(turn * 10 + 3);
                    let down: Vec<_> = (0..5).filter(|&e| in_maintenance(turns, seed, 5, e, since)).collect();
                    assert_eq!(down.len(), down_at_once, "seed {seed} turn {turn}");
                    down.into_iter().for_each(|endpoint| visited[endpoint] = true);
                }
                assert_eq!(visited.iter().all(|&v| v), down_at_once > 0, "seed {seed}");
            }
        }
    }
}
