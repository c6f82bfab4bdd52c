//! Rights: what the daemon's role needs, what of it is missing, and whether row level security lets it through.
//!
//! A table with row level security and no policy for the role answers a SELECT with no rows and an UPDATE with none
//! touched, and no error. So rights are not enough: either the role has BYPASSRLS, or a permissive policy `true`
//! covers reading and another writing.

use super::catalog::relations_of;
use super::quote::{identifier, literal, table};
use super::schema::{MIRROR_TABLES, MIRROR_VIEWS, SEQUENCES, TABLES, VIEWS};
use super::{Error, Session};
use crate::mapping::{Mapping, TableName};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The policy that lets the daemon's role read.
pub(super) const POLICY_READ: &str = "hubsyncd_read";
/// The policy that lets it write back.
pub(super) const POLICY_WRITE: &str = "hubsyncd_write";

/// A right of the daemon's role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Right {
    schema: String,
    /// Empty: the schema itself.
    relation: String,
    privilege: &'static str,
    /// Empty: the whole relation.
    column: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Right {
            schema,
            relation,
            privilege,
            column,
        } = self;
        match (relation.as_str(), column.as_str()) {
            ("", _) => write!(f, "{privilege} on schema {schema}"),
            (_, "") => write!(f, "{privilege} on {schema}.{relation}"),
            _ => write!(f, "{privilege} ({column}) on {schema}.{relation}"),
        }
    }
}

impl Right {
    fn on_schema(schema: &str) -> Right {
        Right {
            schema: schema.to_owned(),
            relation: String::new(),
            privilege: "USAGE",
            column: String::new(),
        }
    }

    fn on(schema: &str, relation: &str, privilege: &'static str, column: &str) -> Right {
        Right {
            schema: schema.to_owned(),
            relation: relation.to_owned(),
            privilege,
            column: column.to_owned(),
        }
    }

    /// Whether it is a right in our own schema.
    pub(super) fn is_ours(&self) -> bool {
        self.schema == "hubsyncd"
    }

    /// The column that it lets the role write, as schema, table and column; `None` if it is another right.
    pub(super) fn into_written_column(self) -> Option<(String, String, String)> {
        let writes = self.privilege == "UPDATE" && !self.column.is_empty();
        writes.then_some((self.schema, self.relation, self.column))
    }

    /// The statement that remembers that we gave it; none for our own schema, which goes as a whole.
    pub(super) fn remember(&self, role: &str) -> String {
        if self.is_ours() {
            return String::new();
        }
        remember(role, &self.schema, &self.relation, self.privilege, &self.column)
    }
}

/// The statements that give rights to a role, one for each schema and relation.
pub(super) fn grant(role: &str, rights: &[Right]) -> String {
    let same = |left: &Right, right: &Right| left.schema == right.schema && left.relation == right.relation;
    let mut statements = String::new();
    for group in rights.chunk_by(same) {
        let privilege = |right: &Right| match right.column.as_str() {
            "" => right.privilege.to_owned(),
            column => format!("{} ({})", right.privilege, identifier(column)),
        };
        let privileges: Vec<String> = group.iter().map(privilege).collect();
        let Right { schema, relation, .. } = &group[0];
        let on = match relation.as_str() {
            "" => format!("SCHEMA {}", identifier(schema)),
            name if schema == "hubsyncd" && SEQUENCES.contains(&name) => {
                format!("SEQUENCE {}.{}", identifier(schema), identifier(name))
            }
            name => format!("{}.{}", identifier(schema), identifier(name)),
        };
        statements.push_str(&format!(
            "GRANT {} ON {on} TO {};\n",
            privileges.join(", "),
            identifier(role)
        ));
    }
    statements
}

fn remember(role: &str, schema: &str, relation: &str, privilege: &str, detail: &str) -> String {
    let values = [role, schema, relation, privilege, detail]
        .map(literal)
        .join(", ");
    format!("INSERT INTO hubsyncd.granted VALUES ({values}) ON CONFLICT DO NOTHING;\n")
}

/// Everything the daemon's role needs.
pub(super) fn wanted(mapping: &Mapping) -> Vec<Right> {
    let relations = relations_of(mapping);
    let mut rights = vec![Right::on_schema("hubsyncd")];
    for name in TABLES.into_iter().chain(MIRROR_TABLES) {
        rights.extend(
            ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"].map(|p| Right::on("hubsyncd", name, p, "")),
        );
    }
    let views = VIEWS.into_iter().chain(MIRROR_VIEWS);
    rights.extend(views.map(|name| Right::on("hubsyncd", name, "SELECT", "")));
    for name in SEQUENCES {
        rights.extend(["USAGE", "SELECT", "UPDATE"].map(|p| Right::on("hubsyncd", name, p, "")));
    }
    let schemas: BTreeSet<&str> = relations.iter().map(|name| name.schema.as_str()).collect();
    rights.extend(schemas.into_iter().map(Right::on_schema));
    let mut reads_and_writes: BTreeSet<Right> = relations
        .iter()
        .map(|name| Right::on(&name.schema, &name.name, "SELECT", ""))
        .collect();
    for object in &mapping.objects {
        for column in [&object.hubspot_id, &object.synced_at] {
            reads_and_writes.insert(Right::on(
                &object.table.schema,
                &object.table.name,
                "UPDATE",
                column,
            ));
        }
    }
    if let Some(audit) = &mapping.audit {
        reads_and_writes.insert(Right::on(
            &audit.schema,
            &audit.name,
            "UPDATE",
            "synced_to_hubspot_at",
        ));
    }
    rights.extend(reads_and_writes);
    rights
}

/// Which of the rights a role lacks; `role` must exist.
pub(super) async fn missing(session: &Session, role: &str, rights: Vec<Right>) -> Result<Vec<Right>, Error> {
    let failed = |error| Error::from_client(format!("reading the rights of {role}"), error);
    let schemas: Vec<&str> = rights.iter().map(|right| right.schema.as_str()).collect();
    let relations: Vec<&str> = rights.iter().map(|right| right.relation.as_str()).collect();
    let privileges: Vec<&str> = rights.iter().map(|right| right.privilege).collect();
    let columns: Vec<&str> = rights.iter().map(|right| right.column.as_str()).collect();
    let lacking = "
        SELECT w.number
        FROM unnest($2::text[], $3::text[], $4::text[], $5::text[])
             WITH ORDINALITY AS w (schema, relation, privilege, col, number)
        LEFT JOIN pg_catalog.pg_namespace s ON s.nspname = w.schema
        LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = s.oid AND c.relname = w.relation
        LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = w.col AND NOT a.attisdropped
        WHERE NOT coalesce(CASE
            WHEN w.relation = '' THEN has_schema_privilege($1::text::name, s.oid, w.privilege)
            WHEN c.relkind = 'S' THEN has_sequence_privilege($1::text::name, c.oid, w.privilege)
            WHEN w.col <> '' THEN has_column_privilege($1::text::name, c.oid, a.attnum, w.privilege)
            ELSE has_table_privilege($1::text::name, c.oid, w.privilege) END, false)";
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&role, &schemas, &relations, &privileges, &columns];
    let rows = session.query(lacking, &parameters).await.map_err(failed)?;
    let numbers = rows.iter().map(|row| row.try_get::<_, i64>(0));
    let numbers: BTreeSet<i64> = numbers.collect::<Result<_, _>>().map_err(failed)?;
    let numbered = (1..).zip(rights);
    Ok(numbered
        .filter(|(number, _)| numbers.contains(number))
        .map(|(_, right)| right)
        .collect())
}

/// What row level security makes of a role on a table.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    /// The table.
    pub(super) table: TableName,
    /// A permissive policy lets the role read every row.
    pub(super) reads: bool,
    /// A permissive policy lets it write every row.
    pub(super) writes: bool,
    /// Restrictive policies that apply to the role and hold something back.
    pub(super) restricted: Vec<String>,
    /// The names of all policies of the table.
    names: Vec<String>,
}

/// The tables of the mapping on which row level security applies to a role; `role` must exist.
///
/// A condition is compared as the catalog stores it: asking Postgres to print it would lock the table.
pub(super) async fn guards(session: &Session, mapping: &Mapping, role: &str) -> Result<Vec<Guard>, Error> {
    let failed = |error| Error::from_client("reading the policies of row level security", error);
    let tables = relations_of(mapping);
    let schemas: Vec<&str> = tables.iter().map(|name| name.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|name| name.name.as_str()).collect();
    let asked = r"
        SELECT w.schema, w.name,
               coalesce(bool_or(p.polpermissive AND p.open AND p.polcmd IN ('r', '*')), false),
               coalesce(bool_or(p.polpermissive AND p.open AND p.polcmd IN ('w', '*')), false),
               coalesce(array_agg(p.polname::text ORDER BY p.polname)
                        FILTER (WHERE NOT p.polpermissive AND NOT p.open AND p.polcmd IN ('r', 'w', '*')), '{}'),
               ARRAY(SELECT y.polname::text FROM pg_catalog.pg_policy y WHERE y.polrelid = c.oid)
        FROM unnest($2::text[], $3::text[]) AS w (schema, name)
        JOIN pg_catalog.pg_namespace s ON s.nspname = w.schema
        JOIN pg_catalog.pg_class c ON c.relnamespace = s.oid AND c.relname = w.name
        JOIN pg_catalog.pg_roles r ON r.rolname = $1
        LEFT JOIN LATERAL (
            SELECT y.polname, y.polpermissive, y.polcmd,
                   y.polqual::text ~ yes.pattern
                   AND (y.polwithcheck IS NULL OR y.polwithcheck::text ~ yes.pattern) AS open
            FROM pg_catalog.pg_policy y
            CROSS JOIN (VALUES ('^\{CONST :consttype 16 .*:constisnull false .*:constvalue 1 \[ (1( 0)*|(0 )*1) \]\}$'))
                       AS yes (pattern)
            WHERE y.polrelid = c.oid
              AND (0 = ANY (y.polroles)
                   OR EXISTS (SELECT FROM unnest(y.polroles) AS u (member) WHERE pg_has_role(r.oid, u.member, 'USAGE')))
        ) AS p ON true
        WHERE c.relrowsecurity AND NOT r.rolsuper AND NOT r.rolbypassrls
          AND (c.relforcerowsecurity OR NOT pg_has_role(r.oid, c.relowner, 'USAGE'))
        GROUP BY w.schema, w.name, c.oid";
    let rows = session
        .query(asked, &[&role, &schemas, &names])
        .await
        .map_err(failed)?;
    let guard = |row: &tokio_postgres::Row| -> Result<Guard, tokio_postgres::Error> {
        Ok(Guard {
            table: TableName {
                schema: row.try_get(0)?,
                name: row.try_get(1)?,
            },
            reads: row.try_get(2)?,
            writes: row.try_get(3)?,
            restricted: row.try_get(4)?,
            names: row.try_get(5)?,
        })
    };
    rows.iter().map(guard).collect::<Result<_, _>>().map_err(failed)
}

/// The tables that the daemon writes back to.
pub(super) fn written(mapping: &Mapping) -> BTreeSet<&TableName> {
    mapping
        .objects
        .iter()
        .map(|object| &object.table)
        .chain(&mapping.audit)
        .collect()
}

/// The policies a role still needs, by table: one transaction each, for a policy locks its table. A name that is
/// taken, by the policy of another daemon's role or of somebody else, is left alone.
pub(super) fn policies(mapping: &Mapping, guards: &[Guard], role: &str) -> BTreeMap<TableName, String> {
    let written = written(mapping);
    let mut statements = BTreeMap::new();
    for guard in guards {
        let mut sql = String::new();
        let wants = [
            (!guard.reads, POLICY_READ, "SELECT"),
            (
                !guard.writes && written.contains(&guard.table),
                POLICY_WRITE,
                "UPDATE",
            ),
        ];
        for (_, policy, command) in wants.into_iter().filter(|(wanted, ..)| *wanted) {
            let policy = free_name(policy, &guard.names);
            let (on, to) = (table(&guard.table), identifier(role));
            // The name is free now; what is printed may be run again.
            sql.push_str(&format!("DROP POLICY IF EXISTS {policy} ON {on};\n"));
            sql.push_str(&format!(
                "CREATE POLICY {policy} ON {on} FOR {command} TO {to} USING (true);\n"
            ));
            sql.push_str(&remember(
                role,
                &guard.table.schema,
                &guard.table.name,
                "POLICY",
                &policy,
            ));
        }
        if !sql.is_empty() {
            statements.insert(guard.table.clone(), sql);
        }
    }
    statements
}

/// `name`, or `name_2`, `name_3`, … if it is taken.
fn free_name(name: &str, taken: &[String]) -> String {
    let numbered = (2..).map(|number| format!("{name}_{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    names
        .find(|name| !taken.contains(name))
        .unwrap_or_else(|| name.to_owned())
}
