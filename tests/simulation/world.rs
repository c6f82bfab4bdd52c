//! What everybody in a run shares: the database, the portal, the clock, chance, and the record of what happened.

use super::dice::Dice;
use super::model::Model;
use hubsyncd::mapping::Mapping;
use hubsyncd::postgres::receipt::work::Work;
use hubsyncd::postgres::receipt::{Receipt, Written};
use hubsyncd::sandbox::{Portal, Settings};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Arguments;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// When every run begins: microseconds since 1970.
const BEGIN: i64 = 1_790_000_000_000_000;

/// How much of what goes wrong in a run, in a thousand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trouble {
    /// Requests that the network or HubSpot spoils.
    pub network: u64,
    /// Round trips to the database that break.
    pub database: u64,
    /// Steps of the application at which the daemon is killed.
    pub crashes: u64,
    /// Steps at which the daemon's process is stopped for a while beside another one.
    pub freezes: u64,
    /// Steps at which the database goes away for a while.
    pub outages: u64,
    /// Steps at which a person does something in HubSpot.
    pub people: u64,
    /// Rows that HubSpot, a link or a table refuses.
    pub refusals: u64,
}

impl Trouble {
    /// What a seed's run has to bear.
    pub fn of(seed: u64) -> Trouble {
        let mut dice = Dice::new(seed, 1);
        let mut some = |one_in: u64, most: u64| {
            if dice.below(one_in) == 0 {
                dice.between(1, most)
            } else {
                0
            }
        };
        Trouble {
            network: some(2, 400),
            database: some(2, 120),
            crashes: some(2, 120),
            freezes: some(4, 80),
            outages: some(4, 60),
            people: some(3, 100),
            refusals: some(3, 250),
        }
    }
}

/// What becomes of one round trip to the database.
#[derive(Debug, Clone, Copy)]
pub struct Fate {
    pub before: u64,
    pub after: u64,
    pub lost_before: bool,
    pub lost_after: bool,
}

/// The shared world of one run.
pub struct World {
    pub trouble: Trouble,
    pub portal: Portal,
    /// Whether anything may still go wrong.
    pub troubled: AtomicBool,
    /// Whether no connection to the database can be had.
    pub database_down: AtomicBool,
    /// Requests that may still land in HubSpot.
    pub under_way: AtomicUsize,
    /// Sweeps asked for, and sweeps that reached every row.
    pub sweeps_wanted: AtomicU64,
    pub sweeps_done: AtomicU64,
    /// Ids of records that people merged from others.
    pub merged: Mutex<BTreeSet<String>>,
    model: Mutex<Model>,
    database_dice: Mutex<Dice>,
    /// Chance of the network's.
    pub network_dice: Mutex<Dice>,
    /// When HubSpot last wrote each record, by type and id.
    accepted: Mutex<BTreeMap<(String, String), i64>>,
    frozen: Mutex<BTreeMap<u64, Instant>>,
    trace: Mutex<Vec<String>>,
    violations: Mutex<Vec<String>>,
    started: Instant,
}

impl World {
    pub fn new(seed: u64, trouble: Trouble, mapping: Arc<Mapping>) -> Arc<World> {
        let settings = Settings {
            seed,
            ..Settings::default()
        };
        Arc::new(World {
            trouble,
            portal: Portal::tutoring(settings, BEGIN / 1000),
            troubled: AtomicBool::new(true),
            database_down: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            sweeps_wanted: AtomicU64::new(0),
            sweeps_done: AtomicU64::new(0),
            merged: Mutex::default(),
            model: Mutex::new(Model::new(mapping, BEGIN)),
            database_dice: Mutex::new(Dice::new(seed, 2)),
            network_dice: Mutex::new(Dice::new(seed, 3)),
            accepted: Mutex::default(),
            frozen: Mutex::default(),
            trace: Mutex::default(),
            violations: Mutex::default(),
            started: Instant::now(),
        })
    }

    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model
            .lock()
            .expect("nothing panics while it holds the model")
    }

    /// The time of the next event, which no other event has.
    pub fn tick(&self) -> i64 {
        let elapsed = i64::try_from(self.started.elapsed().as_micros()).expect("a run ends within years");
        self.portal.set_clock((BEGIN + elapsed) / 1000);
        self.model().tick(BEGIN + elapsed)
    }

    /// 0: not at all, 1: everybody else goes first, more: so many milliseconds.
    pub async fn pause(&self, length: u64) {
        match length {
            0 => {}
            1 => tokio::task::yield_now().await,
            milliseconds => tokio::time::sleep(Duration::from_millis(milliseconds)).await,
        }
    }

    /// How long nobody says anything: until who sent the request has stopped waiting, or so many milliseconds.
    pub async fn silence(&self, for_good: bool, milliseconds: u64) {
        self.pause(if for_good { 30_001 } else { milliseconds }).await;
    }

    /// Stops a daemon's process until this time, as SIGSTOP does.
    pub fn freeze(&self, daemon: u64, length: Duration) {
        let until = Instant::now() + length;
        self.frozen
            .lock()
            .expect("never held for long")
            .insert(daemon, until);
        self.trace(format_args!("daemon {daemon}: stopped for {length:?}"));
    }

    /// Until when a daemon stands still, if it does.
    pub fn frozen_until(&self, daemon: u64) -> Option<Instant> {
        let frozen = self.frozen.lock().expect("never held for long");
        frozen
            .get(&daemon)
            .copied()
            .filter(|until| *until > Instant::now())
    }

    /// A daemon's control session has ended.
    pub fn unlock(&self, daemon: u64) {
        let lease = &mut self.model().lease;
        lease.locked_by = lease.locked_by.filter(|holder| *holder != daemon);
    }

    /// Goes on when the daemon does.
    pub async fn thaw(&self, daemon: u64) {
        while let Some(until) = self.frozen_until(daemon) {
            tokio::time::sleep_until(until).await;
        }
    }

    pub fn is_troubled(&self) -> bool {
        self.troubled.load(Ordering::Relaxed)
    }

    /// What becomes of the next round trip.
    pub fn database_fate(&self) -> Fate {
        let mut dice = self
            .database_dice
            .lock()
            .expect("the dice are never held for long");
        let mut pause = || match dice.below(20) {
            0..10 => 0,
            10..16 => 1,
            16..19 => dice.between(2, 6),
            _ => dice.between(2, 200),
        };
        let (before, after) = (pause(), pause());
        let down = self.database_down.load(Ordering::Relaxed);
        let troubled = self.is_troubled();
        Fate {
            before,
            after,
            lost_before: down || (troubled && dice.permille(self.trouble.database / 2)),
            lost_after: troubled && dice.permille(self.trouble.database / 2),
        }
    }

    /// Whether a receipt finds a whole table locked (`true`) or has to wait for somebody too long (`false`).
    pub fn receipt_waits(&self) -> Option<bool> {
        let mut dice = self
            .database_dice
            .lock()
            .expect("the dice are never held for long");
        let waits = self.is_troubled() && dice.permille(self.trouble.database / 4);
        waits.then(|| dice.permille(500))
    }

    /// HubSpot wrote these records just now.
    pub fn accept(&self, records: impl Iterator<Item = (String, String)>) {
        let now = self.tick();
        let mut accepted = self.accepted.lock().expect("never held for long");
        accepted.extend(records.map(|record| (record, now)));
    }

    /// What a receipt says must be true: HubSpot has written the record since the row was read.
    pub fn check_receipt(&self, model: &Model, receipt: &Receipt, work: &Work<'_>) {
        let declared = &model.mapping.objects[receipt.object];
        let accepted = self.accepted.lock().expect("never held for long");
        for (index, said) in &work.said {
            let entry = &receipt.entries[*index];
            let marks = entry.audit.iter().any(|id| work.marks.contains(id));
            let vouches = (entry.synced || marks) && *said == Written::Done;
            let Some(id) = entry.hubspot_id.as_ref().or(entry.read_id.as_ref()) else {
                if vouches {
                    self.violation(format_args!(
                        "{} {} is marked without an id",
                        declared.name, entry.key
                    ));
                }
                continue;
            };
            let at = accepted.get(&(declared.object_type.clone(), id.clone()));
            if vouches && at.is_none_or(|at| *at < receipt.read_at) {
                self.violation(format_args!(
                    "{} {} is marked synced as of a read that HubSpot record {id} has not seen",
                    declared.name, entry.key
                ));
            }
        }
    }

    pub fn trace(&self, what: Arguments<'_>) {
        let at = self.started.elapsed().as_millis();
        self.trace
            .lock()
            .expect("never held for long")
            .push(format!("{at:>8} {what}"));
    }

    pub fn take_trace(&self) -> Vec<String> {
        std::mem::take(&mut self.trace.lock().expect("never held for long"))
    }

    pub fn violation(&self, what: Arguments<'_>) {
        self.trace(format_args!("VIOLATION {what}"));
        self.violations
            .lock()
            .expect("never held for long")
            .push(what.to_string());
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().expect("never held for long").clone()
    }
}
