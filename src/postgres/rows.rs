//! Rows: the reading of records.
//!
//! A [`Reader`] knows the statements of one object. It reads rows by key or page by page, each read in one round
//! trip and one snapshot: the row in HubSpot's strings, what we remember of it, whom it links to, the audit entries
//! that named it, and the database's clock. It never writes. A row that makes the statement fail (a view that
//! divides by zero) makes the whole read fail with [`ErrorKind::Rows`]; the caller halves.

use super::catalog::Shape;
use super::pipeline::{self, Step};
use super::select::{self, Rows, Select, column};
use super::{Error, ErrorKind, Session};
use crate::mapping::Mapping;
use crate::sync::change::{Key, ObjectIndex, Owner};
use crate::sync::linking::{Found, Remembered, State, Target};
use crate::sync::record::{Intent, Read, Record};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, Row};

/// Planning a read by keys takes as long as running it, and the plan is the same for any keys.
const READ_BEGINS: &str =
    "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL plan_cache_mode = force_generic_plan";

/// How many rows a table has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// All of them.
    pub rows: u64,
    /// Those without a HubSpot id.
    pub awaiting_id: u64,
    /// The database's clock at the count, microseconds since the Unix epoch.
    pub counted_at: i64,
}

/// Reads the records of one object.
#[derive(Debug, Clone)]
pub struct Reader {
    object: String,
    key_type: &'static str,
    link_names: Vec<String>,
    by_key: String,
    first_page: String,
    next_page: String,
    next_key: String,
    count: String,
    owners: String,
    /// Every object's name.
    names: Vec<Arc<str>>,
    index: ObjectIndex,
}

impl Reader {
    /// Writes the statements of the object at `object`.
    ///
    /// `property_types` is HubSpot property name → HubSpot type (`string`, `number`, `bool`, `date`, `datetime`,
    /// `enumeration`, …), which decides the form of values whose mapping says no `as`; it may be empty while
    /// HubSpot has not been asked.
    pub fn new(
        mapping: &Mapping,
        object: ObjectIndex,
        shapes: &[Shape],
        property_types: &BTreeMap<String, String>,
    ) -> Reader {
        let select = Select::new(mapping, object, shapes, property_types);
        let declared = &mapping.objects[object];
        Reader {
            object: declared.name.clone(),
            key_type: select.key_type(),
            link_names: declared.links.iter().map(|link| link.name()).collect(),
            by_key: select.statement(Rows::ByKey),
            first_page: select.statement(Rows::FirstPage),
            next_page: select.statement(Rows::NextPage),
            next_key: select.next_key(),
            count: select::count(declared),
            owners: select::owners_of_type(mapping, object, shapes),
            names: mapping
                .objects
                .iter()
                .map(|object| Arc::from(&*object.name))
                .collect(),
            index: object,
        }
    }

    /// The key as Postgres prints it, or `None` if no row can have it.
    ///
    /// Names that come from elsewhere (an audit entry's `record_id`) may be nonsense, or spell a key otherwise than
    /// the row does: a uuid in capitals, `007`. Only canonical keys are found by [`Reader::read`].
    pub fn canonical(&self, key: &str) -> Option<Key> {
        let integer = |bounds: std::ops::RangeInclusive<i64>| {
            let value: i64 = key.trim().parse().ok()?;
            bounds.contains(&value).then(|| Key::from(value.to_string()))
        };
        match self.key_type {
            "uuid" => uuid::Uuid::try_parse(key.trim())
                .ok()
                .map(|id| Key::from(id.to_string())),
            "int2" => integer(i64::from(i16::MIN)..=i64::from(i16::MAX)),
            "int4" => integer(i64::from(i32::MIN)..=i64::from(i32::MAX)),
            "int8" => integer(i64::MIN..=i64::MAX),
            _ => (!key.contains('\0')).then(|| Key::from(key)),
        }
    }

    /// Reads the rows with these keys, in no order. `full[i]`: the row of `keys[i]` sends create-only properties also
    /// where it turns out to exist in HubSpot; so does a row whose failure says so. A key that no row can have is
    /// not found, like one that no row has.
    ///
    /// # Errors
    /// [`ErrorKind::Rows`] if a row cannot be read: halve. Otherwise what the database says.
    pub async fn read(&self, session: &Session, keys: &[Key], full: &[bool]) -> Result<Read, Error> {
        let possible = |key: &Key| self.canonical(key).is_some_and(|canonical| canonical == *key);
        let asked: Vec<&str> = keys
            .iter()
            .filter(|key| possible(key))
            .map(|key| &**key)
            .collect();
        let wanted = keys
            .iter()
            .zip(full)
            .filter(|(key, full)| **full && possible(key));
        let wanted: Vec<&str> = wanted.map(|(key, _)| &**key).collect();
        let doing = || format!("reading {} rows of {}", keys.len(), self.object);
        let steps = [
            Step::simple(READ_BEGINS),
            Step::new(&self.by_key)
                .with(asked, Type::TEXT_ARRAY)
                .with(wanted, Type::TEXT_ARRAY)
                .kept(),
            Step::simple("COMMIT"),
        ];
        let answers = pipeline::send(session, &steps).await;
        let answers = answers.map_err(|error| Error::from_client(doing(), error))?;
        self.decode(&answers[1], doing)
    }

    /// Reads at most `limit` rows in key order, beginning after `after`.
    ///
    /// Only an empty page is the end: a page may hold fewer rows than asked for.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn page(&self, session: &Session, after: Option<&Key>, limit: i64) -> Result<Read, Error> {
        let doing = || format!("reading a page of {}", self.object);
        let client: &Client = session;
        let rows = match after {
            None => {
                client
                    .query_typed(&self.first_page, &[(&limit, Type::INT8)])
                    .await
            }
            Some(key) => {
                let key: &str = key;
                client
                    .query_typed(&self.next_page, &[(&limit, Type::INT8), (&key, Type::TEXT)])
                    .await
            }
        };
        let rows = rows.map_err(|error| Error::from_client(doing(), error))?;
        self.decode(&rows, doing)
    }

    /// Counts the table, whatever the mapping's condition: one scan.
    ///
    /// # Errors
    /// What the database says.
    pub async fn count(&self, session: &Session) -> Result<Counted, Error> {
        let doing = || format!("counting the rows of {}", self.object);
        let client: &Client = session;
        let rows = client
            .query_typed(&self.count, &[])
            .await
            .map_err(|error| Error::from_client(doing(), error))?;
        let counted = |row: &Row| -> Result<Counted, tokio_postgres::Error> {
            Ok(Counted {
                rows: get::<i64>(row, 0)?.unsigned_abs(),
                awaiting_id: get::<i64>(row, 1)?.unsigned_abs(),
                counted_at: get(row, 2)?,
            })
        };
        let counted = rows.first().map(counted).transpose();
        let counted = counted.map_err(|error| Error::with_source(ErrorKind::Other, doing(), error))?;
        Ok(counted.unwrap_or_default())
    }

    /// The key of the first row after `after`, also where its values cannot be read.
    ///
    /// # Errors
    /// What the database says.
    pub async fn next_key(&self, session: &Session, after: Option<&Key>) -> Result<Option<Key>, Error> {
        let doing = || format!("reading the next key of {}", self.object);
        let after = after.map(|key| &**key);
        let client: &Client = session;
        let row = client
            .query_typed(&self.next_key, &[(&after, Type::TEXT)])
            .await
            .map_err(|error| Error::from_client(doing(), error))?;
        let key = row
            .first()
            .map(|row| get::<&str>(row, 0).map(Key::from))
            .transpose();
        key.map_err(|error| Error::with_source(ErrorKind::Other, doing(), error))
    }

    /// Who holds these HubSpot ids, or waits for a receipt that writes them: `(hubspot_id, row)`, who holds one last, rows of
    /// other objects whose records are of the same type among them. An id that no row holds is not there; an id that
    /// several rows hold is there several times. The mapping's condition does not matter.
    ///
    /// # Errors
    /// What the database says.
    pub async fn owners(
        &self,
        session: &Session,
        hubspot_ids: &[String],
    ) -> Result<Vec<(String, Owner)>, Error> {
        let doing = || {
            format!(
                "asking who holds {} HubSpot ids of {}",
                hubspot_ids.len(),
                self.object
            )
        };
        let client: &Client = session;
        let rows = client
            .query_typed(&self.owners, &[(&hubspot_ids, Type::TEXT_ARRAY)])
            .await
            .map_err(|error| Error::from_client(doing(), error))?;
        let owner = |row: &Row| {
            let object = usize::try_from(get::<i64>(row, 2)?).unwrap_or(self.index);
            let elsewhere = self.names.get(object).filter(|_| object != self.index);
            let owner = Owner {
                object,
                key: get::<&str>(row, 1)?.into(),
                elsewhere: elsewhere.cloned(),
            };
            Ok((get::<String>(row, 0)?, owner))
        };
        let owners: Result<_, tokio_postgres::Error> = rows.iter().map(owner).collect();
        owners.map_err(|error| Error::with_source(ErrorKind::Other, doing(), error))
    }

    /// The statements of [`Reader::read`] and of the next [`Reader::page`], for `EXPLAIN`.
    pub fn statements(&self) -> [&str; 2] {
        [&self.by_key, &self.next_page]
    }

    fn decode(&self, rows: &[Row], doing: impl Fn() -> String) -> Result<Read, Error> {
        self.records(rows)
            .map_err(|error| Error::with_source(ErrorKind::Other, doing(), error))
    }

    fn records(&self, rows: &[Row]) -> Result<Read, tokio_postgres::Error> {
        let mut read = Read::default();
        let mut places: HashMap<Key, usize> = HashMap::with_capacity(rows.len());
        for row in rows {
            read.read_at = get(row, column::READ_AT)?;
            let Some(key) = get::<Option<&str>>(row, column::KEY)? else {
                continue;
            };
            let key = Key::from(key);
            if let Some(&place) = places.get(&key) {
                // A view that joins to many: none of its rows is the row.
                let problem = "the view has more than one row for this key".to_owned();
                let first: &mut Record = &mut read.records[place];
                if !first.problems.contains(&problem) {
                    first.problems.push(problem);
                }
                continue;
            }
            places.insert(key.clone(), read.records.len());
            read.records.push(self.record(row, key)?);
        }
        Ok(read)
    }

    fn record(&self, row: &Row, key: Key) -> Result<Record, tokio_postgres::Error> {
        let update_properties: Arc<str> = get::<&str>(row, column::UPDATE_PROPERTIES)?.into();
        let properties: Option<&str> = get(row, column::PROPERTIES)?;
        let match_value: Option<String> = get(row, column::MATCH_VALUE)?;
        let targets: Vec<Option<String>> = get(row, column::TARGETS)?;
        let nowhere: Vec<bool> = get(row, column::NOWHERE)?;
        let linked = self.linked(row)?;
        Ok(Record {
            key,
            hubspot_id: get(row, column::HUBSPOT_ID)?,
            intent_id: get(row, column::INTENT_ID)?,
            intent: intent(row)?,
            properties: properties.map_or_else(|| Arc::clone(&update_properties), Arc::from),
            update_properties,
            match_value: match_value.filter(|value| !value.trim().is_empty()),
            targets: targets.into_iter().zip(nowhere).map(target).collect(),
            linked,
            entries: get::<Option<Vec<i64>>>(row, column::ENTRIES)?.unwrap_or_default(),
            update_only_set: get(row, column::UPDATE_ONLY_SET)?,
            failed: get(row, column::FAILED)?,
            problems: get::<Option<Vec<String>>>(row, column::PROBLEMS)?.unwrap_or_default(),
        })
    }

    /// What the link memory holds of each link.
    fn linked(&self, row: &Row) -> Result<Vec<Vec<Remembered>>, tokio_postgres::Error> {
        let names = get::<Option<Vec<&str>>>(row, column::LINK_NAMES)?.unwrap_or_default();
        let ids = get::<Option<Vec<&str>>>(row, column::LINK_IDS)?.unwrap_or_default();
        let states = get::<Option<Vec<&str>>>(row, column::LINK_STATES)?.unwrap_or_default();
        let mut linked = vec![Vec::new(); self.link_names.len()];
        for ((name, to), state) in names.into_iter().zip(ids).zip(states) {
            let Some(link) = self.link_names.iter().position(|link| link == name) else {
                continue;
            };
            let mut words = state.splitn(4, ' ');
            let mut word = || words.next().unwrap_or_default();
            linked[link].push(Remembered {
                to: to.to_owned(),
                state: State::of(word()),
                found: Found::of(word()),
                unsettled: word().parse().ok(),
                from: Some(word().to_owned()).filter(|id| !id.is_empty()),
            });
        }
        Ok(linked)
    }
}

fn target((id, nowhere): (Option<String>, bool)) -> Target {
    match id {
        Some(id) => Target::To(id),
        None if nowhere => Target::Nowhere,
        None => Target::Unknown,
    }
}

/// What `hubsyncd.intent` remembers of the row, if it remembers anything.
fn intent(row: &Row) -> Result<Option<Intent>, tokio_postgres::Error> {
    let Some(noted_at) = get(row, column::INTENT_NOTED_AT)? else {
        return Ok(None);
    };
    Ok(Some(Intent {
        match_value: get(row, column::INTENT_VALUE)?,
        trace: get(row, column::INTENT_TRACE)?,
        noted_at,
        due_at: get(row, column::INTENT_DUE_AT)?,
        named: get(row, column::INTENT_NAMED)?,
        due_full: get(row, column::INTENT_DUE_FULL)?,
        update_only: get(row, column::INTENT_UPDATE_ONLY)?,
    }))
}

fn get<'a, T: FromSql<'a>>(row: &'a Row, position: usize) -> Result<T, tokio_postgres::Error> {
    row.try_get(position)
}
