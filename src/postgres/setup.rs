//! Setup: installs the schema for a mapping, upgrades it in place, and takes leftovers away.
//!
//! A DDL statement that waits for a lock makes every later writer of the application wait behind it. So each piece
//! is a transaction of its own that waits at most `LOCK_TIMEOUT`, gives up, pauses and tries again; nothing to do
//! is found out from the catalogs, without a lock on any table. What is run is exactly what [`print()`] prints.

use super::rights::{self, Right};
use super::schema::{Installed, Piece, pieces_here};
use super::{Error, ErrorKind, Inspection, Session};
use crate::mapping::{Mapping, TableName};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long a statement of setup may wait for a lock, and an application's writer behind it.
const LOCK_TIMEOUT: &str = "100ms";

/// How setup is to go about it.
#[derive(Debug, Clone)]
pub struct Options {
    /// The role the daemon connects as.
    pub role: String,
    /// How long to try again where locks are held.
    pub patience: Duration,
}

impl Options {
    /// The usual: a minute's patience.
    pub fn for_role(role: impl Into<String>) -> Options {
        Options {
            role: role.into(),
            patience: Duration::from_secs(60),
        }
    }
}

/// What setup or its undoing did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What was installed or replaced.
    pub installed: Vec<String>,
    /// What was taken away.
    pub removed: Vec<String>,
    /// The rights and policies that were given to the daemon's role.
    pub granted: Vec<String>,
    /// What somebody still has to do, each with the statement to run.
    pub notes: Vec<String>,
}

impl Report {
    /// Whether everything was as it should be already.
    pub fn changed_nothing(&self) -> bool {
        self.installed.is_empty() && self.removed.is_empty() && self.granted.is_empty()
    }
}

/// A transaction to be run.
pub(super) struct Step {
    /// What it does, for people.
    pub(super) what: String,
    /// Its statements.
    pub(super) sql: String,
    /// The tables of the application that it locks.
    pub(super) locks: BTreeSet<TableName>,
}

impl Step {
    /// The transaction as it is run and printed.
    pub(super) fn transaction(&self) -> String {
        format!(
            "BEGIN;\nSET LOCAL lock_timeout = '{LOCK_TIMEOUT}';\nSET LOCAL search_path = pg_catalog, pg_temp;\nSET LOCAL \
             client_min_messages = warning;\nSELECT pg_advisory_xact_lock({}, {});\n{}COMMIT;\n",
            super::control::LOCK_CLASS,
            super::capture::LOCK_SETUP,
            self.sql
        )
    }
}

impl From<&Piece> for Step {
    fn from(piece: &Piece) -> Step {
        Step {
            what: piece.what.clone(),
            sql: format!("{}{}", piece.sql, piece.remember()),
            locks: piece.triggers.iter().map(|(table, ..)| table.clone()).collect(),
        }
    }
}

/// The role that owns the capture functions: made first whenever anything is to be done.
pub(super) fn owner() -> Step {
    let what = "role hubsyncd_owner".to_owned();
    Step {
        what,
        sql: include_str!("../../sql/owner.sql").to_owned(),
        locks: BTreeSet::new(),
    }
}

/// Installs what the mapping wants and the database does not have, and takes away what it no longer wants.
///
/// If the daemon's role does not exist, everything else is installed and the report says what to run.
///
/// # Errors
/// [`Inspection::Problems`] if the tables do not fit the mapping; else a database error, of kind
/// [`ErrorKind::Busy`] naming who holds the lock when patience ran out, or [`ErrorKind::Denied`] with the statements
/// for a DBA.
pub async fn setup(
    session: &mut Session,
    mapping: &Mapping,
    options: &Options,
) -> Result<Report, Inspection> {
    let pieces = pieces_here(session, mapping).await?;
    let installed = Installed::read(session).await?;
    let begin = Instant::now();
    let mut report = Report::default();

    let pending: Vec<&Piece> = pieces.iter().filter(|piece| !installed.holds(piece)).collect();
    let leftovers = installed.leftovers(&pieces);
    if !pending.is_empty() {
        apply(session, &owner(), options, begin).await?;
    }
    for piece in pending {
        apply(session, &Step::from(piece), options, begin).await?;
        report.installed.push(piece.what.clone());
    }
    for (what, sql, locks) in leftovers {
        apply(
            session,
            &Step {
                what: what.clone(),
                sql,
                locks,
            },
            options,
            begin,
        )
        .await?;
        report.removed.push(what);
    }
    grant(session, mapping, options, begin, &mut report).await?;
    Ok(report)
}

/// Gives the daemon's role what it lacks.
async fn grant(
    session: &Session,
    mapping: &Mapping,
    options: &Options,
    begin: Instant,
    report: &mut Report,
) -> Result<(), Error> {
    let role = options.role.as_str();
    if !role_exists(session, role).await? {
        let create = format!("CREATE ROLE {} LOGIN", super::quote::identifier(role));
        report.notes.push(format!(
            "role {role} does not exist: run `{create}`, then setup once more for its rights"
        ));
        return Ok(());
    }
    let missing = rights::missing(session, role, rights::wanted(mapping)).await?;
    if !missing.is_empty() {
        apply(session, &grants(role, &missing, &missing), options, begin).await?;
        report.granted.extend(missing.iter().map(Right::to_string));
        // GRANT by one who may not give a right on can pass with a warning.
        let refused = rights::missing(session, role, missing).await?;
        if !refused.is_empty() {
            let statements = rights::grant(role, &refused);
            let doing = format!(
                "giving {role} its rights: the owner of the tables must run: {}",
                statements.trim()
            );
            return Err(Error::new(ErrorKind::Denied, doing));
        }
    }
    let guards = rights::guards(session, mapping, role).await?;
    for (table, sql) in rights::policies(mapping, &guards, role) {
        let what = format!("policies for {role} on {table}");
        let step = Step {
            what: what.clone(),
            sql,
            locks: BTreeSet::from([table]),
        };
        apply(session, &step, options, begin).await?;
        report.granted.push(what);
    }
    for guard in guards.iter().filter(|guard| !guard.restricted.is_empty()) {
        let policies = guard.restricted.join(", ");
        let table = &guard.table;
        report.notes.push(format!(
            "restrictive policies on {table} hide rows from {role}: {policies}"
        ));
    }
    Ok(())
}

/// The transaction that gives rights and remembers those which it was ours to give.
fn grants(role: &str, rights: &[Right], ours: &[Right]) -> Step {
    let remembered: String = ours.iter().map(|right| right.remember(role)).collect();
    let sql = rights::grant(role, rights) + &remembered;
    Step {
        what: format!("rights of {role}"),
        sql,
        locks: BTreeSet::new(),
    }
}

/// The SQL that setup runs, for a DBA to read and to run: what is installed, and the daemon's rights.
///
/// Every piece is printed, whether or not the database has it; all of it may be run again.
///
/// # Errors
/// As [`setup`]; nothing is changed.
pub async fn print(session: &Session, mapping: &Mapping, options: &Options) -> Result<String, Inspection> {
    let pieces = pieces_here(session, mapping).await?;
    let installed = Installed::read(session).await?;
    let mut printed = String::from(
        "-- Part 1: what setup installs. To be run by the owner of the tables, who may create schemas here and is a\n-- \
         member of hubsyncd_owner or may create roles. Run it again if a lock was not to be had within 100 ms.\n\n",
    );
    printed.push_str(&owner().transaction());
    let steps = pieces.iter().map(Step::from);
    let leftovers = installed
        .leftovers(&pieces)
        .into_iter()
        .map(|(what, sql, locks)| Step { what, sql, locks });
    for step in steps.chain(leftovers) {
        printed.push_str(&format!(
            "\n-- {}\n{}",
            step.what.replace(['\n', '\r'], " "),
            step.transaction()
        ));
    }

    let role = options.role.as_str();
    printed.push_str("\n\n-- Part 2: what the daemon's role needs.\n");
    let wanted = rights::wanted(mapping);
    let exists = role_exists(session, role).await?;
    let (missing, guards) = if exists {
        let missing = rights::missing(session, role, wanted.clone()).await?;
        (missing, rights::guards(session, mapping, role).await?)
    } else {
        let create = format!("CREATE ROLE {} LOGIN", super::quote::identifier(role));
        printed.push_str(&format!(
            "-- It does not exist yet. First of all:\n--   {create};\n"
        ));
        printed.push_str("-- Policies are printed once it exists, where row level security is on.\n");
        (wanted.clone(), Vec::new())
    };
    printed.push_str(&grants(role, &wanted, &missing).transaction());
    for (table, sql) in rights::policies(mapping, &guards, role) {
        let step = Step {
            what: String::new(),
            sql,
            locks: BTreeSet::from([table]),
        };
        printed.push_str(&format!("\n{}", step.transaction()));
    }
    Ok(printed)
}

/// Whether a role exists.
pub(super) async fn role_exists(session: &Session, role: &str) -> Result<bool, Error> {
    let failed = |error| Error::from_client(format!("looking for role {role}"), error);
    let asked = "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)";
    session
        .query_one(asked, &[&role])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed)
}

/// Runs a transaction, again and again while a lock is held, until patience ends.
pub(super) async fn apply(
    session: &Session,
    step: &Step,
    options: &Options,
    begin: Instant,
) -> Result<(), Error> {
    let mut pause = Duration::from_millis(100);
    let mut named = false;
    loop {
        let Err(source) = session.batch_execute(&step.transaction()).await else {
            return Ok(());
        };
        let raced = is_race(&source);
        let error = Error::from_client(format!("installing {}", step.what), source);
        if error.kind != ErrorKind::Unreachable {
            let undo = session.batch_execute("ROLLBACK").await;
            undo.map_err(|error| Error::from_client("giving up a transaction of setup", error))?;
        }
        match error.kind {
            ErrorKind::Denied => return Err(denied(session, step, error).await),
            ErrorKind::Busy => {}
            _ if raced => {}
            _ => return Err(error),
        }
        let blockers = blockers(session, step).await?;
        if begin.elapsed() + pause > options.patience {
            let doing = format!(
                "installing {} needs a lock that was not to be had in {:?}; {blockers}; end that or run setup again \
                 later",
                step.what, options.patience
            );
            return Err(Error::with_source(ErrorKind::Busy, doing, error));
        }
        if !named {
            tracing::warn!("setup waits to install {}; {blockers}", step.what);
            named = true;
        }
        let sleep = session
            .execute("SELECT pg_catalog.pg_sleep($1)", &[&pause.as_secs_f64()])
            .await;
        sleep.map_err(|error| Error::from_client("pausing before the next try", error))?;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// Whether a setup in another database did the same to a shared catalog at the same time.
fn is_race(error: &tokio_postgres::Error) -> bool {
    let Some(error) = error.as_db_error() else {
        return false;
    };
    match error.code().code() {
        "23505" => true,
        "XX000" => error.message().contains("concurrently"),
        _ => false,
    }
}

/// A refusal, with what somebody who may has to run.
async fn denied(session: &Session, step: &Step, error: Error) -> Error {
    let asked = "SELECT quote_ident(current_user), quote_ident(current_database())";
    let user = match session.query_one(asked, &[]).await {
        Ok(row) => (
            row.try_get(0).unwrap_or_default(),
            row.try_get(1).unwrap_or_default(),
        ),
        Err(_) => (String::new(), String::new()),
    };
    let (user, database): (String, String) = user;
    let what = &step.what;
    let doing = if what == "role hubsyncd_owner" {
        format!(
            "{user} may not create roles; a superuser must run: CREATE ROLE hubsyncd_owner NOLOGIN; GRANT \
             hubsyncd_owner TO {user};"
        )
    } else if what.starts_with("schema ") {
        format!(
            "{user} may not install {what}; a superuser must run: GRANT CREATE ON DATABASE {database} TO {user};"
        )
    } else {
        format!(
            "{user} may not install {what}; it wants the tables' owner: give a DBA the SQL of `hubsyncd setup --print`"
        )
    };
    Error::with_source(ErrorKind::Denied, doing, error)
}

/// Who holds a lock that a step waits for, by process and state; never what it runs.
async fn blockers(session: &Session, step: &Step) -> Result<String, Error> {
    let failed = |error| Error::from_client("asking who holds the lock", error);
    let schemas: Vec<&str> = step.locks.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = step.locks.iter().map(|table| table.name.as_str()).collect();
    let asked = "
        SELECT string_agg(DISTINCT format('%s holds a lock on %s',
                   CASE WHEN l.pid IS NULL THEN 'a prepared transaction (see pg_prepared_xacts)'
                        ELSE format('process %s (%s, %s%s)', l.pid,
                             coalesce(nullif(a.application_name, ''), nullif(a.backend_type, ''), 'unnamed'),
                             coalesce(a.state, 'state unknown'), ' since ' || a.query_start) END,
                   CASE l.locktype WHEN 'advisory' THEN 'setup' ELSE format('%s.%s', s.nspname, c.relname) END), '; ')
        FROM pg_catalog.pg_locks l
        LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
        LEFT JOIN pg_catalog.pg_class c ON l.locktype = 'relation' AND c.oid = l.relation
        LEFT JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
        WHERE l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
          AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
          AND (l.locktype = 'advisory' AND l.classid = $3 AND l.objid = $4 AND l.objsubid = 2
               OR (s.nspname, c.relname) IN (SELECT t.schema, t.name FROM unnest($1::text[], $2::text[]) AS t (schema, name)))
          AND (l.locktype = 'advisory' OR $5 OR l.mode NOT IN ('AccessShareLock', 'RowShareLock'))";
    let numbers =
        [super::control::LOCK_CLASS, super::capture::LOCK_SETUP].map(|number| number.unsigned_abs());
    let strong = !step.sql.contains("CREATE OR REPLACE TRIGGER");
    let row = session
        .query_one(asked, &[&schemas, &names, &numbers[0], &numbers[1], &strong])
        .await;
    let holders: Option<String> = row.and_then(|row| row.try_get(0)).map_err(failed)?;
    Ok(holders.unwrap_or_else(|| "who held it is gone".to_owned()))
}
