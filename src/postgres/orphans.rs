//! Orphans: HubSpot records that lost their row, and what the tables say of them.
//!
//! Archiving is the one thing the daemon does in HubSpot that takes something away, so the question is asked with
//! care: in a transaction that keeps everybody from hiding rows meanwhile, of every table whose rows become records
//! of the same type, and of the ids that wait for a receipt. Row level security that hides rows answers "nobody holds
//! it", so it is asked for in the same transaction; then nothing is archived.

mod buried;

use super::catalog::Shape;
use super::pipeline::{self, Step};
use super::{Error, Session, changes, inventory, lease, quote, select};
use crate::mapping::{Mapping, Object};
use crate::sync::change::{Key, ObjectIndex};
use crate::sync::deletion::{BRAKE, Findings, Orphan, rows_asked};
pub use buried::Buried;
use std::collections::{HashMap, HashSet};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// Read committed, so that the question for rights sees what holds now, not what held at the begin.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL lock_timeout = '2s'";

/// Asks for the orphans of one object.
#[derive(Debug)]
pub struct Orphans {
    name: String,
    /// The tables whose rows become records of this object's type; the object's own comes first.
    tables: Vec<Table>,
    /// Counts the object's rows up to `$1`.
    count: String,
    /// Those objects alone, for the question for rights.
    mapping: Mapping,
}

/// The statements of one table.
#[derive(Debug)]
struct Table {
    object: String,
    key_type: &'static str,
    /// `$1 text[]`: which of these ids rows hold.
    holders: String,
    /// `$1 text[]`: which of these keys rows have, and whether with an id.
    seen: String,
}

impl Orphans {
    /// Writes the statements of the object at `object`; `shapes` are the catalog's.
    pub fn new(mapping: &Mapping, object: ObjectIndex, shapes: &[Shape]) -> Orphans {
        let declared = &mapping.objects[object];
        let others = (0..mapping.objects.len())
            .filter(|at| *at != object && mapping.objects[*at].object_type == declared.object_type);
        let alike: Vec<ObjectIndex> = std::iter::once(object).chain(others).collect();
        let shape = |at: ObjectIndex| shapes.iter().find(|shape| shape.object == at);
        Orphans {
            name: declared.name.clone(),
            tables: alike
                .iter()
                .map(|at| Table::new(&mapping.objects[*at], shape(*at)))
                .collect(),
            count: format!(
                "SELECT count(*) FROM (SELECT FROM {} LIMIT $1) AS t",
                quote::table(&declared.table)
            ),
            mapping: Mapping {
                objects: alike.iter().map(|at| mapping.objects[*at].clone()).collect(),
                audit: None,
            },
        }
    }

    /// What the tables say of these orphans.
    ///
    /// # Errors
    /// [`Error`] as the database has it; nothing is known then.
    pub async fn ask(&self, session: &Session, orphans: &[Orphan]) -> Result<Findings, Error> {
        let asked = self.ask_within(session, orphans).await;
        let ended = session.batch_execute("ROLLBACK").await;
        let findings = asked?;
        ended.map_err(|error| self.failed(error))?;
        Ok(findings)
    }

    async fn ask_within(&self, session: &Session, orphans: &[Orphan]) -> Result<Findings, Error> {
        let ids: Vec<&str> = orphans.iter().map(|orphan| &*orphan.hubspot_id).collect();
        let keys: Vec<&str> = orphans.iter().map(|orphan| &*orphan.key).collect();
        let names: Vec<&str> = self.tables.iter().map(|table| &*table.object).collect();
        let mut steps = vec![Step::simple(BEGIN)];
        let spelt = spellings(&ids);
        for table in &self.tables {
            steps.push(Step::new(&table.holders).with(spelt.clone(), Type::TEXT_ARRAY));
        }
        steps.push(
            Step::new(
                "SELECT i.object, i.key, i.hubspot_id FROM hubsyncd.intent AS i WHERE i.object = ANY($1) \
                 AND i.hubspot_id IS NOT NULL AND (i.hubspot_id = ANY($2) OR i.key = ANY($3))",
            )
            .with(names, Type::TEXT_ARRAY)
            .with(ids.clone(), Type::TEXT_ARRAY)
            .with(keys, Type::TEXT_ARRAY),
        );
        steps.push(self.recent(ids));
        let answers = self.send(session, &steps).await?;
        drop(steps);
        let [.., intents, recent] = answers.as_slice() else {
            return Ok(unknown());
        };
        let intents: Vec<Intent> = intents.iter().map(Intent::of).collect();
        let mut findings = Findings {
            held: answers[1..=self.tables.len()]
                .iter()
                .flatten()
                .map(|row| row.get(0))
                .collect(),
            recent: number(recent),
            ..Findings::default()
        };
        self.look_for_rows(session, orphans, &intents, &mut findings)
            .await?;
        let wanted = rows_asked(findings.recent.saturating_add(orphans.len() as u64));
        if wanted > 0 {
            let limit = i64::try_from(wanted).unwrap_or(i64::MAX);
            let step = Step::new(&self.count).with(limit, Type::INT8);
            findings.rows = self
                .send(session, &[step])
                .await?
                .first()
                .map_or(0, |rows| number(rows));
        }
        // The tables are locked against changes of their policies since they were read, so this holds for all above.
        let lacking = inventory::access(session, &self.mapping).await?;
        if !lacking.is_empty() {
            let words: Vec<String> = lacking.iter().map(ToString::to_string).collect();
            findings.hidden = Some(words.join("; "));
        }
        Ok(findings)
    }

    /// Which of the orphans' rows are back, and which ids rows are about to get.
    async fn look_for_rows(
        &self,
        session: &Session,
        orphans: &[Orphan],
        intents: &[Intent],
        findings: &mut Findings,
    ) -> Result<(), Error> {
        let lost: HashSet<&str> = orphans.iter().map(|orphan| &*orphan.key).collect();
        for (own, table) in self.tables.iter().enumerate().map(|(at, table)| (at == 0, table)) {
            let mut known: HashMap<&str, Vec<&str>> = HashMap::new();
            for intent in intents.iter().filter(|intent| intent.object == table.object) {
                known.entry(&intent.key).or_default().push(&intent.hubspot_id);
            }
            let mut keys: HashSet<&str> = known.keys().copied().collect();
            if own {
                keys.extend(&lost);
            }
            keys.retain(|key| select::can_be_key(table.key_type, key));
            if keys.is_empty() {
                continue;
            }
            let keys: Vec<&str> = keys.into_iter().collect();
            let step = Step::new(&table.seen).with(keys, Type::TEXT_ARRAY);
            let answers = self.send(session, &[step]).await?;
            for row in answers.iter().flatten() {
                let (key, has_id): (&str, bool) = (row.get(0), row.get(1));
                let given = known.get(key);
                findings
                    .held
                    .extend(given.into_iter().flatten().map(|id| (*id).to_owned()));
                if own && lost.contains(key) {
                    findings.back.insert(Key::from(key), has_id || given.is_some());
                }
            }
        }
        Ok(())
    }

    /// Other deletions of the last hour that the brake counts.
    fn recent<'a>(&'a self, ids: Vec<&'a str>) -> Step<'a> {
        let sql = "SELECT (SELECT count(*) FROM hubsyncd.archived AS a WHERE a.object = $1 AND NOT a.released \
                   AND a.archived_at > clock_timestamp() - interval '1 hour' AND a.hubspot_id <> ALL($2)) \
                   + (SELECT count(*) FROM hubsyncd.failure AS f WHERE f.object = $1 AND f.archive <> '' AND f.category = $3 \
                   AND f.first_failed_at > clock_timestamp() - interval '1 hour' AND f.archive <> ALL($2))";
        Step::new(sql)
            .with(self.name.as_str(), Type::TEXT)
            .with(ids, Type::TEXT_ARRAY)
            .with(BRAKE, Type::TEXT)
    }

    /// Notes, before HubSpot is asked, that these orphans are archived: the brake counts them whatever happens then.
    ///
    /// # Errors
    /// [`super::ErrorKind::Fenced`] if that generation of the lease is gone, else [`Error`] as the database has it.
    pub async fn note(&self, session: &Session, generation: i64, orphans: &[Orphan]) -> Result<(), Error> {
        let sql = format!(
            "INSERT INTO hubsyncd.archived (object, hubspot_id, key, released) SELECT $1, v.id, v.key, v.released \
             FROM unnest($2::text[], $3::text[], $4::boolean[]) AS v (id, key, released), {} WHERE {} \
             ON CONFLICT (object, hubspot_id) DO UPDATE SET key = excluded.key, released = excluded.released, \
             archived_at = excluded.archived_at RETURNING 1",
            lease::held("$5"),
            changes::XID_FIRST
        );
        let of = |pick: fn(&Orphan) -> &str| orphans.iter().map(pick).collect::<Vec<&str>>();
        let released: Vec<bool> = orphans.iter().map(|orphan| orphan.released).collect();
        let step = Step::new(sql)
            .with(self.name.as_str(), Type::TEXT)
            .with(of(|orphan| &orphan.hubspot_id), Type::TEXT_ARRAY)
            .with(of(|orphan| &orphan.key), Type::TEXT_ARRAY)
            .with(released, Type::BOOL_ARRAY)
            .with(generation, Type::INT8);
        let noted = self.send(session, &[step]).await?;
        if noted.iter().all(Vec::is_empty) {
            return Err(lease::gone(format!("noting what is archived of {}", self.name)));
        }
        Ok(())
    }

    /// When each of these records was archived last, or was about to be, as the record of a row that was deleted:
    /// microseconds since the Unix epoch; those that never were are not there.
    ///
    /// # Errors
    /// [`Error`] as the database has it.
    pub async fn archived(&self, session: &Session, ids: &[String]) -> Result<Vec<(String, i64)>, Error> {
        let sql = "SELECT hubspot_id, (extract(epoch FROM max(archived_at)) * 1000000)::bigint FROM hubsyncd.archived \
                   WHERE object = ANY($1) AND hubspot_id = ANY($2) GROUP BY hubspot_id";
        let objects: Vec<&str> = self.mapping.objects.iter().map(|object| &*object.name).collect();
        let step = Step::new(sql)
            .with(objects, Type::TEXT_ARRAY)
            .with(ids, Type::TEXT_ARRAY);
        let answers = self.send(session, &[step]).await?;
        Ok(answers
            .iter()
            .flatten()
            .map(|row| (row.get(0), row.get(1)))
            .collect())
    }

    /// At most `limit` orphans that are listed as failures, in order and after `after`; those that the brake holds only
    /// if they are released with it.
    ///
    /// # Errors
    /// [`Error`] as the database has it.
    pub async fn listed(
        &self,
        session: &Session,
        after: Option<&Orphan>,
        released: bool,
        limit: usize,
    ) -> Result<Vec<Orphan>, Error> {
        let sql = "SELECT key, archive FROM hubsyncd.failure WHERE object = $1 AND archive <> '' AND ($2 OR category <> $3) \
                   AND (key, archive) > ($4, $5) ORDER BY key, archive LIMIT $6";
        let step = Step::new(sql)
            .with(self.name.as_str(), Type::TEXT)
            .with(released, Type::BOOL)
            .with(BRAKE, Type::TEXT)
            .with(after.map_or("", |orphan| &*orphan.key), Type::TEXT)
            .with(after.map_or("", |orphan| &*orphan.hubspot_id), Type::TEXT)
            .with(i64::try_from(limit).unwrap_or(i64::MAX), Type::INT8);
        let answers = self.send(session, &[step]).await?;
        let orphan = |row: &Row| Orphan {
            key: Key::from(row.get::<_, &str>(0)),
            hubspot_id: row.get(1),
            released,
        };
        Ok(answers.iter().flatten().map(orphan).collect())
    }

    async fn send(&self, session: &Session, steps: &[Step<'_>]) -> Result<Vec<Vec<Row>>, Error> {
        let answers = pipeline::send(session, steps).await;
        answers.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: tokio_postgres::Error) -> Error {
        Error::from_client(
            format!(
                "asking who holds the HubSpot records of deleted rows of {}",
                self.name
            ),
            error,
        )
    }
}

/// How many orphans of each object the brake holds.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn braked(session: &Session, mapping: &Mapping) -> Result<Vec<u64>, Error> {
    let sql =
        "SELECT object, count(*) FROM hubsyncd.failure WHERE archive <> '' AND category = $1 GROUP BY object";
    let rows = session.query_typed(sql, &[(&BRAKE, Type::TEXT)]).await;
    let rows = rows.map_err(|error| Error::from_client("counting what the brake holds", error))?;
    let mut counts = vec![0; mapping.objects.len()];
    for row in rows {
        if let Some(object) = mapping.position(row.get(0)) {
            counts[object] = row.get::<_, i64>(1).unsigned_abs();
        }
    }
    Ok(counts)
}

/// Forgets what was archived 90 days ago: HubSpot cannot restore it any more.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn prune(session: &Session) -> Result<(), Error> {
    let sql = "DELETE FROM hubsyncd.archived WHERE archived_at < clock_timestamp() - interval '90 days'";
    let pruned = session.batch_execute(sql).await;
    pruned.map_err(|error| Error::from_client("forgetting what was archived long ago", error))
}

impl Table {
    fn new(object: &Object, shape: Option<&Shape>) -> Table {
        let table = quote::table(&object.table);
        let (key, id) = (
            quote::identifier(&object.key),
            quote::identifier(&object.hubspot_id),
        );
        let key_type = shape.map_or("text", |shape| select::key_type(&shape.key.base));
        let base = shape
            .and_then(|shape| shape.table_columns.get(&object.hubspot_id))
            .map_or("text", |column| column.base.as_str());
        let cast = if matches!(base, "text" | "varchar") {
            ""
        } else {
            "::text"
        };
        let keys = select::typed_array("$1", key_type);
        Table {
            object: object.name.clone(),
            key_type,
            holders: format!(
                "SELECT btrim(t.{id}::text) FROM {table} AS t WHERE t.{id}{cast} = ANY($1::text[])"
            ),
            seen: format!(
                "SELECT t.{key}::text, coalesce(btrim(t.{id}::text), '') <> '' FROM {table} AS t WHERE t.{key} = ANY({keys})"
            ),
        }
    }
}

/// An id that HubSpot gave and that waits for its receipt.
struct Intent {
    object: String,
    key: String,
    hubspot_id: String,
}

impl Intent {
    fn of(row: &Row) -> Intent {
        Intent {
            object: row.get(0),
            key: row.get(1),
            hubspot_id: row.get(2),
        }
    }
}

/// The ids as a row may spell them: spaces around an id count for nothing, and an index finds only what is spelt.
fn spellings(ids: &[&str]) -> Vec<String> {
    let spelt = |id: &&str| {
        [
            (*id).to_owned(),
            format!("{id} "),
            format!(" {id}"),
            format!(" {id} "),
        ]
    };
    ids.iter().flat_map(spelt).collect()
}

fn number(rows: &[Row]) -> u64 {
    rows.first().map_or(0, |row| row.get::<_, i64>(0).unsigned_abs())
}

/// Findings by which nothing is archived.
fn unknown() -> Findings {
    Findings {
        hidden: Some("the database's answer is not complete".to_owned()),
        ..Findings::default()
    }
}
