//! Uninstall: removes everything setup made, and nothing else.

use super::quote::{identifier, literal, table};
use super::schema::{Installed, MIRROR_FUNCTIONS, MIRROR_TABLES, MIRROR_VIEWS, TABLES, VIEWS, drop_trigger};
use super::setup::{Options, Report, Step, apply, role_exists};
use super::{Error, ErrorKind, Session};
use crate::mapping::TableName;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Removes triggers, policies and rights, then the schema with all state, then the role `hubsyncd_owner` unless
/// another database uses it. What others put into schema `hubsyncd` is not dropped: then the schema stays and the
/// error names it.
///
/// # Errors
/// [`ErrorKind::Busy`] naming who holds a lock when patience ran out, [`ErrorKind::Denied`], or any other. What was
/// removed until then stays removed; run it again.
pub async fn uninstall(session: &mut Session, options: &Options) -> Result<Report, Error> {
    let begin = Instant::now();
    let mut report = Report::default();
    let installed = Installed::read(session).await?;
    let mut steps = drop_triggers(&installed);
    if installed.relations.contains("granted") {
        steps.extend(take_back(session).await?);
    }
    if installed.exists() {
        steps.push(drop_schema(&installed));
    }
    for step in steps {
        apply(session, &step, options, begin).await?;
        report.removed.push(step.what);
    }
    drop_owner(session, options, begin, &mut report).await?;
    Ok(report)
}

/// Our triggers, a table at a time.
fn drop_triggers(installed: &Installed) -> Vec<Step> {
    let mut tables: BTreeMap<&TableName, String> = BTreeMap::new();
    for (table, name) in installed.triggers.keys() {
        tables
            .entry(table)
            .or_default()
            .push_str(&drop_trigger(table, name));
    }
    let step = |(table, sql): (&TableName, String)| Step {
        what: format!("triggers on {table}"),
        sql,
        locks: BTreeSet::from([table.clone()]),
    };
    tables.into_iter().map(step).collect()
}

/// The policies and rights that we gave and that still exist.
async fn take_back(session: &Session) -> Result<Vec<Step>, Error> {
    let failed = |error| Error::from_client("reading what setup has granted", error);
    let asked = "
        SELECT g.grantee, g.schema, g.relation, g.privilege, g.detail
        FROM hubsyncd.granted g
        JOIN pg_catalog.pg_namespace s ON s.nspname = g.schema
        LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = s.oid AND c.relname = g.relation
        WHERE CASE WHEN g.privilege = 'POLICY'
                   THEN EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid AND p.polname = g.detail)
                   ELSE EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = g.grantee)
                        AND (g.relation = '' OR c.oid IS NOT NULL)
                        AND (g.detail = '' OR EXISTS (
                            SELECT FROM pg_catalog.pg_attribute a
                            WHERE a.attrelid = c.oid AND a.attname = g.detail AND NOT a.attisdropped))
              END
        ORDER BY 1, 2, 3, 4, 5";
    let mut policies: BTreeMap<TableName, String> = BTreeMap::new();
    let mut revokes = String::new();
    for row in session.query(asked, &[]).await.map_err(failed)? {
        let field = |index| row.try_get::<_, String>(index).map_err(failed);
        let (grantee, schema, relation, privilege, detail) =
            (field(0)?, field(1)?, field(2)?, field(3)?, field(4)?);
        let on = TableName {
            schema,
            name: relation,
        };
        if privilege == "POLICY" {
            let sql = format!(
                "DROP POLICY IF EXISTS {} ON {};\n",
                identifier(&detail),
                table(&on)
            );
            policies.entry(on).or_default().push_str(&sql);
            continue;
        }
        let columns = if detail.is_empty() {
            String::new()
        } else {
            format!(" ({})", identifier(&detail))
        };
        let target = if on.name.is_empty() {
            format!("SCHEMA {}", identifier(&on.schema))
        } else {
            table(&on)
        };
        revokes.push_str(&format!(
            "REVOKE {privilege}{columns} ON {target} FROM {};\n",
            identifier(&grantee)
        ));
    }
    let mut steps: Vec<Step> = policies
        .into_iter()
        .map(|(table, sql)| Step {
            what: format!("policies on {table}"),
            sql,
            locks: BTreeSet::from([table]),
        })
        .collect();
    if !revokes.is_empty() {
        steps.push(Step {
            what: "rights of the daemon's role".to_owned(),
            sql: revokes,
            locks: BTreeSet::new(),
        });
    }
    Ok(steps)
}

/// Views, functions, tables, and the schema if nothing else is in it.
fn drop_schema(installed: &Installed) -> Step {
    let mut sql = String::new();
    let mut locks = BTreeSet::new();
    for view in VIEWS.into_iter().chain(MIRROR_VIEWS) {
        sql.push_str(&format!("DROP VIEW IF EXISTS hubsyncd.{view};\n"));
    }
    for function in installed.our_functions() {
        sql.push_str(&format!(
            "DROP FUNCTION IF EXISTS hubsyncd.{}();\n",
            identifier(function)
        ));
    }
    for (function, takes) in MIRROR_FUNCTIONS {
        sql.push_str(&format!(
            "DROP FUNCTION IF EXISTS hubsyncd.{function}({takes});\n"
        ));
    }
    for name in TABLES.into_iter().chain(MIRROR_TABLES) {
        sql.push_str(&format!("DROP TABLE IF EXISTS hubsyncd.{name};\n"));
        locks.insert(TableName {
            schema: "hubsyncd".to_owned(),
            name: name.to_owned(),
        });
    }
    sql.push_str("DROP SCHEMA hubsyncd;\n");
    Step {
        what: "schema hubsyncd with its tables, views and functions".to_owned(),
        sql,
        locks,
    }
}

/// Drops the role, unless functions of another database are its.
async fn drop_owner(
    session: &Session,
    options: &Options,
    begin: Instant,
    report: &mut Report,
) -> Result<(), Error> {
    let role = "hubsyncd_owner";
    if !role_exists(session, role).await? {
        return Ok(());
    }
    let sql = format!(
        "DO {} LANGUAGE plpgsql;\n",
        literal(
            "BEGIN DROP ROLE hubsyncd_owner; EXCEPTION WHEN dependent_objects_still_exist THEN NULL; END"
        )
    );
    let step = Step {
        what: format!("role {role}"),
        sql,
        locks: BTreeSet::new(),
    };
    match apply(session, &step, options, begin).await {
        Ok(()) if role_exists(session, role).await? => {
            report.notes.push(format!(
                "role {role} stays: another database of this cluster uses it"
            ));
        }
        Ok(()) => report.removed.push(step.what),
        Err(error) if error.kind == ErrorKind::Denied => {
            report.notes.push(format!(
                "role {role} stays: a superuser may run `DROP ROLE {role}`"
            ));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}
