//! The store: all that the door and a sweep's pass ask of the database, one method a question.
//!
//! [`Database`] is the real one, over the left wall. A trait stands between because what the door promises is
//! also proved against a simulated database, where every connection may break at every question.

use crate::mapping::Mapping;
use crate::postgres::connect::Pool;
use crate::postgres::intent::Noted;
use crate::postgres::orphans::{Buried, Orphans};
use crate::postgres::receipt::{Probe, Receipt, Writer, Written};
use crate::postgres::rows::{Counted, Reader};
use crate::postgres::{Error, Problem, changes, failures, intent, inventory, links};
use crate::sync::change::{Key, ObjectIndex, Op, Owner};
use crate::sync::deletion::{Findings, Orphan};
use crate::sync::linking::{Beside, Note, Pair};
use crate::sync::outcome::Refusal;
use crate::sync::record::Read;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;

/// What the database answers, or how the question failed.
pub type Asked<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// The database as the door sees it.
pub trait Store: Send + Sync {
    /// A key as the database prints it; `None` if no row can have it.
    fn canonical(&self, object: ObjectIndex, key: &str) -> Option<Key>;

    /// [`Reader::read`].
    fn read<'a>(&'a self, object: ObjectIndex, keys: &'a [Key], full: &'a [bool]) -> Asked<'a, Read>;

    /// [`Reader::page`].
    fn page<'a>(&'a self, object: ObjectIndex, after: Option<&'a Key>, limit: i64) -> Asked<'a, Read>;

    /// [`Reader::next_key`].
    fn next_key<'a>(&'a self, object: ObjectIndex, after: Option<&'a Key>) -> Asked<'a, Option<Key>>;

    /// [`Reader::owners`].
    fn owners<'a>(&'a self, object: ObjectIndex, ids: &'a [String]) -> Asked<'a, Vec<(String, Owner)>>;

    /// [`Reader::count`].
    fn count(&self, object: ObjectIndex) -> Asked<'_, Counted>;

    /// [`Writer::note_ids`].
    fn note_ids<'a>(
        &'a self,
        object: ObjectIndex,
        generation: i64,
        ids: &'a [(Key, String)],
    ) -> Asked<'a, ()>;

    /// [`links::note`]: what is remembered of links, committed before the requests that make it true.
    fn note_links<'a>(
        &'a self,
        object: ObjectIndex,
        generation: i64,
        notes: &'a [(Key, Note)],
    ) -> Asked<'a, ()>;

    /// [`links::beside`]: for each of the pairs of one link, given with the row's key, our other links between
    /// the same two records.
    fn links_beside<'a>(
        &'a self,
        object: ObjectIndex,
        link: usize,
        pairs: &'a [(Key, Pair)],
    ) -> Asked<'a, Vec<Vec<Beside>>>;
    /// [`intent::note`].
    fn note<'a>(&'a self, object: ObjectIndex, generation: i64, notes: &'a [Noted]) -> Asked<'a, ()>;

    /// [`intent::withdraw`].
    fn withdraw<'a>(&'a self, object: ObjectIndex, notes: &'a [Noted]) -> Asked<'a, ()>;

    /// [`intent::name_due`].
    fn name_due(&self) -> Asked<'_, bool>;

    /// [`Writer::write`], and whether it may have named rows ([`Writer::may_have_named`]).
    fn receipt<'a>(&'a self, receipt: &'a Receipt) -> Asked<'a, (Vec<Written>, bool)>;

    /// [`changes::name`].
    fn name<'a>(&'a self, object: ObjectIndex, keys: &'a [Key], op: Op) -> Asked<'a, ()>;

    /// [`failures::before`].
    fn failed_before<'a>(
        &'a self,
        object: ObjectIndex,
        before: i64,
        after: &'a Key,
        limit: usize,
    ) -> Asked<'a, Vec<Key>>;

    /// [`Orphans::ask`].
    fn orphans<'a>(&'a self, object: ObjectIndex, orphans: &'a [Orphan]) -> Asked<'a, Findings>;

    /// [`Orphans::buried`].
    fn buried<'a>(&'a self, object: ObjectIndex, keys: &'a [Key]) -> Asked<'a, Vec<Buried>>;

    /// [`Orphans::note`].
    fn archiving<'a>(&'a self, object: ObjectIndex, generation: i64, orphans: &'a [Orphan]) -> Asked<'a, ()>;

    /// [`Orphans::archived`].
    fn archived<'a>(&'a self, object: ObjectIndex, ids: &'a [String]) -> Asked<'a, Vec<(String, i64)>>;

    /// [`Orphans::listed`].
    fn listed_orphans<'a>(
        &'a self,
        object: ObjectIndex,
        after: Option<&'a Orphan>,
        released: bool,
        limit: usize,
    ) -> Asked<'a, Vec<Orphan>>;

    /// [`Writer::probe`].
    fn probe<'a>(&'a self, object: ObjectIndex, key: &'a Key) -> Asked<'a, Probe>;

    /// Notes that an object is paused ([`failures::pause`]), or not any more ([`failures::resume`]).
    fn note_pause<'a>(&'a self, object: ObjectIndex, why: Option<&'a Refusal>) -> Asked<'a, ()>;

    /// [`inventory::access`] of one object: what this role may not do with its table.
    fn lacking(&self, object: ObjectIndex) -> Asked<'_, Vec<Problem>>;
}

/// The real database.
pub struct Database {
    mapping: Arc<Mapping>,
    pool: Arc<Pool>,
    tables: Vec<Table>,
}

/// What is known of one object's table: its SQL.
pub struct Table {
    /// Reads its rows.
    pub reader: Reader,
    /// Writes its receipts.
    pub writer: Writer,
    /// Asks for the records of its deleted rows.
    pub orphans: Orphans,
}

impl Database {
    /// The database behind `pool`; `tables` are in the order of the mapping's objects.
    pub fn new(mapping: Arc<Mapping>, pool: Arc<Pool>, tables: Vec<Table>) -> Database {
        Database {
            mapping,
            pool,
            tables,
        }
    }
}

impl Store for Database {
    fn canonical(&self, object: ObjectIndex, key: &str) -> Option<Key> {
        self.tables[object].reader.canonical(key)
    }

    fn read<'a>(&'a self, object: ObjectIndex, keys: &'a [Key], full: &'a [bool]) -> Asked<'a, Read> {
        let asked = async move {
            let session = self.pool.get().await?;
            self.tables[object].reader.read(&session, keys, full).await
        };
        asked.boxed()
    }

    fn page<'a>(&'a self, object: ObjectIndex, after: Option<&'a Key>, limit: i64) -> Asked<'a, Read> {
        let asked = async move {
            let session = self.pool.get().await?;
            self.tables[object].reader.page(&session, after, limit).await
        };
        asked.boxed()
    }

    fn next_key<'a>(&'a self, object: ObjectIndex, after: Option<&'a Key>) -> Asked<'a, Option<Key>> {
        let asked = async move {
            let session = self.pool.get().await?;
            self.tables[object].reader.next_key(&session, after).await
        };
        asked.boxed()
    }

    fn owners<'a>(&'a self, object: ObjectIndex, ids: &'a [String]) -> Asked<'a, Vec<(String, Owner)>> {
        let asked = async move {
            let session = self.pool.get().await?;
            self.tables[object].reader.owners(&session, ids).await
        };
        asked.boxed()
    }

    fn count(&self, object: ObjectIndex) -> Asked<'_, Counted> {
        let asked = async move {
            let session = self.pool.get().await?;
            self.tables[object].reader.count(&session).await
        };
        asked.boxed()
    }

    fn note_ids<'a>(
        &'a self,
        object: ObjectIndex,
        generation: i64,
        ids: &'a [(Key, String)],
    ) -> Asked<'a, ()> {
        let asked = async move {
            let session = self.pool.get().await?;
            self.tables[object]
                .writer
                .note_ids(&session, generation, ids)
                .await
        };
        asked.boxed()
    }

    fn note_links<'a>(
        &'a self,
        object: ObjectIndex,
        generation: i64,
        notes: &'a [(Key, Note)],
    ) -> Asked<'a, ()> {
        let asked = async move {
            let session = self.pool.get().await?;
            links::note(&session, &self.mapping.objects[object].name, generation, notes).await
        };
        asked.boxed()
    }

    fn note<'a>(&'a self, object: ObjectIndex, generation: i64, notes: &'a [Noted]) -> Asked<'a, ()> {
        let asked = async move {
            let session = self.pool.get().await?;
            intent::note(&session, &self.mapping.objects[object].name, generation, notes).await
        };
        asked.boxed()
    }

    fn links_beside<'a>(
        &'a self,
        object: ObjectIndex,
        link: usize,
        pairs: &'a [(Key, Pair)],
    ) -> Asked<'a, Vec<Vec<Beside>>> {
        let asked = async move {
            let session = self.pool.get().await?;
            links::beside(&session, &self.mapping, object, link, pairs).await
        };
        asked.boxed()
    }

    fn withdraw<'a>(&'a self, object: ObjectIndex, notes: &'a [Noted]) -> Asked<'a, ()> {
        let asked = async move {
            let session = self.pool.get().await?;
            intent::withdraw(&session, &self.mapping.objects[object].name, notes).await
        };
        asked.boxed()
    }

    fn name_due(&self) -> Asked<'_, bool> {
        let asked = async move {
            let objects = self.mapping.objects.iter();
            let objects: Vec<String> = objects.map(|object| object.name.clone()).collect();
            let session = self.pool.get().await?;
            intent::name_due(&session, &objects).await
        };
        asked.boxed()
    }

    fn receipt<'a>(&'a self, receipt: &'a Receipt) -> Asked<'a, (Vec<Written>, bool)> {
        let asked = async move {
            let writer = &self.tables[receipt.object].writer;
            let mut session = self.pool.get().await?;
            let written = writer.write(&mut session, receipt).await?;
            let named = writer.may_have_named(receipt, &written);
            Ok((written, named))
        };
        asked.boxed()
    }

    fn name<'a>(&'a self, object: ObjectIndex, keys: &'a [Key], op: Op) -> Asked<'a, ()> {
        let asked = async move {
            let session = self.pool.get().await?;
            changes::name(&session, &self.mapping.objects[object].name, keys, op).await
        };
        asked.boxed()
    }

    fn failed_before<'a>(
        &'a self,
        object: ObjectIndex,
        before: i64,
        after: &'a Key,
        limit: usize,
    ) -> Asked<'a, Vec<Key>> {
        let asked = async move {
            let session = self.pool.get().await?;
            let name = &self.mapping.objects[object].name;
            failures::before(&session, name, before, after, limit).await
        };
        asked.boxed()
    }

    fn orphans<'a>(&'a self, object: ObjectIndex, orphans: &'a [Orphan]) -> Asked<'a, Findings> {
        let asked = async move {
            let session = self.pool.get().await?;
            self.tables[object].orphans.ask(&session, orphans).await
        };
        asked.boxed()
    }

    fn buried<'a>(&'a self, object: ObjectIndex, keys: &'a [Key]) -> Asked<'a, Vec<Buried>> {
        let asked = async move {
            let session = self.pool.get().await?;
            self.tables[object].orphans.buried(&session, keys).await
        };
        asked.boxed()
    }

    fn archiving<'a>(&'a self, object: ObjectIndex, generation: i64, orphans: &'a [Orphan]) -> Asked<'a, ()> {
        let asked = async move {
            let session = self.pool.get().await?;
            let table = &self.tables[object];
            table.orphans.note(&session, generation, orphans).await
        };
        asked.boxed()
    }

    fn archived<'a>(&'a self, object: ObjectIndex, ids: &'a [String]) -> Asked<'a, Vec<(String, i64)>> {
        let asked = async move {
            let session = self.pool.get().await?;
            self.tables[object].orphans.archived(&session, ids).await
        };
        asked.boxed()
    }

    fn listed_orphans<'a>(
        &'a self,
        object: ObjectIndex,
        after: Option<&'a Orphan>,
        released: bool,
        limit: usize,
    ) -> Asked<'a, Vec<Orphan>> {
        let asked = async move {
            let session = self.pool.get().await?;
            let listed = self.tables[object]
                .orphans
                .listed(&session, after, released, limit);
            listed.await
        };
        asked.boxed()
    }

    fn probe<'a>(&'a self, object: ObjectIndex, key: &'a Key) -> Asked<'a, Probe> {
        let asked = async move {
            let mut session = self.pool.get().await?;
            self.tables[object].writer.probe(&mut session, key).await
        };
        asked.boxed()
    }

    fn note_pause<'a>(&'a self, object: ObjectIndex, why: Option<&'a Refusal>) -> Asked<'a, ()> {
        let asked = async move {
            let session = self.pool.get().await?;
            let name = &self.mapping.objects[object].name;
            match why {
                Some(why) => failures::pause(&session, name, why).await,
                None => failures::resume(&session, name).await,
            }
        };
        asked.boxed()
    }

    fn lacking(&self, object: ObjectIndex) -> Asked<'_, Vec<Problem>> {
        let asked = async move {
            let alone = Mapping {
                objects: vec![self.mapping.objects[object].clone()],
                audit: None,
            };
            let session = self.pool.get().await?;
            inventory::access(&session, &alone).await
        };
        asked.boxed()
    }
}
