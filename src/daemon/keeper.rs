//! The keeper: the control session, and with it the lease, for as long as the daemon lives.
//!
//! It connects, looks whether the database fits, takes the lease or stands by, and then collects until the session
//! is lost; then it begins again. Before the first lease a schema that does not fit ends the daemon; afterwards it is
//! waited for. It waits on the session's loss and the end of the daemon.

use super::board::{Board, Condition, Lease, Listener};
use super::collect::{Collect, Ended};
use super::door::Door;
use super::exit::{CONFIGURATION, Exit, NOT_PERMITTED, TRY_AGAIN};
use super::lease::{self, Hold, boot_time};
use super::pinned;
use super::prepare::{self, Parts, Unprepared};
use super::trouble::Trouble;
use crate::config::Config;
use crate::hubspot::Client;
use crate::postgres::address::Address;
use crate::postgres::connect::Pool;
use crate::postgres::control::{Awake, Control};
use crate::postgres::{self, ErrorKind, failures, runs};
use crate::retry::Schedule;
use crate::sync::lease::Taken;
use crate::sync::report::chain;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How often a keeper that waits shows that it lives.
const LIFE_SIGN: Duration = Duration::from_secs(1);

/// How often a standby tries the lock. It never waits in it: a waiter would pin the vacuum horizon.
const STANDBY: Duration = Duration::from_secs(2);

/// Keeps the control session.
pub(super) struct Keeper {
    pub(super) config: Arc<Config>,
    pub(super) address: Address,
    pub(super) pool: Arc<Pool>,
    pub(super) client: Arc<Client>,
    pub(super) board: Arc<Board>,
    pub(super) lease: Arc<Hold>,
    pub(super) door: Arc<OnceLock<Arc<Door>>>,
    pub(super) stop: CancellationToken,
    /// Whether this process has pushed before, under an earlier configuration.
    pub(super) proven: bool,
    /// Whether it waits while another daemon holds the lease; else that ends it.
    pub(super) stands_by: bool,
    /// That the database cannot be had, or does not fit.
    pub(super) trouble: Trouble,
}

/// Why a session ended.
enum End {
    Stopped,
    Lost(postgres::Error),
    Exit(Exit),
}

impl Keeper {
    /// Keeps a control session until the daemon stops; then waits for the pushes under way and their receipts.
    ///
    /// # Errors
    /// What the daemon cannot work with, before it has pushed for the first time.
    pub(super) async fn run(&self) -> Result<(), Exit> {
        let mut collect = None;
        let mut pauses = Schedule::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut result = Ok(());
        while !self.stop.is_cancelled() {
            self.board.tick("collect");
            let end = self.session(&mut collect, &mut pauses).await;
            self.lease.lose();
            self.board.set_listener(Listener::Down);
            match end {
                End::Stopped => break,
                End::Exit(exit) => {
                    result = Err(exit);
                    break;
                }
                End::Lost(error) => {
                    let condition = condition(&error);
                    self.clear();
                    self.board.set_condition(condition, Some(chain(&error)));
                    self.board.set_lease(Lease::Unknown);
                    let pause = pauses.next();
                    let what = match condition {
                        Condition::Schema => "the database does not fit, nothing is pushed until it does",
                        _ => "the database is not to be had; changes wait in it",
                    };
                    let words = format!(
                        "{what}, next attempt in {} ms: {}",
                        pause.as_millis(),
                        chain(&error)
                    );
                    match self.trouble.failed() {
                        Some(still) => warn!("{still}{words}"),
                        None => debug!("{words}"),
                    }
                    self.rest(pause).await;
                }
            }
        }
        self.board.rest("collect");
        if let Some(mut collect) = collect {
            while collect.pushes.join_next().await.is_some() {}
            collect.door.name_doubts().await;
        }
        result
    }

    /// Waits, or until the daemon stops.
    async fn rest(&self, pause: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(pause) => false,
            () = self.stop.cancelled() => true,
        }
    }

    async fn session(&self, collect: &mut Option<Collect>, pauses: &mut Schedule) -> End {
        let opened = tokio::select! {
            opened = self.alive(Control::open(&self.address)) => opened,
            () = self.stop.cancelled() => return End::Stopped,
        };
        let mut control = match opened {
            Ok(control) => control,
            Err(error) => {
                let hint = "look at user and password of the database URL";
                return opening_failed(error, hint, self.proven || collect.is_some());
            }
        };
        let portal = collect.as_ref().map(|collect| collect.door.portal);
        let shapes = tokio::select! {
            shapes = self.alive(self.inspect(portal)) => shapes,
            () = self.stop.cancelled() => return End::Stopped,
        };
        let shapes = match shapes {
            Ok(shapes) => shapes,
            Err(end) => return end,
        };
        match self.take_lease(&mut control, collect.as_ref()).await {
            Ok(taken) => self.settle_in(&control, &taken),
            Err(end) => return end,
        }
        let mut pings = JoinSet::new();
        if let Some(pinger) = control.pinger() {
            pings.spawn(lease::keep(pinger, Arc::clone(&self.lease)));
        }
        if collect.is_none() {
            let parts = Parts {
                config: &self.config,
                client: &self.client,
                board: &self.board,
                lease: &self.lease,
            };
            let prepared = tokio::select! {
                prepared = self.alive(prepare::door(&parts, &self.pool, &shapes)) => prepared,
                error = control.lost() => return End::Lost(error),
                () = self.stop.cancelled() => {
                    self.give_back(&control).await;
                    return End::Stopped;
                }
            };
            let door = match prepared {
                Ok(door) => Arc::new(door),
                Err(exit) => {
                    self.give_back(&control).await;
                    return unprepared_end(Unprepared::Exit(exit), self.proven);
                }
            };
            if let Err(end) = self.alive(self.pin(door.portal, self.proven)).await {
                self.give_back(&control).await;
                return end;
            }
            self.remember(&door).await;
            let batch = &self.config.batch;
            *collect = Some(Collect::new(
                Arc::clone(&door),
                Arc::clone(&self.pool),
                Arc::clone(&self.board),
                batch.max_delay,
                self.config.hubspot.in_flight,
            ));
            drop(self.door.set(door));
        } else if let Some(portal) = portal
            && let Err(end) = self.alive(self.pin(portal, true)).await
        {
            return end;
        }
        let Some(collect) = collect else {
            return End::Stopped;
        };
        tokio::select! {
            () = self.alive(tokio::time::sleep(self.lease.push_wait())) => {}
            error = control.lost() => return End::Lost(error),
            () = self.stop.cancelled() => {
                self.give_back(&control).await;
                return End::Stopped;
            }
        }
        collect.door.name_doubts().await;
        // Another daemon may have held the lease since.
        collect.door.desk.backlog().outdate_pages();
        pauses.reset();
        match collect.run(control, &self.stop).await {
            Ended::Stopped(line) => {
                self.give_back(&line).await;
                End::Stopped
            }
            Ended::Lost(error) => End::Lost(error),
        }
    }

    /// Waits for something that may take long, and shows meanwhile that the keeper lives.
    async fn alive<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            self.board.tick("collect");
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(LIFE_SIGN) => {}
            }
        }
    }

    /// Looks whether the database fits the mapping, and is the one that was pushed from before; `portal` is known once
    /// this daemon has pushed.
    async fn inspect(&self, portal: Option<i64>) -> Result<Vec<crate::postgres::catalog::Shape>, End> {
        let session = self.pool.get().await.map_err(End::Lost)?;
        let inspected = async {
            let shapes = prepare::database(&session, &self.config.mapping).await?;
            pinned::compare(&session, &self.address, portal).await?;
            Ok(shapes)
        };
        inspected
            .await
            .map_err(|unprepared| unprepared_end(unprepared, self.proven || portal.is_some()))
    }

    /// The lease is held: compares both ends with what is pinned, and pins what is not.
    async fn pin(&self, portal: i64, pushed: bool) -> Result<(), End> {
        let session = self.pool.get().await.map_err(End::Lost)?;
        let found = pinned::compare(&session, &self.address, Some(portal)).await;
        let found = found.map_err(|unprepared| unprepared_end(unprepared, pushed))?;
        pinned::pin(&session, &found).await.map_err(End::Lost)
    }

    /// Takes the lease, standing by for as long as another daemon holds it.
    async fn take_lease(&self, control: &mut Awake, collect: Option<&Collect>) -> Result<Taken, End> {
        let mut told = false;
        loop {
            self.board.tick("collect");
            let sent = boot_time();
            let tried = control.try_lease(self.lease.own()).await;
            if let Some(taken) = tried.map_err(End::Lost)? {
                if let (false, Some(collect)) = (taken.resumed, collect) {
                    collect.door.doubt_all();
                }
                self.lease.take(&taken, sent);
                self.board.set_lease(Lease::Held);
                return Ok(taken);
            }
            let generation = control.generation().await.map_err(End::Lost)?;
            let gone = self.lease.own() != Some(generation);
            if let (true, Some(collect)) = (gone, collect) {
                if !told {
                    collect.door.doubt_all();
                }
                collect.door.name_doubts().await;
            }
            let holder = control.holder().await.map_err(End::Lost)?;
            if !self.stands_by {
                match holder {
                    Some(holder) => return Err(End::Exit(not_alone(&holder))),
                    // Given back meanwhile.
                    None => continue,
                }
            }
            if !std::mem::replace(&mut told, true) {
                info!(
                    "another daemon holds the lease, this one stands by: {}",
                    holder.as_deref().unwrap_or("unknown")
                );
            }
            self.board.set_lease(Lease::Standby(holder));
            self.recovered();
            tokio::select! {
                stopped = self.rest(STANDBY) => if stopped { return Err(End::Stopped) },
                error = control.lost() => return Err(End::Lost(error)),
            }
        }
    }

    /// Notes a clean stop, unless something may still arrive at HubSpot.
    async fn give_back(&self, control: &Control) {
        let quiet = self.lease.is_quiet(self.config.hubspot.settle) && self.lease.may_ask();
        self.lease.lose();
        if quiet && let Err(error) = control.give_back().await {
            debug!(
                "the lease was not given back; its next holder waits a little: {}",
                chain(&error)
            );
        }
    }

    fn clear(&self) {
        self.board.set_condition(Condition::Database, None);
        self.board.set_condition(Condition::Schema, None);
    }

    /// The database is there and fits.
    fn recovered(&self) {
        self.clear();
        if let Some(past) = self.trouble.succeeded() {
            info!("the database is there again, {past}");
        }
    }

    /// The lease is held: says how changes are heard of.
    fn settle_in(&self, control: &Control, taken: &Taken) {
        self.recovered();
        let deaf = (!control.listen_proven()).then(|| {
            "notifications do not arrive over this connection; the change table is looked at all the time instead"
                .to_owned()
        });
        if let Some(words) = &deaf {
            warn!("{words}");
        }
        self.board.set_condition(Condition::Deaf, deaf);
        if taken.resumed {
            info!("the lease was nobody else's meanwhile; pushing goes on");
        } else if taken.wait.is_zero() {
            info!("lease taken");
        } else {
            info!(
                "lease taken; its last holder did not give it back, so pushing begins in {} ms",
                taken.wait.as_millis()
            );
        }
    }

    /// Tells the board what the database remembers of earlier sweeps.
    async fn remember(&self, door: &Door) {
        let remembered = async {
            let session = self.pool.get().await?;
            runs::close_abandoned(&session).await?;
            let last = runs::last(&session, "sweep", None).await?;
            let complete = runs::last(&session, "sweep", Some("complete")).await?;
            let paused = failures::paused(&session, &door.mapping).await?;
            Ok::<_, postgres::Error>((last, complete, paused))
        };
        match remembered.await {
            Ok((last, complete, paused)) => {
                for (object, words) in paused {
                    door.remember_pause(object, words);
                }
                self.board
                    .remember_sweeps(last, complete.and_then(|run| run.finished_at));
            }
            Err(error) => warn!("earlier runs cannot be read: {}", chain(&error)),
        }
        door.failures_changed.store(true, Ordering::Release);
    }
}

/// Another daemon holds the lease, and this one does not wait for it.
fn not_alone(holder: &str) -> Exit {
    Exit::new(TRY_AGAIN, format!("another daemon holds the lease: {holder}"))
        .hint("ask that one, where it runs: `hubsyncd sweep`; or stop it first")
}

/// What an error says of the database.
fn condition(error: &postgres::Error) -> Condition {
    match error.kind {
        ErrorKind::Schema | ErrorKind::Denied => Condition::Schema,
        _ => Condition::Database,
    }
}

/// What does not fit ends a daemon that has never pushed; another one waits until it fits again.
fn unprepared_end(unprepared: Unprepared, pushed: bool) -> End {
    match unprepared {
        Unprepared::Database(error) => {
            let hint = "run `hubsyncd setup`, which grants the daemon's role what it needs";
            opening_failed(error, hint, pushed)
        }
        Unprepared::Exit(exit) if !pushed => End::Exit(exit),
        Unprepared::Exit(exit) => {
            let mut words = exit.error.to_string();
            if let Some(hint) = exit.hint {
                words = format!("{words}; {hint}");
            }
            End::Lost(postgres::Error::new(ErrorKind::Schema, words))
        }
    }
}

/// A database that is away is waited for; one that cannot serve us ends a daemon that has never pushed.
fn opening_failed(error: postgres::Error, hint: &str, pushed: bool) -> End {
    match error.kind {
        ErrorKind::Schema if !pushed => End::Exit(Exit::new(CONFIGURATION, error)),
        ErrorKind::Denied if !pushed => End::Exit(Exit::new(NOT_PERMITTED, error).hint(hint)),
        _ => End::Lost(error),
    }
}
