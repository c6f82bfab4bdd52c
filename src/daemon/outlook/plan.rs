//! The plan: what a sweep would do with every row, found out by reads.
//!
//! Rows are read in key order, a page at a time, as a sweep reads them, and only counts are kept. HubSpot is asked on a
//! sweep's share of its limits: what is kept for live changes stays theirs.
//!
//! What HubSpot itself would refuse of a record only sending it tells; rows that it refused the last time are counted. Of
//! two new rows that share a natural key and stand more than a page apart, both are counted as created.

use super::reading::{BATCH, Held};
use super::{Ends, Unanswered};
use crate::config::Config;
use crate::daemon::exit::Exit;
use crate::hubspot::Lane;
use crate::postgres::{self, ErrorKind};
use crate::sync::change::{Key, ObjectIndex};
use crate::sync::cost::{self, Creating, Planned, Speed, Tally};
use crate::sync::outcome::Refusal;
use crate::sync::outlook::{LinkOutlook, Outlook};
use crate::sync::record::{Read, Record};
use futures::future::try_join_all;
use serde::Serialize;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

/// Rows of a page: as many as one question for associations carries.
const PAGE_ROWS: i64 = 1000;

/// What a sweep would do.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// By object, in the order of a sweep.
    pub objects: Vec<Planning>,
    /// Requests that the sweep would send, about.
    pub requests: u64,
    /// Searches, about.
    pub searches: u64,
    /// How long it would last at least, seconds.
    pub seconds: u64,
    /// Requests that the plan itself took; all of them were reads.
    pub asked: u64,
}

/// What a sweep would do with one object.
#[derive(Debug, Clone, Serialize)]
pub struct Planning {
    /// The object's name.
    pub name: String,
    /// What it would do.
    #[serde(flatten)]
    pub tally: Tally,
}

/// Is shown the object under way and its rows so far.
pub type Progress<'a> = &'a mut dyn FnMut(&str, u64);

/// Plans a sweep; `progress` is called after each page.
///
/// # Errors
/// What keeps either end from being asked: [`Exit`].
pub async fn plan(config: Config, progress: Progress<'_>) -> Result<Plan, Exit> {
    let mut ends = Ends::open(config, Lane::Sweep, None).await?;
    ends.ask_portal().await?;
    let mut objects = Vec::new();
    for at in 0..ends.objects.len() {
        let tally = ends.tally(at, progress).await?;
        objects.push(Planning {
            name: ends.object(at).name.clone(),
            tally,
        });
    }
    let sum = |of: fn(&Tally) -> u64| objects.iter().map(|planning| of(&planning.tally)).sum::<u64>();
    let (requests, searches) = (sum(|tally| tally.requests), sum(|tally| tally.searches));
    let hubspot = &ends.config.hubspot;
    let speed = Speed {
        requests: ends.client.pace().limits().window_max,
        window: hubspot.window,
        latency: ends.asked.latency(),
        in_flight: u32::try_from(hubspot.in_flight).unwrap_or(u32::MAX),
    };
    Ok(Plan {
        requests,
        searches,
        seconds: cost::duration(requests, speed).as_secs_f64().ceil() as u64,
        asked: ends.asked.requests(),
        objects,
    })
}

impl Ends {
    /// What a sweep would do with one object.
    async fn tally(&self, at: ObjectIndex, progress: Progress<'_>) -> Result<Tally, Unanswered> {
        let mut tally = Tally::default();
        let mut after: Option<Key> = None;
        loop {
            let read = match self.page(at, after.as_ref()).await? {
                Page::Rows(read) => read,
                Page::Unreadable(key) => {
                    tally.rows += 1;
                    let why = "the row cannot be read: a value of it, or the view, makes the query fail";
                    tally.refuse(&key, &Refusal::ours("read", why));
                    after = Some(key);
                    continue;
                }
            };
            let Some(last) = read.records.last() else {
                return Ok(tally);
            };
            after = Some(last.key.clone());
            self.count(at, &read, &mut tally).await?;
            progress(&self.object(at).name, tally.rows);
        }
    }

    /// The next page; where a row makes the read fail, smaller and smaller ones, down to that row.
    async fn page(&self, at: ObjectIndex, after: Option<&Key>) -> Result<Page, postgres::Error> {
        let reader = &self.objects[at].reader;
        let mut limit = PAGE_ROWS;
        loop {
            match reader.page(&self.session, after, limit).await {
                Err(error) if error.kind == ErrorKind::Rows && limit > 1 => limit = (limit / 8).max(1),
                Err(error) if error.kind == ErrorKind::Rows => {
                    let key = reader.next_key(&self.session, after).await?;
                    return key.map(Page::Unreadable).ok_or(error);
                }
                read => return read.map(Page::Rows),
            }
        }
    }

    async fn count(&self, at: ObjectIndex, read: &Read, tally: &mut Tally) -> Result<(), Unanswered> {
        let parts: Vec<&[Record]> = read.records.chunks(BATCH).collect();
        let seen = try_join_all(parts.iter().map(|part| self.seen(at, part, read.read_at))).await?;
        let mut rows: Vec<Planned> = read
            .records
            .iter()
            .zip(seen.into_iter().flatten())
            .map(|(record, seen)| Planned {
                key: record.key.to_string(),
                outlook: seen.outlook,
                links: Vec::new(),
                failed: record.failed,
            })
            .collect();
        self.one_record_each(at, &read.records, &mut rows);
        for link in 0..self.object(at).links.len() {
            let held = self.held_of(at, link, &read.records, &rows, tally).await?;
            for (record, row) in read.records.iter().zip(&mut rows) {
                let held = row.outlook.id().and_then(|id| held.get(id));
                let outlook: LinkOutlook = self.link(at, link, record, held);
                row.links.push(outlook);
            }
        }
        let rules = &self.objects[at].rules;
        let creating = Creating {
            asks_first: rules.ask_first,
            guarded: rules.guarded,
        };
        for batch in rows.chunks(self.config.batch.max_records) {
            tally.count(batch, creating);
        }
        Ok(())
    }

    /// Of rows of a page that would get one record by their natural key, the first gets it.
    fn one_record_each(&self, at: ObjectIndex, records: &[Record], rows: &mut [Planned]) {
        let rules = &self.objects[at].rules;
        let mut first: HashMap<String, &Key> = HashMap::new();
        for (record, row) in records.iter().zip(rows) {
            let gains = matches!(row.outlook, Outlook::Create | Outlook::Adopt { .. });
            let Some(value) = record.match_value.as_deref().filter(|_| gains) else {
                continue;
            };
            match first.entry(rules.normalise(value)) {
                Entry::Vacant(vacant) => drop(vacant.insert(&record.key)),
                Entry::Occupied(owner) => {
                    let match_on = rules.match_on.as_deref().unwrap_or("natural key");
                    let words = format!(
                        "row {} has the same {match_on} and comes before it; give one of the two rows another {match_on}",
                        owner.get()
                    );
                    row.outlook = Outlook::Refuse(Refusal::ours("owner", words));
                }
            }
        }
    }

    /// What HubSpot holds of one link of a page's rows: where a sweep would look, and where we linked before.
    async fn held_of(
        &self,
        at: ObjectIndex,
        link: usize,
        records: &[Record],
        rows: &[Planned],
        tally: &mut Tally,
    ) -> Result<HashMap<String, Held>, Unanswered> {
        let linked = |record: &Record| {
            let target = record.targets.get(link).and_then(|target| target.id());
            let remembers = record.linked.get(link).is_some_and(|linked| !linked.is_empty());
            (target.is_some(), remembers)
        };
        let mut ids: BTreeSet<&str> = BTreeSet::new();
        let mut looks = false;
        for (record, row) in records.iter().zip(rows) {
            let Some(id) = row.outlook.id() else { continue };
            let (leads, remembers) = linked(record);
            looks |= leads;
            if leads || remembers {
                ids.insert(id);
            }
        }
        tally.requests += u64::from(looks);
        let ids: Vec<String> = ids.into_iter().map(str::to_owned).collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        self.associations(at, link, &ids).await
    }
}

/// A page of rows.
enum Page {
    Rows(Read),
    /// The one row that no page can hold.
    Unreadable(Key),
}
