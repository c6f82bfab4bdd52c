//! One run: writers and attacks together until both have done enough, then calm, then the oracle; a sweep, and the
//! oracle again.

use super::attacks::{Attack, Attacker, rain};
use super::dice::Dice;
use super::ground::Ground;
use super::ledger::changes;
use super::oracle::{Ends, Verdict};
use super::story;
use super::writers::{Office, Writer};
use crate::support::proxy::Silent;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const WRITERS: usize = 5;

/// What a run comes to at least.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) kills: u64,
    pub(super) faults: u64,
    pub(super) changes: u64,
    /// The longest pause between two transactions of a writer, in milliseconds.
    pub(super) pause_ms: usize,
    /// Whether leases are taken over from daemons that live, which takes long.
    pub(super) usurps: bool,
}

/// What runs came to.
#[derive(Debug, Default)]
pub(super) struct Figures {
    runs: u64,
    attacks: BTreeMap<Attack, u64>,
    faults: BTreeMap<String, u64>,
    requests: u64,
    committed: u64,
    rolled_back: u64,
    broken: u64,
    verdict: Verdict,
    calm: Duration,
    took: Duration,
    health: Vec<String>,
}

impl Figures {
    /// Makes a run of every seed, some at a time, each on a runtime of its own, and sums up.
    pub(super) fn of_all(plan: &Plan, seeds: &[u64], at_a_time: usize) -> Figures {
        let begin = Instant::now();
        let waiting = Mutex::new(seeds.iter().copied());
        let sum = Mutex::new(Figures::default());
        std::thread::scope(|scope| {
            for _ in 0..at_a_time.min(seeds.len()) {
                scope.spawn(|| {
                    while let Some(seed) = { waiting.lock().unwrap().next() } {
                        let runtime = tokio::runtime::Builder::new_multi_thread()
                            .worker_threads(2)
                            .enable_all()
                            .build()
                            .unwrap();
                        // A run that ends early must not take the figures of the others along.
                        let run = AssertUnwindSafe(|| runtime.block_on(run(seed, plan)));
                        let figures = catch_unwind(run).unwrap_or_else(|_| Figures::of_a_broken_run(seed));
                        sum.lock().unwrap().add(figures);
                    }
                });
            }
        });
        let mut sum = sum.into_inner().unwrap();
        sum.took = begin.elapsed();
        sum
    }

    fn of_a_broken_run(seed: u64) -> Figures {
        let wrong = vec![format!("seed {seed}: the run ended early; see its panic above")];
        Figures {
            runs: 1,
            verdict: Verdict {
                wrong,
                ..Verdict::default()
            },
            ..Figures::default()
        }
    }

    pub(super) fn assert_nothing_is_wrong(&self) {
        let wrong = &self.verdict.wrong;
        let shown = wrong.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
        assert!(wrong.is_empty(), "{} things are wrong:\n{shown}", wrong.len());
    }

    fn kills(&self) -> u64 {
        let kills = self.attacks.iter().filter(|(attack, _)| attack.kills());
        kills.map(|(_, count)| count).sum()
    }

    fn add(&mut self, other: Figures) {
        self.runs += other.runs;
        for (attack, count) in other.attacks {
            *self.attacks.entry(attack).or_default() += count;
        }
        for (fault, count) in other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        self.requests += other.requests;
        self.committed += other.committed;
        self.rolled_back += other.rolled_back;
        self.broken += other.broken;
        self.calm = self.calm.max(other.calm);
        self.health.extend(other.health);
        self.verdict.add(other.verdict);
    }
}

/// One run.
async fn run(seed: u64, plan: &Plan) -> Figures {
    println!("chaos: the run of HUBSYNCD_CHAOS_SEED={seed} begins");
    let begin = Instant::now();
    let mut dice = Dice::seeded(seed);
    let mut ground = Ground::new(seed).await;
    let office = Arc::new(Office::new(ground.exams.clone(), plan.pause_ms));
    let stop = CancellationToken::new();
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let address = ground.stage.database.address("app");
        let writer = Writer::new(number, address, dice.split(), Arc::clone(&office));
        writers.spawn(writer.work(stop.clone()));
    }
    let mut attacker = Attacker::new(dice.split(), plan.usurps);
    attack(&mut ground, &mut attacker, &office, dice.split(), plan).await;
    stop.cancel();
    writers.join_all().await;
    let calm = ground.calm().await;
    let mut verdict = judge(&mut ground, false).await;
    let health = last_sweep(&mut ground, &mut verdict).await;
    println!(
        "chaos: seed {seed} is calm after {:.0?} with {} kills and {} changes",
        begin.elapsed(),
        attacker.kills(),
        verdict.changes
    );
    verdict.add_wrongs(judge(&mut ground, true).await);
    farewell(&mut ground, &mut verdict).await;
    let deeds = std::mem::take(&mut *office.deeds.lock().unwrap());
    verdict.wrong.extend(
        deeds
            .harmed
            .into_iter()
            .map(|harm| format!("the application was harmed: {harm}")),
    );
    for wrong in &mut verdict.wrong {
        *wrong = format!("seed {seed}: {wrong}");
    }
    let world = ground.stage.sandbox.world();
    Figures {
        runs: 1,
        attacks: attacker.made,
        faults: ground.stage.sandbox.struck(),
        requests: world.count(hubsyncd::sandbox::Endpoint::Any),
        committed: deeds.committed,
        rolled_back: deeds.rolled_back,
        broken: deeds.broken,
        verdict,
        calm,
        took: begin.elapsed(),
        health: vec![health],
    }
}

/// Attacks until there were enough kills, faults and changes.
async fn attack(ground: &mut Ground, attacker: &mut Attacker, office: &Office, dice: Dice, plan: &Plan) {
    let sandbox = Arc::clone(&ground.stage.sandbox);
    let raining = CancellationToken::new();
    let rain = tokio::spawn({
        let raining = raining.clone();
        async move {
            tokio::select! {
                () = raining.cancelled() => {}
                () = rain(&sandbox, dice, (40, 250)) => {}
            }
        }
    });
    loop {
        attacker.attack(ground).await;
        let faults: u64 = ground.stage.sandbox.struck().values().sum();
        let enough = attacker.kills() >= plan.kills && faults >= plan.faults;
        let Some(changed) = changes(ground.session().await).await else {
            continue;
        };
        if enough && changed >= plan.changes {
            break;
        }
        if changed >= 4 * plan.changes {
            office.slow_down();
        }
    }
    raining.cancel();
    rain.await.unwrap();
}

async fn judge(ground: &mut Ground, swept: bool) -> Verdict {
    let ends = Ends::read(ground.session().await).await;
    let mut verdict = ends.judge(&ground.stage.sandbox.world(), swept);
    let suspects = std::mem::take(&mut verdict.suspects);
    if !suspects.is_empty() && !swept {
        let session = ground.stage.database.session().await;
        println!("{}", story::tell(&ground.stage, &session, &suspects).await);
    }
    verdict
}

/// The first sweep of the run: complete, it releases the brake, and after it the daemon is well. Answers what health says.
async fn last_sweep(ground: &mut Ground, verdict: &mut Verdict) -> String {
    let daemon = ground.daemon.as_ref().unwrap();
    let (status, run) = daemon.post("/sweep?wait=true&archive=go").await;
    let run: serde_json::Value = serde_json::from_str(&run).unwrap();
    if status != 200 || run["outcome"] != "complete" {
        verdict.wrong.push(format!("the sweep after the calm: {run}"));
    }
    ground.calm().await;
    let (status, health) = ground.daemon.as_ref().unwrap().get("/health").await;
    let health: serde_json::Value = serde_json::from_str(&health).unwrap();
    if status != 200 || health["status"] != "pass" {
        verdict
            .wrong
            .push(format!("the daemon is not well at the end: {health}"));
    }
    format!("{}: {}", health["status"], health["output"])
}

/// The daemon ends as it should, and has never panicked.
async fn farewell(ground: &mut Ground, verdict: &mut Verdict) {
    ground.database().silence(Silent::Not);
    let daemon = ground.daemon.take().unwrap();
    for line in ground
        .stage
        .logs()
        .lines()
        .filter(|line| line.contains("panicked"))
    {
        verdict.wrong.push(format!("the daemon's log: {line}"));
    }
    let code = daemon.stop().await;
    if code != Some(0) {
        verdict
            .wrong
            .push(format!("the daemon's last exit code is {code:?}"));
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = &self.verdict;
        let faults: u64 = self.faults.values().sum();
        writeln!(f, "\nchaos: {} runs in {:.0?}", self.runs, self.took)?;
        writeln!(f, "  kills -9        {:>7}", self.kills())?;
        for (attack, count) in &self.attacks {
            writeln!(f, "    {attack:<22?}{count:>7}")?;
        }
        writeln!(f, "  faults struck   {faults:>7} of {} requests", self.requests)?;
        for (fault, count) in &self.faults {
            writeln!(f, "    {fault:<22}{count:>7}")?;
        }
        writeln!(
            f,
            "  changes         {:>7} committed in {} transactions; {} rolled back, {} broken",
            verdict.changes, self.committed, self.rolled_back, self.broken
        )?;
        writeln!(
            f,
            "  compared        {:>7} rows, {} properties, {} associations, {} audit entries, {} refused records",
            verdict.rows, verdict.properties, verdict.associations, verdict.entries, verdict.refused
        )?;
        writeln!(
            f,
            "  overtaken       {:>7} writes that came after a newer one",
            verdict.overtaken
        )?;
        writeln!(
            f,
            "  braked          {:>7} deletions, let go by the last sweep",
            verdict.braked
        )?;
        writeln!(f, "  lost            {:>7}", verdict.lost)?;
        writeln!(f, "  doubled         {:>7}", verdict.doubled)?;
        writeln!(f, "  stale           {:>7}", verdict.stale)?;
        writeln!(f, "  wrong in all    {:>7}", verdict.wrong.len())?;
        writeln!(
            f,
            "  calm after      {:>7.1?} at most, without a sweep",
            self.calm
        )?;
        write!(f, "  health          {}", self.health.join(" | "))
    }
}
