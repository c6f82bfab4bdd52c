//! The receipt: what HubSpot answered, written back in one transaction per batch.
//!
//! It writes into tables that belong to the application, so of two that want a row it is always we who give up:
//! rows are taken with SKIP LOCKED before anything is written, what has to be waited for (a lock on the whole
//! table, a transaction that inserts the same id) is waited for 200 ms at most, well below `deadlock_timeout`,
//! and a transaction of ours that stalls is ended by the server after 2 s. A row that could not be had keeps
//! its changes; the id that HubSpot gave it is safe in `hubsyncd.intent`, where [`Writer::note_ids`] put it before.
//!
//! A row may refuse what we write (unique, check, a trigger's error). Then the batch is halved until that row
//! stands alone; it becomes a failure of category `receipt`, and nobody waits for it.
//!
//! A daemon that lost the lease must not write what it learned before: the transaction first holds the lease's row under
//! the generation the rows were pushed under, and is given up where that is gone.
//!
//! A receipt takes three round trips: BEGIN with all locks, all writes, COMMIT; two if no row is written.

mod heir;
mod orphan;
mod statement;
mod transaction;
mod trouble;
pub mod work;

use super::{Error, ErrorKind, Session};
use super::{changes, lease};
use crate::mapping::Mapping;
use crate::sync::change::{Key, ObjectIndex, Op};
use crate::sync::doubt::Due;
use crate::sync::linking::Note;
use crate::sync::outcome::Refusal;
use statement::Statements;
pub use transaction::Part;
use transaction::Tried;

/// A receipt is tried in halves at most so often because of waits; then the rest comes again later.
const WAITS_MAX: u32 = 16;

/// What to write back of one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Which object.
    pub object: ObjectIndex,
    /// The generation of the lease under which the rows were pushed. Nothing is written under one that is gone.
    pub generation: i64,
    /// The database's clock at the read of the rows, microseconds since the Unix epoch.
    pub read_at: i64,
    /// One entry a row; no key twice.
    pub entries: Vec<Entry>,
}

/// What to write back of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The row's key.
    pub key: Key,
    /// The row's HubSpot id as it was read, blank as `None`.
    pub read_id: Option<String>,
    /// The HubSpot id that the row is to hold now, if it is known.
    pub hubspot_id: Option<String>,
    /// Whether HubSpot holds the row as it was read: the sync time is written.
    pub synced: bool,
    /// The audit entries to mark.
    pub audit: Vec<i64>,
    /// The changes to delete.
    pub seqs: Vec<i64>,
    /// The failure to note.
    pub failure: Option<Refusal>,
    /// Whether the row's failure ends.
    pub clear_failure: bool,
    /// Whether create-only properties go along when the row is pushed again.
    pub full_record: bool,
    /// What is remembered of its links from now on, as far as it is touched.
    pub links: Vec<Note>,
    /// Whether to name the row again, e.g. because a property that only updates carry is set after a create.
    pub rename: bool,
    /// Whether the record of `hubspot_id` was in HubSpot before this push gave it to the row: if the row holds another id
    /// by now, it is nobody's to archive.
    pub found: bool,
    /// The HubSpot records that lost this row and are archived, or gone. Their failures end.
    pub archived: Vec<String>,
    /// The HubSpot records that lost this row and are none to archive: a row holds them. Their failures end.
    pub left: Vec<String>,
    /// The HubSpot records that lost this row and are not archived, with the reason: each becomes a failure.
    pub unarchived: Vec<(String, Refusal)>,
    /// Whether the read found no such row: it is gone, or outside the mapping's condition (then it is
    /// [`Written::Done`], and the intent and link memory stay).
    pub row_gone: bool,
    /// Whether what the row's intent speaks of is over: it is deleted. Else it stays, whatever the entry says of
    /// the row; one of a row that is gone stays if it holds a create whose outcome is not known. Where the
    /// read found no row it is deleted only if the row is gone indeed.
    pub intent_over: bool,
    /// When the row is to be pushed once more, if an older request may land after the one that was confirmed.
    pub due: Option<Due>,
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It stands.
    Done,
    /// The row is gone from its table; its changes, failure, intent and link memory are deleted. A row that holds its
    /// record now gets the link memory and is named. Where deleted rows are archived, the record that HubSpot gave it
    /// meanwhile is named by a change.
    Gone,
    /// The row, or one of its audit entries, was not to be had; it keeps its changes (a row without any was given
    /// one) and is to be read and pushed again later.
    Locked,
    /// The row holds another HubSpot id by now, which wins; the row was named as changed, and so was, where deleted rows
    /// are archived, the record made in vain.
    Lost {
        /// What happened, without values.
        reason: String,
    },
    /// Postgres refuses to write the row. Noted as a failure; the id is kept in the intent.
    Refused(Refusal),
}

/// Whether a row that stays out of reach is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// It can be had now.
    Free,
    /// Somebody holds it.
    Locked,
    /// There is no such row.
    Gone,
    /// It is seen and cannot be locked: row level security forbids to update it.
    Forbidden,
}

/// Writes the receipts of one object.
#[derive(Debug)]
pub struct Writer {
    object: ObjectIndex,
    name: String,
    table: String,
    statements: Statements,
}

impl Writer {
    /// The writer of an object; `shapes` are the catalog's.
    pub fn new(mapping: &Mapping, object: ObjectIndex, shapes: &[super::catalog::Shape]) -> Writer {
        Writer {
            object,
            name: mapping.objects[object].name.clone(),
            table: mapping.objects[object].table.to_string(),
            statements: Statements::new(mapping, object, shapes),
        }
    }

    /// Commits the ids that HubSpot gave to `hubsyncd.intent`, which nothing can refuse: to be called before
    /// [`Writer::write`], under the same generation of the lease. One round trip.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] if that generation is gone, else [`Error`] as the database has it.
    pub async fn note_ids(
        &self,
        session: &Session,
        generation: i64,
        ids: &[(Key, String)],
    ) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        let step = statement::note_ids_held(
            &self.name,
            generation,
            ids.iter().map(|(key, id)| (&**key, &**id)),
        );
        let answer = super::pipeline::send(session, &[step]).await;
        let doing = || format!("noting the HubSpot ids of {} rows of {}", ids.len(), self.name);
        let answer = answer.map_err(|error| Error::from_client(doing(), error))?;
        if answer.iter().all(Vec::is_empty) {
            return Err(lease::gone(doing()));
        }
        Ok(())
    }

    /// Writes a receipt; answers what became of each entry, in their order.
    ///
    /// What it names anew (see [`Writer::may_have_named`]) rings no doorbell: look afterwards. Must not be cancelled:
    /// dropped half-way it leaves the session in a transaction, which the server ends after 2 s.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] if another daemon has taken the lease since the receipt's generation: nothing more is written.
    /// Else [`Error`] as the database has it; what was not answered for is then not written, or (the connection broke
    /// during COMMIT) written completely. Never [`super::ErrorKind::Rows`] or [`super::ErrorKind::Busy`] on account of
    /// the application's rows.
    pub async fn write(&self, session: &mut Session, receipt: &Receipt) -> Result<Vec<Written>, Error> {
        debug_assert_eq!(receipt.object, self.object);
        let entries = &receipt.entries;
        let mut written: Vec<Written> = vec![Written::Locked; entries.len()];
        let mut parts: Vec<Vec<usize>> = vec![(0..entries.len()).collect()];
        let mut waits = 0;
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let tried = transaction::write(session, self, receipt, &Part::Rows(&part)).await?;
            match tried {
                Tried::Written(list) => list.into_iter().for_each(|(index, said)| written[index] = said),
                Tried::NotNow => break,
                Tried::Waited if part.len() == 1 => waits += 1,
                Tried::Waited if waits >= WAITS_MAX => {}
                Tried::Refused(refusal) if part.len() == 1 => {
                    written[part[0]] = self.refuse(session, receipt, part[0], refusal).await?;
                }
                Tried::Waited | Tried::Refused(_) => {
                    waits += u32::from(matches!(tried, Tried::Waited));
                    let second = part.split_off(part.len().div_ceil(2));
                    parts.push(second);
                    parts.push(part);
                }
            }
        }
        self.name_unfinished(session, entries, &written).await?;
        Ok(written)
    }

    /// Whether writing this receipt may have appended changes, for which somebody has to look.
    pub fn may_have_named(&self, receipt: &Receipt, written: &[Written]) -> bool {
        let pairs = receipt.entries.iter().zip(written);
        pairs.into_iter().any(|(entry, written)| {
            let looked_up = self.statements.is_looked_up() && entry.new_id().is_some();
            match written {
                Written::Done => entry.rename || looked_up,
                Written::Locked => entry.seqs.is_empty() || looked_up,
                Written::Lost { .. } => true,
                Written::Gone => self.statements.archives() || self.statements.has_links(),
                Written::Refused(_) => false,
            }
        })
    }

    /// Names the rows that hold these HubSpot ids as changed, so that their values win again over what another row
    /// wrote there; answers (id, key) of those there are. One round trip.
    ///
    /// # Errors
    /// [`Error`] as the database has it.
    pub async fn name_owners(&self, session: &Session, ids: &[String]) -> Result<Vec<(String, Key)>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let step = self.statements.name_owners(ids);
        let answer = super::pipeline::send(session, &[step]).await;
        let doing = || format!("naming the owners of {} HubSpot ids in {}", ids.len(), self.name);
        let rows = answer.map_err(|error| Error::from_client(doing(), error))?;
        let rows = rows.iter().flatten();
        Ok(rows
            .map(|row| (row.get(0), Key::from(row.get::<_, &str>(1))))
            .collect())
    }

    /// Asks why a row stays [`Written::Locked`]. Never waits for the row; leaves nothing locked.
    ///
    /// # Errors
    /// [`Error`] as the database has it.
    pub async fn probe(&self, session: &mut Session, key: &Key) -> Result<Probe, Error> {
        transaction::probe(session, self, key).await
    }

    /// Notes that Postgres refuses the row. Only our own tables are written, which refuse nothing.
    async fn refuse(
        &self,
        session: &mut Session,
        receipt: &Receipt,
        index: usize,
        refusal: Refusal,
    ) -> Result<Written, Error> {
        let part = Part::Refused(index, &refusal);
        match transaction::write(session, self, receipt, &part).await? {
            Tried::Written(_) => Ok(Written::Refused(refusal)),
            Tried::NotNow | Tried::Waited => Ok(Written::Locked),
            Tried::Refused(_) => {
                let doing = "the tables of schema hubsyncd did not take the failure of a row of";
                Err(Error::new(ErrorKind::Other, format!("{doing} {}", self.name)))
            }
        }
    }

    /// Gives a change to those rows that come again and have none: a sweep's.
    async fn name_unfinished(
        &self,
        session: &Session,
        entries: &[Entry],
        written: &[Written],
    ) -> Result<(), Error> {
        for (op, full) in [(Op::Update, false), (Op::New, true)] {
            let unfinished = entries.iter().zip(written).filter(|(entry, written)| {
                **written == Written::Locked && entry.seqs.is_empty() && entry.full_record == full
            });
            let keys: Vec<Key> = unfinished.map(|(entry, _)| Key::clone(&entry.key)).collect();
            changes::name(session, &self.name, &keys, op).await?;
        }
        Ok(())
    }
}

impl Entry {
    /// The id to write, if the row did not hold it when it was read.
    fn new_id(&self) -> Option<&str> {
        self.hubspot_id
            .as_deref()
            .filter(|id| self.read_id.as_deref() != Some(*id))
    }

    /// Whether the row itself is written.
    fn writes_row(&self) -> bool {
        !self.row_gone && (self.synced || self.new_id().is_some())
    }
}
