//! The pins as the daemon keeps them: compared before anything is pushed, set by the first holder of the lease.
//!
//! The database is compared at every start and reconnect, before the lease is asked for; the portal once HubSpot has
//! said which one the token belongs to, and after each take-over, since it may have been adopted meanwhile.

use super::exit::{CONFIGURATION, Exit};
use super::prepare::Unprepared;
use crate::config::Config;
use crate::hubspot::Lane;
use crate::postgres::pins::{self, Mismatch, Pin, Pins};
use crate::postgres::{self, Address, Session};
use crate::sync::report::chain;
use std::sync::Arc;
use tracing::info;

/// Compares what this daemon is configured for with what is pinned; answers what may be pinned.
///
/// # Errors
/// [`Unprepared::Exit`] with code 78 for another database or portal than those pushed from and to so far.
pub(super) async fn compare(
    session: &Session,
    address: &Address,
    portal: Option<i64>,
) -> Result<Pins, Unprepared> {
    let mut found = pins::of_database(session, address).await?;
    found.extend(portal.into_iter().flat_map(pins::of_portal));
    let mismatches = pins::mismatches(session, &found).await?;
    if mismatches.is_empty() {
        return Ok(found);
    }
    Err(Unprepared::Exit(
        Exit::new(CONFIGURATION, told(&mismatches)).hint(hint(&mismatches)),
    ))
}

/// Pins what is not pinned yet; only for who holds the lease.
pub(super) async fn pin(session: &Session, found: &Pins) -> Result<(), postgres::Error> {
    for pin in pins::pin(session, found).await? {
        info!(
            "pinned from now on: the {pin} is {}",
            found.get(&pin).map_or("", String::as_str)
        );
    }
    Ok(())
}

fn told(mismatches: &[Mismatch]) -> String {
    let mut lines: Vec<String> = mismatches.iter().map(ToString::to_string).collect();
    lines.push("nothing is written to either side".to_owned());
    lines.join("\n")
}

pub(super) fn hint(mismatches: &[Mismatch]) -> String {
    let portal = mismatches.iter().any(|mismatch| mismatch.pin == Pin::Portal);
    let database = mismatches.iter().any(|mismatch| mismatch.pin != Pin::Portal);
    let mut ways = Vec::new();
    if database {
        ways.push(
            "a copy must not push into the original's portal: give it a token of another one; if this is the database \
             that was moved, renamed or upgraded, run `hubsyncd setup --adopt-database`",
        );
    }
    if portal {
        ways.push(
            "the ids that rows hold are of the portal before: use its token, or, if the rows are to live in this one from \
             now on, run `hubsyncd setup --adopt-portal`",
        );
    }
    ways.join("; ")
}

/// Asks HubSpot which portal the configuration's token belongs to.
///
/// # Errors
/// The configuration's fault (78), or what HubSpot says (75).
pub async fn portal(config: &Config) -> Result<i64, Exit> {
    let client = super::checkup::client(config, 1, Arc::new(|_| {}));
    let client =
        client.map_err(|error| Exit::new(CONFIGURATION, error).hint("look at [hubspot] and the token"))?;
    let slot = client.pace().slot(Lane::Change).await;
    let account = client.account(slot).await.map_err(|failed| {
        let advice = failed.advice;
        Exit::new(super::exit::TRY_AGAIN, chain(&failed)).hint(advice)
    })?;
    Ok(account.portal_id)
}
