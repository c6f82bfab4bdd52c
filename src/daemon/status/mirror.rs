//! The mirror's part of `/status`.

use super::{InOrder, Serialize, moment};
use crate::daemon::mirror::state::{MirrorState, Pulling};
use crate::sync::mirror::Standing;
use crate::sync::report::Run;

/// The mirror as `/status` shows it; null there where there is none.
#[derive(Debug, Serialize)]
pub(super) struct MirrorStatus {
    /// By kind; null while the database has not said yet.
    kinds: InOrder<Option<KindStatus>>,
    running: Option<RunningPull>,
    last: Option<Run>,
    next_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct KindStatus {
    total: i64,
    synced: i64,
    pending: i64,
    error: i64,
    archived: i64,
    last_synced_at: Option<String>,
    complete_as_of: Option<String>,
    caught_up_at: Option<String>,
    stale: bool,
}

#[derive(Debug, Serialize)]
struct RunningPull {
    id: String,
    reason: String,
    started_at: String,
    kind: &'static str,
    pass: &'static str,
    records: u64,
}

impl MirrorStatus {
    /// `wall` is now, in microseconds since the Unix epoch.
    pub(super) fn of(state: MirrorState, wall: i64) -> MirrorStatus {
        let kind = |standing: &Standing| KindStatus {
            total: standing.total(),
            synced: standing.synced,
            pending: standing.pending,
            error: standing.error,
            archived: standing.archived,
            last_synced_at: standing.last_synced_at.map(moment),
            complete_as_of: standing.complete_as_of.map(moment),
            caught_up_at: standing.caught_up_at.map(moment),
            stale: state.is_stale(standing.kind, wall),
        };
        let kinds = state.kinds.iter();
        let known = |standing| state.known.then(|| kind(standing));
        let named = kinds.map(|standing| (standing.kind.name().to_owned(), known(standing)));
        MirrorStatus {
            kinds: InOrder(named.collect()),
            running: state.running.map(RunningPull::of),
            last: state.last,
            next_at: state.next_at.map(moment),
        }
    }
}

impl RunningPull {
    fn of(pulling: Pulling) -> RunningPull {
        RunningPull {
            id: pulling.id,
            reason: pulling.reason,
            started_at: moment(pulling.started_at),
            kind: pulling.kind.name(),
            pass: pulling.pass,
            records: pulling.records,
        }
    }
}
