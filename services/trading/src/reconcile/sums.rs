//! Sums over two stores that keep the same bytes: of the number that the server keeps with each row, which depends on each of
//! its bits. An index has these numbers, so the rows themselves are read only of those groups of records whose sums differ.
//!
//! Equal sums of different rows have the odds of a number of 64 bits that is the same by accident. Nobody defends against
//! who computes such rows: who may write into a store may write into both.

use super::ReconcileError;
use super::snapshot::Snapshot;

/// The group of an id, a number between 0 and 4095. Another version of the server may put it into another group.
pub(super) const GROUP: &str = "uuid_hash(message_id) & 4095";

/// Rows with `message_id` and `digest`, in sums.
fn sums(of: &str) -> String {
    format!(
        "select {GROUP} as part, count(*) as records, sum(digest) as sum from ({of}) as digests group by 1"
    )
}

/// What the sums of two stores tell.
#[derive(Debug)]
pub(super) struct Summed {
    /// Rows of the store before the boundary.
    pub(super) before: u64,
    /// Groups in which the two differ.
    pub(super) differing: Vec<i32>,
}

/// Sums of two queries for `message_id` and `digest`, whose $1 is the mark and whose $2 is the earliest time of answers to look
/// at.
pub(super) async fn compare(
    snapshot: &Snapshot<'_>,
    before: &str,
    behind: &str,
) -> Result<Summed, ReconcileError> {
    let query = format!(
        "with before as materialized ({}), behind as materialized ({}) \
         select coalesce((select sum(records) from before), 0)::bigint, \
            array(select part from before full join behind using (part) \
                where (before.records, before.sum) is distinct from (behind.records, behind.sum) order by part)",
        sums(before),
        sums(behind)
    );
    let (before, differing) = snapshot.summed(&query).await?;
    Ok(Summed { before: before.unsigned_abs(), differing })
}
