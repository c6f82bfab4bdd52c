//! The SQL of a receipt.
//!
//! Texts that name the application's tables are made once per object; what touches our own tables is constant.
//! Casts stand on parameters, never on key columns, so that the application's indexes serve.

use super::heir;
use crate::mapping::{Mapping, Object, OnDelete, TableName};
use crate::postgres::catalog::Shape;
use crate::postgres::changes::XID_FIRST;
use crate::postgres::pipeline::Step;
use crate::postgres::{lease, quote, select};
use crate::sync::change::ObjectIndex;
use crate::sync::outcome::Refusal;
use serde_json::{Value, json};
use tokio_postgres::types::Type;

/// The time of the read as a timestamp; microseconds are exact in a double for the next two centuries.
const READ_AT: &str = "('epoch'::timestamptz + $1::bigint * interval '1 microsecond')";

/// Which locks a receipt takes on rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strength {
    /// `FOR UPDATE`: the HubSpot id, which a foreign key may point at, will be written.
    Id,
    /// `FOR NO KEY UPDATE`.
    Touch,
}

/// The statements of one object.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) begin: String,
    key_type: &'static str,
    hold_ids: String,
    hold_rows: String,
    seen: String,
    set_ids: String,
    touch: String,
    name_owners: String,
    name_lookups: Vec<String>,
    archives: bool,
    has_links: bool,
    end_links: String,
    audit: Option<Audit>,
}

/// The statements on the audit log.
#[derive(Debug)]
struct Audit {
    hold: String,
    seen: String,
    mark: String,
    mark_collected: String,
}

impl Statements {
    pub(super) fn new(mapping: &Mapping, object: ObjectIndex, shapes: &[Shape]) -> Statements {
        let declared = &mapping.objects[object];
        let shape = shapes.iter().find(|shape| shape.object == object);
        let key_type = shape.map_or("text", |shape| select::key_type(&shape.key.base));
        let table = quote::table(&declared.table);
        let (key, id) = (
            quote::identifier(&declared.key),
            quote::identifier(&declared.hubspot_id),
        );
        let synced = quote::identifier(&declared.synced_at);
        let keys = select::typed_array("$1", key_type);
        let hold = format!(
            "SELECT t.{key}::text, nullif(btrim(t.{id}::text), '') FROM {table} AS t WHERE t.{key} = ANY({keys})"
        );
        let keys_second = select::typed_array("$2", key_type);
        Statements {
            key_type,
            begin: begin(&table, &synced, mapping.audit.as_ref()),
            hold_ids: format!("{hold} FOR UPDATE SKIP LOCKED"),
            hold_rows: format!("{hold} FOR NO KEY UPDATE SKIP LOCKED"),
            set_ids: format!(
                "UPDATE {table} AS t SET {id} = v.id, {synced} = CASE WHEN v.synced THEN {READ_AT} ELSE t.{synced} END \
                 FROM unnest({keys_second}, $3::text[], $4::boolean[]) AS v (key, id, synced) WHERE t.{key} = v.key RETURNING 1"
            ),
            touch: format!(
                "UPDATE {table} AS t SET {synced} = {READ_AT} WHERE t.{key} = ANY({keys_second}) RETURNING 1"
            ),
            seen: hold,
            name_owners: format!(
                "WITH owner (id, key) AS ({}), named AS (INSERT INTO hubsyncd.change (object, key, op) SELECT {}, key, 'N' \
                 FROM owner WHERE {XID_FIRST}) SELECT id, key FROM owner",
                select::owners(declared, shape),
                quote::literal(&declared.name),
            ),
            name_lookups: name_lookups(mapping, object, shapes, &keys),
            archives: declared.on_delete == OnDelete::Archive,
            has_links: !declared.links.is_empty(),
            end_links: heir::end_links(declared, shape),
            audit: mapping.audit.as_ref().map(audit),
        }
    }

    /// Takes the rows with these keys as far as nobody else holds them; answers (key, HubSpot id).
    pub(super) fn hold(&self, strength: Strength, keys: Vec<String>) -> Step<'_> {
        let sql = match strength {
            Strength::Id => &self.hold_ids,
            Strength::Touch => &self.hold_rows,
        };
        Step::new(sql).with(keys, Type::TEXT_ARRAY).kept()
    }

    /// Asks for one row, failing where somebody holds it.
    pub(super) fn hold_now(&self, key: String) -> Step<'_> {
        Step::new(format!("{} FOR UPDATE NOWAIT", self.seen)).with(vec![key], Type::TEXT_ARRAY)
    }

    /// Whether a row can have this key, as Postgres prints keys: those that come from elsewhere may be nonsense,
    /// which a cast refuses.
    pub(super) fn can_be_key(&self, key: &str) -> bool {
        select::can_be_key(self.key_type, key)
    }

    /// Which of the rows are there.
    pub(super) fn seen(&self, keys: Vec<String>) -> Step<'_> {
        Step::new(&self.seen).with(keys, Type::TEXT_ARRAY)
    }

    /// Takes the unmarked audit entries as far as nobody else holds them; answers their ids.
    pub(super) fn hold_entries(&self, ids: Vec<i64>) -> Option<Step<'_>> {
        let audit = self.audit.as_ref().filter(|_| !ids.is_empty())?;
        Some(Step::new(&audit.hold).with(ids, Type::INT8_ARRAY).kept())
    }

    /// Which of the audit entries are there and unmarked.
    pub(super) fn seen_entries(&self, ids: Vec<i64>) -> Option<Step<'_>> {
        let audit = self.audit.as_ref().filter(|_| !ids.is_empty())?;
        Some(Step::new(&audit.seen).with(ids, Type::INT8_ARRAY))
    }

    pub(super) fn set_ids<'a>(
        &'a self,
        read_at: i64,
        keys: Vec<&'a str>,
        ids: Vec<&'a str>,
        synced: Vec<bool>,
    ) -> Step<'a> {
        Step::new(&self.set_ids)
            .with(read_at, Type::INT8)
            .with(keys, Type::TEXT_ARRAY)
            .with(ids, Type::TEXT_ARRAY)
            .with(synced, Type::BOOL_ARRAY)
            .kept()
    }

    pub(super) fn touch<'a>(&'a self, read_at: i64, keys: Vec<&'a str>) -> Step<'a> {
        Step::new(&self.touch)
            .with(read_at, Type::INT8)
            .with(keys, Type::TEXT_ARRAY)
            .kept()
    }

    pub(super) fn mark(&self, read_at: i64, ids: Vec<i64>) -> Option<Step<'_>> {
        let audit = self.audit.as_ref().filter(|_| !ids.is_empty())?;
        Some(
            Step::new(&audit.mark)
                .with(read_at, Type::INT8)
                .with(ids, Type::INT8_ARRAY)
                .kept(),
        )
    }

    /// Marks what the audit trigger collected while we wrote.
    pub(super) fn mark_collected(&self, read_at: i64) -> Option<Step<'_>> {
        let audit = self.audit.as_ref()?;
        Some(Step::new(&audit.mark_collected).with(read_at, Type::INT8).kept())
    }

    /// Whether the HubSpot record of a row that is gone is archived.
    pub(super) fn archives(&self) -> bool {
        self.archives
    }

    /// Whether rows have links, of which something is remembered.
    pub(super) fn has_links(&self) -> bool {
        self.has_links
    }

    /// Ends the link memory of rows that are gone; what of it concerns a record that another row holds becomes that
    /// row's, which is named.
    pub(super) fn end_links<'a>(&'a self, object: &'a str, keys: Vec<&'a str>) -> Step<'a> {
        Step::new(&self.end_links)
            .with(object, Type::TEXT)
            .with(keys, Type::TEXT_ARRAY)
    }

    /// Whether rows of other objects find their target among this object's rows.
    pub(super) fn is_looked_up(&self) -> bool {
        !self.name_lookups.is_empty()
    }

    /// Names the rows whose lookup points at these rows, which have just got their id.
    pub(super) fn name_lookups<'a>(&'a self, keys: &[&'a str]) -> impl Iterator<Item = Step<'a>> {
        let texts = self.name_lookups.iter().filter(|_| !keys.is_empty());
        texts.map(|sql| Step::new(sql).with(keys.to_vec(), Type::TEXT_ARRAY))
    }

    /// Names the rows that hold these ids; answers (id, key).
    pub(super) fn name_owners<'a>(&'a self, ids: &'a [String]) -> Step<'a> {
        Step::new(&self.name_owners).with(ids, Type::TEXT_ARRAY)
    }
}

/// BEGIN with its settings, and the table locks that the writes need: `EXPLAIN` takes them as the statement
/// would, writes nothing and fires no trigger. So a lock on the whole table is met before we hold any row, where
/// our waiting for it harms nobody.
fn begin(table: &str, synced: &str, audit: Option<&TableName>) -> String {
    let mut sql = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL hubsyncd.receipt = 'on'; SET LOCAL lock_timeout = '200ms'; \
         SET LOCAL idle_in_transaction_session_timeout = '2s'; EXPLAIN UPDATE {table} SET {synced} = {synced} WHERE false"
    );
    if let Some(audit) = audit {
        let audit = quote::table(audit);
        sql.push_str(&format!(
            "; EXPLAIN UPDATE {audit} SET synced_to_hubspot_at = synced_to_hubspot_at WHERE false"
        ));
    }
    sql
}

fn audit(table: &TableName) -> Audit {
    let table = quote::table(table);
    let seen = format!(
        "SELECT a.id::bigint FROM {table} AS a WHERE a.id = ANY($1::bigint[]) AND a.synced_to_hubspot_at IS NULL"
    );
    let mark = format!(
        "UPDATE {table} AS a SET synced_to_hubspot_at = {READ_AT} WHERE a.synced_to_hubspot_at IS NULL AND a.id = "
    );
    let collected = "string_to_array(trim(BOTH ',' FROM coalesce(current_setting('hubsyncd.entries', true), '')), ',')::bigint[]";
    Audit {
        hold: format!("{seen} FOR NO KEY UPDATE SKIP LOCKED"),
        mark: format!("{mark} ANY($2::bigint[])"),
        mark_collected: format!("{mark} ANY({collected})"),
        seen,
    }
}

/// For each link of any object that finds its target in `object` by lookup: names the rows that point at `$1`.
fn name_lookups(mapping: &Mapping, object: ObjectIndex, shapes: &[Shape], keys: &str) -> Vec<String> {
    let to = &mapping.objects[object];
    let shape_of = |index: ObjectIndex| shapes.iter().find(|shape| shape.object == index);
    let mut texts = Vec::new();
    for (index, from) in mapping.objects.iter().enumerate() {
        for link in from
            .links
            .iter()
            .filter(|link| link.to == to.name && !link.lookup.is_empty())
        {
            let mut conditions = vec![format!("t.{} = ANY({keys})", quote::identifier(&to.key))];
            for (theirs, own) in &link.lookup {
                let their_column = shape_of(object).and_then(|shape| shape.table_columns.get(theirs));
                let own_column = shape_of(index).and_then(|shape| shape.read_columns.get(own));
                let cast = if select::comparable(their_column, own_column) {
                    ""
                } else {
                    "::text"
                };
                let (theirs, own) = (quote::identifier(theirs), quote::identifier(own));
                conditions.push(format!("t.{theirs}{cast} = o.{own}{cast}"));
            }
            if let Some(column) = &link.column {
                conditions.push(format!(
                    "nullif(btrim(o.{}::text), '') IS NULL",
                    quote::identifier(column)
                ));
            }
            texts.push(name_pointing(to, from, &conditions));
        }
    }
    texts
}

fn name_pointing(to: &Object, from: &Object, conditions: &[String]) -> String {
    format!(
        "INSERT INTO hubsyncd.change (object, key, op) SELECT {}, o.{}::text, 'U' FROM {} AS t JOIN {} AS o ON {} WHERE {XID_FIRST}",
        quote::literal(&from.name),
        quote::identifier(&from.key),
        quote::table(&to.table),
        quote::table(from.from.as_ref().unwrap_or(&from.table)),
        conditions.join(" AND "),
    )
}

/// Notes ids in the intent, keeping whatever else it holds.
pub(super) fn note_ids<'a>(object: &'a str, ids: impl Iterator<Item = (&'a str, &'a str)>) -> Step<'a> {
    note_ids_from(object, ids, "")
}

/// The same outside of a receipt: while the lease is of this generation. Answers a row for every id noted.
pub(super) fn note_ids_held<'a>(
    object: &'a str,
    generation: i64,
    ids: impl Iterator<Item = (&'a str, &'a str)>,
) -> Step<'a> {
    let held = format!(", {}", lease::held("$4"));
    note_ids_from(object, ids, &held).with(generation, Type::INT8)
}

fn note_ids_from<'a>(
    object: &'a str,
    ids: impl Iterator<Item = (&'a str, &'a str)>,
    also_from: &str,
) -> Step<'a> {
    let (keys, ids): (Vec<&str>, Vec<&str>) = ids.unzip();
    let sql = format!(
        "INSERT INTO hubsyncd.intent (object, key, hubspot_id, noted_at) SELECT $1, v.key, v.id, clock_timestamp() \
         FROM unnest($2::text[], $3::text[]) AS v (key, id){also_from} ON CONFLICT (object, key) DO UPDATE \
         SET hubspot_id = excluded.hubspot_id, noted_at = excluded.noted_at RETURNING 1"
    );
    Step::new(sql)
        .with(object, Type::TEXT)
        .with(keys, Type::TEXT_ARRAY)
        .with(ids, Type::TEXT_ARRAY)
}

/// Ends the failures of rows.
pub(super) fn end_failures<'a>(object: &'a str, keys: Vec<&'a str>) -> Step<'a> {
    let sql = "DELETE FROM hubsyncd.failure WHERE object = $1 AND key = ANY($2) AND archive = ''";
    Step::new(sql)
        .with(object, Type::TEXT)
        .with(keys, Type::TEXT_ARRAY)
}

/// Ends the intents of rows.
pub(super) fn end_intents<'a>(object: &'a str, keys: Vec<&'a str>) -> Step<'a> {
    let sql = "DELETE FROM hubsyncd.intent WHERE object = $1 AND key = ANY($2)";
    Step::new(sql)
        .with(object, Type::TEXT)
        .with(keys, Type::TEXT_ARRAY)
}

/// Names rows as changed.
pub(super) fn name<'a>(object: &'a str, keys: Vec<&'a str>) -> Step<'a> {
    let sql = format!(
        "INSERT INTO hubsyncd.change (object, key, op) SELECT $1, k, 'U' FROM unnest($2::text[]) AS k WHERE {XID_FIRST}"
    );
    Step::new(sql)
        .with(object, Type::TEXT)
        .with(keys, Type::TEXT_ARRAY)
}

/// Notes failures: a new one, or one more attempt of an old one.
pub(super) fn note_failures(object: &str, failures: Vec<Value>) -> Step<'_> {
    let sql = "INSERT INTO hubsyncd.failure AS f (object, key, archive, hubspot_id, category, message, properties, correlation_id, existing_id, \
               full_record, attempts, first_failed_at, last_failed_at) \
               SELECT $1, v.key, v.archive, v.hubspot_id, v.category, v.message, v.properties, v.correlation_id, v.existing_id, \
               v.full_record, 1, now(), now() FROM jsonb_to_recordset($2) AS v (key text, archive text, hubspot_id text, category text, \
               message text, properties text[], correlation_id text, existing_id text, full_record boolean) \
               ON CONFLICT (object, key, archive) DO UPDATE SET hubspot_id = excluded.hubspot_id, category = excluded.category, \
               message = excluded.message, properties = excluded.properties, correlation_id = excluded.correlation_id, \
               existing_id = excluded.existing_id, full_record = f.full_record OR excluded.full_record, \
               attempts = f.attempts + 1, last_failed_at = excluded.last_failed_at";
    Step::new(sql)
        .with(object, Type::TEXT)
        .with(Value::Array(failures), Type::JSONB)
}

/// A failure as [`note_failures`] takes it: of the row, or of the record `archive` that lost it. Text from HubSpot may hold NUL, which Postgres cannot store.
pub(super) fn failure(
    key: &str,
    archive: Option<&str>,
    hubspot_id: Option<&str>,
    full_record: bool,
    refusal: &Refusal,
) -> Value {
    let clean = |text: &str| text.replace('\0', "");
    let properties: Vec<String> = refusal.properties.iter().map(|name| clean(name)).collect();
    json!({
        "key": key,
        "archive": clean(archive.unwrap_or_default()),
        "hubspot_id": hubspot_id.map(clean),
        "category": clean(&refusal.category),
        "message": clean(&refusal.message),
        "properties": properties,
        "correlation_id": refusal.correlation_id.as_deref().map(clean),
        "existing_id": refusal.existing_id.as_deref().map(clean),
        "full_record": full_record,
    })
}
