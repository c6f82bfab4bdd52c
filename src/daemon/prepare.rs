//! Preparing: what must be known of both ends before anything is pushed.
//!
//! The database's side is compared with the mapping first: a table or column that is missing, or triggers that
//! are not those of the mapping, end a daemon that has never pushed. Then HubSpot is asked for what only it knows
//! (`learn`), and the door is built of both.

use super::board::Board;
use super::desk::Desk;
use super::door::store::{Database, Store, Table};
use super::door::{Door, Object, Pausing};
use super::exit::{CONFIGURATION, Exit, NOT_PERMITTED};
use super::learn::{Portal, portal};
use super::lease::Hold;
use super::trouble::Trouble;
use crate::config::Config;
use crate::hubspot::Client;
use crate::mapping::{Mapping, Object as Declared, OnDelete};
use crate::postgres::audit::AuditLog;
use crate::postgres::catalog::{self, Shape};
use crate::postgres::connect::Pool;
use crate::postgres::inspection::Inspection;
use crate::postgres::inventory;
use crate::postgres::orphans::Orphans;
use crate::postgres::receipt::Writer;
use crate::postgres::rows::Reader;
use crate::postgres::schema::{self, State};
use crate::postgres::{self, Session};
use crate::sync::backlog::Backlog;
use crate::sync::change::ObjectIndex;
use crate::sync::doubt::Doubts;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

/// The most changes of one object that memory holds.
const HELD_MAX: usize = 4_000;

/// Why preparing did not come to its end.
pub(super) enum Unprepared {
    /// The database is away; try again.
    Database(postgres::Error),
    /// Both ends do not fit the mapping.
    Exit(Exit),
}

impl From<postgres::Error> for Unprepared {
    fn from(error: postgres::Error) -> Unprepared {
        Unprepared::Database(error)
    }
}

/// Compares the database with the mapping.
///
/// # Errors
/// [`Unprepared::Exit`] with code 78 for a mapping that does not fit, or triggers that are missing or old; 77 for
/// rights that this role lacks, and for row level security that would hide rows from it without a word.
pub(super) async fn database(session: &Session, mapping: &Mapping) -> Result<Vec<Shape>, Unprepared> {
    let shapes = match catalog::inspect(session, mapping).await {
        Ok(shapes) => shapes,
        Err(Inspection::Database(error)) => return Err(error.into()),
        Err(problems @ Inspection::Problems(_)) => {
            let exit = Exit::new(CONFIGURATION, problems.to_string());
            return Err(Unprepared::Exit(exit.hint(
                "correct the mapping or the tables, and look at the daemon's rights",
            )));
        }
    };
    let hint = "run `hubsyncd setup` as a role that owns the tables, or `hubsyncd run --setup`";
    match schema::installed(session, mapping, &shapes).await? {
        State::Current => {
            let lacking = inventory::access(session, mapping).await?;
            if lacking.is_empty() {
                return Ok(shapes);
            }
            let lines: Vec<String> = lacking.iter().map(ToString::to_string).collect();
            Err(Unprepared::Exit(Exit::new(NOT_PERMITTED, lines.join("\n"))))
        }
        State::Missing => {
            let problem = "the schema hubsyncd is not installed in this database";
            Err(Unprepared::Exit(Exit::new(CONFIGURATION, problem).hint(hint)))
        }
        State::Outdated(parts) => {
            let problem = format!(
                "what is installed is older than the mapping: {}",
                parts.join(", ")
            );
            Err(Unprepared::Exit(Exit::new(CONFIGURATION, problem).hint(hint)))
        }
    }
}

/// What the door is built from.
pub struct Parts<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// HubSpot.
    pub client: &'a Arc<Client>,
    /// Where outcomes are counted.
    pub board: &'a Arc<Board>,
    /// This daemon's hold on the lease.
    pub lease: &'a Arc<Hold>,
}

/// Builds the door once both ends are known.
///
/// # Errors
/// Code 78 where HubSpot's side does not fit the mapping.
pub(super) async fn door(parts: &Parts<'_>, pool: &Arc<Pool>, shapes: &[Shape]) -> Result<Door, Exit> {
    let mapping = Arc::new(parts.config.mapping.clone());
    let portal = portal(parts.client, &mapping, parts.board).await?;
    let table = |at: ObjectIndex| {
        let types = portal.types(at);
        Table {
            reader: Reader::new(&mapping, at, shapes, &types),
            writer: Writer::new(&mapping, at, shapes),
            orphans: Orphans::new(&mapping, at, shapes),
        }
    };
    let tables = (0..mapping.objects.len()).map(table).collect();
    let store = Database::new(Arc::clone(&mapping), Arc::clone(pool), tables);
    Ok(around(parts, shapes, &mapping, &portal, Arc::new(store)))
}

/// Builds a door over another store; HubSpot is asked as always.
///
/// # Errors
/// Code 78 where HubSpot's side does not fit the mapping.
pub async fn door_over(parts: &Parts<'_>, shapes: &[Shape], store: Arc<dyn Store>) -> Result<Door, Exit> {
    let mapping = Arc::new(parts.config.mapping.clone());
    let portal = portal(parts.client, &mapping, parts.board).await?;
    Ok(around(parts, shapes, &mapping, &portal, store))
}

/// The door, with all that both ends said.
fn around(
    parts: &Parts<'_>,
    shapes: &[Shape],
    mapping: &Arc<Mapping>,
    portal: &Portal,
    store: Arc<dyn Store>,
) -> Door {
    let object = |at: ObjectIndex| {
        let declared = &mapping.objects[at];
        let unique = shapes
            .iter()
            .any(|shape| shape.object == at && shape.match_unique);
        Object {
            rules: portal.rules(declared, at, unique),
            links: portal.link_kinds(mapping, at),
            closed: portal.closed(at).map(str::to_owned),
        }
    };
    let after = mapping
        .objects
        .iter()
        .map(|object| waits_for(mapping, object))
        .collect();
    let alike = (0..mapping.objects.len())
        .map(|at| mapping.first_alike(at))
        .collect();
    let kept = (0..mapping.objects.len()).filter(|at| mapping.objects[*at].on_delete == OnDelete::Keep);
    let backlog = kept.fold(
        Backlog::new(after, HELD_MAX, parts.config.batch.max_delay).alike(alike),
        Backlog::keeping,
    );
    let closed = (0..mapping.objects.len()).filter(|at| portal.closed(*at).is_some());
    let backlog = closed.fold(backlog, Backlog::closing);
    let door = Door {
        portal: portal.id,
        objects: (0..mapping.objects.len()).map(object).collect(),
        audit: AuditLog::new(mapping, shapes),
        mapping: Arc::clone(mapping),
        store,
        client: Arc::clone(parts.client),
        pace: Arc::clone(parts.client.pace()),
        desk: Arc::new(Desk::new(backlog)),
        board: Arc::clone(parts.board),
        pausing: Pausing::new(mapping.objects.len()),
        lease: Arc::clone(parts.lease),
        caught_up: AtomicBool::new(false),
        failures_changed: AtomicBool::new(true),
        settle: parts.config.hubspot.settle,
        max_records: parts.config.batch.max_records,
        touch: parts.config.sweep.touch,
        max_bytes: parts.config.batch.max_bytes,
        shapes: shapes.to_vec(),
        doubts: Mutex::new(Doubts::new(parts.config.hubspot.settle)),
        troubles: mapping.objects.iter().map(|_| Trouble::new()).collect(),
    };
    door.pause_closed();
    door
}

/// The objects whose new records an object's batches wait for.
fn waits_for(mapping: &Mapping, object: &Declared) -> Vec<ObjectIndex> {
    let targets = object.links.iter().filter_map(|link| mapping.position(&link.to));
    targets
        .filter(|at| mapping.objects[*at].create && mapping.objects[*at].name != object.name)
        .collect()
}
