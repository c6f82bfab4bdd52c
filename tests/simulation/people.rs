//! What people do in HubSpot: they type values over, archive, merge and make records, and link and label them.

use super::capture::natural_key;
use super::ledger::{Ends, PLAIN, Tie};
use super::scene::{BOOKINGS, FRIEND, PROCTOR};
use super::script::Script;
use hubsyncd::sandbox::{Delivered, Record};
use serde_json::json;
use std::sync::atomic::Ordering;

const BOOKING: &str = "2-50158943";
const CONTACT: &str = "0-1";

impl Script {
    /// Somebody works in HubSpot.
    pub fn people(&mut self) {
        match self.dice.below(10) {
            _ if self.world.scene.crossed => self.work_on_links(),
            0..5 => self.work_on_records(),
            5 => self.make_one_beforehand(),
            _ if self.world.scene.wide => self.work_on_links(),
            _ => self.work_on_records(),
        }
    }

    fn ids(&self, object_type: &str) -> Vec<String> {
        let portal = self.world.portal.world();
        portal.records(object_type).map(Record::id).collect()
    }

    fn work_on_records(&mut self) {
        let (object, property) = *self
            .dice
            .pick(&[(CONTACT, "sj_credits"), (BOOKING, "is_active")])
            .expect("there are two");
        let ids = self.ids(object);
        let Some(id) = self.dice.pick(&ids).cloned() else {
            return;
        };
        let other = self.dice.pick(&ids).cloned().filter(|other| *other != id);
        let other = other.filter(|_| self.world.scene.merges);
        self.world.tick();
        let mut portal = self.world.portal.world();
        let often = if self.world.scene.recreate { 4 } else { 1 };
        let what = match (self.dice.below(10), other) {
            (chance, _) if chance < often => {
                portal.archive(object, &id);
                self.world.model().ledger.thrown_away.insert(id.clone());
                "archives"
            }
            (1..6, Some(other)) if self.dice.permille(400) => {
                let survivor = portal.merge(object, &id, &other);
                let ledger = &mut self.world.model().ledger;
                ledger.merged.extend(survivor);
                ledger.merged_away.extend([id.clone(), other]);
                "merges"
            }
            _ => {
                portal.set(object, &id, property, "77");
                "types over"
            }
        };
        drop(portal);
        self.world.trace(format_args!("somebody {what} {object} {id}"));
    }

    /// Somebody makes the record of a row that has none yet.
    fn make_one_beforehand(&mut self) {
        let objects = self.world.model().tables.len();
        let object = usize::try_from(self.dice.below(objects as u64)).unwrap_or(0);
        let found = {
            let model = self.world.model();
            let declared = &model.mapping.objects[object];
            let mut rows = model.tables[object].values();
            let row = rows.find(|row| row.hubspot_id.is_none() && declared.create);
            let value = row.and_then(|row| natural_key(declared, row));
            value
                .zip(declared.match_on.clone())
                .map(|(value, property)| (declared.object_type.clone(), property, value))
        };
        let Some((object_type, property, value)) = found else {
            return;
        };
        let known = self
            .world
            .portal
            .world()
            .find(&object_type, &property, &value)
            .is_some();
        if !known {
            self.make_record(&object_type, &property, &value);
        }
    }

    /// Somebody links a booking and a contact, labels that link, or takes it away.
    fn work_on_links(&mut self) {
        let (bookings, contacts) = (self.ids(BOOKING), self.ids(CONTACT));
        let (Some(from), Some(mut to)) = (
            self.dice.pick(&bookings).cloned(),
            self.dice.pick(&contacts).cloned(),
        ) else {
            return;
        };
        let held = self.world.portal.world().associations(BOOKING, &from, CONTACT);
        // Those that are there already are the interesting ones.
        if let Some(link) = self.dice.pick(&held).filter(|_| self.dice.permille(500)) {
            to.clone_from(&link.to);
        }
        let ends: Ends = (
            (BOOKING.to_owned(), from.clone()),
            (CONTACT.to_owned(), to.clone()),
        );
        let label = match self.dice.below(10) {
            0..4 => PLAIN,
            _ if self.world.scene.crossed && self.dice.permille(500) => PLAIN,
            4..7 => FRIEND,
            7..8 => PROCTOR,
            _ => return self.part(&ends),
        };
        let here = held.iter().find(|link| link.to == to);
        let labels: Vec<String> = here.map(|link| link.labels.clone()).unwrap_or_default();
        if (label == PLAIN && here.is_some()) || labels.iter().any(|held| held == label) {
            return;
        }
        self.world.tick();
        if label == PLAIN {
            let mut portal = self.world.portal.world();
            portal.associate((BOOKING, &from), (CONTACT, &to));
        } else if !self.label(&from, &to, label, labels) {
            return;
        }
        self.remember(ends, label, here.is_none());
    }

    /// Takes all of a link away.
    fn part(&mut self, ends: &Ends) {
        let ((_, from), (_, to)) = ends;
        let path = format!("/crm/objects/2026-09/{BOOKING}/{from}/associations/{CONTACT}/{to}");
        if self.tell("DELETE", &path, "") {
            self.world.model().ledger.ties.remove(ends);
            self.world.trace(format_args!("somebody parts {from} and {to}"));
        }
    }

    /// Gives a pair a label besides those that it has.
    fn label(&mut self, from: &str, to: &str, label: &str, mut labels: Vec<String>) -> bool {
        labels.push(label.to_owned());
        let ids = labels.iter().filter_map(|label| self.world.labels.get(label));
        let types: Vec<serde_json::Value> = ids
            .map(|id| json!({"associationCategory": "USER_DEFINED", "associationTypeId": id}))
            .collect();
        let pair = json!({"from": {"id": from}, "to": {"id": to}, "types": types});
        let path = format!("/crm/associations/2026-09/{BOOKING}/{CONTACT}/batch/create");
        self.tell("POST", &path, &json!({ "inputs": [pair] }).to_string())
    }

    /// Asks the portal as a person's browser would; false if the day has nothing left.
    fn tell(&self, method: &str, path: &str, body: &str) -> bool {
        let mut headers = axum::http::HeaderMap::new();
        let token = format!("Bearer {}", hubsyncd::sandbox::Settings::default().token);
        headers.insert("authorization", token.parse().expect("it is a header"));
        let portal = &self.world.portal;
        let answer = portal.ask(method, path, headers, body.to_owned().into());
        let Ok(Delivered::Whole(answer)) = answer else {
            panic!("{method} {path} is not answered");
        };
        let of_a_day = answer.status().as_u16() == 429;
        assert!(
            answer.status().is_success() || of_a_day,
            "{method} {path}: {} {}",
            answer.status(),
            answer.body()
        );
        !of_a_day
    }

    /// Notes what a person has made of a pair, and whether nobody else can take that away.
    fn remember(&mut self, ends: Ends, label: &str, is_new: bool) {
        let ((_, from), (_, to)) = &ends;
        let quiet = self.world.under_way.load(Ordering::Relaxed) == 0
            && self.world.sweeps_done.load(Ordering::Relaxed)
                >= self.world.sweeps_wanted.load(Ordering::Relaxed);
        let mut model = self.world.model();
        let rows = &model.tables[BOOKINGS];
        let row = rows.iter().find(|(_, row)| row.hubspot_id.as_ref() == Some(from));
        let safe = row.is_some_and(|(key, _)| {
            let idle = quiet
                && model.locks.is_empty()
                && !model.changes.values().any(|change| change.object == BOOKINGS)
                && !model.intents.contains_key(&(BOOKINGS, key.clone()));
            let led = |link: usize| model.ledger.ever_led(BOOKINGS, key, link, to);
            match label {
                PLAIN => !led(0) && !led(2),
                FRIEND => !(led(0) || led(2)) || idle,
                _ => !led(2) && (!led(0) || idle),
            }
        });
        self.world.trace(format_args!(
            "somebody links {from} and {to} ({label}), safe: {safe}"
        ));
        let mut made = vec![label];
        if is_new {
            // A label makes the association too.
            made.push(PLAIN);
        }
        let tie: &mut Tie = model.ledger.ties.entry(ends).or_default();
        for label in made {
            tie.made.insert(label.to_owned());
            if safe {
                tie.kept.insert(label.to_owned());
            }
        }
    }
}
