//! The replicated register: one accepted order of changes, seen by each observer after its own delay.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::rules::{ControlIndex, Entry, Judging, Rule, Violation, judge};
use crate::config::{ControlState, RoutingControl, SafetyRule};

/// Changes of one control that are still on their way; beyond this the oldest count as arrived.
const MOST_PENDING: usize = 1_024;

/// Who looks at the register: endpoints by position in the configuration, then the DNS health checks.
pub(crate) type Observer = usize;

#[derive(Debug)]
struct Change {
    state: ControlState,
    /// By observer. Never earlier than that of the change before, so all see the same order.
    visible_at: Vec<Instant>,
}

#[derive(Debug)]
struct Control {
    config: RoutingControl,
    /// What everybody has seen.
    settled: ControlState,
    /// Oldest first.
    pending: VecDeque<Change>,
}

/// The controls with their rules.
#[derive(Debug)]
pub(crate) struct Register {
    controls: Vec<Control>,
    rules: Vec<Rule>,
}

impl Register {
    pub(crate) fn new(controls: &[RoutingControl], rules: &[SafetyRule]) -> Self {
        let resolve = |arn: &str| controls.iter().position(|control| control.arn == arn);
        Self {
            rules: rules.iter().map(|rule| Rule::new(rule, resolve)).collect(),
            controls: controls
                .iter()
                .map(|config| Control {
                    settled: config.initial_state,
                    config: config.clone(),
                    pending: VecDeque::new(),
                })
                .collect(),
        }
    }

    /// Sets a state for all observers at once, past all rules: for restoring a saved state.
    pub(crate) fn settle(&mut self, arn: &str, state: ControlState) {
        if let Some(control) = self.controls.iter_mut().find(|control| control.config.arn == arn) {
            control.pending.clear();
            control.settled = state;
        }
    }

    pub(crate) fn find(&self, arn: &str) -> Option<ControlIndex> {
        self.controls.iter().position(|control| control.config.arn == arn)
    }

    pub(crate) fn has_rule(&self, arn: &str) -> bool {
        self.rules().any(|rule| rule.arn == arn)
    }

    pub(crate) fn rules(&self) -> impl Iterator<Item = &SafetyRule> {
        self.rules.iter().map(|rule| &rule.config)
    }

    pub(crate) fn controls(&self) -> impl Iterator<Item = &RoutingControl> {
        self.controls.iter().map(|control| &control.config)
    }

    /// The last accepted state, whoever has seen it.
    pub(crate) fn accepted(&self, index: ControlIndex) -> ControlState {
        let control = &self.controls[index];
        control.pending.back().map_or(control.settled, |change| change.state)
    }

    /// What an observer sees at this moment.
    pub(crate) fn seen(&self, index: ControlIndex, observer: Observer, now: Instant) -> ControlState {
        let control = &self.controls[index];
        let arrived = control.pending.iter().rev().find(|change| change.visible_at[observer] <= now);
        arrived.map_or(control.settled, |change| change.state)
    }

    /// Accepts or refuses a request as a whole. `delays` gives the time that the change takes to each observer.
    ///
    /// # Errors
    /// The rule that refused; nothing has changed then.
    pub(crate) fn update(
        &mut self,
        entries: &[Entry],
        overridden: &[String],
        judging: Judging,
        delays: &[Duration],
        now: Instant,
    ) -> Result<(), Violation> {
        let before: Vec<_> = (0..self.controls.len()).map(|index| self.accepted(index)).collect();
        let after = judge(&mut self.rules, entries, overridden, judging, &before, now)?;
        for (control, (before, after)) in self.controls.iter_mut().zip(before.into_iter().zip(after)) {
            if before != after {
                control.change(after, delays, now);
            }
        }
        Ok(())
    }
}

impl Control {
    fn change(&mut self, state: ControlState, delays: &[Duration], now: Instant) {
        let previous = self.pending.back().map(|change| change.visible_at.as_slice());
        let visible_at = delays
            .iter()
            .enumerate()
            .map(|(observer, &delay)| {
                let arrival = now + delay;
                previous.map_or(arrival, |at| arrival.max(at[observer]))
            })
            .collect();
        self.pending.push_back(Change { state, visible_at });
        while let Some(oldest) = self.pending.front() {
            let arrived = oldest.visible_at.iter().all(|&at| at <= now);
            if !arrived && self.pending.len() <= MOST_PENDING {
                break;
            }
            self.settled = oldest.state;
            self.pending.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ControlState::{Off, On};

    fn register() -> Register {
        let control = |name: &str| RoutingControl {
            arn: name.to_owned(),
            name: name.to_owned(),
            panel_arn: "panel".to_owned(),
            panel_name: "panel".to_owned(),
            initial_state: Off,
        };
        Register::new(&[control("a"), control("b")], &[])
    }

    fn seconds(list: &[u64]) -> Vec<Duration> {
        list.iter().map(|&s| Duration::from_secs(s)).collect()
    }

    #[test]
    fn a_change_reaches_each_observer_after_its_own_delay() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut register = register();
        register.update(&[(0, On)], &[], Judging::default(), &seconds(&[0, 5, 15]), start).unwrap();
        assert_eq!(register.accepted(0), On);
        let seen = |observer, s| register.seen(0, observer, at(s));
        assert_eq!([seen(0, 0), seen(1, 0), seen(2, 0)], [On, Off, Off]);
        assert_eq!([seen(0, 5), seen(1, 5), seen(2, 5)], [On, On, Off]);
        assert_eq!([seen(0, 15), seen(1, 15), seen(2, 15)], [On, On, On]);
    }

    #[test]
    fn a_later_change_never_overtakes_an_earlier_one() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut register = register();
        register.update(&[(0, On)], &[], Judging::default(), &seconds(&[0, 10]), start).unwrap();
        register.update(&[(0, Off)], &[], Judging::default(), &seconds(&[0, 0]), at(1)).unwrap();
        assert_eq!(register.seen(0, 1, at(9)), Off, "has seen neither");
        assert_eq!(register.seen(0, 1, at(10)), Off, "sees both, in order");
        register.update(&[(0, On)], &[], Judging::default(), &seconds(&[0, 0]), at(11)).unwrap();
        assert_eq!(register.seen(0, 1, at(11)), On);
    }

    #[test]
    fn changes_that_all_have_seen_are_forgotten() {
        let start = Instant::now();
        let mut register = register();
        for second in 0..100 {
            let state = if second % 2 == 0 { On } else { Off };
            let now = start + Duration::from_secs(second);
            register.update(&[(0, state)], &[], Judging::default(), &seconds(&[0, 2]), now).unwrap();
        }
        assert!(register.controls[0].pending.len() <= 3, "{:?}", register.controls[0].pending.len());
        assert_eq!(register.accepted(0), Off);
    }

    #[test]
    fn changes_on_their_way_are_bounded() {
        let start = Instant::now();
        let mut register = register();
        for turn in 0..3 * MOST_PENDING {
            let state = if turn % 2 == 0 { On } else { Off };
            register.update(&[(0, state)], &[], Judging::default(), &seconds(&[3_600]), start).unwrap();
        }
        assert_eq!(register.controls[0].pending.len(), MOST_PENDING);
    }
}
