//! Archiving: the HubSpot records of rows that were deleted, where `on-delete = "archive"`.
//!
//! What becomes of each is decided in [`crate::sync::deletion`], from what the tables say. One question at a time is
//! asked and noted, so that the brake counts every deletion once. A record is archived only if HubSpot knows it by
//! just this id: a record that was merged into another answers under that one's id, and is left alone. HubSpot's
//! answer names no record, so a batch that it refuses is halved; archiving twice does no harm.

use super::item::{Fate, Item};
use super::record::blank_entry;
use super::send::Sending;
use super::{Door, Tally, Way};
use crate::daemon::board::Counted;
use crate::hubspot::{BatchReply, Disposition, Failed, Lane};
use crate::mapping::OnDelete;
use crate::postgres::receipt::{Entry, Receipt};
use crate::sync::backlog::Release;
use crate::sync::change::{Key, ObjectIndex};
use crate::sync::deletion::{BRAKE, Orphan, Verdict, decide, refusal};
use crate::sync::outcome::Refusal;
use crate::sync::pausing::Halving;
use crate::sync::report::chain;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// What became of an orphan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// It is archived.
    Archived,
    /// It is no orphan: a row holds it, or deleted rows are kept.
    Left,
    /// HubSpot does not know it, or not by this id.
    Over,
    /// It stays for now, and is listed.
    Refused(Refusal),
    /// Its outcome was not learned; it is asked for again.
    Again,
}

impl Ending {
    /// Writes it into the entry of the row that was lost.
    pub(super) fn write(&self, id: &str, entry: &mut Entry) {
        match self {
            Ending::Archived | Ending::Over => entry.archived.push(id.to_owned()),
            Ending::Left => entry.left.push(id.to_owned()),
            Ending::Refused(refusal) => entry.unarchived.push((id.to_owned(), refusal.clone())),
            Ending::Again => {}
        }
    }
}

impl Sending<'_> {
    /// Archives what the items' rows were in HubSpot, as far as the rows themselves are done with.
    pub(super) async fn archive_lost(&mut self, items: &mut [Item]) {
        let settled = |item: &Item| !matches!(item.fate, Fate::Open | Fate::Again | Fate::Held | Fate::Split);
        let mut orphans = Vec::new();
        let mut places = Vec::new();
        for (at, item) in items.iter().enumerate().filter(|(_, item)| settled(item)) {
            for id in &item.claimed.orphans {
                places.push(at);
                orphans.push(Orphan {
                    key: item.key().clone(),
                    hubspot_id: id.clone(),
                    released: false,
                });
            }
        }
        let endings = self.archive(&orphans).await;
        for ((at, orphan), ending) in places.into_iter().zip(orphans).zip(endings) {
            items[at].orphans.push((orphan.hubspot_id, ending));
        }
    }

    /// Archives orphans whose keys are claimed; answers what became of each, in their order.
    async fn archive(&mut self, orphans: &[Orphan]) -> Vec<Ending> {
        let mut endings = vec![Ending::Again; orphans.len()];
        if orphans.is_empty() {
            return endings;
        }
        if self.door.mapping.objects[self.object].on_delete == OnDelete::Keep {
            return vec![Ending::Left; orphans.len()];
        }
        let claims: Vec<(Key, String)> = orphans
            .iter()
            .map(|orphan| (orphan.key.clone(), super::lookup::claim_of(&orphan.hubspot_id)))
            .collect();
        // Another row is being given this record, or lost it too; afterwards it is seen what becomes of it.
        let elsewhere = self.door.desk.backlog().claim_matches(self.object, &claims);
        let mine: Vec<usize> = (0..orphans.len())
            .filter(|at| !elsewhere.contains(&orphans[*at].key))
            .collect();
        for (at, ending) in self.choose(orphans, &mine).await {
            endings[at] = ending;
        }
        endings
    }

    /// Decides, asks HubSpot, notes, and archives those at `mine`.
    async fn choose(&mut self, orphans: &[Orphan], mine: &[usize]) -> Vec<(usize, Ending)> {
        let asked: Vec<Orphan> = mine.iter().map(|at| orphans[*at].clone()).collect();
        let door = self.door;
        let one_at_a_time = door.desk.archiving().await;
        let findings = match door.store.orphans(self.object, &asked).await {
            Ok(findings) => findings,
            Err(error) => {
                self.reason = Some(chain(&error));
                return Vec::new();
            }
        };
        if let Some(why) = findings.hidden {
            self.reason = Some(format!("no record of a deleted row is archived: {why}"));
            return Vec::new();
        }
        let mut endings = Vec::new();
        let mut wanted = Vec::new();
        for (at, verdict) in mine.iter().zip(decide(&asked, &findings)) {
            match (verdict, refusal(verdict, &orphans[*at])) {
                (Verdict::Archive, _) => wanted.push(*at),
                (_, Some(refusal)) => endings.push((*at, Ending::Refused(refusal))),
                (_, None) => endings.push((*at, Ending::Left)),
            }
        }
        let (there, mut rest) = self.known(orphans, wanted).await;
        endings.append(&mut rest);
        let noted: Vec<Orphan> = there.iter().map(|at| orphans[*at].clone()).collect();
        if noted.is_empty() {
            return endings;
        }
        if let Err(error) = door.store.archiving(self.object, self.generation, &noted).await {
            self.reason = Some(chain(&error));
            return endings;
        }
        drop(one_at_a_time);
        endings.extend(self.archive_known(orphans, there).await);
        endings
    }

    /// Those of the orphans that HubSpot knows by their id, and the endings of the others.
    async fn known(&mut self, orphans: &[Orphan], wanted: Vec<usize>) -> (Vec<usize>, Vec<(usize, Ending)>) {
        let (mut there, mut endings) = (Vec::new(), Vec::new());
        let mut parts = vec![wanted];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let ids = ids(orphans, &part);
            match self.read_by(None, &ids, &[]).await {
                Ok(found) => {
                    let found: HashSet<String> = found.into_iter().map(|found| found.id).collect();
                    for at in part {
                        if found.contains(&orphans[at].hubspot_id) {
                            there.push(at);
                            continue;
                        }
                        match self.alone(orphans, at).await {
                            None => there.push(at),
                            Some(ending) => endings.push((at, ending)),
                        }
                    }
                }
                Err(failed) if refuses(&failed) && part.len() > 1 => {
                    let second = part.split_off(part.len() / 2);
                    parts.extend([part, second]);
                }
                Err(failed) => endings.extend(self.failed_to_archive(orphans, part, &failed)),
            }
        }
        (there, endings)
    }

    /// What becomes of an orphan that a batch does not find: an answer may leave one out without a word, so it is asked
    /// for alone before it is believed to be gone, or merged into another. `None`: it is there.
    async fn alone(&mut self, orphans: &[Orphan], at: usize) -> Option<Ending> {
        let id = &orphans[at].hubspot_id;
        match self.get(id).await {
            Ok(Some(same)) if same == *id => None,
            Ok(_) => Some(Ending::Over),
            Err(failed) => {
                let mut endings = self.failed_to_archive(orphans, vec![at], &failed);
                endings.pop().map(|(_, ending)| ending)
            }
        }
    }

    /// Archives records that are there; what HubSpot refuses as a whole is halved until the bad one stands alone.
    async fn archive_known(&mut self, orphans: &[Orphan], there: Vec<usize>) -> Vec<(usize, Ending)> {
        let mut endings = Vec::new();
        let mut parts = vec![there];
        while let Some(mut part) = parts.pop() {
            let ids = ids(orphans, &part);
            let reply = match self.slot(ids.len()).await {
                Ok(slot) => self.door.client.archive(slot, self.object_type(), &ids).await,
                Err(unsent) => Err(unsent),
            };
            let halve = match &reply {
                Ok(reply) => names_nobody(reply),
                Err(failed) => refuses(failed),
            };
            match reply {
                _ if halve && part.len() > 1 => {
                    let second = part.split_off(part.len() / 2);
                    parts.extend([part, second]);
                }
                Ok(reply) => {
                    endings.extend(part.into_iter().map(|at| (at, ending(&reply, &orphans[at]))));
                }
                Err(failed) => {
                    if failed.is_unknown() {
                        self.note_late(orphans, &part).await;
                    }
                    endings.extend(self.failed_to_archive(orphans, part, &failed));
                }
            }
        }
        endings
    }

    /// Notes that a request to archive these may land from now on: it may have waited long before it was started.
    async fn note_late(&mut self, orphans: &[Orphan], part: &[usize]) {
        let late: Vec<Orphan> = part.iter().map(|at| orphans[*at].clone()).collect();
        let noted = self.door.store.archiving(self.object, self.generation, &late);
        if let Err(error) = noted.await {
            self.reason = Some(chain(&error));
        }
    }

    /// What the failure of a request means for the orphans it was about.
    fn failed_to_archive(
        &mut self,
        orphans: &[Orphan],
        part: Vec<usize>,
        failed: &Failed,
    ) -> Vec<(usize, Ending)> {
        let ending = if failed.is_not_found() {
            Ending::Over
        } else if refuses(failed) {
            let id = part.first().map(|at| orphans[*at].hubspot_id.as_str());
            Ending::Refused(refused(id.unwrap_or_default(), failed.refusal()))
        } else {
            self.act = None;
            self.fate_of(1, failed);
            Ending::Again
        };
        part.into_iter().map(|at| (at, ending.clone())).collect()
    }
}

impl Door {
    /// Tries again to archive orphans that are listed as failures. What is not to be had now is answered in
    /// [`Tally::again`].
    pub(in crate::daemon) async fn archive(
        &self,
        object: ObjectIndex,
        orphans: &[Orphan],
        stop: CancellationToken,
    ) -> Tally {
        let mut tally = Tally::default();
        let way = Way {
            object,
            lane: Lane::Sweep,
            stop,
            push: self.begins(object),
        };
        let leave = match self.slot(&way, orphans.len()).await {
            Ok(leave) => leave,
            Err(unsent) => {
                tally.reason = Some(chain(&unsent));
                tally
                    .again
                    .extend(orphans.iter().map(|orphan| orphan.key.clone()));
                return tally;
            }
        };
        let mut keys: Vec<Key> = orphans.iter().map(|orphan| orphan.key.clone()).collect();
        keys.dedup();
        let claimed = {
            let mut backlog = self.desk.backlog();
            let page = backlog.page_begins();
            let claimed = backlog.claim_swept(object, &keys, page, self.desk.now());
            backlog.page_ends(page);
            claimed
        };
        // A key with a change is its batch's business; the next sweep comes back to what was listed.
        let orphans: Vec<Orphan> = orphans
            .iter()
            .filter(|orphan| claimed.iter().any(|claimed| claimed.key == orphan.key))
            .cloned()
            .collect();
        let generation = leave.generation;
        // No row was read: archiving asks for no time.
        let mut sending = Sending::new(self, &way, leave, 0);
        let endings = sending.archive(&orphans).await;
        self.judge(&way, &mut Halving::default(), &mut sending, &mut []);
        tally.barred = self.paused(object);
        tally.reason = sending.reason.take();
        let mut entries: BTreeMap<Key, Entry> = claimed
            .iter()
            .map(|claimed| (claimed.key.clone(), blank_entry(claimed, None)))
            .collect();
        for (orphan, ending) in orphans.iter().zip(&endings) {
            if *ending == Ending::Again {
                tally.again.push(orphan.key.clone());
            }
            if let Some(entry) = entries.get_mut(&orphan.key) {
                ending.write(&orphan.hubspot_id, entry);
            }
        }
        let receipt = Receipt {
            object,
            generation,
            read_at: 0,
            entries: entries.into_values().collect(),
        };
        if self.write_receipt(object, receipt).await.is_some() {
            let ids = orphans.iter().map(|orphan| orphan.hubspot_id.clone());
            let ended: Vec<(String, Ending)> = ids.zip(endings).collect();
            self.count_archived(object, &ended, false, &mut tally);
        }
        let released = claimed.into_iter().map(|claimed| (claimed, Release::Done));
        self.desk.release(object, released);
        tally
    }

    /// Counts what became of orphans once it is written down, and tells of what was refused, if it is news.
    pub(super) fn count_archived(
        &self,
        object: ObjectIndex,
        endings: &[(String, Ending)],
        news: bool,
        tally: &mut Tally,
    ) {
        let name = &self.mapping.objects[object].name;
        let (mut archived, mut braked) = (0, 0);
        for (id, ending) in endings {
            self.failures_changed.store(true, Ordering::Release);
            match ending {
                Ending::Archived => archived += 1,
                Ending::Refused(refusal) if refusal.category == BRAKE => braked += 1,
                Ending::Refused(refusal) => {
                    tally.failed += 1;
                    self.board.count(object, Counted::Failed, 1);
                    if news {
                        warn!(object = %name, hubspot_id = %id, category = %refusal.category,
                            correlation_id = refusal.correlation_id.as_deref(),
                            "the record of a deleted row is not archived; it is listed by `hubsyncd failures` and tried \
                             again by every sweep: {}", refusal.message);
                    }
                }
                Ending::Left | Ending::Over | Ending::Again => {}
            }
        }
        tally.archived += archived;
        self.board.count(object, Counted::Archived, archived);
        if braked > 0 {
            warn!(object = %name, held = braked, "more than 20 and more than 1 % of the rows were deleted within an hour: their \
                HubSpot records stay until somebody says so; if this was meant: hubsyncd sweep --archive");
        }
    }
}

fn ids<'o>(orphans: &'o [Orphan], part: &[usize]) -> Vec<&'o str> {
    part.iter().map(|at| &*orphans[*at].hubspot_id).collect()
}

fn refuses(failed: &Failed) -> bool {
    matches!(failed.disposition, Disposition::Split | Disposition::Reject)
}

/// Whether something was refused and the reply does not say what.
fn names_nobody(reply: &BatchReply) -> bool {
    reply
        .errors
        .iter()
        .any(|error| error.ids.is_empty() && !error.is_not_found())
}

/// What a reply to a batch says of one orphan: only what was refused is named.
fn ending(reply: &BatchReply, orphan: &Orphan) -> Ending {
    let concerns = |ids: &[String]| ids.is_empty() || ids.contains(&orphan.hubspot_id);
    let refused_it = reply
        .errors
        .iter()
        .find(|error| !error.is_not_found() && concerns(&error.ids));
    match refused_it {
        None => Ending::Archived,
        Some(error) => {
            let refusal = error.refusal(reply.correlation_id.as_deref());
            Ending::Refused(refused(&orphan.hubspot_id, refusal))
        }
    }
}

/// A refusal to archive: HubSpot's reason, under our category.
fn refused(id: &str, reason: Refusal) -> Refusal {
    Refusal {
        category: "archive".to_owned(),
        message: format!(
            "HubSpot refuses to archive record {id}, whose row was deleted: {}; every sweep tries it again; archive it in \
             HubSpot if it does not help",
            reason.message
        ),
        ..reason
    }
}
