//! Reading: what HubSpot holds of some rows, and what a push would therefore do with them.

use super::{Ends, Unanswered};
use crate::hubspot::wire::searchable;
use crate::hubspot::{ASSOCIATION_READ_MAX, AssociationType, Done, ReadLinks};
use crate::sync::change::{ObjectIndex, Owner};
use crate::sync::guard::{Answer, Hit, Next, Row};
use crate::sync::linking::Target;
use crate::sync::outcome::Refusal;
use crate::sync::outlook::{self, LinkOutlook, Outlook};
use crate::sync::plan::Step;
use crate::sync::record::Record;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The most records that one question is about.
pub(super) const BATCH: usize = 100;

/// How often an answer that says nothing of a record is asked for.
const READ_ATTEMPTS: usize = 2;

/// What a push would do with one row, and what HubSpot holds now.
pub(super) struct Seen {
    pub(super) outlook: Outlook,
    /// The record, with its mapped properties.
    pub(super) held: Option<Done>,
}

/// What HubSpot holds of one link of one record: target → types.
pub(super) type Held = BTreeMap<String, Vec<AssociationType>>;

impl Ends {
    /// What a push would do with these rows, at most [`BATCH`], read at `now`.
    pub(super) async fn seen(
        &self,
        at: ObjectIndex,
        records: &[Record],
        now: i64,
    ) -> Result<Vec<Seen>, Unanswered> {
        let rules = &self.objects[at].rules;
        let steps: Vec<Step> = records.iter().map(|record| rules.step(record)).collect();
        let mut updates = self.held(at, &steps).await?;
        let mut creates = self.creates(at, records, &steps, now).await?;
        let mut seen = Vec::with_capacity(records.len());
        for (place, (record, step)) in records.iter().zip(steps).enumerate() {
            seen.push(match step {
                Step::Refuse(refusal) => Seen::nothing(Outlook::Refuse(refusal)),
                Step::Leave => Seen::nothing(Outlook::Leave),
                Step::Create(_) => match creates.remove(&place) {
                    Some(seen) => seen,
                    None => Seen::nothing(Outlook::Create),
                },
                Step::Keep(id) => Seen {
                    held: updates.remove(&id),
                    outlook: Outlook::Keep { id },
                },
                Step::Update(id) => match updates.remove(&id) {
                    Some(held) => self.update(at, record, held),
                    None => self.vanished(at, record, &id).await?,
                },
            });
        }
        Ok(seen)
    }

    /// The records of the rows that have one, by id.
    async fn held(&self, at: ObjectIndex, steps: &[Step]) -> Result<HashMap<String, Done>, Unanswered> {
        let ids = steps.iter().filter_map(|step| match step {
            Step::Update(id) | Step::Keep(id) => Some(id.as_str()),
            _ => None,
        });
        let ids: Vec<&str> = ids.collect::<BTreeSet<&str>>().into_iter().collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let found = self.read_by(at, None, &ids, &self.names(at)).await?;
        Ok(found.into_iter().map(|done| (done.id.clone(), done)).collect())
    }

    /// Records by id or natural key; asked for once more where the answer is silent about some.
    async fn read_by(
        &self,
        at: ObjectIndex,
        id_property: Option<&str>,
        ids: &[&str],
        properties: &[&str],
    ) -> Result<Vec<Done>, Unanswered> {
        let object_type = &self.object(at).object_type;
        let mut found: BTreeMap<String, Done> = BTreeMap::new();
        for _ in 0..READ_ATTEMPTS {
            let turn = self.turn().await?;
            let reply = self
                .client
                .read_by(turn, object_type, id_property, ids, properties)
                .await?;
            found.extend(reply.results.into_iter().map(|done| (done.id.clone(), done)));
            if reply.whole || found.len() >= ids.len() {
                break;
            }
        }
        Ok(found.into_values().collect())
    }

    /// The names of the mapped properties.
    fn names(&self, at: ObjectIndex) -> Vec<&str> {
        let properties = self.object(at).properties.iter();
        properties.map(|property| property.name.as_str()).collect()
    }

    fn update(&self, at: ObjectIndex, record: &Record, held: Done) -> Seen {
        let sent = properties(&record.properties);
        let differing = outlook::differing(&sent, &held.properties, |name| self.objects[at].type_of(name));
        Seen {
            outlook: Outlook::Update {
                id: held.id.clone(),
                differing,
            },
            held: Some(held),
        }
    }

    /// A record that a batch does not find: merged into another, or gone.
    async fn vanished(&self, at: ObjectIndex, record: &Record, id: &str) -> Result<Seen, Unanswered> {
        let found = self
            .client
            .get(
                self.turn().await?,
                &self.object(at).object_type,
                id,
                &self.names(at),
            )
            .await?;
        let Some(found) = found else {
            return Ok(Seen::nothing(outlook::of_missing(id, self.object(at).on_missing)));
        };
        if found.id == id {
            return Ok(self.update(at, record, found));
        }
        let holders = self.owners(at, std::slice::from_ref(&found.id)).await?;
        let outlook = match holders.get(&found.id).filter(|owner| !owner.is(&record.key)) {
            Some(owner) => Outlook::Refuse(Refusal::merged_into(id, &found.id, owner)),
            None => Outlook::Merged {
                into: found.id.clone(),
            },
        };
        Ok(Seen {
            outlook,
            held: Some(found),
        })
    }

    /// What would become of the rows that have no record yet, by their place.
    async fn creates(
        &self,
        at: ObjectIndex,
        records: &[Record],
        steps: &[Step],
        now: i64,
    ) -> Result<HashMap<usize, Seen>, Unanswered> {
        let guard = self.guard(at);
        let mut rows: Vec<(usize, Row)> = Vec::new();
        let mut seen = HashMap::new();
        for (place, (record, step)) in records.iter().zip(steps).enumerate() {
            let Step::Create(value) = step else { continue };
            let row = Row {
                value: guard.rules.normalise(value),
                pending: guard.pending(record),
                inserted: false,
            };
            match guard.next(&row, now) {
                Next::Wait(until) => drop(seen.insert(place, Seen::nothing(Outlook::Wait(until)))),
                Next::Create | Next::Ask | Next::Resolve => rows.push((place, row)),
            }
        }
        let mut values: Vec<&str> = rows.iter().map(|(_, row)| row.value.as_str()).collect();
        values.extend(
            rows.iter()
                .filter_map(|(_, row)| Some(row.pending.as_ref()?.value.as_str())),
        );
        let found = self.find(at, &values).await?;
        let ids: Vec<String> = found.values().flatten().map(|done| done.id.clone()).collect();
        let owners = self.owners(at, &ids).await?;
        for (place, row) in rows {
            let key = &records[place].key;
            let hits = |value: &str| -> Vec<Hit> {
                let of_value = found.get(value).into_iter().flatten();
                of_value
                    .map(|done| Hit {
                        busy: false,
                        leaves: None,
                        id: done.id.clone(),
                        owner: owners.get(&done.id).filter(|owner| !owner.is(key)).cloned(),
                        created_at: done.created_at,
                    })
                    .collect()
            };
            let own = hits(&row.value);
            let answer = match (guard.next(&row, now), &row.pending) {
                (Next::Resolve, Some(pending)) => guard.resolved(&row, &hits(&pending.value), now),
                _ => guard.asked(&row, &own),
            };
            let answer = match answer {
                Answer::GoOn { .. } => guard.asked(&row, &own),
                answer => answer,
            };
            let outlook = outlook::of_create(guard.rules, answer, &own);
            let is_it = |done: &&Done| Some(done.id.as_str()) == outlook.id();
            let held = found.values().flatten().find(is_it).cloned();
            seen.insert(place, Seen { outlook, held });
        }
        Ok(seen)
    }

    /// The records that HubSpot has under these natural keys, normalised.
    async fn find(&self, at: ObjectIndex, values: &[&str]) -> Result<HashMap<String, Vec<Done>>, Unanswered> {
        let rules = &self.objects[at].rules;
        let (Some(match_on), false) = (rules.match_on.as_deref(), values.is_empty()) else {
            return Ok(HashMap::new());
        };
        let wanted: Vec<&str> = values
            .iter()
            .copied()
            .collect::<BTreeSet<&str>>()
            .into_iter()
            .collect();
        let object_type = &self.object(at).object_type;
        let mut found = Vec::new();
        if rules.guarded {
            found = self.search(object_type, match_on, &wanted).await?;
        } else {
            let mut names = self.names(at);
            if !names.contains(&match_on) {
                names.push(match_on);
            }
            for part in wanted.chunks(BATCH) {
                found.extend(self.read_by(at, Some(match_on), part, &names).await?);
            }
        }
        let mut by_value: HashMap<String, Vec<Done>> = HashMap::new();
        for done in found {
            let value = done.properties.get(match_on).and_then(Option::as_deref);
            let Some(value) = value.map(|value| rules.normalise(value)) else {
                continue;
            };
            let of_value = by_value.entry(value).or_default();
            if of_value.iter().all(|known| known.id != done.id) {
                of_value.push(done);
            }
        }
        Ok(by_value)
    }

    async fn search(
        &self,
        object_type: &str,
        match_on: &str,
        values: &[&str],
    ) -> Result<Vec<Done>, Unanswered> {
        let mut found = Vec::new();
        let mut parts = vec![values];
        while let Some(part) = parts.pop().filter(|part| !part.is_empty()) {
            let (now, later) = part.split_at(searchable(match_on, part).max(1).min(part.len()));
            if !later.is_empty() {
                parts.push(later);
            }
            let turn = self.search_turn().await?;
            let page = self.client.search(turn, object_type, match_on, now).await?;
            if page.more && now.len() > 1 {
                let (first, second) = now.split_at(now.len() / 2);
                parts.extend([second, first]);
            } else {
                found.extend(page.results);
            }
        }
        Ok(found)
    }

    /// Which rows hold these HubSpot ids.
    async fn owners(&self, at: ObjectIndex, ids: &[String]) -> Result<HashMap<String, Owner>, Unanswered> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let owners = self.objects[at].reader.owners(&self.session, ids).await?;
        Ok(owners.into_iter().collect())
    }

    /// What HubSpot holds of one link of these records.
    pub(super) async fn associations(
        &self,
        at: ObjectIndex,
        link: usize,
        from: &[String],
    ) -> Result<HashMap<String, Held>, Unanswered> {
        let to_type = &self.objects[at].links[link].to_type;
        let mut held: HashMap<String, Held> = HashMap::new();
        let mut next: Vec<(String, Option<String>)> = from.iter().map(|id| (id.clone(), None)).collect();
        while !next.is_empty() {
            let rest = next.split_off(next.len().min(ASSOCIATION_READ_MAX));
            let inputs = next.iter().map(|(id, after)| ReadLinks {
                id,
                after: after.as_deref(),
            });
            let inputs: Vec<ReadLinks<'_>> = inputs.collect();
            let turn = self.turn().await?;
            let from_type = &self.object(at).object_type;
            let page = self
                .client
                .read_associations(turn, from_type, to_type, &inputs)
                .await?;
            for found in page.links {
                held.entry(found.from).or_default().insert(found.to, found.types);
            }
            next = rest;
            next.extend(page.next.into_iter().map(|(id, after)| (id, Some(after))));
        }
        Ok(held)
    }

    /// What a push would do about one link of a row that HubSpot holds this of.
    pub(super) fn link(
        &self,
        at: ObjectIndex,
        link: usize,
        record: &Record,
        held: Option<&Held>,
    ) -> LinkOutlook {
        let kind = &self.objects[at].links[link];
        let is_ours = |types: &&Vec<AssociationType>| kind.seen(types).ours;
        let held: BTreeSet<String> = held
            .into_iter()
            .flatten()
            .filter(|(_, types)| is_ours(types))
            .map(|(to, _)| to.clone())
            .collect();
        let nowhere = Target::Nowhere;
        let target = record.targets.get(link).unwrap_or(&nowhere);
        let remembered = record.linked.get(link).map(Vec::as_slice).unwrap_or_default();
        LinkOutlook::of(target, remembered, &held)
    }
}

impl Seen {
    fn nothing(outlook: Outlook) -> Seen {
        Seen { outlook, held: None }
    }
}

/// A record's properties as they are sent.
pub(super) fn properties(json: &str) -> BTreeMap<String, String> {
    serde_json::from_str(json).unwrap_or_default()
}
