//! What the board shows of the mirror.

use crate::config;
use crate::mapping::Mirrored;
use crate::sync::mirror::Standing;
use crate::sync::report::Run;
use std::time::Duration;

/// The mirror at one moment; the board has none where `[mirror]` is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorState {
    /// The configuration.
    pub every: Duration,
    /// The configuration.
    pub full_every: Duration,
    /// The configuration.
    pub stale_after: Duration,
    /// Whether the database has said where the kinds stand; until then `kinds` are empty and say nothing.
    pub known: bool,
    /// By kind that is mirrored, in the order of [`Mirrored::ALL`]; counts are kept up with every page, on a standby
    /// every few seconds.
    pub kinds: Vec<Standing>,
    /// The pull that goes on.
    pub running: Option<Pulling>,
    /// The pull that ended last, with the counts of its run; complete if each of its passes came to its end.
    pub last: Option<Run>,
    /// When the next pull is due; microseconds since the Unix epoch.
    pub next_at: Option<i64>,
}

/// A pull that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulling {
    /// The run's id.
    pub id: String,
    /// Why: `start`, `clock`, `socket`, `stale`.
    pub reason: String,
    /// Microseconds since the Unix epoch.
    pub started_at: i64,
    /// What is pulled now.
    pub kind: Mirrored,
    /// How: `full`, `incremental`, or `limited`.
    pub pass: &'static str,
    /// Records of that kind that this pull has read so far.
    pub records: u64,
}

impl MirrorState {
    /// The mirror as configured; where its kinds stand is known from `before`, if it is.
    pub fn going_on(config: &config::Mirror, before: Option<&MirrorState>) -> MirrorState {
        let mut state = MirrorState::new(config);
        let Some(before) = before else { return state };
        state.known = before.known
            && state
                .kinds
                .iter()
                .all(|standing| before.kind(standing.kind).is_some());
        for standing in &mut state.kinds {
            if let Some(known) = before.kind(standing.kind) {
                *standing = known.clone();
            }
        }
        state.last = before.last.clone();
        state
    }

    /// The mirror as configured, nothing known of it yet.
    pub fn new(config: &config::Mirror) -> MirrorState {
        MirrorState {
            every: config.every,
            full_every: config.full_every,
            stale_after: config.stale_after,
            known: false,
            kinds: config.objects.iter().map(|kind| Standing::empty(*kind)).collect(),
            running: None,
            last: None,
            next_at: None,
        }
    }

    /// Where a kind stands, if it is mirrored.
    pub fn kind(&self, kind: Mirrored) -> Option<&Standing> {
        self.kinds.iter().find(|standing| standing.kind == kind)
    }

    /// Whether a kind was not complete at any time within `stale-after` before `now` (microseconds since the epoch).
    pub fn is_stale(&self, kind: Mirrored, now: i64) -> bool {
        let after = i64::try_from(self.stale_after.as_micros()).unwrap_or(i64::MAX);
        self.kind(kind)
            .is_none_or(|standing| standing.is_stale(now, after))
    }
}
