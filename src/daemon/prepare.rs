//! Preparing: what must be known of both ends before anything is pushed.
//!
//! The database's side is compared with the mapping first: a table or column that is missing, or triggers that
//! are not those of the mapping, end a daemon that has never pushed. Then HubSpot is asked for what only it knows: its
//! property types, which natural keys are unique, the types of labelled associations, the portal's time zone. HubSpot
//! may be away for as long as it likes; it is asked again.

use super::board::{Board, Condition};
use super::desk::Desk;
use super::door::store::{Database, Store, Table};
use super::door::{Door, LinkKind, Object, Pausing};
use super::exit::{CONFIGURATION, Exit, NOT_PERMITTED};
use super::lease::Hold;
use crate::config::Config;
use crate::hubspot::{AssociationType, Client, Failed, Lane, Policy, PropertyInfo};
use crate::mapping::{Link, Mapping, Object as Declared, OnDelete};
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
use crate::retry::Schedule;
use crate::sync::backlog::Backlog;
use crate::sync::change::ObjectIndex;
use crate::sync::doubt::Doubts;
use crate::sync::plan::Rules;
use crate::sync::report::chain;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::warn;

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

/// What HubSpot says of the mapping.
pub(super) struct Portal {
    id: i64,
    properties: Vec<Vec<PropertyInfo>>,
    labels: HashMap<(ObjectIndex, usize), AssociationType>,
}

impl Portal {
    /// HubSpot's property types of an object, by name.
    pub(super) fn types(&self, at: ObjectIndex) -> BTreeMap<String, String> {
        let properties = self.properties[at].iter();
        properties
            .map(|property| (property.name.clone(), property.kind.clone()))
            .collect()
    }

    /// An object's rules; `unique` says whether Postgres keeps its natural key unique.
    pub(super) fn rules(&self, object: &Declared, at: ObjectIndex, unique: bool) -> Rules {
        let in_hubspot = natural_key(object, &self.properties[at]);
        Rules::new(object, unique).in_hubspot(
            in_hubspot.is_some_and(|property| property.has_unique_value),
            in_hubspot.is_some_and(|property| property.kind == "number"),
        )
    }

    /// How an object's links are made.
    pub(super) fn link_kinds(&self, mapping: &Mapping, at: ObjectIndex) -> Vec<LinkKind> {
        let links = mapping.objects[at].links.iter().enumerate();
        let kind = |(position, link): (usize, &Link)| LinkKind {
            name: link.name(),
            to_type: target(mapping, link).object_type.clone(),
            label: self.labels.get(&(at, position)).cloned(),
        };
        links.map(kind).collect()
    }
}

/// Asks HubSpot until it answers. An answer that lacks what the mapping needs is believed when it is given twice: a
/// portal rarely changes, an answer is easily cut short, and who ends for want of a property is not started again.
async fn portal(client: &Client, mapping: &Mapping, board: &Board) -> Result<Portal, Exit> {
    let mut pauses = Schedule::new(Duration::from_millis(200), Duration::from_secs(30));
    let mut doubted = false;
    loop {
        match ask(client, mapping).await {
            Ok(portal) if !doubted && lacks(&portal, mapping) => {
                doubted = true;
                warn!(
                    "HubSpot names fewer properties than the mapping; it is asked again before that is believed"
                );
                tokio::time::sleep(pauses.next()).await;
            }
            Ok(portal) => {
                board.set_condition(Condition::Breaker, None);
                board.set_condition(Condition::Hubspot, None);
                return portal;
            }
            Err(failed) => {
                let pause = pauses.next();
                let words = chain(&failed);
                warn!(
                    "HubSpot cannot be asked about the mapping's properties, nothing is pushed until it answers; \
                       the changes wait in the database: {words}"
                );
                let spent = failed.policy == Some(Policy::Daily);
                let halted = client.pace().halted().map(|halt| halt.reason);
                let away = !spent && halted.is_none();
                board.set_condition(Condition::Breaker, halted);
                board.set_condition(Condition::Quota, spent.then(|| words.clone()));
                board.set_condition(Condition::Hubspot, away.then_some(words));
                tokio::time::sleep(pause).await;
                client.pace().resume();
            }
        }
    }
}

/// Whether an answer lacks something that the mapping needs.
fn lacks(answer: &Result<Portal, Exit>, mapping: &Mapping) -> bool {
    let Ok(portal) = answer else { return true };
    mapping
        .objects
        .iter()
        .zip(&portal.properties)
        .any(|(object, known)| {
            let is_known = |name: &str| known.iter().any(|property| property.name == name);
            object.properties.iter().any(|property| !is_known(&property.name))
        })
}

/// Asks HubSpot once what must be known of it for a mapping.
pub(super) async fn ask(client: &Client, mapping: &Mapping) -> Result<Result<Portal, Exit>, Failed> {
    let pace = client.pace();
    let account = client.account(pace.slot(Lane::Change).await).await?;
    pace.set_day(account.time_zone.as_deref(), account.utc_offset_seconds);
    let mut portal = Portal {
        id: account.portal_id,
        properties: Vec::new(),
        labels: HashMap::new(),
    };
    let mut problems = Vec::new();
    for (at, object) in mapping.objects.iter().enumerate() {
        let properties = client
            .properties(pace.slot(Lane::Change).await, &object.object_type)
            .await?;
        problems.extend(no_natural_key(object, &properties));
        for (position, link) in object.links.iter().enumerate() {
            let Some(label) = &link.label else { continue };
            let to = target(mapping, link);
            let slot = pace.slot(Lane::Change).await;
            let types = client.labels(slot, &object.object_type, &to.object_type).await?;
            match types.into_iter().find(|kind| kind.label.as_ref() == Some(label)) {
                Some(kind) => drop(portal.labels.insert((at, position), kind)),
                None => problems.push(format!(
                    "object {}: HubSpot has no association labelled \"{label}\" from {} to {}",
                    object.name, object.object_type, to.object_type
                )),
            }
        }
        portal.properties.push(properties);
    }
    if problems.is_empty() {
        return Ok(Ok(portal));
    }
    let exit = Exit::new(CONFIGURATION, problems.join("\n"));
    Ok(Err(exit.hint(
        "correct the mapping, or make the property or label in HubSpot",
    )))
}

/// The property that is the natural key of an object whose records are created here; `None` if HubSpot has none of
/// that name. A contact's e-mail is unique whatever its flag says.
fn natural_key<'p>(object: &Declared, properties: &'p [PropertyInfo]) -> Option<&'p PropertyInfo> {
    let match_on = object.match_on.as_deref()?;
    properties.iter().find(|property| property.name == match_on)
}

/// The problem of an object that creates records by a natural key that HubSpot does not have.
fn no_natural_key(object: &Declared, properties: &[PropertyInfo]) -> Option<String> {
    let match_on = object.match_on.as_deref().filter(|_| object.create)?;
    natural_key(object, properties).is_none().then(|| {
        format!(
            "object {}: HubSpot has no property {match_on} on {}, which is its natural key (match-on); without it a record \
             could not be found again",
            object.name, object.object_type
        )
    })
}

fn target<'a>(mapping: &'a Mapping, link: &Link) -> &'a Declared {
    let at = mapping
        .position(&link.to)
        .expect("the configuration refuses a link to an object that is not declared");
    &mapping.objects[at]
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
        }
    };
    let after = mapping
        .objects
        .iter()
        .map(|object| waits_for(mapping, object))
        .collect();
    let kept = (0..mapping.objects.len()).filter(|at| mapping.objects[*at].on_delete == OnDelete::Keep);
    let backlog = kept.fold(
        Backlog::new(after, HELD_MAX, parts.config.batch.max_delay),
        Backlog::keeping,
    );
    Door {
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
    }
}

/// The objects whose new records an object's batches wait for.
fn waits_for(mapping: &Mapping, object: &Declared) -> Vec<ObjectIndex> {
    let targets = object.links.iter().filter_map(|link| mapping.position(&link.to));
    targets
        .filter(|at| mapping.objects[*at].create && mapping.objects[*at].name != object.name)
        .collect()
}
