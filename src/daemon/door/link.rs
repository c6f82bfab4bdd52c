//! Links: associations of accepted records, made after the record exists.

use super::item::{Fate, Item, Links};
use super::send::{Sending, denial};
use super::{Door, Way};
use crate::hubspot::{AssociationKind, AssociationType, Disposition, Failed, FoundLink, Lane, ReadLinks};
use crate::sync::answer::Denial;
use crate::sync::change::ObjectIndex;
use crate::sync::outcome::Refusal;
use crate::sync::plan::links_to_make;
use std::collections::{HashMap, HashSet};
use tokio_util::sync::CancellationToken;

/// The most pairs a request carries.
const PAIRS_MAX: usize = 100;

/// How one link of the mapping is made in HubSpot.
#[derive(Debug, Clone)]
pub struct LinkKind {
    /// The link's name in `hubsyncd.link`.
    pub name: String,
    /// The target's object type.
    pub to_type: String,
    /// The labelled association's type; `None`: the unlabelled one, which HubSpot finds.
    pub label: Option<AssociationType>,
}

impl LinkKind {
    /// Whether an association that HubSpot holds is this one.
    fn is_held(&self, found: &FoundLink) -> bool {
        match &self.label {
            None => true,
            Some(label) => found
                .types
                .iter()
                .any(|held| held.type_id == label.type_id && held.category == label.category),
        }
    }
}

/// One link to make.
struct Pair {
    item: usize,
    from: String,
    to: String,
}

/// What became of one link.
enum Made {
    Yes,
    Refused(Refusal),
    Again,
}

impl Sending<'_> {
    /// Makes the links of accepted records that are not made yet.
    pub(super) async fn link(&mut self, items: &mut [Item]) {
        let mut wanted: HashMap<usize, Vec<Pair>> = HashMap::new();
        for (at, item) in items.iter().enumerate() {
            let Fate::Accepted { id, .. } = &item.fate else {
                continue;
            };
            for (link, to) in links_to_make(item.record()) {
                wanted.entry(link).or_default().push(Pair {
                    item: at,
                    from: id.clone(),
                    to,
                });
            }
        }
        let mut links: Vec<(usize, Vec<Pair>)> = wanted.into_iter().collect();
        links.sort_by_key(|(link, _)| *link);
        for (link, mut pairs) in links {
            while !pairs.is_empty() {
                let rest = pairs.split_off(pairs.len().min(PAIRS_MAX));
                self.link_part(items, link, pairs).await;
                pairs = rest;
            }
        }
    }

    /// Makes some links of one kind; what HubSpot refuses as a whole is halved until the bad one stands alone.
    async fn link_part(&mut self, items: &mut [Item], link: usize, pairs: Vec<Pair>) {
        let mut parts = vec![pairs];
        while let Some(mut part) = parts.pop() {
            match self.associate(link, &part).await {
                Ok(made) => {
                    for (pair, made) in part.iter().zip(made) {
                        note(items, link, pair, made);
                    }
                }
                Err(failed) if splits(&failed) && part.len() > 1 => {
                    let second = part.split_off(part.len() / 2);
                    parts.extend([part, second]);
                }
                Err(failed) => {
                    let refused = splits(&failed);
                    if !refused {
                        self.fate_of(1, &failed);
                    }
                    for pair in &part {
                        let made = if refused {
                            Made::Refused(refusal(failed.refusal(), pair))
                        } else {
                            Made::Again
                        };
                        note(items, link, pair, made);
                    }
                }
            }
        }
    }

    /// One request; answers what became of each pair. Pairs that the answer does not confirm are read back.
    async fn associate(&mut self, link: usize, pairs: &[Pair]) -> Result<Vec<Made>, Failed> {
        let kind = &self.door.objects[self.object].links[link];
        let ends: Vec<(&str, &str)> = pairs.iter().map(|pair| (&*pair.from, &*pair.to)).collect();
        let association = kind
            .label
            .as_ref()
            .map_or(AssociationKind::Default, AssociationKind::Labelled);
        let slot = self.slot(pairs.len()).await?;
        let client = &self.door.client;
        let reply = client
            .associate(slot, self.object_type(), &kind.to_type, association, &ends)
            .await?;
        let correlation_id = reply.correlation_id.as_deref();
        let errors: Vec<Denial> = reply
            .errors
            .iter()
            .map(|error| denial(error, correlation_id))
            .collect();
        let made: HashSet<(String, String)> = reply.made.into_iter().collect();
        let unsaid: Vec<&Pair> = pairs.iter().filter(|pair| !confirmed(&made, pair)).collect();
        let held = if unsaid.is_empty() {
            HashSet::new()
        } else {
            self.read_back(link, &unsaid).await?
        };
        let verdicts = pairs.iter().map(|pair| {
            if confirmed(&made, pair) || confirmed(&held, pair) {
                return Made::Yes;
            }
            match denial_of(&errors, pair, pairs.len()) {
                Some(denial) => Made::Refused(refusal(denial.refusal.clone(), pair)),
                None => Made::Again,
            }
        });
        Ok(verdicts.collect())
    }

    /// Which of the pairs HubSpot holds.
    async fn read_back(&mut self, link: usize, pairs: &[&Pair]) -> Result<HashSet<(String, String)>, Failed> {
        let mut from: Vec<String> = pairs.iter().map(|pair| pair.from.clone()).collect();
        from.sort();
        from.dedup();
        let held = self.door.held_links_on(self.way, link, &from).await?;
        Ok(held.into_iter().collect())
    }
}

impl Door {
    /// The links of one kind that HubSpot holds from these records, as (from, to), every page of them.
    pub(in crate::daemon) async fn held_links(
        &self,
        object: ObjectIndex,
        link: usize,
        from: &[String],
        lane: Lane,
        stop: CancellationToken,
    ) -> Result<Vec<(String, String)>, Failed> {
        self.held_links_on(&Way { object, lane, stop }, link, from).await
    }

    async fn held_links_on(
        &self,
        way: &Way,
        link: usize,
        from: &[String],
    ) -> Result<Vec<(String, String)>, Failed> {
        let object = way.object;
        let kind = &self.objects[object].links[link];
        let from_type = &self.mapping.objects[object].object_type;
        let mut held = Vec::new();
        let mut next: Vec<(String, Option<String>)> = from.iter().map(|id| (id.clone(), None)).collect();
        while !next.is_empty() {
            let inputs: Vec<ReadLinks<'_>> = next
                .iter()
                .map(|(id, after)| ReadLinks {
                    id,
                    after: after.as_deref(),
                })
                .collect();
            let slot = self.slot(way, inputs.len()).await?.slot;
            let page = self
                .client
                .read_associations(slot, from_type, &kind.to_type, &inputs)
                .await?;
            let ours = page.links.into_iter().filter(|found| kind.is_held(found));
            held.extend(ours.map(|found| (found.from, found.to)));
            next = page
                .next
                .into_iter()
                .map(|(id, after)| (id, Some(after)))
                .collect();
        }
        Ok(held)
    }
}

fn confirmed(made: &HashSet<(String, String)>, pair: &Pair) -> bool {
    made.contains(&(pair.from.clone(), pair.to.clone()))
}

/// The error that concerns a pair: one that names an end of it, or any at all, since a pair that is neither
/// confirmed nor held after errors were reported was refused by one of them.
fn denial_of<'a>(errors: &'a [Denial], pair: &Pair, count: usize) -> Option<&'a Denial> {
    let names = |denial: &&Denial| denial.ids.iter().any(|id| *id == pair.to || *id == pair.from);
    let named = errors.iter().find(names);
    named.or_else(|| errors.iter().find(|denial| denial.ids.is_empty() || count == 1))
}

fn splits(failed: &Failed) -> bool {
    matches!(failed.disposition, Disposition::Split | Disposition::Reject)
}

/// A link's refusal: HubSpot's reason, under our category, naming both ends.
fn refusal(reason: Refusal, pair: &Pair) -> Refusal {
    Refusal {
        category: "link".to_owned(),
        message: format!(
            "the record stands in HubSpot as {} but its link to {} was refused: {}; correct the id it points to",
            pair.from, pair.to, reason.message
        ),
        ..reason
    }
}

/// Writes what became of a link into its item; a refusal wins over a delay, and both over success.
fn note(items: &mut [Item], link: usize, pair: &Pair, made: Made) {
    let Fate::Accepted { links, .. } = &mut items[pair.item].fate else {
        return;
    };
    let old = std::mem::replace(links, Links::Made(Vec::new()));
    *links = match (old, made) {
        (Links::Made(mut done), Made::Yes) => {
            done.push((link, pair.to.clone()));
            Links::Made(done)
        }
        (Links::Refused(mut done, why), Made::Yes) => {
            done.push((link, pair.to.clone()));
            Links::Refused(done, why)
        }
        (Links::Again(mut done), Made::Yes) => {
            done.push((link, pair.to.clone()));
            Links::Again(done)
        }
        (Links::Made(done) | Links::Again(done), Made::Refused(why)) => Links::Refused(done, why),
        (Links::Made(done) | Links::Again(done), Made::Again) => Links::Again(done),
        (refused @ Links::Refused(..), _) => refused,
    };
}
