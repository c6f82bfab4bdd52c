//! The pins: which HubSpot portal and which database belong together, remembered in `hubsyncd.meta`.
//!
//! The ids that rows hold are of one portal. A token of another one, or a copy of the database with the configuration of
//! the original, would write one world's rows into the other's records. So the first daemon that holds the lease pins what
//! it finds, and every later one compares before it pushes anything.
//!
//! A host is a name as the database URL writes it. This machine is one place whatever it is called: a socket's directory,
//! `localhost` and loopback addresses are all `local`. Of several hosts the order does not matter. Where the role may not ask for
//! the cluster's system identifier, the other pins have to do.

use super::address::Address;
use super::control::{LEASE_LOCK, LOCK_CLASS};
use super::pipeline::{self, Step};
use super::{Error, ErrorKind, Session};
use std::collections::BTreeMap;
use std::fmt;
use tokio_postgres::types::Type;

/// What stands before a pin's name in `hubsyncd.meta`.
const META: &str = "pin:";

/// Forgets every HubSpot id but those in the application's rows: in another portal it may be anybody's record, which
/// must not be updated, unlinked, or archived in place of a deleted row's. What is refused there is found out anew.
const FORGET: &str = "DELETE FROM hubsyncd.intent; DELETE FROM hubsyncd.link; DELETE FROM hubsyncd.failure; \
    UPDATE hubsyncd.change SET hubspot_id = NULL WHERE hubspot_id IS NOT NULL";

/// What is pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pin {
    /// The id of the portal that the token belongs to.
    Portal,
    /// The cluster's system identifier, which every copy by pg_dump and every major upgrade changes.
    System,
    /// The host of the database URL.
    Host,
    /// The database of the database URL.
    Database,
}

impl Pin {
    const ALL: [Pin; 4] = [Pin::Portal, Pin::System, Pin::Host, Pin::Database];

    fn key(self) -> &'static str {
        match self {
            Pin::Portal => "portal",
            Pin::System => "system-identifier",
            Pin::Host => "host",
            Pin::Database => "database",
        }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Pin::Portal => "HubSpot portal",
            Pin::System => "cluster's system identifier",
            Pin::Host => "host of the database URL",
            Pin::Database => "database of the database URL",
        })
    }
}

/// Pins and their values.
pub type Pins = BTreeMap<Pin, String>;

/// A pin that is not what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Which one.
    pub pin: Pin,
    /// What is pinned.
    pub pinned: String,
    /// What was found.
    pub found: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the {} is {}, and was {} when this database was last pushed from",
            self.pin, self.found, self.pinned
        )
    }
}

/// What a session's database is known by.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn of_database(session: &Session, address: &Address) -> Result<Pins, Error> {
    let mut pins = Pins::from([
        (Pin::Host, address.place()),
        (Pin::Database, address.database().to_owned()),
    ]);
    let doing = "asking for the cluster's system identifier";
    let sql = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()";
    match ask(session, Step::new(sql), doing).await {
        Ok(rows) => pins.extend(rows.into_iter().flatten().next().map(|id| (Pin::System, id))),
        // A function that this provider does not let us call, or does not have.
        Err(error) if matches!(error.kind, ErrorKind::Denied | ErrorKind::Schema) => {}
        Err(error) => return Err(error),
    }
    Ok(pins)
}

/// The pin of a portal.
pub fn of_portal(id: i64) -> Pins {
    Pins::from([(Pin::Portal, id.to_string())])
}

/// Which pins are others than what was found; what is not pinned yet, or could not be found, is no mismatch.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn mismatches(session: &Session, found: &Pins) -> Result<Vec<Mismatch>, Error> {
    let pinned = read(session).await?;
    let differing = found.iter().filter_map(|(pin, found)| {
        let pinned = pinned.get(pin).filter(|pinned| *pinned != found)?;
        Some(Mismatch {
            pin: *pin,
            pinned: pinned.clone(),
            found: found.clone(),
        })
    });
    Ok(differing.collect())
}

/// Pins what is not pinned yet; answers what was. Only for who holds the lease.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn pin(session: &Session, found: &Pins) -> Result<Vec<Pin>, Error> {
    write(session, found, "NOTHING").await
}

/// Pins anew, whatever was pinned. With another portal, what is remembered of records and links in the old one is
/// forgotten. Answers what changed.
///
/// # Errors
/// [`ErrorKind::Busy`] while a daemon holds the lease, which would go on with what it knows; else [`Error`] as the
/// database has it.
pub async fn adopt(session: &mut Session, found: &Pins) -> Result<Vec<Mismatch>, Error> {
    let failed = |error| Error::from_client("pinning anew", error);
    session.batch_execute("BEGIN").await.map_err(failed)?;
    let adopted = adopt_within(session, found).await;
    let end = if adopted.is_ok() { "COMMIT" } else { "ROLLBACK" };
    session.batch_execute(end).await.map_err(failed)?;
    adopted
}

async fn adopt_within(session: &Session, found: &Pins) -> Result<Vec<Mismatch>, Error> {
    let lock = format!("SELECT pg_catalog.pg_try_advisory_xact_lock({LOCK_CLASS}, {LEASE_LOCK})::text");
    let free = ask(session, Step::new(lock), "looking for a running daemon").await?;
    if free.into_iter().flatten().next().as_deref() != Some("true") {
        let held = "a daemon holds the lease of this database";
        return Err(Error::new(ErrorKind::Busy, held));
    }
    let changed = mismatches(session, found).await?;
    write(session, found, "UPDATE SET value = excluded.value").await?;
    if changed.iter().any(|mismatch| mismatch.pin == Pin::Portal) {
        let doing = "forgetting the records and links of the portal before";
        let forgotten = session.batch_execute(FORGET).await;
        forgotten.map_err(|error| Error::from_client(doing, error))?;
    }
    Ok(changed)
}

async fn read(session: &Session) -> Result<Pins, Error> {
    let keys: Vec<String> = Pin::ALL
        .iter()
        .map(|pin| format!("{META}{}", pin.key()))
        .collect();
    let sql = "SELECT value FROM unnest($1::text[]) WITH ORDINALITY AS wanted (key, at) \
               LEFT JOIN hubsyncd.meta USING (key) ORDER BY at";
    let step = Step::new(sql).with(keys, Type::TEXT_ARRAY);
    let values = ask(session, step, "reading what this database is pinned to").await?;
    let pairs = Pin::ALL.into_iter().zip(values);
    Ok(pairs.filter_map(|(pin, value)| Some((pin, value?))).collect())
}

async fn write(session: &Session, pins: &Pins, on_conflict: &str) -> Result<Vec<Pin>, Error> {
    let keys: Vec<String> = pins.keys().map(|pin| format!("{META}{}", pin.key())).collect();
    let values: Vec<String> = pins.values().cloned().collect();
    let sql = format!(
        "INSERT INTO hubsyncd.meta (key, value) SELECT * FROM unnest($1::text[], $2::text[]) \
         ON CONFLICT (key) DO {on_conflict} RETURNING key"
    );
    let step = Step::new(sql)
        .with(keys, Type::TEXT_ARRAY)
        .with(values, Type::TEXT_ARRAY);
    let written = ask(session, step, "pinning portal and database").await?;
    let is_written = |pin: &Pin| {
        let key = format!("{META}{}", pin.key());
        written.iter().flatten().any(|name| *name == key)
    };
    Ok(pins.keys().copied().filter(is_written).collect())
}

/// The first column of every row.
async fn ask(session: &Session, step: Step<'_>, doing: &'static str) -> Result<Vec<Option<String>>, Error> {
    let answers = pipeline::send(session, &[step]).await;
    let answers = answers.map_err(|error| Error::from_client(doing, error))?;
    Ok(answers.iter().flatten().map(|row| row.get(0)).collect())
}
