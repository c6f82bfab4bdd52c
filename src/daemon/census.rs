//! The census: what is counted about once a second, beside the loop that collects.
//!
//! Counting a large table takes its time, and may not hold up a change. One census is taken at a time; what it finds stands here and on the board.

use super::board::{Board, Condition};
use super::door::Door;
use super::trouble::Trouble;
use crate::postgres::connect::Pool;
use crate::postgres::{self, changes, failures, inventory, orphans};
use crate::sync::change::{Change, ObjectIndex, Op};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tracing::{info, warn};

/// How often the triggers are counted.
const INVENTORY: Duration = Duration::from_secs(60);
/// The pause after a count of the change table is so many times as long as the count took.
const COUNT_PAUSE: u32 = 20;

/// What was counted, and when what is due again.
pub(super) struct Census {
    door: Arc<Door>,
    pool: Arc<Pool>,
    board: Arc<Board>,
    /// Changes in the table, by object, when they were counted last.
    changes: Vec<AtomicU64>,
    /// When each object's rows were counted, by the database's clock; microseconds since the Unix epoch.
    rows_counted_at: Vec<AtomicI64>,
    due: Mutex<Due>,
    /// That triggers are missing.
    trouble: Trouble,
}

/// When what is done next.
#[derive(Clone, Copy)]
struct Due {
    changes: Instant,
    inventory: Instant,
}

impl Census {
    pub(super) fn new(door: Arc<Door>, pool: Arc<Pool>, board: Arc<Board>) -> Census {
        let now = Instant::now();
        let objects = door.objects.len();
        Census {
            door,
            pool,
            board,
            changes: (0..objects).map(|_| AtomicU64::new(0)).collect(),
            rows_counted_at: (0..objects).map(|_| AtomicI64::new(i64::MAX)).collect(),
            due: Mutex::new(Due {
                changes: now,
                inventory: now,
            }),
            trouble: Trouble::new(),
        }
    }

    /// The session is new: the triggers are looked at with the next census.
    pub(super) fn reset(&self) {
        self.due().inventory = Instant::now();
    }

    /// Changes of an object in the table, when they were counted last.
    pub(super) fn changes(&self, object: ObjectIndex) -> u64 {
        self.changes[object].load(Ordering::Relaxed)
    }

    /// Keeps up how many rows there are, until the next sweep counts them.
    pub(super) fn count_rows<'c>(&self, changes: impl Iterator<Item = &'c Change>) {
        let since = |change: &Change| self.rows_counted_at[change.object].load(Ordering::Relaxed);
        for change in changes.filter(|change| change.captured_at > since(change)) {
            match change.op {
                Op::Insert => self.board.adjust_rows(change.object, 1, 1),
                Op::Delete if change.hubspot_id.is_none() => self.board.adjust_rows(change.object, -1, -1),
                Op::Delete => self.board.adjust_rows(change.object, -1, 0),
                Op::New | Op::Update | Op::Archive | Op::Everything | Op::Truncate => {}
            }
        }
    }

    /// Counts what is due. `all_held`: memory holds every change, so the table need not be counted.
    pub(super) async fn take(&self, all_held: bool) {
        let (now, due) = (Instant::now(), *self.due());
        if !all_held && now >= due.changes {
            self.count_changes().await;
            let took = now.elapsed();
            self.due().changes = Instant::now() + took * COUNT_PAUSE;
        }
        if self.door.failures_changed.swap(false, Ordering::AcqRel) {
            self.count_failures().await;
        }
        self.door.name_trials().await;
        self.door.tell_pauses().await;
        if now >= due.inventory {
            self.due().inventory = now + INVENTORY;
            self.count_triggers().await;
            self.count_tables().await;
        }
    }

    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn count_changes(&self) {
        let counted = async {
            let session = self.pool.get().await?;
            changes::count(&session, &self.door.mapping).await
        };
        let counted: Result<Vec<u64>, postgres::Error> = counted.await;
        for (known, count) in self.changes.iter().zip(counted.unwrap_or_default()) {
            known.store(count, Ordering::Relaxed);
        }
    }

    async fn count_failures(&self) {
        let counted = async {
            let session = self.pool.get().await?;
            let counts = failures::counts(&session, &self.door.mapping).await?;
            Ok::<_, postgres::Error>((counts, orphans::braked(&session, &self.door.mapping).await?))
        };
        match counted.await {
            Ok((counts, braked)) => {
                self.board.set_braked(&braked);
                for (object, count) in counts.into_iter().enumerate() {
                    self.board.set_failures(object, count);
                }
            }
            Err(_) => self.door.failures_changed.store(true, Ordering::Release),
        }
    }

    /// Counts the rows of every table that was not counted yet; from then on they are kept up.
    async fn count_tables(&self) {
        for (object, counted_at) in self.rows_counted_at.iter().enumerate() {
            if counted_at.load(Ordering::Relaxed) != i64::MAX {
                continue;
            }
            if let Ok(counted) = self.door.store.count(object).await {
                self.board.set_rows(object, counted.rows, counted.awaiting_id);
                counted_at.store(counted.counted_at, Ordering::Relaxed);
            }
        }
    }

    /// Looks whether the triggers still stand; without them changes are found by the sweep alone.
    async fn count_triggers(&self) {
        let counted = async {
            let session = self.pool.get().await?;
            inventory::triggers(&session, &self.door.mapping, &self.door.shapes).await
        };
        let Ok(problems) = counted.await else { return };
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        if words.is_empty() {
            if let Some(past) = self.trouble.succeeded() {
                info!("all triggers stand again, {past}");
            }
        } else if let Some(still) = self.trouble.failed() {
            for words in &words {
                warn!("{still}{words}");
            }
        }
        let words = (!words.is_empty()).then(|| words.join("; "));
        self.board.set_condition(Condition::Triggers, words);
    }
}
