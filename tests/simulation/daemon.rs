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
use hubsyncd::hubspot::{Budget, Client, Settings};
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

/// One daemon's life, ended by dropping it.
pub async fn live(world: Arc<World>, config: Arc<Config>, daemon: u64) {
    let board = Board::new(&config.mapping);
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
        observer: Arc::new(|_| {}),
    };
    let network = Network {
        world: Arc::clone(&world),
        daemon,
    };
    let client = Client::over(settings, Arc::new(network)).expect("the settings are right");
    let client = Arc::new(client);
    let lease = Arc::new(Hold::by(boot_time));
    let parts = Parts {
        config: &config,
        client: &client,
        board: &board,
        lease: &lease,
    };
    let store = Arc::new(Simulated {
        world: Arc::clone(&world),
        daemon,
    });
    let over: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
    let door = match door_over(&parts, &shapes(&config.mapping), over).await {
        Ok(door) => Arc::new(door),
        Err(exit) => return world.violation(format_args!("the daemon does not start: {exit:?}")),
    };
    let address = hubsyncd::postgres::address::Address::parse("postgres://127.0.0.1:1/simulated");
    let sweeper = Sweeper {
        door: Arc::new(OnceLock::new()),
        pool: Arc::new(Pool::new(address.expect("an address"), 1)),
        requests: Arc::default(),
        board: Arc::clone(&board),
        lease,
        stop: CancellationToken::new(),
        every: Duration::from_secs(7200),
        on_start: false,
        since: Duration::ZERO,
        give_up: config.sweep.give_up,
        in_flight: 8,
        progress: Mutex::new(vec![Default::default(); config.mapping.objects.len()]),
        late: Mutex::default(),
    };
    world.trace(format_args!("daemon {daemon}: up"));
    let mut collect = Collect::new(&store, &door);
    tokio::select! {
        biased;
        () = keep(&store, &board, &mut collect) => {}
        () = sweep(&world, &sweeper, &door) => {}
    }
}

/// Keeps the lease and collects while it is held, as `src/daemon/keeper.rs` does.
async fn keep(store: &Arc<Simulated>, board: &Board, collect: &mut Collect) {
    let hold = Arc::clone(&collect.door.lease);
    loop {
        let taken = take_lease(store, board, collect).await;
        store
            .world
            .trace(format_args!("daemon {}: {taken:?}", store.daemon));
        board.set_lease(Lease::Held);
        let lost = async {
            loop {
                tokio::time::sleep(PING_EVERY).await;
                let sent = boot_time();
                let generation = hold.own();
                let ping = store.trip("ping", |model, now| {
                    let ours = Some(model.lease.generation) == generation
                        && model.lease.locked_by == Some(store.daemon);
                    if ours {
                        model.lease.renewed_at = Some(now);
                    }
                    ours
                });
                match tokio::time::timeout(TERM, ping).await {
                    Ok(Ok(true)) => hold.confirm(sent),
                    _ => return hold.lose(),
                }
            }
        };
        let collecting = async {
            tokio::time::sleep(hold.push_wait()).await;
            collect.door.name_doubts().await;
            collect.door.desk.backlog().outdate_pages();
            collect.run().await;
        };
        tokio::select! {
            biased;
            () = lost => {}
            () = collecting => {}
        }
        hold.lose();
        store.world.unlock(store.daemon);
        store
            .world
            .trace(format_args!("daemon {}: lease lost", store.daemon));
    }
}

async fn take_lease(store: &Arc<Simulated>, board: &Board, collect: &mut Collect) -> Taken {
    let hold = Arc::clone(&collect.door.lease);
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
                if !taken.resumed {
                    collect.door.doubt_all();
                }
                hold.take(&taken, sent);
                return taken;
            }
            Ok(Err(generation)) => {
                board.set_lease(Lease::Standby(None));
                if hold.own() != Some(generation) {
                    if !std::mem::replace(&mut told, true) {
                        collect.door.doubt_all();
                    }
                    collect.door.name_doubts().await;
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

/// Sweeps whenever it is wanted.
async fn sweep(world: &World, sweeper: &Sweeper, door: &Arc<Door>) {
    loop {
        tokio::time::sleep(POLL).await;
        let wanted = world.sweeps_wanted.load(Ordering::Relaxed);
        if world.sweeps_done.load(Ordering::Relaxed) >= wanted || !door.lease.may_push() {
            continue;
        }
        let mut complete = true;
        for object in 0..door.objects.len() {
            let (counts, why) = sweeper.pass(door, object).await;
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
