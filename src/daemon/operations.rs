//! What the socket may ask of the daemon's tasks.
//!
//! The socket's side only knows this trait; the tasks answer it. Nothing here waits for HubSpot except
//! [`Operations::wait`], which waits for a sweep.

use super::mirror::request::{self, Extent};
use super::outlook::explain::Explanation;
use super::reload::Reloaded;
use crate::mapping::Mirrored;
use crate::sync::backlog::Stage;
use crate::sync::mirror::Pulled;
use crate::sync::report::{Cause, CauseName, Failure, Run};
use futures::future::BoxFuture;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// What operators can ask for beyond what the [`super::board::Board`] shows.
pub trait Operations: Send + Sync {
    /// Asks for a sweep; `archive` says that deletions which the brake holds may go. While one runs, exactly one more is queued, whose ticket all who ask meanwhile share.
    ///
    /// # Errors
    /// [`Refused::Standby`] where another daemon pushes.
    fn request_sweep(&self, reason: &'static str, archive: bool) -> Result<Ticket, Refused>;

    /// Waits until the sweep of a ticket has ended.
    ///
    /// # Errors
    /// [`Refused::Unavailable`] if it will not end in this process: the lease was lost, or the daemon stops.
    fn wait(&self, id: String) -> BoxFuture<'_, Result<Run, Refused>>;

    /// Runs, the newest first, after the run called `after`.
    ///
    /// # Errors
    /// [`Refused::Unavailable`] while the database is; [`Refused::Unknown`] if there is no such run.
    fn runs(&self, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page<Run>, Refused>>;

    /// Failures, after the one at the cursor `after`, an opaque word from an earlier page.
    ///
    /// # Errors
    /// [`Refused::Unavailable`] while the database is; [`Refused::Unknown`] for a cursor that is none.
    fn failures(&self, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page<Failure>, Refused>>;

    /// The causes of failures, the most frequent first and at most `limit`, and how many more there are.
    ///
    /// # Errors
    /// [`Refused::Unavailable`] while the database is.
    fn causes(&self, limit: usize) -> BoxFuture<'_, Result<(Vec<Cause>, u64), Refused>>;

    /// Names the failures of a cause as changed. Answers how many.
    ///
    /// # Errors
    /// [`Refused::Standby`], [`Refused::Unavailable`].
    fn retry_cause(&self, cause: CauseName) -> BoxFuture<'_, Result<u64, Refused>>;

    /// The rows that changes named and that are not pushed yet, at most `limit` of each object, as far as memory holds
    /// them; `None` while nothing is pushed here.
    fn waiting(&self, limit: usize) -> Option<Vec<WaitingRow>>;

    /// One record's whole story, with its values; asks both ends, by reads alone and for one record at a time.
    ///
    /// # Errors
    /// [`Refused::Unknown`] if nothing can be called so; [`Refused::Unavailable`] while the database is, or others ask.
    fn explain(&self, object: String, key: String) -> BoxFuture<'_, Result<Explanation, Refused>>;

    /// Names the failures of an object (all objects: `None`), or of one key of it, as changed. Answers how many.
    ///
    /// # Errors
    /// [`Refused::Standby`], [`Refused::Unavailable`]; [`Refused::Unknown`] if that object or failure is not there.
    fn retry(&self, object: Option<String>, key: Option<String>) -> BoxFuture<'_, Result<u64, Refused>>;

    /// Asks for a pull of the mirror: of these kinds, to this extent. Who asks for what runs already joins it; else it
    /// runs next, with all that is asked for until it begins.
    ///
    /// # Errors
    /// [`Refused::Standby`] where another daemon pulls; [`Refused::Unknown`] where there is no mirror, or not of one of
    /// the kinds: names the setting; [`Refused::Unavailable`] for what is merely stale, where a pull was cut a moment ago.
    fn pull(
        &self,
        reason: request::Reason,
        kinds: &[Mirrored],
        extent: Extent,
    ) -> Result<request::Ticket, Refused>;

    /// Waits until the pull of a ticket has ended, also cut short.
    ///
    /// # Errors
    /// [`Refused::Unavailable`] if it will not end in this process: the lease was lost, or the daemon stops.
    fn pulled(&self, id: String) -> BoxFuture<'_, Result<Arc<Pulled>, Refused>>;

    /// A page of the mirror's records of a kind, from the record `from` on.
    ///
    /// # Errors
    /// [`Refused::Unavailable`] while the database is.
    fn mirrored(
        &self,
        kind: Mirrored,
        from: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<MirrorPage, Refused>>;

    /// The same from HubSpot, at most 100; asks it by reads alone, also where another daemon pushes.
    ///
    /// # Errors
    /// [`Refused::Unavailable`] if HubSpot does not answer, with its reason; [`Refused::Unknown`] if it does not know `from`.
    fn in_hubspot(
        &self,
        kind: Mirrored,
        from: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<MirrorPage, Refused>>;

    /// Where the kinds of the mirror stand, by name, each a JSON object.
    ///
    /// # Errors
    /// [`Refused::Unavailable`] while the database is.
    fn standings(&self) -> BoxFuture<'_, Result<Vec<(String, String)>, Refused>>;

    /// Takes a changed configuration; what is under way is finished first.
    ///
    /// # Errors
    /// [`NotReloaded`]; then the configuration of before goes on.
    fn reload(&self) -> BoxFuture<'_, Result<Reloaded, NotReloaded>>;
}

/// Some records of the mirror, or of HubSpot in its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MirrorPage {
    /// Each a JSON object as the API answers it, by id in HubSpot's order.
    pub records: Vec<String>,
    /// The id that the next page begins with; `None` at the end.
    pub next: Option<String>,
    /// Whether the mirror is older than `stale-after`.
    pub stale: bool,
}

/// A row that a change named and that is not pushed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingRow {
    /// The object's name.
    pub object: String,
    /// Its key.
    pub key: String,
    /// Since when its oldest change could be seen; `None`: a sweep brought it.
    pub waited: Option<Duration>,
    /// How often it was pushed before without an answer.
    pub attempts: u32,
    /// What it waits for; times count from now.
    pub stage: Stage,
}

/// Why a configuration was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotReloaded {
    /// It is wrong, or one end does not fit it: every problem.
    Refused(Vec<String>),
    /// The daemon stops.
    Stopping,
}

/// A sweep that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ticket {
    /// The run's id.
    pub id: String,
    /// Whether it runs already.
    pub state: TicketState,
}

/// Whether a sweep that was asked for runs already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TicketState {
    /// It runs, or does as soon as it can.
    Started,
    /// It waits for the one that runs.
    Queued,
}

/// Some of a list, and where the rest begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// At most as many as were asked for.
    pub items: Vec<T>,
    /// What to ask for next; `None`: that was all.
    pub next: Option<String>,
}

/// Why the daemon does not do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Another daemon holds the lease; who, if that is known.
    Standby(Option<String>),
    /// It cannot now; why, without personal data.
    Unavailable(String),
    /// There is nothing of that name; which.
    Unknown(String),
}
