//! Collecting: from the doorbell to batches on their way.
//!
//! The loop looks at the change table, hands out what may go, and sleeps. While it is armed it waits for the bell;
//! while it cannot arm (a transaction that captured something has not ended, or nothing can ring here) it looks at an
//! interval. A safety poll looks once a second on a worker connection, armed or not. What frees a waiting change (a
//! receipt, a pause that ends) wakes it too. It runs while this daemon holds the lease and ends with the session that
//! holds it.

use super::board::{Board, By, Condition, Listener};
use super::census::Census;
use super::door::{Batch, Door, Tally};
use crate::hubspot::Lane;
use crate::postgres::changes::Looker;
use crate::postgres::connect::Pool;
use crate::postgres::control::{Armed, Arming, Awake, Control};
use crate::postgres::{self, ErrorKind};
use crate::retry::Schedule;
use crate::sync::arming::{Bell, Step};
use crate::sync::change::{Change, ObjectIndex};
use crate::sync::report::chain;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// The safety poll's period.
const SAFETY: Duration = Duration::from_secs(1);
/// The pauses between two probes of a HubSpot that refuses the token or does not answer.
const PROBES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// How long HubSpot may fail to answer before health says so: below it may be one bad moment.
const SILENCE: Duration = Duration::from_secs(10);
/// The interval of looks while nothing can ring lies between these, by `max-delay`.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(100));

/// The control session in the state the bell's state says.
pub(super) enum Line {
    Awake(Awake),
    Armed(Armed),
}

impl std::ops::Deref for Line {
    type Target = Control;

    fn deref(&self) -> &Control {
        match self {
            Line::Awake(awake) => awake,
            Line::Armed(armed) => armed,
        }
    }
}

/// Why the loop ended.
pub(super) enum Ended {
    /// The daemon stops; all that was under way is recorded, and the control session still holds the lease.
    Stopped(Line),
    /// The control session is lost, and with it lease and bell.
    Lost(postgres::Error),
}

/// The loop's state; it outlives control sessions.
pub(super) struct Collect {
    pub(super) door: Arc<Door>,
    pool: Arc<Pool>,
    pub(super) board: Arc<Board>,
    pub(super) looker: Looker,
    /// The pushes under way.
    pub(super) pushes: JoinSet<Tally>,
    pub(super) max_delay: Duration,
    pub(super) in_flight: usize,
    /// Whose turn it is to hand out a batch first.
    turn: ObjectIndex,
    /// Whether the last look saw everything there was.
    complete: bool,
    /// When a look last brought what was not known.
    news_at: Option<Instant>,
    /// When the bell rang last.
    rung_at: Option<Instant>,
    /// Whether the bell rings one time after the other, for more than lone changes.
    rings_thick: bool,
    /// What made the loop turn last.
    by: By,
    census: Arc<Census>,
    /// The census that is being taken.
    counting: JoinSet<()>,
    /// The probe under way, if one is.
    probes: JoinSet<()>,
    probe_at: Instant,
    probe_pauses: Schedule,
    safety_at: Instant,
    trouble: Option<Schedule>,
    /// The change table is gone, or closed to us: the keeper looks what became of the schema.
    unfit: Option<postgres::Error>,
}

/// Why the loop goes on.
enum Woken {
    Bell,
    Interval,
    Time,
    Safety,
    Lost(postgres::Error),
    Stopped,
}

impl Woken {
    fn by(&self) -> Option<By> {
        match self {
            Woken::Bell => Some(By::Bell),
            Woken::Interval => Some(By::Interval),
            Woken::Time => Some(By::Time),
            Woken::Safety => Some(By::Safety),
            Woken::Lost(_) | Woken::Stopped => None,
        }
    }
}

impl Collect {
    pub(super) fn new(
        door: Arc<Door>,
        pool: Arc<Pool>,
        board: Arc<Board>,
        max_delay: Duration,
        in_flight: usize,
    ) -> Collect {
        Collect {
            looker: Looker::new(&door.mapping),
            census: Arc::new(Census::new(
                Arc::clone(&door),
                Arc::clone(&pool),
                Arc::clone(&board),
            )),
            counting: JoinSet::new(),
            door,
            pool,
            board,
            pushes: JoinSet::new(),
            max_delay,
            in_flight,
            turn: 0,
            complete: false,
            news_at: None,
            rung_at: None,
            rings_thick: false,
            by: By::Start,
            probes: JoinSet::new(),
            probe_at: Instant::now(),
            probe_pauses: Schedule::new(PROBES.0, PROBES.1),
            safety_at: Instant::now(),
            trouble: None,
            unfit: None,
        }
    }

    /// Collects until the control session is lost or the daemon stops. Pushes under way go on.
    pub(super) async fn run(&mut self, control: Awake, stop: &CancellationToken) -> Ended {
        let mut bell = Bell::default();
        let mut line = Line::Awake(control);
        self.looker.reset();
        self.door.desk.backlog().forget_waiting();
        self.census.reset();
        self.by = By::Start;
        loop {
            self.board.tick("collect");
            if let Some(error) = self.unfit.take() {
                return Ended::Lost(error);
            }
            let mut refused = false;
            match bell.step() {
                Step::Look => {
                    let saw_everything = tokio::select! {
                        biased;
                        () = stop.cancelled() => return self.stopped(line).await,
                        error = line.lost() => return Ended::Lost(error),
                        saw_everything = self.look() => saw_everything,
                    };
                    bell = bell.looked(saw_everything);
                }
                Step::Arm if self.stays_awake() => {
                    bell = bell.tried(false);
                    refused = true;
                }
                Step::Arm => match line {
                    Line::Awake(awake) => match awake.try_arm().await {
                        Ok(Arming::Armed(armed)) => {
                            line = Line::Armed(armed);
                            bell = bell.tried(true);
                        }
                        Ok(Arming::Refused(awake)) => {
                            line = Line::Awake(awake);
                            bell = bell.tried(false);
                            refused = true;
                        }
                        Err(error) => return Ended::Lost(error),
                    },
                    armed @ Line::Armed(_) => line = armed,
                },
                Step::Sleep => {}
            }
            self.dispatch(stop);
            self.report(&bell, &line);
            if bell.step() != Step::Sleep && !refused && self.trouble.is_none() {
                if stop.is_cancelled() {
                    return self.stopped(line).await;
                }
                continue;
            }
            let woken = self.wait(&line, refused, stop).await;
            let by = woken.by();
            if let Some(by) = by {
                self.by = by;
                self.board.woken(by);
            }
            match woken {
                Woken::Bell | Woken::Interval => {
                    if by == Some(By::Bell) {
                        self.rang();
                    }
                    bell = bell.woken();
                    line = match line {
                        Line::Armed(armed) => match armed.disarm().await {
                            Ok(awake) => Line::Awake(awake),
                            Err(error) => return Ended::Lost(error),
                        },
                        awake @ Line::Awake(_) => awake,
                    };
                }
                Woken::Safety => {
                    self.safety_at = Instant::now();
                    self.census();
                    self.probe();
                    self.door.name_doubts().await;
                    self.name_due().await;
                    bell = bell.looked(self.look().await);
                }
                Woken::Time => {
                    let room = !self.complete && self.door.desk.backlog().room().iter().any(|room| *room > 0);
                    if self.door.desk.take_named() || room {
                        bell = bell.looked(self.look().await);
                    }
                }
                Woken::Lost(error) => return Ended::Lost(error),
                Woken::Stopped => return self.stopped(line).await,
            }
        }
    }

    /// Notes that the bell rang, and whether it did so a moment ago, too, and what that told is still not done.
    fn rang(&mut self) {
        let now = Instant::now();
        let before = self.rung_at.replace(now);
        let soon = before.is_some_and(|before| now - before < self.interval());
        let backlog = self.door.desk.backlog();
        self.rings_thick = soon && (0..self.door.objects.len()).any(|object| backlog.held(object) > 0);
    }

    /// Where the bell rings one time after the other, every ring holds up the application's commits and tells of nothing
    /// that could not wait: until a whole interval has brought nothing the daemon looks at intervals instead.
    fn stays_awake(&mut self) -> bool {
        let last = self.news_at.max(self.rung_at);
        self.rings_thick &= last.is_some_and(|at| at.elapsed() < self.interval());
        self.rings_thick
    }

    /// The interval of looks while nothing can ring.
    fn interval(&self) -> Duration {
        self.max_delay.clamp(INTERVAL.0, INTERVAL.1)
    }

    /// The daemon stops: what is under way, a sweep's rows too, is recorded before the control session ends and with
    /// it the lease, or a daemon that stands by would push the same rows at the same time.
    async fn stopped(&mut self, line: Line) -> Ended {
        while self.pushes.join_next().await.is_some() {}
        while !self.door.desk.backlog().idle() {
            self.door.desk.freed().await;
        }
        Ended::Stopped(line)
    }

    /// Looks at the change table; true if memory now holds every visible change, or is full. A database that is
    /// gone is waited for: nothing is lost, the changes stand in the table.
    async fn look(&mut self) -> bool {
        let (number, room) = {
            let mut backlog = self.door.desk.backlog();
            (backlog.look_begins(), backlog.room())
        };
        let looked = async {
            let session = self.pool.get().await?;
            self.looker.look(&session, &room).await
        };
        let look = match looked.await {
            Ok(look) => look,
            Err(error) => {
                debug!(
                    "the change table cannot be read, it is tried again: {}",
                    chain(&error)
                );
                self.looker.reset();
                if matches!(error.kind, ErrorKind::Schema | ErrorKind::Denied) {
                    self.unfit = Some(error);
                    return false;
                }
                self.board.set_condition(Condition::Database, Some(chain(&error)));
                let schedule = || Schedule::new(Duration::from_millis(100), Duration::from_secs(5));
                self.trouble.get_or_insert_with(schedule);
                return false;
            }
        };
        self.trouble = None;
        self.board.set_condition(Condition::Database, None);
        self.complete = look.saw_everything();
        let changes: Vec<Change> = look
            .changes
            .into_iter()
            .map(|change| self.door.canonical(change))
            .collect();
        let mut backlog = self.door.desk.backlog();
        self.census.count_rows(backlog.news(&changes));
        let new = backlog.admit(number, changes, self.door.desk.now());
        if new > 0 {
            self.news_at = Some(Instant::now());
        }
        self.board.changes_seen(self.by, new as u64);
        self.complete
            || backlog
                .room()
                .iter()
                .zip(&look.complete)
                .all(|(room, complete)| *complete || *room == 0)
    }

    /// Names what is due to be pushed once more; the look after it finds the changes.
    async fn name_due(&self) {
        if let Err(error) = self.door.store.name_due().await {
            debug!(
                "what is due once more cannot be named, it is tried again: {}",
                chain(&error)
            );
        }
    }

    /// Hands out what may go now, each object in its turn, as long as requests may be under way.
    fn dispatch(&mut self, stop: &CancellationToken) {
        let now = self.door.desk.now();
        let count = self.door.objects.len();
        let mut idle = 0;
        while idle < count && self.pushes.len() < self.in_flight {
            let object = self.turn % count;
            self.turn = (self.turn + 1) % count;
            let claimed = self.door.desk.backlog().take(object, self.door.max_records, now);
            if claimed.is_empty() {
                idle += 1;
                continue;
            }
            idle = 0;
            let (door, stop) = (Arc::clone(&self.door), stop.clone());
            self.pushes.spawn(async move {
                door.push(Batch {
                    object,
                    lane: Lane::Change,
                    claimed,
                    ahead: None,
                    gained: HashSet::new(),
                    stop,
                })
                .await
            });
        }
        if self.complete
            && !self.door.caught_up.load(Ordering::Acquire)
            && self.door.desk.backlog().first_attempts_done()
        {
            self.door.caught_up.store(true, Ordering::Release);
        }
    }

    async fn wait(&mut self, line: &Control, refused: bool, stop: &CancellationToken) -> Woken {
        let now = self.door.desk.now();
        let next = if self.pushes.len() < self.in_flight {
            self.door.desk.backlog().next_ready(self.door.max_records, now)
        } else {
            None
        };
        let ready = async {
            match next {
                Some(at) => tokio::time::sleep_until(self.door.desk.instant(at)).await,
                None => std::future::pending().await,
            }
        };
        let pause = match (&mut self.trouble, refused) {
            (Some(trouble), _) => Some(trouble.next()),
            (None, true) => Some(self.interval()),
            (None, false) => None,
        };
        let look_again = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => Woken::Stopped,
            rung = line.wait_rung() => match rung {
                Ok(()) => Woken::Bell,
                Err(error) => Woken::Lost(error),
            },
            Some(joined) = self.pushes.join_next() => {
                joined.expect("a push neither panics nor is cancelled");
                Woken::Time
            }
            () = self.door.desk.freed() => Woken::Time,
            () = ready => Woken::Time,
            () = look_again => Woken::Interval,
            () = tokio::time::sleep_until(self.safety_at + SAFETY) => Woken::Safety,
        }
    }

    /// Takes a census beside the loop, unless the last one still goes on.
    fn census(&mut self) {
        while self.counting.try_join_next().is_some() {}
        if self.counting.is_empty() {
            let (census, all_held) = (Arc::clone(&self.census), self.complete);
            self.counting.spawn(async move { census.take(all_held).await });
        }
    }

    /// Asks HubSpot whether it takes the token again, or answers again, beside the loop: it may not answer for long.
    fn probe(&mut self) {
        let pace = &self.door.pace;
        if pace.halted().is_none() && pace.silent_for().is_none() {
            self.probe_pauses.reset();
            self.probe_at = Instant::now() + self.probe_pauses.next();
            return;
        }
        while self.probes.try_join_next().is_some() {}
        if !self.probes.is_empty() || self.probe_at > Instant::now() {
            return;
        }
        self.probe_at = Instant::now() + self.probe_pauses.next();
        let door = Arc::clone(&self.door);
        self.probes.spawn(async move {
            let (halted, silent) = (door.pace.halted().is_some(), door.pace.silent_for());
            match door.client.account(door.pace.probe()).await {
                Ok(_) if halted => {
                    info!("HubSpot takes the token again; pushing goes on");
                    door.pace.resume();
                }
                Ok(_) => info!(
                    "HubSpot answers again, after {}",
                    whole_seconds(silent.unwrap_or_default())
                ),
                Err(failed) => debug!("HubSpot was probed in vain: {}", chain(&failed)),
            }
        });
    }

    fn report(&self, bell: &Bell, line: &Control) {
        let listener = match bell {
            Bell::Asleep(_) | Bell::Armed(_) => Listener::Armed,
            Bell::Awake(_) if line.can_arm() => Listener::Awake,
            Bell::Awake(_) => Listener::Polling,
        };
        self.board.set_listener(listener);
        self.report_backlog();
    }

    /// Tells the board what waits.
    pub(super) fn report_backlog(&self) {
        let now = self.door.desk.now();
        let backlog = self.door.desk.backlog();
        for object in 0..self.door.objects.len() {
            let held = backlog.held(object) as u64;
            let pending = if self.complete {
                held
            } else {
                held.max(self.census.changes(object))
            };
            let oldest = backlog.oldest(object).map(|at| {
                std::time::Instant::now()
                    .checked_sub(now.saturating_sub(at))
                    .unwrap_or_else(std::time::Instant::now)
            });
            self.board.set_backlog(object, pending, oldest);
        }
        drop(backlog);
        let limits = self.door.pace.limits();
        self.board
            .set_window(limits.window_remaining.into(), limits.window_max.into());
        self.board.set_daily_remaining(limits.daily_remaining);
        let (mut quota, mut reserve) = (None, None);
        if let Some(withheld) = self.door.pace.withheld() {
            let left = whole_seconds(withheld.left);
            if withheld.spent {
                quota = Some(format!(
                    "HubSpot's daily quota is spent; pushing goes on in {left}, the changes wait in the database"
                ));
            } else {
                reserve = Some(format!(
                    "what is left of HubSpot's daily quota is kept for live changes; sweeps go on in {left}"
                ));
            }
        }
        self.board.set_condition(Condition::Quota, quota);
        self.board.set_condition(Condition::Reserve, reserve);
        self.report_hubspot();
    }

    /// Tells the board why HubSpot is not to be had, if it is not.
    fn report_hubspot(&self) {
        let pace = &self.door.pace;
        let halted = pace.halted().map(|halt| halt.reason);
        self.board.set_condition(Condition::Breaker, halted);
        let silent = pace.silent_for().filter(|silence| *silence >= SILENCE);
        let words = silent.map(|silence| {
            format!(
                "every request has failed for {}; changes wait in the database: look at the log, and whether HubSpot can \
                 be reached",
                whole_seconds(silence)
            )
        });
        self.board.set_condition(Condition::Hubspot, words);
    }
}

fn whole_seconds(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(time.as_secs()))
}
