//! Examining: what a checkup asks of the catalogs beyond what the daemon itself must know.
//!
//! Nothing here takes a lock on a table of the application.

use super::catalog::relations_of;
use super::quote::{identifier, table};
use super::rights::Right;
use super::{Error, Problem, Session};
use crate::mapping::{Mapping, TableName};
use std::collections::BTreeSet;

/// What a session and its server say of themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The role of the session.
    pub role: String,
    /// `server_version_num`, e.g. `150004`.
    pub version: i32,
    /// `server_version`, e.g. `15.4`.
    pub version_text: String,
    /// Whether the connection is encrypted.
    pub encrypted: bool,
    /// The server's clock, microseconds since the Unix epoch.
    pub clock: i64,
    /// What the role may do in the whole cluster that the daemon does not need, e.g. `SUPERUSER`.
    pub powers: Vec<String>,
}

/// Asks a session for the facts.
///
/// # Errors
/// What the database says.
pub async fn facts(session: &Session) -> Result<Facts, Error> {
    let sql = "
        SELECT current_user::text, current_setting('server_version_num')::int, current_setting('server_version'),
               coalesce((SELECT s.ssl FROM pg_catalog.pg_stat_ssl s WHERE s.pid = pg_backend_pid()), false),
               (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
               array_remove(ARRAY[CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
                   CASE WHEN r.rolcreatedb THEN 'CREATEDB' END, CASE WHEN r.rolreplication THEN 'REPLICATION' END], NULL)
        FROM pg_catalog.pg_roles r WHERE r.rolname = current_user";
    let failed = |error| Error::from_client("asking the server about itself", error);
    let row = session.query_one(sql, &[]).await.map_err(failed)?;
    let read = || -> Result<Facts, tokio_postgres::Error> {
        Ok(Facts {
            role: row.try_get(0)?,
            version: row.try_get(1)?,
            version_text: row.try_get(2)?,
            encrypted: row.try_get(3)?,
            clock: row.try_get(4)?,
            powers: row.try_get(5)?,
        })
    };
    read().map_err(failed)
}

/// Whether our schema is there at all.
///
/// # Errors
/// What the database says.
pub async fn is_installed(session: &Session) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace \
               WHERE s.nspname = 'hubsyncd' AND c.relname = 'meta')";
    let found = session.query_one(sql, &[]).await.and_then(|row| row.try_get(0));
    found.map_err(|error| Error::from_client("looking for the schema hubsyncd", error))
}

/// What the session's role may do with the mapped tables and their schemas that the daemon does not need. Nothing of a
/// superuser, who may do everything.
///
/// # Errors
/// What the database says.
pub async fn excess(session: &Session, mapping: &Mapping) -> Result<Vec<Problem>, Error> {
    let failed = |error| Error::from_client("asking for rights that are not needed", error);
    let facts = facts(session).await?;
    if facts.powers.iter().any(|power| power == "SUPERUSER") {
        return Ok(Vec::new());
    }
    let role = facts.role;
    let relations = relations_of(mapping);
    let schemas: Vec<&str> = relations.iter().map(|name| name.schema.as_str()).collect();
    let names: Vec<&str> = relations.iter().map(|name| name.name.as_str()).collect();
    let written: Vec<(String, String, String)> = written(mapping);
    let of = |at: fn(&(String, String, String)) -> &str| written.iter().map(at).collect::<Vec<&str>>();
    let (in_schema, in_table, column) = (of(|right| &right.0), of(|right| &right.1), of(|right| &right.2));
    let rows = session
        .query(EXCESS, &[&schemas, &names, &in_schema, &in_table, &column])
        .await
        .map_err(failed)?;
    let mut problems = Vec::new();
    for row in &rows {
        let read = || -> Result<(String, String, String, Vec<String>), tokio_postgres::Error> {
            Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
        };
        let (schema, name, privilege, columns) = read().map_err(failed)?;
        problems.push(told(&role, &TableName { schema, name }, &privilege, &columns));
    }
    Ok(problems)
}

/// The columns that the daemon writes back: schema, table, column.
fn written(mapping: &Mapping) -> Vec<(String, String, String)> {
    let wanted = super::rights::wanted(mapping).into_iter();
    wanted.filter_map(Right::into_written_column).collect()
}

/// Each excess as schema, relation (empty: the schema), privilege (`OWNER` for ownership), columns.
const EXCESS: &str = "
    WITH mapped AS (
        SELECT DISTINCT s.oid AS schema_oid, s.nspname, c.oid, c.relname, c.relkind, c.relowner
        FROM unnest($1::text[], $2::text[]) AS w (schema, name)
        JOIN pg_catalog.pg_namespace s ON s.nspname = w.schema
        JOIN pg_catalog.pg_class c ON c.relnamespace = s.oid AND c.relname = w.name),
    unowned AS (SELECT * FROM mapped WHERE NOT pg_has_role(relowner, 'USAGE'))
    SELECT m.nspname::text, m.relname::text, 'OWNER', '{}'::text[]
    FROM mapped m WHERE pg_has_role(m.relowner, 'USAGE')
    UNION ALL
    SELECT m.nspname::text, m.relname::text, p.privilege, '{}'::text[]
    FROM unowned m CROSS JOIN unnest(ARRAY['INSERT', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS p (privilege)
    WHERE CASE WHEN p.privilege IN ('INSERT', 'REFERENCES') THEN has_any_column_privilege(m.oid, p.privilege)
               ELSE has_table_privilege(m.oid, p.privilege) END
    UNION ALL
    SELECT m.nspname::text, m.relname::text, 'UPDATE', array_agg(a.attname::text ORDER BY a.attnum)
    FROM unowned m
    JOIN pg_catalog.pg_attribute a ON a.attrelid = m.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE has_column_privilege(m.oid, a.attnum, 'UPDATE')
      AND NOT EXISTS (SELECT FROM unnest($3::text[], $4::text[], $5::text[]) AS b (schema, name, col)
                      WHERE b.schema = m.nspname AND b.name = m.relname AND b.col = a.attname)
    GROUP BY m.nspname, m.relname
    UNION ALL
    SELECT DISTINCT m.nspname::text, '', 'CREATE', '{}'::text[]
    FROM mapped m WHERE has_schema_privilege(m.schema_oid, 'CREATE')
    ORDER BY 1, 2, 3";

fn told(role: &str, on: &TableName, privilege: &str, columns: &[String]) -> Problem {
    let to = identifier(role);
    let (message, hint) = match (privilege, on.name.as_str()) {
        ("OWNER", _) => (
            format!("role {role} owns {on}, or is a member of who does"),
            "let the daemon connect as a role of its own: CREATE ROLE hubsyncd LOGIN, then run `hubsyncd setup` as the owner"
                .to_owned(),
        ),
        (_, "") => (
            format!("role {role} may create things in schema {}", on.schema),
            format!("REVOKE CREATE ON SCHEMA {} FROM {to}, or from PUBLIC", identifier(&on.schema)),
        ),
        ("UPDATE", _) => (
            format!("role {role} may update columns of {on} that it never writes: {}", columns.join(", ")),
            format!(
                "REVOKE UPDATE ON {} FROM {to}, or from who gives it on; then `hubsyncd setup` gives back what is needed",
                table(on)
            ),
        ),
        _ => (
            format!("role {role} has {privilege} on {on}, which it never uses"),
            format!("REVOKE {privilege} ON {} FROM {to}, or from who gives it on", table(on)),
        ),
    };
    Problem::new(on.to_string(), message, hint)
}

/// Ways into a captured table that its triggers do not see: writes aimed at a partition or child, and logical
/// replication that applies to it.
///
/// # Errors
/// What the database says.
pub async fn unseen(session: &Session, mapping: &Mapping) -> Result<Vec<Problem>, Error> {
    let failed = |error| Error::from_client("asking for partitions and subscriptions", error);
    let captured = mapping.objects.iter().filter(|object| object.capture);
    let tables: BTreeSet<&TableName> = captured.map(|object| &object.table).collect();
    let schemas: Vec<&str> = tables.iter().map(|name| name.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|name| name.name.as_str()).collect();
    let sql = "
        SELECT s.nspname::text, c.relname::text,
               (SELECT count(*) FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid),
               EXISTS (SELECT FROM pg_catalog.pg_subscription_rel r WHERE r.srrelid = c.oid)
        FROM unnest($1::text[], $2::text[]) AS w (schema, name)
        JOIN pg_catalog.pg_namespace s ON s.nspname = w.schema
        JOIN pg_catalog.pg_class c ON c.relnamespace = s.oid AND c.relname = w.name
        ORDER BY 1, 2";
    let mut problems = Vec::new();
    for row in session.query(sql, &[&schemas, &names]).await.map_err(failed)? {
        let read = || -> Result<(TableName, i64, bool), tokio_postgres::Error> {
            let name = TableName {
                schema: row.try_get(0)?,
                name: row.try_get(1)?,
            };
            Ok((name, row.try_get(2)?, row.try_get(3)?))
        };
        let (name, children, subscribed) = read().map_err(failed)?;
        let hint = "nothing is lost, it is only later; sweep more often if two hours are too long";
        if children > 0 {
            let message = format!(
                "{name} has {children} partitions or children: what is written to one of them by its own name is found by \
                 the sweep alone"
            );
            problems.push(Problem::new(name.to_string(), message, hint));
        }
        if subscribed {
            let message = format!(
                "{name} is filled by logical replication, which fires no trigger: found by the sweep alone"
            );
            problems.push(Problem::new(name.to_string(), message, hint));
        }
    }
    Ok(problems)
}

/// Has Postgres read a statement, without running it.
///
/// # Errors
/// What the database says of the statement.
pub async fn accepts(session: &Session, sql: &str) -> Result<(), Error> {
    // Another session's lock on a table is waited for no longer than this.
    let patience = session.batch_execute("SET lock_timeout = '2s'").await;
    patience.map_err(|error| Error::from_client("setting a patience", error))?;
    let prepared = session.prepare(sql).await;
    prepared
        .map(drop)
        .map_err(|error| Error::from_client("having a statement read", error))
}
