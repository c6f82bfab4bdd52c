//! The world's clock and its dice.
//!
//! Time runs with the machine and can be moved ahead, so that a test reaches midnight or the end of a
//! rate window without waiting for it. The dice are seeded: the same seed gives the same ids and the same
//! order of results.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 that never go back, and can be moved ahead.
#[derive(Debug)]
pub(super) struct Clock {
    /// `None`: it stands until it is moved.
    started: Option<Instant>,
    started_ms: i64,
    ahead_ms: AtomicI64,
}

impl Clock {
    pub(super) fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            started: Some(Instant::now()),
            started_ms: millis(since),
            ahead_ms: AtomicI64::new(0),
        }
    }

    /// A clock that stands at this time, milliseconds since 1970.
    pub(super) fn standing(now_ms: i64) -> Self {
        Self {
            started: None,
            started_ms: now_ms,
            ahead_ms: AtomicI64::new(0),
        }
    }

    /// Milliseconds since 1970, UTC.
    pub(super) fn now_ms(&self) -> i64 {
        let running = self.started.map_or(0, |started| millis(started.elapsed()));
        self.started_ms + running + self.ahead_ms.load(Ordering::Relaxed)
    }

    pub(super) fn advance(&self, by: Duration) {
        self.ahead_ms.fetch_add(millis(by), Ordering::Relaxed);
    }
}

/// A duration in whole milliseconds, saturating.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The instant as HubSpot writes it: ISO 8601 in UTC, three digits of fraction, none when it is zero.
pub(super) fn instant_text(ms: i64) -> String {
    let Ok(instant) = jiff::Timestamp::from_millisecond(ms) else {
        return String::from("1970-01-01T00:00:00Z");
    };
    let format = if ms % 1000 == 0 {
        "%Y-%m-%dT%H:%M:%SZ"
    } else {
        "%Y-%m-%dT%H:%M:%S.%3fZ"
    };
    instant.strftime(format).to_string()
}

/// The instant as a `Date` header has it.
pub(super) fn date_text(ms: i64) -> String {
    let instant = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    instant.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// A seeded generator (SplitMix64); good enough to shuffle answers.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            let other = usize::try_from(self.below(end as u64 + 1)).unwrap_or(end);
            items.swap(end, other);
        }
    }
}
