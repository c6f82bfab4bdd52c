//! Alerts: a JSON text posted to a webhook when health fails for more than a moment, and when it recovers.
//!
//! The daemon tells of itself as long as it lives; of its death `hubsyncd alert unit` tells, which systemd starts. An
//! alert that cannot be delivered is tried again until it is, or until the next one takes its place; meanwhile health
//! warns. It says what health says: nothing of any row, and no secret.

use super::board::{Board, Condition};
use super::exit::{CONFIGURATION, Exit, UNAVAILABLE};
use super::health::{self, Limits, Status};
use super::trouble::Trouble;
use crate::config::Config;
use crate::hubspot::webhook::{Undelivered, Webhook};
use crate::retry::Schedule;
use crate::sync::alarm::{Alarm, Notice};
use crate::sync::report::chain;
use secrecy::SecretString;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How often health is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The pauses between attempts to deliver.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// Health fails.
    Failure,
    /// Health fails no longer.
    Recovery,
    /// A systemd unit failed.
    Unit,
    /// Somebody tries whether alerts arrive.
    Test,
}

/// What is posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alert {
    /// One line for people; the field that chat services show.
    pub text: String,
    /// What it is about.
    pub event: Event,
    /// `pass`, `warn` or `fail`; for a unit `fail`.
    pub status: Status,
    /// Why, in one line.
    pub output: String,
    /// The failed unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// This machine's name.
    pub host: String,
    /// RFC 3339, UTC.
    pub at: String,
    /// Ours.
    pub version: &'static str,
}

impl Alert {
    fn new(event: Event, status: Status, output: &str) -> Alert {
        let host = host();
        let what = match event {
            Event::Failure => "hubsyncd fails",
            Event::Recovery => "hubsyncd has recovered",
            Event::Unit => "a unit has failed",
            Event::Test => "hubsyncd tries its alerts",
        };
        Alert {
            text: format!("{host}: {what}: {output}"),
            event,
            status,
            output: output.to_owned(),
            unit: None,
            host,
            at: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// A try.
    pub fn test() -> Alert {
        Alert::new(Event::Test, Status::Pass, "if you read this, alerts arrive")
    }

    /// A unit failed; `result` is what systemd says of it.
    pub fn of_unit(unit: &str, result: Option<&str>) -> Alert {
        let result = result.map_or_else(String::new, |result| format!(" ({result})"));
        let output = format!("{unit} has failed{result}; see journalctl -u {unit}");
        Alert {
            unit: Some(unit.to_owned()),
            ..Alert::new(Event::Unit, Status::Fail, &output)
        }
    }

    /// Delivers it, trying again with growing pauses for as long as `patience`.
    ///
    /// # Errors
    /// 78 for an address that cannot be used, 69 with how the last attempt failed.
    pub async fn deliver_to(&self, url: &SecretString, patience: Duration) -> Result<(), Exit> {
        let webhook = Webhook::new(url).map_err(|error| Exit::new(CONFIGURATION, error))?;
        let mut pauses = Schedule::new(PAUSES.0, PAUSES.1);
        let until = Instant::now() + patience;
        loop {
            let Err(error) = self.post(&webhook).await else {
                return Ok(());
            };
            let pause = pauses.next();
            if Instant::now() + pause > until {
                return Err(Exit::new(UNAVAILABLE, error));
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn post(&self, webhook: &Webhook) -> Result<(), Undelivered> {
        let json = serde_json::to_string(self).expect("texts always have a JSON form");
        webhook.post(json).await
    }
}

/// This machine's name, for people.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Tells of failures and recoveries until the daemon stops.
pub(super) struct Teller {
    pub(super) board: Arc<Board>,
    pub(super) live: watch::Receiver<Arc<Config>>,
    pub(super) stop: CancellationToken,
    /// That alerts cannot be delivered.
    pub(super) trouble: Trouble,
}

/// An alert that was not delivered yet.
struct Pending {
    alert: Alert,
    next: Instant,
    pauses: Schedule,
}

impl Teller {
    /// Runs until `stop`; what is under way then is given up.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = self.tell() => {}
            () = stop.cancelled() => {}
        }
    }

    async fn tell(&mut self) {
        let mut alarm = Alarm::default();
        let mut pending = None;
        let mut webhook = self.webhook();
        let (mut clock, begin) = (tokio::time::interval(LOOK_EVERY), Instant::now());
        loop {
            clock.tick().await;
            if self.live.has_changed().unwrap_or(false) {
                webhook = self.webhook();
            }
            let verdict = self.verdict();
            let fails = verdict.status == Status::Fail;
            if let Some(notice) = alarm.judge(fails, begin.elapsed()) {
                pending = Some(Pending::of(notice, &verdict));
            }
            pending = match &webhook {
                Some(webhook) => self.try_telling(webhook, pending).await,
                None => None,
            };
        }
    }

    /// The webhook of the live configuration.
    fn webhook(&mut self) -> Option<Webhook> {
        let url = self.live.borrow_and_update().alert.webhook_url.clone();
        self.board.set_condition(Condition::Alerts, None);
        match Webhook::new(&url?) {
            Ok(webhook) => Some(webhook),
            Err(error) => {
                self.unheard(&chain(&error));
                None
            }
        }
    }

    fn verdict(&self) -> health::Verdict {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = i64::try_from(wall.as_micros()).unwrap_or(i64::MAX);
        let limits = Limits::of(&self.live.borrow());
        let state = self.board.state();
        health::verdict(&state, &limits.health, limits.every, Instant::now(), wall)
    }

    /// Tries to deliver what is due; answers what is left.
    async fn try_telling(&self, webhook: &Webhook, pending: Option<Pending>) -> Option<Pending> {
        let mut pending = pending?;
        if pending.next > Instant::now() {
            return Some(pending);
        }
        match pending.alert.post(webhook).await {
            Ok(()) => {
                match self.trouble.succeeded() {
                    Some(past) => info!(event = ?pending.alert.event, "alert delivered, {past}"),
                    None => info!(event = ?pending.alert.event, "alert delivered"),
                }
                self.board.set_condition(Condition::Alerts, None);
                None
            }
            Err(error) => {
                let pause = pending.pauses.next();
                let words = format!(
                    "an alert cannot be delivered, next attempt in {} s: {}",
                    pause.as_secs(),
                    chain(&error)
                );
                match self.trouble.failed() {
                    Some(still) => warn!("{still}{words}"),
                    None => debug!("{words}"),
                }
                self.unheard(&chain(&error));
                pending.next = Instant::now() + pause;
                Some(pending)
            }
        }
    }

    fn unheard(&self, why: &str) {
        let words = format!("alerts are not delivered: {why}; try `hubsyncd alert test`");
        self.board.set_condition(Condition::Alerts, Some(words));
    }
}

impl Pending {
    fn of(notice: Notice, verdict: &health::Verdict) -> Pending {
        let event = match notice {
            Notice::Failure => Event::Failure,
            Notice::Recovery => Event::Recovery,
        };
        Pending {
            alert: Alert::new(event, verdict.status, &verdict.output),
            next: Instant::now(),
            pauses: Schedule::new(PAUSES.0, PAUSES.1),
        }
    }
}
