//! Hand-made mappings, and the tables in which the daemon remembers, for tests that read rows.

use hubsyncd::mapping::{Adopt, Mapping, Null, Object, On, OnDelete, OnMissing, Property, TableName};
use hubsyncd::postgres::Session;
use hubsyncd::postgres::catalog::inspect;
use hubsyncd::postgres::rows::Reader;
use std::collections::BTreeMap;

/// The tables in which the daemon remembers, without capture, and what it may see of them.
pub fn memory() -> String {
    let tables = include_str!("../../sql/schema.sql")
        .split("\nGRANT ")
        .next()
        .unwrap();
    let rights = "GRANT USAGE ON SCHEMA hubsyncd TO hubsyncd; GRANT SELECT ON ALL TABLES IN SCHEMA hubsyncd TO hubsyncd";
    format!("{tables};\n{rights}")
}

/// A mapping without audit log.
pub fn mapping_of(objects: Vec<Object>) -> Mapping {
    Mapping { objects, audit: None }
}

/// An object without properties over `public.<table>`, key `id`, written back to `hubspot_id` and `synced`.
pub fn object(name: &str, table: &str) -> Object {
    Object {
        name: name.to_owned(),
        table: public(table),
        from: None,
        watch: Vec::new(),
        object_type: "2-4".to_owned(),
        key: "id".to_owned(),
        hubspot_id: "hubspot_id".to_owned(),
        synced_at: "synced".to_owned(),
        match_on: None,
        adopt: Adopt::Overwrite,
        create: true,
        capture: true,
        on_missing: OnMissing::Fail,
        on_delete: OnDelete::Keep,
        condition: None,
        properties: Vec::new(),
        links: Vec::new(),
    }
}

/// A relation of schema `public`.
pub fn public(name: &str) -> TableName {
    TableName {
        schema: "public".to_owned(),
        name: name.to_owned(),
    }
}

/// A property whose form HubSpot's type decides, in UTC.
pub fn property(name: &str, column: &str, on: On, null: Null) -> Property {
    Property {
        name: name.to_owned(),
        column: column.to_owned(),
        on,
        kind: None,
        null,
        zone: "UTC".to_owned(),
    }
}

/// A reader of an object as the database is, with HubSpot's property types unknown.
pub async fn reader(session: &Session, mapping: &Mapping, object: usize) -> Reader {
    let shapes = inspect(session, mapping).await.unwrap();
    Reader::new(mapping, object, &shapes, &BTreeMap::new())
}
