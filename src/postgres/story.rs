//! The story of one row: what stands in its table and in our memory, beside what a push reads.
//!
//! It is asked for by people. Each question walks what an index or one object's part of a table of ours allows.

use super::catalog::Shape;
use super::failures::{self, Failure};
use super::pipeline::{self, Step};
use super::{Error, Session, quote, select};
use crate::mapping::{Mapping, Object};
use crate::sync::change::ObjectIndex;
use std::collections::BTreeMap;
use tokio_postgres::types::Type;

/// A row of an application's table, whatever the mapping's condition says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its HubSpot id as it stands there, spaces and all.
    pub hubspot_id: Option<String>,
    /// Its sync time, as Postgres prints it.
    pub synced_at: Option<String>,
    /// The mapped columns as Postgres prints them, by name; empty where the row is read from a view that does not have it.
    pub columns: BTreeMap<String, Option<String>>,
}

/// A change of the row that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The letter of its kind, see [`crate::sync::change::Op`].
    pub op: String,
    /// The record that a deleted row had, or that is to be archived.
    pub hubspot_id: Option<String>,
    /// When it was captured, microseconds since the Unix epoch.
    pub captured_at: i64,
}

/// Who pushes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Host and process id.
    pub name: String,
    /// How long ago it was heard of, seconds.
    pub silent_seconds: i64,
    /// Whether it stopped cleanly.
    pub stopped: bool,
}

/// What is remembered of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// The row itself; `None`: there is none, or row level security hides it.
    pub stored: Option<Stored>,
    /// The changes that wait, oldest first, twenty at most.
    pub waiting: Vec<Waiting>,
    /// Its refusals, and those of records that it was to lose.
    pub failures: Vec<Failure>,
    /// The record that was archived because a row of this key was deleted, and when (microseconds since the Unix epoch).
    pub archived: Option<(String, i64)>,
    /// Why the object is paused.
    pub paused: Option<String>,
    /// Who pushes, if anybody ever did.
    pub holder: Option<Holder>,
}

/// Reads the story of the row with this key, given as Postgres prints it.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn read(
    session: &Session,
    mapping: &Mapping,
    at: ObjectIndex,
    shapes: &[Shape],
    key: &str,
) -> Result<Story, Error> {
    let object = &mapping.objects[at];
    let shape = shapes.iter().find(|shape| shape.object == at);
    let doing = || format!("reading the story of a row of {}", object.name);
    let of_row = |sql: String| Step::new(sql).with(key, Type::TEXT);
    let ours = |sql: &'static str| {
        Step::new(sql)
            .with(&*object.name, Type::TEXT)
            .with(key, Type::TEXT)
    };
    let steps = [
        of_row(stored_row(object, shape)),
        of_row(columns(object, shape)),
        ours(
            "SELECT op::text, hubspot_id, (extract(epoch FROM captured_at) * 1000000)::bigint FROM hubsyncd.change \
             WHERE object = $1 AND key = $2 ORDER BY seq LIMIT 20",
        ),
        ours(
            "SELECT hubspot_id, (extract(epoch FROM archived_at) * 1000000)::bigint FROM hubsyncd.archived \
             WHERE object = $1 AND key = $2 ORDER BY archived_at DESC LIMIT 1",
        ),
        Step::new(
            "SELECT holder, extract(epoch FROM clock_timestamp() - renewed_at)::bigint, stopped_at IS NOT NULL \
             FROM hubsyncd.lease WHERE holder IS NOT NULL AND renewed_at IS NOT NULL",
        ),
    ];
    let answers = pipeline::send(session, &steps).await;
    let answers = answers.map_err(|error| Error::from_client(doing(), error))?;
    let [stored, columns, waiting, archived, holder] = &answers[..] else {
        return Err(Error::new(super::ErrorKind::Other, doing()));
    };
    let text = |json: Option<String>| serde_json::from_str(&json.unwrap_or_default()).unwrap_or_default();
    let paused = failures::paused(session, mapping).await?;
    Ok(Story {
        stored: stored.first().map(|row| Stored {
            hubspot_id: row.get(0),
            synced_at: row.get(1),
            columns: columns.first().map(|row| text(row.get(0))).unwrap_or_default(),
        }),
        waiting: waiting
            .iter()
            .map(|row| Waiting {
                op: row.get(0),
                hubspot_id: row.get(1),
                captured_at: row.get(2),
            })
            .collect(),
        failures: failures::of(session, &object.name, key).await?,
        archived: archived.first().map(|row| (row.get(0), row.get(1))),
        paused: paused.into_iter().find(|(of, _)| *of == at).map(|(_, why)| why),
        holder: holder.first().map(|row| Holder {
            name: row.get(0),
            silent_seconds: row.get(1),
            stopped: row.get(2),
        }),
    })
}

/// The statement that reads the row itself by `$1`, its key.
fn stored_row(object: &Object, shape: Option<&Shape>) -> String {
    let key_type = select::key_type(shape.map_or("text", |shape| shape.key.base.as_str()));
    format!(
        "SELECT t.{}::text, t.{}::text FROM {} AS t WHERE t.{} = $1::text::{key_type}",
        quote::identifier(&object.hubspot_id),
        quote::identifier(&object.synced_at),
        quote::table(&object.table),
        quote::identifier(&object.key),
    )
}

/// The statement that reads the mapped columns by `$1`, the key.
fn columns(object: &Object, shape: Option<&Shape>) -> String {
    let source = object.from.as_ref().unwrap_or(&object.table);
    let key_base = shape.and_then(|shape| shape.read_columns.get(&object.key));
    let key_type = select::key_type(key_base.map_or("text", |column| column.base.as_str()));
    let links = object.links.iter();
    let linked = links.flat_map(|link| link.column.iter().chain(link.lookup.iter().map(|(_, own)| own)));
    let mut names: Vec<&String> = object
        .properties
        .iter()
        .map(|property| &property.column)
        .collect();
    names.extend(linked);
    names.sort();
    names.dedup();
    let texts: Vec<String> = names.iter().map(|name| quote::literal(name)).collect();
    let cells: Vec<String> = names
        .iter()
        .map(|name| format!("t.{}::text", quote::identifier(name)))
        .collect();
    format!(
        "SELECT json_object(ARRAY[{}]::text[], ARRAY[{}]::text[])::text FROM {} AS t WHERE t.{} = $1::text::{key_type}",
        texts.join(", "),
        cells.join(", "),
        quote::table(source),
        quote::identifier(&object.key),
    )
}
