//! Learning: what only HubSpot knows of the mapping, asked before anything is pushed.
//!
//! Its property types, which natural keys are unique, the types of labelled associations, the portal and its time zone.
//! HubSpot may be away for as long as it likes; it is asked again. Where the token may not know of one object, that object
//! alone is closed ([`Learned::Closed`]): nothing of it is pushed, the others flow, and it is asked for again.

use super::board::{Board, Condition};
use super::door::LinkKind;
use super::exit::{CONFIGURATION, Exit};
use super::trouble::Trouble;
use crate::hubspot::{AssociationType, Client, Disposition, Failed, Lane, Policy, PropertyInfo};
use crate::mapping::{Link, Mapping, Object as Declared};
use crate::retry::Schedule;
use crate::sync::change::ObjectIndex;
use crate::sync::plan::Rules;
use crate::sync::report::chain;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tracing::{debug, info, warn};

/// What HubSpot says of the mapping.
pub(super) struct Portal {
    /// The portal's id.
    pub(super) id: i64,
    /// In the order of the mapping's objects.
    objects: Vec<Learned>,
}

/// What HubSpot says of one object of the mapping.
enum Learned {
    /// All that must be known of it.
    Known(Known),
    /// Nothing, because the token lacks a right; its words, and what to do.
    Closed(String),
}

/// What HubSpot knows of one object.
#[derive(Default)]
struct Known {
    properties: Vec<PropertyInfo>,
    /// By the link's position: the association type of its label.
    labels: HashMap<usize, AssociationType>,
    /// What the mapping needs and HubSpot does not have.
    problems: Vec<String>,
}

impl Portal {
    /// What is known of an object; of a closed one nothing is.
    fn known(&self, object: ObjectIndex) -> Option<&Known> {
        match &self.objects[object] {
            Learned::Known(known) => Some(known),
            Learned::Closed(_) => None,
        }
    }

    /// Why an object is closed, if it is.
    pub(super) fn closed(&self, object: ObjectIndex) -> Option<&str> {
        match &self.objects[object] {
            Learned::Known(_) => None,
            Learned::Closed(words) => Some(words),
        }
    }

    /// Why something of the mapping is not known, if so.
    pub(super) fn any_closed(&self) -> Option<&str> {
        (0..self.objects.len()).find_map(|at| self.closed(at))
    }

    /// HubSpot's property types of an object, by name.
    pub(super) fn types(&self, at: ObjectIndex) -> BTreeMap<String, String> {
        let properties = self.known(at).into_iter().flat_map(|known| &known.properties);
        properties
            .map(|property| (property.name.clone(), property.kind.clone()))
            .collect()
    }

    /// An object's rules; `unique` says whether Postgres keeps its natural key unique.
    pub(super) fn rules(&self, object: &Declared, at: ObjectIndex, unique: bool) -> Rules {
        let in_hubspot = self.known(at).and_then(|known| known.natural_key(object));
        Rules::new(object, unique).in_hubspot(
            in_hubspot.is_some_and(|property| property.has_unique_value),
            in_hubspot.is_some_and(|property| property.kind == "number"),
        )
    }

    /// How an object's links are made.
    pub(super) fn link_kinds(&self, mapping: &Mapping, at: ObjectIndex) -> Vec<LinkKind> {
        let links = mapping.objects[at].links.iter().enumerate();
        let label = |position| self.known(at)?.labels.get(&position).cloned();
        let kind = |(position, link): (usize, &Link)| LinkKind {
            name: link.name(),
            to_type: target(mapping, link).object_type.clone(),
            label: label(position),
        };
        links.map(kind).collect()
    }

    /// Whether HubSpot has fewer properties than the mapping.
    fn lacks(&self, mapping: &Mapping) -> bool {
        let mut objects = (0..mapping.objects.len()).filter_map(|at| Some((at, self.known(at)?)));
        objects.any(|(at, known)| {
            let mut properties = mapping.objects[at].properties.iter();
            properties.any(|property| known.property(&property.name).is_none())
        })
    }
}

impl Known {
    /// The property of this name.
    fn property(&self, name: &str) -> Option<&PropertyInfo> {
        self.properties.iter().find(|property| property.name == name)
    }

    /// The property that is the natural key of an object; `None` if HubSpot has none of that name. A contact's e-mail is
    /// unique whatever its flag says.
    fn natural_key(&self, object: &Declared) -> Option<&PropertyInfo> {
        self.property(object.match_on.as_deref()?)
    }

    /// The problem of an object that creates records by a natural key that HubSpot does not have.
    fn no_natural_key(&self, object: &Declared) -> Option<String> {
        let match_on = object.match_on.as_deref().filter(|_| object.create)?;
        self.natural_key(object).is_none().then(|| {
            format!(
                "object {}: HubSpot has no property {match_on} on {}, which is its natural key (match-on); without it a \
                 record could not be found again",
                object.name, object.object_type
            )
        })
    }
}

/// The object that a link leads to.
fn target<'a>(mapping: &'a Mapping, link: &Link) -> &'a Declared {
    let at = mapping
        .position(&link.to)
        .expect("the configuration refuses a link to an object that is not declared");
    &mapping.objects[at]
}

/// Asks HubSpot until it answers. An answer that lacks what the mapping needs is believed when it is given twice: a
/// portal rarely changes, an answer is easily cut short, and who ends for want of a property is not started again.
///
/// # Errors
/// Code 78 where HubSpot's side does not fit the mapping.
pub(super) async fn portal(client: &Client, mapping: &Mapping, board: &Board) -> Result<Portal, Exit> {
    let mut pauses = Schedule::new(Duration::from_millis(200), Duration::from_secs(30));
    let trouble = Trouble::new();
    let mut doubted = false;
    // What was asked before may have been cut short while a refused token kept all waiting.
    client.pace().resume();
    loop {
        match ask(client, mapping).await {
            Ok(asked) if !doubted && asked.as_ref().map_or(true, |portal| portal.lacks(mapping)) => {
                doubted = true;
                warn!(
                    "HubSpot names fewer properties than the mapping; it is asked again before that is believed"
                );
                tokio::time::sleep(pauses.next()).await;
            }
            Ok(portal) => {
                board.set_condition(Condition::Breaker, None);
                board.set_condition(Condition::Hubspot, None);
                if let Some(past) = trouble.succeeded() {
                    info!("HubSpot answers, {past}");
                }
                return portal;
            }
            Err(failed) => {
                let pause = pauses.next();
                let words = chain(&failed);
                let told = "HubSpot cannot be asked about the mapping's properties, nothing is pushed until it answers; the \
                            changes wait in the database";
                match trouble.failed() {
                    Some(still) => warn!("{still}{told}: {words}"),
                    None => debug!("{told}: {words}"),
                }
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

/// Asks HubSpot once what must be known of it for a mapping.
///
/// # Errors
/// [`Failed`] if it does not answer; inside, code 78 with everything that does not fit.
pub(super) async fn ask(client: &Client, mapping: &Mapping) -> Result<Result<Portal, Exit>, Failed> {
    let pace = client.pace();
    let account = client.account(pace.slot(Lane::Change).await).await?;
    pace.set_day(account.time_zone.as_deref(), account.utc_offset_seconds);
    let mut objects = Vec::new();
    let mut problems = Vec::new();
    for at in 0..mapping.objects.len() {
        let mut learned = ask_of(client, mapping, at).await?;
        if let Learned::Known(known) = &mut learned {
            problems.append(&mut known.problems);
        }
        objects.push(learned);
    }
    if problems.is_empty() {
        let id = account.portal_id;
        return Ok(Ok(Portal { id, objects }));
    }
    let exit = Exit::new(CONFIGURATION, problems.join("\n"));
    Ok(Err(exit.hint(
        "correct the mapping, or make the property or label in HubSpot",
    )))
}

/// Asks once for one object. Answers whether HubSpot now says all that must be known of it.
///
/// # Errors
/// Why not, in words.
pub(super) async fn is_open(client: &Client, mapping: &Mapping, object: ObjectIndex) -> Result<(), String> {
    match ask_of(client, mapping, object).await {
        Ok(Learned::Known(known)) if known.problems.is_empty() => Ok(()),
        Ok(Learned::Known(known)) => Err(known.problems.join("; ")),
        Ok(Learned::Closed(words)) => Err(words),
        Err(failed) => Err(chain(&failed)),
    }
}

async fn ask_of(client: &Client, mapping: &Mapping, at: ObjectIndex) -> Result<Learned, Failed> {
    match ask_all_of(client, mapping, at).await {
        Ok(known) => Ok(Learned::Known(known)),
        Err(failed) if failed.disposition == (Disposition::Halt { token: false }) => {
            Ok(Learned::Closed(format!("{}; {}", chain(&failed), failed.advice)))
        }
        Err(failed) => Err(failed),
    }
}

async fn ask_all_of(client: &Client, mapping: &Mapping, at: ObjectIndex) -> Result<Known, Failed> {
    let (object, pace) = (&mapping.objects[at], client.pace());
    let slot = pace.slot(Lane::Change).await;
    let mut known = Known {
        properties: client.properties(slot, &object.object_type).await?,
        ..Known::default()
    };
    known.problems.extend(known.no_natural_key(object));
    for (position, link) in object.links.iter().enumerate() {
        let Some(label) = &link.label else { continue };
        let to = target(mapping, link);
        let slot = pace.slot(Lane::Change).await;
        let types = client.labels(slot, &object.object_type, &to.object_type).await?;
        match types.into_iter().find(|kind| kind.label.as_ref() == Some(label)) {
            Some(kind) => drop(known.labels.insert(position, kind)),
            None => known.problems.push(format!(
                "object {}: HubSpot has no association labelled \"{label}\" from {} to {}",
                object.name, object.object_type, to.object_type
            )),
        }
    }
    Ok(known)
}
