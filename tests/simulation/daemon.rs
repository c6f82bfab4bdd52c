//! One life of the daemon: the real preparation, door, desk, lease and sweep's pass, over the simulated database and
//! network.

use super::collect::{Collect, POLL};
use super::network::Network;
use super::store::Simulated;
use super::world::World;
use hubsyncd::config::{Config, Needs};
use hubsyncd::daemon::board::{Board, Lease};
use hubsyncd::daemon::door::Door;
use hubsyncd::daemon::door::store::Store;
use hubsyncd::daemon::lease::Hold;
use hubsyncd::daemon::prepare::{Parts, door_over};
use hubsyncd::daemon::sweep::Sweeper;
use hubsyncd::hubspot::{Answered, Budget, Client, Observed, Settings};
use hubsyncd::mapping::Mapping;
use hubsyncd::postgres::catalog::{Column, Shape};
use hubsyncd::postgres::connect::Pool;
use hubsyncd::sync::lease::{PING_EVERY, TERM, Taken};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// After so many microseconds without a word the server ends a control session.
const SILENT: i64 = 10_000_000;

/// The daemon's configuration around a mapping.
pub fn configuration(mapping: &Mapping) -> Config {
    let environment = |name: &str| match name {
        "HUBSPOT_ACCESS_TOKEN" => Some(hubsyncd::sandbox::Settings::default().token),
        "DATABASE_URL" => Some("postgres://hubsyncd@127.0.0.1:1/simulated".to_owned()),
        _ => None,
    };
    let text = "[batch]\nmax-delay = \"30ms\"\nmax-records = 10\n";
    let config = Config::parse(Needs::Everything, "simulation", text, &environment);
    let config = config.expect("the simulation's configuration is right");
    Config {
        mapping: mapping.clone(),
        ..config
    }
}

/// What the catalog would say of the tables.
fn shapes(mapping: &Mapping) -> Vec<Shape> {
    let text = |name: &str| Column {
        name: name.to_owned(),
        type_name: "text".to_owned(),
        base: "text".to_owned(),
        category: 'S',
        has_equality: true,
    };
    let shape = |(object, declared): (usize, &hubsyncd::mapping::Object)| Shape {
        object,
        key: text(&declared.key),
        table_columns: BTreeMap::new(),
        read_columns: BTreeMap::new(),
        match_unique: !declared.matches_on_email(),
        audit_record_id: None,
    };
    mapping.objects.iter().enumerate().map(shape).collect()
}

thread_local! {
    /// Where the clock of the daemons of this run begins.
    static EPOCH: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The machine's boot time.
fn boot_time() -> Duration {
    EPOCH.get().map_or(Duration::ZERO, |epoch| epoch.elapsed()) + Duration::from_secs(1_000)
}

/// Begins a run's clock.
pub fn boot() {
    EPOCH.set(Some(Instant::now()));
}

/// HubSpot's and the database's wall clock, as the daemons of this run see it.
fn wall() -> jiff::Timestamp {
    let elapsed = EPOCH.get().map_or(Duration::ZERO, |epoch| epoch.elapsed());
    jiff::Timestamp::from_second(WALL).expect("it is a time") + elapsed
}

/// What the wall clock of every daemon shows when a run begins: it is not HubSpot's.
const WALL: i64 = 1_700_000_000;

/// A client as the daemon has it: told of what it does, and asking the lease for leave.
fn client(world: &Arc<World>, config: &Config, lease: &Arc<Hold>, daemon: u64) -> Arc<Client> {
    let unanswered = Arc::clone(lease);
    let settings = Settings {
        base_url: config.hubspot.base_url.clone(),
        api_version: config.hubspot.api_version.clone(),
        token: config.hubspot.token.clone(),
        timeout: config.hubspot.timeout,
        budget: Budget {
            requests: config.hubspot.requests,
            window: config.hubspot.window,
            in_flight: 8,
        },
        observer: Arc::new(move |seen: Observed| {
            if matches!(
                seen.outcome,
                Answered::TimedOut | Answered::Broken | Answered::Status(500..)
            ) {
                unanswered.outcome_unknown();
            }
        }),
    };
    let network = Network {
        world: Arc::clone(world),
        daemon,
    };
    let client = Client::over(settings, Arc::new(network)).expect("the settings are right");
    client.pace().set_reserve(config.hubspot.daily_reserve);
    client.pace().set_wall(wall);
    let asked = Arc::clone(lease);
    Arc::new(client.asking(Arc::new(move || asked.may_ask())))
}

/// One daemon's life, ended by dropping it, or by `stop`.
pub async fn live(world: Arc<World>, config: Arc<Config>, daemon: u64, stop: CancellationToken) {
    let board = Board::new(&config.mapping);
    let lease = Arc::new(Hold::by(boot_time));
    let address = hubsyncd::postgres::address::Address::parse("postgres://127.0.0.1:1/simulated");
    let sweeper = Sweeper {
        door: Arc::new(OnceLock::new()),
        pool: Arc::new(Pool::new(address.expect("an address"), 1)),
        requests: Arc::default(),
        board: Arc::clone(&board),
        lease: Arc::clone(&lease),
        stop: stop.clone(),
        every: Duration::from_secs(7200),
        on_start: false,
        since: Duration::ZERO,
        give_up: config.sweep.give_up,
        in_flight: 8,
        progress: Mutex::new(vec![Default::default(); config.mapping.objects.len()]),
        late: Mutex::default(),
    };
    world.trace(format_args!("daemon {daemon}: up"));
    let keeper = Keeper {
        store: Arc::new(Simulated {
            world: Arc::clone(&world),
            daemon,
        }),
        client: client(&world, &config, &lease, daemon),
        config,
        board,
        lease,
        door: Arc::clone(&sweeper.door),
        stop,
    };
    tokio::join!(keeper.run(), sweep(&world, &sweeper));
    world.trace(format_args!("daemon {daemon}: gone"));
}

/// Keeps the lease and collects while it is held, as `src/daemon/keeper.rs` does.
struct Keeper {
    store: Arc<Simulated>,
    client: Arc<Client>,
    config: Arc<Config>,
    board: Arc<Board>,
    lease: Arc<Hold>,
    door: Arc<OnceLock<Arc<Door>>>,
    stop: CancellationToken,
}

impl Keeper {
    async fn run(&self) {
        let (world, daemon) = (&self.store.world, self.store.daemon);
        let mut collect = None;
        while !self.stop.is_cancelled() {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                taken = self.take_lease() => world.trace(format_args!("daemon {daemon}: {taken:?}")),
            }
            self.board.set_lease(Lease::Held);
            tokio::select! {
                biased;
                () = self.lost() => {}
                () = self.push(&mut collect) => {}
            }
            self.lease.lose();
            world.unlock(daemon);
            world.trace(format_args!("daemon {daemon}: lease lost"));
        }
        if let Some(mut collect) = collect {
            collect.end().await;
            collect.door.name_doubts().await;
        }
    }

    /// Pings until the lease is lost.
    async fn lost(&self) {
        loop {
            tokio::time::sleep(PING_EVERY).await;
            let sent = boot_time();
            let generation = self.lease.own();
            let daemon = self.store.daemon;
            let ping = self.store.trip("ping", |model, now| {
                let ours =
                    Some(model.lease.generation) == generation && model.lease.locked_by == Some(daemon);
                if ours {
                    model.lease.renewed_at = Some(now);
                }
                ours
            });
            match tokio::time::timeout(TERM, ping).await {
                Ok(Ok(true)) => self.lease.confirm(sent),
                _ => return self.lease.lose(),
            }
        }
    }

    /// Prepares, waits for the former holder's requests, and collects until the daemon stops.
    async fn push(&self, collect: &mut Option<Collect>) {
        let door = tokio::select! {
            door = self.prepared() => door,
            () = self.stop.cancelled() => return self.give_back().await,
        };
        let collect = collect.get_or_insert_with(|| Collect::new(&self.store, &door));
        tokio::select! {
            () = tokio::time::sleep(self.lease.push_wait()) => {}
            () = self.stop.cancelled() => return self.give_back().await,
        }
        door.name_doubts().await;
        door.desk.backlog().outdate_pages();
        collect.run(&self.stop).await;
        self.give_back().await;
    }

    async fn prepared(&self) -> Arc<Door> {
        if let Some(door) = self.door.get() {
            return Arc::clone(door);
        }
        let parts = Parts {
            config: &self.config,
            client: &self.client,
            board: &self.board,
            lease: &self.lease,
        };
        let store: Arc<dyn Store> = Arc::clone(&self.store) as Arc<dyn Store>;
        match door_over(&parts, &shapes(&self.config.mapping), store).await {
            Ok(door) => {
                let door = Arc::new(door);
                drop(self.door.set(Arc::clone(&door)));
                door
            }
            Err(exit) => {
                let world = &self.store.world;
                world.violation(format_args!("the daemon does not start: {exit:?}"));
                std::future::pending().await
            }
        }
    }

    /// Notes a clean stop, unless something may still arrive at HubSpot.
    async fn give_back(&self) {
        let quiet = self.lease.is_quiet(self.config.hubspot.settle) && self.lease.may_ask();
        let generation = self.lease.own();
        self.lease.lose();
        if !quiet {
            return;
        }
        let given = self.store.trip("giving back", |model, _| {
            model.lease.given_back |= Some(model.lease.generation) == generation;
        });
        // Else the next holder waits a little.
        let _ = given.await;
    }

    async fn take_lease(&self) -> Taken {
        let (store, hold) = (&self.store, &self.lease);
        let mut told = false;
        loop {
            let (sent, own) = (boot_time(), hold.own());
            let taken = store.trip("lease", |model, now| {
                let holder = model.lease.locked_by.filter(|holder| *holder != store.daemon);
                // The server ends the session of a stopped process.
                let silent = now - model.lease.renewed_at.unwrap_or_default() > SILENT;
                if holder.is_some_and(|holder| !(silent && store.world.frozen_until(holder).is_some())) {
                    return Err(model.lease.generation);
                }
                model.lease.locked_by = Some(store.daemon);
                Ok(model.take_lease(own, now))
            });
            match taken.await {
                Ok(Ok(taken)) => {
                    if let (false, Some(door)) = (taken.resumed, self.door.get()) {
                        door.doubt_all();
                    }
                    hold.take(&taken, sent);
                    return taken;
                }
                Ok(Err(generation)) => {
                    self.board.set_lease(Lease::Standby(None));
                    if let (true, Some(door)) = (hold.own() != Some(generation), self.door.get()) {
                        if !std::mem::replace(&mut told, true) {
                            door.doubt_all();
                        }
                        door.name_doubts().await;
                    }
                    tokio::time::sleep(PING_EVERY).await;
                }
                Err(_) => {
                    store.world.unlock(store.daemon);
                    tokio::time::sleep(POLL).await;
                }
            }
        }
    }
}

/// Sweeps whenever it is wanted, until the daemon stops.
async fn sweep(world: &World, sweeper: &Sweeper) {
    while !sweeper.stop.is_cancelled() {
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = sweeper.stop.cancelled() => return,
        }
        let wanted = world.sweeps_wanted.load(Ordering::Relaxed);
        let Some(door) = sweeper.door.get() else { continue };
        sweep_unnamed(world, sweeper, door).await;
        if world.sweeps_done.load(Ordering::Relaxed) >= wanted || !door.lease.may_push() {
            continue;
        }
        let released = world.model().ledger.released;
        let mut complete = true;
        for object in 0..door.objects.len() {
            let (counts, why) = sweeper.pass(door, object, released).await;
            world.trace(format_args!(
                "sweep of {object}: {counts:?} {}",
                why.as_deref().unwrap_or("complete")
            ));
            complete &= why.is_none();
        }
        if complete {
            let mut model = world.model();
            let ended: Vec<i64> = model
                .audit
                .iter()
                .filter(|(_, entry)| !entry.marked && !model.tables[entry.object].contains_key(&entry.key))
                .map(|(id, _)| *id)
                .collect();
            for id in ended {
                model.audit.entry(id).and_modify(|entry| entry.marked = true);
            }
            drop(model);
            world.sweeps_done.store(wanted, Ordering::Relaxed);
        }
    }
}

/// Sweeps the objects of which a change names no row, as `src/daemon/sweep/mod.rs` does, without its pauses.
async fn sweep_unnamed(world: &World, sweeper: &Sweeper, door: &Arc<Door>) {
    for object in 0..door.objects.len() {
        if !door.lease.may_push() || !door.desk.backlog().wants_sweep(object) {
            continue;
        }
        let generation = door.lease.own();
        let seqs = door.desk.backlog().take_sweep(object);
        let (counts, why) = sweeper.pass(door, object, false).await;
        world.trace(format_args!(
            "sweep of {object} for changes without names: {counts:?} {why:?}"
        ));
        let mut model = world.model();
        if why.is_none() && Some(model.lease.generation) == generation {
            for seq in &seqs {
                model.changes.remove(seq);
            }
            door.desk.backlog().sweep_done(object, seqs);
        } else {
            door.desk.backlog().sweep_again(object, seqs);
        }
    }
}
