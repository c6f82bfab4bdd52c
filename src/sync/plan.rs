//! The plan: what is sent for a record.

use super::change::Key;
use super::outcome::Refusal;
use super::record::Record;
use crate::mapping::{Adopt, Object};

/// What an object's mapping, and the uniqueness of its natural key, say about sending its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Whether rows without a HubSpot id are created.
    pub create: bool,
    /// What to do with an unowned record that has the row's natural key.
    pub adopt: Adopt,
    /// The property that is the natural key.
    pub match_on: Option<String>,
    /// Whether HubSpot compares the natural key as an e-mail: trimmed and lower-cased.
    pub email: bool,
    /// Whether HubSpot is asked for the natural key before a create: Postgres does not itself guarantee that no two
    /// rows share it, or an existing record is not simply taken over.
    pub ask_first: bool,
}

/// What is sent for one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write the properties to the record with this HubSpot id.
    Update(String),
    /// Create by upsert on this value of the natural key.
    Create(String),
    /// Send nothing: the row has no HubSpot id and is not created here.
    Leave,
    /// Send nothing: the row is refused.
    Refuse(Refusal),
}

/// What an existing HubSpot record with a row's natural key means for its creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adoption {
    /// Create it, or take the existing record over with all properties.
    Upsert,
    /// Take over the record with this id and write update properties only.
    UpdateOnly(String),
    /// The row is refused.
    Refuse(Refusal),
}

impl Rules {
    /// The rules of `object`; `match_unique` says whether Postgres guarantees its natural key unique.
    pub fn new(object: &Object, match_unique: bool) -> Rules {
        let email = object.matches_on_email();
        Rules {
            create: object.create,
            adopt: object.adopt,
            match_on: object.match_on.clone(),
            email,
            ask_first: !match_unique || object.adopt != Adopt::Overwrite,
        }
    }

    /// A value of the natural key as HubSpot compares it.
    pub fn normalise(&self, value: &str) -> String {
        if self.email {
            value.trim().to_lowercase()
        } else {
            value.to_owned()
        }
    }

    /// What is sent for `record`.
    pub fn step(&self, record: &Record) -> Step {
        if !record.problems.is_empty() {
            return Step::Refuse(unsendable(&record.problems));
        }
        match (record.known_id(), &record.match_value) {
            (Some(id), _) => Step::Update(id.to_owned()),
            (None, _) if !self.create => Step::Leave,
            (None, Some(value)) => Step::Create(value.clone()),
            (None, None) => Step::Refuse(Refusal::ours(
                "match_on",
                format!(
                    "the row has no HubSpot id and its {} is empty, so it cannot be created without risking a \
                     duplicate; fill the column",
                    self.match_on.as_deref().unwrap_or("natural key")
                ),
            )),
        }
    }

    /// What the answer to the question for the natural key means: `found` is the id of the HubSpot record that has
    /// it, `owner` the other row that holds that id.
    pub fn adoption(&self, found: Option<&str>, owner: Option<&Key>) -> Adoption {
        match (found, owner, self.adopt) {
            (None, _, _) => Adoption::Upsert,
            (Some(id), Some(owner), _) => Adoption::Refuse(self.owned(id, owner)),
            (Some(_), None, Adopt::Overwrite) => Adoption::Upsert,
            (Some(id), None, Adopt::UpdateOnly) => Adoption::UpdateOnly(id.to_owned()),
            (Some(id), None, Adopt::Fail) => Adoption::Refuse(Refusal {
                existing_id: Some(id.to_owned()),
                ..Refusal::ours(
                    "adopt",
                    format!(
                        "HubSpot record {id} has this {} already and adopt = \"fail\" forbids taking it over; \
                         write its id into the row, or change adopt",
                        self.match_on.as_deref().unwrap_or("natural key")
                    ),
                )
            }),
        }
    }

    /// The refusal of a row whose HubSpot record belongs to another row.
    pub fn owned(&self, hubspot_id: &str, owner: &Key) -> Refusal {
        Refusal {
            existing_id: Some(hubspot_id.to_owned()),
            ..Refusal::ours(
                "owner",
                format!(
                    "HubSpot record {hubspot_id} has the same {} and belongs to row {owner}; nothing of this row was \
                     kept there; give one of the two rows another {}",
                    self.match_on.as_deref().unwrap_or("natural key"),
                    self.match_on.as_deref().unwrap_or("natural key")
                ),
            )
        }
    }
}

/// The refusal of a row with values that have no HubSpot form.
fn unsendable(problems: &[String]) -> Refusal {
    Refusal {
        properties: problems
            .iter()
            .filter_map(|problem| Some(problem.split_once(':')?.0.to_owned()))
            .collect(),
        ..Refusal::ours("value", format!("{}; correct the row", problems.join("; ")))
    }
}

/// The links to make for a record: (position of the link in the mapping, target's HubSpot id).
pub fn links_to_make(record: &Record) -> Vec<(usize, String)> {
    let pairs = record.targets.iter().zip(&record.linked).enumerate();
    pairs
        .filter_map(|(link, (target, linked))| {
            let target = target.as_ref()?;
            (linked.as_ref() != Some(target)).then(|| (link, target.clone()))
        })
        .collect()
}
