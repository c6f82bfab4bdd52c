//! Links: the associations of accepted records, made and removed after the record exists.
//!
//! What is to be done about each is decided by [`crate::sync::linking`]; here it is carried out for a whole batch,
//! link by link: HubSpot is asked what it holds (not for a record that was created a moment ago), what will be made
//! is committed to our memory, made, and only then what was linked before is removed ([`super::unlink`]). The receipt
//! writes down what came of it.

use super::item::{Fate, Item, Links};
use super::lookup::claim_of;
use super::send::{SILENT_ATTEMPTS, Sending, denial};
use super::{Door, LinkKind, Way, micros};
use crate::hubspot::{
    ASSOCIATION_READ_MAX, AssociationKind, AssociationType, Disposition, Failed, FoundLink, Lane, ReadLinks,
};
use crate::sync::answer::Denial;
use crate::sync::change::{Key, ObjectIndex};
use crate::sync::linking::{Answer, Beside, Clock, Linking, Note, Pair, Seen};
use crate::sync::outcome::Refusal;
use crate::sync::plan::Step;
use crate::sync::record::Record;
use crate::sync::report::chain;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use tokio_util::sync::CancellationToken;

/// The most pairs a request carries.
const PAIRS_MAX: usize = 100;

/// One link of one record on its way.
pub(super) struct Job {
    pub(super) item: usize,
    pub(super) key: Key,
    pub(super) link: usize,
    pub(super) linking: Linking,
    /// The record was created a moment ago.
    is_new: bool,
    /// How often HubSpot has been asked for this before.
    attempts: u32,
    /// What HubSpot held of the record's pairs before: target → types.
    held: HashMap<String, Vec<AssociationType>>,
    refusal: Option<Refusal>,
    again: bool,
}

impl Job {
    /// What HubSpot held of the pair with `to`.
    pub(super) fn seen(&self, kind: &LinkKind, to: &str) -> Option<Seen> {
        self.held.get(to).map(|types| kind.seen(types))
    }

    /// The same of all its pairs.
    pub(super) fn all_seen(&self, kind: &LinkKind) -> HashMap<String, Seen> {
        let seen = self.held.iter().map(|(to, types)| (to.clone(), kind.seen(types)));
        seen.collect()
    }

    /// The pair with `to`, with the row's key.
    pub(super) fn pair(&self, to: &str) -> (Key, Pair) {
        let pair = Pair {
            from: self.linking.from().to_owned(),
            to: to.to_owned(),
        };
        (self.key.clone(), pair)
    }

    /// Whether nothing stands in the way of the next step.
    pub(super) fn goes_on(&self) -> bool {
        !self.again
    }

    /// The outcome of a step was not learned: the record is pushed again.
    pub(super) fn put_off(&mut self) {
        self.again = true;
    }

    /// Takes in what became of a request about the link, with HubSpot's reason if it was refused.
    pub(super) fn answered(&mut self, said: Said) -> Answer {
        match said {
            Said::Done => Answer::Done,
            Said::Refused(refusal) => {
                self.refusal.get_or_insert(refusal);
                Answer::Refused
            }
            Said::Silent if self.attempts >= SILENT_ATTEMPTS => {
                self.refusal.get_or_insert_with(unconfirmed);
                Answer::Undone
            }
            Said::Silent | Said::Nothing => {
                self.again = true;
                Answer::Undone
            }
            Said::Lost => {
                self.again = true;
                Answer::Unknown
            }
        }
    }
}

/// What HubSpot said of one pair.
#[derive(Debug, Clone)]
pub(super) enum Said {
    /// It is as it should be.
    Done,
    Refused(Refusal),
    /// It answered, without an error, and the pair is not as it should be.
    Silent,
    /// Nothing was sent, or nothing done.
    Nothing,
    /// No answer came: it may have been done, and may still be.
    Lost,
}

impl Sending<'_> {
    /// Brings the links of accepted records to where their rows lead.
    pub(super) async fn link(&mut self, items: &mut [Item]) {
        let mut jobs = self.jobs(items);
        self.look(&mut jobs).await;
        self.make(&mut jobs).await;
        self.remove(&mut jobs).await;
        for job in jobs {
            let notes = job.linking.notes(&self.kind(job.link).name);
            if let Fate::Accepted { links, .. } = &mut items[job.item].fate {
                links.add(notes, job.refusal, job.again);
            }
        }
    }

    pub(super) fn kind(&self, link: usize) -> &LinkKind {
        &self.door.objects[self.object].links[link]
    }

    /// What there is to do, by link.
    fn jobs(&self, items: &[Item]) -> Vec<Job> {
        let mut jobs = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let Fate::Accepted { id, adopted, .. } = &item.fate else {
                continue;
            };
            let record = item.record();
            let clock = self.clock(record);
            for (link, (target, remembered)) in record.targets.iter().zip(&record.linked).enumerate() {
                let labelled = self.kind(link).label.is_some();
                let merged = item.merged_from.as_deref();
                let Some(linking) = Linking::new(id, merged, labelled, target, remembered, clock) else {
                    continue;
                };
                jobs.push(Job {
                    item: at,
                    key: item.key().clone(),
                    link,
                    linking,
                    is_new: matches!(item.step, Step::Create(_)) && !adopted,
                    attempts: item.claimed.attempts,
                    held: HashMap::new(),
                    refusal: None,
                    again: false,
                });
            }
        }
        jobs.sort_by_key(|job| job.link);
        jobs
    }

    /// The clock of a record's links: while the row is due to be pushed once more, or a former holder's request may
    /// land, none of its own is settled.
    fn clock(&self, record: &Record) -> Clock {
        let settle = micros(self.door.settle);
        let intent = record.intent.as_ref();
        let waiting = intent.filter(|intent| !intent.is_due(self.read_at));
        let due = waiting.and_then(|intent| intent.due_at);
        let former = self.door.lease.former_until();
        let landed = former.map(|until| until.saturating_add(settle));
        Clock {
            now: self.read_at,
            settle,
            quiet: due.max(landed).unwrap_or(i64::MIN),
        }
    }

    /// Asks HubSpot what it holds, where that matters.
    async fn look(&mut self, jobs: &mut [Job]) {
        for link in links(jobs) {
            let asking = |job: &Job| job.link == link && job.linking.asks(job.is_new);
            let asked: Vec<&Job> = jobs.iter().filter(|job| asking(job)).collect();
            let from: Vec<String> = asked.iter().map(|job| job.linking.from().to_owned()).collect();
            if from.is_empty() {
                continue;
            }
            match self.door.associations(self.way, link, &from).await {
                Ok(found) => {
                    let mut by_record: HashMap<String, HashMap<String, Vec<AssociationType>>> =
                        HashMap::new();
                    for found in found {
                        by_record
                            .entry(found.from)
                            .or_default()
                            .insert(found.to, found.types);
                    }
                    for job in jobs.iter_mut().filter(|job| asking(job)) {
                        job.held = by_record.get(job.linking.from()).cloned().unwrap_or_default();
                    }
                }
                Err(failed) => {
                    self.reason = Some(chain(&failed));
                    jobs.iter_mut().filter(|job| asking(job)).for_each(Job::put_off);
                }
            }
        }
    }

    /// Makes the links to the targets.
    async fn make(&mut self, jobs: &mut [Job]) {
        for link in links(jobs) {
            self.decide(jobs, link).await;
        }
        self.note(jobs).await;
        for link in links(jobs) {
            let open = |job: &Job| job.link == link && job.goes_on() && job.linking.is_making();
            let mut sent: Vec<usize> = (0..jobs.len()).filter(|at| open(&jobs[*at])).collect();
            while !sent.is_empty() {
                let rest = sent.split_off(sent.len().min(PAIRS_MAX));
                let pairs: Vec<Pair> = sent.iter().filter_map(|at| to_make(&jobs[*at])).collect();
                let types: Vec<Vec<AssociationType>> = sent.iter().map(|at| self.types(&jobs[*at])).collect();
                let said = self.associate_all(link, &pairs, &types).await;
                for (at, said) in sent.into_iter().zip(said) {
                    self.doubt_link(&jobs[at], &said);
                    let answer = jobs[at].answered(said);
                    jobs[at].linking.made(answer);
                }
                sent = rest;
            }
        }
    }

    /// Decides how the links of one kind are made.
    async fn decide(&mut self, jobs: &mut [Job], link: usize) {
        let kind = self.kind(link).clone();
        let open: Vec<usize> = (0..jobs.len())
            .filter(|at| jobs[*at].link == link && jobs[*at].goes_on())
            .collect();
        let target = |job: &Job| {
            let to = job.linking.to_make()?.to_owned();
            Some((job.seen(&kind, &to), to))
        };
        let mut unsure = Vec::new();
        for at in &open {
            if let Some((seen, to)) = target(&jobs[*at])
                && jobs[*at].linking.asks_memory(seen)
            {
                unsure.push((*at, jobs[*at].pair(&to)));
            }
        }
        let asked: Vec<usize> = unsure.iter().map(|(at, _)| *at).collect();
        let beside = self.beside(jobs, link, &unsure).await;
        let mut beside: HashMap<usize, Vec<Beside>> = asked.into_iter().zip(beside).collect();
        for at in open {
            if let Some((seen, _)) = target(&jobs[at]).filter(|_| jobs[at].goes_on()) {
                let others = beside.remove(&at).unwrap_or_default();
                jobs[at].linking.make(seen, &others);
            }
        }
    }

    /// The types of a labelled pair: ours and, since what is not named goes, those that it has.
    fn types(&self, job: &Job) -> Vec<AssociationType> {
        let held = job.linking.to_make().and_then(|to| job.held.get(to));
        let ours = self.kind(job.link).label.iter();
        held.into_iter().flatten().chain(ours).cloned().collect()
    }

    /// Who else linked these pairs, given with their jobs; if the database does not say, the jobs are put off.
    pub(super) async fn beside(
        &mut self,
        jobs: &mut [Job],
        link: usize,
        asked: &[(usize, (Key, Pair))],
    ) -> Vec<Vec<Beside>> {
        if asked.is_empty() {
            return Vec::new();
        }
        let pairs: Vec<(Key, Pair)> = asked.iter().map(|(_, pair)| pair.clone()).collect();
        match self.door.store.links_beside(self.object, link, &pairs).await {
            Ok(beside) => beside,
            Err(error) => {
                self.reason = Some(chain(&error));
                for (at, _) in asked {
                    jobs[*at].put_off();
                }
                Vec::new()
            }
        }
    }

    /// Commits what is remembered so far of the links whose requests follow; without the lease none follow.
    pub(super) async fn note(&self, jobs: &mut [Job]) {
        let is_under_way = |job: &Job| job.goes_on() && job.linking.is_under_way();
        let mut notes: Vec<(Key, Note)> = Vec::new();
        for job in jobs.iter().filter(|job| is_under_way(job)) {
            let of_job = job.linking.notes(&self.kind(job.link).name);
            notes.extend(of_job.into_iter().map(|note| (job.key.clone(), note)));
        }
        if notes.is_empty() {
            return;
        }
        let noted = self.door.note_links(self.object, self.generation, &notes).await;
        if !noted {
            let jobs = jobs.iter_mut().filter(|job| is_under_way(job));
            jobs.for_each(Job::put_off);
        }
    }

    /// Makes some links of one kind; what HubSpot refuses as a whole is halved until the bad one stands alone.
    async fn associate_all(
        &mut self,
        link: usize,
        pairs: &[Pair],
        types: &[Vec<AssociationType>],
    ) -> Vec<Said> {
        let mut said = vec![Said::Nothing; pairs.len()];
        let mut parts: Vec<Range<usize>> = std::iter::once(0..pairs.len()).collect();
        while let Some(part) = parts.pop() {
            let asked = self
                .associate(link, &pairs[part.clone()], &types[part.clone()])
                .await;
            self.take_in(&mut said, &mut parts, part, pairs, asked);
        }
        said
    }

    /// Writes down what a request about a part of `pairs` said, or halves the part.
    pub(super) fn take_in(
        &mut self,
        said: &mut [Said],
        parts: &mut Vec<Range<usize>>,
        part: Range<usize>,
        pairs: &[Pair],
        asked: Result<Vec<Said>, Failed>,
    ) {
        match asked {
            Ok(answers) => part.zip(answers).for_each(|(at, answer)| said[at] = answer),
            Err(failed) if splits(&failed) && part.len() > 1 => {
                let middle = part.start + part.len() / 2;
                parts.extend([part.start..middle, middle..part.end]);
            }
            Err(failed) if splits(&failed) => {
                said[part.start] = Said::Refused(refusal(failed.refusal(), &pairs[part.start]));
            }
            Err(failed) => {
                self.fate_of(1, &failed);
                if failed.is_unknown() {
                    said[part].fill(Said::Lost);
                }
            }
        }
    }

    /// The record is pushed once more, with its links, when a request that was lost can be carried out no more.
    pub(super) fn doubt_link(&self, job: &Job, said: &Said) {
        if matches!(said, Said::Lost) {
            self.doubt(&job.key, &claim_of(job.linking.from()), false);
        }
    }

    /// One request; answers what became of each pair. Pairs that the answer does not confirm are read back.
    async fn associate(
        &mut self,
        link: usize,
        pairs: &[Pair],
        types: &[Vec<AssociationType>],
    ) -> Result<Vec<Said>, Failed> {
        let kind = self.kind(link).clone();
        let ends: Vec<(&str, &str)> = pairs.iter().map(|pair| (&*pair.from, &*pair.to)).collect();
        let association = match &kind.label {
            None => AssociationKind::Default,
            Some(_) => AssociationKind::Labelled(types),
        };
        let slot = self.slot(pairs.len()).await?;
        self.begin(&mut [], &[]);
        let client = &self.door.client;
        let reply = client
            .associate(slot, self.object_type(), &kind.to_type, association, &ends)
            .await?;
        let correlation_id = reply.correlation_id.as_deref();
        let errors: Vec<Denial> = reply
            .errors
            .iter()
            .map(|error| denial(error, correlation_id))
            .collect();
        let made = reply.made.into_iter().map(|(from, to)| Pair { from, to });
        let made: HashSet<Pair> = made.collect();
        let unsaid: Vec<&Pair> = pairs.iter().filter(|pair| !made.contains(*pair)).collect();
        let held = self.held(link, &unsaid, |seen| seen.ours).await?;
        Ok(verdicts(pairs, &errors, |pair| {
            made.contains(pair) || held.contains(pair)
        }))
    }

    /// Those of the pairs that HubSpot holds in such a way.
    pub(super) async fn held(
        &mut self,
        link: usize,
        pairs: &[&Pair],
        holds: impl Fn(Seen) -> bool,
    ) -> Result<HashSet<Pair>, Failed> {
        if pairs.is_empty() {
            return Ok(HashSet::new());
        }
        let from: Vec<String> = pairs.iter().map(|pair| pair.from.clone()).collect();
        let found = self.door.associations(self.way, link, &from).await?;
        let kind = self.kind(link);
        let found = found.into_iter().filter(|found| holds(kind.seen(&found.types)));
        Ok(found
            .map(|found| Pair {
                from: found.from,
                to: found.to,
            })
            .collect())
    }
}

impl Door {
    /// The links of one kind that HubSpot holds from these records, as (from, to), every page of them.
    pub(in crate::daemon) async fn held_links(
        &self,
        object: ObjectIndex,
        link: usize,
        from: &[String],
        lane: Lane,
        stop: CancellationToken,
    ) -> Result<Vec<(String, String)>, Failed> {
        let way = Way {
            object,
            lane,
            stop,
            push: 0,
        };
        let found = self.associations(&way, link, from).await?;
        let kind = &self.objects[object].links[link];
        let ours = found.into_iter().filter(|found| kind.seen(&found.types).ours);
        Ok(ours.map(|found| (found.from, found.to)).collect())
    }

    /// Everything that HubSpot associates these records with, among those of a link's target type. A record of which
    /// an answer says nothing is asked for once more; then it has none.
    pub(super) async fn associations(
        &self,
        way: &Way,
        link: usize,
        from: &[String],
    ) -> Result<Vec<FoundLink>, Failed> {
        let object = way.object;
        let kind = &self.objects[object].links[link];
        let from_type = &self.mapping.objects[object].object_type;
        let mut from = from.to_vec();
        from.sort();
        from.dedup();
        let mut held = Vec::new();
        let mut unsaid: HashSet<String> = from.iter().cloned().collect();
        let mut next: Vec<(String, Option<String>)> = from.into_iter().map(|id| (id, None)).collect();
        let mut asked_again = false;
        while !next.is_empty() {
            let rest = next.split_off(next.len().min(ASSOCIATION_READ_MAX));
            let inputs: Vec<ReadLinks<'_>> = next
                .iter()
                .map(|(id, after)| ReadLinks {
                    id,
                    after: after.as_deref(),
                })
                .collect();
            let slot = self.slot(way, inputs.len()).await?.slot;
            let page = self
                .client
                .read_associations(slot, from_type, &kind.to_type, &inputs)
                .await?;
            for id in page.links.iter().map(|found| &found.from).chain(&page.without) {
                unsaid.remove(id);
            }
            held.extend(page.links);
            next = rest;
            next.extend(page.next.into_iter().map(|(id, after)| (id, Some(after))));
            if next.is_empty() && !asked_again {
                asked_again = true;
                next.extend(unsaid.drain().map(|id| (id, None)));
            }
        }
        Ok(held)
    }
}

impl Links {
    /// Adds what became of one link; a refusal wins over a delay, and both over success.
    fn add(&mut self, notes: Vec<Note>, refusal: Option<Refusal>, again: bool) {
        let (mut all, refused, put_off) = match std::mem::replace(self, Links::Made(Vec::new())) {
            Links::Made(notes) => (notes, None, false),
            Links::Again(notes) => (notes, None, true),
            Links::Refused(notes, refusal) => (notes, Some(refusal), false),
        };
        all.extend(notes);
        *self = match refused.or(refusal) {
            Some(refusal) => Links::Refused(all, refusal),
            None if again || put_off => Links::Again(all),
            None => Links::Made(all),
        };
    }
}

/// The links that jobs are about, in order.
pub(super) fn links(jobs: &[Job]) -> Vec<usize> {
    let mut links: Vec<usize> = jobs.iter().map(|job| job.link).collect();
    links.dedup();
    links
}

fn to_make(job: &Job) -> Option<Pair> {
    let to = job.linking.to_make()?;
    Some(job.pair(to).1)
}

/// What an answer that holds `errors` says of each pair, where `done` knows those that are as they should be.
pub(super) fn verdicts(pairs: &[Pair], errors: &[Denial], done: impl Fn(&Pair) -> bool) -> Vec<Said> {
    let said = pairs.iter().map(|pair| {
        if done(pair) {
            return Said::Done;
        }
        match denial_of(errors, pair, pairs.len()) {
            Some(denial) => Said::Refused(refusal(denial.refusal.clone(), pair)),
            None => Said::Silent,
        }
    });
    said.collect()
}

/// The error that concerns a pair: one that names an end of it, or any at all, since a pair that is not as it should
/// be after errors were reported was refused by one of them.
fn denial_of<'a>(errors: &'a [Denial], pair: &Pair, count: usize) -> Option<&'a Denial> {
    let names = |denial: &&Denial| denial.ids.iter().any(|id| *id == pair.to || *id == pair.from);
    let named = errors.iter().find(names);
    named.or_else(|| errors.iter().find(|denial| denial.ids.is_empty() || count == 1))
}

fn splits(failed: &Failed) -> bool {
    matches!(failed.disposition, Disposition::Split | Disposition::Reject)
}

/// A link's refusal: HubSpot's reason, under our category, naming both ends.
fn refusal(reason: Refusal, pair: &Pair) -> Refusal {
    Refusal {
        category: "link".to_owned(),
        message: format!(
            "the record stands in HubSpot as {} but its link to {} cannot be changed: {}; correct the id it points to",
            pair.from, pair.to, reason.message
        ),
        ..reason
    }
}

fn unconfirmed() -> Refusal {
    Refusal::ours(
        "link",
        format!(
            "HubSpot answered {SILENT_ATTEMPTS} times without changing a link of this record; look at its associations \
             there"
        ),
    )
}
