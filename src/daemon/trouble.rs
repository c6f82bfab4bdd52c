//! Something that may fail for hours while attempts go on, and what the log has of it: [`crate::sync::outage`] decides,
//! here is its clock.

use crate::sync::outage::{Outage, Span, Telling};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// One thing that may fail over and over.
#[derive(Debug)]
pub(in crate::daemon) struct Trouble {
    outage: Mutex<Outage>,
    epoch: Instant,
}

impl Trouble {
    pub(in crate::daemon) fn new() -> Trouble {
        Trouble {
            outage: Mutex::default(),
            epoch: Instant::now(),
        }
    }

    /// An attempt failed; answers the beginning of the warning that is to be given, if one is.
    pub(in crate::daemon) fn failed(&self) -> Option<Still> {
        let telling = self.outage().failed(self.epoch.elapsed())?;
        Some(Still(match telling {
            Telling::Begins => None,
            Telling::Lasts(span) => Some((span, SystemTime::now() - span.lasted)),
        }))
    }

    /// An attempt succeeded; answers what is to be told of the end, if anything is.
    pub(in crate::daemon) fn succeeded(&self) -> Option<Past> {
        self.outage().succeeded(self.epoch.elapsed()).map(Past)
    }

    fn outage(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Before a warning: nothing, or since when it is so.
pub(in crate::daemon) struct Still(Option<(Span, SystemTime)>);

impl fmt::Display for Still {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => Ok(()),
            Some((span, since)) => write!(
                f,
                "still, since {} ({} attempts): ",
                humantime::format_rfc3339_seconds(*since),
                span.attempts
            ),
        }
    }
}

/// How long it lasted.
pub(in crate::daemon) struct Past(Span);

impl fmt::Display for Past {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lasted = match self.0.lasted {
            short if short < Duration::from_secs(1) => Duration::from_millis(short.as_millis() as u64),
            long => Duration::from_secs(long.as_secs()),
        };
        let attempts = self.0.attempts;
        let word = if attempts == 1 { "attempt" } else { "attempts" };
        write!(
            f,
            "after {} and {attempts} {word} in vain",
            humantime::format_duration(lasted)
        )
    }
}
