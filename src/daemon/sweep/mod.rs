//! The sweep: every row of every object, so that whatever was missed is not missed for long.
//!
//! The sweeper waits on three things: the clock, somebody who asks, and the end of the daemon. It sweeps the
//! objects in the order of the mapping, one after the other, since later ones link to earlier ones. It never
//! overlaps itself. An object that cannot be read does not stop the next one; the run is then incomplete.

mod object;
mod orphans;
mod patience;
pub mod request;

use super::board::{Board, Condition, Lease};
use super::door::Door;
use super::lease::Hold;
use crate::postgres::connect::Pool;
use crate::postgres::{self, ErrorKind, Session, changes, failures, runs};
use crate::retry::Schedule as Backoff;
use crate::sync::change::ObjectIndex;
use crate::sync::report::chain;
use crate::sync::report::{Counts, Run, Summary};
use crate::sync::schedule::Schedule;
use object::{End, Pass};
use request::{Asked, Reason, Requests};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How often the clock is looked at.
const CLOCK: Duration = Duration::from_secs(1);
/// Sweeps of an object because of changes that could not be named are at least this far apart.
const UNNAMED_PAUSE: Duration = Duration::from_secs(300);

/// Audit entries looked at in one statement at a sweep's end.
const AUDIT_PAGE: usize = 1_000;

/// Runs the sweeps.
pub struct Sweeper {
    /// The door, once both ends are known.
    pub door: Arc<OnceLock<Arc<Door>>>,
    /// Worker connections.
    pub pool: Arc<Pool>,
    /// Who asked.
    pub requests: Arc<Requests>,
    /// Where progress is reported.
    pub board: Arc<Board>,
    /// This daemon's hold on the lease.
    pub lease: Arc<Hold>,
    /// The end of the daemon.
    pub stop: CancellationToken,
    /// The period.
    pub every: Duration,
    /// Whether a sweep runs at start.
    pub on_start: bool,
    /// From when on the clock's sweeps are looked after, as the time since the Unix epoch.
    pub since: Duration,
    /// How long nothing could be sent before a run ends incomplete.
    pub give_up: Duration,
    /// Batches under way at a time.
    pub in_flight: usize,
    /// The counts of the run that goes on, by object.
    pub progress: Mutex<Vec<Counts>>,
    /// A run whose end could not be written to the database at the time.
    pub late: Mutex<Option<Run>>,
}

impl Sweeper {
    /// Runs sweeps until the daemon stops; one that runs then ends incomplete, with all that HubSpot answered
    /// recorded.
    pub async fn run(&self) {
        let mut schedule = Schedule::new(self.every, self.since);
        let mut clock = tokio::time::interval(CLOCK);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut started = false;
        let mut due = false;
        let mut unnamed = vec![None; self.board.objects().len()];
        while !self.stop.is_cancelled() {
            self.board.tick("sweep");
            self.board
                .set_next_sweep(i64::try_from(schedule.next_at().as_micros()).ok());
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = self.requests.asked() => {}
                _ = clock.tick() => {}
            }
            // What falls due while the database is away is made up for; while standing by another daemon sweeps.
            due = schedule.due(now()) || due;
            self.keep_late().await;
            let Some(door) = self.ready() else {
                due = due && !matches!(self.board.lease(), Lease::Standby(_));
                continue;
            };
            if !std::mem::replace(&mut started, true) && self.on_start && self.start_is_due().await {
                self.requests.ask(Reason::Start);
            } else if due {
                self.requests.ask(Reason::Clock);
            }
            due = false;
            self.ask_for_unnamed(&door, &mut unnamed);
            if let Some(asked) = self.requests.take() {
                self.sweep(&door, asked).await;
            }
        }
        self.board.rest("sweep");
    }

    /// The door, if this daemon may push and has pushed (or put off) what it found waiting at its start.
    fn ready(&self) -> Option<Arc<Door>> {
        let door = self.door.get()?;
        let caught_up = door.caught_up.load(Ordering::Acquire);
        (self.leased() && caught_up).then(|| Arc::clone(door))
    }

    /// Whether this daemon holds the lease.
    pub(super) fn leased(&self) -> bool {
        self.lease.may_push()
    }

    /// Whether no complete sweep is younger than the period.
    async fn start_is_due(&self) -> bool {
        let last = async {
            let session = self.pool.get().await?;
            runs::last(&session, "sweep", Some("complete")).await
        };
        let last: Result<Option<Run>, postgres::Error> = last.await;
        match last {
            Ok(last) => last.and_then(|run| run.finished_at).is_none_or(|at| {
                let age = now().as_micros().saturating_sub(at.unsigned_abs().into());
                age >= self.every.as_micros()
            }),
            Err(error) => {
                warn!(
                    "cannot ask when the last sweep was, so one runs now: {}",
                    chain(&error)
                );
                true
            }
        }
    }

    /// Asks for sweeps of objects whose changes could not be named, each at most once in five minutes.
    fn ask_for_unnamed(&self, door: &Door, asked_at: &mut [Option<Instant>]) {
        let mut recurring = Vec::new();
        for (object, asked_at) in asked_at.iter_mut().enumerate() {
            if !door.desk.backlog().wants_sweep(object) {
                continue;
            }
            if asked_at.is_some_and(|at| at.elapsed() < UNNAMED_PAUSE) {
                recurring.push(door.mapping.objects[object].name.as_str());
                continue;
            }
            *asked_at = Some(Instant::now());
            self.requests.ask_for(Reason::Trigger, Some(vec![object]), false);
        }
        let words = (!recurring.is_empty()).then(|| {
            format!(
                "changes of {} come without a name again and again (TRUNCATE, or a capture that fails: look for \
                 warnings in Postgres' log); they are found by a sweep every five minutes",
                recurring.join(", ")
            )
        });
        self.board.set_condition(Condition::Unnamed, words);
    }

    /// The counts of the run that goes on.
    pub(super) fn progress(&self, object: ObjectIndex, counts: Counts) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress[object] = counts;
        let summary = self.summary(&progress);
        drop(progress);
        self.board.sweep_progress(summary);
    }

    fn summary(&self, counts: &[Counts]) -> Summary {
        let objects = self.board.objects();
        let names = objects.iter().map(|object| object.name.clone());
        Summary(names.zip(counts.iter().copied()).collect())
    }

    /// Runs one sweep from its first row to its summary.
    async fn sweep(&self, door: &Arc<Door>, asked: Asked) {
        let mut run = Run {
            id: asked.id,
            kind: "sweep".to_owned(),
            reason: asked.reason.word().to_owned(),
            started_at: micros(),
            finished_at: None,
            outcome: None,
            error: None,
            summary: self.summary(&vec![Counts::default(); door.objects.len()]),
        };
        let all: Vec<ObjectIndex> = (0..door.objects.len()).collect();
        let objects = asked.objects.unwrap_or_else(|| all.clone());
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = vec![Counts::default(); all.len()];
        info!(run = %run.id, reason = %run.reason, "sweep begins");
        self.board.sweep_began(run.clone());
        self.keep(&run).await;
        let mut errors = Vec::new();
        let newest = if objects == all {
            self.newest_entry(door, &mut errors).await
        } else {
            None
        };
        let mut counts = vec![Counts::default(); all.len()];
        for object in objects {
            let seqs = door.desk.backlog().take_sweep(object);
            let (end, done, rows) = Pass::new(self, door, object, asked.archive).run().await;
            counts[object] = done;
            self.object_ended(door, object, seqs, &end, rows).await;
            if let End::Incomplete(why) = end {
                errors.push(format!("{}: {why}", door.mapping.objects[object].name));
            }
        }
        if let (Some(newest), true) = (newest, errors.is_empty()) {
            self.mark_audit(door, newest, &mut errors).await;
        }
        run.summary = self.summary(&counts);
        run.finished_at = Some(micros());
        run.outcome = Some(
            if errors.is_empty() {
                "complete"
            } else {
                "incomplete"
            }
            .to_owned(),
        );
        run.error = (!errors.is_empty()).then(|| errors.join("; "));
        self.keep(&run).await;
        self.prune().await;
        self.count_failures(door).await;
        self.report(&run, &counts);
        self.board.sweep_ended(run.clone());
        self.requests.ended(run);
    }

    /// Sweeps one object and nothing else: no run is written down, no audit entry marked; `released`: what the brake holds
    /// may go. Answers what it did, and why not every row was reached, if so.
    pub async fn pass(
        &self,
        door: &Arc<Door>,
        object: ObjectIndex,
        released: bool,
    ) -> (Counts, Option<String>) {
        let (end, counts, _) = Pass::new(self, door, object, released).run().await;
        match end {
            End::Complete => (counts, None),
            End::Incomplete(why) => (counts, Some(why)),
        }
    }

    /// The changes that wanted this sweep are done, or wait again.
    async fn object_ended(
        &self,
        door: &Door,
        object: ObjectIndex,
        seqs: Vec<i64>,
        end: &End,
        rows: (u64, u64),
    ) {
        let complete = *end == End::Complete;
        if complete {
            self.board.set_rows(object, rows.0, rows.1);
        }
        let done = complete && (seqs.is_empty() || self.forget(door, object, &seqs).await);
        let mut backlog = door.desk.backlog();
        if done {
            backlog.sweep_done(object, seqs)
        } else {
            backlog.sweep_again(object, seqs)
        }
    }

    async fn forget(&self, door: &Door, object: ObjectIndex, seqs: &[i64]) -> bool {
        let forgotten = async {
            let session = self.pool.get().await?;
            changes::forget(&session, &door.mapping.objects[object].name, seqs).await
        };
        let forgotten: Result<(), postgres::Error> = forgotten.await;
        forgotten.is_ok()
    }

    /// Writes the run down. If the database is gone right now, the end of it is written later.
    async fn keep(&self, run: &Run) {
        if let Err(error) = self.try_keep(run).await {
            warn!(run = %run.id, "the run cannot be written to hubsyncd.run now: {}", chain(&error));
            if run.finished_at.is_some() {
                *self.late.lock().unwrap_or_else(PoisonError::into_inner) = Some(run.clone());
            }
        }
    }

    /// Writes down the end of a run that could not be written at the time.
    async fn keep_late(&self) {
        if !self.leased() {
            return;
        }
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(run) = late
            && self.try_keep(&run).await.is_ok()
        {
            *self.late.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    async fn try_keep(&self, run: &Run) -> Result<(), postgres::Error> {
        let session = self.pool.get().await?;
        runs::keep(&session, run).await
    }

    /// Deletes runs, and the memory of what was archived, older than 90 days; the next sweep's end does it otherwise.
    async fn prune(&self) {
        let pruned = async {
            let session = self.pool.get().await?;
            postgres::orphans::prune(&session).await?;
            runs::prune(&session).await
        };
        let pruned: Result<usize, postgres::Error> = pruned.await;
        if let Err(error) = pruned {
            debug!(
                "old runs, and what was archived long ago, are kept for now: {}",
                chain(&error)
            );
        }
    }

    /// The newest audit entry at the sweep's begin; later ones are the next sweep's.
    async fn newest_entry(&self, door: &Door, errors: &mut Vec<String>) -> Option<i64> {
        let audit = door.audit.as_ref()?;
        let newest = self.insist(|| async {
            let session = self.pool.get().await?;
            audit.newest(&session).await
        });
        newest.await.unwrap_or_else(|error| {
            errors.push(format!("audit log: {}", chain(&error)));
            None
        })
    }

    /// Does something in the database, again and again while the database is away or busy, until `give_up`.
    async fn insist<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, postgres::Error>
    where
        F: Future<Output = Result<T, postgres::Error>>,
    {
        let mut pauses = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let until = Instant::now() + self.give_up;
        loop {
            self.board.tick("sweep");
            match attempt().await {
                Err(error)
                    if matches!(error.kind, ErrorKind::Unreachable | ErrorKind::Busy)
                        && Instant::now() < until
                        && !self.stop.is_cancelled() =>
                {
                    tokio::time::sleep(pauses.next()).await;
                }
                done => return done,
            }
        }
    }

    /// Marks the audit entries up to `newest` that no push will ever mark.
    async fn mark_audit(&self, door: &Door, newest: i64, errors: &mut Vec<String>) {
        let Some(audit) = &door.audit else { return };
        let mut after = Some(0);
        while let Some(at) = after {
            let walked = self.insist(|| async {
                let mut session = self.pool.get().await?;
                let session: &mut Session = &mut session;
                audit.walk(session, at, newest, AUDIT_PAGE).await
            });
            match walked.await {
                Ok(walked) => after = walked.next,
                Err(error) => {
                    errors.push(format!("audit log: {}", chain(&error)));
                    return;
                }
            }
        }
    }

    async fn count_failures(&self, door: &Door) {
        let counted = async {
            let session = self.pool.get().await?;
            let counts = failures::counts(&session, &door.mapping).await?;
            Ok::<_, postgres::Error>((counts, postgres::orphans::braked(&session, &door.mapping).await?))
        };
        if let Ok((counts, braked)) = counted.await {
            self.board.set_braked(&braked);
            for (object, count) in counts.into_iter().enumerate() {
                self.board.set_failures(object, count);
            }
        }
    }

    fn report(&self, run: &Run, counts: &[Counts]) {
        let took = run.finished_at.unwrap_or(run.started_at) - run.started_at;
        let took_ms = took / 1000;
        let words: Vec<String> = self
            .board
            .objects()
            .iter()
            .zip(counts)
            .map(|(object, counts)| {
                let Counts {
                    created,
                    updated,
                    failed,
                } = counts;
                format!(
                    "{}: {created} created, {updated} updated, {failed} failed",
                    object.name
                )
            })
            .collect();
        let words = words.join("; ");
        match &run.error {
            None => info!(run = %run.id, reason = %run.reason, took_ms, "sweep complete: {words}"),
            Some(error) => warn!(run = %run.id, reason = %run.reason, took_ms,
                "sweep incomplete, the next one takes what it did not reach: {words}; {error}"),
        }
    }
}

/// The time since the Unix epoch.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Microseconds since the Unix epoch.
fn micros() -> i64 {
    i64::try_from(now().as_micros()).unwrap_or(i64::MAX)
}
