//! The catalog: what the mapped tables look like in this database.

use crate::sync::change::ObjectIndex;
use std::collections::BTreeMap;

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
    /// it as HubSpot compares it (never for an e-mail, which HubSpot compares without case).
    pub match_unique: bool,
    /// `pg_type.typname` of the audit table's `record_id` with domains resolved, e.g. `uuid`, `text`, `int8`; `None`
    /// without an audit table.
    pub audit_record_id: Option<String>,
}
