//! How much longer a planned switch takes than the longest chain of what others make it wait for, in virtual time:
//! both sides decide with the shipped `decide`; pods, routing controls, database, hooks and name servers take random
//! times. `cargo xtask bench switch` runs it; `SCRIPTS` and `SEED` are its two arguments, 200 and 1 if absent.

#[allow(clippy::panic, reason = "a simulation ends at the first surprise")]
#[path = "../tests/support/mod.rs"]
mod support;

use std::process::ExitCode;

use jiff::SignedDuration;
use region_plan::*;
use support::*;

/// What reading the object and observing took on the lab when nobody sent; a record takes its own time ([`RECORD`]). After a
/// pass the operator pauses (`operator/src/controller/pace.rs`). The end of a hook, and a report that the other side wrote,
/// bring the next pass at once (`Wish` in `operator/src/cluster/peer.rs`).
const PASS: SignedDuration = SignedDuration::from_millis(40);
const AFTER_STEPS: SignedDuration = SignedDuration::from_millis(20);
const IN_RUN: SignedDuration = SignedDuration::from_millis(100);
const TICK: SignedDuration = SignedDuration::from_millis(5);
/// The keeper looks for a new grant each 100 ms.
const RENEWAL: SignedDuration = SignedDuration::from_millis(100);
const HOLD: SignedDuration = SignedDuration::from_secs(3);
const MOST_SCRIPTS: u64 = 100_000;
/// No script of delays comes near it: a run that does not end by then never ends.
const LONGEST: SignedDuration = SignedDuration::from_secs(3_600);

/// How long others take in one script.
#[derive(Clone, Debug)]
struct Delays {
    pods: SignedDuration,
    controls: SignedDuration,
    database: SignedDuration,
    hook: SignedDuration,
    name: SignedDuration,
}

impl Delays {
    fn random(random: &mut Random) -> Self {
        Self {
            pods: random.up_to(120_000),
            controls: random.up_to(15_000),
            database: random.up_to(180_000),
            hook: random.up_to(10_000),
            name: random.up_to(5_000),
        }
    }

    fn of(&self, step: &Step) -> SignedDuration {
        match step {
            Step::Scale { to: ScaleTo::Active, .. } => self.pods,
            Step::Flip { what: Flipped::IngressOn, .. } => self.controls + self.name,
            Step::Flip { .. } => self.controls,
            Step::SwitchDatabase { .. } => self.database,
            Step::Hook { .. } => self.hook,
            Step::Grant { .. } => RENEWAL,
            _ => SignedDuration::ZERO,
        }
    }

    /// The longest chain: the new side is warm (two tiers) before ingress closes; controls and database move side by side.
    fn chain(&self) -> SignedDuration {
        let warm = self.pods * 2 + self.hook;
        let empty = self.controls + HOLD;
        let moved = self.controls.max(self.database) + RENEWAL;
        let open = self.hook + self.controls.max(self.hook) + self.controls + self.name + self.hook;
        warm + empty + moved + open
    }
}

/// SplitMix64: printed seeds replay on every machine.
struct Random(u64);

impl Random {
    fn up_to(&mut self, milliseconds: u64) -> SignedDuration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        SignedDuration::from_millis(i64::try_from((z ^ (z >> 31)) % milliseconds).unwrap_or(0))
    }
}

/// An effect that others are still at.
struct Pending {
    due: jiff::Timestamp,
    side: usize,
    step: Step,
}

/// Virtual time from the change of the spec to the end of the run on both sides.
fn switch(delays: &Delays) -> SignedDuration {
    let mut universe = Universe::active();
    universe.want(1);
    let begin = universe.now;
    let mut pending: Vec<Pending> = Vec::new();
    let mut next_pass = [begin, begin];
    let mut busy_until = [begin, begin];
    let mut wished = [false, false];
    while !ended(&universe) {
        assert!(universe.now.duration_since(begin) < LONGEST, "the run does not end: {delays:?}");
        let (due, waiting) = pending.into_iter().partition(|effect| effect.due <= universe.now);
        pending = waiting;
        let due: Vec<Pending> = due;
        for effect in &due {
            universe.apply(effect.side, &effect.step);
            if matches!(effect.step, Step::Hook { .. }) {
                wished[effect.side] = true;
            }
        }
        for side in 0..2 {
            let wish = wished[side] && universe.now >= busy_until[side];
            if wish || universe.now >= next_pass[side] {
                wished[side] = false;
                let (seen, report) = (universe.world(side), universe.sides[side].report.clone());
                let steps = universe.pass(side, seen);
                wished[1 - side] |= universe.sides[side].report != report;
                let pause = if steps.is_empty() { IN_RUN } else { AFTER_STEPS };
                // The status is written beside the effects, and the pass ends with both.
                let written = if steps.is_empty() { SignedDuration::ZERO } else { RECORD };
                busy_until[side] = universe.now + PASS + written;
                next_pass[side] = busy_until[side] + pause;
                for step in steps {
                    if !pending.iter().any(|effect| effect.side == side && effect.step.kind() == step.kind())
                    {
                        pending.push(Pending { due: universe.now + delays.of(&step), side, step });
                    }
                }
            }
        }
        universe.tick(TICK);
    }
    universe.now.duration_since(begin)
}

fn ended(universe: &Universe) -> bool {
    let to_west = |side: &Side| {
        side.report.run.as_ref().is_some_and(|run| run.mark == Mark::Finished && run.to == region(1))
    };
    universe.sides.iter().all(to_west)
}

/// Number of scripts and seed. What cannot be understood is refused: figures must be those that were asked for.
fn understood(arguments: &[String]) -> Result<(u64, u64), String> {
    let number = |position: usize, absent: u64| match arguments.get(position) {
        Some(text) => text.parse::<u64>().map_err(|error| format!("{text:?}: {error}")),
        None => Ok(absent),
    };
    let (scripts, seed) = (number(0, 200)?, number(1, 1)?);
    if arguments.len() > 2 || !(1..=MOST_SCRIPTS).contains(&scripts) {
        return Err(format!(
            "{arguments:?} is not of the form [SCRIPTS [SEED]] with 1 to {MOST_SCRIPTS} scripts"
        ));
    }
    Ok((scripts, seed))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match understood(&arguments) {
        Ok((scripts, seed)) => {
            measure(scripts, seed);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn measure(scripts: u64, seed: u64) {
    let mut random = Random(seed);
    let mut ratios: Vec<(f64, f64)> = Vec::new();
    for _ in 0..scripts {
        let delays = Delays::random(&mut random);
        let (took, chain) = (switch(&delays).as_secs_f64(), delays.chain().as_secs_f64());
        ratios.push((took / chain, took - chain));
    }
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    let within = ratios.iter().filter(|(ratio, over)| *ratio <= 1.02 || *over <= 1.0).count();
    let goal = if within == ratios.len() { "met" } else { "MISSED" };
    let (median, worst) = (ratios[ratios.len() / 2], ratios[ratios.len() - 1]);
    println!("switch time / longest chain of waits, virtual time, {scripts} random scripts, seed {seed}");
    println!(
        "  settings: hold {} s, passes of {} ms, records of {} ms, {} ms after steps and {} ms after none, renewal {} ms, clock of {} ms",
        HOLD.as_secs(),
        PASS.as_millis(),
        RECORD.as_millis(),
        AFTER_STEPS.as_millis(),
        IN_RUN.as_millis(),
        RENEWAL.as_millis(),
        TICK.as_millis()
    );
    println!(
        "  delays up to: pods 120 s in each of two tiers, controls 15 s, database 180 s, each hook 10 s, name 5 s"
    );
    println!("  median {:.4} (+{:.2} s)   worst {:.4} (+{:.2} s)", median.0, median.1, worst.0, worst.1);
    println!("  goal, at most chain + max(2 %, 1 s): {goal}, {within} of {scripts} within it");
}
