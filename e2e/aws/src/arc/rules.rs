//! Safety rules: what may change, judged on states before and after.

use std::time::{Duration, Instant};

use crate::config::{Condition, ConditionKind, ControlState, SafetyRule};
use crate::faults::BatchJudgement;

/// An index into the register's controls.
pub(crate) type ControlIndex = usize;

/// A change that was asked for.
pub(crate) type Entry = (ControlIndex, ControlState);

/// A rule with its controls resolved and the time of the last change it guards.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) config: SafetyRule,
    controls: Vec<ControlIndex>,
    targets: Vec<ControlIndex>,
    last_change: Option<Instant>,
}

/// How the rules of a request are applied, as set.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Judging {
    pub(crate) batch: BatchJudgement,
    /// Instead of each rule's own.
    pub(crate) wait_period_ms: Option<u64>,
}

/// Why a rule said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The rule's ARN.
    pub(crate) rule_arn: String,
    /// For people.
    pub(crate) message: String,
}

impl Rule {
    /// `resolve` gives the index of a control's ARN; the configuration was validated, so unknown ones are none.
    pub(crate) fn new(config: &SafetyRule, resolve: impl Fn(&str) -> Option<ControlIndex>) -> Self {
        let indices = |arns: &[String]| arns.iter().filter_map(|arn| resolve(arn)).collect();
        Self {
            controls: indices(&config.controls),
            targets: indices(&config.target_controls),
            config: config.clone(),
            last_change: None,
        }
    }

    /// The controls whose change this rule guards.
    fn guarded(&self) -> &[ControlIndex] {
        if self.targets.is_empty() { &self.controls } else { &self.targets }
    }

    fn judge(
        &self,
        step: &[Entry],
        before: &[ControlState],
        after: &[ControlState],
        wait: Duration,
        now: Instant,
    ) -> Result<(), Violation> {
        let guarded = self.guarded();
        if !step.iter().any(|(index, _)| guarded.contains(index)) {
            return Ok(());
        }
        if self.last_change.is_some_and(|at| now.saturating_duration_since(at) < wait) {
            return Err(self.violation("its wait period has not passed"));
        }
        if !self.changes(before, after) || holds(self.config.condition, &self.controls, after) {
            return Ok(());
        }
        Err(self.violation(if self.targets.is_empty() {
            "the asserted controls would break its condition"
        } else {
            "the gating controls do not allow a change of the target controls"
        }))
    }

    fn changes(&self, before: &[ControlState], after: &[ControlState]) -> bool {
        self.guarded().iter().any(|&index| before[index] != after[index])
    }

    fn violation(&self, why: &str) -> Violation {
        Violation {
            rule_arn: self.config.arn.clone(),
            message: format!("The request violates the safety rule {}: {why}.", self.config.name),
        }
    }
}

fn holds(condition: Condition, controls: &[ControlIndex], states: &[ControlState]) -> bool {
    let on = controls.iter().filter(|&&index| states[index] == ControlState::On).count();
    let met = match condition.kind {
        ConditionKind::AtLeast => on >= condition.threshold,
        ConditionKind::And => on == controls.len(),
        ConditionKind::Or => on > 0,
    };
    met != condition.inverted
}

/// Judges a whole request. Returns the states after it; the rules' wait periods begin only if all agree.
///
/// # Errors
/// The first rule that refuses; nothing has changed then.
pub(crate) fn judge(
    rules: &mut [Rule],
    entries: &[Entry],
    overridden: &[String],
    judging: Judging,
    states: &[ControlState],
    now: Instant,
) -> Result<Vec<ControlState>, Violation> {
    let mut judged = rules.to_vec();
    let mut states = states.to_vec();
    let steps: Vec<&[Entry]> = match judging.batch {
        BatchJudgement::EndState => vec![entries],
        BatchJudgement::EachEntry => entries.chunks(1).collect(),
    };
    for step in steps {
        let before = states.clone();
        for &(index, state) in step {
            states[index] = state;
        }
        for rule in &mut judged {
            if !overridden.contains(&rule.config.arn) {
                let wait = judging.wait_period_ms.unwrap_or(rule.config.wait_period_ms);
                rule.judge(step, &before, &states, Duration::from_millis(wait), now)?;
            }
            if rule.changes(&before, &states) {
                rule.last_change = Some(now);
            }
        }
    }
    rules.clone_from_slice(&judged);
    Ok(states)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ControlState::{Off, On};

    const AT_MOST_ONE: Condition = Condition { kind: ConditionKind::AtLeast, threshold: 2, inverted: true };

    fn rule(controls: &[&str], targets: &[&str], condition: Condition, wait_period_ms: u64) -> Rule {
        let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect();
        let config = SafetyRule {
            arn: "arn:rule".to_owned(),
            name: "rule".to_owned(),
            controls: names(controls),
            target_controls: names(targets),
            condition,
            wait_period_ms,
        };
        Rule::new(&config, |arn| arn.parse().ok())
    }

    fn condition(kind: ConditionKind, threshold: usize) -> Condition {
        Condition { kind, threshold, inverted: false }
    }

    fn ask(
        rules: &mut [Rule],
        entries: &[Entry],
        how: BatchJudgement,
        states: &[ControlState],
    ) -> Result<Vec<ControlState>, Violation> {
        judge(rules, entries, &[], Judging { batch: how, wait_period_ms: None }, states, Instant::now())
    }

    #[test]
    fn at_most_one_on_refuses_a_second_on() {
        let mut rules = [rule(&["0", "1"], &[], AT_MOST_ONE, 0)];
        assert!(ask(&mut rules, &[(1, On)], BatchJudgement::EndState, &[On, Off]).is_err());
        assert_eq!(ask(&mut rules, &[(0, Off)], BatchJudgement::EndState, &[On, Off]), Ok(vec![Off, Off]));
    }

    #[test]
    fn a_batch_in_the_wrong_order_passes_on_its_end_state_and_fails_entry_by_entry() {
        let mut rules = [rule(&["0", "1"], &[], AT_MOST_ONE, 0)];
        let on_first = [(1, On), (0, Off)];
        assert_eq!(ask(&mut rules, &on_first, BatchJudgement::EndState, &[On, Off]), Ok(vec![Off, On]));
        assert!(ask(&mut rules, &on_first, BatchJudgement::EachEntry, &[On, Off]).is_err());
    }

    #[test]
    fn each_entry_of_a_batch_meets_the_wait_period_of_the_one_before() {
        let off_first = [(0, Off), (1, On)];
        let mut waiting = [rule(&["0", "1"], &[], AT_MOST_ONE, 5_000)];
        assert!(ask(&mut waiting, &off_first, BatchJudgement::EachEntry, &[On, Off]).is_err());
        assert!(ask(&mut waiting, &off_first, BatchJudgement::EndState, &[On, Off]).is_ok());
        let mut free = [rule(&["0", "1"], &[], AT_MOST_ONE, 0)];
        assert!(ask(&mut free, &off_first, BatchJudgement::EachEntry, &[On, Off]).is_ok());
    }

    #[test]
    fn a_wait_period_that_is_set_stands_for_each_rule_s_own() {
        let off_first = [(0, Off), (1, On)];
        let ask = |own, set| {
            let judging = Judging { batch: BatchJudgement::EachEntry, wait_period_ms: set };
            let mut rules = [rule(&["0", "1"], &[], AT_MOST_ONE, own)];
            judge(&mut rules, &off_first, &[], judging, &[On, Off], Instant::now()).is_ok()
        };
        assert_eq!([ask(0, Some(5_000)), ask(5_000, Some(0)), ask(0, None)], [false, true, true]);
    }

    #[test]
    fn the_wait_period_refuses_until_it_has_passed_and_begins_only_with_a_change() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut rules = [rule(&["0", "1"], &[], AT_MOST_ONE, 5_000)];
        let mut put = |entry, states: &[ControlState], now| {
            judge(&mut rules, &[entry], &[], Judging::default(), states, now)
        };
        assert!(put((0, On), &[On, Off], at(0)).is_ok(), "changes nothing, so no period begins");
        assert!(put((0, Off), &[On, Off], at(0)).is_ok());
        assert!(put((1, On), &[Off, Off], at(4_999)).is_err());
        assert!(put((1, On), &[Off, Off], at(5_000)).is_ok());
    }

    #[test]
    fn a_refused_request_begins_no_wait_period() {
        let mut rules = [
            rule(&["0"], &[], condition(ConditionKind::Or, 0), 5_000),
            rule(&["0", "1"], &[], condition(ConditionKind::And, 0), 0),
        ];
        assert!(ask(&mut rules, &[(0, Off)], BatchJudgement::EndState, &[On, On]).is_err());
        assert!(rules.iter().all(|rule| rule.last_change.is_none()));
    }

    #[test]
    fn and_or_and_at_least_count_as_documented() {
        let cases = [
            (condition(ConditionKind::And, 0), [On, Off], false),
            (condition(ConditionKind::And, 0), [On, On], true),
            (condition(ConditionKind::Or, 0), [Off, Off], false),
            (condition(ConditionKind::Or, 0), [Off, On], true),
            (condition(ConditionKind::AtLeast, 2), [On, Off], false),
            (condition(ConditionKind::AtLeast, 1), [On, Off], true),
            (AT_MOST_ONE, [On, On], false),
            (AT_MOST_ONE, [Off, Off], true),
        ];
        for (condition, states, expected) in cases {
            assert_eq!(holds(condition, &[0, 1], &states), expected, "{condition:?} {states:?}");
        }
    }

    #[test]
    fn a_gating_rule_lets_its_targets_change_only_while_the_gate_is_open() {
        let mut rules = [rule(&["0"], &["1"], condition(ConditionKind::Or, 0), 0)];
        assert!(ask(&mut rules, &[(1, On)], BatchJudgement::EndState, &[Off, Off]).is_err());
        assert!(ask(&mut rules, &[(1, On)], BatchJudgement::EndState, &[On, Off]).is_ok());
        assert!(
            ask(&mut rules, &[(0, Off)], BatchJudgement::EndState, &[On, On]).is_ok(),
            "gates may change"
        );
    }

    #[test]
    fn an_overridden_rule_does_not_refuse() {
        let mut rules = [rule(&["0", "1"], &[], AT_MOST_ONE, 0)];
        let overridden = ["arn:rule".to_owned()];
        let judged =
            judge(&mut rules, &[(1, On)], &overridden, Judging::default(), &[On, Off], Instant::now());
        assert_eq!(judged, Ok(vec![On, On]));
    }
}
