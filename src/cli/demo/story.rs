//! The story: everyday changes, now and then a scene, what can be seen of it, and the comparison at the end.

use super::Signals;
use super::application::{Application, Change};
use super::compare::{Rows, Verdict};
use super::fault;
use super::latency::Latency;
use super::plot::{Plot, Scene};
use super::school::{CONTACTS, School};
use super::screen::Screen;
use super::stage::Stage;
use crate::cli::client::SOON;
use crate::cli::failure::Failure;
use crate::cli::order::Order;
use crate::cli::paint::{Colour, paint};
use crate::cli::status::summary;
use crate::mapping::Mapping;
use crate::postgres::Error;
use crate::sandbox::Endpoint;
use hyper::Method;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep, sleep_until};

/// How often arrivals are looked for; their times are the sandbox's, not those of the looks.
const GLANCE: Duration = Duration::from_millis(25);
const SECOND: Duration = Duration::from_secs(1);

/// How long the end waits until nothing is pending.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// How many contacts are typed over in HubSpot.
const DRIFTS: usize = 2;

/// How many differences are printed.
const DIFFERENCES_MAX: usize = 50;

/// What waits in the database.
const WAITING: &str =
    "SELECT (SELECT count(*) FROM hubsyncd.change), (SELECT count(*) FROM hubsyncd.failure)";

/// The demo at work.
pub(super) struct Story {
    stage: Stage,
    application: Application,
    screen: Screen,
    lasting: Option<Duration>,
    latency: Latency,
    changes: u64,
    /// What the application did last.
    told: String,
    /// The refused records, by object and key.
    refused: BTreeSet<(String, String)>,
    /// The sweep that was asked for and has not ended.
    sweep: Option<String>,
}

impl Story {
    pub(super) fn new(stage: Stage, school: School, screen: Screen, lasting: Option<Duration>) -> Story {
        Story {
            stage,
            application: Application::new(school),
            screen,
            lasting,
            latency: Latency::default(),
            changes: 0,
            told: String::new(),
            refused: BTreeSet::new(),
            sweep: None,
        }
    }

    /// Tells of the sweep with which the daemon began.
    pub(super) fn first_sweep(&mut self, run: &Value) {
        let line = format!("the daemon's first sweep is {}", swept(run));
        self.screen.event(&line, Colour::Good);
    }

    /// Makes changes until the time is over, a signal comes, or nobody looks any more.
    pub(super) async fn tell(&mut self, signals: &mut Signals) -> Result<(), Failure> {
        let begin = Instant::now();
        let end = self.lasting.map(|lasting| begin + lasting);
        let over = async {
            match end {
                Some(end) => sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        let mut over = std::pin::pin!(over);
        let mut plot = Plot::new(self.lasting);
        let mut glance = interval(GLANCE);
        glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut second = interval_at(begin + SECOND, SECOND);
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = begin;
        self.screen.event(
            "the application's users are at work (p50, p95: from their commit to HubSpot)",
            Colour::Faint,
        );
        while !self.screen.is_gone() {
            tokio::select! {
                () = &mut over => return Ok(()),
                () = signals.next() => {
                    self.screen.event("asked to stop", Colour::Faint);
                    return Ok(());
                }
                () = sleep_until(next) => {
                    let change = self.application.next();
                    self.commit(change).await?;
                    next = Instant::now() + Duration::from_millis(self.application.pause_ms());
                }
                _ = glance.tick() => self.latency.look(&self.stage.sandbox.world()),
                _ = second.tick() => self.report().await?,
            }
            if let Some(scene) = plot.due(begin.elapsed()) {
                self.play(scene).await?;
            }
        }
        Ok(())
    }

    async fn commit(&mut self, change: Change) -> Result<(), Failure> {
        let begun_ms = self.stage.sandbox.world().now_ms();
        // One message with several statements is one transaction.
        let done = self.stage.application.batch_execute(&change.sql).await;
        done.map_err(|error| Error::from_client("a change of the application", error))
            .map_err(|error| fault(error, "playing the application"))?;
        self.changes += change.rows;
        self.told = change.told;
        for watch in change.watches {
            self.latency.wait_for(watch, begun_ms);
        }
        Ok(())
    }

    async fn play(&mut self, scene: Scene) -> Result<(), Failure> {
        let change = match scene {
            Scene::Drift => return self.drift().await,
            Scene::Misspelt => Some(self.application.misspell()),
            Scene::Shared => Some(self.application.share()),
            Scene::Correction => self.application.correct(),
        };
        if let Some(change) = change {
            self.screen.event(&change.told, Colour::Faint);
            self.commit(change).await?;
        }
        Ok(())
    }

    /// Somebody types credits over in HubSpot, where no trigger sees it; the sweep that is asked for does.
    async fn drift(&mut self) -> Result<(), Failure> {
        if self.sweep.is_some() {
            return Ok(());
        }
        for _ in 0..DRIFTS {
            let student = self.application.anybody();
            let mut world = self.stage.sandbox.world();
            let contact = world
                .find(CONTACTS, "student_id", &student)
                .map(|record| record.id());
            if let Some(contact) = contact {
                world.set(CONTACTS, &contact, "shared_mock_credits", "77");
            }
        }
        let told =
            format!("somebody types over the credits of {DRIFTS} contacts in HubSpot; a sweep is asked for");
        self.screen.event(&told, Colour::Faint);
        let ticket = self.stage.daemon.ask(Method::POST, "/sweep", Some(SOON)).await?;
        self.sweep = ticket["id"].as_str().map(str::to_owned);
        Ok(())
    }

    /// Looks at the daemon and prints how things stand.
    async fn report(&mut self) -> Result<(), Failure> {
        self.stage.daemon.lives()?;
        let Some(status) = self.stage.daemon.status().await else {
            self.screen.standing("the daemon does not answer");
            return Ok(());
        };
        self.see_sweep(&status);
        self.see_failures().await?;
        let (batches, requests) = {
            let world = self.stage.sandbox.world();
            let kinds = [Endpoint::Create, Endpoint::Upsert, Endpoint::Update];
            let batches: u64 = kinds.iter().map(|kind| world.count(*kind)).sum();
            (batches, world.count(Endpoint::Any))
        };
        let latency = match self.latency.percentiles() {
            Some((median, most)) => format!("p50 {median} ms, p95 {most} ms"),
            None => "nothing arrived yet".to_owned(),
        };
        let pending = status["pending"].as_u64().unwrap_or_default();
        let line = format!(
            "{:>4} changes, {pending:>2} pending, {batches:>4} batches, {requests:>4} requests, {latency}, {} refused",
            self.changes,
            self.refused.len()
        );
        self.screen.standing(&format!("{line}; {}", self.told));
        Ok(())
    }

    fn see_sweep(&mut self, status: &Value) {
        let last = &status["last_sweep"];
        if self.sweep.is_some() && last["id"].as_str() == self.sweep.as_deref() {
            self.sweep = None;
            self.screen
                .event(&format!("the sweep is {}", swept(last)), Colour::Good);
        }
    }

    /// Tells of records that are newly refused, with HubSpot's reason, and of those that no longer are.
    async fn see_failures(&mut self) -> Result<(), Failure> {
        let answer = self
            .stage
            .daemon
            .ask(Method::GET, "/failures", Some(SOON))
            .await?;
        let text = |failure: &Value, field: &str| failure[field].as_str().unwrap_or_default().to_owned();
        let mut now = BTreeSet::new();
        for failure in answer["failures"].as_array().into_iter().flatten() {
            let name = (text(failure, "object"), text(failure, "key"));
            if !self.refused.contains(&name) {
                let (category, message) = (text(failure, "category"), text(failure, "message"));
                let line = format!("refused: {} {}: {category}: {message}", name.0, name.1);
                self.screen.event(&line, Colour::Doubtful);
            }
            now.insert(name);
        }
        for (object, key) in self.refused.difference(&now) {
            self.screen
                .event(&format!("accepted now: {object} {key}"), Colour::Good);
        }
        self.refused = now;
        Ok(())
    }

    /// Lets everything arrive and compares; answers whether both ends agree.
    pub(super) async fn end(&mut self) -> Result<bool, Failure> {
        while let Some(change) = self.application.correct() {
            self.screen.event(&change.told, Colour::Faint);
            self.commit(change).await?;
        }
        self.screen.event(
            "the application rests; waiting until nothing is pending (Ctrl-C skips the comparison)",
            Colour::Faint,
        );
        let quiet = self.quiet().await?;
        self.report().await?;
        self.screen.keep();
        if !quiet {
            let line = format!("still not everything has arrived after {} s", QUIET_MAX.as_secs());
            self.screen.event(&line, Colour::Bad);
        }
        let rows = Rows::read(&self.stage.observer).await;
        let rows = rows.map_err(|error| fault(error, "comparing both ends"))?;
        let verdict = rows.compare(&self.stage.sandbox.world());
        self.pronounce(&verdict);
        Ok(quiet && verdict.differences.is_empty())
    }

    /// Says that there is no comparison.
    pub(super) fn cut_short(&mut self) {
        self.screen.say("stopped; nothing was compared");
    }

    /// Waits until nothing waits and no sweep runs; `false` if that does not come.
    async fn quiet(&mut self) -> Result<bool, Failure> {
        let begin = Instant::now();
        while begin.elapsed() < QUIET_MAX {
            self.latency.look(&self.stage.sandbox.world());
            self.stage.daemon.lives()?;
            let waiting = self.stage.observer.query_one(WAITING, &[]).await;
            let waiting = waiting
                .map_err(|error| Error::from_client("counting what waits", error))
                .map_err(|error| fault(error, "waiting for the end"))?;
            let (changes, failures): (i64, i64) = (waiting.get(0), waiting.get(1));
            let status = self.stage.daemon.status().await.unwrap_or_default();
            self.see_sweep(&status);
            let idle = status["sweep"].is_null() && status["pending"] == 0 && self.sweep.is_none();
            if idle && (changes, failures) == (0, 0) {
                return Ok(true);
            }
            sleep(GLANCE).await;
        }
        Ok(false)
    }

    fn pronounce(&mut self, verdict: &Verdict) {
        self.screen
            .say("\nBoth ends, row by row, property by property, association by association:");
        for counted in &verdict.counted {
            let count = verdict
                .differences
                .iter()
                .filter(|difference| difference.object == counted.object);
            self.screen.say(&format!(
                "  {:<12}{:>5} rows {:>6} properties {:>5} associations {:>4} differences",
                counted.object,
                counted.rows,
                counted.properties,
                counted.associations,
                count.count()
            ));
        }
        self.screen
            .say(&format!("  {:<12}{:>5} entries", "audit log", verdict.entries));
        for difference in verdict.differences.iter().take(DIFFERENCES_MAX) {
            self.screen.say(&format!("  differs: {difference}"));
        }
        let count = verdict.differences.len();
        if count > DIFFERENCES_MAX {
            self.screen
                .say(&format!("  and {} more", count - DIFFERENCES_MAX));
        }
        let words = match count {
            0 => paint("Both ends agree.", Colour::Good),
            1 => paint("The ends do not agree: 1 difference.", Colour::Bad),
            many => paint(
                &format!("The ends do not agree: {many} differences."),
                Colour::Bad,
            ),
        };
        self.screen.say(&words);
    }
}

/// How a sweep ended.
fn swept(run: &Value) -> String {
    let outcome = run["outcome"].as_str().unwrap_or("incomplete");
    format!(
        "{outcome}: {}",
        summary(&run["summary"], &Order::of_mapping(&Mapping::built_in()))
    )
}
