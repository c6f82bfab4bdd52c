//! The attacks, drawn from a seed: when the daemon is killed and where, what its database and its connections suffer,
//! and what rain of faults falls between it and HubSpot.

use super::dice::Dice;
use super::ground::Ground;
use crate::support::proxy::Silent;
use hubsyncd::cli::cluster::Mode;
use hubsyncd::sandbox::{Endpoint, Fault, Sandbox, When, World};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What HubSpot delays lands at most this much later, and what the network delays [`SILENT_MAX_MS`]: together less than
/// the shortest `settle` there is.
const LATE_MAX_MS: usize = 3_000;
/// How long the way to HubSpot is silent at most.
const SILENT_MAX_MS: usize = 2_500;

/// One attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Attack {
    /// kill -9 at any moment.
    Kill,
    /// kill -9 before HubSpot has committed a request; it commits later.
    KillBeforeCommit,
    /// kill -9 between HubSpot's commit and its reply.
    KillBeforeReply,
    /// kill -9 between the reply and the receipt.
    KillBeforeReceipt,
    /// kill -9 between the receipt and the daemon's hearing of it.
    KillAfterReceipt,
    /// SIGTERM, and a new daemon.
    Stop,
    /// Postgres restarted, its sessions ended.
    RestartFast,
    /// Postgres restarted as after a power failure.
    RestartImmediate,
    /// All of the daemon's sessions ended by the database.
    TerminateAll,
    /// One of them.
    TerminateOne,
    /// The database goes silent and comes back.
    SilentDatabase,
    /// The database goes silent, and its connections are closed then.
    LostDatabase,
    /// HubSpot goes silent and comes back.
    SilentHubspot,
    /// HubSpot goes silent, and its connections are closed then.
    LostHubspot,
    /// The daemon is frozen and woken.
    Freeze,
    /// A second daemon is started and the first frozen past its lease; both live for a while, then one is killed.
    Usurp,
    /// The daemon is killed and its sessions live on at the database, with the lease; the next daemon comes another way.
    Ghost,
    /// HubSpot says that the day's requests are spent; a new daemon asks again.
    Daily,
}

impl Attack {
    /// Whether it is a kill -9.
    pub(super) fn kills(self) -> bool {
        use Attack::*;
        matches!(
            self,
            Kill | KillBeforeCommit | KillBeforeReply | KillBeforeReceipt | KillAfterReceipt | Usurp | Ghost
        )
    }
}

const ATTACKS: [(usize, Attack); 18] = [
    (16, Attack::Kill),
    (8, Attack::KillBeforeCommit),
    (14, Attack::KillBeforeReply),
    (14, Attack::KillBeforeReceipt),
    (8, Attack::KillAfterReceipt),
    (2, Attack::Stop),
    (3, Attack::RestartFast),
    (4, Attack::RestartImmediate),
    (3, Attack::TerminateAll),
    (4, Attack::TerminateOne),
    (3, Attack::SilentDatabase),
    (4, Attack::LostDatabase),
    (3, Attack::SilentHubspot),
    (3, Attack::LostHubspot),
    (3, Attack::Freeze),
    (3, Attack::Usurp),
    (2, Attack::Ghost),
    (1, Attack::Daily),
];

/// The faults of the rain, and how many requests of its kind each strikes at most.
const RAIN: [(usize, (&str, u32)); 25] = [
    (12, ("lose-reply", 2)),
    (6, ("refuse-connection", 2)),
    (4, ("commit-then-500", 1)),
    (4, ("commit-then-502", 1)),
    (3, ("commit-then-504", 1)),
    (3, ("commit-then-524", 1)),
    (2, ("hang", 1)),
    (4, ("hang-then-commit", 1)),
    (3, ("500", 2)),
    (3, ("502", 2)),
    (3, ("503", 2)),
    (3, ("504", 1)),
    (2, ("503-html", 1)),
    (4, ("truncated", 2)),
    (3, ("no-json", 1)),
    (4, ("half-json", 2)),
    (3, ("empty-2xx", 1)),
    (3, ("empty-results", 1)),
    (1, ("429-ten-secondly", 1)),
    (2, ("429-secondly", 1)),
    (3, ("423", 1)),
    (3, ("477", 1)),
    (6, ("partial", 2)),
    (6, ("unreported", 2)),
    (4, ("shuffle", 3)),
];

/// Faults that concern batches with refused records.
const HALVING: [&str; 2] = ["error-without-trace", "ignore-traces"];

const ENDPOINTS: [(usize, Endpoint); 5] = [
    (4, Endpoint::Any),
    (8, Endpoint::Upsert),
    (8, Endpoint::Update),
    (4, Endpoint::Associate),
    (2, Endpoint::Read),
];

/// The next fault.
pub(super) fn fault(dice: &mut Dice) -> Fault {
    let endpoint = dice.weighted(&ENDPOINTS);
    if dice.chance(4) {
        return Fault::named(dice.pick::<&str>(&HALVING))
            .unwrap()
            .on(Endpoint::Upsert);
    }
    let (name, times) = dice.weighted(&RAIN);
    // What drops records from an answer concerns batches of records.
    let endpoint = match (name, endpoint) {
        ("partial" | "unreported", Endpoint::Any) => Endpoint::Upsert,
        (_, endpoint) => endpoint,
    };
    let times = 1 + dice.below(times as usize) as u32;
    let fault = Fault::named(name).unwrap().on(endpoint).times(times);
    // Some of what lands late lands after the daemon has given it up.
    let late = dice.millis(200, LATE_MAX_MS);
    fault
        .lasting(late)
        .after(dice.below(2) as u32)
        .dropping(1 + dice.below(3))
}

/// Lets faults fall, until dropped. Few wait at a time; where those that wait are for requests that do not come, more
/// fall all the same, on what comes with every new row.
pub(super) async fn rain(sandbox: &Sandbox, mut dice: Dice, pause: (usize, usize)) {
    let mut idle = 0;
    loop {
        let fault = fault(&mut dice);
        if sandbox.faults_waiting() < 14 {
            idle = 0;
            sandbox.fault(fault);
        } else {
            idle += 1;
            if idle % 20 == 0 {
                sandbox.fault(fault.on(Endpoint::Upsert));
            }
        }
        tokio::time::sleep(dice.millis(pause.0, pause.1)).await;
    }
}

/// How often each attack was made.
pub(super) type Made = BTreeMap<Attack, u64>;

/// The attacker.
pub(super) struct Attacker {
    dice: Dice,
    usurps: bool,
    pub(super) made: Made,
}

impl Attacker {
    pub(super) fn new(dice: Dice, usurps: bool) -> Attacker {
        Attacker {
            dice,
            usurps,
            made: Made::new(),
        }
    }

    pub(super) fn kills(&self) -> u64 {
        let kills = self.made.iter().filter(|(attack, _)| attack.kills());
        kills.map(|(_, count)| count).sum()
    }

    /// Waits until the daemon has done something, then attacks.
    pub(super) async fn attack(&mut self, ground: &mut Ground) {
        ground.start();
        self.wait_for_work(ground).await;
        let attack = loop {
            let attack = self.dice.weighted(&ATTACKS);
            if self.usurps || !matches!(attack, Attack::Usurp | Attack::Ghost) {
                break attack;
            }
        };
        self.make(attack, ground).await;
        *self.made.entry(attack).or_default() += 1;
        // A second blow may come at once.
        let pause = if self.dice.chance(20) {
            self.dice.millis(0, 30)
        } else {
            self.dice.millis(50, 1_000)
        };
        tokio::time::sleep(pause).await;
        ground.start();
    }

    /// A daemon that is killed before it has begun to push proves little: mostly a few requests come first.
    async fn wait_for_work(&mut self, ground: &Ground) {
        if self.dice.chance(10) {
            return;
        }
        let writes =
            |world: &hubsyncd::sandbox::World| world.count(Endpoint::Upsert) + world.count(Endpoint::Update);
        let before = writes(&ground.stage.sandbox.world());
        let wanted = before + 1 + self.dice.below(12) as u64;
        ground
            .stage
            .sandbox
            .wait_until(Duration::from_secs(20), |world| writes(world) >= wanted)
            .await;
    }

    async fn make(&mut self, attack: Attack, ground: &mut Ground) {
        match attack {
            Attack::Kill => ground.kill(),
            Attack::KillBeforeCommit => self.kill_held(ground, When::Before).await,
            Attack::KillBeforeReply => self.kill_held(ground, When::After).await,
            Attack::KillBeforeReceipt => self.kill_at_receipt(ground, Silent::Up).await,
            Attack::KillAfterReceipt => self.kill_at_receipt(ground, Silent::Down).await,
            Attack::Stop => ground.stop().await,
            Attack::RestartFast => ground.restart(Mode::Fast),
            Attack::RestartImmediate => ground.restart(Mode::Immediate),
            Attack::TerminateAll => terminate(ground, "true").await,
            Attack::TerminateOne => {
                let at = self.dice.below(5);
                let one = format!(
                    "pid IN (SELECT pid FROM pg_stat_activity WHERE usename = 'hubsyncd' ORDER BY backend_start LIMIT 1 OFFSET {at})"
                );
                terminate(ground, &one).await;
            }
            Attack::SilentDatabase | Attack::LostDatabase => {
                ground.database().silence(self.silence());
                tokio::time::sleep(self.dice.millis(50, 4_000)).await;
                if attack == Attack::LostDatabase {
                    ground.database().cut();
                }
                ground.database().silence(Silent::Not);
            }
            Attack::SilentHubspot | Attack::LostHubspot => {
                ground.hubspot().silence(self.silence());
                tokio::time::sleep(self.dice.millis(50, SILENT_MAX_MS)).await;
                if attack == Attack::LostHubspot {
                    ground.hubspot().cut();
                }
                ground.hubspot().silence(Silent::Not);
            }
            Attack::Freeze => {
                let daemon = ground.daemon.as_ref().unwrap();
                daemon.signal("STOP");
                tokio::time::sleep(self.dice.millis(100, 4_000)).await;
                daemon.signal("CONT");
            }
            Attack::Usurp => self.usurp(ground).await,
            Attack::Ghost => ground.kill_leaving_sessions(),
            Attack::Daily => self.daily(ground).await,
        }
    }

    fn silence(&mut self) -> Silent {
        *self
            .dice
            .pick(&[Silent::Both, Silent::Both, Silent::Up, Silent::Down])
    }

    fn endpoint(&mut self) -> Endpoint {
        *self.dice.pick(&[
            Endpoint::Upsert,
            Endpoint::Upsert,
            Endpoint::Update,
            Endpoint::Associate,
        ])
    }

    /// Kills while a request is held at HubSpot; it is let go before the next daemon starts, or after that, within
    /// `settle`.
    async fn kill_held(&mut self, ground: &mut Ground, when: When) {
        let endpoint = self.endpoint();
        let hold = ground.stage.sandbox.hold(endpoint, when);
        hold.reached(Duration::from_secs(3)).await;
        ground.kill();
        if self.dice.chance(70) {
            ground.start();
            let most = ground.settle.as_millis() as usize - 1_500;
            tokio::time::sleep(self.dice.millis(0, most)).await;
        }
        hold.release();
    }

    /// Kills once HubSpot has answered, while what the daemon tells its database is not delivered, or what the
    /// database answers.
    async fn kill_at_receipt(&mut self, ground: &mut Ground, silent: Silent) {
        let endpoint = self.endpoint();
        let hold = ground.stage.sandbox.hold(endpoint, When::After);
        hold.reached(Duration::from_secs(3)).await;
        ground.database().silence(silent);
        hold.release();
        tokio::time::sleep(self.dice.millis(15, 150)).await;
        ground.kill();
        ground.database().cut();
        ground.database().silence(Silent::Not);
    }

    /// The first daemon is woken when the second has the lease, or shortly before.
    async fn usurp(&mut self, ground: &mut Ground) {
        let second = ground.launch();
        let first = ground.daemon.replace(second).unwrap();
        first.signal("STOP");
        let sandbox = Arc::clone(&ground.stage.sandbox);
        if self.dice.chance(30) {
            tokio::time::sleep(self.dice.millis(6_000, 12_000)).await;
        } else {
            let before = writes(&sandbox.world());
            sandbox
                .wait_until(Duration::from_secs(40), |world| writes(world) > before)
                .await;
        }
        first.signal("CONT");
        tokio::time::sleep(self.dice.millis(0, 3_000)).await;
        if self.dice.chance(50) {
            first.kill();
        } else {
            ground.kill();
            ground.daemon = Some(first);
        }
    }

    async fn daily(&mut self, ground: &mut Ground) {
        ground.stage.sandbox.fault(Fault::named("429-daily").unwrap());
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(3) {
            let health = ground.daemon.as_ref().unwrap().try_get("/health").await;
            if health.is_some_and(|(_, health)| health.contains("quota")) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        ground.kill();
        // Had it not struck yet, the next daemon would wait for the portal's midnight.
        ground.stage.sandbox.clear_faults();
    }
}

/// How many requests to write records HubSpot has seen.
fn writes(world: &World) -> u64 {
    world.count(Endpoint::Upsert) + world.count(Endpoint::Update)
}

async fn terminate(ground: &mut Ground, which: &str) {
    let sql = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'hubsyncd' AND {which}"
    );
    ground.count(&sql).await;
}
