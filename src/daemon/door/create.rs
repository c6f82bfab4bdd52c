//! Creating: what is asked and noted before a record is made, and its making.
//!
//! What is asked, and what the answers mean, is decided in [`crate::sync::guard`]; here are the questions. A create
//! is sent only after its intent is committed, and the intent only after the slot is granted, so that the time it
//! was noted at is the time the request was started.

use super::item::{Fate, Item};
use super::send::{READ_ATTEMPTS, Sending, add, traces};
use crate::hubspot::wire::searchable;
use crate::hubspot::{self, BatchReply, CreateInput, Failed, Found, UpsertInput};
use crate::postgres::intent::Noted;
use crate::sync::answer::By;
use crate::sync::change::Key;
use crate::sync::guard::{Answer, Guard, Hit, Next, Row};
use crate::sync::outcome::Refusal;
use crate::sync::pausing::Act;
use crate::sync::plan::Step;
use crate::sync::report::chain;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::time::Instant;
use tracing::debug;

/// How long the noting of an intent may take: a request that is started later than that was not started when its
/// intent says.
const NOTE_MAX: Duration = Duration::from_secs(1);

impl Sending<'_> {
    fn guard(&self) -> Guard<'_> {
        self.door.guard(self.object)
    }

    /// The row of an item that would be created.
    fn row(&self, item: &Item) -> Option<Row> {
        let guard = self.guard();
        let pending = if item.pending {
            guard.pending(item.record())
        } else {
            None
        };
        Some(Row {
            value: guard.rules.normalise(item.creates()?),
            pending,
            inserted: item.claimed.inserted,
        })
    }

    /// Asks HubSpot what it has to be asked before rows are created: what became of an earlier create, and whether
    /// there is a record of them already. What is still to be created then is created.
    pub(super) async fn ask_first(&mut self, items: &mut [Item]) {
        self.act = Some(Act::Create);
        let (mut ask, mut resolve) = (Vec::new(), Vec::new());
        for (at, item) in items.iter_mut().enumerate() {
            let Some(row) = self.row(item) else { continue };
            if let Some(refusal) = self.unsearchable(&row) {
                item.fate = Fate::Refused(refusal);
                continue;
            }
            match self.guard().next(&row, self.read_at) {
                Next::Create => {}
                Next::Ask => ask.push(at),
                Next::Resolve => resolve.push(at),
                Next::Wait(until) => item.fate = self.wait(until),
            }
        }
        ask.extend(self.resolve(items, &resolve).await);
        self.ask(items, &ask).await;
        self.note_takeovers(items).await;
        resolve.extend(ask);
        self.note_found(items, &resolve).await;
    }

    /// A natural key that no search can carry: what became of its create could never be found out.
    fn unsearchable(&self, row: &Row) -> Option<Refusal> {
        let rules = self.rules();
        let match_on = rules.match_on.as_deref().filter(|_| rules.guarded)?;
        let values = [&*row.value]
            .into_iter()
            .chain(row.pending.as_ref().map(|pending| &*pending.value));
        let mut long = values.filter(|value| searchable(match_on, &[value]) == 0);
        long.next().map(|_| {
            Refusal::ours(
                "match_on",
                format!(
                    "its {match_on} is longer than HubSpot's search can carry, so that a lost answer to its creation could \
                     double it; shorten it, or make {match_on} a property that requires unique values"
                ),
            )
        })
    }

    pub(super) fn wait(&mut self, until: i64) -> Fate {
        let words = "what became of an earlier request cannot be known yet; it is asked for before anything is created";
        self.reason.get_or_insert_with(|| words.to_owned());
        Fate::Wait(until.saturating_sub(self.read_at))
    }

    /// Asks what became of earlier creates; answers the rows whose own natural key is to be asked for then.
    async fn resolve(&mut self, items: &mut [Item], asked: &[usize]) -> Vec<usize> {
        let rows: Vec<Row> = asked.iter().filter_map(|at| self.row(&items[*at])).collect();
        let values: Vec<String> = rows
            .iter()
            .filter_map(|row| Some(row.pending.as_ref()?.value.clone()))
            .collect();
        let Some(found) = self.find(items, asked, &values).await else {
            return Vec::new();
        };
        let (mut ask, mut owners) = (Vec::new(), Vec::new());
        for ((at, row), hits) in asked.iter().copied().zip(&rows).zip(&found) {
            let item = &mut items[at];
            let answer = self.guard().resolved(row, hits, self.read_at);
            if matches!(answer, Answer::Create | Answer::GoOn { .. }) {
                item.pending = false;
            }
            if let Answer::GoOn { next, owner } = answer {
                owners.extend(owner);
                ask.extend((next == Next::Ask).then_some(at));
                continue;
            }
            self.apply(item, answer);
        }
        // What an old request may have written over there is put right.
        self.door.name_owners(owners).await;
        ask
    }

    /// Asks which rows there are records of already.
    async fn ask(&mut self, items: &mut [Item], asked: &[usize]) {
        let rows: Vec<Row> = asked.iter().filter_map(|at| self.row(&items[*at])).collect();
        let values: Vec<String> = rows.iter().map(|row| row.value.clone()).collect();
        let Some(found) = self.find(items, asked, &values).await else {
            return;
        };
        let mut owners = Vec::new();
        for ((at, row), hits) in asked.iter().copied().zip(&rows).zip(&found) {
            let answer = self.guard().asked(row, hits);
            // An earlier create of this row may have landed on the record after its owner's.
            if items[at].record().intent.is_some() {
                owners.extend(hits.iter().filter_map(|hit| hit.owner.clone()));
            }
            self.apply(&mut items[at], answer);
        }
        self.door.name_owners(owners).await;
    }

    fn apply(&mut self, item: &mut Item, answer: Answer) {
        match answer {
            Answer::Create | Answer::GoOn { .. } => {}
            Answer::Update { id, update_only } => {
                item.update_only = update_only;
                item.step = Step::write(id, item.payload());
            }
            Answer::Wait(until) => item.fate = self.wait(until),
            Answer::Held => item.fate = Fate::Held,
            Answer::Refuse(refusal) => item.fate = Fate::Refused(refusal),
        }
    }

    /// Which records HubSpot has under each of these natural keys, and which other rows hold them. `None` if it, or
    /// the database, did not say; the items know then.
    pub(super) async fn find(
        &mut self,
        items: &mut [Item],
        asked: &[usize],
        values: &[String],
    ) -> Option<Vec<Vec<Hit>>> {
        let rules = self.rules();
        let match_on = rules.match_on.as_deref().filter(|_| !asked.is_empty())?;
        let wanted: Vec<&str> = values.iter().map(String::as_str).collect();
        let found = if rules.guarded {
            self.search(match_on, &wanted).await
        } else {
            self.read_by(Some(match_on), &wanted, &[match_on]).await
        };
        let found = match found {
            Ok(found) => found,
            Err(failed) => {
                self.failed(items, asked, failed);
                return None;
            }
        };
        let mut ids: HashMap<String, Vec<String>> = HashMap::new();
        let mut made: HashMap<String, i64> = HashMap::new();
        for done in found {
            let value = done.properties.get(match_on).and_then(Option::as_deref);
            made.extend(done.created_at.map(|at| (done.id.clone(), at)));
            if let Some(value) = value {
                let ids = ids.entry(rules.normalise(value)).or_default();
                if !ids.contains(&done.id) {
                    ids.push(done.id);
                }
            }
        }
        // Claimed before it is asked who holds them: of two rows that are led to one record at a time one waits, and sees
        // afterwards that the other holds it.
        let mut busy: HashSet<(usize, &String)> = HashSet::new();
        for (at, value) in asked.iter().zip(values) {
            let of_value = ids.get(value).into_iter().flatten();
            busy.extend(
                of_value
                    .filter(|id| !self.claim_id(items[*at].key(), id))
                    .map(|id| (*at, id)),
            );
        }
        let owners = self
            .owners(items, asked, ids.values().flatten().cloned().collect())
            .await?;
        let leaving = self
            .leaving(items, asked, ids.values().flatten().cloned().collect())
            .await?;
        let hits = |(at, value): (&usize, &String)| -> Vec<Hit> {
            let key = items[*at].key();
            let hit = |id: &String| Hit {
                id: id.clone(),
                owner: owners.get(id).filter(|owner| !owner.is(key)).cloned(),
                busy: busy.contains(&(*at, id)),
                leaves: leaving.get(id).copied(),
                created_at: made.get(id).copied(),
            };
            ids.get(value).into_iter().flatten().map(hit).collect()
        };
        Some(asked.iter().zip(values).map(hits).collect())
    }

    /// Searches for natural keys, as many a request as it carries. Where there are more results than one answer
    /// holds, fewer keys are asked for; of one key two records are as bad as two hundred.
    async fn search(&mut self, match_on: &str, values: &[&str]) -> Result<Vec<hubspot::Done>, Failed> {
        let mut found = Vec::new();
        let mut parts = vec![values];
        while let Some(part) = parts.pop() {
            let (now, later) = part.split_at(searchable(match_on, part).max(1).min(part.len()));
            if !later.is_empty() {
                parts.push(later);
            }
            if now.is_empty() {
                continue;
            }
            let page = self.search_page(match_on, now).await?;
            if page.more && now.len() > 1 {
                let (first, second) = now.split_at(now.len() / 2);
                parts.extend([second, first]);
            } else {
                found.extend(page.results);
            }
        }
        Ok(found)
    }

    /// One search, with what repeated questions found where an answer has less than it says there is, or does not say.
    async fn search_page(&mut self, match_on: &str, values: &[&str]) -> Result<Found, Failed> {
        let mut all: Vec<hubspot::Done> = Vec::new();
        let mut asked = 0;
        loop {
            let slot = self.search_slot(values.len()).await?;
            let client = &self.door.client;
            let page = client.search(slot, self.object_type(), match_on, values).await?;
            asked += 1;
            let enough = page.whole || asked == READ_ATTEMPTS;
            add(&mut all, page.results);
            if enough {
                return Ok(Found { results: all, ..page });
            }
        }
    }

    /// Notes which rows are about to take over a record for updates only, so that whoever goes on sends no more.
    async fn note_takeovers(&mut self, items: &mut [Item]) {
        let taking: Vec<usize> = (0..items.len())
            .filter(|at| items[*at].update_only && items[*at].updates().is_some())
            .collect();
        if taking.is_empty() {
            return;
        }
        let traces = traces(&taking);
        self.note_intents(items, &taking, &traces, |_| None).await;
    }

    /// Notes which records were found to be these rows': what is written to them may change the natural key that they
    /// were found by, and nobody would find them again if the answer were lost.
    async fn note_found(&mut self, items: &mut [Item], asked: &[usize]) {
        let found = |at: &usize| Some((Key::clone(items[*at].key()), items[*at].updates()?.to_owned()));
        let ids: Vec<(Key, String)> = asked.iter().filter_map(found).collect();
        if ids.is_empty() || self.door.note_ids(self.object, self.generation, &ids).await {
            return;
        }
        let words = "the lease is another daemon's; nothing of this is written";
        self.reason.get_or_insert_with(|| words.to_owned());
        for at in asked {
            if items[*at].updates().is_some() {
                items[*at].fate = Fate::Again;
            }
        }
    }

    /// Commits what is about to be sent; if that fails nothing is sent, and false is answered.
    async fn note_intents(
        &mut self,
        items: &mut [Item],
        sent: &[usize],
        traces: &[String],
        value: impl Fn(&Item) -> Option<&str>,
    ) -> bool {
        let notes = notes(items, sent.iter().copied().zip(traces), value);
        if let Err(error) = self.door.store.note(self.object, self.generation, &notes).await {
            self.reason = Some(chain(&error));
            for at in sent {
                items[*at].fate = Fate::Again;
            }
            return false;
        }
        for at in sent {
            items[*at].noted = true;
        }
        true
    }

    /// Creates what is to be created: by upsert where HubSpot keeps the natural key unique.
    pub(super) async fn create(&mut self, items: &mut [Item]) {
        self.act = Some(Act::Create);
        let sent: Vec<usize> = (0..items.len())
            .filter(|at| items[*at].creates().is_some())
            .collect();
        let rules = self.rules();
        let (false, Some(match_on)) = (sent.is_empty(), rules.match_on.as_deref()) else {
            return;
        };
        let traces = traces(&sent);
        let names: Vec<String> = sent
            .iter()
            .filter_map(|at| Some(rules.normalise(items[*at].creates()?)))
            .collect();
        let slot = match self.slot(sent.len()).await {
            Ok(slot) => slot,
            Err(unsent) => return self.failed(items, &sent, unsent),
        };
        let noting = Instant::now();
        if !self.note_intents(items, &sent, &traces, Item::creates).await {
            return;
        }
        let late = noting.elapsed() > NOTE_MAX;
        let ours = self.still_ours(sent.len());
        if let Err(failed) = ours.and_then(|()| {
            if late {
                Err(Failed::unsent(sent.len(), self.object_type()))
            } else {
                Ok(())
            }
        }) {
            self.withdraw(items, &sent, &traces).await;
            return self.failed(items, &sent, failed);
        }
        self.begin(items, &sent);
        let reply = self.send_creates(slot, match_on, items, &sent, &traces).await;
        match &reply {
            Err(failed) if failed.is_unknown() => {
                for (at, name) in sent.iter().zip(&names) {
                    items[*at].pending = true;
                    self.doubt(items[*at].key(), name, true);
                }
            }
            Err(_) => self.withdraw(items, &sent, &traces).await,
            Ok(_) => {}
        }
        let normalise = |value: &str| rules.normalise(value);
        self.settle(items, &sent, &traces, &names, reply, By::Match(&normalise));
    }

    async fn send_creates(
        &self,
        slot: hubspot::Slot,
        match_on: &str,
        items: &[Item],
        sent: &[usize],
        traces: &[String],
    ) -> Result<BatchReply, Failed> {
        let client = &self.door.client;
        let pairs = || sent.iter().map(|at| &items[*at]).zip(traces);
        if self.rules().guarded {
            let inputs: Vec<CreateInput<'_>> = pairs()
                .map(|(item, trace)| CreateInput {
                    trace,
                    properties: &item.record().properties,
                })
                .collect();
            return client.create(slot, self.object_type(), match_on, &inputs).await;
        }
        let inputs: Vec<UpsertInput<'_>> = pairs()
            .filter_map(|(item, trace)| {
                Some(UpsertInput {
                    trace,
                    match_value: item.creates()?,
                    properties: &item.record().properties,
                })
            })
            .collect();
        client.upsert(slot, self.object_type(), match_on, &inputs).await
    }

    /// HubSpot has not done these creates and will not: rows that had none in doubt before need not be searched for.
    async fn withdraw(&mut self, items: &[Item], sent: &[usize], traces: &[String]) {
        let fresh = sent
            .iter()
            .copied()
            .zip(traces)
            .filter(|(at, _)| !items[*at].pending);
        let notes = notes(items, fresh, |_| None);
        if notes.is_empty() {
            return;
        }
        if let Err(error) = self.door.store.withdraw(self.object, &notes).await {
            debug!(
                "creates that were not done stay noted, and are asked for before they are repeated: {}",
                chain(&error)
            );
        }
    }
}

fn notes<'t>(
    items: &[Item],
    sent: impl Iterator<Item = (usize, &'t String)>,
    value: impl Fn(&Item) -> Option<&str>,
) -> Vec<Noted> {
    let note = |(at, trace): (usize, &String)| Noted {
        key: Key::clone(items[at].key()),
        match_value: value(&items[at]).map(str::to_owned),
        trace: trace.clone(),
    };
    sent.map(note).collect()
}
