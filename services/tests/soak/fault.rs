//! Faults as they are made, and what became of each.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use services_common::clock;
use tokio::time::timeout;

use crate::Struck;
use crate::copies;
use crate::plan::{Event, Fault, Target};
use crate::rig::Rig;

/// Every fault is over within this time, whatever else goes wrong meanwhile.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

/// Makes a fault and waits until what it struck is back.
pub(crate) async fn strike(rig: Arc<Rig>, event: Event) -> Result<Struck> {
    timeout(LIMIT, make(&rig, &event)).await?
}

async fn make(rig: &Rig, event: &Event) -> Result<Struck> {
    match event.target {
        Target::Stage(application, name) => {
            let stage = rig.side(application).stage(name)?;
            match event.fault {
                Fault::StageTold => stage.tell().await,
                Fault::StagePaused => stage.pause(event.lasts).await,
                _ => stage.kill().await,
            }
        }
        Target::Broker(application) => {
            let side = rig.side(application);
            match event.fault {
                Fault::BrokerRestarted => side.broker.restart(false).await,
                Fault::BrokerCut => Ok(side.broker.gateway.cut()),
                Fault::BrokerSilent => Ok(side.broker.gateway.silent(event.lasts).await),
                Fault::Reordered => Ok(match copies::reorder(side, event.seed, event.lasts).await {
                    Ok(0) => Err("no message was there"),
                    Ok(_) => Ok(()),
                    Err(_) => Err("the broker went away"),
                }),
                _ => side.broker.restart(true).await,
            }
        }
        Target::Database(application) => {
            let database = &rig.side(application).database;
            match event.fault {
                Fault::DatabaseRestarted => database.restart(false).await,
                Fault::DatabaseSwitched => database.switch().await,
                Fault::DatabaseCut => Ok(database.gateway.cut()),
                Fault::DatabaseSilent => Ok(database.gateway.silent(event.lasts).await),
                _ => database.restart(true).await,
            }
        }
        Target::Lease(application) => {
            let side = rig.side(application);
            match event.fault {
                Fault::GrantedAnew => side.lease.grant(side).await?,
                _ => side.lease.lapse(event.lasts).await,
            }
            Ok(Ok(()))
        }
    }
}

/// How often each fault struck each target, and how often it could not.
#[derive(Default)]
pub(crate) struct Coverage {
    rows: BTreeMap<(Fault, String), (u32, u32)>,
    last: Option<String>,
    /// Begin and end of each, by the clock of the logs.
    story: String,
}

impl Coverage {
    pub(crate) fn note(&mut self, event: &Event, struck: &Struck) {
        let row = self.rows.entry((event.fault, event.target.to_string())).or_default();
        match struck {
            Ok(()) => row.0 += 1,
            Err(_) => row.1 += 1,
        }
        let outcome = struck.as_ref().map_or_else(|reason| *reason, |()| "over");
        let _ = writeln!(self.story, "{} {event}: {outcome}", clock::now());
    }

    /// The latest that was begun.
    pub(crate) fn began(&mut self, event: &Event) {
        self.last = Some(event.to_string());
        let _ = writeln!(self.story, "{} {event}", clock::now());
    }

    /// For the folder of logs.
    pub(crate) fn story(&self) -> &str {
        &self.story
    }

    pub(crate) fn last(&self) -> &str {
        self.last.as_deref().unwrap_or("none")
    }

    pub(crate) fn struck(&self) -> u32 {
        self.rows.values().map(|(struck, _)| struck).sum()
    }

    pub(crate) fn table(&self) -> String {
        let mut text =
            String::from("target               fault                      struck   not possible then\n");
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by_key(|((fault, target), _)| (target.clone(), *fault));
        for ((fault, target), (struck, not)) in rows {
            let _ = writeln!(text, "{target:<20} {:<26} {struck:>6} {not:>8}", fault.words());
        }
        text
    }
}
