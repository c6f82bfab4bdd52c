//! The catalog: what the mapped tables look like in this database.
//!
//! [`inspect`] asks the system catalogs alone: it takes no lock on a table of the application, so a table that
//! somebody holds locked does not hold up us, and we hold up nobody. It names everything that does not fit the
//! mapping at once, not the first of it.

use super::inspection::{Inspection, Problem, problems_of_audit, problems_of_object};
use super::{Error, Session};
use crate::mapping::{Mapping, TableName};
use crate::sync::change::ObjectIndex;
use std::collections::{BTreeMap, BTreeSet};

/// A column as the catalog describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type as declared, e.g. `timestamp without time zone`, `text[]`, `character varying(20)`; safe to paste
    /// into a cast.
    pub type_name: String,
    /// `pg_type.typname` of the type with domains resolved, e.g. `timestamp`, `_text`, `int4`.
    pub base: String,
    /// `pg_type.typcategory` of the type with domains resolved, e.g. `N`, `S`, `A`, `D`, `B`.
    pub category: char,
    /// Whether pg_catalog has an `=` for it.
    pub has_equality: bool,
}

/// What one object's table (and view) look like in this database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Which object of the mapping.
    pub object: ObjectIndex,
    /// The key column of the table.
    pub key: Column,
    /// The columns of `table`, by name.
    pub table_columns: BTreeMap<String, Column>,
    /// The columns of `from`, or of `table` where there is none, by name.
    pub read_columns: BTreeMap<String, Column>,
    /// Whether a valid, complete unique index on the natural key's column alone guarantees that no two rows share
    /// it as HubSpot compares it (never for an e-mail, which HubSpot compares without case, nor where the rows of another
    /// table become records of the same type).
    pub match_unique: bool,
    /// `pg_type.typname` of the audit table's `record_id` with domains resolved, e.g. `uuid`, `text`, `int8`; `None`
    /// without an audit table.
    pub audit_record_id: Option<String>,
}

/// A relation as the catalog describes it.
#[derive(Debug, Clone, Default)]
pub(super) struct Relation {
    /// `pg_class.relkind`: `r` table, `p` partitioned, `v` view, `m` materialized view, `f` foreign.
    pub(super) kind: char,
    /// Its columns, by name.
    pub(super) columns: BTreeMap<String, Column>,
    /// The columns whose values HubSpot cannot hold: bytea, money, composites and arrays of them.
    pub(super) unsupported: BTreeSet<String>,
    /// The columns that a valid, complete, immediate unique index on them alone covers.
    pub(super) unique: BTreeSet<String>,
}

/// The relations that a mapping names, as far as they exist.
pub(super) type Relations = BTreeMap<TableName, Relation>;

/// Compares the mapping with the database and says what each object's columns are.
///
/// # Errors
/// [`Inspection::Problems`] with everything that is missing or does not fit; [`Inspection::Database`] if the
/// catalogs could not be asked.
pub async fn inspect(session: &Session, mapping: &Mapping) -> Result<Vec<Shape>, Inspection> {
    let relations = relations(session, &relations_of(mapping)).await?;
    let mut problems: Vec<Problem> = Vec::new();
    for object in &mapping.objects {
        problems_of_object(mapping, object, &relations, &mut problems);
    }
    if let Some(audit) = &mapping.audit {
        problems_of_audit(audit, &relations, &mut problems);
    }
    if !problems.is_empty() {
        return Err(Inspection::Problems(problems));
    }
    let audit = mapping.audit.as_ref().and_then(|audit| relations.get(audit));
    let record_id = audit
        .and_then(|audit| audit.columns.get("record_id"))
        .map(|column| column.base.clone());
    let shapes = mapping.objects.iter().enumerate();
    Ok(shapes
        .filter_map(|(index, _)| shape(mapping, index, &relations, record_id.clone()))
        .collect())
}

/// Every relation that the mapping names, once.
pub(super) fn relations_of(mapping: &Mapping) -> BTreeSet<TableName> {
    let objects = mapping.objects.iter();
    objects
        .flat_map(|object| std::iter::once(&object.table).chain(&object.from))
        .chain(&mapping.audit)
        .cloned()
        .collect()
}

/// The shape of an object in which no problem was found.
fn shape(
    mapping: &Mapping,
    index: ObjectIndex,
    relations: &Relations,
    audit_record_id: Option<String>,
) -> Option<Shape> {
    let object = &mapping.objects[index];
    let table = relations.get(&object.table)?;
    let read = relations.get(object.from.as_ref().unwrap_or(&object.table))?;
    let match_unique = object.from.is_none()
        && mapping.alike_elsewhere(index).next().is_none()
        && !object.matches_on_email()
        && object
            .match_property()
            .is_some_and(|property| table.unique.contains(&property.column));
    Some(Shape {
        object: index,
        key: table.columns.get(&object.key)?.clone(),
        table_columns: table.columns.clone(),
        read_columns: read.columns.clone(),
        match_unique,
        audit_record_id,
    })
}

/// `search_path` is set for this statement alone, so that a type's name is qualified wherever it must be.
const COLUMNS: &str = "
WITH pinned AS MATERIALIZED (SELECT set_config('search_path', 'pg_catalog', true))
SELECT w.schema, w.name, c.relkind::text, a.attname::text, format_type(a.atttypid, a.atttypmod),
       base.typname::text, base.typcategory::text,
       leaf.typtype IN ('e', 'r', 'm') OR EXISTS (
           SELECT FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod
           WHERE m.amname IN ('btree', 'hash') AND o.opcdefault
             AND o.opcnamespace = 'pg_catalog'::regnamespace
             AND o.opcintype = CASE leaf.oid WHEN 'varchar'::regtype THEN 'text'::regtype ELSE leaf.oid END),
       leaf.typtype IN ('c', 'p') OR leaf.oid IN ('bytea'::regtype, 'money'::regtype),
       EXISTS (
           SELECT FROM pg_index i
           WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
             AND i.indpred IS NULL AND i.indexprs IS NULL
             AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum)
FROM pinned
CROSS JOIN unnest($1::text[], $2::text[]) AS w (schema, name)
JOIN pg_namespace n ON n.nspname = w.schema
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
CROSS JOIN LATERAL (
    WITH RECURSIVE resolved (oid, below) AS (
        SELECT t.oid, t.typbasetype FROM pg_type t WHERE t.oid = a.atttypid
        UNION ALL
        SELECT t.oid, t.typbasetype FROM resolved r JOIN pg_type t ON t.oid = r.below)
    SELECT oid FROM resolved WHERE below = 0) AS whole
JOIN pg_type base ON base.oid = whole.oid
CROSS JOIN LATERAL (
    WITH RECURSIVE resolved (oid, below) AS (
        SELECT t.oid, t.typbasetype FROM pg_type t
        WHERE t.oid = CASE WHEN base.typcategory = 'A' THEN base.typelem ELSE base.oid END
        UNION ALL
        SELECT t.oid, t.typbasetype FROM resolved r JOIN pg_type t ON t.oid = r.below)
    SELECT oid FROM resolved WHERE below = 0) AS element
JOIN pg_type leaf ON leaf.oid = element.oid";

/// Asks the catalogs for relations and their columns; what does not exist is not in the answer.
pub(super) async fn relations(session: &Session, names: &BTreeSet<TableName>) -> Result<Relations, Error> {
    let schemas: Vec<&str> = names.iter().map(|name| name.schema.as_str()).collect();
    let tables: Vec<&str> = names.iter().map(|name| name.name.as_str()).collect();
    let failed = |error| Error::from_client("reading the catalog of the mapped tables", error);
    let rows = session
        .query(COLUMNS, &[&schemas, &tables])
        .await
        .map_err(failed)?;
    let mut relations = Relations::new();
    for row in &rows {
        let read = || -> Result<_, tokio_postgres::Error> {
            let name = TableName {
                schema: row.try_get(0)?,
                name: row.try_get(1)?,
            };
            let kind: String = row.try_get(2)?;
            let category: String = row.try_get(6)?;
            let column = Column {
                name: row.try_get(3)?,
                type_name: row.try_get(4)?,
                base: row.try_get(5)?,
                category: category.chars().next().unwrap_or('X'),
                has_equality: row.try_get(7)?,
            };
            Ok((
                name,
                kind,
                column,
                row.try_get::<_, bool>(8)?,
                row.try_get::<_, bool>(9)?,
            ))
        };
        let (name, kind, column, unsupported, unique) = read().map_err(failed)?;
        let relation = relations.entry(name).or_default();
        relation.kind = kind.chars().next().unwrap_or('r');
        if unsupported {
            relation.unsupported.insert(column.name.clone());
        }
        if unique {
            relation.unique.insert(column.name.clone());
        }
        relation.columns.insert(column.name.clone(), column);
    }
    Ok(relations)
}
