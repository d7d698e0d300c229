//! Choices by weight and numbers from a range, as options give them: `matched=3,mismatched=1`, `1..10`, `1=8,10=2`.

use std::ops::RangeInclusive;
use std::str::FromStr;

use rand::Rng;
use rand::seq::IndexedRandom;

/// Highest weight of a choice: sums stay far from overflow, and a share of a millionth can be told.
const WEIGHT_MAX: u32 = 1_000_000;

/// Something that an option calls by a name.
pub trait Named: Copy + PartialEq + 'static {
    /// All there are.
    const ALL: &'static [Self];
    /// The word in options, files and reports.
    fn name(self) -> &'static str;
}

/// Things and how often each is drawn, in proportion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights<T>(Vec<(T, u32)>);

impl<T: Copy> Weights<T> {
    /// Each as often as the others.
    pub fn equal(things: &[T]) -> Self {
        Self(things.iter().map(|thing| (*thing, 1)).collect())
    }

    /// One of them; `None` if nothing has a weight.
    pub fn draw(&self, random: &mut impl Rng) -> Option<T> {
        self.0.choose_weighted(random, |(_, weight)| *weight).ok().map(|(thing, _)| *thing)
    }

    /// Those that are drawn at all.
    pub fn drawn(&self) -> impl Iterator<Item = T> {
        self.0.iter().filter(|(_, weight)| *weight > 0).map(|(thing, _)| *thing)
    }
}

impl<T: Named> FromStr for Weights<T> {
    type Err = String;

    /// `all`, or names with optional weights: `truncated,oversized=5`. What is not named is never drawn.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::equal(T::ALL));
        }
        let mut weights: Vec<(T, u32)> = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let Some(thing) = T::ALL.iter().copied().find(|thing| thing.name() == name) else {
                let names: Vec<_> = T::ALL.iter().map(|thing| thing.name()).collect();
                return Err(format!("{name:?} is none of: {}", names.join(", ")));
            };
            if weights.iter().any(|(there, _)| *there == thing) {
                return Err(format!("{name} is named twice"));
            }
            weights.push((thing, self::weight(weight)?));
        }
        if weights.iter().all(|(_, weight)| *weight == 0) {
            return Err("at least one weight must be above 0".to_owned());
        }
        Ok(Self(weights))
    }
}

fn weight(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(weight) if weight <= WEIGHT_MAX => Ok(weight),
        _ => Err(format!("{text:?} is no weight: a whole number from 0 to {WEIGHT_MAX}")),
    }
}

/// Whole numbers, all of a range as often, or some by weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spread {
    /// From the first to the last, both included.
    Even(RangeInclusive<i32>),
    /// These numbers.
    Weighted(Weights<i32>),
}

impl Spread {
    /// One number.
    pub fn draw(&self, random: &mut impl Rng) -> i32 {
        match self {
            Self::Even(range) => random.random_range(range.clone()),
            // Parsing refuses weights that are all 0.
            Self::Weighted(weights) => weights.draw(random).unwrap_or_default(),
        }
    }

    /// The smallest and the largest number that can come.
    pub fn limits(&self) -> (i32, i32) {
        match self {
            Self::Even(range) => (*range.start(), *range.end()),
            Self::Weighted(weights) => {
                let smallest = weights.drawn().min().unwrap_or_default();
                (smallest, weights.drawn().max().unwrap_or_default())
            }
        }
    }
}

impl FromStr for Spread {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            text.parse::<i32>()
                .map_err(|_| format!("{text:?} is no whole number; write 5, 1..10 or 1=8,10=2"))
        };
        if let Some((first, last)) = text.split_once("..") {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("{first} is above {last}"));
            }
            return Ok(Self::Even(first..=last));
        }
        let mut weights = Vec::new();
        for part in text.split(',') {
            let (value, share) = part.split_once('=').unwrap_or((part, "1"));
            weights.push((number(value)?, weight(share)?));
        }
        if weights.iter().all(|(_, weight)| *weight == 0) {
            return Err("at least one weight must be above 0".to_owned());
        }
        Ok(Self::Weighted(Weights(weights)))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::super::scenario::Pairing;
    use super::*;

    #[test]
    fn a_weight_is_a_proportion_and_what_is_not_named_never_comes() {
        let weights: Weights<Pairing> = "matched=3,unmatched".parse().unwrap();
        let mut random = StdRng::seed_from_u64(1);
        let draws: Vec<_> = (0..10_000).map(|_| weights.draw(&mut random).unwrap()).collect();
        let matched = draws.iter().filter(|drawn| **drawn == Pairing::Matched).count();
        assert!((7_300..7_700).contains(&matched), "{matched}");
        assert!(!draws.contains(&Pairing::Mismatched));
    }

    #[test]
    fn what_cannot_be_drawn_from_is_refused_with_the_reason() {
        for (text, reason) in [
            ("matchd", "none of: matched, mismatched"),
            ("matched,matched=2", "named twice"),
            ("matched=0", "above 0"),
            ("matched=-1", "no weight"),
            ("", "none of"),
        ] {
            let refused = text.parse::<Weights<Pairing>>().unwrap_err();
            assert!(refused.contains(reason), "{text:?}: {refused}");
        }
        for (text, reason) in
            [("ten", "no whole number"), ("5..1", "above"), ("1..", "no whole number"), ("3=0", "above 0")]
        {
            let refused = text.parse::<Spread>().unwrap_err();
            assert!(refused.contains(reason), "{text:?}: {refused}");
        }
    }

    #[test]
    fn a_spread_draws_each_number_between_its_limits_and_no_other() {
        let mut random = StdRng::seed_from_u64(2);
        for (text, expected) in [("1..4", vec![1, 2, 3, 4]), ("7", vec![7]), ("2=1,9=1", vec![2, 9])] {
            let spread: Spread = text.parse().unwrap();
            let mut drawn: Vec<_> = (0..1_000).map(|_| spread.draw(&mut random)).collect();
            drawn.sort_unstable();
            drawn.dedup();
            assert_eq!(drawn, expected, "{text}");
            assert_eq!(Some(spread.limits()), expected.first().copied().zip(expected.last().copied()));
        }
    }
}
