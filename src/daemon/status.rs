//! `/status` and the documented trigger's answer: the board as JSON, in the documents' words and order.

mod mirror;

use super::board::{Lease, ObjectName, State};
use crate::sync::report::{Counts, Run, Summary, moment};
use mirror::MirrorStatus;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::time::Instant;

/// The kind of run that is of the mapping's objects.
const SWEEP: &str = "sweep";

/// `/status`. Fields are added, never renamed.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    version: &'static str,
    uptime_seconds: u64,
    lease: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<String>,
    listener: &'static str,
    pending: u64,
    oldest_pending_seconds: Option<f64>,
    failures: u64,
    objects: InOrder<ObjectStatus>,
    conditions: InOrder<String>,
    sweep: Option<Run>,
    last_sweep: Option<Run>,
    next_sweep_at: Option<String>,
    limits: Limits,
    mirror: Option<MirrorStatus>,
}

#[derive(Debug, Serialize)]
struct ObjectStatus {
    pending: u64,
    oldest_pending_seconds: Option<f64>,
    failures: u64,
    rows: u64,
    awaiting_hubspot_id: u64,
    last_sync_at: Option<String>,
    paused: Option<String>,
}

#[derive(Debug, Serialize)]
struct Limits {
    window_remaining: Option<u64>,
    window_max: Option<u64>,
    daily_remaining: Option<u64>,
}

impl Status {
    pub(super) fn of(state: State, names: &[ObjectName], now: Instant, wall: i64) -> Status {
        let objects = state.objects.iter().map(|object| {
            let status = ObjectStatus {
                pending: object.pending,
                oldest_pending_seconds: object.oldest_pending(now).map(|age| age.as_secs_f64()),
                failures: object.failures,
                rows: object.rows,
                awaiting_hubspot_id: object.awaiting_hubspot_id,
                last_sync_at: object.last_sync_at.map(moment),
                paused: object.paused.clone(),
            };
            (object.name.clone(), status)
        });
        let conditions = state.conditions.iter();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: now.saturating_duration_since(state.started).as_secs(),
            lease: if state.lease == Lease::Held {
                "held"
            } else {
                "standby"
            },
            holder: match &state.lease {
                Lease::Standby(holder) => holder.clone(),
                Lease::Held | Lease::Unknown => None,
            },
            listener: state.listener.word(),
            pending: state.pending(),
            oldest_pending_seconds: state.oldest_pending(now).map(|age| age.as_secs_f64()),
            failures: state.failures(),
            objects: InOrder(objects.collect()),
            conditions: InOrder(
                conditions
                    .map(|(one, words)| (one.word().to_owned(), words.clone()))
                    .collect(),
            ),
            sweep: state.sweep.map(|run| ordered(run, names)),
            last_sweep: state.last_sweep.map(|run| ordered(run, names)),
            next_sweep_at: state.next_sweep_at.map(moment),
            limits: Limits {
                window_remaining: state.window.map(|(remaining, _)| remaining),
                window_max: state.window.map(|(_, max)| max),
                daily_remaining: state.daily_remaining,
            },
            mirror: state.mirror.map(|mirror| MirrorStatus::of(mirror, wall)),
        }
    }
}

/// A sweep's run with its summary in the order of the mapping, every object of which has an entry; objects that the
/// mapping no longer has come last.
pub(super) fn ordered(mut run: Run, names: &[ObjectName]) -> Run {
    // A pull is of HubSpot's kinds, not of the mapping's objects.
    if run.kind != SWEEP {
        return run;
    }
    let mut entries: Vec<(String, Counts)> = names
        .iter()
        .map(|object| (object.name.clone(), run.summary.of(&object.name)))
        .collect();
    let former = run.summary.0.into_iter();
    entries.extend(former.filter(|(name, _)| names.iter().all(|object| object.name != *name)));
    run.summary = Summary(entries);
    run
}

/// The documented trigger's answer.
#[derive(Debug, Serialize)]
pub(super) struct TriggerAnswer {
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    summary: InOrder<TriggerCounts>,
}

#[derive(Debug, Serialize)]
struct TriggerCounts {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<u64>,
    updated: u64,
    failed: u64,
}

impl TriggerAnswer {
    /// The answer for a run that ended. Refused records do not make it fail.
    pub(super) fn of(run: &Run, names: &[ObjectName]) -> TriggerAnswer {
        if run.is_complete() {
            let took = run.finished_at.unwrap_or(run.started_at) - run.started_at;
            TriggerAnswer {
                success: true,
                duration: Some(format!("{}ms", took / 1000)),
                error: None,
                summary: trigger_summary(&run.summary, names),
            }
        } else {
            let error = run.error.clone();
            TriggerAnswer {
                error: Some(error.unwrap_or_else(|| "the sweep ended incomplete".to_owned())),
                ..TriggerAnswer::failed(String::new(), &run.summary, names)
            }
        }
    }

    /// The answer where there is no run.
    pub(super) fn failed(error: String, summary: &Summary, names: &[ObjectName]) -> TriggerAnswer {
        TriggerAnswer {
            success: false,
            duration: None,
            error: Some(error),
            summary: trigger_summary(summary, names),
        }
    }

    pub(super) fn is_success(&self) -> bool {
        self.success
    }
}

fn trigger_summary(summary: &Summary, names: &[ObjectName]) -> InOrder<TriggerCounts> {
    let counts = names.iter().map(|object| {
        let counts = summary.of(&object.name);
        let counts = TriggerCounts {
            created: object.creates.then_some(counts.created),
            updated: counts.updated,
            failed: counts.failed,
        };
        (camel_case(&object.name), counts)
    });
    InOrder(counts.collect())
}

/// `mock_exams` → `mockExams`.
fn camel_case(name: &str) -> String {
    let mut parts = name.split('_').filter(|part| !part.is_empty());
    let mut camel = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (first, rest) = part.split_at(1);
        camel.push_str(&first.to_ascii_uppercase());
        camel.push_str(rest);
    }
    camel
}

/// A JSON object whose entries keep their order.
#[derive(Debug)]
struct InOrder<T>(Vec<(String, T)>);

impl<T: Serialize> Serialize for InOrder<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, entry) in &self.0 {
            map.serialize_entry(name, entry)?;
        }
        map.end()
    }
}
