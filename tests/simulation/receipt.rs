//! Receipts, as `src/postgres/receipt/` writes them: what is locked, refused, decided and written.

use super::model::{Failure, Model};
use super::store::{Simulated, fenced};
use hubsyncd::mapping::OnDelete;
use hubsyncd::postgres::Error;
use hubsyncd::postgres::receipt::work::{Held, Work};
use hubsyncd::postgres::receipt::{Entry, Part, Receipt, Written};
use hubsyncd::sync::change::{Key, ObjectIndex, Op};
use hubsyncd::sync::outcome::Refusal;
use std::collections::BTreeSet;

/// What became of one transaction of a receipt.
enum Tried {
    Fenced,
    Written(Vec<(usize, Written)>),
    NotNow,
    Waited,
    Refused(Refusal),
}

impl Simulated {
    /// As `Writer::write` has it: in halves where rows refuse or waits end.
    pub async fn write(&self, receipt: &Receipt) -> Result<Vec<Written>, Error> {
        let entries = &receipt.entries;
        let mut written: Vec<Written> = vec![Written::Locked; entries.len()];
        let mut parts: Vec<Vec<usize>> = vec![(0..entries.len()).collect()];
        let mut waits = 0;
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let wait = self.world.receipt_waits();
            let tried = self
                .trip("receipt", |model, now| match wait {
                    Some(true) => Tried::NotNow,
                    Some(false) => Tried::Waited,
                    None => self.transaction(model, now, receipt, &Part::Rows(&part)),
                })
                .await?;
            match tried {
                Tried::Written(list) => list.into_iter().for_each(|(index, said)| written[index] = said),
                Tried::Fenced => return Err(fenced("receipt")),
                Tried::NotNow => break,
                Tried::Waited if part.len() == 1 => waits += 1,
                Tried::Waited if waits >= 16 => {}
                Tried::Refused(refusal) if part.len() == 1 => {
                    let index = part[0];
                    let tried = self
                        .trip("receipt of a refused row", |model, now| {
                            self.transaction(model, now, receipt, &Part::Refused(index, &refusal))
                        })
                        .await?;
                    if matches!(tried, Tried::Fenced) {
                        return Err(fenced("receipt"));
                    }
                    written[index] = Written::Refused(refusal);
                }
                Tried::Waited | Tried::Refused(_) => {
                    waits += u32::from(matches!(tried, Tried::Waited));
                    let second = part.split_off(part.len().div_ceil(2));
                    parts.push(second);
                    parts.push(part);
                }
            }
        }
        for (op, full) in [(Op::Update, false), (Op::New, true)] {
            let unfinished = entries.iter().zip(&written).filter(|(entry, written)| {
                **written == Written::Locked && entry.seqs.is_empty() && entry.full_record == full
            });
            let keys: Vec<Key> = unfinished.map(|(entry, _)| Key::clone(&entry.key)).collect();
            if !keys.is_empty() {
                self.trip("naming of unfinished rows", |model, now| {
                    for key in &keys {
                        model.name(receipt.object, key, op, now);
                    }
                })
                .await?;
            }
        }
        Ok(written)
    }

    fn transaction(&self, model: &mut Model, now: i64, receipt: &Receipt, part: &Part<'_>) -> Tried {
        let object = receipt.object;
        if model.lease.generation != receipt.generation {
            return Tried::Fenced;
        }
        let held = match part {
            Part::Rows(indices) => hold(
                model,
                object,
                indices.iter().map(|index| &receipt.entries[*index]),
            ),
            Part::Refused(..) => Held::default(),
        };
        let work = Work::of(receipt, part, &held);
        if let Some(refusal) = refusal(model, object, &work) {
            return Tried::Refused(refusal);
        }
        self.world.check_receipt(model, receipt, &work);
        Tried::Written(apply(model, now, receipt, work))
    }
}

fn writes_row(entry: &Entry) -> bool {
    let new_id = entry.hubspot_id.is_some() && entry.hubspot_id != entry.read_id;
    !entry.row_gone && (entry.synced || new_id)
}

/// What the locks at a receipt's begin get.
fn hold<'e>(model: &Model, object: ObjectIndex, entries: impl Iterator<Item = &'e Entry>) -> Held {
    let mut held = Held::default();
    for entry in entries {
        let there = model.tables[object].get(&entry.key);
        let locked = model.locks.contains(&(object, Key::clone(&entry.key)));
        match there {
            Some(row) if writes_row(entry) && !locked => {
                held.rows.insert(entry.key.to_string(), row.hubspot_id.clone());
            }
            Some(_) if writes_row(entry) || entry.row_gone => {
                held.there.insert(entry.key.to_string());
            }
            _ => {}
        }
        let unmarked = entry
            .audit
            .iter()
            .filter(|id| model.audit.get(*id).is_some_and(|entry| !entry.marked));
        held.entries.extend(unmarked);
    }
    held
}

/// Why the tables refuse what a receipt writes: a check, or two rows with one id.
fn refusal(model: &Model, object: ObjectIndex, work: &Work<'_>) -> Option<Refusal> {
    let table = &model.tables[object];
    let written = work.ids.iter().map(|id| id.0).chain(work.touched.iter().copied());
    let checked = written
        .into_iter()
        .any(|key| table.get(key).is_some_and(|row| row.unwritable));
    let mut new = BTreeSet::new();
    let taken = work.ids.iter().any(|(key, id, _)| {
        let mut others = table.iter().filter(|(other, _)| ***other != **key);
        !new.insert(*id) || others.any(|(_, row)| row.hubspot_id.as_deref() == Some(*id))
    });
    (checked || taken).then(|| Refusal::ours("receipt", "the table refuses the receipt"))
}

/// Writes what was decided, in the order of the statements.
fn apply(model: &mut Model, now: i64, receipt: &Receipt, work: Work<'_>) -> Vec<(usize, Written)> {
    let object = receipt.object;
    // Whoever adds a statement to a receipt is stopped here, to say what it does.
    let Work {
        ids,
        touched,
        marks,
        given,
        in_vain,
        links_over,
        failures_over,
        intents_over,
        archived,
        not_archived,
        intents_buried,
        owed,
        links,
        failures,
        intents,
        named,
        seqs,
        said,
    } = work;
    let place = |key: &str| (object, Key::from(key));
    for (key, id, synced) in ids {
        model.ledger.holds(object, &Key::from(key), id);
        if let Some(row) = model.tables[object].get_mut(key) {
            row.hubspot_id = Some(id.to_owned());
            row.synced_at = if synced {
                Some(receipt.read_at)
            } else {
                row.synced_at
            };
        }
    }
    for key in touched {
        if let Some(row) = model.tables[object].get_mut(key) {
            row.synced_at = Some(receipt.read_at);
        }
    }
    for id in marks {
        if let Some(entry) = model.audit.get_mut(&id) {
            entry.marked = true;
        }
    }
    for key in given {
        model.name_lookups(object, &Key::from(key), now);
    }
    if model.mapping.objects[object].on_delete == OnDelete::Archive {
        for (key, id) in in_vain {
            let made = model.intents.get(&place(key));
            let made = made.and_then(|made| made.hubspot_id.clone());
            if let Some(made) = made.filter(|made| Some(made.as_str()) != id) {
                model.name_record(object, &Key::from(key), Op::Archive, Some(made), now);
            }
        }
    }
    for key in failures_over {
        model.failures.remove(&(object, Key::from(key), None));
    }
    for (key, id) in archived {
        let place = (object, Key::from(key), Some(id.to_owned()));
        model.failures.remove(&place);
    }
    for id in not_archived {
        model.archived.remove(&(object, id.to_owned()));
    }
    for (key, note) in links {
        model.note_link(object, &Key::from(key), note, now);
    }
    model.end_links(object, &links_over.into_iter().collect(), now);
    for key in intents_over {
        model.intents.remove(&place(key));
    }
    for key in intents_buried {
        model.bury(object, &Key::from(key));
    }
    for (key, due) in owed {
        model.owe(object, &Key::from(key), due, now);
    }
    for failure in failures {
        note_failure(model, object, now, &failure);
    }
    for (key, id) in intents {
        model.keep_id(object, &Key::from(key), id, now);
    }
    for key in named {
        model.name(object, &Key::from(key), Op::Update, now);
    }
    for seq in seqs {
        model.changes.remove(&seq);
    }
    said
}

fn note_failure(model: &mut Model, object: ObjectIndex, now: i64, noted: &serde_json::Value) {
    let word = |name: &str| noted[name].as_str().unwrap_or_default().to_owned();
    let full = noted["full_record"].as_bool().unwrap_or_default();
    let record = Some(word("archive")).filter(|record| !record.is_empty());
    let place = (object, Key::from(word("key")), record);
    let before = model.failures.get(&place);
    let failure = Failure {
        category: word("category"),
        full_record: full || before.is_some_and(|failure| failure.full_record),
        first_at: before.map_or(now, |failure| failure.first_at),
        last_at: now,
    };
    model.failures.insert(place, failure);
}
