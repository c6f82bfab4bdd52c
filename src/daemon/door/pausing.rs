//! Paused objects: what follows when [`crate::sync::pausing`] says that refusals are not the records' fault.
//!
//! The backlog is told at once, so that nothing more is handed out than one row from time to time; the rows refused
//! for the object's cause keep their changes. Then the database is told: one failure that stands for the object, under
//! an empty key. When the object goes on, that failure ends, and every record of the object that is listed as refused
//! is named again, since some were refused before the cause was seen to be the object's.

use super::item::{Fate, Item, Links};
use super::send::Sending;
use super::{Door, Way};
use crate::hubspot::Lane;
use crate::postgres::receipt::{Probe, Written};
use crate::sync::change::{Key, ObjectIndex, Op};
use crate::sync::outcome::Refusal;
use crate::sync::pausing::{Act, Cause, Halving, Watch};
use crate::sync::plan::Step;
use crate::sync::report::chain;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tracing::{debug, info, warn};

/// A row that could not be had so often is asked for what keeps it.
const LOCKED_ATTEMPTS: u32 = 2;

/// What the door remembers of paused objects, by position in the mapping.
pub struct Pausing {
    watches: Mutex<Vec<Watch>>,
    /// For each object, the last row named because none waited to be tried.
    named: Mutex<Vec<Option<Key>>>,
    /// For each object, whether the database is still to be told.
    untold: Mutex<Vec<bool>>,
    /// Held while the database is told, so that what it is told last is so.
    telling: tokio::sync::Mutex<()>,
}

impl Pausing {
    /// Nothing is paused.
    pub fn new(objects: usize) -> Pausing {
        Pausing {
            watches: Mutex::new(vec![Watch::default(); objects]),
            named: Mutex::new(vec![None; objects]),
            untold: Mutex::new(vec![false; objects]),
            telling: tokio::sync::Mutex::default(),
        }
    }

    fn watches(&self) -> MutexGuard<'_, Vec<Watch>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn untold(&self) -> MutexGuard<'_, Vec<bool>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn named(&self) -> MutexGuard<'_, Vec<Option<Key>>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Door {
    /// Why an object is paused, if it is.
    pub fn paused(&self, object: ObjectIndex) -> Option<String> {
        let watches = self.pausing.watches();
        watches[object].pause().map(|pause| pause.words.clone())
    }

    /// Pauses what is closed, for as long as it is.
    pub fn pause_closed(&self) {
        for (at, object) in self.objects.iter().enumerate() {
            if let Some(words) = &object.closed {
                self.pausing.watches()[at].bar(None, words.clone());
                self.follow_turn(at);
            }
        }
    }

    /// Pauses an object that was paused when the last daemon ended; the first record accepted ends it.
    pub fn remember_pause(&self, object: ObjectIndex, words: String) {
        if self.objects[object].closed.is_some() {
            return;
        }
        let turned = self.pausing.watches()[object].bar(None, words);
        if turned.is_some() {
            self.follow_turn(object);
            self.desk.backlog().try_now(object);
        }
    }

    /// Tries a record of every paused object at once, or of the one of this name (of a closed one, what it is closed for): an
    /// operator wants to know.
    pub fn try_paused(&self, name: Option<&str>) {
        for (at, object) in self.mapping.objects.iter().enumerate() {
            if name.is_none_or(|name| name == object.name) {
                self.desk.backlog().try_now(at);
            }
        }
        self.desk.named();
    }

    /// The number of a push that begins.
    pub(super) fn begins(&self, object: ObjectIndex) -> u64 {
        self.pausing.watches()[object].begins()
    }

    /// Why what a push has not sent yet is not to be sent.
    pub(super) fn outrun(&self, way: &Way) -> Option<String> {
        let watches = self.pausing.watches();
        let watch = &watches[way.object];
        let pause = watch.pause().filter(|_| watch.outruns(way.push))?;
        Some(pause.words.clone())
    }

    /// Takes in what HubSpot said in one attempt. Records refused for what keeps the whole object are not failures: they
    /// wait. True if the object was paused or goes on.
    pub(super) fn judge(
        &self,
        way: &Way,
        halving: &mut Halving,
        sending: &mut Sending<'_>,
        items: &mut [Item],
    ) -> bool {
        let mut turned = false;
        let mut watches = self.pausing.watches();
        let watch = &mut watches[way.object];
        for act in [Act::Create, Act::Update, Act::Link] {
            let (accepted, refused) = said(items, act);
            if accepted > 0 {
                halving.accepted(act);
            }
            turned |= watch.heard(way.push, act, accepted, refused).is_some();
        }
        for whole in sending.wholes.drain(..) {
            if let Some(causes) = halving.refused(whole.act, whole.keys, &whole.causes) {
                turned |= watch.halves_refused(whole.act, causes).is_some();
            }
        }
        if let Some((act, words)) = sending.barred.take() {
            turned |= watch.bar(act, words).is_some();
        }
        for item in items.iter_mut() {
            excuse(watch, item);
        }
        let idle = watch.may_try_next(way.push) && items.iter().all(proves_nothing);
        drop(watches);
        if turned {
            self.follow_turn(way.object);
        } else if idle && matches!(way.lane, Lane::Change) {
            self.desk.backlog().try_now(way.object);
        }
        turned
    }

    /// Makes backlog and board say what the watch says.
    fn follow_turn(&self, object: ObjectIndex) {
        let name = &self.mapping.objects[object].name;
        let words = self.paused(object);
        match &words {
            Some(words) => {
                self.desk.backlog().pause(object, self.desk.now());
                let next = if self.objects[object].closed.is_some() {
                    "HubSpot is asked again every minute"
                } else {
                    "one record is tried every minute"
                };
                warn!(object = %name, "the object is paused, its changes wait and {next}: {words}");
            }
            None => {
                self.desk.backlog().resume(object);
                info!(object = %name, "the object is not paused any more, what waits is pushed");
            }
        }
        self.board.set_paused(object, words);
        self.pausing.untold()[object] = true;
    }

    /// Tells the database which objects were paused, or go on, since it was told last. What it does not take now it is told
    /// a moment later: nothing waits for it. Once an object goes on, its records that are listed as refused are named.
    pub(in crate::daemon) async fn tell_pauses(&self) {
        let _telling = self.pausing.telling.lock().await;
        for object in 0..self.objects.len() {
            if !std::mem::replace(&mut self.pausing.untold()[object], false) {
                continue;
            }
            let why = self.paused(object).map(|words| Refusal::ours("paused", words));
            if let Err(error) = self.store.note_pause(object, why.as_ref()).await {
                self.pausing.untold()[object] = true;
                debug!(
                    "whether an object is paused cannot be noted now: {}",
                    chain(&error)
                );
                continue;
            }
            self.failures_changed.store(true, Ordering::Release);
            self.desk.named();
        }
    }

    /// Takes in what became of a receipt: rows that stay out of reach though nobody holds them pause the object. True if the
    /// object was paused or goes on.
    pub(super) async fn judge_receipt(&self, way: &Way, rows: &[(u32, &Key, &Written)]) -> bool {
        let done = rows
            .iter()
            .filter(|(_, _, written)| **written == Written::Done)
            .count();
        let stuck = rows
            .iter()
            .find(|(attempts, _, written)| *attempts >= LOCKED_ATTEMPTS && **written == Written::Locked);
        let forbidden = match stuck {
            Some((_, key, _)) => {
                let key = Key::clone(key);
                self.insist("asking why a row cannot be written", || {
                    self.store.probe(way.object, &key)
                })
                .await
                    == Some(Probe::Forbidden)
            }
            None => false,
        };
        let turned = {
            let mut watches = self.pausing.watches();
            let watch = &mut watches[way.object];
            if forbidden {
                watch.bar(Some(Act::Receipt), self.hidden_rows(way.object))
            } else {
                watch.heard(way.push, Act::Receipt, done, [])
            }
        };
        if turned.is_some() {
            self.follow_turn(way.object);
        }
        turned.is_some()
    }

    fn hidden_rows(&self, object: ObjectIndex) -> String {
        format!(
            "row level security of {} lets hubsyncd read rows and not update them, so that no HubSpot id can be written back: \
             give its role BYPASSRLS, or a permissive policy for UPDATE",
            self.mapping.objects[object].table
        )
    }

    /// Names a row of every paused object that is due to be tried and of which no change waits: those listed as refused
    /// first, then one after the other. An object whose every row was tried so goes on.
    pub(in crate::daemon) async fn name_trials(&self) {
        for object in 0..self.objects.len() {
            if !self.desk.backlog().lacks_trial(object, self.desk.now()) {
                continue;
            }
            let after = self.pausing.named()[object].clone();
            let next = async {
                if after.is_none() {
                    let listed = self
                        .store
                        .failed_before(object, i64::MAX, &Key::from(""), 1)
                        .await?;
                    if let Some(key) = listed.into_iter().next() {
                        return Ok(Some(key));
                    }
                }
                self.store.next_key(object, after.as_ref()).await
            };
            let next: Result<Option<Key>, crate::postgres::Error> = next.await;
            match next {
                Ok(Some(key)) => {
                    let named = self
                        .store
                        .name(object, std::slice::from_ref(&key), Op::Update)
                        .await;
                    if named.is_ok() {
                        self.pausing.named()[object] = Some(key);
                        self.desk.named();
                    }
                }
                Ok(None) => {
                    self.pausing.named()[object] = None;
                    let turned = self.pausing.watches()[object].resume();
                    if turned.is_some() {
                        self.follow_turn(object);
                    }
                }
                // The database is asked again in a moment.
                Err(_) => {}
            }
        }
    }
}

/// What was said of one kind of act: how many were accepted, and the causes of those refused.
fn said(items: &[Item], act: Act) -> (usize, Vec<&[Cause]>) {
    let mut accepted = 0;
    let mut refused = Vec::new();
    for item in items {
        let done = match item.step {
            Step::Create(_) => Some(Act::Create),
            Step::Update(_) => Some(Act::Update),
            Step::Keep(_) => None,
            Step::Leave | Step::Refuse(_) => continue,
        };
        match &item.fate {
            Fate::Refused(refusal) if done == Some(act) => refused.push(refusal.causes.as_slice()),
            Fate::Accepted { .. } if done == Some(act) => accepted += 1,
            Fate::Accepted { links, .. } if act == Act::Link => match links {
                Links::Made(made) => accepted += usize::from(!made.is_empty()),
                Links::Refused(_, refusal) => refused.push(refusal.causes.as_slice()),
                Links::Again(_) => {}
            },
            _ => {}
        }
    }
    (accepted, refused)
}

/// A record refused for what keeps its object waits.
fn excuse(watch: &Watch, item: &mut Item) {
    match &mut item.fate {
        Fate::Refused(refusal) if watch.excuses(&refusal.causes) => item.fate = Fate::Held,
        Fate::Accepted { links, .. } => {
            if let Links::Refused(made, refusal) = links
                && watch.excuses(&refusal.causes)
            {
                *links = Links::Again(std::mem::take(made));
            }
        }
        _ => {}
    }
}

/// Whether what became of a row tells nothing of what keeps its object.
fn proves_nothing(item: &Item) -> bool {
    match &item.fate {
        Fate::Gone | Fate::Leave => true,
        Fate::Refused(_) => matches!(item.step, Step::Refuse(_)),
        Fate::Accepted { links, .. } => matches!(links, Links::Made(_)),
        _ => false,
    }
}
