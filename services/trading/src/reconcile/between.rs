//! What one application made for the other against what the other one's inbound gateway stored. The two lie in different
//! databases, which cannot share a snapshot.
//!
//! Each server makes sums of what it has; only where they differ are records fetched. Everything then differs that moved
//! between the two looks, so each difference is looked at once more, upstream first and downstream after it: what was made
//! before it was taken, and what is taken stays. Names: *own* is the application that made it, *peer* the one that takes.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::finding::Comparison;
use super::peer::{self, Peer};
use super::snapshot::{Pages, Snapshot};
use super::{Job, Plan, ReconcileError};
use crate::ids;
use crate::ingestion::Content;
use crate::names::{Application, Line};
use crate::settlement::resend::LOOK_INTERVAL_MAX;
use crate::settlement::{Back, Returned, Settlement, SettlementStatus};

/// Records that are looked at once more in one go.
const CHUNK: usize = 200;
/// Records that may seem to differ, of each kind: their ids are in memory. More than that are no comparison.
const DIFFERENT_MAX: usize = 500_000;

/// What is unsent is on its way whatever happens, so it is counted and not compared.
const UNSENT: &str = "select count(*) from trading.outgoing_settlements \
     where sent_at is null and made_at >= to_timestamp($1::bigint / 1000.0)";
const COUNT: &str = "select count(*) from trading.outgoing_settlements \
     where made_at >= to_timestamp($1::bigint / 1000.0)";

/// A record is the digest of id and bytes, which the taking side has as its key; there its bytes may have been changed.
const OWN: &str = "select trading.record_id(id, convert_to(body, 'UTF8')) as record, message_id, \
        trading.record_id(id, convert_to(body, 'UTF8')) as content \
     from trading.outgoing_settlements \
     where made_at >= to_timestamp($1::bigint / 1000.0) and sent_at is not null";

fn taken(line: &Line) -> String {
    format!(
        "select record, record as message_id, trading.record_id(correlation_id, body) as content \
         from {} where received_ms >= $1",
        line.raw
    )
}

/// The group of an id, a number between 0 and 4095: the same in every version of the server.
fn group(id: &str) -> String {
    format!("get_byte(uuid_send({id}), 0) * 16 + get_byte(uuid_send({id}), 1) / 16")
}

/// Numbers of the records and of their bytes, added up: equal for equal sets, whatever their order.
fn sums(of: &str) -> String {
    let number =
        |column| format!("sum(('x' || left(encode(uuid_send({column}), 'hex'), 15))::bit(60)::bigint)");
    format!(
        "select {} as bucket, count(*) || ' ' || {} || ' ' || {} as sums from ({of}) as all_of_them group by 1",
        group("record"),
        number("record"),
        number("content")
    )
}

fn rows_in(of: &str) -> String {
    format!(
        "select record, message_id, content from ({of}) as all_of_them where {} = any($2) order by record",
        group("record")
    )
}

/// The line by which the other application takes what `application` makes.
fn line(application: Application) -> Line {
    match application {
        Application::TradeMatching => Settlement::LINE,
        Application::Settlement => Back::LINE,
    }
}

/// One comparison between two applications.
pub(super) struct Between<'a> {
    pub(super) plan: &'a Plan,
    pub(super) peer: &'a Peer,
    pub(super) job: Job,
}

/// What seems to differ after the first look.
#[derive(Default)]
struct Suspects {
    /// Made and not taken: the records, with their message ids.
    absent: BTreeMap<Uuid, Uuid>,
    /// Taken and not made.
    behind: Vec<Uuid>,
    /// Taken with other bytes: message ids.
    altered: Vec<Uuid>,
}

impl Between<'_> {
    /// Compares the boundary.
    pub(super) async fn compare(&self, own: &mut Client) -> Result<Comparison, ReconcileError> {
        let (app, region) = (&self.plan.app, &self.plan.region);
        let mut there = self.peer.connect().await?;
        let grants = (peer::holds(own, app, region).await?, self.peer.holds(&there).await?);
        let mut comparison = Comparison::new(self.job);
        let mut suspects = self.look(own, &mut there, &mut comparison).await?;
        self.behind(own, &there, &mut suspects, &mut comparison).await?;
        self.altered(own, &suspects, &mut comparison).await?;
        let absent: Vec<Uuid> = suspects.absent.into_values().collect();
        for messages in absent.chunks(CHUNK) {
            self.absent(own, &there, messages, &mut comparison).await?;
        }
        // A switch in the meantime may have changed which database counts.
        if grants != (peer::holds(own, app, region).await?, self.peer.holds(&there).await?) {
            let reason = "the lease changed hands while the two were compared".to_owned();
            return Err(ReconcileError::NotPrimary { app: self.peer.app.clone(), reason });
        }
        Ok(comparison)
    }

    fn failed(&self) -> impl Fn(tokio_postgres::Error) -> ReconcileError {
        let job = self.job;
        move |source| ReconcileError::Read { job, source }
    }

    async fn look(
        &self,
        own: &mut Client,
        there: &mut Client,
        comparison: &mut Comparison,
    ) -> Result<Suspects, ReconcileError> {
        let window = self.plan.window;
        let mut own = Snapshot::begin(own, self.job, window).await?;
        let mut there = Snapshot::begin(there, self.job, window).await?;
        // Each application drops days by itself.
        own.not_before(there.since_ms());
        there.not_before(own.since_ms());
        comparison.compared = own.count(COUNT).await?;
        comparison.under_way = own.count(UNSENT).await?;
        let taken = taken(&line(self.plan.application));
        let (ours, theirs) = (buckets(&own, &sums(OWN)).await?, buckets(&there, &sums(&taken)).await?);
        let all: HashSet<i32> = ours.keys().chain(theirs.keys()).copied().collect();
        let differing: Vec<i32> =
            all.into_iter().filter(|bucket| ours.get(bucket) != theirs.get(bucket)).collect();
        let mut suspects = Suspects::default();
        if !differing.is_empty() {
            let ours = Ordered::of(own.pages_in(&rows_in(OWN), &differing, false).await?, self.job);
            let theirs = Ordered::of(there.pages_in(&rows_in(&taken), &differing, false).await?, self.job);
            merge(ours, theirs, &mut suspects).await?;
        }
        Ok(suspects)
    }

    /// Taken and not made at the first look: made since, or under other bytes, or never.
    async fn behind(
        &self,
        own: &Client,
        there: &Client,
        suspects: &mut Suspects,
        comparison: &mut Comparison,
    ) -> Result<(), ReconcileError> {
        let (own_app, raw, peer) = (self.plan.application, line(self.plan.application).raw, &self.peer.app);
        let stored = format!("select record, correlation_id, body from {raw} where record = any($1)");
        let made = "select message_id, trading.record_id(id, convert_to(body, 'UTF8')), id, body \
            from trading.outgoing_settlements where message_id = any($1)";
        // Nothing but its bytes tells a refusal's message id. It is looked for only if it seems not to be there.
        let refused = "select trading.record_id(id, convert_to(body, 'UTF8')) from trading.outgoing_settlements \
            where status = 'NACK' and trading.record_id(id, convert_to(body, 'UTF8')) = any($1)";
        for records in std::mem::take(&mut suspects.behind).chunks(CHUNK) {
            let rows = there.query(&stored, &[&records]).await.map_err(self.failed())?;
            let came: Vec<Came> =
                rows.iter().map(Came::read).collect::<Result<_, _>>().map_err(self.failed())?;
            let messages: Vec<Uuid> = came.iter().filter_map(|one| one.message(own_app)).collect();
            let rows = own.query(made, &[&messages]).await.map_err(self.failed())?;
            let known: HashMap<Uuid, (Uuid, Option<Returned>)> =
                known(own_app, &rows).map_err(self.failed())?;
            let untold: Vec<Uuid> =
                came.iter().filter(|one| one.message(own_app).is_none()).map(|one| one.record).collect();
            let refusals = if untold.is_empty() {
                HashSet::new()
            } else {
                let rows = own.query(refused, &[&untold]).await.map_err(self.failed())?;
                ids_of(&rows).map_err(self.failed())?
            };
            for one in came.iter().filter(|one| !refusals.contains(&one.record)) {
                let (record, id) = (one.record, &one.id);
                match one.message(own_app).and_then(|message| Some((message, known.get(&message)?))) {
                    Some((_, (made, _))) if *made == record => {}
                    // It was made anew by who had lost it; whether that one has arrived too is another question.
                    Some((_, (_, Some(made)))) if one.repeats(own_app, made) => comparison.repeated += 1,
                    Some((message, (made, _))) if suspects.absent.remove(made).is_some() => {
                        comparison.differs.add(message, || {
                            format!("{id} was taken by {peer} with another content than it was made with")
                        });
                    }
                    _ => comparison
                        .ahead
                        .add(record, || format!("{id} is in {raw} of {peer} and was not made")),
                }
            }
        }
        Ok(())
    }

    async fn altered(
        &self,
        own: &Client,
        suspects: &Suspects,
        comparison: &mut Comparison,
    ) -> Result<(), ReconcileError> {
        let raw = line(self.plan.application).raw;
        for messages in suspects.altered.chunks(CHUNK) {
            let ids = "select message_id, id from trading.outgoing_settlements where message_id = any($1)";
            for row in own.query(ids, &[&messages]).await.map_err(self.failed())? {
                let (message, id): (Uuid, String) =
                    (row.try_get(0).map_err(self.failed())?, row.try_get(1).map_err(self.failed())?);
                comparison.differs.add(message, || {
                    format!("{id} has another content in {raw} of {} than it was made with", self.peer.app)
                });
            }
        }
        Ok(())
    }

    /// Made and not taken at the first look: taken since, or on its way, or lost.
    async fn absent(
        &self,
        own: &Client,
        there: &Client,
        messages: &[Uuid],
        comparison: &mut Comparison,
    ) -> Result<(), ReconcileError> {
        let grace = self.plan.window.grace.as_secs_f64();
        let made = "select message_id, id, status, body, trading.record_id(id, convert_to(body, 'UTF8')) as record, \
                sent_at is null or sent_at > clock_timestamp() - make_interval(secs => $2) as young \
             from trading.outgoing_settlements where message_id = any($1) order by message_id";
        let rows = own.query(made, &[&messages, &grace]).await.map_err(self.failed())?;
        let made: Vec<Made> = rows.iter().map(Made::read).collect::<Result<_, _>>().map_err(self.failed())?;
        // Who waits for an answer sends again. What came back is off that list only after it was stored there, so the list
        // is read first.
        let asked: Vec<Uuid> = made.iter().filter_map(|one| one.asked(self.plan.application)).collect();
        let waiting = match self.plan.application {
            Application::TradeMatching => self.waiting(own, &asked).await?,
            Application::Settlement => self.waiting(there, &asked).await?,
        };
        let records: Vec<Uuid> = made.iter().map(|one| one.record).collect();
        let raw = line(self.plan.application).raw;
        let stored = format!("select record from {raw} where record = any($1)");
        let stored = ids_of(&there.query(&stored, &[&records]).await.map_err(self.failed())?);
        let stored = stored.map_err(self.failed())?;
        let digests: Vec<Uuid> = made.iter().map(Made::digest).collect();
        let apart = "select digest from trading.quarantine where digest = any($1)";
        let apart = ids_of(&there.query(apart, &[&digests]).await.map_err(self.failed())?);
        let apart = apart.map_err(self.failed())?;
        for one in made.iter().filter(|one| !stored.contains(&one.record)) {
            let again = one.asked(self.plan.application).and_then(|asked| waiting.get(&asked));
            if one.young || again.is_some_and(|again| again.due_later) {
                comparison.under_way += 1;
            } else if apart.contains(&one.digest()) {
                comparison.set_apart += 1;
            } else {
                let exhausted = again.map_or("", Again::why);
                comparison.missing(one.message, || {
                    format!("{} {} is not in {raw} of {}{exhausted}", one.status, one.id, self.peer.app)
                });
            }
        }
        Ok(())
    }

    /// Which settlements trade matching waits for, and whether it will ask for them again by itself.
    async fn waiting(
        &self,
        trade_matching: &Client,
        messages: &[Uuid],
    ) -> Result<HashMap<Uuid, Again>, ReconcileError> {
        // Neither sent nor due: the sender is about to send it, or the other broker is away. What was taken there twice and
        // is not here is no accident of one broker: it is told, whatever will be tried yet.
        let query = "select message_id, due is not null or sent_at is null as again, \
                attempts < 2 and (sent_at is null \
                    or coalesce(clock_timestamp() < due + make_interval(secs => $2), false)) as later \
             from trading.unreturned join trading.outgoing_settlements using (message_id) \
             where message_id = any($1)";
        // It looks at intervals, and one round may be full.
        let after = self.plan.resend_after.as_secs_f64();
        let slack = LOOK_INTERVAL_MAX.as_secs_f64().min(after) + self.plan.window.grace.as_secs_f64();
        let rows = trade_matching.query(query, &[&messages, &slack]).await.map_err(self.failed())?;
        let read = |row: &Row| {
            Ok((row.try_get(0)?, Again { ever: row.try_get("again")?, due_later: row.try_get("later")? }))
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(self.failed())
    }
}

/// Whether a settlement is sent again by itself.
struct Again {
    /// It has attempts left.
    ever: bool,
    /// And the next one is not due yet.
    due_later: bool,
}

impl Again {
    fn why(&self) -> &'static str {
        if self.ever {
            ", although it was or will be sent again"
        } else {
            ", and will not be sent again by itself"
        }
    }
}

/// A message as the other application took it.
struct Came {
    record: Uuid,
    id: String,
    body: Vec<u8>,
}

impl Came {
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self { record: row.try_get(0)?, id: row.try_get(1)?, body: row.try_get(2)? })
    }

    /// Under which message id it must have been made; `None` of a refusal, and of what nobody made.
    fn message(&self, made_by: Application) -> Option<Uuid> {
        self.content(made_by).map(|one| one.settlement.message_id(one.status))
    }

    /// Whether it is the same settlement with the same status, made at another time.
    fn repeats(&self, made_by: Application, made: &Returned) -> bool {
        let same = |came: Returned| {
            came.status == made.status && came.settlement.equals_but_for_time(&made.settlement)
        };
        self.content(made_by).is_some_and(same)
    }

    fn content(&self, made_by: Application) -> Option<Returned> {
        content(made_by, std::str::from_utf8(&self.body).ok()?, &self.id)
    }
}

/// The settlement of a message between the applications; `None` of a refusal, and of what is none.
fn content(made_by: Application, text: &str, id: &str) -> Option<Returned> {
    match made_by {
        Application::TradeMatching => {
            let settlement = Settlement::read(text, id, 0).ok()?;
            Some(Returned { settlement, status: SettlementStatus::Unmatched })
        }
        Application::Settlement => Back::read(text, id, 0).ok()?.settlement().cloned(),
    }
}

/// A message as it was made.
struct Made {
    message: Uuid,
    id: String,
    status: String,
    body: String,
    record: Uuid,
    young: bool,
}

impl Made {
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        let (message, id, status) = super::answer_row(row)?;
        let (id, status) = (id.to_owned(), status.to_owned());
        let (body, record, young) = (row.try_get("body")?, row.try_get("record")?, row.try_get("young")?);
        Ok(Self { message, id, status, body, record, young })
    }

    /// The settlement that trade matching waits for because of it.
    fn asked(&self, made_by: Application) -> Option<Uuid> {
        if made_by == Application::TradeMatching {
            return Some(self.message);
        }
        let back = Back::read(&self.body, &self.id, 0).ok()?;
        let refused = back.refused(&self.id);
        let settlement = back.settlement().map(|returned| &returned.settlement).or(refused.as_ref())?;
        Some(settlement.message_id(SettlementStatus::Unmatched))
    }

    /// Where quarantine has it, if inbound's database refused it.
    fn digest(&self) -> Uuid {
        ids::quarantined(crate::inbound::STAGE, self.body.as_bytes())
    }
}

/// Record and content of what was made, by message id.
fn known(
    made_by: Application,
    rows: &[Row],
) -> Result<HashMap<Uuid, (Uuid, Option<Returned>)>, tokio_postgres::Error> {
    let read = |row: &Row| {
        let made = content(made_by, row.try_get("body")?, row.try_get("id")?);
        Ok((row.try_get(0)?, (row.try_get(1)?, made)))
    };
    rows.iter().map(read).collect()
}

fn ids_of(rows: &[Row]) -> Result<HashSet<Uuid>, tokio_postgres::Error> {
    rows.iter().map(|row| row.try_get(0)).collect()
}

async fn buckets(snapshot: &Snapshot<'_>, query: &str) -> Result<HashMap<i32, String>, ReconcileError> {
    let mut buckets = HashMap::new();
    let note = |row: &Row| {
        buckets.insert(row.try_get(0)?, row.try_get(1)?);
        Ok(())
    };
    snapshot.each(query, false, note).await?;
    Ok(buckets)
}

/// Records in their order, page by page.
struct Ordered<'s> {
    pages: Pages<'s>,
    rows: std::vec::IntoIter<Row>,
    job: Job,
}

impl<'s> Ordered<'s> {
    fn of(pages: Pages<'s>, job: Job) -> Self {
        Self { pages, rows: Vec::new().into_iter(), job }
    }

    /// Record, message id, digest of the bytes.
    async fn next(&mut self) -> Result<Option<(Uuid, Uuid, Uuid)>, ReconcileError> {
        let row = match self.rows.next() {
            Some(row) => row,
            None => match self.pages.next().await? {
                None => return Ok(None),
                Some(page) => {
                    self.rows = page.into_iter();
                    let Some(row) = self.rows.next() else { return Ok(None) };
                    row
                }
            },
        };
        let read = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        read().map(Some).map_err(|source| ReconcileError::Read { job: self.job, source })
    }
}

async fn merge(
    mut ours: Ordered<'_>,
    mut theirs: Ordered<'_>,
    suspects: &mut Suspects,
) -> Result<(), ReconcileError> {
    let job = ours.job;
    let (mut own, mut taken) = (ours.next().await?, theirs.next().await?);
    loop {
        match (own, taken) {
            (None, None) => return Ok(()),
            (Some((record, message, _)), other) if other.is_none_or(|(behind, ..)| record < behind) => {
                suspects.absent.insert(record, message);
                own = ours.next().await?;
            }
            (Some((record, message, _)), Some((behind, _, content))) if record == behind => {
                if content != record {
                    suspects.altered.push(message);
                }
                (own, taken) = (ours.next().await?, theirs.next().await?);
            }
            (_, Some((behind, ..))) => {
                suspects.behind.push(behind);
                taken = theirs.next().await?;
            }
            // The second case takes every other one.
            (Some(_), None) => return Ok(()),
        }
        if suspects.absent.len().max(suspects.behind.len()) > DIFFERENT_MAX {
            return Err(ReconcileError::TooDifferent { job, limit: DIFFERENT_MAX });
        }
    }
}
