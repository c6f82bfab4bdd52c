//! One record, whole story: row → payload → what HubSpot holds → last answer → what happens next.
//!
//! It shows values of the row and of HubSpot's record: that is what it is for. Nothing of it is logged.

use super::reading::{Held, Seen, properties};
use super::{Ends, Unanswered, unreadable};
use crate::config::{self, Config};
use crate::daemon::exit::{Exit, USAGE};
use crate::hubspot::{Client, Lane};
use crate::mapping::Object;
use crate::postgres::ErrorKind;
use crate::postgres::failures::Failure;
use crate::postgres::story::{self, Holder, Story};
use crate::sync::change::{Key, ObjectIndex};
use crate::sync::linking::Target;
use crate::sync::outlook::{LinkOutlook, Outlook};
use crate::sync::prospect::{Place, Pusher, Situation};
use crate::sync::record::Record;
use crate::sync::report::{self, moment};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A holder that was heard of longer ago than this pushes no more.
const SILENT_MAX_SECONDS: i64 = 10;

/// One record's whole story.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The object's name.
    pub object: String,
    /// The row's key as Postgres prints it.
    pub key: String,
    /// The table.
    pub table: String,
    /// HubSpot's object type.
    pub object_type: String,
    /// `there`, `outside` (of `where` or the view), `gone`, or `unreadable` where Postgres fails to read it for a push.
    pub place: &'static str,
    /// The row, if there is one.
    pub row: Option<Row>,
    /// What a push would send, if anything.
    pub payload: Option<Payload>,
    /// What HubSpot holds; see `hubspot_silent` where it is `None`.
    pub hubspot: Option<HubSpotRecord>,
    /// Why HubSpot could not be asked.
    pub hubspot_silent: Option<String>,
    /// The properties of which HubSpot holds something else.
    pub differing: Vec<String>,
    /// The links.
    pub links: Vec<Link>,
    /// The last refusals: of the row, and of records that it was to lose.
    pub failures: Vec<report::Failure>,
    /// When the changes that wait were captured, and what they are.
    pub waiting: Vec<Change>,
    /// Why the object is paused.
    pub paused: Option<String>,
    /// What happens next.
    pub next: Vec<String>,
}

/// The row in Postgres.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its HubSpot id.
    pub hubspot_id: Option<String>,
    /// The id that HubSpot gave it and that it does not hold yet.
    pub awaiting_hubspot_id: Option<String>,
    /// When what HubSpot holds was read.
    pub synced_at: Option<String>,
    /// The mapped columns.
    pub columns: BTreeMap<String, Option<String>>,
}

/// What a push would send.
#[derive(Debug, Clone, Serialize)]
pub struct Payload {
    /// `create`, `adopt`, `update`, `merged`, `leave`, `wait`, `refuse`, or `unknown` while HubSpot is silent.
    pub does: &'static str,
    /// The record it is sent to.
    pub to: Option<String>,
    /// The natural key.
    pub match_value: Option<String>,
    /// The properties.
    pub properties: BTreeMap<String, String>,
}

/// What HubSpot holds.
#[derive(Debug, Clone, Serialize)]
pub struct HubSpotRecord {
    /// Its id.
    pub id: String,
    /// The mapped properties.
    pub properties: BTreeMap<String, Option<String>>,
}

/// One link.
#[derive(Debug, Clone, Serialize)]
pub struct Link {
    /// Its name.
    pub link: String,
    /// Where the row leads, if that is known.
    pub target: Option<String>,
    /// Whether the row names a target that has no HubSpot id yet.
    pub waits: bool,
    /// The records that HubSpot links it with; `None` while HubSpot is silent or has no record.
    pub held: Option<Vec<String>>,
    /// What we remember having linked: record → state.
    pub remembered: BTreeMap<String, String>,
    /// What a push would link it with.
    pub make: Option<String>,
    /// Which links a push would remove.
    pub remove: Vec<String>,
}

/// A change that waits.
#[derive(Debug, Clone, Serialize)]
pub struct Change {
    /// `I` inserted, `N` updated without HubSpot id, `U` updated, `D` deleted, `A` to be archived.
    pub op: String,
    /// When it was captured.
    pub captured_at: String,
}

/// Tells the story of the row of `object` with this key; HubSpot is asked by `client`, or by one made for it.
///
/// # Errors
/// Code 64 for an object that is not mapped, and for what cannot be a key; else what keeps the database from being
/// asked. HubSpot's silence is a part of the story.
pub async fn explain(
    config: Config,
    client: Option<Arc<Client>>,
    object: &str,
    key: &str,
) -> Result<Explanation, Exit> {
    let Some(at) = config.mapping.position(object) else {
        let names = || config.mapping.objects.iter().map(|object| object.name.as_str());
        let hint = match config::closest(object, names()) {
            Some(other) => format!("did you mean `{other}`?"),
            None => format!("mapped are {}", names().collect::<Vec<&str>>().join(", ")),
        };
        return Err(Exit::new(USAGE, format!("no object of the mapping is called {object}")).hint(hint));
    };
    let mut ends = Ends::open(config, Lane::Change, client).await?;
    let silent = ends.ask_portal().await.err().map(|exit| exit.error.to_string());
    let Some(key) = ends.objects[at].reader.canonical(key) else {
        let kind = ends.shapes.iter().find(|shape| shape.object == at);
        let kind = kind.map_or("text", |shape| shape.key.type_name.as_str());
        let words = format!("\"{key}\" cannot be a key of {object}");
        let hint = format!(
            "column `{}` of {} is {kind}",
            ends.object(at).key,
            ends.object(at).table
        );
        return Err(Exit::new(USAGE, words).hint(hint));
    };
    let story = story::read(&ends.session, &ends.config.mapping, at, &ends.shapes, &key).await;
    let story = story.map_err(|error| Exit::from(Unanswered::Database(error)))?;
    ends.tell(at, &key, story, silent).await
}

/// What of the story HubSpot tells.
#[derive(Default)]
struct Told {
    silent: Option<String>,
    seen: Option<Seen>,
    links: Vec<(LinkOutlook, Option<Held>)>,
}

impl Ends {
    async fn tell(
        &self,
        at: ObjectIndex,
        key: &Key,
        story: Story,
        silent: Option<String>,
    ) -> Result<Explanation, Exit> {
        let full = story
            .waiting
            .iter()
            .any(|change| matches!(change.op.as_str(), "I" | "N"));
        let reader = &self.objects[at].reader;
        let read = reader
            .read(&self.session, std::slice::from_ref(key), &[full])
            .await;
        let (read, failed) = match read {
            Ok(read) => (
                read.records
                    .into_iter()
                    .next()
                    .map(|record| (record, read.read_at)),
                None,
            ),
            Err(error) if error.kind == ErrorKind::Rows => (None, Some(unreadable(&error).message)),
            Err(error) => return Err(Unanswered::Database(error).into()),
        };
        let mut told = Told {
            silent,
            ..Told::default()
        };
        if told.silent.is_none() {
            let asked = match &read {
                Some((record, read_at)) => self.ask_of(at, record, *read_at).await,
                None => self.ask_of_gone(at, &story).await,
            };
            match asked {
                Ok(asked) => told = asked,
                Err(Unanswered::Database(error)) => return Err(Unanswered::Database(error).into()),
                Err(unanswered) => told.silent = Some(Exit::from(unanswered).error.to_string()),
            }
        }
        let record = read.map(|(record, _)| record);
        let explanation = self.explanation(at, key, &story, record.as_ref(), told);
        Ok(match failed {
            None => explanation,
            Some(why) => Explanation {
                place: "unreadable",
                next: vec![
                    format!("no push can send it: {why}"),
                    "each change of it and each sweep tries again".to_owned(),
                ],
                ..explanation
            },
        })
    }

    async fn ask_of(&self, at: ObjectIndex, record: &Record, now: i64) -> Result<Told, Unanswered> {
        let mut seen = self.seen(at, std::slice::from_ref(record), now).await?;
        let seen = seen.pop();
        let id = seen
            .as_ref()
            .and_then(|seen| seen.outlook.id())
            .map(str::to_owned);
        let mut links = Vec::new();
        for link in 0..self.object(at).links.len() {
            let held = match &id {
                Some(id) => {
                    let mut held: HashMap<String, Held> =
                        self.associations(at, link, std::slice::from_ref(id)).await?;
                    Some(held.remove(id).unwrap_or_default())
                }
                None => None,
            };
            links.push((self.link(at, link, record, held.as_ref()), held));
        }
        Ok(Told {
            silent: None,
            seen,
            links,
        })
    }

    /// Of a row that no push reads, the record it has or had.
    async fn ask_of_gone(&self, at: ObjectIndex, story: &Story) -> Result<Told, Unanswered> {
        let Some(id) = left_behind(story) else {
            return Ok(Told::default());
        };
        let names = self
            .object(at)
            .properties
            .iter()
            .map(|property| property.name.as_str());
        let names: Vec<&str> = names.collect();
        let turn = self.turn().await?;
        let held = self
            .client
            .get(turn, &self.object(at).object_type, &id, &names)
            .await?;
        let seen = Seen {
            outlook: Outlook::Leave,
            held,
        };
        Ok(Told {
            seen: Some(seen),
            ..Told::default()
        })
    }

    fn explanation(
        &self,
        at: ObjectIndex,
        key: &Key,
        story: &Story,
        record: Option<&Record>,
        told: Told,
    ) -> Explanation {
        let object = self.object(at);
        let place = match (record, &story.stored) {
            (Some(_), _) => Place::There,
            (None, Some(_)) => Place::Outside,
            (None, None) => Place::Gone,
        };
        let outlook = told
            .seen
            .as_ref()
            .filter(|_| record.is_some())
            .map(|seen| &seen.outlook);
        let row_failure = story.failures.iter().find(|failure| failure.archive.is_empty());
        let left = left_behind(story);
        let situation = Situation {
            object,
            key,
            place,
            pusher: pusher(story.holder.as_ref()),
            waiting: story.waiting.iter().map(|change| change.op.as_str()).collect(),
            paused: story.paused.as_deref(),
            refused: row_failure.map(|failure| u64::from(failure.attempts.unsigned_abs())),
            due_at: record.and_then(|record| record.intent.as_ref()?.due_at),
            outlook,
            links: told
                .links
                .iter()
                .enumerate()
                .map(|(link, (outlook, _))| (self.link_name(at, link), outlook))
                .collect(),
            left_behind: left.as_deref(),
            archived_at: story.archived.as_ref().map(|(_, at)| *at),
        };
        let next = situation.next();
        let differing = match outlook {
            Some(Outlook::Update { differing, .. }) => differing.clone(),
            _ => Vec::new(),
        };
        Explanation {
            object: object.name.clone(),
            key: key.to_string(),
            table: object.table.to_string(),
            object_type: object.object_type.clone(),
            place: match place {
                Place::There => "there",
                Place::Outside => "outside",
                Place::Gone => "gone",
            },
            row: story.stored.as_ref().map(|stored| Row {
                hubspot_id: stored.hubspot_id.clone(),
                awaiting_hubspot_id: record.and_then(|record| record.intent_id.clone()),
                synced_at: stored.synced_at.clone(),
                columns: stored.columns.clone(),
            }),
            payload: record.map(|record| payload(record, outlook)),
            hubspot: told
                .seen
                .as_ref()
                .and_then(|seen| seen.held.as_ref())
                .map(|held| HubSpotRecord {
                    id: held.id.clone(),
                    properties: held.properties.clone(),
                }),
            hubspot_silent: told.silent.clone(),
            differing,
            links: record
                .map(|record| links(object, record, &told))
                .unwrap_or_default(),
            failures: story.failures.iter().map(shown).collect(),
            waiting: story
                .waiting
                .iter()
                .map(|change| Change {
                    op: change.op.clone(),
                    captured_at: moment(change.captured_at),
                })
                .collect(),
            paused: story.paused.clone(),
            next,
        }
    }

    fn link_name(&self, at: ObjectIndex, link: usize) -> &str {
        &self.objects[at].links[link].name
    }
}

/// The record that a row which no push reads has or had, as far as anything remembers it.
fn left_behind(story: &Story) -> Option<String> {
    let stored = story.stored.iter().filter_map(|stored| stored.hubspot_id.clone());
    let stored = stored.filter(|id| !id.trim().is_empty());
    let waiting = story
        .waiting
        .iter()
        .rev()
        .filter_map(|change| change.hubspot_id.clone());
    let refused = story.failures.iter().filter_map(|failure| {
        let archive = Some(failure.archive.clone()).filter(|id| !id.is_empty());
        archive.or_else(|| failure.hubspot_id.clone())
    });
    let archived = story.archived.iter().map(|(id, _)| id.clone());
    stored.chain(waiting).chain(refused).chain(archived).next()
}

fn pusher(holder: Option<&Holder>) -> Pusher {
    match holder {
        None => Pusher::Absent("none has run yet".to_owned()),
        Some(Holder {
            name, stopped: true, ..
        }) => Pusher::Absent(format!("{name} was the last, and stopped")),
        Some(Holder {
            name, silent_seconds, ..
        }) if *silent_seconds > SILENT_MAX_SECONDS => Pusher::Absent(format!(
            "{name} was the last, and was heard of {silent_seconds} s ago"
        )),
        Some(_) => Pusher::Present,
    }
}

fn payload(record: &Record, outlook: Option<&Outlook>) -> Payload {
    let does = match outlook {
        None => "unknown",
        Some(Outlook::Create) => "create",
        Some(Outlook::Adopt { .. }) => "adopt",
        Some(Outlook::Update { .. }) => "update",
        Some(Outlook::Keep { .. }) => "keep",
        Some(Outlook::Merged { .. }) => "merged",
        Some(Outlook::Leave) => "leave",
        Some(Outlook::Wait(_)) => "wait",
        Some(Outlook::Refuse(_)) => "refuse",
    };
    let update_only = matches!(
        outlook,
        Some(Outlook::Adopt {
            update_only: true,
            ..
        })
    );
    let sent = if update_only {
        &record.update_properties
    } else {
        &record.properties
    };
    Payload {
        does,
        to: outlook
            .and_then(Outlook::id)
            .or(record.known_id())
            .map(str::to_owned),
        match_value: record.match_value.clone(),
        properties: properties(sent),
    }
}

fn links(object: &Object, record: &Record, told: &Told) -> Vec<Link> {
    let of = |(at, link): (usize, &crate::mapping::Link)| {
        let (outlook, held) = told.links.get(at).cloned().unwrap_or_default();
        let remembered = record.linked.get(at).map(Vec::as_slice).unwrap_or_default();
        let remembered = remembered
            .iter()
            .map(|row| (row.to.clone(), row.state.as_str().to_owned()));
        let target = record.targets.get(at);
        Link {
            link: link.name(),
            target: target.and_then(Target::id).map(str::to_owned),
            waits: target == Some(&Target::Unknown),
            held: held.map(|held| held.into_keys().collect()),
            remembered: remembered.collect(),
            make: outlook.make,
            remove: outlook.remove,
        }
    };
    object.links.iter().enumerate().map(of).collect()
}

fn shown(failure: &Failure) -> report::Failure {
    let archive = Some(failure.archive.clone()).filter(|id| !id.is_empty());
    report::Failure {
        object: failure.object.clone(),
        key: Some(failure.key.clone()),
        hubspot_id: archive.or_else(|| failure.hubspot_id.clone()),
        category: failure.category.clone(),
        message: failure.message.clone(),
        correlation_id: failure.correlation_id.clone(),
        attempts: u64::from(failure.attempts.unsigned_abs()),
        first_failed_at: failure.first_failed_at,
        last_failed_at: failure.last_failed_at,
    }
}
