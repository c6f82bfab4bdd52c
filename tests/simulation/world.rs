//! What everybody in a run shares: the database, the portal, the clock, chance, and the record of what happened.

use super::dice::Dice;
use super::model::Model;
use super::scene::{Scene, Trouble};
use hubsyncd::postgres::receipt::work::Work;
use hubsyncd::postgres::receipt::{Receipt, Written};
use hubsyncd::sandbox::{Portal, Settings};
use std::collections::BTreeMap;
use std::fmt::Arguments;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// When runs begin, 2026-09-21 14:13:20 UTC: microseconds since 1970.
const BEGIN: i64 = 1_790_000_000_000_000;

/// So much later the portal's day ends, in US/Eastern.
const UNTIL_MIDNIGHT: i64 = 49_600_000_000;

/// The requests of a day, where that is limited.
pub const DAILY: u32 = 100_000;

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
    pub scene: Scene,
    pub portal: Portal,
    /// The ids of the labels of a booking's link to a contact.
    pub labels: BTreeMap<String, u32>,
    /// Whether anything may still go wrong.
    pub troubled: AtomicBool,
    /// Whether no connection to the database can be had.
    pub database_down: AtomicBool,
    /// Requests that may still land in HubSpot.
    pub under_way: AtomicUsize,
    /// Sweeps asked for, and sweeps that reached every row.
    pub sweeps_wanted: AtomicU64,
    pub sweeps_done: AtomicU64,
    /// Whether HubSpot takes the token.
    pub revoked: AtomicBool,
    /// Whether the next write takes so long that another daemon may have taken over when it lands.
    pub dawdles: AtomicBool,
    /// Rung by commits.
    pub bell: Notify,
    /// When the run begins, microseconds since 1970.
    begin: i64,
    /// How far the database's clock was set forward, microseconds.
    jumped: AtomicI64,
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
    pub fn new(seed: u64, trouble: Trouble, scene: Scene) -> Arc<World> {
        let settings = Settings {
            seed,
            search_lag: scene.lag(),
            daily: scene.midnight.then_some(DAILY),
            ..Settings::default()
        };
        let begin = if scene.midnight {
            // So that the day ends while something is still going on.
            BEGIN + UNTIL_MIDNIGHT - 30_000_000
        } else {
            BEGIN
        };
        let portal = Portal::tutoring(settings, begin / 1000 + scene.skew);
        let labels = scene.furnish(&mut portal.world());
        Arc::new(World {
            trouble,
            scene,
            portal,
            labels,
            troubled: AtomicBool::new(true),
            database_down: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            sweeps_wanted: AtomicU64::new(0),
            sweeps_done: AtomicU64::new(0),
            revoked: AtomicBool::new(false),
            dawdles: AtomicBool::new(false),
            bell: Notify::new(),
            begin,
            jumped: AtomicI64::new(0),
            model: Mutex::new(Model::new(Arc::new(scene.mapping()), begin)),
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
        self.portal
            .set_clock((self.begin + elapsed) / 1000 + self.scene.skew);
        let jumped = self.jumped.load(Ordering::Relaxed);
        self.model().tick(self.begin + elapsed + jumped)
    }

    /// The database's clock is set.
    pub fn jump(&self, by: Duration, forward: bool) {
        let by = i64::try_from(by.as_micros()).expect("it is short");
        let by = if forward { by } else { -by };
        self.jumped.fetch_add(by, Ordering::Relaxed);
        self.model().jump(by);
        self.trace(format_args!("the database's clock jumps by {by} µs"));
    }

    /// How long until the portal's day ends, where the run begins just before that.
    pub fn until_midnight(&self) -> Duration {
        let ends = (BEGIN + UNTIL_MIDNIGHT) / 1000;
        let left = ends - self.portal.world().now_ms();
        Duration::from_millis(u64::try_from(left).unwrap_or(0))
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

    /// A request of ours has archived these records just now.
    pub fn archive(&self, records: &[(String, String)]) {
        let now = self.tick();
        for (object_type, id) in records {
            let wrong = self.model().archive(object_type, id, now);
            if let Some(wrong) = wrong {
                self.violation(format_args!("{wrong}"));
            }
        }
    }

    /// What a receipt says must be true: HubSpot has written the record since the row was read.
    pub fn check_receipt(&self, model: &Model, receipt: &Receipt, work: &Work<'_>) {
        if self.scene.jumps {
            // Times do not tell then what was first.
            return;
        }
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
