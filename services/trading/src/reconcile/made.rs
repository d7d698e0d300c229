//! Core's decisions against the settlements that egress made of them: in trade matching one for each allocation of a
//! matched side, in the settlement application the one that returns.

use std::collections::{HashMap, HashSet};

use matching::Status;
use tokio_postgres::Row;
use uuid::Uuid;

use super::finding::Comparison;
use super::snapshot::Snapshot;
use super::{Job, ReconcileError, given_to_relay};
use crate::core::{Subject, relay};
use crate::days::DAY_MS;
use crate::envelope::{Decided, Record};
use crate::message::Trade;
use crate::settlement::outgoing::Made;
use crate::settlement::{Settlement, parse, returning};
use crate::{egress, ids};

/// What becomes settlements, in one of the applications.
pub(super) trait Makes: Subject {
    /// Which decisions, as a condition on the outbox.
    const OF: &'static str;

    /// What egress makes of one.
    fn made(decided: &Record<Decided<Self>>) -> Vec<Made>;

    /// The decision that a settlement was made of; `None` if its text does not tell.
    fn decision(message: Uuid, id: &str, body: &str) -> Option<Uuid>;

    /// Where quarantine has it, if the database refused it.
    fn apart(decided: &Record<Decided<Self>>, made: &Made) -> Uuid;
}

impl Makes for Trade {
    const OF: &'static str = "outbox.status = 'MATCHED'";

    fn made(decided: &Record<Decided>) -> Vec<Made> {
        egress::settlements(decided)
    }

    fn decision(_message: Uuid, id: &str, body: &str) -> Option<Uuid> {
        let settlement = parse::settlement(body, Some(id), 0).ok()?;
        let Settlement { trade_date, version, .. } = settlement;
        Some(ids::answer(trade_date, &settlement.trade_id(), version, Status::Matched))
    }

    fn apart(_decided: &Record<Decided>, made: &Made) -> Uuid {
        ids::quarantined(egress::STAGE, made.body.as_bytes())
    }
}

impl Makes for Settlement {
    const OF: &'static str = "true";

    fn made(decided: &Record<Decided<Self>>) -> Vec<Made> {
        returning::made(decided).into_iter().collect()
    }

    fn decision(message: Uuid, _id: &str, _body: &str) -> Option<Uuid> {
        Some(message)
    }

    fn apart(decided: &Record<Decided<Self>>, _made: &Made) -> Uuid {
        ids::quarantined(egress::STAGE, decided.apart().as_bytes())
    }
}

/// A decision is under way as long as it is on the list of unanswered ones and young there.
fn decisions<C: Makes>() -> String {
    format!(
        "select outbox.message_id, outbox.id, outbox.received_ms, outbox.caused_ms, outbox.body, \
            coalesce(unanswered.since > now() - make_interval(secs => $2), false) as young \
         from trading.outbox left join trading.unanswered using (message_id) \
         where {} and {} \
         order by outbox.message_id",
        given_to_relay(),
        C::OF
    )
}

const MADE: &str = "select message_id, id, status, body from trading.outgoing_settlements \
     where made_at >= to_timestamp($1::bigint / 1000.0) order by message_id";

const MADE_OF: &str = "select message_id, id, status, body from trading.outgoing_settlements \
     where message_id = any($1)";

const DECISIONS: &str = "select message_id, id, received_ms, caused_ms, body from trading.outbox \
     where message_id = any($1) and caused_ms >= $2";

/// Compares the boundary.
pub(super) async fn compare<C: Makes>(
    snapshot: &Snapshot<'_>,
    job: Job,
) -> Result<Comparison, ReconcileError> {
    let mut comparison = Comparison::new(job);
    let mut pages = snapshot.pages(&decisions::<C>(), true).await?;
    while let Some(page) = pages.next().await? {
        let mut expected: Vec<Expected<C>> = Vec::new();
        for row in &page {
            expected.extend(read::<C>(row, &mut comparison).map_err(snapshot.unreadable())?);
        }
        judge(snapshot, &mut comparison, expected).await?;
    }
    ahead::<C>(snapshot, &mut comparison).await?;
    Ok(comparison)
}

/// A decision with what egress makes of it now.
struct Expected<C> {
    decided: Record<Decided<C>>,
    young: bool,
    made: Vec<Made>,
}

fn read<C: Makes>(
    row: &Row,
    comparison: &mut Comparison,
) -> Result<Option<Expected<C>>, tokio_postgres::Error> {
    let Ok(decided) = relay::decision::<C>(row)? else {
        let message: Uuid = row.try_get("message_id")?;
        comparison.differs.add(message, || "the decision in trading.outbox cannot be read".to_owned());
        return Ok(None);
    };
    let made = C::made(&decided);
    comparison.compared += made.len() as u64;
    Ok(Some(Expected { decided, young: row.try_get("young")?, made }))
}

async fn judge<C: Makes>(
    snapshot: &Snapshot<'_>,
    comparison: &mut Comparison,
    expected: Vec<Expected<C>>,
) -> Result<(), ReconcileError> {
    let messages: Vec<Uuid> = expected.iter().flat_map(|one| &one.made).map(|made| made.message_id).collect();
    let rows = snapshot.rows(MADE_OF, &[&messages]).await?;
    let mut stored: HashMap<Uuid, (&str, &str, &str)> = HashMap::new();
    for row in &rows {
        let read = || Ok((row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?)));
        let (message, rest) = read().map_err(snapshot.unreadable())?;
        stored.insert(message, rest);
    }
    let mut absent = Vec::new();
    for Expected { decided, young, made } in &expected {
        for made in made {
            match stored.get(&made.message_id) {
                None if *young => comparison.under_way += 1,
                None => absent.push((decided, made, C::apart(decided, made))),
                Some((_, status, _)) if *status != made.status => {
                    let id = &made.id;
                    comparison.differs.add(made.message_id, || {
                        format!("{id} has another status in trading.outgoing_settlements than follows from the decision")
                    });
                }
                Some((id, _, body)) if (*id, *body) != (made.id.as_str(), made.body.as_str()) => {
                    comparison.differs.add(made.message_id, || {
                        format!("{id} has another content in trading.outgoing_settlements than follows from the decision")
                    });
                }
                Some(_) => {}
            }
        }
    }
    let digests: Vec<Uuid> = absent.iter().map(|(.., digest)| *digest).collect();
    let apart = snapshot.set_apart(&digests).await?;
    for (decided, made, digest) in absent {
        if apart.contains(&digest) {
            comparison.set_apart += 1;
        } else {
            comparison.missing_of(made.message_id, decided.record, || {
                format!("{} {} is not in trading.outgoing_settlements", made.status, made.id)
            });
        }
    }
    Ok(())
}

/// Settlements that follow from no decision.
async fn ahead<C: Makes>(snapshot: &Snapshot<'_>, comparison: &mut Comparison) -> Result<(), ReconcileError> {
    let mut pages = snapshot.pages(MADE, false).await?;
    while let Some(page) = pages.next().await? {
        let mut made: Vec<(Uuid, &str, &str, Option<Uuid>)> = Vec::new();
        for row in &page {
            let read = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get::<_, &str>(3)?));
            let (message, id, status, body) = read().map_err(snapshot.unreadable())?;
            made.push((message, id, status, C::decision(message, id, body)));
        }
        let mut decisions: Vec<Uuid> = made.iter().filter_map(|(.., decision)| *decision).collect();
        let mut follows: HashSet<Uuid> = HashSet::new();
        // What was made since the mark was nearly always decided little before it: only what is not there is looked for on
        // every day.
        for from_ms in [snapshot.since_ms() - DAY_MS, 0] {
            if decisions.is_empty() {
                break;
            }
            let rows = snapshot.rows(DECISIONS, &[&decisions, &from_ms]).await?;
            for row in &rows {
                let message: Uuid = row.try_get("message_id").map_err(snapshot.unreadable())?;
                decisions.retain(|decision| *decision != message);
                // One that cannot be read is told as such.
                if let Ok(decided) = relay::decision::<C>(row).map_err(snapshot.unreadable())? {
                    follows.extend(C::made(&decided).iter().map(|made| made.message_id));
                }
            }
        }
        for (message, id, status, _) in made {
            if !follows.contains(&message) {
                comparison.ahead.add(message, || {
                    format!("{status} {id} is in trading.outgoing_settlements and follows from no decision")
                });
            }
        }
    }
    Ok(())
}
