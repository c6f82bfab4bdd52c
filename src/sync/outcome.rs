//! An outcome: what HubSpot made of a record.

use super::change::Owner;
use super::pausing::Cause;

/// What became of one record of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// HubSpot confirmed the write.
    Accepted {
        /// The record's id in HubSpot.
        hubspot_id: String,
        /// Whether HubSpot created it (`None`: an update, or HubSpot did not say).
        created: Option<bool>,
    },
    /// HubSpot, Postgres or the mapping refuses it; it is listed, and tried again by the next sweep.
    Refused(Refusal),
    /// The answer said nothing of it; it is looked up.
    Unknown,
}

/// Why a record is refused. Holds no value of the row, ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HubSpot's category in lower case (`validation_error`, `conflict`, `object_not_found`, …), or one of
    /// ours: `value`, `id`, `match_on`, `owner`, `adopt`, `missing`, `merged`, `link`, `receipt`, `read`.
    pub category: String,
    /// What happened and what to do, without personal data.
    pub message: String,
    /// The HubSpot properties at fault, if the answer names them.
    pub properties: Vec<String>,
    /// HubSpot's correlation id, for its support.
    pub correlation_id: Option<String>,
    /// The HubSpot record that stands in the way, if the answer names one.
    pub existing_id: Option<String>,
    /// What it is refused for that need not be its own fault.
    pub causes: Vec<Cause>,
}

impl Refusal {
    /// A refusal of our own making, without properties or correlation id.
    pub fn ours(category: &str, message: impl Into<String>) -> Refusal {
        Refusal {
            category: category.to_owned(),
            message: message.into(),
            properties: Vec::new(),
            correlation_id: None,
            existing_id: None,
            causes: Vec::new(),
        }
    }

    /// The row's HubSpot record is gone, and no new one is to be made.
    pub fn missing(id: &str) -> Refusal {
        Refusal::ours(
            "missing",
            format!(
                "HubSpot record {id} is gone and on-missing = \"fail\" forbids making a new one; restore it in HubSpot, \
                 clear the row's HubSpot id, or set on-missing = \"recreate\""
            ),
        )
    }

    /// The row's HubSpot record was merged into one that another row holds.
    pub fn merged_into(id: &str, survivor: &str, owner: &Owner) -> Refusal {
        Refusal {
            existing_id: Some(survivor.to_owned()),
            ..Refusal::ours(
                "merged",
                format!(
                    "HubSpot record {id} was merged into {survivor}, which belongs to row {owner}; two rows cannot share \
                     one record: merge or delete one of the rows"
                ),
            )
        }
    }
}
