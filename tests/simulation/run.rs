//! One run: troubled times, then quiet ones, then the oracle.

use super::daemon::{boot, configuration, live};
use super::dice::Dice;
use super::oracle;
use super::scene::{Scene, Trouble};
use super::script::Script;
use super::world::World;
use hubsyncd::config::Config;
use hubsyncd::sandbox::Record;
use hubsyncd::sync::deletion::BRAKE;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long an operator waits for a daemon to stop.
const PATIENCE: Duration = Duration::from_secs(100);

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub steps: u64,
    pub scene: Scene,
    pub trouble: Trouble,
}

/// What came of it.
pub struct Outcome {
    pub trace: Vec<String>,
    pub wrong: Vec<String>,
}

impl Plan {
    pub fn of(seed: u64) -> Plan {
        let scene = Scene::of(seed);
        Plan {
            seed,
            steps: 20,
            scene,
            trouble: Trouble::of(seed, scene),
        }
    }
}

/// Runs a plan on a thread and a clock of its own.
pub fn run(plan: Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing");
    hubsyncd::retry::seed(plan.seed);
    runtime.block_on(async {
        boot();
        let world = World::new(plan.seed, plan.trouble, plan.scene);
        world.trace(format_args!("{:?}", plan));
        let mut stage = Stage {
            config: Arc::new(configuration(&plan.scene.mapping())),
            script: Script::new(&world, plan.seed),
            dice: Dice::new(plan.seed, 5),
            daemons: BTreeMap::new(),
            started: 0,
            world,
        };
        stage.troubled(plan.steps).await;
        let mut wrong = stage.quiet().await;
        wrong.extend(stage.world.violations());
        stage.kill(None).await;
        Outcome {
            trace: stage.world.take_trace(),
            wrong,
        }
    })
}

struct Stage {
    world: Arc<World>,
    config: Arc<Config>,
    script: Script,
    dice: Dice,
    /// The daemons that run, by number.
    daemons: BTreeMap<u64, Life>,
    started: u64,
}

/// A daemon that runs.
struct Life {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Stage {
    fn start(&mut self) {
        self.started += 1;
        let stop = CancellationToken::new();
        let (world, config) = (Arc::clone(&self.world), Arc::clone(&self.config));
        let task = tokio::spawn(live(world, config, self.started, stop.clone()));
        self.daemons.insert(self.started, Life { task, stop });
    }

    /// Kills a daemon, or all.
    async fn kill(&mut self, one: Option<u64>) {
        let numbers: Vec<u64> = self.daemons.keys().copied().collect();
        for number in numbers
            .into_iter()
            .filter(|number| one.is_none_or(|one| one == *number))
        {
            let Some(daemon) = self.daemons.remove(&number) else {
                continue;
            };
            self.world.trace(format_args!("daemon {number}: killed"));
            daemon.task.abort();
            // Killed is the usual end; what else it may be shows in what it left undone.
            let _ = daemon.task.await;
            self.world.unlock(number);
            self.world.pause(2).await;
        }
    }

    /// Stops a daemon as an operator would, who loses patience after a while.
    async fn stop(&mut self, number: u64) {
        let Some(daemon) = self.daemons.get_mut(&number) else {
            return;
        };
        self.world.trace(format_args!("daemon {number}: told to stop"));
        daemon.stop.cancel();
        let gone = tokio::time::timeout(PATIENCE, &mut daemon.task).await;
        if gone.is_err() {
            self.kill(Some(number)).await;
        }
        self.daemons.remove(&number);
        self.world.unlock(number);
    }

    /// Stops a daemon's process for a while beside another one.
    async fn freeze(&mut self) {
        let length = Duration::from_millis(self.dice.between(100, 60_000));
        if let Some(one) = self.any() {
            self.world.freeze(one, length);
        }
        if self.daemons.len() < 2 {
            self.start();
        }
    }

    /// Stops the process of the daemon that pushes right after a write has left it. That lands when another one has taken
    /// over and pushed newer versions of the same rows; then the first wakes, with the answer to what it sent.
    async fn hand_over(&mut self) {
        let rows = self.script.beforehand();
        self.world.dawdles.store(true, Ordering::Relaxed);
        let mut looks = 0;
        while self.world.dawdles.load(Ordering::Relaxed) && looks < 2_000 {
            looks += 1;
            self.world.pause(3).await;
        }
        self.world.dawdles.store(false, Ordering::Relaxed);
        let holder = self.world.model().lease.locked_by;
        if let Some(one) = holder {
            let length = Duration::from_millis(self.dice.between(30_000, 60_000));
            self.world.freeze(one, length);
        }
        if self.daemons.len() < 2 {
            self.start();
        }
        self.script.overtake(&rows);
        self.world.pause(self.dice.between(30_000, 70_000)).await;
    }

    /// HubSpot refuses to archive one of the records that it has.
    fn refuse_to_archive(&mut self) {
        let ids: Vec<String> = {
            let portal = self.world.portal.world();
            let types = ["2-50158943", "2-777"];
            let records = types.into_iter().flat_map(|of| portal.records(of));
            records.map(Record::id).collect()
        };
        let id = self.dice.pick(&ids).cloned();
        self.world.model().ledger.unarchivable.extend(id);
    }

    /// One of the daemons that run.
    fn any(&mut self) -> Option<u64> {
        let numbers: Vec<u64> = self.daemons.keys().copied().collect();
        self.dice.pick(&numbers).copied()
    }

    async fn troubled(&mut self, steps: u64) {
        let (trouble, scene) = (self.world.trouble, self.world.scene);
        self.start();
        for step in 0..steps {
            self.script.act().await;
            if self.dice.permille(trouble.people) {
                self.script.people();
            }
            if self.dice.permille(trouble.outages) {
                self.script.outage();
            }
            if self.dice.permille(trouble.crashes) {
                let one = self.any();
                self.kill(one).await;
                self.world.pause(self.dice.between(1, 3_000)).await;
                self.start();
            }
            if self.dice.permille(trouble.stops)
                && let Some(one) = self.any()
            {
                self.stop(one).await;
                self.world.pause(self.dice.between(1, 3_000)).await;
                self.start();
            }
            if self.dice.permille(trouble.freezes) {
                self.freeze().await;
            }
            if scene.handover && self.dice.permille(150) {
                self.hand_over().await;
            }
            if self.dice.permille(trouble.revocations) {
                self.script.revocation();
            }
            if scene.archive && self.dice.permille(trouble.refusals) {
                self.refuse_to_archive();
            }
            if scene.purge {
                self.script.purge(step).await;
            }
            if scene.truncates && self.dice.permille(80) {
                self.script.truncate();
            }
            if scene.jumps && self.dice.permille(150) {
                self.script.set_clock();
            }
            if scene.midnight {
                self.script.spend_the_day();
            }
            if self.dice.permille(30) {
                self.world.sweeps_wanted.fetch_add(1, Ordering::Relaxed);
            }
            let pause = if self.dice.permille(100) { 5_000 } else { 400 };
            self.world.pause(self.dice.below(pause)).await;
        }
        self.script.finish().await;
        self.world.troubled.store(false, Ordering::Relaxed);
        self.world.model().ledger.unarchivable.clear();
        self.world.trace(format_args!("quiet from here on"));
    }

    /// Waits until nothing waits and nothing is under way; says what still does after hours.
    async fn settle(&self) -> Option<String> {
        let mut calm = 0;
        for _ in 0..7_200 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let waiting = {
                let model = self.world.model();
                let due = model
                    .intents
                    .values()
                    .filter(|intended| intended.intent.due_at.is_some() && !intended.intent.named);
                model.changes.len() + due.count()
            };
            let under_way = self.world.under_way.load(Ordering::Relaxed);
            let swept = self.world.sweeps_done.load(Ordering::Relaxed)
                >= self.world.sweeps_wanted.load(Ordering::Relaxed);
            calm = if waiting == 0 && under_way == 0 && swept {
                calm + 1
            } else {
                0
            };
            if calm == 3 {
                return None;
            }
        }
        let model = self.world.model();
        let due: Vec<String> = model
            .intents
            .iter()
            .filter(|(_, intended)| intended.intent.due_at.is_some())
            .map(|((object, key), intended)| format!("{object} {key} {intended:?}"))
            .collect();
        Some(format!(
            "it does not come to rest: changes {:?}, due {due:?}",
            model.changes
        ))
    }

    async fn quiet(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        wrong.extend(self.settle().await);
        let (trouble, scene) = (self.world.trouble, self.world.scene);
        let calm = trouble.people == 0 && trouble.refusals == 0 && trouble.network == 0;
        if wrong.is_empty() && calm && !scene.unnamed {
            wrong.extend(
                oracle::judge(&self.world, false)
                    .into_iter()
                    .map(|one| format!("without a sweep: {one}")),
            );
        }
        let mut last = Vec::new();
        // A sweep may find what the next one puts right: of merged records, the one whose row is to fail.
        for _ in 0..4 {
            self.world.sweeps_wanted.fetch_add(1, Ordering::Relaxed);
            wrong.extend(self.settle().await);
            last = oracle::judge(&self.world, true);
            let mut model = self.world.model();
            let braked = model.failures.values().any(|failure| failure.category == BRAKE);
            if (last.is_empty() && !braked) || !wrong.is_empty() {
                break;
            }
            model.ledger.released |= braked;
        }
        wrong.extend(last);
        wrong
    }
}
