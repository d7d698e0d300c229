//! Sums over two stores that keep the same bytes. Each is read once, in the order in which it lies and by several workers of
//! the server; row by row only those groups of records are looked at whose sums differ.
//!
//! Equal sums of different rows have the odds of a number of 64 bits that is the same by accident. Nobody defends against
//! who computes such rows: who may write into a store may write into both.

use uuid::Uuid;

use super::ReconcileError;
use super::snapshot::Snapshot;

/// More groups than this are looked at as a whole, as one query is then cheaper than so many.
const APART_MAX: usize = 128;
/// Bits of a number that say its group.
const GROUP_BITS: u32 = 12;

/// The group of an id, a number between 0 and 4095: its first twelve bits, so that an index of ids has each group in one piece.
pub(super) fn group(id: &str) -> String {
    format!("get_byte(uuid_send({id}), 0) * 16 + get_byte(uuid_send({id}), 1) / 16")
}

/// A number that depends on each bit of an id, a time and texts, none of which is null. Each is the seed of the next: parts
/// that two rows have exchanged would leave a plain sum as it is.
pub(super) fn number(id: &str, time: &str, texts: &[&str]) -> String {
    let seed = format!("uuid_hash_extended({id}, {time})");
    texts.iter().fold(seed, |seed, text| format!("hashtextextended({text}, {seed})"))
}

/// Rows as `id` and `number`, in sums.
fn sums(of: &str) -> String {
    format!(
        "select {} as part, count(*) as records, sum(number) as sum from ({of}) as numbered group by 1",
        group("id")
    )
}

/// What the sums of two stores tell.
#[derive(Debug)]
pub(super) struct Summed {
    /// Rows of the store before the boundary.
    pub(super) before: u64,
    /// Where the two differ, as the first and the last id of a range; in the order of ids.
    pub(super) differing: Vec<(Uuid, Uuid)>,
}

/// Sums of two queries for `id` and `number`, whose $1 is the mark and whose $2 is the earliest time of answers to look at.
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
    let (before, parts): (i64, Vec<i32>) = snapshot.summed(&query).await?;
    Ok(Summed { before: before.unsigned_abs(), differing: ranges(&parts) })
}

fn ranges(parts: &[i32]) -> Vec<(Uuid, Uuid)> {
    if parts.len() > APART_MAX {
        return vec![(Uuid::nil(), Uuid::max())];
    }
    let shift = u128::BITS - GROUP_BITS;
    let range = |part: &i32| {
        let first = u128::from(part.unsigned_abs()) << shift;
        (Uuid::from_u128(first), Uuid::from_u128(first | (u128::MAX >> GROUP_BITS)))
    };
    parts.iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_all_ids_of_its_group_and_no_other() {
        let range = ranges(&[0xabc, 0xfff]);
        let id = |text: &str| text.parse::<Uuid>().unwrap();
        let first = (id("abc00000-0000-0000-0000-000000000000"), id("abcfffff-ffff-ffff-ffff-ffffffffffff"));
        assert_eq!(range[0], first);
        assert_eq!(range[1].1, Uuid::max());
    }

    #[test]
    fn where_nearly_all_groups_differ_everything_is_one_range() {
        let parts: Vec<i32> = (0..4096).collect();
        assert_eq!(ranges(&parts), [(Uuid::nil(), Uuid::max())]);
        assert_eq!(ranges(&[]), []);
    }
}
