//! Points at which a test makes the process end abruptly or wait: around the effect of a named kind of step. The wish
//! stands in an annotation on the object and is met once. Nobody reads it unless the process was started with
//! `--failpoints`, which the lab's image does and no chart.

use crds::TradingRegion;
use region_plan::{Region, StepKind};

/// The annotation: `<region>/<before|after|hold>/<StepKind>`.
pub const ANNOTATION: &str = "test.regions.trading.dev/failpoint";

/// Where, relative to the effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The effect was not made.
    Before,
    /// The effect was made and nobody knows yet.
    After,
}

/// What is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    End(Moment),
    Hold,
}

/// A wish of a test, about one kind of step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failpoint {
    act: Act,
    kind: StepKind,
}

impl Failpoint {
    /// The wish on this object that is meant for region `me`; `None` unless such wishes are `armed`.
    pub fn wished(armed: bool, object: &TradingRegion, me: &Region) -> Option<Self> {
        if !armed {
            return None;
        }
        parse(object.metadata.annotations.as_ref()?.get(ANNOTATION)?, me)
    }

    /// Whether the process is to end at this moment of such a step.
    pub fn ends(&self, moment: Moment, kind: StepKind) -> bool {
        self.act == Act::End(moment) && self.kind == kind
    }

    /// Whether the process is to wait before the effect of such a step, until the annotation is gone.
    pub fn holds(&self, moment: Moment, kind: StepKind) -> bool {
        self.act == Act::Hold && moment == Moment::Before && self.kind == kind
    }
}

fn parse(text: &str, me: &Region) -> Option<Failpoint> {
    let mut parts = text.split('/');
    let (region, act, kind) = (parts.next()?, parts.next()?, parts.next()?);
    let act = match act {
        "before" => Act::End(Moment::Before),
        "after" => Act::End(Moment::After),
        "hold" => Act::Hold,
        _ => return None,
    };
    (region == me.as_str() && parts.next().is_none())
        .then_some(Failpoint { act, kind: StepKind::parse(kind)? })
}

/// Ends the process as a kill would: nothing is flushed, nothing is given back.
pub fn crash() -> ! {
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::example;

    #[test]
    fn a_wish_is_not_read_unless_such_wishes_are_armed() {
        let me = Region::from("us-east-1");
        let mut object = example();
        object.metadata.annotations =
            Some([(ANNOTATION.to_owned(), "us-east-1/before/Fence".to_owned())].into());
        assert_eq!(Failpoint::wished(false, &object, &me), None);
        assert!(Failpoint::wished(true, &object, &me).unwrap().ends(Moment::Before, StepKind::Fence));
    }

    #[test]
    fn every_kind_of_step_can_be_named() {
        let me = Region::from("us-east-1");
        for kind in StepKind::ALL {
            for (word, moment) in [("before", Moment::Before), ("after", Moment::After)] {
                let wish = parse(&format!("us-east-1/{word}/{}", kind.name()), &me).unwrap();
                assert!(wish.ends(moment, *kind) && !wish.holds(moment, *kind));
            }
            let wish = parse(&format!("us-east-1/hold/{}", kind.name()), &me).unwrap();
            assert!(wish.holds(Moment::Before, *kind) && !wish.holds(Moment::After, *kind));
            assert!(!wish.ends(Moment::Before, *kind));
        }
    }

    #[test]
    fn a_wish_for_the_other_region_or_an_unknown_step_is_nothing() {
        let me = Region::from("us-east-1");
        for text in [
            "us-west-2/before/Fence",
            "us-east-1/held/Fence",
            "us-east-1/before/Nothing",
            "us-east-1/before",
            "",
        ] {
            assert_eq!(parse(text, &me), None, "{text}");
        }
    }
}
