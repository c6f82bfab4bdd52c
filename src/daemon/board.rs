//! The status board: what every task reports to, and what the socket, the health verdict and the metrics read.
//!
//! Reporting is cheap and never waits: a short lock, no I/O. Counts are kept up as things happen; nobody scans a
//! table because somebody asked.

use super::metrics::Meters;
use super::mirror::state::MirrorState;
use crate::mapping::{Mapping, Mirrored};
use crate::sync::change::ObjectIndex;
use crate::sync::history::{History, Minute};
use crate::sync::mirror::Tally;
use crate::sync::report::{Run, Summary};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The board. Shared by every task; all methods are synchronous.
#[derive(Debug)]
pub struct Board {
    objects: Mutex<Arc<[ObjectName]>>,
    state: Mutex<State>,
    history: Mutex<History>,
    meters: Meters,
}

/// What the socket must know of an object of the mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectName {
    /// Its name as declared.
    pub name: String,
    /// Whether rows are created, which decides if answers have a `created`.
    pub creates: bool,
}

/// What became of a record, as the metrics count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Its row got its HubSpot id, also by adoption.
    Created,
    /// Its row had one and was written.
    Updated,
    /// It was refused, or a link of it.
    Failed,
    /// Its row was deleted, and it was archived.
    Archived,
    /// Its outcome was not learned; it is tried again.
    Unknown,
}

/// What makes the daemon look for changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The control session is new.
    Start,
    /// The doorbell.
    Bell,
    /// Something waited long enough, or was freed.
    Time,
    /// The safety poll.
    Safety,
    /// The interval of looks while nothing can ring.
    Interval,
}

impl By {
    /// The word in the metrics.
    pub fn word(self) -> &'static str {
        match self {
            By::Start => "start",
            By::Bell => "bell",
            By::Time => "time",
            By::Safety => "safety",
            By::Interval => "interval",
        }
    }
}

/// How the daemon hears of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// Asleep; the next change rings.
    Armed,
    /// Busy; it looks again by itself.
    Awake,
    /// It looks at an interval, since nothing can ring.
    Polling,
    /// There is no control session, or what must be known before anything is pushed is not known yet.
    Down,
}

impl Listener {
    /// The word in `/status` and the metrics.
    pub fn word(self) -> &'static str {
        match self {
            Listener::Armed => "armed",
            Listener::Awake => "awake",
            Listener::Polling => "polling",
            Listener::Down => "down",
        }
    }
}

/// Whether this daemon is the one that pushes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lease {
    /// It is.
    Held,
    /// Another is; who, if that is known.
    Standby(Option<String>),
    /// Not yet asked for: there was no connection so far.
    Unknown,
}

/// Something that health should mention; what it does to the verdict is [`super::health`]'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The database cannot be reached. Set at start, until the first connection stands.
    Database,
    /// HubSpot refuses the token: the breaker is open.
    Breaker,
    /// HubSpot does not answer, or with errors of its own only; at the start: it does not say what must be known of it.
    Hubspot,
    /// The schema vanished or no longer fits.
    Schema,
    /// The daily quota is exhausted.
    Quota,
    /// What is left of the daily quota is kept for live changes.
    Reserve,
    /// Notifications do not arrive.
    Deaf,
    /// A trigger is missing or disabled.
    Triggers,
    /// Changes that could not be named recur.
    Unnamed,
    /// Deletions wait for somebody to say that they were meant.
    Brake,
    /// Alerts are not delivered.
    Alerts,
}

impl Condition {
    /// The word in `/status` and `/health`.
    pub fn word(self) -> &'static str {
        match self {
            Condition::Database => "database",
            Condition::Breaker => "breaker",
            Condition::Hubspot => "hubspot",
            Condition::Schema => "schema",
            Condition::Quota => "quota",
            Condition::Reserve => "reserve",
            Condition::Deaf => "deaf",
            Condition::Triggers => "triggers",
            Condition::Unnamed => "unnamed-changes",
            Condition::Brake => "deletions",
            Condition::Alerts => "alerts",
        }
    }
}

/// Everything the board knows at one moment.
#[derive(Debug, Clone)]
pub struct State {
    /// When the daemon started.
    pub started: Instant,
    /// See [`Lease`].
    pub lease: Lease,
    /// See [`Listener`].
    pub listener: Listener,
    /// Since when the listener is down, if it is.
    pub deaf_since: Option<Instant>,
    /// By object, in the order of the mapping.
    pub objects: Vec<ObjectState>,
    /// What is wrong, and in which words.
    pub conditions: BTreeMap<Condition, String>,
    /// Requests that the rate window has left, and its size.
    pub window: Option<(u64, u64)>,
    /// Requests that the daily quota has left.
    pub daily_remaining: Option<u64>,
    /// The sweep that runs.
    pub sweep: Option<Run>,
    /// The sweep that ended last.
    pub last_sweep: Option<Run>,
    /// When a sweep last ended complete; microseconds since the Unix epoch.
    pub last_complete_at: Option<i64>,
    /// When the next one is due; microseconds since the Unix epoch.
    pub next_sweep_at: Option<i64>,
    /// The mirror; `None` where there is none.
    pub mirror: Option<MirrorState>,
    ticks: BTreeMap<&'static str, Instant>,
}

/// What the board knows of one object.
#[derive(Debug, Clone)]
pub struct ObjectState {
    /// Its name.
    pub name: String,
    /// Changes not yet pushed, as far as they were counted.
    pub pending: u64,
    /// Since when the oldest of them could be seen.
    pub oldest: Option<Instant>,
    /// Records refused.
    pub failures: u64,
    /// Rows of the table, as the last sweep counted them and the changes since.
    pub rows: u64,
    /// Rows without HubSpot id, likewise.
    pub awaiting_hubspot_id: u64,
    /// The newest synced-at written; microseconds since the Unix epoch.
    pub last_sync_at: Option<i64>,
    /// Why its pushes are paused, if they are.
    pub paused: Option<String>,
}

impl Board {
    /// A board for the objects of a mapping; the database counts as not reached yet.
    pub fn new(mapping: &Mapping) -> Arc<Board> {
        let objects = names(mapping);
        let not_yet = "no connection was made yet".to_owned();
        let state = State {
            started: Instant::now(),
            lease: Lease::Unknown,
            listener: Listener::Down,
            deaf_since: Some(Instant::now()),
            objects: objects
                .iter()
                .map(|object| ObjectState::new(&object.name))
                .collect(),
            conditions: BTreeMap::from([(Condition::Database, not_yet)]),
            window: None,
            daily_remaining: None,
            sweep: None,
            last_sweep: None,
            last_complete_at: None,
            next_sweep_at: None,
            mirror: None,
            ticks: BTreeMap::new(),
        };
        Arc::new(Board {
            meters: Meters::new(objects.iter().map(|object| object.name.as_str())),
            objects: Mutex::new(objects),
            state: Mutex::new(state),
            history: Mutex::default(),
        })
    }

    /// The mapping's objects, in order.
    pub fn objects(&self) -> Arc<[ObjectName]> {
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&objects)
    }

    /// A reload brought another mapping. What is known of objects by their names stays known.
    pub fn set_mapping(&self, mapping: &Mapping) {
        let objects = names(mapping);
        let mut state = self.lock();
        let mut known = std::mem::take(&mut state.objects);
        let kept = |name: &ObjectName| known.iter().position(|object| object.name == name.name);
        let places: Vec<Option<usize>> = objects.iter().map(kept).collect();
        state.objects = objects
            .iter()
            .zip(places)
            .map(|(name, place)| {
                let fresh = ObjectState::new(&name.name);
                place.map_or(fresh.clone(), |place| std::mem::replace(&mut known[place], fresh))
            })
            .collect();
        for object in &mut state.objects {
            // Whether it is paused, the new door will find out.
            object.paused = None;
        }
        *self.objects.lock().unwrap_or_else(PoisonError::into_inner) = objects;
    }

    /// Whether this daemon pushes.
    pub fn lease(&self) -> Lease {
        self.lock().lease.clone()
    }

    /// Everything known now.
    pub fn state(&self) -> State {
        self.lock().clone()
    }

    /// The metrics in the text format of Prometheus (OpenMetrics 1.0).
    pub fn metrics(&self) -> String {
        self.meters.encode(&self.state())
    }

    /// Records that a push finished.
    pub fn count(&self, object: ObjectIndex, counted: Counted, records: u64) {
        if let Some(object) = self.objects().get(object) {
            self.meters.count(&object.name, counted, records);
        }
    }

    /// A request to HubSpot: the endpoint in a few words without ids, the status (`None`: no answer), the time it took.
    pub fn request(&self, endpoint: &str, status: Option<u16>, took: Duration) {
        self.meters.request(endpoint, status, took);
    }

    /// From when a change could be seen until HubSpot accepted it.
    pub fn change_latency(&self, latency: Duration) {
        self.meters.change_latency(latency);
        let now = self.uptime();
        self.history().accepted(now, latency);
    }

    /// Collecting went on after it had waited.
    pub fn woken(&self, by: By) {
        self.meters.woken(by);
    }

    /// Changes seen for the first time, and what had made the daemon look.
    pub fn changes_seen(&self, by: By, changes: u64) {
        self.meters.changes_seen(by, changes);
    }

    /// An object's backlog: changes not yet pushed, and since when the oldest could be seen.
    pub fn set_backlog(&self, object: ObjectIndex, pending: u64, oldest: Option<Instant>) {
        self.with_object(object, |state| {
            state.pending = pending;
            state.oldest = oldest;
        });
        let (now, pending) = (self.uptime(), self.lock().pending());
        self.history().waiting(now, pending);
    }

    /// The last day, minute by minute; the last minute is the one that fills.
    pub fn minutes(&self) -> Vec<Minute> {
        let now = self.uptime();
        self.history().minutes(now)
    }

    /// How many records of an object are refused.
    pub fn set_failures(&self, object: ObjectIndex, failures: u64) {
        self.with_object(object, |state| state.failures = failures);
    }

    /// Failures that came or went.
    pub fn adjust_failures(&self, object: ObjectIndex, by: i64) {
        self.with_object(object, |state| {
            state.failures = state.failures.saturating_add_signed(by)
        });
    }

    /// How many rows the object's table has, and how many of them no HubSpot id.
    pub fn set_rows(&self, object: ObjectIndex, rows: u64, awaiting_hubspot_id: u64) {
        self.with_object(object, |state| {
            state.rows = rows;
            state.awaiting_hubspot_id = awaiting_hubspot_id;
        });
    }

    /// Rows that came or went.
    pub fn adjust_rows(&self, object: ObjectIndex, rows: i64, awaiting_hubspot_id: i64) {
        self.with_object(object, |state| {
            state.rows = state.rows.saturating_add_signed(rows);
            state.awaiting_hubspot_id = state
                .awaiting_hubspot_id
                .saturating_add_signed(awaiting_hubspot_id);
        });
    }

    /// A receipt wrote this synced-at (microseconds since the Unix epoch).
    pub fn synced(&self, object: ObjectIndex, at: i64) {
        self.with_object(object, |state| {
            state.last_sync_at = state.last_sync_at.max(Some(at))
        });
    }

    /// Why an object's pushes are paused; `None`: they are not.
    pub fn set_paused(&self, object: ObjectIndex, reason: Option<String>) {
        self.with_object(object, |state| state.paused = reason);
    }

    /// How changes are heard of.
    pub fn set_listener(&self, listener: Listener) {
        let mut state = self.lock();
        state.listener = listener;
        state.deaf_since = match listener {
            Listener::Down => state.deaf_since.or_else(|| Some(Instant::now())),
            Listener::Armed | Listener::Awake | Listener::Polling => None,
        };
    }

    /// Whether this daemon pushes.
    pub fn set_lease(&self, lease: Lease) {
        self.lock().lease = lease;
    }

    /// How many deletions of each object the brake holds.
    pub fn set_braked(&self, counts: &[u64]) {
        let objects = self.objects();
        let held = objects.iter().zip(counts).filter(|(_, count)| **count > 0);
        let held: Vec<String> = held
            .map(|(object, count)| format!("{count} of {}", object.name))
            .collect();
        let words = (!held.is_empty()).then(|| {
            format!(
                "deleted rows whose HubSpot records stay until somebody says so, since there were so many within an hour: \
                 {}; look at `hubsyncd failures`, and if they were meant: hubsyncd sweep --archive",
                held.join(", ")
            )
        });
        self.set_condition(Condition::Brake, words);
    }

    /// Something is wrong, in words without personal data; `None`: no longer.
    pub fn set_condition(&self, condition: Condition, words: Option<String>) {
        let conditions = &mut self.lock().conditions;
        match words {
            Some(words) => conditions.insert(condition, words),
            None => conditions.remove(&condition),
        };
    }

    /// What the rate window has left, and its size.
    pub fn set_window(&self, remaining: u64, max: u64) {
        self.lock().window = Some((remaining, max));
    }

    /// What the daily quota has left.
    pub fn set_daily_remaining(&self, remaining: Option<u64>) {
        self.lock().daily_remaining = remaining;
    }

    /// A sweep begins; `run` has no end yet.
    pub fn sweep_began(&self, run: Run) {
        self.lock().sweep = Some(run);
    }

    /// What the sweep that runs did so far.
    pub fn sweep_progress(&self, summary: Summary) {
        if let Some(run) = &mut self.lock().sweep {
            run.summary = summary;
        }
    }

    /// A sweep ended. One of some objects only, because of changes that could not be named, says nothing of the others:
    /// it is not the last sweep.
    pub fn sweep_ended(&self, run: Run) {
        let took = run.finished_at.unwrap_or(run.started_at) - run.started_at;
        let took = Duration::from_micros(took.try_into().unwrap_or_default());
        self.meters
            .sweep(run.outcome.as_deref().unwrap_or("incomplete"), took);
        let mut state = self.lock();
        if run.reason == "trigger" {
            state.sweep = None;
            return;
        }
        if run.is_complete() {
            state.last_complete_at = state.last_complete_at.max(run.finished_at);
        }
        state.sweep = None;
        state.last_sweep = Some(run);
    }

    /// What the database remembers of sweeps before this start.
    pub fn remember_sweeps(&self, last: Option<Run>, last_complete_at: Option<i64>) {
        let mut state = self.lock();
        state.last_sweep = state.last_sweep.take().or(last);
        state.last_complete_at = state.last_complete_at.max(last_complete_at);
    }

    /// When the next sweep is due; microseconds since the Unix epoch.
    pub fn set_next_sweep(&self, at: Option<i64>) {
        self.lock().next_sweep_at = at;
    }

    /// The mirror as configured, or that there is none.
    pub fn set_mirror(&self, mirror: Option<MirrorState>) {
        for standing in mirror.iter().flat_map(|mirror| &mirror.kinds) {
            self.meters.mirror_pulled(standing.kind, &Tally::default());
        }
        self.lock().mirror = mirror;
    }

    /// Changes what is known of the mirror, if there is one.
    pub fn with_mirror(&self, change: impl FnOnce(&mut MirrorState)) {
        if let Some(mirror) = &mut self.lock().mirror {
            change(mirror);
        }
    }

    /// A part of what a pull of the mirror did.
    pub fn mirror_pulled(&self, kind: Mirrored, tally: &Tally) {
        self.meters.mirror_pulled(kind, tally);
    }

    /// A loop turned. A loop that once ticked and then stops fails `/livez` and starves the watchdog.
    pub fn tick(&self, task: &'static str) {
        self.lock().ticks.insert(task, Instant::now());
    }

    /// A loop turned then, for the last time.
    #[cfg(test)]
    pub(super) fn tick_at(&self, task: &'static str, then: Instant) {
        self.lock().ticks.insert(task, then);
    }

    /// A loop ended as it should.
    pub fn rest(&self, task: &'static str) {
        self.lock().ticks.remove(task);
    }

    /// The loops that did not turn for longer than `limit`.
    pub fn stalled(&self, limit: Duration) -> Vec<&'static str> {
        let state = self.lock();
        let late = state.ticks.iter().filter(|(_, at)| at.elapsed() > limit);
        late.map(|(task, _)| *task).collect()
    }

    fn uptime(&self) -> Duration {
        self.lock().started.elapsed()
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_object(&self, object: ObjectIndex, change: impl FnOnce(&mut ObjectState)) {
        if let Some(state) = self.lock().objects.get_mut(object) {
            change(state);
        }
    }
}

fn names(mapping: &Mapping) -> Arc<[ObjectName]> {
    let names = mapping.objects.iter().map(|object| ObjectName {
        name: object.name.clone(),
        creates: object.create,
    });
    names.collect()
}

impl State {
    /// Changes not yet pushed.
    pub fn pending(&self) -> u64 {
        self.objects.iter().map(|object| object.pending).sum()
    }

    /// Records refused.
    pub fn failures(&self) -> u64 {
        self.objects.iter().map(|object| object.failures).sum()
    }

    /// How long the oldest change that is not yet pushed could be seen at `now`.
    pub fn oldest_pending(&self, now: Instant) -> Option<Duration> {
        self.objects
            .iter()
            .filter_map(|object| object.oldest_pending(now))
            .max()
    }
}

impl ObjectState {
    fn new(name: &str) -> ObjectState {
        ObjectState {
            name: name.to_owned(),
            pending: 0,
            oldest: None,
            failures: 0,
            rows: 0,
            awaiting_hubspot_id: 0,
            last_sync_at: None,
            paused: None,
        }
    }

    /// How long its oldest change that is not yet pushed could be seen at `now`.
    pub fn oldest_pending(&self, now: Instant) -> Option<Duration> {
        self.oldest.map(|since| now.saturating_duration_since(since))
    }
}
