//! What a planned switch would do now, and what stands in its way. Changes nothing.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::findings;
use crate::ids::{Epoch, Region};
use crate::intent::{HookPoint, Intent};
use crate::plan::{Code, Finding};
use crate::step::StepKind;
use crate::world::World;

/// A switch that could be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// The region that would become active.
    pub to: Region,
    /// The epoch that would end.
    pub from_epoch: Epoch,
    /// The steps in their order.
    pub steps: Vec<PreviewStep>,
    /// What this side sees in the way of it.
    pub blocking: Vec<Finding>,
    /// Digest of all of the above: whoever acts on a plan compares it, to act on nothing else than what was seen.
    pub hash: String,
}

/// One step of a preview.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PreviewStep {
    /// The side that makes it.
    pub region: Region,
    /// The step.
    pub step: StepKind,
    /// From this step on there is only forward.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub point_of_no_return: bool,
}

/// The switch from the present holder to the other region, as region `me` sees it. `None` while no region holds
/// the lease or the lease is not known.
pub fn preview(now: Timestamp, me: &Region, intent: &Intent, world: &World) -> Option<Preview> {
    let other = intent.other(me)?;
    let ctx = Context { now, me, other, intent, world };
    let row = ctx.lease()?;
    let from = row.holder.as_ref()?;
    let to = intent.other(from)?;
    let steps = steps(intent, from, to);
    // A switch begins with a change of both specs, so that a present disagreement about it is not in its way.
    let blocking: Vec<Finding> = findings::collect(&ctx)
        .into_iter()
        .filter(|finding| finding.code.blocks() && finding.code != Code::SpecDisagreed)
        .collect();
    let mut digest = Digest::new();
    digest.add(&format!("{from}>{to}@{}", row.epoch));
    steps.iter().for_each(|step| digest.add(&format!("{}:{}", step.region, step.step.name())));
    blocking.iter().for_each(|finding| digest.add(finding.code.text()));
    Some(Preview { to: to.clone(), from_epoch: row.epoch, steps, blocking, hash: digest.text() })
}

fn steps(intent: &Intent, from: &Region, to: &Region) -> Vec<PreviewStep> {
    let hook = |point: HookPoint, kind: StepKind| intent.hooks.contains(&point).then_some((to, kind));
    let order = [
        Some((to, StepKind::RecordProposed)),
        Some((from, StepKind::RecordAccepted)),
        Some((to, StepKind::ScaleActive)),
        hook(HookPoint::PreWarm, StepKind::HookPreWarm),
        Some((from, StepKind::FlipIngressOff)),
        Some((from, StepKind::CloseBroker)),
        Some((from, StepKind::RecordDrained)),
        Some((from, StepKind::Fence)),
        intent.hooks.contains(&HookPoint::Drained).then_some((from, StepKind::HookDrained)),
        Some((from, StepKind::CloseAnswers)),
        Some((to, StepKind::RecordBegun)),
        Some((to, StepKind::FlipAppOver)),
        Some((to, StepKind::SwitchDatabase)),
        Some((to, StepKind::Grant)),
        hook(HookPoint::AfterGrant, StepKind::HookAfterGrant),
        Some((to, StepKind::FlipIntakeOn)),
        Some((to, StepKind::OpenIntake)),
        hook(HookPoint::Probe, StepKind::HookProbe),
        Some((to, StepKind::OpenBroker)),
        Some((to, StepKind::FlipIngressOn)),
        hook(HookPoint::AfterOpen, StepKind::HookAfterOpen),
    ];
    order
        .into_iter()
        .flatten()
        .map(|(region, step)| PreviewStep {
            region: region.clone(),
            step,
            point_of_no_return: step == StepKind::RecordBegun,
        })
        .collect()
}

/// FNV-1a, 64 bits: short enough to type, stable over versions. It guards against a changed plan, not an attacker.
struct Digest(u64);

impl Digest {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, text: &str) {
        for byte in text.bytes().chain([0]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn text(&self) -> String {
        format!("{:016x}", self.0)
    }
}
