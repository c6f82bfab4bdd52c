//! Pages as they come from HubSpot: with all properties in the list where their names fit a URL, else read by id.

use super::ask::{Cut, Limit, Pass};
use crate::hubspot::{Listing, ReadLinks, ReadRecords, Records, searchable_names};
use crate::mapping::Mirrored;
use crate::postgres::mirror::{self, Page, Stored, Typed};
use crate::sync::mirror::{Complaint, Tally};
use futures::FutureExt;
use std::collections::{BTreeSet, HashMap};

/// Records of a listed page, of a batch read.
pub(super) const PAGE: usize = 100;
/// The property that every record has: what is asked for where the others come another way.
const FEW: [&str; 1] = ["hs_object_id"];
/// Records whose associations are read in one request.
const LINKS: usize = crate::hubspot::ASSOCIATION_READ_MAX;

/// The properties of a kind, and how they are asked for.
pub(super) struct Names {
    pub(super) all: Vec<String>,
    pub(super) typed: Typed,
    /// The other mirrored kinds, by their plural names.
    pub(super) linked: Vec<&'static str>,
    /// All names fit the URL of a list.
    pub(super) listed: bool,
    /// All names fit the body of a search.
    pub(super) searched: bool,
}

impl Names {
    pub(super) fn all(&self) -> Vec<&str> {
        self.all.iter().map(String::as_str).collect()
    }
}

/// A page of a list.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// Records, and whether they are larger than what can be read, so that there is nothing of them but their ids.
    pub(super) parts: Vec<(Records, bool)>,
    /// The records with their associations, where `parts` are not those.
    pub(super) beside: Option<Records>,
    pub(super) next: Option<String>,
    /// The ids as listed.
    pub(super) ids: Vec<Option<String>>,
}

impl Pass<'_> {
    /// Asks HubSpot for the properties of the kind.
    pub(super) async fn names(&self) -> Result<Names, Cut> {
        let (client, kind) = (&self.puller.client, self.kind);
        let asked = self.ask(Limit::Window, move |slot| {
            async move { client.properties(slot, kind.object_type()).await }.boxed()
        });
        let properties = asked.await?;
        let mut typed = Typed::default();
        for property in &properties {
            if matches!(property.kind.as_str(), "number" | "bool" | "date" | "datetime") {
                typed.names.push(property.name.clone());
                typed.types.push(property.kind.clone());
            }
        }
        let all: BTreeSet<String> = properties.into_iter().map(|property| property.name).collect();
        let all: Vec<String> = all.into_iter().collect();
        let named: Vec<&str> = all.iter().map(String::as_str).collect();
        let linked: Vec<&'static str> = self.far().map(Mirrored::name).collect();
        Ok(Names {
            listed: Listing {
                limit: PAGE,
                after: None,
                properties: &named,
                associations: &linked,
            }
            .fits(),
            searched: searchable_names(kind.modified(), &named),
            typed,
            linked,
            all,
        })
    }

    /// The other mirrored kinds.
    pub(super) fn far(&self) -> impl Iterator<Item = Mirrored> {
        let objects = self.puller.config.objects.iter().copied();
        objects.filter(|kind| *kind != self.kind)
    }

    /// A page of the list with all properties.
    pub(super) async fn page(
        &self,
        names: &Names,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Fetched, Cut> {
        if names.listed {
            match self.listed(&names.all(), names, after, limit).await {
                Err(Cut::Refused(failed)) if failed.is_too_large() && limit > 1 => {
                    return Box::pin(self.page(names, after, limit / 2)).await;
                }
                // By id then, or somebody between here and HubSpot takes shorter URLs only.
                Err(Cut::Refused(failed)) if failed.is_too_large() || failed.status == Some(414) => {}
                page => return page,
            }
        }
        let mut page = self.listed(&FEW, names, after, limit).await?;
        let listed = std::mem::take(&mut page.parts);
        let ids: Vec<&str> = page.ids.iter().flatten().map(String::as_str).collect();
        page.parts = self.read(names, &ids).await?;
        page.beside = listed.into_iter().next().map(|(records, _)| records);
        Ok(page)
    }

    async fn listed(
        &self,
        properties: &[&str],
        names: &Names,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Fetched, Cut> {
        let (client, of) = (&self.puller.client, self.kind.object_type());
        let listing = Listing {
            limit,
            after,
            properties,
            associations: &names.linked,
        };
        let page = self
            .ask(Limit::Window, move |slot| async move { client.list(slot, of, listing).await }.boxed())
            .await
            .map_err(|cut| match cut {
                Cut::Refused(failed) if after.is_some() && failed.status == Some(400) => Cut::Anew(format!(
                    "HubSpot does not know any more where its list was to go on, so it is listed from its beginning: {failed}"
                )),
                cut => cut,
            })?;
        Ok(Fetched {
            ids: page.records.ids.clone(),
            parts: vec![(page.records, false)],
            beside: None,
            next: page.next,
        })
    }

    /// Reads records by id, fewer at a time where they are too large.
    pub(super) async fn read(&self, names: &Names, ids: &[&str]) -> Result<Vec<(Records, bool)>, Cut> {
        let parts = self.found(names, ids, false).await?;
        Ok(parts
            .into_iter()
            .map(|(read, bare)| (read.records, bare))
            .collect())
    }

    /// The same of archived records, or of those that are not, with what HubSpot says of those that it has not. One that
    /// is too large alone comes bare, or, archived, with its id as its only property.
    pub(super) async fn found(
        &self,
        names: &Names,
        ids: &[&str],
        archived: bool,
    ) -> Result<Vec<(ReadRecords, bool)>, Cut> {
        let mut parts = Vec::new();
        let mut waiting: Vec<&[&str]> = ids.chunks(PAGE).rev().collect();
        while let Some(ids) = waiting.pop() {
            match self.by_id(&names.all(), ids, archived).await {
                Ok(read) => parts.push((read, false)),
                Err(Cut::Refused(failed)) if failed.is_too_large() && ids.len() > 1 => {
                    let (one, other) = ids.split_at(ids.len() / 2);
                    waiting.extend([other, one]);
                }
                Err(Cut::Refused(failed)) if failed.is_too_large() && archived => {
                    parts.push((self.by_id(&FEW, ids, archived).await?, false));
                }
                Err(Cut::Refused(failed)) if failed.is_too_large() => {
                    let records = Records {
                        json: "[null]".to_owned(),
                        ids: ids.iter().map(|id| Some((*id).to_owned())).collect(),
                    };
                    let read = ReadRecords {
                        records,
                        missing: Vec::new(),
                    };
                    parts.push((read, true));
                }
                Err(cut) => return Err(cut),
            }
        }
        Ok(parts)
    }

    async fn by_id(&self, properties: &[&str], ids: &[&str], archived: bool) -> Result<ReadRecords, Cut> {
        let (client, of) = (&self.puller.client, self.kind.object_type());
        self.ask(Limit::Window, move |slot| {
            async move { client.records(slot, of, ids, properties, archived).await }.boxed()
        })
        .await
    }

    /// Stores a page, and its place in the list if it has one there; the associations that are longer than what stood
    /// beside the records are read.
    pub(super) async fn store(
        &self,
        names: &Names,
        page: &Fetched,
        next: Option<Option<&str>>,
    ) -> Result<Tally, Cut> {
        let mut tally = Tally::default();
        let mut long = BTreeSet::new();
        let nothing = (
            Records {
                json: "[]".to_owned(),
                ids: Vec::new(),
            },
            false,
        );
        let parts: Vec<&(Records, bool)> = match page.parts.is_empty() {
            true => vec![&nothing],
            false => page.parts.iter().collect(),
        };
        for (at, (records, bare)) in parts.iter().enumerate() {
            let last = at + 1 == parts.len();
            let beside = page.beside.as_ref().map(|listed| match last {
                true => (listed.json.as_str(), listed.ids.as_slice()),
                false => ("[]", &[][..]),
            });
            let stored = self
                .put(
                    names,
                    records,
                    *bare,
                    beside,
                    &names.linked,
                    next.filter(|_| last),
                )
                .await?;
            tally.add(stored.tally);
            long.extend(stored.long);
        }
        if page.beside.is_some() {
            let nameless = page.ids.iter().filter(|id| id.is_none()).count();
            let nameless = Tally {
                errors: nameless as u64,
                complaints: vec![nameless_record(); nameless],
                ..Tally::default()
            };
            self.puller.board.mirror_pulled(self.kind, &nameless);
            tally.add(nameless);
        }
        let mut by_far: HashMap<Mirrored, Vec<String>> = HashMap::new();
        for (id, far) in long {
            by_far.entry(far).or_default().push(id);
        }
        for (far, ids) in by_far {
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            self.link(far, &ids).await?;
        }
        Ok(tally)
    }

    /// One statement of storing.
    pub(super) async fn put(
        &self,
        names: &Names,
        records: &Records,
        bare: bool,
        beside: Option<(&str, &[Option<String>])>,
        linked: &[&str],
        next: Option<Option<&str>>,
    ) -> Result<Stored, Cut> {
        let page = Page {
            kind: self.kind,
            generation: self.generation,
            records: &records.json,
            ids: &records.ids,
            beside,
            typed: &names.typed,
            linked,
            bare,
            next,
        };
        let stored = self
            .write(move |session| async move { mirror::store(&session, page).await }.boxed())
            .await?;
        self.puller.show(stored.standing.clone());
        self.puller.board.mirror_pulled(self.kind, &stored.tally);
        let read = stored.tally.synced + stored.tally.updated;
        self.puller.board.with_mirror(|mirror| {
            if let Some(running) = &mut mirror.running {
                running.records += read;
            }
        });
        Ok(stored)
    }

    /// Reads which records of another kind these are associated with, and mirrors that.
    pub(super) async fn link(&self, far: Mirrored, ids: &[&str]) -> Result<(), Cut> {
        let (client, near) = (&self.puller.client, self.kind);
        for some in ids.chunks(LINKS) {
            let mut pairs: Vec<(String, String)> = Vec::new();
            let mut told: BTreeSet<String> = BTreeSet::new();
            let mut asked: Vec<(String, Option<String>)> =
                some.iter().map(|id| ((*id).to_owned(), None)).collect();
            while !asked.is_empty() {
                let inputs: Vec<ReadLinks<'_>> = asked
                    .iter()
                    .map(|(id, after)| ReadLinks {
                        id,
                        after: after.as_deref(),
                    })
                    .collect();
                let (from, to) = (near.object_type(), far.object_type());
                let inputs = inputs.as_slice();
                let page = self
                    .ask(Limit::Window, move |slot| {
                        async move { client.read_associations(slot, from, to, inputs).await }.boxed()
                    })
                    .await?;
                told.extend(page.without);
                for link in page.links {
                    told.insert(link.from.clone());
                    pairs.push((link.from, link.to));
                }
                let next: Vec<_> = page
                    .next
                    .into_iter()
                    .map(|(id, after)| (id, Some(after)))
                    .collect();
                if next == asked {
                    let words = "HubSpot's list of associations repeats a page instead of going on";
                    return Err(Cut::Because(words.to_owned()));
                }
                asked = next;
            }
            let told: Vec<&str> = told.iter().map(String::as_str).collect();
            let pairs: Vec<(&str, &str)> = pairs
                .iter()
                .map(|(from, to)| (from.as_str(), to.as_str()))
                .collect();
            let (told, pairs) = (told.as_slice(), pairs.as_slice());
            let generation = self.generation;
            self.write(move |session| {
                async move { mirror::link(&session, generation, (near, far), told, pairs).await }.boxed()
            })
            .await?;
        }
        Ok(())
    }
}

/// What is said of a record that has no id.
fn nameless_record() -> Complaint {
    Complaint {
        id: None,
        reason: "the record has no id, so it cannot be stored".to_owned(),
    }
}
