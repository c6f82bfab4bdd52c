//! HubSpot's side of a checkup: reads only.

use super::{Notes, Portal};
use crate::config::{self, Config};
use crate::hubspot::{Budget, Client, Disposition, Failed, Lane, Observer, PropertyInfo, Settings, Slot};
use crate::mapping::{Link, Mapping, Mirrored, Object, On, Property};
use crate::postgres::catalog::{Column, Shape};
use crate::postgres::convert;
use crate::sync::checkup::Finding;
use crate::sync::fitting::{self, Fit};
use crate::sync::report::chain;
use std::sync::Arc;
use std::time::Duration;

/// How long a request may wait for its turn. A portal whose limit is used up for longer cannot be looked at now.
const TURN_PATIENCE: Duration = Duration::from_secs(15);

/// Looks at HubSpot; `shapes` are the columns, if they are known.
pub(super) async fn look(
    notes: &mut Notes<'_>,
    config: &Config,
    mapping: Option<&Mapping>,
    shapes: Option<&[Shape]>,
) -> Option<Portal> {
    let client = match client(config, 1, Arc::new(|_| {})) {
        Ok(client) => client,
        Err(error) => {
            let hint = "look at [hubspot] and the token";
            notes.note(Finding::problem("hubspot.token", chain(&error), hint));
            return None;
        }
    };
    let mut asking = Asking { notes, client };
    let portal = asking.portal().await?;
    let Some(mapping) = mapping else {
        let why = "object types and properties are not looked at: the mapping has problems";
        asking.notes.note(Finding::skipped("hubspot.properties", why));
        return Some(portal);
    };
    let mirrored = config.mirror.as_ref().map_or(&[][..], |mirror| &mirror.objects);
    asking.scopes(mapping, mirrored).await;
    for (at, object) in mapping.objects.iter().enumerate() {
        let shape = shapes.and_then(|shapes| shapes.iter().find(|shape| shape.object == at));
        asking.object(object, shape).await;
        for link in &object.links {
            asking.link(mapping, object, link).await;
        }
    }
    Some(portal)
}

/// Who asks HubSpot under a configuration, beside the daemon.
pub(in crate::daemon) fn client(
    config: &Config,
    in_flight: usize,
    observer: Observer,
) -> Result<Client, crate::hubspot::Setup> {
    let client = Client::new(Settings {
        base_url: config.hubspot.base_url.clone(),
        api_version: config.hubspot.api_version.clone(),
        token: config.hubspot.token.clone(),
        timeout: config.hubspot.timeout,
        budget: Budget {
            requests: config.hubspot.requests,
            window: config.hubspot.window,
            in_flight: u32::try_from(in_flight).unwrap_or(u32::MAX),
        },
        observer,
    })?;
    Ok(client)
}

struct Asking<'a, 'n> {
    notes: &'a mut Notes<'n>,
    client: Client,
}

impl Asking<'_, '_> {
    /// Leave for one request, unless HubSpot gives none for long.
    async fn turn(&mut self, check: &'static str, about: &str) -> Option<Slot> {
        let slot = tokio::time::timeout(TURN_PATIENCE, self.client.pace().slot(Lane::Change)).await;
        if slot.is_err() {
            let why = "not looked at: HubSpot leaves no request for it at present";
            self.notes.note(Finding::skipped(check, why).about(about));
        }
        slot.ok()
    }

    async fn portal(&mut self) -> Option<Portal> {
        let slot = self.turn("hubspot.token", "").await?;
        match self.client.account(slot).await {
            Ok(account) => {
                let zone = account.time_zone.as_deref().unwrap_or("unknown");
                let message = format!(
                    "HubSpot takes the token; portal {}, time zone {zone}",
                    account.portal_id
                );
                self.notes.note(Finding::ok("hubspot.token", message));
                let ahead = self.client.pace().clock_ahead().as_micros();
                Some(Portal {
                    id: account.portal_id,
                    ahead: i64::try_from(ahead).unwrap_or(i64::MAX),
                })
            }
            Err(failed) => {
                let hint = match failed.status {
                    None => "HubSpot cannot be reached: look at network, DNS, proxy and base-url",
                    Some(_) => failed.advice,
                };
                self.notes
                    .note(Finding::problem("hubspot.token", chain(&failed), hint));
                let why = "object types and properties are not looked at: HubSpot does not answer";
                self.notes.note(Finding::skipped("hubspot.properties", why));
                None
            }
        }
    }

    /// Whether the token may read and write the mapped types, and read the mirrored ones.
    async fn scopes(&mut self, mapping: &Mapping, mirrored: &[Mirrored]) {
        let Some(slot) = self.turn("hubspot.scopes", "").await else {
            return;
        };
        let held = match self.client.scopes(slot).await {
            Ok(held) => held,
            Err(failed) => {
                let message = format!(
                    "HubSpot does not say which scopes the token has: {}",
                    chain(&failed)
                );
                let hint = "look at them in HubSpot: read and write of every mapped type";
                self.notes.note(Finding::warning("hubspot.scopes", message, hint));
                return;
            }
        };
        let of = |object: &Object| fitting::scopes(&object.object_type).into_iter().flatten();
        let mapped = mapping.objects.iter();
        let mapped = mapped.flat_map(|object| of(object).map(|scope| (object.name.clone(), scope)));
        let read = |kind: &Mirrored| fitting::scopes(kind.object_type()).map(|[read, _]| read);
        let mirrored = mirrored.iter();
        let mirrored = mirrored.filter_map(|kind| Some((format!("mirror of {}", kind.name()), read(kind)?)));
        let mut all = true;
        for (whose, scope) in mapped.chain(mirrored).filter(|(_, scope)| !held.contains(scope)) {
            all = false;
            let message = format!("the token lacks the scope {scope}");
            let hint = "give it to the private app or service key in HubSpot; the token stays the same";
            self.notes
                .note(Finding::problem("hubspot.scopes", message, hint).about(&whose));
        }
        if all {
            self.notes.note(Finding::ok(
                "hubspot.scopes",
                "the token may read and write the mapped types, and read the mirrored ones",
            ));
        }
    }

    /// Whether the object's type and properties are as the mapping wants them.
    async fn object(&mut self, object: &Object, shape: Option<&Shape>) {
        let Some(slot) = self.turn("hubspot.properties", &object.name).await else {
            return;
        };
        let known = match self.client.properties(slot, &object.object_type).await {
            Ok(known) => known,
            Err(failed) => return self.no_type(object, &failed),
        };
        let mut fine = 0;
        for property in &object.properties {
            let column = shape.and_then(|shape| shape.read_columns.get(&property.column));
            match of_property(object, property, column, &known) {
                Some(finding) => self
                    .notes
                    .note(finding.about(format!("{}.{}", object.name, property.name))),
                None => fine += 1,
            }
        }
        if fine == object.properties.len() {
            let message = format!(
                "{} has all {fine} mapped properties, writable and of fitting types",
                object.object_type
            );
            self.notes
                .note(Finding::ok("hubspot.properties", message).about(&object.name));
        }
        if let Some(finding) = natural_key(object, &known) {
            self.notes.note(finding.about(&object.name));
        }
    }

    fn no_type(&mut self, object: &Object, failed: &Failed) {
        let hint = match (failed.status, failed.disposition) {
            (Some(400 | 404), _) => {
                "correct `type`: HubSpot's object type id, e.g. 0-1 for contacts; a custom object's stands in its settings' URL"
            }
            (Some(403), _) => "give the private app or service key the scopes of this type",
            (
                _,
                Disposition::Halt { .. }
                | Disposition::Retry { .. }
                | Disposition::Split
                | Disposition::Reject,
            ) => failed.advice,
        };
        let message = format!(
            "the properties of {} cannot be read: {}",
            object.object_type,
            chain(failed)
        );
        self.notes
            .note(Finding::problem("hubspot.type", message, hint).about(&object.name));
    }

    /// Whether the link's type of association exists.
    async fn link(&mut self, mapping: &Mapping, object: &Object, link: &Link) {
        let Some(to) = mapping.position(&link.to).map(|at| &mapping.objects[at]) else {
            return;
        };
        let about = format!("{} → {}", object.name, link.name());
        let Some(slot) = self.turn("hubspot.links", &about).await else {
            return;
        };
        let (from, to) = (&object.object_type, &to.object_type);
        let finding = match (self.client.labels(slot, from, to).await, &link.label) {
            (Err(failed), _) => {
                let message = format!(
                    "the associations from {from} to {to} cannot be read: {}",
                    chain(&failed)
                );
                Finding::problem("hubspot.links", message, failed.advice)
            }
            (Ok(kinds), Some(label)) if kinds.iter().all(|kind| kind.label.as_ref() != Some(label)) => {
                let message = format!("HubSpot has no association labelled \"{label}\" from {from} to {to}");
                let hint = "make the label in HubSpot (Settings → Objects → Associations), or correct it in the mapping";
                Finding::problem("hubspot.links", message, hint)
            }
            (Ok(kinds), None) if kinds.iter().all(|kind| kind.label.is_some()) => {
                let message = format!("HubSpot associates no {from} with {to}");
                let hint = "let the two types be associated in HubSpot: Settings → Objects → Associations";
                Finding::problem("hubspot.links", message, hint)
            }
            (Ok(_), _) => Finding::ok("hubspot.links", format!("{from} can be associated with {to}")),
        };
        self.notes.note(finding.about(about));
    }
}

/// What is wrong with a mapped property; `None` if nothing is.
fn of_property(
    object: &Object,
    property: &Property,
    column: Option<&Column>,
    known: &[PropertyInfo],
) -> Option<Finding> {
    let Property { name, .. } = property;
    let of = &object.object_type;
    let Some(info) = known.iter().find(|info| info.name == *name) else {
        let names = known.iter().map(|info| info.name.as_str());
        let hint = match config::closest(name, names) {
            Some(other) => format!("did you mean `{other}`? Internal names count, not labels"),
            None => {
                "make it in HubSpot, or correct its name: internal names count, not labels (properties of sensitive data are \
                 not listed, and cannot be mapped)"
                    .to_owned()
            }
        };
        return Some(Finding::problem(
            "hubspot.properties",
            format!("{of} has no property `{name}`"),
            hint,
        ));
    };
    if info.read_only {
        let hint = "it is calculated, or HubSpot's own: take it out of the mapping, or map another one";
        let message = format!("`{name}` of {of} cannot be written");
        return Some(Finding::problem("hubspot.properties", message, hint));
    }
    let column = column?;
    let form = convert::form(property, column, Some(&info.kind));
    let message = format!(
        "`{name}` of {of} is {}, and column `{}` ({}) becomes {form}",
        info.kind, property.column, column.type_name
    );
    match fitting::fit(form, &info.kind) {
        Fit::Always => None,
        Fit::Sometimes => {
            let hint = "HubSpot refuses each record whose value is none; a column of the fitting type cannot hold one";
            Some(Finding::warning("hubspot.properties", message, hint))
        }
        Fit::Never => {
            let hint = "HubSpot would refuse every record: map another column, cast it in a view (`from`), or change `as`";
            Some(Finding::problem("hubspot.properties", message, hint))
        }
    }
}

/// What is to be said of the natural key.
fn natural_key(object: &Object, known: &[PropertyInfo]) -> Option<Finding> {
    let name = object.match_on.as_deref().filter(|_| object.create)?;
    let info = known.iter().find(|info| info.name == name)?;
    let of = &object.object_type;
    if object.matches_on_email() || info.has_unique_value {
        return Some(Finding::ok(
            "hubspot.key",
            format!("`{name}` of {of} is unique: creating twice makes one record"),
        ));
    }
    let creates = object.properties.iter().any(|property| property.on != On::Update);
    creates.then(|| {
        Finding::warning(
            "hubspot.key",
            format!("`{name}` of {of} is not unique in HubSpot: a create whose answer is lost waits minutes before it is repeated"),
            "make a property with unique values (it cannot be changed later), fill it, and name it in match-on",
        )
    })
}
