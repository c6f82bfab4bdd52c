//! Latency: from the application's commit to the write in HubSpot, as the sandbox's clock tells it.
//!
//! A change has arrived when its record holds the value that the change wrote, in a version younger than the commit.
//! The time is taken before the commit is sent, so that what is shown is never less than the truth.

use crate::sandbox::{Record, World};

/// How many of the last measurements are kept.
const KEPT_MAX: usize = 10_000;

/// How to find a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Find {
    /// By its HubSpot id.
    Id(String),
    /// By the value of a property.
    By(&'static str, String),
}

/// By what a change is known to have arrived.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    /// HubSpot's object type.
    pub(super) object: &'static str,
    pub(super) find: Find,
    pub(super) property: &'static str,
    pub(super) value: String,
}

/// What was measured, and what is not there yet.
#[derive(Debug, Default)]
pub(super) struct Latency {
    open: Vec<(Watch, i64)>,
    /// Milliseconds.
    measured: Vec<i64>,
}

impl Latency {
    /// Begins to wait for a change; one of the same property that has not arrived is overtaken by it.
    pub(super) fn wait_for(&mut self, watch: Watch, committed_ms: i64) {
        self.open.retain(|(open, _)| {
            (open.object, &open.find, open.property) != (watch.object, &watch.find, watch.property)
        });
        self.open.push((watch, committed_ms));
    }

    /// Takes the time of what has arrived.
    pub(super) fn look(&mut self, world: &World) {
        let measured = &mut self.measured;
        self.open.retain(|(watch, committed_ms)| {
            let arrived = found(watch, world).filter(|record| {
                record.get(watch.property) == Some(&watch.value) && record.updated_ms() >= *committed_ms
            });
            if let Some(record) = arrived {
                measured.push(record.updated_ms() - committed_ms);
            }
            arrived.is_none()
        });
        let excess = measured.len().saturating_sub(KEPT_MAX);
        measured.drain(..excess);
    }

    /// The median and the 95th percentile in milliseconds; `None` while nothing has arrived.
    pub(super) fn percentiles(&self) -> Option<(i64, i64)> {
        let mut sorted = self.measured.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        Some((sorted[last / 2], sorted[last * 95 / 100]))
    }
}

fn found<'a>(watch: &Watch, world: &'a World) -> Option<&'a Record> {
    match &watch.find {
        Find::Id(id) => world.record(watch.object, id),
        Find::By(property, value) => world.find(watch.object, property, value),
    }
}
