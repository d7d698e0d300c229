//! Names and numbers that the parts exchange. Newtypes, so that an epoch is never taken for a count.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Name of a region as the object's spec has it, for instance `us-east-1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Region(pub String);

/// Number of a grant: grows with each change of the lease's holder. 0 means "never granted".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// Identity of one grant; tells two grants of one epoch number apart (a restored snapshot may repeat numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct GrantId(pub Uuid);

/// Identity of one run (one attempt to move the application).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct RunId(pub Uuid);

impl Region {
    /// The region's name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Region {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl Epoch {
    /// The smallest number in my residue class (my index modulo the number of regions) that is above `floor`.
    /// Two regions can therefore never choose the same number.
    pub fn next_for(my_index: usize, regions: usize, floor: Epoch) -> Epoch {
        let regions = regions.max(1) as u64;
        let class = my_index as u64 % regions;
        let first = floor.0 + 1;
        Epoch(first + (class + regions - first % regions) % regions)
    }
}

macro_rules! display_inner {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
display_inner!(Region, Epoch, GrantId, RunId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_of_two_regions_never_meet_and_always_grow() {
        for floor in 0..50 {
            let a = Epoch::next_for(0, 2, Epoch(floor));
            let b = Epoch::next_for(1, 2, Epoch(floor));
            assert_ne!(a, b);
            for next in [a, b] {
                assert!(next.0 > floor && next.0 <= floor + 2, "{next} is not just above {floor}");
            }
        }
    }
}
