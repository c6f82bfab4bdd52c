//! The door: one batch, from row ids to receipts.
//!
//! Everything HubSpot learns from us passes through [`Door::push`], whether a trigger named the rows or a
//! sweep did: claim, read, plan, send, record. A row is claimed before it is read and released after its
//! receipt, so two writes of one row cannot overtake each other. The rows are read once a slot is granted and
//! again for every attempt; no old body is ever sent twice.
//!
//! Between HubSpot's answer and the receipt nothing cancels the task: shutdown waits for it. The door does not
//! decide *when* to push (that is `collect` and `sweep`), nor *what* (that is [`crate::sync::plan`]).

mod archive;
mod buried;
mod create;
mod doubt;
mod item;
mod kind;
mod link;
mod lookup;
mod owe;
mod pausing;
mod record;
mod send;
pub mod store;
mod unlink;

use super::board::Board;
use super::desk::Desk;
use super::lease::Hold;
use super::trouble::Trouble;
use crate::config::Touch;
use crate::hubspot::{Client, Failed, Lane, Pace, Slot};
use crate::mapping::Mapping;
use crate::postgres::audit::AuditLog;
use crate::postgres::catalog::Shape;
use crate::postgres::{self, ErrorKind};
use crate::sync::backlog::{Claimed, Release};
use crate::sync::change::{Change, Key, ObjectIndex};
use crate::sync::doubt::Doubts;
use crate::sync::guard::Guard;
use crate::sync::outcome::Refusal;
use crate::sync::pausing::Halving;
use crate::sync::plan::Rules;
use crate::sync::record::Read;
use crate::sync::report::chain;
use item::{Fate, Item};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::Store;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// The shortest pause before a row whose outcome was not learned is pushed again; doubled for each attempt.
const AGAIN_MIN: Duration = Duration::from_millis(500);
/// The longest such pause.
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// The pause before a row that waits for another row is tried again: nothing was sent for it.
const HELD_PAUSE: Duration = Duration::from_millis(100);

/// How one link of the mapping is made in HubSpot.
pub use kind::LinkKind;
/// What is paused.
pub use pausing::Pausing;

/// What the door knows of one object: its rules, its links.
pub struct Object {
    /// What is sent.
    pub rules: Rules,
    /// For each link of the mapping: the target's object type and how the link is made.
    pub links: Vec<LinkKind>,
    /// Why HubSpot does not say what must be known of it, if so; then nothing of it is read or sent.
    pub closed: Option<String>,
}

/// The one way out to HubSpot.
pub struct Door {
    /// The portal that the token belongs to.
    pub portal: i64,
    /// The mapping, for names and types.
    pub mapping: Arc<Mapping>,
    /// What is known of each object, by position in the mapping.
    pub objects: Vec<Object>,
    /// The database.
    pub store: Arc<dyn Store>,
    /// HubSpot.
    pub client: Arc<Client>,
    /// The request budget.
    pub pace: Arc<Pace>,
    /// The backlog and its claims.
    pub desk: Arc<Desk>,
    /// Where outcomes are counted.
    pub board: Arc<Board>,
    /// Which objects are paused, and why.
    pub pausing: Pausing,
    /// This daemon's hold on the lease; without it nothing is sent.
    pub lease: Arc<Hold>,
    /// The application's audit log, if it is mapped.
    pub audit: Option<AuditLog>,
    /// Whether all that waited at the start was pushed, or put off, so that sweeps may run.
    pub caught_up: AtomicBool,
    /// Whether failures came or went since they were counted.
    pub failures_changed: AtomicBool,
    /// How long a request whose outcome is unknown may still land.
    pub settle: Duration,
    /// The most records a request.
    pub max_records: usize,
    /// The most bytes of properties a request.
    pub max_bytes: usize,
    /// Whether a sweep writes the sync time of rows that were in step.
    pub touch: Touch,
    /// What the mapped tables look like.
    pub shapes: Vec<Shape>,
    /// Rows of which an older request may land after the one that was confirmed.
    pub doubts: Mutex<Doubts>,
    /// For each object, that its batches are not finished.
    pub(in crate::daemon) troubles: Vec<Trouble>,
}

/// Rows of one object on their way out.
pub struct Batch {
    /// Which object.
    pub object: ObjectIndex,
    /// On whose budget.
    pub lane: Lane,
    /// The claimed rows.
    pub claimed: Vec<Claimed>,
    /// For a sweep's first attempt: the rows as read ahead, and the tick of that read; `claimed` is empty then and the
    /// rows are claimed when the slot comes.
    pub ahead: Option<(u64, Read)>,
    /// Rows that got their HubSpot id in an earlier attempt of the same sweep: they count as created.
    pub gained: HashSet<Key>,
    /// Ends the waiting for request slots: what is not sent by then is given back. What was sent is recorded.
    pub stop: CancellationToken,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Tally {
    /// Rows that got their HubSpot id.
    pub created: u64,
    /// Rows that had one and were written.
    pub updated: u64,
    /// Rows refused, or a link of them.
    pub failed: u64,
    /// HubSpot records of deleted rows that were archived.
    pub archived: u64,
    /// Rows of a sweep that are to be tried again: their outcome was not learned.
    pub again: Vec<Key>,
    /// Rows that got their HubSpot id and are to be tried again nevertheless, for their links.
    pub gained: HashSet<Key>,
    /// Why the object is paused.
    pub barred: Option<String>,
    /// Why rows are to be tried again, for the log.
    pub reason: Option<String>,
}

/// How a batch travels.
#[derive(Clone)]
struct Way {
    object: ObjectIndex,
    lane: Lane,
    stop: CancellationToken,
    /// Counts the pushes of the object.
    push: u64,
}

/// Leave to send one request, under a generation of the lease: that of the whole attempt.
struct Leave {
    slot: Slot,
    generation: i64,
}

/// What is left of a batch after an attempt: parts to be tried alone.
type Parts = Vec<Vec<Claimed>>;

impl Door {
    /// Pushes a batch and answers what became of it. Every row is released when this returns.
    pub async fn push(&self, batch: Batch) -> Tally {
        let started = tokio::time::Instant::now();
        let Batch {
            object,
            lane,
            claimed,
            ahead,
            gained,
            stop,
        } = batch;
        let mut tally = Tally {
            gained,
            ..Tally::default()
        };
        let way = Way {
            object,
            lane,
            stop,
            push: self.begins(object),
        };
        let mut halving = Halving::default();
        let mut parts: Parts = Vec::new();
        match ahead {
            None => parts.push(claimed),
            Some((page, read)) => {
                let keys: Vec<Key> = read.records.iter().map(|record| record.key.clone()).collect();
                match self.slot(&way, keys.len()).await {
                    Ok(leave) => {
                        let now = self.desk.now();
                        let (claimed, read) = {
                            let mut backlog = self.desk.backlog();
                            let read = (!backlog.is_outdated(page)).then_some(read);
                            (backlog.claim_swept(object, &keys, page, now), read)
                        };
                        let rest = self.attempt(&way, leave, claimed, read, &mut halving, &mut tally);
                        parts.extend(rest.await);
                    }
                    Err(unsent) => {
                        tally.reason = Some(chain(&unsent));
                        tally.again.extend(keys);
                    }
                }
            }
        }
        while let Some(part) = parts.pop() {
            match self.slot(&way, part.len()).await {
                Ok(leave) => {
                    let rest = self.attempt(&way, leave, part, None, &mut halving, &mut tally);
                    parts.extend(rest.await);
                }
                Err(unsent) => self.give_back(&way, part, &chain(&unsent), &mut tally),
            }
        }
        self.report(object, lane, &tally, started.elapsed());
        tally
    }

    /// Waits for leave to send one request, for as long as the batch may wait.
    async fn slot(&self, way: &Way, records: usize) -> Result<Leave, Failed> {
        self.leave(way, records, self.pace.slot(way.lane)).await
    }

    /// The same for a search, which has a limit of its own.
    async fn search_slot(&self, way: &Way, records: usize) -> Result<Leave, Failed> {
        self.leave(way, records, self.pace.search_slot(way.lane)).await
    }

    async fn leave(
        &self,
        way: &Way,
        records: usize,
        slot: impl Future<Output = Slot>,
    ) -> Result<Leave, Failed> {
        let object_type = &self.mapping.objects[way.object].object_type;
        let slot = tokio::select! {
            biased;
            () = way.stop.cancelled() => return Err(Failed::unsent(records, object_type)),
            slot = slot => slot,
        };
        match self.lease.pushing() {
            Some(generation) => Ok(Leave { slot, generation }),
            None => Err(Failed::not_ours(format!(
                "pushing {records} records of {object_type}"
            ))),
        }
    }

    fn report(&self, object: ObjectIndex, lane: Lane, tally: &Tally, took: Duration) {
        let name = &self.mapping.objects[object].name;
        let (created, updated, failed) = (tally.created, tally.updated, tally.failed);
        let (archived, again) = (tally.archived, tally.again.len());
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let lane = if matches!(lane, Lane::Change) {
            "change"
        } else {
            "sweep"
        };
        if let Some(reason) = &tally.reason {
            let words = "batch not finished, its rows are tried again";
            match self.troubles[object].failed() {
                Some(still) => {
                    warn!(object = %name, lane, created, updated, failed, archived, again, took_ms, "{still}{words}: {reason}")
                }
                None => {
                    debug!(object = %name, lane, created, updated, failed, archived, again, took_ms, "{words}: {reason}")
                }
            }
        } else if created + updated + failed + archived > 0 {
            if let Some(past) = self.troubles[object].succeeded() {
                info!(object = %name, "batches are finished again, {past}");
            }
            info!(object = %name, lane, created, updated, failed, archived, took_ms, "batch pushed");
        }
    }

    /// One attempt at rows that are claimed: reads them, sends them, records what HubSpot said, and releases all but
    /// the parts it answers, which HubSpot or Postgres wants smaller.
    async fn attempt(
        &self,
        way: &Way,
        leave: Leave,
        claimed: Vec<Claimed>,
        ahead: Option<Read>,
        halving: &mut Halving,
        tally: &mut Tally,
    ) -> Parts {
        let (object, generation) = (way.object, leave.generation);
        if claimed.is_empty() {
            return Parts::new();
        }
        if let Some(words) = self.outrun(way) {
            tally.barred = Some(words.clone());
            self.give_back(way, claimed, &words, tally);
            return Parts::new();
        }
        let read = match ahead {
            Some(read) => Ok(read),
            None => self.read(object, &claimed).await,
        };
        let (read_at, mut items) = match read {
            Ok(read) if claimed.len() > 1 && bytes(&read) > self.max_bytes => return halves(claimed),
            Ok(read) => (
                read.read_at,
                Item::pair(claimed, read, &self.objects[object].rules),
            ),
            Err(error) if error.kind == ErrorKind::Rows && claimed.len() > 1 => return halves(claimed),
            Err(error) if error.kind == ErrorKind::Rows => (0, Item::unreadable(claimed, &error)),
            Err(error) => {
                self.give_back(way, claimed, &chain(&error), tally);
                return Parts::new();
            }
        };
        self.claim_matches(object, &mut items);
        let mut sending = send::Sending::new(self, way, leave, read_at);
        sending.exhume(&mut items).await;
        sending.send(&mut items).await;
        sending.archive_lost(&mut items).await;
        let turned = self.judge(way, halving, &mut sending, &mut items);
        tally.reason = sending.reason.take().or(tally.reason.take());
        let parts = self.finish(way, generation, read_at, items, tally, turned).await;
        tally.barred = self.paused(object).or(tally.barred.take());
        parts
    }

    /// The guard of an object's creates.
    fn guard(&self, object: ObjectIndex) -> Guard<'_> {
        Guard {
            rules: &self.objects[object].rules,
            settle: micros(self.settle),
            former: self.lease.former_until(),
        }
    }

    fn doubts(&self) -> MutexGuard<'_, Doubts> {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change with its key as Postgres prints it; a key that no row can have stays as it is and finds none.
    pub fn canonical(&self, change: Change) -> Change {
        let canonical = change
            .key
            .as_ref()
            .and_then(|key| self.store.canonical(change.object, key));
        Change {
            key: canonical.or(change.key),
            ..change
        }
    }

    async fn read(&self, object: ObjectIndex, claimed: &[Claimed]) -> Result<Read, postgres::Error> {
        let keys: Vec<Key> = claimed.iter().map(|claimed| claimed.key.clone()).collect();
        let full: Vec<bool> = claimed.iter().map(|claimed| claimed.full).collect();
        self.store.read(object, &keys, &full).await
    }

    /// Claims the natural keys of what would be created and the records of what would be updated; who does not get its
    /// own waits for the other row. Two rows may lead to one record while one's key or id changes: of two requests that
    /// are under way at once nobody knows which comes last.
    fn claim_matches(&self, object: ObjectIndex, items: &mut [Item]) {
        let rules = &self.objects[object].rules;
        let guard = self.guard(object);
        let mut values: Vec<(Key, String)> = Vec::new();
        for item in items.iter() {
            let record = item.updates().map(lookup::claim_of);
            values.extend(record.map(|record| (item.key().clone(), record)));
            let Some(value) = item.creates() else { continue };
            values.push((item.key().clone(), rules.normalise(value)));
            // The record that an earlier create may have made is its too.
            let earlier = guard.pending(item.record()).map(|pending| pending.value);
            values.extend(earlier.map(|value| (item.key().clone(), value)));
        }
        let taken = self.desk.backlog().claim_matches(object, &values);
        for item in items.iter_mut().filter(|item| taken.contains(item.key())) {
            item.fate = Fate::Held;
        }
    }

    /// Gives rows back unsent because of something that is no row's fault.
    fn give_back(&self, way: &Way, claimed: Vec<Claimed>, reason: &str, tally: &mut Tally) {
        tally.reason = Some(reason.to_owned());
        if !matches!(way.lane, Lane::Change) {
            tally
                .again
                .extend(claimed.iter().map(|claimed| claimed.key.clone()));
        }
        let now = self.desk.now();
        let rows = claimed.into_iter().map(|claimed| {
            let release = again(now, claimed.attempts);
            (claimed, release)
        });
        self.desk.release(way.object, rows);
    }
}

/// The release of a row whose outcome was not learned, after `attempts` such attempts before.
fn again(now: Duration, attempts: u32) -> Release {
    let pause = AGAIN_MIN.saturating_mul(1 << attempts.min(10)).min(AGAIN_MAX);
    Release::Again {
        not_before: now + pause,
        counts: true,
    }
}

/// The release of a row that waits for another row.
fn held(now: Duration) -> Release {
    Release::Again {
        not_before: now + HELD_PAUSE,
        counts: false,
    }
}

/// A span in microseconds.
fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// How many bytes of properties a request for these records would carry.
fn bytes(read: &Read) -> usize {
    read.records.iter().map(|record| record.properties.len()).sum()
}

/// Two halves of what was refused as a whole.
fn halves(mut claimed: Vec<Claimed>) -> Parts {
    let second = claimed.split_off(claimed.len() / 2);
    vec![claimed, second]
}

/// Rows by key.
type ByKey<T> = HashMap<Key, T>;

/// A refusal for a row that Postgres cannot read. Postgres' own words may hold its values.
pub(in crate::daemon) fn unreadable(error: &postgres::Error) -> Refusal {
    Refusal::ours(
        "read",
        format!(
            "Postgres fails to read this row (SQLSTATE {}); correct the row, or the view it is read from",
            error.sqlstate().unwrap_or("unknown")
        ),
    )
}
