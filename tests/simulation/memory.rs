//! What the tables of ours remember of creates and links that are under way, as `src/postgres/intent.rs` and
//! `src/postgres/links.rs` write and read it.

use super::capture::{natural_key, normal};
use super::model::Model;
use hubsyncd::mapping::Link;
use hubsyncd::postgres::intent::Noted;
use hubsyncd::postgres::orphans::Buried;
use hubsyncd::sync::change::{Key, ObjectIndex, Op};
use hubsyncd::sync::doubt::Due;
use hubsyncd::sync::linking::{Beside, NOW, Note, Pair};
use hubsyncd::sync::record::Intent;
use std::collections::BTreeSet;
use std::collections::btree_map::Entry;

/// The key of a row of `hubsyncd.link`: object, row, link's name, target's id.
type Place = (ObjectIndex, Key, String, String);

/// A row of `hubsyncd.intent`.
#[derive(Debug, Clone, Default)]
pub struct Intended {
    /// The id that HubSpot gave and the row does not hold yet.
    pub hubspot_id: Option<String>,
    /// When the create was noted first.
    pub first_at: i64,
    /// All else.
    pub intent: Intent,
}

impl Model {
    /// Notes what is about to be sent.
    pub fn intend(&mut self, object: ObjectIndex, notes: &[Noted], now: i64) {
        for note in notes {
            let place = (object, Key::clone(&note.key));
            let intended = self.intents.entry(place).or_default();
            let intent = &mut intended.intent;
            if intent.match_value.is_none() || intent.match_value != note.match_value {
                intended.first_at = now;
            }
            intent.match_value.clone_from(&note.match_value);
            intent.trace = Some(note.trace.clone());
            intent.update_only = note.match_value.is_none();
            intent.noted_at = now;
        }
    }

    /// Takes back what will not be done.
    pub fn withdraw(&mut self, object: ObjectIndex, notes: &[Noted]) {
        for note in notes {
            if let Some(intended) = self.intents.get_mut(&(object, Key::clone(&note.key)))
                && intended.intent.trace.as_ref() == Some(&note.trace)
            {
                intended.intent.match_value = None;
                intended.intent.trace = None;
            }
        }
    }

    /// Keeps an id that HubSpot gave.
    pub fn keep_id(&mut self, object: ObjectIndex, key: &Key, id: &str, now: i64) {
        let intended = self.intents.entry((object, Key::clone(key))).or_default();
        intended.hubspot_id = Some(id.to_owned());
        intended.intent.noted_at = now;
    }

    /// Notes that a row is due to be pushed once more.
    pub fn owe(&mut self, object: ObjectIndex, key: &Key, due: Due, now: i64) {
        let place = (object, Key::clone(key));
        let intent = &mut self.intents.entry(place).or_insert_with(|| Intended {
            hubspot_id: None,
            first_at: 0,
            intent: Intent {
                noted_at: now,
                ..Intent::default()
            },
        });
        let intent = &mut intent.intent;
        let within = i64::try_from(due.within.as_micros()).expect("nothing is due in so many years");
        intent.due_at = Some(now + within);
        intent.due_full = due.full;
        intent.named = false;
        intent.update_only |= due.update_only;
    }

    /// Creates whose outcome is not known, of those of these rows that are gone.
    pub fn buried(&self, object: ObjectIndex, keys: &[Key]) -> Vec<Buried> {
        let gone = keys.iter().filter(|key| !self.tables[object].contains_key(*key));
        let buried = gone.filter_map(|key| {
            let intended = self.intents.get(&(object, Key::clone(key)))?;
            let match_value = intended.intent.match_value.clone()?;
            intended.hubspot_id.is_none().then(|| Buried {
                key: Key::clone(key),
                match_value,
                noted_at: intended.intent.noted_at,
                first_at: intended.first_at,
            })
        });
        buried.collect()
    }

    /// Forgets the intent of a row that is gone, but for a create whose outcome is not known.
    pub fn bury(&mut self, object: ObjectIndex, key: &Key) {
        let place = (object, Key::clone(key));
        let over =
            |intended: &Intended| intended.intent.match_value.is_none() || intended.hubspot_id.is_some();
        if self.intents.get(&place).is_some_and(over) {
            self.intents.remove(&place);
        }
    }

    /// Names what is due; whether anything was.
    pub fn name_due(&mut self, now: i64) -> bool {
        let mut due = Vec::new();
        for (place, intended) in &mut self.intents {
            let intent = &mut intended.intent;
            if !intent.named && intent.due_at.is_some_and(|at| at <= now) {
                intent.named = true;
                due.push((place.clone(), intent.due_full));
            }
        }
        for ((object, key), full) in &due {
            self.name(*object, key, if *full { Op::New } else { Op::Update }, now);
        }
        !due.is_empty()
    }

    /// Writes what is remembered of a link.
    pub fn note_link(&mut self, object: ObjectIndex, key: &Key, note: &Note, now: i64) {
        let place = (object, Key::clone(key), note.link.clone(), note.to.clone());
        match &note.row {
            None => drop(self.links.remove(&place)),
            Some(row) => {
                let mut row = row.clone();
                row.unsettled = row.unsettled.map(|at| if at == NOW { now } else { at });
                self.links.insert(place, row);
            }
        }
    }

    /// Ends the link memory of rows that are gone; the row that holds such a row's record now is given it and named.
    pub fn end_links(&mut self, object: ObjectIndex, over: &BTreeSet<&str>, now: i64) {
        let ended = |(of, key, _, _): &Place| *of == object && over.contains(&**key);
        let places: Vec<Place> = self.links.keys().filter(|place| ended(place)).cloned().collect();
        let mut named = BTreeSet::new();
        for place in places {
            let Some(row) = self.links.remove(&place) else {
                continue;
            };
            let waiting = self.intents.iter();
            let waiting =
                waiting.filter(|((of, _), intended)| *of == object && intended.hubspot_id == row.from);
            let waiting = waiting.map(|((_, key), _)| key);
            let holding = self.tables[object].iter();
            let holding = holding.filter(|(_, holder)| holder.hubspot_id == row.from);
            let heirs = waiting.chain(holding.map(|(key, _)| key));
            let heir = heirs.filter(|key| !over.contains(&***key)).max().cloned();
            let heir = heir.or_else(|| self.successor(object, &place.1));
            let Some(heir) = heir.filter(|_| row.from.is_some()) else {
                continue;
            };
            let (_, _, link, to) = place;
            if let Entry::Vacant(vacant) = self.links.entry((object, heir.clone(), link, to)) {
                vacant.insert(row);
                named.insert(heir);
            }
        }
        for key in named {
            self.name(object, &key, Op::Update, now);
        }
    }

    /// The row without a record that has the natural key under which that of a row which is gone was made.
    fn successor(&self, object: ObjectIndex, gone: &Key) -> Option<Key> {
        let declared = &self.mapping.objects[object];
        let intended = self.intents.get(&(object, Key::clone(gone)))?;
        let value = normal(declared, intended.intent.match_value.as_deref()?);
        let rows = self.tables[object].iter();
        let heirs = rows.filter(|(_, row)| {
            row.hubspot_id.is_none() && natural_key(declared, row).as_ref() == Some(&value)
        });
        heirs.map(|(key, _)| key).max().cloned()
    }

    /// Our other links between the same two records.
    pub fn links_beside(&self, object: ObjectIndex, link: usize, pairs: &[(Key, Pair)]) -> Vec<Vec<Beside>> {
        let own = &self.mapping.objects[object].links[link];
        let beside = |(key, pair): &(Key, Pair)| {
            let mut found = Vec::new();
            for ((of, by, name, to), row) in &self.links {
                let this = *of == object && by == key && *name == own.name();
                let Some(declared) = self.mapping.objects[*of]
                    .links
                    .iter()
                    .find(|link| link.name() == *name)
                else {
                    continue;
                };
                for reversed in [false, true] {
                    let (from_id, to_id) = if reversed {
                        (&pair.to, &pair.from)
                    } else {
                        (&pair.from, &pair.to)
                    };
                    let ends = self.ends(*of, declared, reversed) == self.ends(object, own, false);
                    if ends && to == to_id && row.from.as_ref() == Some(from_id) {
                        found.push(Beside {
                            own: this,
                            same: declared.label == own.label && (!reversed || own.label.is_none()),
                            found: row.found,
                            state: row.state,
                        });
                    }
                }
            }
            found
        };
        pairs.iter().map(beside).collect()
    }

    /// The object types that a link leads from and to.
    fn ends(&self, object: ObjectIndex, link: &Link, reversed: bool) -> (String, String) {
        let to = self.mapping.position(&link.to).expect("the target is declared");
        let of = |object: ObjectIndex| self.mapping.objects[object].object_type.clone();
        if reversed {
            (of(to), of(object))
        } else {
            (of(object), of(to))
        }
    }
}
