//! Kinds: how a link of the mapping stands in HubSpot, and which of a pair's types are ours.

use crate::hubspot::AssociationType;
use crate::sync::linking::Seen;

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
    /// What these types of a pair mean for this link.
    pub(in crate::daemon) fn seen(&self, types: &[AssociationType]) -> Seen {
        let is_ours = |held: &AssociationType| {
            self.label
                .as_ref()
                .is_some_and(|label| held.type_id == label.type_id && held.category == label.category)
        };
        Seen {
            ours: self.label.is_none() || types.iter().any(is_ours),
            others: types.iter().any(|held| is_label(held) && !is_ours(held)),
        }
    }
}

/// Whether a type is a label that somebody gave. HubSpot itself calls a record's first company its primary one.
fn is_label(held: &AssociationType) -> bool {
    let built_in = held.category == "HUBSPOT_DEFINED";
    let label = held.label.as_deref();
    label.is_some_and(|label| !(built_in && label.eq_ignore_ascii_case("primary")))
}
