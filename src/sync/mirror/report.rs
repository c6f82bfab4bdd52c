//! What is told of the mirror: where a kind stands, and what a pull did.

use crate::mapping::Mirrored;

/// How many complaints a pull remembers of each kind; further ones are only counted.
pub const COMPLAINTS_MAX: usize = 100;
/// The cursor of a list that was read to its end; HubSpot's own are never empty.
pub const LISTED: &str = "";

/// Where a kind stands: its row of `hubsyncd.mirror_state`. Times are microseconds since the Unix epoch by the
/// database's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What of.
    pub kind: Mirrored,
    /// The number of the full pass that goes on, or went last; 0: there was none yet.
    pub pass: i64,
    /// When the full pass that goes on began; `None`: none does.
    pub begun_at: Option<i64>,
    /// Where it goes on in HubSpot's list; `None`: at its beginning; [`LISTED`]: all of it is read, and what it did not
    /// show is being asked for.
    pub cursor: Option<String>,
    /// Records it has listed so far.
    pub listed: i64,
    /// From when on the next incremental pass asks for changes, milliseconds since the Unix epoch by HubSpot's clock.
    pub modified_from: Option<i64>,
    /// "The mirror is complete as of then": everything that HubSpot held at that time is here, and what it did not hold
    /// is not. `None`: no full pass has ended yet.
    pub complete_as_of: Option<i64>,
    /// All changes up to then are here; deletions only up to `complete_as_of`.
    pub caught_up_at: Option<i64>,
    /// When a pass last saw any record.
    pub last_synced_at: Option<i64>,
    /// Records that are as HubSpot last said.
    pub synced: i64,
    /// Records that no pass has confirmed for `stale-after`.
    pub pending: i64,
    /// Records that could not be stored as they are.
    pub error: i64,
    /// Records in HubSpot's recycle bin, which none of the other counts contains.
    pub archived: i64,
}

impl Standing {
    /// A kind of which nothing is mirrored yet.
    pub fn empty(kind: Mirrored) -> Standing {
        Standing {
            kind,
            pass: 0,
            begun_at: None,
            cursor: None,
            listed: 0,
            modified_from: None,
            complete_as_of: None,
            caught_up_at: None,
            last_synced_at: None,
            synced: 0,
            pending: 0,
            error: 0,
            archived: 0,
        }
    }

    /// Whether the full pass that goes on has read the list to its end.
    pub fn is_listed(&self) -> bool {
        self.begun_at.is_some() && self.cursor.as_deref() == Some(LISTED)
    }

    /// Records of any status, archived ones left out.
    pub fn total(&self) -> i64 {
        self.synced + self.pending + self.error
    }

    /// Whether the kind was not complete at any time within `stale_after` (microseconds) before `now`.
    pub fn is_stale(&self, now: i64, stale_after: i64) -> bool {
        self.complete_as_of
            .is_none_or(|at| now.saturating_sub(at) > stale_after)
    }
}

/// A record that could not be stored as HubSpot told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Its HubSpot id; `None` if it has none that an id can be.
    pub id: Option<String>,
    /// Why: category and property names, never a value.
    pub reason: String,
}

/// What a pull did to one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records that are new here.
    pub synced: u64,
    /// Records that were known.
    pub updated: u64,
    /// Records that could not be stored as they are; also counted as synced or updated if they have an id.
    pub errors: u64,
    /// Records that are gone from HubSpot: archived, deleted, or merged into another.
    pub removed: u64,
    /// The first of the errors, at most [`COMPLAINTS_MAX`].
    pub complaints: Vec<Complaint>,
}

impl Tally {
    /// Adds what another page came to.
    pub fn add(&mut self, other: Tally) {
        self.synced += other.synced;
        self.updated += other.updated;
        self.errors += other.errors;
        self.removed += other.removed;
        let room = COMPLAINTS_MAX.saturating_sub(self.complaints.len());
        self.complaints.extend(other.complaints.into_iter().take(room));
    }
}

/// A pull that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The run's id, as in `hubsyncd.run`.
    pub id: String,
    /// What it did, by kind; a kind that it did not come to has zeros.
    pub tallies: Vec<(Mirrored, Tally)>,
    /// Why it was cut short, by kind, without personal data; empty if every pass came to its end.
    pub errors: Vec<(Mirrored, String)>,
    /// Microseconds since the Unix epoch.
    pub started_at: i64,
    /// Microseconds since the Unix epoch.
    pub finished_at: i64,
}

impl Pulled {
    /// What became of one kind: its counts, and why it was cut short if it was.
    pub fn of(&self, kind: Mirrored) -> (Tally, Option<&str>) {
        let tally = self.tallies.iter().find(|(of, _)| *of == kind);
        let error = self.errors.iter().find(|(of, _)| *of == kind);
        (
            tally.map(|(_, tally)| tally.clone()).unwrap_or_default(),
            error.map(|(_, error)| error.as_str()),
        )
    }
}
