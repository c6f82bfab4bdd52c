//! Statements that a session keeps: parsed once and planned once, instead of with every use.
//!
//! A text that comes again within a minute is prepared beside its use, in the same round trip and transaction, so that it
//! meets no lock that the use itself has not passed; it serves for a minute and is prepared anew, so that a plan made for
//! a table that has grown since does not stay. What fails is forgotten with all else that the session keeps: the next use
//! is spelt out again, whatever was wrong with it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_postgres::Statement;

/// How long a statement serves, and for how long a use is remembered.
const SERVES: Duration = Duration::from_secs(60);

/// The kept statements of one session, by their text. The texts are constants and those of the mapping's objects, so their
/// number does not grow.
pub(super) struct Kept<S = Statement> {
    known: Mutex<HashMap<String, (Option<S>, Instant)>>,
}

/// How a statement is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum How<S = Statement> {
    /// Spelt out.
    Spelt,
    /// Spelt out, and prepared beside it.
    Prepare,
    /// As prepared.
    Prepared(S),
}

impl<S> Default for Kept<S> {
    fn default() -> Self {
        Kept {
            known: Mutex::default(),
        }
    }
}

impl<S: Clone> Kept<S> {
    /// How to send this text now; remembers the use.
    pub(super) fn find(&self, sql: &str, now: Instant) -> How<S> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get_mut(sql) {
            Some((statement, since)) if now.saturating_duration_since(*since) < SERVES => match statement {
                Some(statement) => How::Prepared(statement.clone()),
                None => How::Prepare,
            },
            Some(old) => {
                *old = (None, now);
                How::Spelt
            }
            None => {
                known.insert(sql.to_owned(), (None, now));
                How::Spelt
            }
        }
    }

    /// Keeps a statement that was prepared.
    pub(super) fn keep(&self, sql: &str, statement: S, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(sql.to_owned(), (Some(statement), now));
    }

    /// Forgets all.
    pub(super) fn forget(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "SELECT 1";

    #[test]
    fn a_text_is_spelt_out_once_prepared_when_it_comes_again_and_then_served() {
        let (kept, now) = (Kept::default(), Instant::now());
        assert_eq!(kept.find(TEXT, now), How::Spelt);
        assert_eq!(kept.find(TEXT, now), How::Prepare);
        kept.keep(TEXT, 7, now);
        assert_eq!(kept.find(TEXT, now), How::Prepared(7));
        assert_eq!(kept.find("SELECT 2", now), How::Spelt);
    }

    #[test]
    fn what_was_prepared_serves_for_a_minute_however_often_it_is_used() {
        let (kept, begun) = (Kept::default(), Instant::now());
        kept.keep(TEXT, 7, begun);
        assert_eq!(kept.find(TEXT, begun + SERVES / 2), How::Prepared(7));
        assert_eq!(
            kept.find(TEXT, begun + SERVES - Duration::from_millis(1)),
            How::Prepared(7)
        );
        assert_eq!(kept.find(TEXT, begun + SERVES), How::Spelt);
        assert_eq!(kept.find(TEXT, begun + SERVES), How::Prepare);
    }

    #[test]
    fn a_use_is_forgotten_after_a_minute_and_everything_after_a_failure() {
        let (kept, begun) = (Kept::default(), Instant::now());
        assert_eq!(kept.find(TEXT, begun), How::Spelt);
        assert_eq!(kept.find(TEXT, begun + SERVES), How::Spelt);
        kept.keep(TEXT, 7, begun + SERVES);
        kept.forget();
        assert_eq!(kept.find(TEXT, begun + SERVES), How::<i32>::Spelt);
    }
}
