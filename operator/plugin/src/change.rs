//! Changing both copies, and how far that has come.

use std::cell::Cell;

use crate::act::Refusal;
use crate::cluster::{Copy, CopyError, Wish};
use crate::failure::Failure;
use crate::find::Regions;
use crate::hint::Place;
use crate::view::View;

/// Attempts to change a copy that others change at the same time (its status changes all the time during a run).
const MOST_ATTEMPTS: u32 = 5;

/// How far an act has come: what is true when a key interrupts it.
#[derive(Debug, Default)]
pub(crate) enum Stage {
    #[default]
    Nothing,
    Changing(Place),
    Changed(Place),
}

impl Stage {
    /// What is told after an interruption.
    pub(crate) fn interrupted(&self) -> String {
        match self {
            Stage::Nothing => "nothing was changed".to_owned(),
            Stage::Changing(place) => place.spell(
                "the copies were just being changed; see kubectl region status, \
                 then kubectl region abort, or the same command again",
            ),
            Stage::Changed(place) => place.spell("what was started goes on: kubectl region status"),
        }
    }
}

/// Changes both copies, each only if what it rests on still holds in a fresh reading. Answers the new generations, in the
/// order of the view's regions.
///
/// A copy that the second change did not reach leaves the copies in disagreement: then nothing moves, and it is said.
pub(crate) async fn change_both(
    regions: &Regions,
    name: &str,
    wish: &Wish<'_>,
    stage: &Cell<Stage>,
    may: impl Fn(&View, &[Copy]) -> Result<(), Refusal>,
) -> Result<(Vec<i64>, View), Failure> {
    let mut generations: Vec<Option<i64>> = vec![None; regions.clusters.len()];
    let mut attempts = 0;
    loop {
        let (copies, view) = regions.look(Some(name), Some(wish.region)).await?;
        // After the first change the copies differ on purpose; the check belongs to the moment before it.
        if generations.iter().all(Option::is_none) {
            may(&view, &copies)?;
        }
        let Some(next) = generations.iter().position(Option::is_none) else {
            stage.set(Stage::Changed(Place::of(&view)));
            let ordered = view.regions.iter().map(|region| position(&copies, &region.context));
            let generations = ordered.map(|at| at.and_then(|at| generations[at]).unwrap_or_default());
            return Ok((generations.collect(), view));
        };
        attempts += 1;
        stage.set(Stage::Changing(Place::of(&view)));
        let result = match &copies[next].object {
            Ok(object) => regions.clusters[next].wish(object, wish).await,
            Err(why) => Err(why.clone()),
        };
        match result {
            Ok(generation) => generations[next] = Some(generation),
            Err(CopyError::Changed { .. }) if attempts < MOST_ATTEMPTS => {}
            Err(why) => {
                if generations.iter().any(Option::is_some) {
                    let next = "kubectl region abort, or the same command again";
                    let next = Place::of(&view).spell(next);
                    eprintln!("only one copy was changed, so nothing moves; next: {next}");
                }
                return Err(why.into());
            }
        }
    }
}

fn position(copies: &[Copy], context: &str) -> Option<usize> {
    copies.iter().position(|copy| copy.context == context)
}
