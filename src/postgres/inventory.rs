//! The inventory: whether what setup installed is still in force, and whether this session's role gets at the rows.
//!
//! Triggers can be disabled, fire on replicas only, or vanish with a restored table; then changes are found by the
//! sweep alone, hours later. Row level security can hide every row without an error. Both are asked of the catalogs,
//! at start, at reconnect and every minute.

use super::catalog::Shape;
use super::quote::{identifier, table};
use super::rights::{self, POLICY_READ, POLICY_WRITE};
use super::schema::{Installed, pieces};
use super::{Error, Problem, Session};
use crate::mapping::Mapping;

/// Everything that is missing or not in force, for the role of this session; empty when all is well.
///
/// # Errors
/// When the database cannot be asked.
pub async fn inventory(
    session: &Session,
    mapping: &Mapping,
    shapes: &[Shape],
) -> Result<Vec<Problem>, Error> {
    let mut problems = triggers(session, mapping, shapes).await?;
    problems.extend(access(session, mapping).await?);
    Ok(problems)
}

/// The triggers that are missing or do not fire.
///
/// # Errors
/// When the database cannot be asked.
pub async fn triggers(session: &Session, mapping: &Mapping, shapes: &[Shape]) -> Result<Vec<Problem>, Error> {
    let installed = Installed::read(session).await?;
    let pieces = pieces(mapping, shapes);
    let mut problems = Vec::new();
    for (on, name, function) in pieces.iter().flat_map(|piece| &piece.triggers) {
        let state = match installed.triggers.get(&(on.clone(), name.clone())) {
            None => "is missing",
            Some(trigger) if trigger.function != *function => "calls another function",
            Some(trigger) if trigger.fires() => continue,
            Some(trigger) if trigger.enabled == 'R' => "fires on replicas only",
            Some(_) => "is disabled",
        };
        let message = format!("trigger {name} on {on} {state}: changes are found by the sweep alone");
        let enable = format!("ALTER TABLE {} ENABLE TRIGGER {}", table(on), identifier(name));
        let hint = match state {
            "is disabled" | "fires on replicas only" => format!("run `hubsyncd setup`, or {enable}"),
            _ => "run `hubsyncd setup`".to_owned(),
        };
        problems.push(Problem::new("capture", message, hint));
    }
    Ok(problems)
}

/// The rights this session's role lacks, and the tables whose rows are hidden from it.
///
/// # Errors
/// When the database cannot be asked.
pub async fn access(session: &Session, mapping: &Mapping) -> Result<Vec<Problem>, Error> {
    let mut problems = rights(session, mapping, true).await?;
    problems.extend(row_security(session, mapping).await?);
    Ok(problems)
}

/// The role of this session.
async fn role(session: &Session) -> Result<String, Error> {
    let failed = |error| Error::from_client("asking which role this is", error);
    let asked = session.query_one("SELECT current_user::text", &[]).await;
    asked.and_then(|row| row.try_get(0)).map_err(failed)
}

/// The rights this session's role lacks; those in our own schema only where it `is_installed`.
///
/// # Errors
/// When the database cannot be asked.
pub async fn rights(session: &Session, mapping: &Mapping, is_installed: bool) -> Result<Vec<Problem>, Error> {
    let role = role(session).await?;
    let wanted = rights::wanted(mapping).into_iter();
    let wanted = wanted.filter(|right| is_installed || !right.is_ours()).collect();
    let mut problems = Vec::new();
    for right in rights::missing(session, &role, wanted).await? {
        let grant = rights::grant(&role, std::slice::from_ref(&right));
        let message = format!("role {role} lacks {right}");
        problems.push(Problem::new(
            "database.url",
            message,
            format!("run `hubsyncd setup`, or {}", grant.trim_end()),
        ));
    }
    Ok(problems)
}

/// The tables whose rows row level security hides from this session's role.
///
/// # Errors
/// When the database cannot be asked.
pub async fn row_security(session: &Session, mapping: &Mapping) -> Result<Vec<Problem>, Error> {
    let role = role(session).await?;
    let mut problems = Vec::new();
    let written = rights::written(mapping);
    for guard in rights::guards(session, mapping, &role).await? {
        let wants = [
            (!guard.reads, POLICY_READ, "SELECT", "hides rows of"),
            (
                !guard.writes && written.contains(&guard.table),
                POLICY_WRITE,
                "UPDATE",
                "refuses writes to",
            ),
        ];
        for (_, policy, command, does) in wants.into_iter().filter(|(lacking, ..)| *lacking) {
            let message = format!(
                "row level security {does} {} for role {role}, without an error",
                guard.table
            );
            let (on, to) = (table(&guard.table), identifier(&role));
            let hint = format!(
                "run `hubsyncd setup`, or CREATE POLICY {policy} ON {on} FOR {command} TO {to} USING (true)"
            );
            problems.push(Problem::new("database.url", message, hint));
        }
        for policy in &guard.restricted {
            let message = format!(
                "restrictive policy {policy} on {} holds rows back from role {role}",
                guard.table
            );
            let hint = format!(
                "exempt {role} from it, or ALTER ROLE {} BYPASSRLS",
                identifier(&role)
            );
            problems.push(Problem::new("database.url", message, hint));
        }
    }
    Ok(problems)
}
