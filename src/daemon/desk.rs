//! The desk: the backlog, shared by all who claim and release, and the bell that tells of what was freed.

use crate::sync::backlog::{Backlog, Claimed, Release};
use crate::sync::change::{Key, ObjectIndex};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The shared backlog. Its lock is held for moments and never across an await.
pub struct Desk {
    backlog: Mutex<Backlog>,
    freed: Notify,
    named: AtomicBool,
    archiving: tokio::sync::Mutex<()>,
    /// How often in a row HubSpot's answers said nothing of a row.
    silences: Mutex<HashMap<(ObjectIndex, Key), u32>>,
    epoch: Instant,
}

impl Desk {
    /// A desk around `backlog`, whose times count from now.
    pub fn new(backlog: Backlog) -> Desk {
        Desk {
            backlog: Mutex::new(backlog),
            freed: Notify::new(),
            named: AtomicBool::new(false),
            archiving: tokio::sync::Mutex::default(),
            silences: Mutex::default(),
            epoch: Instant::now(),
        }
    }

    /// The backlog.
    pub fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.backlog
            .lock()
            .expect("no code panics while it holds the backlog")
    }

    /// The present time as the backlog counts it.
    pub fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// The instant of a time of the backlog.
    pub fn instant(&self, at: Duration) -> Instant {
        self.epoch + at
    }

    /// Releases rows and tells whoever waits in [`Desk::freed`].
    pub fn release(&self, object: ObjectIndex, rows: impl IntoIterator<Item = (Claimed, Release)>) {
        let mut backlog = self.backlog();
        for (claimed, release) in rows {
            backlog.release(object, claimed, release);
        }
        drop(backlog);
        self.freed.notify_one();
    }

    /// Waits for its turn to decide which records of deleted rows are archived: each decision counts those before it.
    pub async fn archiving(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.archiving.lock().await
    }

    /// HubSpot answered without a word about a row; answers how often it did so in a row.
    pub fn silent(&self, object: ObjectIndex, key: &Key) -> u32 {
        let mut silences = self.silences.lock().unwrap_or_else(PoisonError::into_inner);
        let times = silences.entry((object, Key::clone(key))).or_default();
        *times += 1;
        *times
    }

    /// HubSpot said something of these rows.
    pub fn spoken<'k>(&self, object: ObjectIndex, keys: impl Iterator<Item = &'k Key>) {
        let mut silences = self.silences.lock().unwrap_or_else(PoisonError::into_inner);
        if !silences.is_empty() {
            for key in keys {
                silences.remove(&(object, Key::clone(key)));
            }
        }
    }

    /// Waits until something was released, or a sweep of an object was asked for.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Something of ours has named rows, and nothing rings for that: a look is due.
    pub fn named(&self) {
        self.named.store(true, Ordering::Release);
        self.freed.notify_one();
    }

    /// Whether [`Desk::named`] was called since the last time.
    pub fn take_named(&self) -> bool {
        self.named.swap(false, Ordering::AcqRel)
    }
}
