//! The metrics: counters and histograms that live as long as the process, gauges taken from the board at the
//! scrape. Names follow Prometheus: prefix `hubsyncd_`, base units, no label that grows with the data.

use super::board::{By, Counted, Lease, Listener, State};
use super::mirror::state::MirrorState;
use crate::mapping::Mirrored;
use crate::sync::mirror::Tally;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Upper bounds of a request's time, in seconds.
const REQUEST_SECONDS: [f64; 11] = [0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
/// Upper bounds of a change's latency, in seconds; the default `max-delay` and the health limits are among them.
const LATENCY_SECONDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0, 3600.0,
];
/// Upper bounds of a sweep's time, in seconds, up to the default period.
const SWEEP_SECONDS: [f64; 9] = [0.1, 1.0, 10.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0];

type Labels = Vec<(&'static str, String)>;
type HistogramFamily = Family<Labels, Histogram, fn() -> Histogram>;
type Seconds = Gauge<f64, AtomicU64>;

/// What is counted as it happens.
#[derive(Debug)]
pub(super) struct Meters {
    registry: Registry,
    records: Family<Labels, Counter>,
    requests: Family<Labels, Counter>,
    request_duration: HistogramFamily,
    change_latency: Histogram,
    wakeups: Family<Labels, Counter>,
    changes_seen: Family<Labels, Counter>,
    sweeps: Family<Labels, Counter>,
    sweep_duration: Histogram,
    mirror_pulled: Family<Labels, Counter>,
}

impl Meters {
    pub(super) fn new<'a>(objects: impl Iterator<Item = &'a str>) -> Meters {
        let mut registry = Registry::with_prefix("hubsyncd");
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The version that runs", Info::new(version));
        let meters = Meters {
            records: Family::default(),
            requests: Family::default(),
            request_duration: Family::new_with_constructor(|| Histogram::new(REQUEST_SECONDS)),
            change_latency: Histogram::new(LATENCY_SECONDS),
            wakeups: Family::default(),
            changes_seen: Family::default(),
            sweeps: Family::default(),
            sweep_duration: Histogram::new(SWEEP_SECONDS),
            mirror_pulled: Family::default(),
            registry: Registry::default(),
        };
        registry.register(
            "records",
            "Records pushed, by object and outcome",
            meters.records.clone(),
        );
        registry.register(
            "hubspot_requests",
            "Requests to HubSpot, by endpoint and status (none: no answer)",
            meters.requests.clone(),
        );
        registry.register_with_unit(
            "hubspot_request_duration",
            "How long HubSpot took to answer, by endpoint",
            Unit::Seconds,
            meters.request_duration.clone(),
        );
        registry.register_with_unit(
            "change_latency",
            "From when a change could be seen until HubSpot accepted it",
            Unit::Seconds,
            meters.change_latency.clone(),
        );
        registry.register(
            "wakeups",
            "How often collecting went on after it had waited, by what woke it",
            meters.wakeups.clone(),
        );
        registry.register(
            "changes_seen",
            "Changes seen for the first time, by what made the daemon look",
            meters.changes_seen.clone(),
        );
        registry.register("sweeps", "Sweeps that ended, by outcome", meters.sweeps.clone());
        registry.register_with_unit(
            "sweep_duration",
            "How long sweeps took",
            Unit::Seconds,
            meters.sweep_duration.clone(),
        );
        registry.register(
            "mirror_records_pulled",
            "Records that the mirror pulled, by kind and outcome (error: also counted as new or known)",
            meters.mirror_pulled.clone(),
        );
        for by in [By::Start, By::Bell, By::Time, By::Safety, By::Interval] {
            meters.changes_seen(by, 0);
        }
        for object in objects {
            // A counter that is there from the start makes its first increase visible to rate().
            for outcome in [Counted::Created, Counted::Updated, Counted::Failed] {
                meters.count(object, outcome, 0);
            }
        }
        Meters { registry, ..meters }
    }

    pub(super) fn count(&self, object: &str, counted: Counted, records: u64) {
        let outcome = match counted {
            Counted::Created => "created",
            Counted::Updated => "updated",
            Counted::Failed => "failed",
            Counted::Archived => "archived",
            Counted::Unknown => "unknown",
        };
        let labels = vec![("object", object.to_owned()), ("outcome", outcome.to_owned())];
        self.records.get_or_create(&labels).inc_by(records);
    }

    pub(super) fn request(&self, endpoint: &str, status: Option<u16>, took: Duration) {
        let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        let endpoint = ("endpoint", endpoint.to_owned());
        let labels = vec![endpoint.clone(), ("status", status)];
        self.requests.get_or_create(&labels).inc();
        let duration = self.request_duration.get_or_create(&vec![endpoint]);
        duration.observe(took.as_secs_f64());
    }

    pub(super) fn change_latency(&self, latency: Duration) {
        self.change_latency.observe(latency.as_secs_f64());
    }

    pub(super) fn woken(&self, by: By) {
        self.wakeups
            .get_or_create(&vec![("by", by.word().to_owned())])
            .inc();
    }

    pub(super) fn changes_seen(&self, by: By, changes: u64) {
        self.changes_seen
            .get_or_create(&vec![("by", by.word().to_owned())])
            .inc_by(changes);
    }

    pub(super) fn sweep(&self, outcome: &str, took: Duration) {
        let labels = vec![("outcome", outcome.to_owned())];
        self.sweeps.get_or_create(&labels).inc();
        self.sweep_duration.observe(took.as_secs_f64());
    }

    /// A part of what a pull did; also nothing, which makes the counters be there.
    pub(super) fn mirror_pulled(&self, kind: Mirrored, tally: &Tally) {
        let outcomes = [
            ("new", tally.synced),
            ("known", tally.updated),
            ("gone", tally.removed),
            ("error", tally.errors),
        ];
        for (outcome, records) in outcomes {
            let labels = vec![("kind", kind.name().to_owned()), ("outcome", outcome.to_owned())];
            self.mirror_pulled.get_or_create(&labels).inc_by(records);
        }
    }

    /// Everything as text. The text ends early if a metric cannot be written, which none of ours can.
    pub(super) fn encode(&self, state: &State) -> String {
        let mut text = String::new();
        let written = encode_registry(&mut text, &self.registry)
            .and_then(|()| encode_registry(&mut text, &gauges(state)))
            .and_then(|()| encode_eof(&mut text));
        if let Err(error) = written {
            tracing::warn!(%error, "metrics could not be written in full");
        }
        text
    }
}

/// The gauges of one moment.
fn gauges(state: &State) -> Registry {
    let mut registry = Registry::with_prefix("hubsyncd");
    by_object(&mut registry, state);
    let listener = Family::<Labels, Gauge>::default();
    for word in [
        Listener::Armed,
        Listener::Awake,
        Listener::Polling,
        Listener::Down,
    ] {
        let gauge = listener.get_or_create_owned(&vec![("state", word.word().to_owned())]);
        gauge.set((word == state.listener).into());
    }
    registry.register(
        "listener",
        "1 for the state in which changes are heard of",
        listener,
    );
    let held = flag(state.lease == Lease::Held);
    registry.register("lease_held", "1 while this daemon is the one that pushes", held);
    let conditions = Family::<Labels, Gauge>::default();
    for condition in state.conditions.keys() {
        let labels = vec![("condition", condition.word().to_owned())];
        conditions.get_or_create(&labels).set(1);
    }
    registry.register("condition", "1 for everything that is wrong", conditions);
    registry.register(
        "sweep_running",
        "1 while a sweep runs",
        flag(state.sweep.is_some()),
    );
    moment(
        &mut registry,
        "sweep_last_success_timestamp",
        "When a sweep last ended complete",
        state.last_complete_at,
    );
    moment(
        &mut registry,
        "sweep_next_timestamp",
        "When the next sweep is due",
        state.next_sweep_at,
    );
    if let Some((remaining, max)) = state.window {
        registry.register(
            "hubspot_window_remaining",
            "Requests the rate window has left",
            number(remaining),
        );
        registry.register("hubspot_window_max", "Requests a rate window holds", number(max));
    }
    if let Some(remaining) = state.daily_remaining {
        registry.register(
            "hubspot_daily_remaining",
            "Requests the daily quota has left",
            number(remaining),
        );
    }
    if let Some(mirror) = &state.mirror {
        mirrored(&mut registry, mirror);
    }
    let uptime = Seconds::default();
    uptime.set(state.started.elapsed().as_secs_f64());
    registry.register_with_unit("uptime", "How long the daemon runs", Unit::Seconds, uptime);
    registry
}

fn by_object(registry: &mut Registry, state: &State) {
    let families: [Family<Labels, Gauge>; 5] = Default::default();
    let oldest = Family::<Labels, Seconds>::default();
    for object in &state.objects {
        let labels = vec![("object", object.name.clone())];
        let values = [
            object.pending,
            object.failures,
            object.rows,
            object.awaiting_hubspot_id,
            object.paused.is_some().into(),
        ];
        for (family, value) in families.iter().zip(values) {
            family.get_or_create(&labels).set(signed(value));
        }
        let age = object.oldest_pending(Instant::now()).unwrap_or_default();
        oldest.get_or_create(&labels).set(age.as_secs_f64());
    }
    let names = [
        ("pending", "Changes not yet pushed"),
        ("failures", "Records refused"),
        ("rows", "Rows of the mapped table"),
        ("awaiting_hubspot_id", "Rows without HubSpot id"),
        ("paused", "1 while pushes of the object are paused"),
    ];
    for (family, (name, help)) in families.into_iter().zip(names) {
        registry.register(name, help, family);
    }
    registry.register_with_unit(
        "oldest_pending",
        "How long the oldest change not yet pushed could be seen",
        Unit::Seconds,
        oldest,
    );
}

fn mirrored(registry: &mut Registry, mirror: &MirrorState) {
    let records = Family::<Labels, Gauge>::default();
    let stale = Family::<Labels, Gauge>::default();
    let complete = Family::<Labels, Seconds>::default();
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = i64::try_from(wall.as_micros()).unwrap_or(i64::MAX);
    for kind in mirror.kinds.iter().filter(|_| mirror.known) {
        let labels = vec![("kind", kind.kind.name().to_owned())];
        let counts = [
            ("synced", kind.synced),
            ("pending", kind.pending),
            ("error", kind.error),
            ("archived", kind.archived),
        ];
        for (status, count) in counts {
            let labels = [labels.clone(), vec![("status", status.to_owned())]].concat();
            records.get_or_create(&labels).set(count);
        }
        stale
            .get_or_create(&labels)
            .set(mirror.is_stale(kind.kind, wall).into());
        if let Some(at) = kind.complete_as_of {
            let at = Duration::from_micros(at.try_into().unwrap_or_default());
            complete.get_or_create(&labels).set(at.as_secs_f64());
        }
    }
    registry.register(
        "mirror_records",
        "Records of the mirror, by kind and status",
        records,
    );
    registry.register(
        "mirror_stale",
        "1 while a kind was not complete within stale-after",
        stale,
    );
    registry.register_with_unit(
        "mirror_complete_timestamp",
        "As of when a kind of the mirror is complete",
        Unit::Seconds,
        complete,
    );
    registry.register(
        "mirror_pull_running",
        "1 while a pull of the mirror runs",
        flag(mirror.running.is_some()),
    );
}

fn moment(registry: &mut Registry, name: &str, help: &str, micros: Option<i64>) {
    if let Some(micros) = micros {
        let gauge = Seconds::default();
        gauge.set(Duration::from_micros(micros.try_into().unwrap_or_default()).as_secs_f64());
        registry.register_with_unit(name, help, Unit::Seconds, gauge);
    }
}

fn flag(on: bool) -> Gauge {
    number(on.into())
}

fn number(value: u64) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(signed(value));
    gauge
}

fn signed(value: u64) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
