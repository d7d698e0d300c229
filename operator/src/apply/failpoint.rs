//! Points at which a test makes the process end abruptly: before or after the effect of a named kind of step. The wish
//! stands in an annotation on the object; it is removed first, so that the process ends there once. Nobody reads it unless the
//! process was started with `--failpoints`, which the lab's image does and no chart.

use crds::TradingRegion;
use region_plan::{Region, StepKind};

/// The annotation: `<region>/<before|after>/<StepKind>`.
pub const ANNOTATION: &str = "test.regions.trading.dev/crash-at";

/// Where, relative to the effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The effect was not made.
    Before,
    /// The effect was made and nobody knows yet.
    After,
}

/// A wished end of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrashAt {
    moment: Moment,
    kind: StepKind,
}

impl CrashAt {
    /// The wish on this object that is meant for region `me`; `None` unless such wishes are `armed`.
    pub fn wished(armed: bool, object: &TradingRegion, me: &Region) -> Option<Self> {
        if !armed {
            return None;
        }
        parse(object.metadata.annotations.as_ref()?.get(ANNOTATION)?, me)
    }

    /// Whether this is the moment.
    pub fn is(&self, moment: Moment, kind: StepKind) -> bool {
        self.moment == moment && self.kind == kind
    }
}

fn parse(text: &str, me: &Region) -> Option<CrashAt> {
    let mut parts = text.split('/');
    let (region, moment, kind) = (parts.next()?, parts.next()?, parts.next()?);
    let moment = match moment {
        "before" => Moment::Before,
        "after" => Moment::After,
        _ => return None,
    };
    (region == me.as_str() && parts.next().is_none())
        .then_some(CrashAt { moment, kind: StepKind::parse(kind)? })
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
        assert_eq!(CrashAt::wished(false, &object, &me), None);
        assert!(CrashAt::wished(true, &object, &me).unwrap().is(Moment::Before, StepKind::Fence));
    }

    #[test]
    fn every_kind_of_step_can_be_named_before_and_after() {
        let me = Region::from("us-east-1");
        for kind in StepKind::ALL {
            for (word, moment) in [("before", Moment::Before), ("after", Moment::After)] {
                let wish = parse(&format!("us-east-1/{word}/{}", kind.name()), &me).unwrap();
                assert!(wish.is(moment, *kind));
            }
        }
    }

    #[test]
    fn a_wish_for_the_other_region_or_an_unknown_step_is_nothing() {
        let me = Region::from("us-east-1");
        for text in [
            "us-west-2/before/Fence",
            "us-east-1/during/Fence",
            "us-east-1/before/Nothing",
            "us-east-1/before",
            "",
        ] {
            assert_eq!(parse(text, &me), None, "{text}");
        }
    }
}
