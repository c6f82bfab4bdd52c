//! One object's pass: every row, in key order, in pages, through the door.
//!
//! A page is read ahead and unclaimed; the door claims its rows when their slot comes and leaves out what a live
//! change has taken or will take. The links of a page are compared with HubSpot's before its rows go out, so that
//! a missing one is made with them. Memory holds a few pages, whatever the table's size.

use super::Sweeper;
use super::patience::Patience;
use crate::daemon::board::Lease;
use crate::daemon::door::{Batch, Door, Tally};
use crate::hubspot::Lane;
use crate::postgres::ErrorKind;
use crate::retry::Schedule;
use crate::sync::change::{Key, ObjectIndex};
use crate::sync::linking;
use crate::sync::plan::Step;
use crate::sync::record::{Read, Record};
use crate::sync::report::Counts;
use crate::sync::report::chain;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::warn;

/// Rows of a page: as many as one question for associations carries.
const PAGE_ROWS: i64 = 1000;
/// What the properties of a page take at most, in bytes, once the first page has shown how wide the rows are.
const PAGE_BYTES: usize = 1024 * 1024;
/// Pages whose rows are under way at a time.
const PAGES: usize = 2;
/// How an object's pass ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// Every row was reached.
    Complete,
    /// Not every row was; why.
    Incomplete(String),
}

/// One object's pass.
pub(super) struct Pass<'a> {
    sweeper: &'a Sweeper,
    pub(super) door: &'a Arc<Door>,
    pub(super) object: ObjectIndex,
    /// Whether what the brake holds may go.
    pub(super) released: bool,
    pushes: JoinSet<(u64, Tally)>,
    /// For each page under way, how many of its batches are.
    pages: HashMap<u64, usize>,
    /// Batches of pages read and not yet handed to the door.
    ready: VecDeque<(u64, Read)>,
    again: Vec<Key>,
    /// Rows that got their HubSpot id here and are tried again for their links.
    gained: HashSet<Key>,
    pub(super) patience: Patience,
    pub(super) reason: Option<String>,
    /// The database's clock at the first read: what was refused before and not since was not met by this pass.
    began_at: Option<i64>,
    barred: Option<String>,
    /// The row that was pushed before the others, to try a paused object.
    tried: Option<Key>,
    /// Rows of the next page.
    page_rows: i64,
    /// What it did so far.
    pub(super) counts: Counts,
    /// Rows read, and how many of them had no HubSpot id.
    pub(super) rows: (u64, u64),
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        sweeper: &'a Sweeper,
        door: &'a Arc<Door>,
        object: ObjectIndex,
        released: bool,
    ) -> Pass<'a> {
        Pass {
            sweeper,
            door,
            object,
            released,
            pushes: JoinSet::new(),
            pages: HashMap::new(),
            ready: VecDeque::new(),
            again: Vec::new(),
            gained: HashSet::new(),
            began_at: None,
            patience: Patience {
                board: Arc::clone(&sweeper.board),
                pace: Arc::clone(&door.pace),
                stop: sweeper.stop.child_token(),
                give_up: sweeper.give_up,
                progressed: Instant::now(),
            },
            reason: None,
            barred: None,
            tried: None,
            page_rows: PAGE_ROWS,
            counts: Counts::default(),
            rows: (0, 0),
        }
    }

    /// Sweeps the object. What is under way is always awaited, however the pass ends.
    pub(super) async fn run(mut self) -> (End, Counts, (u64, u64)) {
        let end = self.pages().await;
        if end.is_err() {
            self.patience.stop.cancel();
        }
        while self.push_ended().await {}
        for page in self
            .ready
            .iter()
            .map(|(page, _)| *page)
            .chain(self.pages.keys().copied())
        {
            self.door.desk.backlog().page_ends(page);
        }
        let end = match end {
            Ok(()) => End::Complete,
            Err(reason) => End::Incomplete(reason),
        };
        (end, self.counts, self.rows)
    }

    /// Row level security that hides the rows, or a right that is gone, would make the table look empty.
    async fn look_at_rights(&self) -> Result<(), String> {
        // A database that is gone is waited for when the first page is read.
        let lacking = self.door.store.lacking(self.object).await.unwrap_or_default();
        if lacking.is_empty() {
            return Ok(());
        }
        let words: Vec<String> = lacking.iter().map(ToString::to_string).collect();
        Err(words.join("; "))
    }

    async fn pages(&mut self) -> Result<(), String> {
        self.look_at_rights().await?;
        self.try_paused().await?;
        let mut after: Option<Key> = None;
        let mut more = true;
        loop {
            self.sweeper.board.tick("sweep");
            self.check()?;
            if !self.again.is_empty() {
                self.retry().await?;
            }
            while more && self.ready.is_empty() && self.pages.len() < PAGES {
                more = self.read_page(&mut after).await?;
            }
            while self.pushes.len() < self.sweeper.in_flight {
                let Some((page, read)) = self.ready.pop_front() else {
                    break;
                };
                self.push(page, read);
            }
            if !self.push_ended().await && self.ready.is_empty() && !more && self.again.is_empty() {
                self.rest().await?;
                return self.orphans().await;
            }
        }
    }

    /// Of a paused object one record is tried; if that is refused too, the rest waits for another sweep.
    async fn try_paused(&mut self) -> Result<(), String> {
        let Some(words) = self.door.paused(self.object) else {
            return Ok(());
        };
        if self.door.objects[self.object].closed.is_some() {
            self.door.desk.backlog().try_now(self.object);
            return Err(words);
        }
        let page = self.door.desk.backlog().page_begins();
        let mut none = None;
        let read = self.read_some(&mut none, page).await;
        let rules = &self.door.objects[self.object].rules;
        let tried = read.as_ref().ok().and_then(|read| {
            let records = read.iter().flat_map(|read| &read.records);
            let mut sent =
                records.filter(|record| matches!(rules.step(record), Step::Update(_) | Step::Create(_)));
            sent.next().map(|record| record.key.clone())
        });
        match tried {
            Some(key) => {
                self.tried = Some(key.clone());
                self.push_keys(page, vec![key]);
            }
            None => self.door.desk.backlog().page_ends(page),
        }
        read?;
        while self.push_ended().await {}
        self.again.clear();
        match self.door.paused(self.object) {
            Some(words) => Err(words),
            None => {
                self.barred = None;
                Ok(())
            }
        }
    }

    /// Whether the pass may go on.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.sweeper.stop.is_cancelled() {
            return Err("the daemon stops, or takes another configuration".to_owned());
        }
        // A lease lost with its connection is waited for: until then the door gives everything back.
        if matches!(self.sweeper.board.lease(), Lease::Standby(_)) {
            return Err("another daemon took over".to_owned());
        }
        if let Some(reason) = &self.barred {
            return Err(reason.clone());
        }
        if let Some(words) = self.patience.withheld() {
            return Err(words);
        }
        if self.patience.stop.is_cancelled() {
            return Err(self.gave_up());
        }
        Ok(())
    }

    fn gave_up(&self) -> String {
        let halted = || self.door.pace.halted().map(|halt| halt.reason);
        let reason = halted().or_else(|| self.reason.clone());
        format!(
            "nothing could be sent for {}; the last reason: {}",
            humantime::format_duration(self.sweeper.give_up),
            reason.as_deref().unwrap_or("no request was left")
        )
    }

    fn push(&mut self, page: u64, read: Read) {
        let (door, object) = (Arc::clone(self.door), self.object);
        let stop = self.patience.stop.clone();
        self.pushes.spawn(async move {
            let batch = Batch {
                object,
                lane: Lane::Sweep,
                claimed: Vec::new(),
                ahead: Some((page, read)),
                gained: HashSet::new(),
                stop,
            };
            (page, door.push(batch).await)
        });
    }

    /// Takes in the end of one push; false if none is under way.
    async fn push_ended(&mut self) -> bool {
        let Some(joined) = self.patience.over(self.pushes.join_next()).await else {
            return false;
        };
        let (page, tally) = joined.expect("a push neither panics nor is cancelled");
        let again = self.take_in(tally);
        self.again.extend(again);
        if let Some(left) = self.pages.get_mut(&page) {
            *left -= 1;
            if *left == 0 {
                self.pages.remove(&page);
                self.door.desk.backlog().page_ends(page);
            }
        }
        true
    }

    /// Adds up what became of rows, and answers those to be tried again.
    pub(super) fn take_in(&mut self, tally: Tally) -> Vec<Key> {
        if tally.created + tally.updated + tally.failed + tally.archived > 0 || tally.again.is_empty() {
            self.patience.progressed = Instant::now();
        }
        self.counts.created += tally.created;
        self.counts.updated += tally.updated;
        self.counts.failed += tally.failed;
        self.gained.extend(tally.gained);
        if !self.patience.stop.is_cancelled() {
            self.reason = tally.reason.or(self.reason.take());
        }
        self.barred = tally.barred.or(self.barred.take());
        self.sweeper.progress(self.object, self.counts);
        tally.again
    }

    /// Reads the next page and prepares its batches; false at the end of the table.
    async fn read_page(&mut self, after: &mut Option<Key>) -> Result<bool, String> {
        let page = self.door.desk.backlog().page_begins();
        let read = match self.read_some(after, page).await {
            Ok(read) => read,
            Err(reason) => {
                self.door.desk.backlog().page_ends(page);
                return Err(reason);
            }
        };
        let Some(mut read) = read else { return Ok(true) };
        self.began_at.get_or_insert(read.read_at);
        let Some(last) = read.records.last() else {
            self.door.desk.backlog().page_ends(page);
            return Ok(false);
        };
        *after = Some(last.key.clone());
        self.page_rows = page_rows(&read.records);
        self.rows.0 += read.records.len() as u64;
        self.rows.1 += read
            .records
            .iter()
            .filter(|record| record.hubspot_id.is_none())
            .count() as u64;
        read.records
            .retain(|record| Some(&record.key) != self.tried.as_ref());
        if read.records.is_empty() {
            self.door.desk.backlog().page_ends(page);
            return Ok(true);
        }
        self.compare_links(&mut read.records).await;
        let read_at = read.read_at;
        let mut batches = 0;
        let mut records = read.records.into_iter().peekable();
        while records.peek().is_some() {
            let records: Vec<Record> = records.by_ref().take(self.door.max_records).collect();
            self.ready.push_back((page, Read { records, read_at }));
            batches += 1;
        }
        self.pages.insert(page, batches);
        Ok(true)
    }

    /// Reads a page, waiting for a database that is gone. If a row makes the read fail, smaller and smaller pages are
    /// tried; the row that fails alone is pushed by itself, so that the door lists it, and `None` is answered.
    async fn read_some(&mut self, after: &mut Option<Key>, page: u64) -> Result<Option<Read>, String> {
        let mut pauses = Schedule::new(Duration::from_millis(100), Duration::from_secs(10));
        let mut limit = self.page_rows;
        loop {
            self.check()?;
            match self.door.store.page(self.object, after.as_ref(), limit).await {
                Ok(read) => return Ok(Some(read)),
                Err(error) if error.kind == ErrorKind::Rows && limit > 1 => limit /= 8,
                Err(error) if error.kind == ErrorKind::Rows => {
                    self.push_unreadable(after, page).await?;
                    return Ok(None);
                }
                Err(error) if matches!(error.kind, ErrorKind::Unreachable | ErrorKind::Busy) => {
                    self.reason = Some(chain(&error));
                    self.wait(&mut pauses).await?;
                }
                Err(error) => return Err(chain(&error)),
            }
            limit = limit.max(1);
        }
    }

    /// Hands the row after `after`, which no page can read, to the door by its key alone.
    async fn push_unreadable(&mut self, after: &mut Option<Key>, page: u64) -> Result<(), String> {
        let next = self.door.store.next_key(self.object, after.as_ref()).await;
        let key = next.map_err(|error| chain(&error))?;
        let Some(key) = key else {
            return Err("a page cannot be read, and no row follows".to_owned());
        };
        *after = Some(key.clone());
        self.push_keys(page, vec![key]);
        Ok(())
    }

    /// Pushes, once every row was reached, the rows that are listed as failures and were not among them: the failure of
    /// a row that is gone ends so.
    async fn rest(&mut self) -> Result<(), String> {
        let Some(began_at) = self.began_at else {
            return Ok(());
        };
        let door = Arc::clone(self.door);
        let mut after: Key = Key::from("");
        let mut pauses = Schedule::new(Duration::from_millis(100), Duration::from_secs(10));
        loop {
            let listed = door
                .store
                .failed_before(self.object, began_at, &after, door.max_records);
            let keys = match listed.await {
                Ok(keys) => keys,
                Err(error) if matches!(error.kind, ErrorKind::Unreachable | ErrorKind::Busy) => {
                    self.reason = Some(chain(&error));
                    self.wait(&mut pauses).await?;
                    continue;
                }
                Err(error) => return Err(chain(&error)),
            };
            let Some(last) = keys.last() else { return Ok(()) };
            after.clone_from(last);
            let page = door.desk.backlog().page_begins();
            self.push_keys(page, keys);
            while self.push_ended().await {}
            self.retry().await?;
        }
    }

    /// Pushes rows by key with a fresh read; the page is theirs alone.
    fn push_keys(&mut self, page: u64, keys: Vec<Key>) {
        let (door, object) = (Arc::clone(self.door), self.object);
        let known = keys.iter().filter(|key| self.gained.contains(*key));
        let gained: HashSet<Key> = known.cloned().collect();
        self.pages.insert(page, 1);
        let stop = self.patience.stop.clone();
        self.pushes.spawn(async move {
            let claimed = door
                .desk
                .backlog()
                .claim_swept(object, &keys, page, door.desk.now());
            (
                page,
                door.push(Batch {
                    object,
                    lane: Lane::Sweep,
                    claimed,
                    ahead: None,
                    gained,
                    stop,
                })
                .await,
            )
        });
    }

    /// Tries again what HubSpot did not answer, after a pause; gives up if nothing could be sent for too long.
    async fn retry(&mut self) -> Result<(), String> {
        let mut pauses = Schedule::new(Duration::from_millis(500), Duration::from_secs(15));
        while !self.again.is_empty() {
            while self.push_ended().await {}
            self.wait(&mut pauses).await?;
            let mut keys = std::mem::take(&mut self.again);
            while !keys.is_empty() {
                let rest = keys.split_off(keys.len().min(self.door.max_records));
                let page = self.door.desk.backlog().page_begins();
                self.push_keys(page, keys);
                keys = rest;
            }
            while self.push_ended().await {}
        }
        Ok(())
    }

    /// Pauses; gives up if nothing could be sent for too long.
    pub(super) async fn wait(&mut self, pauses: &mut Schedule) -> Result<(), String> {
        self.check()?;
        if self.patience.is_over() {
            return Err(self.gave_up());
        }
        let pause = pauses.next().min(self.sweeper.give_up);
        let rest = async {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.sweeper.stop.cancelled() => {}
            }
        };
        self.patience.over(rest).await;
        self.check()
    }

    /// Compares what we remember of the page's links with what HubSpot holds, so that a missing one is made again.
    /// If HubSpot does not say, our memory stands.
    async fn compare_links(&self, records: &mut [Record]) {
        let object = &self.door.objects[self.object];
        for at in 0..object.links.len() {
            let linked =
                |record: &&mut Record| record.known_id().is_some() && record.targets[at].id().is_some();
            let ids: Vec<String> = records
                .iter_mut()
                .filter(linked)
                .filter_map(|record| record.known_id().map(str::to_owned))
                .collect();
            if ids.is_empty() {
                continue;
            }
            let stop = self.patience.stop.clone();
            let held = self.door.held_links(self.object, at, &ids, Lane::Sweep, stop);
            let held = match self.patience.over(held).await {
                Ok(held) => held,
                Err(failed) => {
                    warn!(object = %self.door.mapping.objects[self.object].name,
                        "links cannot be compared with HubSpot's, what was linked before is believed: {}", chain(&failed));
                    continue;
                }
            };
            let held: HashSet<(String, String)> = held.into_iter().collect();
            for record in records.iter_mut().filter(linked) {
                let Some(id) = record.known_id().map(str::to_owned) else {
                    continue;
                };
                let target = &record.targets[at];
                let pair = (id, target.id().unwrap_or_default().to_owned());
                linking::compare(&pair.0, target, &mut record.linked[at], held.contains(&pair));
            }
        }
    }
}

/// How many rows the next page has, so that rows as wide as these take [`PAGE_BYTES`] at most.
fn page_rows(read: &[Record]) -> i64 {
    let bytes: usize = read.iter().map(|record| record.properties.len()).sum();
    let fit = (PAGE_BYTES * read.len()).checked_div(bytes);
    fit.map_or(PAGE_ROWS, |fit| i64::try_from(fit).unwrap_or(PAGE_ROWS))
        .clamp(100, PAGE_ROWS)
}
