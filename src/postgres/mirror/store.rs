//! Storing a page of records, so that one that cannot be stored costs only itself.

use super::{lease, standing, statement};
use crate::mapping::Mirrored;
use crate::postgres::pipeline::{self, Step};
use crate::postgres::{Error, ErrorKind, Session};
use crate::sync::mirror::{Complaint, Standing, Tally};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// The declared types of properties, for telling values of another type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Typed {
    /// Names of numbers, truths, dates and moments.
    pub names: Vec<String>,
    /// HubSpot's word for each: `number`, `bool`, `date`, `datetime`.
    pub types: Vec<String>,
}

/// A page of records of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// The kind.
    pub kind: Mirrored,
    /// The generation of the lease to write under.
    pub generation: i64,
    /// The records, a JSON array as HubSpot wrote it.
    pub records: &'a str,
    /// Their ids, in the same order; `None` where one has none.
    pub ids: &'a [Option<String>],
    /// The same of the records that have their associations beside them, where those are others than `records`.
    pub beside: Option<(&'a str, &'a [Option<String>])>,
    /// The declared types.
    pub typed: &'a Typed,
    /// The kinds whose associations stand beside the records.
    pub linked: &'a [&'a str],
    /// The records are larger than what can be read of them: they are stored by their ids alone.
    pub bare: bool,
    /// If the page is one of a list that is followed from page to page: the next one's cursor.
    pub next: Option<Option<&'a str>>,
}

/// What became of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// What it came to.
    pub tally: Tally,
    /// Where the kind stands now.
    pub standing: Standing,
    /// Records whose list of associations is longer than what stands beside them, each with the kind of the far end.
    pub long: Vec<(String, Mirrored)>,
}

/// Stores a page in one statement. A record that Postgres, or an index or trigger that somebody put upon our table,
/// refuses is stored by its id, with what is known of it and why; the others are stored as they are.
///
/// # Errors
/// [`ErrorKind::Fenced`] if the lease is lost; any other but [`ErrorKind::Rows`].
pub async fn store(session: &Session, page: Page<'_>) -> Result<Stored, Error> {
    match write(session, page, None, page.bare).await {
        Err(error) if error.kind == ErrorKind::Rows && !page.bare => one_by_one(session, page).await,
        stored => stored,
    }
}

async fn one_by_one(session: &Session, page: Page<'_>) -> Result<Stored, Error> {
    let mut all: Option<Stored> = None;
    let unplaced = Page { next: None, ..page };
    for place in 1..=page.ids.len() {
        let place = i64::try_from(place).unwrap_or(i64::MAX);
        let stored = match write(session, unplaced, Some(place), false).await {
            Err(error) if error.kind == ErrorKind::Rows => {
                write(session, unplaced, Some(place), true).await?
            }
            stored => stored?,
        };
        match &mut all {
            None => all = Some(stored),
            Some(all) => all.take(stored),
        }
    }
    // The list has come further only now that all of it is stored.
    let nothing = Page {
        records: "[]",
        ids: &[],
        beside: None,
        ..page
    };
    let end = write(session, nothing, None, false).await?;
    Ok(match all {
        None => end,
        Some(mut all) => {
            all.take(end);
            all
        }
    })
}

impl Stored {
    fn take(&mut self, next: Stored) {
        self.tally.add(next.tally);
        self.standing = next.standing;
        self.long.extend(next.long);
        self.long.sort();
        self.long.dedup();
    }
}

async fn write(session: &Session, page: Page<'_>, only: Option<i64>, bare: bool) -> Result<Stored, Error> {
    let doing = format!("storing a page of {}", page.kind.name());
    let (beside, beside_ids) = page.beside.unzip();
    let step = Step::new(statement::page(page.kind))
        .with(page.generation, Type::INT8)
        .with(page.records, Type::TEXT)
        .with(page.ids, Type::TEXT_ARRAY)
        .with(beside, Type::TEXT)
        .with(beside_ids.unwrap_or_default(), Type::TEXT_ARRAY)
        .with(&page.typed.names, Type::TEXT_ARRAY)
        .with(&page.typed.types, Type::TEXT_ARRAY)
        .with(page.linked, Type::TEXT_ARRAY)
        .with(only, Type::INT8)
        .with(bare, Type::BOOL)
        .with(page.next.is_some(), Type::BOOL)
        .with(page.next.flatten(), Type::TEXT);
    let answers = pipeline::send(session, &[step]).await;
    let answers = answers.map_err(|error| Error::from_client(doing.as_str(), error))?;
    let row = answers.iter().flatten().next();
    stored(row.ok_or_else(|| lease::gone(doing.as_str()))?).ok_or_else(|| Error::new(ErrorKind::Other, doing))
}

fn stored(row: &Row) -> Option<Stored> {
    let count = |at: usize| u64::try_from(row.get::<_, i64>(at)).unwrap_or_default();
    let (all, new, nameless, errors) = (count(13), count(14), count(15), count(16));
    let (ids, words): (Vec<String>, Vec<String>) = (row.get(17), row.get(18));
    let complaint = |(id, reason)| Complaint { id: Some(id), reason };
    let mut complaints: Vec<Complaint> = ids.into_iter().zip(words).map(complaint).collect();
    complaints.extend((0..nameless).map(|_| Complaint {
        id: None,
        reason: "the record has no id, so it cannot be stored".to_owned(),
    }));
    let (long, far): (Vec<String>, Vec<String>) = (row.get(19), row.get(20));
    let far = far.iter().filter_map(|kind| Mirrored::named(kind));
    let mut tally = Tally::default();
    tally.add(Tally {
        synced: new,
        updated: all - new.min(all),
        errors: errors + nameless,
        removed: 0,
        complaints,
    });
    Some(Stored {
        tally,
        standing: standing(row)?,
        long: long.into_iter().zip(far).collect(),
    })
}
