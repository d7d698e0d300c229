//! Damages stores on purpose, behind the guard's back, so that reconciliation can be seen to find it.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row};
use trading::names::Application;
use uuid::Uuid;

use super::places::Place;

/// Both applications' databases, as a role that owns their tables.
#[derive(Clone, Copy)]
pub struct Stores<'a> {
    pub trade_matching: &'a Client,
    pub settlement: &'a Client,
}

impl<'a> Stores<'a> {
    fn of(self, application: Application) -> &'a Client {
        match application {
            Application::TradeMatching => self.trade_matching,
            Application::Settlement => self.settlement,
        }
    }
}

/// Rows that were chosen, and what reconciliation must tell once they are damaged.
#[derive(Debug)]
pub struct Damage {
    pub place: Place,
    /// Keys of the damaged rows.
    pub keys: BTreeSet<Uuid>,
    /// Ids of what is told.
    pub told: BTreeSet<Uuid>,
    /// The rows as they were, as JSON.
    kept: Vec<String>,
}

impl Damage {
    /// Chooses at most so many rows of those that there are; the same ones for the same seed and the same rows.
    ///
    /// # Errors
    /// The database.
    pub async fn choose(
        stores: Stores<'_>,
        place: Place,
        most: usize,
        random: &mut StdRng,
    ) -> Result<Self, Error> {
        let sorted =
            format!("select * from ({}) as candidates (key, told) order by key, told", place.candidates);
        let rows = stores.of(place.chosen_in).query(&sorted, &[]).await?;
        let pairs: Vec<(Uuid, Uuid)> = rows.iter().map(pair).collect::<Result<_, _>>()?;
        let all: BTreeSet<Uuid> = pairs.iter().map(|(key, _)| *key).collect();
        let all: Vec<Uuid> = all.into_iter().collect();
        let keys: BTreeSet<Uuid> = all.choose_multiple(random, most).copied().collect();
        let told = pairs.iter().filter(|(key, _)| keys.contains(key)).map(|(_, told)| *told).collect();
        Ok(Self { place, keys, told, kept: Vec::new() })
    }

    /// Deletes or changes them, in one transaction in which the guard is off.
    ///
    /// # Errors
    /// The database; then nothing is damaged.
    pub async fn apply(&mut self, stores: Stores<'_>) -> Result<(), Error> {
        let Place { table, key, change, .. } = &self.place;
        let keys: Vec<Uuid> = self.keys.iter().copied().collect();
        let database = stores.of(self.place.whose);
        let keep =
            format!("select to_jsonb(damaged)::text from trading.{table} as damaged where {key} = any($1)");
        let rows = database.query(&keep, &[&keys]).await?;
        self.kept = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let statement = match change {
            None => format!("delete from trading.{table} where {key} = any($1)"),
            Some(change) => format!("update trading.{table} set {change} where {key} = any($1)"),
        };
        self.unguarded(database, &statement, &keys).await
    }

    /// Puts the rows back as they were.
    ///
    /// # Errors
    /// The database.
    pub async fn undo(self, stores: Stores<'_>) -> Result<(), Error> {
        let Place { table, key, change, .. } = &self.place;
        let database = stores.of(self.place.whose);
        let was = format!("jsonb_populate_record(null::trading.{table}, kept::jsonb)");
        // What the server computes it computes anew; a number that it gave comes back only with the whole row.
        let columns = "select string_agg(quote_ident(attname), ', '), string_agg('was.' || quote_ident(attname), ', ') \
            from pg_attribute where attrelid = $1::text::regclass and attnum > 0 and not attisdropped \
              and attgenerated = '' and (attidentity = '' or $2)";
        let row = database.query_one(columns, &[&format!("trading.{table}"), &change.is_none()]).await?;
        let (columns, values): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let statement = if change.is_none() {
            format!(
                "insert into trading.{table} ({columns}) overriding system value \
                 select {values} from unnest($1::text[]) as kept, {was} as was"
            )
        } else {
            format!(
                "update trading.{table} as damaged set ({columns}) = row({values}) \
                 from unnest($1::text[]) as kept, {was} as was where damaged.{key} = was.{key}"
            )
        };
        self.unguarded(database, &statement, &self.kept).await
    }

    async fn unguarded<T: ToSql + Sync>(
        &self,
        database: &Client,
        statement: &str,
        given: &[T],
    ) -> Result<(), Error> {
        let table = self.place.table;
        database.batch_execute(&format!("begin; alter table trading.{table} disable trigger user")).await?;
        let done = match database.execute(statement, &[&given]).await {
            Ok(_) => format!(
                "alter table trading.{table} enable trigger user; \
                 alter table trading.{table} enable always trigger region_guard; commit"
            ),
            Err(error) => {
                database.batch_execute("rollback").await?;
                return Err(error);
            }
        };
        database.batch_execute(&done).await
    }
}

fn pair(row: &Row) -> Result<(Uuid, Uuid), Error> {
    Ok((row.try_get(0)?, row.try_get(1)?))
}
