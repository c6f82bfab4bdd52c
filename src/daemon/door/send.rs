//! Sending: from planned items to what HubSpot said of each.

use super::item::{Fate, Item, Links};
use super::lookup::claim_of;
use super::{Door, Leave, Way};
use crate::hubspot::{self, BatchReply, Disposition, Failed, ReadReply, RecordError, Slot, UpdateInput};
use crate::sync::answer::{By, Denial, Done, Input, Verdict, attribute};
use crate::sync::change::{Key, ObjectIndex};
use crate::sync::outcome::Refusal;
use crate::sync::pausing::{Act, Cause};
use crate::sync::plan::Step;
use crate::sync::report::chain;
use std::collections::HashSet;
use std::time::Duration;

/// How often a write that HubSpot answered with silence is repeated before the row is listed as a failure.
pub(super) const SILENT_ATTEMPTS: u32 = 5;

/// How often HubSpot is asked for records of which it neither says that it has them nor that it has not.
pub(super) const READ_ATTEMPTS: usize = 3;

/// One attempt's requests.
pub(super) struct Sending<'a> {
    pub(super) door: &'a Door,
    pub(super) object: ObjectIndex,
    pub(super) way: &'a Way,
    slot: Option<Slot>,
    /// The generation of the lease under which the rows were read; under another one they may be old.
    pub(super) generation: i64,
    /// The database's clock at the read of the rows, microseconds since the Unix epoch.
    pub(super) read_at: i64,
    /// When the last request was started, as the desk counts time.
    begun: Duration,
    /// Why items are to be tried again.
    pub(super) reason: Option<String>,
    /// What is done now; `None`: records are archived.
    pub(super) act: Option<Act>,
    /// What HubSpot forbids until somebody acts, and its words, if it said so.
    pub(super) barred: Option<(Option<Act>, String)>,
    /// What it refused as a whole.
    pub(super) wholes: Vec<Whole>,
}

/// Records that were refused together, or one that was refused alone.
pub(super) struct Whole {
    pub(super) act: Act,
    pub(super) keys: HashSet<Key>,
    pub(super) causes: Vec<Cause>,
}

impl<'a> Sending<'a> {
    pub(super) fn new(door: &'a Door, way: &'a Way, leave: Leave, read_at: i64) -> Sending<'a> {
        Sending {
            door,
            object: way.object,
            way,
            slot: Some(leave.slot),
            generation: leave.generation,
            read_at,
            begun: Duration::ZERO,
            reason: None,
            act: Some(Act::Create),
            barred: None,
            wholes: Vec::new(),
        }
    }

    /// Sends all that is open and makes the links of what was accepted. Afterwards no item is open.
    pub(super) async fn send(&mut self, items: &mut [Item]) {
        self.ask_first(items).await;
        self.create(items).await;
        let silent = self.update(items).await;
        if !silent.is_empty() {
            self.look_up(items, &silent).await;
        }
        self.check_owners(items).await;
        let spoken = items
            .iter()
            .filter(|item| matches!(item.fate, Fate::Accepted { .. } | Fate::Refused(_)));
        self.door.desk.spoken(self.object, spoken.map(Item::key));
        self.note_ids(items).await;
        self.act = Some(Act::Link);
        self.link(items).await;
    }

    /// The slot granted at the start, then one more for every further request.
    pub(super) async fn slot(&mut self, records: usize) -> Result<Slot, Failed> {
        let slot = match self.slot.take() {
            Some(slot) => slot,
            None => self.door.slot(self.way, records).await?.slot,
        };
        self.still_ours(records)?;
        Ok(slot)
    }

    /// Leave to send one search. Searches have a limit of their own and may be waited for: the slot granted at the
    /// start is given back meanwhile.
    pub(super) async fn search_slot(&mut self, records: usize) -> Result<Slot, Failed> {
        self.slot = None;
        let slot = self.door.search_slot(self.way, records).await?.slot;
        self.still_ours(records)?;
        Ok(slot)
    }

    /// Whether the lease is still held as it was when the rows were read.
    pub(super) fn still_ours(&self, records: usize) -> Result<(), Failed> {
        if self.door.lease.pushing() != Some(self.generation) {
            let doing = format!("pushing {records} records of {}", self.object_type());
            return Err(Failed::not_ours(doing));
        }
        Ok(())
    }

    /// Notes that a request for these items is started now.
    pub(super) fn begin(&mut self, items: &mut [Item], sent: &[usize]) {
        self.begun = self.door.desk.now();
        for at in sent {
            items[*at].begun = Some(self.begun);
        }
    }

    /// The outcome of the last request is not known: what comes after it may be overtaken by it, also what another row
    /// writes to the record, which is known by its claim.
    pub(super) fn doubt(&self, key: &Key, record: &str, full: bool) {
        let mut doubts = self.door.doubts();
        doubts.note(self.object, key, self.begun, full);
        let alike = self.door.mapping.first_alike(self.object);
        doubts.note_record(alike, record, self.begun, full);
    }

    /// The object's type in HubSpot.
    pub(super) fn object_type(&self) -> &'a str {
        &self.door.mapping.objects[self.object].object_type
    }

    pub(super) fn rules(&self) -> &'a crate::sync::plan::Rules {
        &self.door.objects[self.object].rules
    }

    /// Sends the updates and answers those of which the reply says nothing, and those that HubSpot does not find.
    pub(super) async fn update(&mut self, items: &mut [Item]) -> Vec<usize> {
        self.act = Some(Act::Update);
        let mut ids = HashSet::new();
        let mut sent = Vec::new();
        for (at, item) in items.iter_mut().enumerate() {
            match item.updates().map(|id| ids.insert(id.to_owned())) {
                Some(true) if matches!(item.step, Step::Keep(_)) => item.keep(),
                Some(true) => sent.push(at),
                Some(false) => item.fate = Fate::Held,
                None => {}
            }
        }
        if sent.is_empty() {
            return Vec::new();
        }
        let traces = traces(&sent);
        let names: Vec<String> = sent
            .iter()
            .filter_map(|at| Some(items[*at].updates()?.to_owned()))
            .collect();
        let slot = match self.slot(sent.len()).await {
            Ok(slot) => slot,
            Err(unsent) => {
                self.failed(items, &sent, unsent);
                return Vec::new();
            }
        };
        self.begin(items, &sent);
        let inputs: Vec<UpdateInput<'_>> = sent
            .iter()
            .zip(&traces)
            .zip(&names)
            .map(|((at, trace), id)| UpdateInput {
                trace,
                id,
                properties: items[*at].payload(),
            })
            .collect();
        let reply = self.door.client.update(slot, self.object_type(), &inputs).await;
        drop(inputs);
        if reply.as_ref().is_err_and(Failed::is_unknown) {
            for (at, id) in sent.iter().zip(&names) {
                let item = &items[*at];
                let full = item.payload() != &*item.record().update_properties;
                self.doubt(item.key(), &claim_of(id), full);
            }
        }
        self.settle(items, &sent, &traces, &names, reply, By::Id)
    }

    /// Applies a reply; answers the items it is silent about, or says are not there.
    pub(super) fn settle(
        &mut self,
        items: &mut [Item],
        sent: &[usize],
        traces: &[String],
        names: &[String],
        reply: Result<BatchReply, Failed>,
        by: By<'_>,
    ) -> Vec<usize> {
        let reply = match reply {
            Ok(reply) => reply,
            Err(failed) => {
                self.failed(items, sent, failed);
                return Vec::new();
            }
        };
        let inputs: Vec<Input<'_>> = traces
            .iter()
            .zip(names)
            .map(|(trace, name)| Input { trace, name })
            .collect();
        let creating = matches!(by, By::Match(_));
        let guarded = creating && self.rules().guarded;
        let correlation_id = reply.correlation_id.as_deref();
        let results: Vec<Done> = reply.results.into_iter().map(|done| self.done(done)).collect();
        let errors: Vec<Denial> = reply
            .errors
            .iter()
            .map(|error| denial(error, correlation_id))
            .collect();
        let verdicts = attribute(&inputs, &results, &errors, by);
        self.note_whole(items, sent, &verdicts);
        let mut silent = Vec::new();
        for ((at, verdict), name) in sent.iter().copied().zip(verdicts).zip(names) {
            items[at].fate = match verdict {
                Verdict::Done(done) => {
                    // An update that is answered under another id was written to another record: of a merge.
                    let elsewhere = !creating && done.id != *name;
                    if elsewhere {
                        items[at].merged_from = Some(name.clone());
                    }
                    let taken_over = if creating {
                        !guarded && done.created != Some(true)
                    } else {
                        items[at].record().known_id().is_none()
                    };
                    Fate::Accepted {
                        id: done.id,
                        adopted: elsewhere || taken_over,
                        links: Links::Made(Vec::new()),
                    }
                }
                Verdict::Denied(refusal) if !creating && refusal.category == "object_not_found" => {
                    silent.push(at);
                    continue;
                }
                Verdict::Silent if !creating => {
                    silent.push(at);
                    continue;
                }
                Verdict::Denied(refusal) => Fate::Refused(refusal),
                Verdict::Suspect(refusal)
                    if sent.len() == 1 && !creating && refusal.category == "object_not_found" =>
                {
                    silent.push(at);
                    continue;
                }
                Verdict::Suspect(refusal) if sent.len() == 1 => Fate::Refused(refusal),
                Verdict::Suspect(_) if !guarded => Fate::Split,
                Verdict::Suspect(_) | Verdict::Silent => {
                    // A create by natural key that is not unique is looked for before it is repeated.
                    items[at].pending |= creating;
                    self.unconfirmed(items[at].key())
                }
            };
        }
        silent
    }

    /// Notes what a reply refuses without saying of which record.
    fn note_whole(&mut self, items: &[Item], sent: &[usize], verdicts: &[Verdict]) {
        let suspect = verdicts.iter().find_map(|verdict| match verdict {
            Verdict::Suspect(refusal) => Some(refusal),
            Verdict::Denied(refusal) if sent.len() == 1 => Some(refusal),
            _ => None,
        });
        let done = |verdict: &Verdict| matches!(verdict, Verdict::Done(_));
        if let Some(refusal) = suspect.filter(|_| !verdicts.iter().any(done)) {
            self.refused_whole(items, sent, refusal.causes.clone());
        }
    }

    fn refused_whole(&mut self, items: &[Item], sent: &[usize], causes: Vec<Cause>) {
        self.wholes.extend(self.act.map(|act| Whole {
            act,
            keys: sent.iter().map(|at| items[*at].key().clone()).collect(),
            causes,
        }));
    }

    /// A result, with the natural key's value if HubSpot sent it.
    fn done(&self, done: hubspot::Done) -> Done {
        let match_on = self.rules().match_on.as_deref();
        let match_value = match_on
            .and_then(|name| done.properties.get(name).cloned())
            .flatten();
        Done {
            id: done.id,
            trace: done.trace,
            created: done.new,
            match_value,
        }
    }

    /// What becomes of a write that HubSpot answered without a word about it.
    pub(super) fn unconfirmed(&mut self, key: &Key) -> Fate {
        if self.door.desk.silent(self.object, key) < SILENT_ATTEMPTS {
            self.reason
                .get_or_insert_with(|| "HubSpot's answer says nothing of some records".to_owned());
            return Fate::Again;
        }
        Fate::Refused(Refusal::ours(
            "unconfirmed",
            format!(
                "HubSpot answered {SILENT_ATTEMPTS} times without a word about this record; look at it there"
            ),
        ))
    }

    /// Applies the failure of a whole request to what it carried.
    pub(super) fn failed(&mut self, items: &mut [Item], sent: &[usize], failed: Failed) {
        let fate = self.fate_of(sent.len(), &failed);
        if matches!(fate, Fate::Split | Fate::Refused(_)) {
            self.refused_whole(items, sent, failed.refusal().causes);
        }
        for at in sent {
            items[*at].fate = fate.clone();
        }
    }

    /// What the failure of a request with `count` records means for each of them.
    pub(super) fn fate_of(&mut self, count: usize, failed: &Failed) -> Fate {
        match failed.disposition {
            Disposition::Retry { .. } | Disposition::Halt { .. } => {
                if failed.disposition == (Disposition::Halt { token: false }) {
                    self.barred = Some((self.act, format!("{}; {}", chain(failed), failed.advice)));
                }
                self.reason = Some(chain(failed));
                Fate::Again
            }
            Disposition::Split | Disposition::Reject => {
                if count > 1 {
                    Fate::Split
                } else {
                    Fate::Refused(failed.refusal())
                }
            }
        }
    }

    /// Reads records by id or by a unique property. An answer that is silent about some of them is believed when it is
    /// given [`READ_ATTEMPTS`] times: HubSpot may say in that way that all are missing, and what is taken for missing
    /// is created once more.
    pub(super) async fn read_by(
        &mut self,
        id_property: Option<&str>,
        ids: &[&str],
        properties: &[&str],
    ) -> Result<Vec<hubspot::Done>, Failed> {
        let mut found: Vec<hubspot::Done> = Vec::new();
        for _ in 0..READ_ATTEMPTS {
            let slot = self.slot(ids.len()).await?;
            let client = &self.door.client;
            let reply = client.read_by(slot, self.object_type(), id_property, ids, properties);
            let ReadReply { results, whole } = reply.await?;
            add(&mut found, results);
            if whole || found.len() >= ids.len() {
                break;
            }
        }
        Ok(found)
    }

    /// Commits the ids that HubSpot gave to a table where nothing can refuse them, before the receipt.
    async fn note_ids(&mut self, items: &[Item]) {
        let ids: Vec<(Key, String)> = items
            .iter()
            .filter_map(|item| match &item.fate {
                Fate::Accepted { id, .. } if item.record().hubspot_id.as_ref() != Some(id) => {
                    Some((item.key().clone(), id.clone()))
                }
                _ => None,
            })
            .collect();
        if !ids.is_empty() {
            self.door.note_ids(self.object, self.generation, &ids).await;
        }
    }
}

/// Adds what another answer to the same question found.
pub(super) fn add(all: &mut Vec<hubspot::Done>, found: Vec<hubspot::Done>) {
    all.extend(found);
    all.sort_by(|one, other| one.id.cmp(&other.id));
    all.dedup_by(|one, other| one.id == other.id);
}

/// A unique write trace for each item sent.
pub(super) fn traces(sent: &[usize]) -> Vec<String> {
    let request = uuid::Uuid::new_v4().simple().to_string();
    sent.iter().map(|at| format!("{request}-{at}")).collect()
}

/// An error of a reply, in the middle's words.
pub(super) fn denial(error: &RecordError, correlation_id: Option<&str>) -> Denial {
    Denial {
        traces: error.traces.clone(),
        ids: error.ids.clone(),
        refusal: error.refusal(correlation_id),
    }
}
