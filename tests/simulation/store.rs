//! The database as the door sees it: every question is one or more round trips, each of which may take its time, find
//! the connection gone before it did anything, or after it did everything.

use super::model::Model;
use super::world::World;
use futures::FutureExt;
use hubsyncd::daemon::door::store::{Asked, Store};
use hubsyncd::mapping::OnDelete;
use hubsyncd::postgres::intent::Noted;
use hubsyncd::postgres::orphans::Buried;
use hubsyncd::postgres::receipt::{Probe, Receipt, Written};
use hubsyncd::postgres::rows::Counted;
use hubsyncd::postgres::{Error, ErrorKind, Problem};
use hubsyncd::sync::change::{Key, ObjectIndex, Op, Owner};
use hubsyncd::sync::deletion::{BRAKE, Findings, Orphan};
use hubsyncd::sync::linking::{Beside, Note, Pair};
use hubsyncd::sync::outcome::Refusal;
use hubsyncd::sync::record::{Read, Record};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The simulated database, as one daemon's life uses it.
pub struct Simulated {
    pub world: Arc<World>,
    /// Which daemon asks.
    pub daemon: u64,
}

impl Simulated {
    /// One round trip: `work` is done at one moment, unless the connection is gone before; who asked may learn of it or
    /// not.
    pub async fn trip<T>(
        &self,
        what: &'static str,
        work: impl FnOnce(&mut Model, i64) -> T + Send,
    ) -> Result<T, Error> {
        let world = &self.world;
        let fate = world.database_fate();
        world.pause(fate.before).await;
        world.thaw(self.daemon).await;
        if fate.lost_before {
            world.trace(format_args!("db {what}: lost before"));
            return Err(gone(what));
        }
        let now = world.tick();
        let done = work(&mut world.model(), now);
        world.trace(format_args!(
            "db {what}{}",
            if fate.lost_after { ": answer lost" } else { "" }
        ));
        world.pause(fate.after).await;
        world.thaw(self.daemon).await;
        if fate.lost_after {
            Err(gone(what))
        } else {
            Ok(done)
        }
    }
}

pub fn fenced(what: &str) -> Error {
    Error::new(ErrorKind::Fenced, format!("{what}: the generation is gone"))
}

fn gone(what: &str) -> Error {
    Error::new(ErrorKind::Unreachable, format!("{what}: the connection is gone"))
}

impl Store for Simulated {
    fn canonical(&self, _object: ObjectIndex, key: &str) -> Option<Key> {
        Some(Key::from(key))
    }

    fn read<'a>(&'a self, object: ObjectIndex, keys: &'a [Key], full: &'a [bool]) -> Asked<'a, Read> {
        let read = move |model: &mut Model, now| {
            let wanted = keys.iter().zip(full);
            let records = wanted.filter_map(|(key, full)| model.record(object, key, *full));
            let records: Vec<Record> = records.collect();
            model.ledger.read(object, &records);
            Read {
                records,
                read_at: now,
            }
        };
        self.trip("read", read).boxed()
    }

    fn page<'a>(&'a self, object: ObjectIndex, after: Option<&'a Key>, limit: i64) -> Asked<'a, Read> {
        let page = move |model: &mut Model, now| {
            let keys = model.tables[object]
                .keys()
                .filter(|key| after.is_none_or(|after| *key > after));
            let keys: Vec<Key> = keys.take(usize::try_from(limit).unwrap_or(0)).cloned().collect();
            let records = keys.iter().filter_map(|key| model.record(object, key, false));
            let records: Vec<Record> = records.collect();
            model.ledger.read(object, &records);
            Read {
                records,
                read_at: now,
            }
        };
        self.trip("page", page).boxed()
    }

    fn next_key<'a>(&'a self, object: ObjectIndex, after: Option<&'a Key>) -> Asked<'a, Option<Key>> {
        let next = move |model: &mut Model, _| {
            let mut keys = model.tables[object].keys();
            keys.find(|key| after.is_none_or(|after| *key > after)).cloned()
        };
        self.trip("next key", next).boxed()
    }

    fn owners<'a>(&'a self, object: ObjectIndex, ids: &'a [String]) -> Asked<'a, Vec<(String, Owner)>> {
        let owners = move |model: &mut Model, _| {
            let waiting = model.intents.iter().filter(|((of, _), _)| *of == object);
            let waiting = waiting
                .filter_map(|((_, key), intended)| Some((intended.hubspot_id.clone()?, Key::clone(key))));
            let holding = model.tables[object].iter();
            let holding = holding.filter_map(|(key, row)| Some((row.hubspot_id.clone()?, Key::clone(key))));
            let all = waiting.chain(holding);
            let all = all.filter(|(id, _)| ids.contains(id));
            let owner = |key| Owner {
                object,
                key,
                elsewhere: None,
            };
            all.map(|(id, key)| (id, owner(key))).collect()
        };
        self.trip("owners", owners).boxed()
    }

    fn count(&self, object: ObjectIndex) -> Asked<'_, Counted> {
        let count = move |model: &mut Model, now| {
            let rows = &model.tables[object];
            Counted {
                rows: rows.len() as u64,
                awaiting_id: rows.values().filter(|row| row.hubspot_id.is_none()).count() as u64,
                counted_at: now,
            }
        };
        self.trip("count", count).boxed()
    }

    fn note_ids<'a>(
        &'a self,
        object: ObjectIndex,
        generation: i64,
        ids: &'a [(Key, String)],
    ) -> Asked<'a, ()> {
        let note = move |model: &mut Model, now| {
            if model.lease.generation != generation {
                return Err(fenced("noting of ids"));
            }
            for (key, id) in ids {
                model.keep_id(object, key, id, now);
            }
            Ok(())
        };
        async move { self.trip("noting of ids", note).await? }.boxed()
    }

    fn note_links<'a>(
        &'a self,
        object: ObjectIndex,
        generation: i64,
        notes: &'a [(Key, Note)],
    ) -> Asked<'a, ()> {
        let note = move |model: &mut Model, now| {
            if model.lease.generation != generation {
                return Err(fenced("noting of links"));
            }
            for (key, note) in notes {
                model.note_link(object, key, note, now);
            }
            Ok(())
        };
        async move { self.trip("noting of links", note).await? }.boxed()
    }

    fn links_beside<'a>(
        &'a self,
        object: ObjectIndex,
        link: usize,
        pairs: &'a [(Key, Pair)],
    ) -> Asked<'a, Vec<Vec<Beside>>> {
        self.trip("links beside", move |model, _| {
            model.links_beside(object, link, pairs)
        })
        .boxed()
    }

    fn note<'a>(&'a self, object: ObjectIndex, generation: i64, notes: &'a [Noted]) -> Asked<'a, ()> {
        let note = move |model: &mut Model, now| {
            if model.lease.generation != generation {
                return Err(fenced("noting of intents"));
            }
            model.intend(object, notes, now);
            Ok(())
        };
        async move { self.trip("noting of intents", note).await? }.boxed()
    }

    fn withdraw<'a>(&'a self, object: ObjectIndex, notes: &'a [Noted]) -> Asked<'a, ()> {
        self.trip("withdrawal", move |model, _| model.withdraw(object, notes))
            .boxed()
    }

    fn name_due(&self) -> Asked<'_, bool> {
        self.trip("naming of what is due", |model, now| model.name_due(now))
            .boxed()
    }

    fn receipt<'a>(&'a self, receipt: &'a Receipt) -> Asked<'a, (Vec<Written>, bool)> {
        let write = async move {
            let written = self.write(receipt).await?;
            let mapping = Arc::clone(&self.world.model().mapping);
            let name = &mapping.objects[receipt.object].name;
            let mut links = mapping.objects.iter().flat_map(|from| &from.links);
            let is_looked_up = links.any(|link| link.to == *name && !link.lookup.is_empty());
            let named = receipt.entries.iter().zip(&written).any(|(entry, written)| {
                let new_id = entry.hubspot_id.is_some() && entry.hubspot_id != entry.read_id;
                match written {
                    Written::Done => entry.rename || (is_looked_up && new_id),
                    Written::Locked => entry.seqs.is_empty() || (is_looked_up && new_id),
                    Written::Lost { .. } => true,
                    Written::Gone => {
                        let declared = &mapping.objects[receipt.object];
                        declared.on_delete == OnDelete::Archive || !declared.links.is_empty()
                    }
                    Written::Refused(_) => false,
                }
            });
            Ok((written, named))
        };
        write.boxed()
    }

    fn name<'a>(&'a self, object: ObjectIndex, keys: &'a [Key], op: Op) -> Asked<'a, ()> {
        let name = move |model: &mut Model, now| {
            // Who names rows may have them in no order.
            let keys: BTreeSet<&Key> = keys.iter().collect();
            for key in keys {
                model.name(object, key, op, now);
            }
        };
        self.trip("naming", name).boxed()
    }

    fn failed_before<'a>(
        &'a self,
        object: ObjectIndex,
        before: i64,
        after: &'a Key,
        limit: usize,
    ) -> Asked<'a, Vec<Key>> {
        let failed = move |model: &mut Model, _| {
            let failed = model.failures.iter().filter(|((of, key, record), failure)| {
                *of == object && record.is_none() && key > after && failure.last_at < before
            });
            failed
                .map(|((_, key, _), _)| Key::clone(key))
                .take(limit)
                .collect()
        };
        self.trip("failed before", failed).boxed()
    }

    fn orphans<'a>(&'a self, object: ObjectIndex, orphans: &'a [Orphan]) -> Asked<'a, Findings> {
        self.trip("orphans", move |model, now| model.findings(object, orphans, now))
            .boxed()
    }

    fn buried<'a>(&'a self, object: ObjectIndex, keys: &'a [Key]) -> Asked<'a, Vec<Buried>> {
        self.trip("buried creates", move |model, _| model.buried(object, keys))
            .boxed()
    }

    fn archiving<'a>(&'a self, object: ObjectIndex, generation: i64, orphans: &'a [Orphan]) -> Asked<'a, ()> {
        let note = move |model: &mut Model, now| {
            if model.lease.generation != generation {
                return Err(fenced("noting what is archived"));
            }
            for orphan in orphans {
                let place = (object, orphan.hubspot_id.clone());
                model.archived.insert(place, (now, orphan.released));
            }
            Ok(())
        };
        async move { self.trip("noting what is archived", note).await? }.boxed()
    }

    fn archived<'a>(&'a self, object: ObjectIndex, ids: &'a [String]) -> Asked<'a, Vec<(String, i64)>> {
        let archived = move |model: &mut Model, _| {
            let of_ids = ids.iter().filter_map(|id| {
                let (at, _) = model.archived.get(&(object, id.clone()))?;
                Some((id.clone(), *at))
            });
            of_ids.collect()
        };
        self.trip("archived", archived).boxed()
    }

    fn listed_orphans<'a>(
        &'a self,
        object: ObjectIndex,
        after: Option<&'a Orphan>,
        released: bool,
        limit: usize,
    ) -> Asked<'a, Vec<Orphan>> {
        let listed = move |model: &mut Model, _| {
            let failures = model.failures.iter().filter(|((of, _, record), failure)| {
                *of == object && record.is_some() && (released || failure.category != BRAKE)
            });
            let orphans = failures.map(|((_, key, record), _)| Orphan {
                key: Key::clone(key),
                hubspot_id: record.clone().unwrap_or_default(),
                released,
            });
            let later = orphans.filter(|orphan| {
                after.is_none_or(|after| (&orphan.key, &orphan.hubspot_id) > (&after.key, &after.hubspot_id))
            });
            later.take(limit).collect()
        };
        self.trip("listed orphans", listed).boxed()
    }

    fn probe<'a>(&'a self, object: ObjectIndex, key: &'a Key) -> Asked<'a, Probe> {
        let probe = move |model: &mut Model, _| match model.tables[object].get(key) {
            None => Probe::Gone,
            Some(_) if model.locks.contains(&(object, Key::clone(key))) => Probe::Locked,
            Some(_) => Probe::Free,
        };
        self.trip("probe", probe).boxed()
    }

    fn note_pause<'a>(&'a self, object: ObjectIndex, why: Option<&'a Refusal>) -> Asked<'a, ()> {
        let note = move |model: &mut Model, _| match why {
            Some(_) => drop(model.paused.insert(object)),
            None => drop(model.paused.remove(&object)),
        };
        self.trip("pause", note).boxed()
    }

    fn lacking(&self, _object: ObjectIndex) -> Asked<'_, Vec<Problem>> {
        self.trip("rights", |_, _| Vec::new()).boxed()
    }
}
