//! The verdict: is HubSpot fresh?
//!
//! Healthy means that what is in Postgres is in HubSpot, not that a process runs. The verdict is a pure function of
//! the board's state and the clock, so that each of its rules is tested alone.

use super::board::{Condition, Lease, Listener, State};
use super::mirror::state::MirrorState;
use crate::config;
use serde::{Serialize, Serializer};
use std::time::{Duration, Instant};

/// What the verdict is measured by.
#[derive(Debug, Clone)]
pub struct Limits {
    /// When it warns and fails.
    pub health: config::Health,
    /// The period of sweeps.
    pub every: Duration,
}

impl Limits {
    /// Those of a configuration.
    pub fn of(config: &config::Config) -> Limits {
        Limits {
            health: config.health.clone(),
            every: config.sweep.every,
        }
    }
}

/// The check of the last complete sweep.
const SWEEP_AGE: &str = "sweep:age";
/// The check of the control session.
const LISTENER: &str = "listener";

/// How long nobody may listen without any trouble: from one term to the next, as in a reload, what is under way is
/// finished first.
const HANDOVER: Duration = Duration::from_secs(15);

/// How well the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Fresh, or standing by.
    Pass,
    /// Somebody should look when there is time.
    Warn,
    /// Somebody should look now.
    Fail,
}

/// How well the daemon is, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The worst of the checks.
    pub status: Status,
    /// One line: why.
    pub output: String,
    /// What was looked at.
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// What, e.g. `changes:age`.
    pub name: String,
    /// How it is.
    pub status: Status,
    /// A number of seconds, where there is one.
    pub seconds: Option<f64>,
    /// What is wrong with it.
    pub output: Option<String>,
}

/// Judges the state at the moment `now`, which is `wall` microseconds after the Unix epoch. `every` is the period of
/// sweeps.
pub fn verdict(state: &State, limits: &config::Health, every: Duration, now: Instant, wall: i64) -> Verdict {
    let mut checks: Vec<Check> = state
        .conditions
        .iter()
        .map(|(condition, words)| Check::of(condition.word(), severity(*condition), Some(words.clone())))
        .collect();
    if !state.conditions.contains_key(&Condition::Database) {
        checks.push(Check::of(Condition::Database.word(), Status::Pass, None));
    }
    if let Lease::Standby(holder) = &state.lease {
        let holder = holder.as_deref().unwrap_or("another daemon");
        return Verdict::of(checks, &format!("standby: {holder} pushes"));
    }
    checks.push(listener(state, now));
    checks.push(age(state, limits, now));
    checks.push(sweep(state, every, now, wall));
    checks.extend(state.mirror.as_ref().map(|known| mirror(state, known, now, wall)));
    for object in &state.objects {
        if let Some(reason) = &object.paused {
            let name = format!("{}:paused", object.name);
            checks.push(Check::of(&name, Status::Fail, Some(reason.clone())));
        }
    }
    let quota = state.conditions.contains_key(&Condition::Quota);
    if quota {
        // No age is a failure while HubSpot takes nothing until its midnight; nor is it one that nobody listens because
        // HubSpot could not be asked about the mapping yet. A database that is away is told of by itself.
        let excused = |check: &&mut Check| check.seconds.is_some() || check.name == LISTENER;
        for check in checks.iter_mut().filter(excused) {
            check.status = check.status.min(Status::Warn);
        }
    }
    if state.conditions.contains_key(&Condition::Reserve) {
        // Changes still go, sweeps cannot.
        for check in checks.iter_mut().filter(|check| check.name == SWEEP_AGE) {
            check.status = check.status.min(Status::Warn);
        }
    }
    Verdict::of(checks, "in step")
}

fn severity(condition: Condition) -> Status {
    match condition {
        Condition::Database | Condition::Breaker | Condition::Hubspot | Condition::Schema => Status::Fail,
        Condition::Quota
        | Condition::Reserve
        | Condition::Deaf
        | Condition::Triggers
        | Condition::Unnamed
        | Condition::Brake
        | Condition::Alerts => Status::Warn,
    }
}

fn listener(state: &State, now: Instant) -> Check {
    match state.listener {
        Listener::Down => {
            let deaf = state.deaf_since.map(|since| now.saturating_duration_since(since));
            let deaf = deaf.unwrap_or_default();
            // What ended the session, or keeps it from being opened, is told of by itself.
            let explained = state
                .conditions
                .keys()
                .any(|condition| severity(*condition) == Status::Fail);
            let status = match explained || deaf >= HANDOVER {
                true => Status::Fail,
                false => Status::Warn,
            };
            let words = format!(
                "nobody has listened for changes for {}; they wait in the database",
                coarse(deaf)
            );
            Check::of(LISTENER, status, (!explained).then_some(words))
        }
        Listener::Armed | Listener::Awake | Listener::Polling => Check::of(LISTENER, Status::Pass, None),
    }
}

fn age(state: &State, limits: &config::Health, now: Instant) -> Check {
    let age = state.oldest_pending(now).unwrap_or_default();
    let status = if age >= limits.fail_after {
        Status::Fail
    } else if age >= limits.warn_after {
        Status::Warn
    } else {
        Status::Pass
    };
    let words = format!(
        "the oldest of {} changes waits for {}",
        state.pending(),
        coarse(age)
    );
    Check::aged("changes:age", status, age, words)
}

fn sweep(state: &State, every: Duration, now: Instant, wall: i64) -> Check {
    let allowed = every * 2;
    let (age, words, young) = match state.last_complete_at {
        Some(at) => {
            let age = Duration::from_micros(wall.saturating_sub(at).try_into().unwrap_or_default());
            (
                age,
                format!("the last complete sweep was {} ago", coarse(age)),
                Status::Pass,
            )
        }
        None => {
            let age = now.saturating_duration_since(state.started);
            let words = format!("no sweep is complete since the start {} ago", coarse(age));
            (age, words, Status::Warn)
        }
    };
    let status = if age >= allowed { Status::Fail } else { young };
    Check::aged(SWEEP_AGE, status, age, words)
}

/// The mirror's age is for who reads it: it warns and never fails, since nothing of a change waits for it. Before its
/// first complete pass it has as long as a record has.
fn mirror(state: &State, known: &MirrorState, now: Instant, wall: i64) -> Check {
    let name = "mirror:age";
    let up = now.saturating_duration_since(state.started);
    let oldest = known.kinds.iter().min_by_key(|kind| kind.complete_as_of);
    let Some(oldest) = oldest else {
        return Check::of(name, Status::Pass, None);
    };
    let kind = oldest.kind.name();
    let (age, words) = match oldest.complete_as_of {
        Some(at) => {
            let age = Duration::from_micros(wall.saturating_sub(at).try_into().unwrap_or_default());
            let words = format!("the mirror of {kind} is complete as of {} ago", coarse(age));
            (age, words)
        }
        None => (
            up,
            format!(
                "the mirror of {kind} is not complete since the start {} ago",
                coarse(up)
            ),
        ),
    };
    let status = match age > known.stale_after {
        true => Status::Warn,
        false => Status::Pass,
    };
    Check::aged(name, status, age, words)
}

fn coarse(age: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(age.as_secs()))
}

impl Check {
    fn of(name: &str, status: Status, output: Option<String>) -> Check {
        Check {
            name: name.to_owned(),
            status,
            seconds: None,
            output,
        }
    }

    fn aged(name: &str, status: Status, age: Duration, words: String) -> Check {
        Check {
            name: name.to_owned(),
            status,
            seconds: Some(age.as_secs_f64()),
            output: (status != Status::Pass).then_some(words),
        }
    }
}

impl Verdict {
    /// The worst check decides and gives the words; if all pass, `well` are the words.
    fn of(checks: Vec<Check>, well: &str) -> Verdict {
        let status = checks
            .iter()
            .map(|check| check.status)
            .max()
            .unwrap_or(Status::Pass);
        let reasons: Vec<String> = checks
            .iter()
            .filter(|check| check.status == status && status != Status::Pass)
            .filter_map(|check| Some(format!("{}: {}", check.name, check.output.as_ref()?)))
            .collect();
        Verdict {
            status,
            output: if reasons.is_empty() {
                well.to_owned()
            } else {
                reasons.join("; ")
            },
            checks,
        }
    }
}

/// `application/health+json`, after draft-inadarei-api-health-check-06.
impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let checks: serde_json::Map<String, serde_json::Value> = self
            .checks
            .iter()
            .map(|check| (check.name.clone(), serde_json::json!([check.to_json()])))
            .collect();
        let body = Body {
            status: self.status,
            version: "1",
            release_id: env!("CARGO_PKG_VERSION"),
            output: &self.output,
            checks,
        };
        body.serialize(serializer)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    status: Status,
    version: &'static str,
    release_id: &'static str,
    output: &'a str,
    checks: serde_json::Map<String, serde_json::Value>,
}

impl Check {
    fn to_json(&self) -> serde_json::Value {
        let mut json = serde_json::json!({ "status": self.status });
        if let Some(seconds) = self.seconds {
            json["observedValue"] = seconds.into();
            json["observedUnit"] = "s".into();
        }
        if let Some(output) = &self.output {
            json["output"] = output.clone().into();
        }
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::board::Board;
    use crate::mapping::Mapping;
    use std::sync::Arc;

    const HOUR: Duration = Duration::from_secs(3600);
    const WALL: i64 = 1_800_000_000_000_000;

    fn fresh() -> Arc<Board> {
        let board = Board::new(&Mapping::built_in());
        board.set_condition(Condition::Database, None);
        board.set_listener(Listener::Armed);
        board.set_lease(Lease::Held);
        board.remember_sweeps(None, Some(WALL));
        board
    }

    fn judge(board: &Board, later: Duration) -> Verdict {
        let limits = config::Health {
            warn_after: Duration::from_secs(60),
            fail_after: Duration::from_secs(300),
        };
        let micros = i64::try_from(later.as_micros()).expect("short");
        verdict(
            &board.state(),
            &limits,
            HOUR * 2,
            Instant::now() + later,
            WALL + micros,
        )
    }

    #[test]
    fn a_daemon_in_step_passes_and_refused_records_alone_change_nothing() {
        let board = fresh();
        board.set_failures(0, 7);
        let verdict = judge(&board, Duration::ZERO);
        assert_eq!(
            (verdict.status, verdict.output.as_str()),
            (Status::Pass, "in step")
        );
    }

    #[test]
    fn an_old_change_warns_and_then_fails() {
        let board = fresh();
        board.set_backlog(1, 3, Some(Instant::now()));
        assert_eq!(judge(&board, Duration::from_secs(59)).status, Status::Pass);
        assert_eq!(judge(&board, Duration::from_secs(61)).status, Status::Warn);
        let verdict = judge(&board, Duration::from_secs(301));
        assert_eq!(verdict.status, Status::Fail);
        assert!(verdict.output.contains("3 changes"), "{}", verdict.output);
    }

    #[test]
    fn a_sweep_older_than_two_periods_fails_and_none_yet_warns() {
        let board = fresh();
        assert_eq!(
            judge(&board, HOUR * 4 - Duration::from_secs(1)).status,
            Status::Pass
        );
        assert_eq!(judge(&board, HOUR * 4).status, Status::Fail);
        let board = Board::new(&Mapping::built_in());
        board.set_condition(Condition::Database, None);
        board.set_listener(Listener::Awake);
        board.set_lease(Lease::Held);
        assert_eq!(judge(&board, HOUR * 3).status, Status::Warn);
        assert_eq!(judge(&board, HOUR * 5).status, Status::Fail);
    }

    #[test]
    fn an_open_breaker_a_lost_database_a_deaf_listener_and_a_pause_fail_at_once() {
        let board = fresh();
        board.set_condition(Condition::Breaker, Some("HubSpot refuses the token".to_owned()));
        assert_eq!(judge(&board, Duration::ZERO).status, Status::Fail);
        board.set_condition(Condition::Breaker, None);
        board.set_condition(Condition::Database, Some("connection refused".to_owned()));
        assert_eq!(judge(&board, Duration::ZERO).status, Status::Fail);
        board.set_condition(Condition::Database, None);
        board.set_listener(Listener::Down);
        assert_eq!(
            judge(&board, HANDOVER + Duration::from_secs(1)).status,
            Status::Fail
        );
        board.set_listener(Listener::Polling);
        assert_eq!(judge(&board, Duration::ZERO).status, Status::Pass);
        board.set_paused(1, Some("the property attendance is missing".to_owned()));
        let verdict = judge(&board, Duration::ZERO);
        assert_eq!(verdict.status, Status::Fail);
        assert!(
            verdict.output.contains("bookings:paused: the property"),
            "{}",
            verdict.output
        );
    }

    #[test]
    fn a_reload_is_no_failure_and_what_keeps_the_session_away_is_told_of_once() {
        let board = fresh();
        board.set_listener(Listener::Down);
        let verdict = judge(&board, Duration::from_secs(3));
        assert_eq!(verdict.status, Status::Warn, "{}", verdict.output);
        assert!(
            verdict.output.contains("listened for changes for 3s"),
            "{}",
            verdict.output
        );
        board.set_listener(Listener::Down);
        assert_eq!(
            judge(&board, HANDOVER + Duration::from_secs(1)).status,
            Status::Fail,
            "deaf since the first time it was said"
        );
        board.set_condition(Condition::Breaker, Some("HubSpot refuses the token".to_owned()));
        let verdict = judge(&board, HANDOVER * 2);
        assert_eq!(
            (verdict.status, verdict.output.as_str()),
            (Status::Fail, "breaker: HubSpot refuses the token")
        );
        board.set_condition(Condition::Breaker, None);
        board.set_listener(Listener::Armed);
        board.set_listener(Listener::Down);
        assert_eq!(judge(&board, Duration::ZERO).status, Status::Warn, "anew");
    }

    #[test]
    fn while_the_daily_quota_is_exhausted_no_age_fails() {
        let board = fresh();
        board.set_backlog(0, 1, Some(Instant::now()));
        board.set_condition(Condition::Quota, Some("the daily quota is spent".to_owned()));
        assert_eq!(judge(&board, HOUR * 9).status, Status::Warn);
        board.set_listener(Listener::Down);
        assert_eq!(
            judge(&board, HOUR * 9).status,
            Status::Warn,
            "a start waits for the quota, too"
        );
        board.set_condition(Condition::Database, Some("connection refused".to_owned()));
        assert_eq!(judge(&board, HOUR * 9).status, Status::Fail, "that is no age");
    }

    #[test]
    fn while_the_reserve_is_kept_no_sweep_is_missed_and_changes_are() {
        let board = fresh();
        board.set_condition(
            Condition::Reserve,
            Some("the rest is for live changes".to_owned()),
        );
        assert_eq!(judge(&board, HOUR * 9).status, Status::Warn);
        board.set_backlog(0, 1, Some(Instant::now()));
        assert_eq!(judge(&board, HOUR * 9).status, Status::Fail);
    }

    #[test]
    fn a_standby_passes_and_says_who_pushes() {
        let board = fresh();
        board.set_lease(Lease::Standby(Some("vm-1".to_owned())));
        board.set_listener(Listener::Down);
        let verdict = judge(&board, HOUR * 9);
        assert_eq!(
            (verdict.status, verdict.output.as_str()),
            (Status::Pass, "standby: vm-1 pushes")
        );
    }
}
