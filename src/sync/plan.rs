//! The plan: what is sent for a record.

use super::change::Owner;
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
    /// Whether HubSpot does not keep the natural key unique, so that a create cannot be an upsert
    /// ([`crate::sync::guard`]).
    pub guarded: bool,
    /// Whether the natural key is a number in HubSpot, which does not keep how it was written.
    pub number: bool,
}

/// What is sent for one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write the properties to the record with this HubSpot id.
    Update(String),
    /// Send nothing but links: there is nothing to write to the record with this HubSpot id.
    Keep(String),
    /// Create by upsert on this value of the natural key.
    Create(String),
    /// Send nothing: the row has no HubSpot id and is not created here.
    Leave,
    /// Send nothing: the row is refused.
    Refuse(Refusal),
}

impl Step {
    /// Writes `properties`, one JSON object in text, to the record with this HubSpot id. HubSpot refuses an update of no
    /// property, so that none is sent.
    pub fn write(id: String, properties: &str) -> Step {
        match properties {
            "{}" => Step::Keep(id),
            _ => Step::Update(id),
        }
    }
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
            guarded: false,
            number: false,
        }
    }

    /// The same where HubSpot has been asked: whether it keeps the natural key `unique`, and whether it is a `number`.
    #[must_use]
    pub fn in_hubspot(self, unique: bool, number: bool) -> Rules {
        let creates = self.create && self.match_on.is_some();
        Rules {
            guarded: creates && !unique && !self.email,
            number,
            ..self
        }
    }

    /// A value of the natural key as HubSpot compares it.
    pub fn normalise(&self, value: &str) -> String {
        if self.email {
            return value.trim().to_lowercase();
        }
        let number = if self.number {
            value.trim().parse::<f64>()
        } else {
            return value.to_owned();
        };
        number.map_or_else(|_| value.to_owned(), |number| number.to_string())
    }

    /// What is sent for `record`.
    pub fn step(&self, record: &Record) -> Step {
        if !record.problems.is_empty() {
            return Step::Refuse(unsendable(&record.problems));
        }
        match (record.known_id(), &record.match_value) {
            (Some(id), _) if is_id(id) => Step::write(id.to_owned(), &record.properties),
            (Some(_), _) => Step::Refuse(Refusal::ours(
                "id",
                "what stands in the row as its HubSpot id is no number, so it cannot be one; correct it, or empty it to \
                 have the record found or created",
            )),
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
    pub fn adoption(&self, found: Option<&str>, owner: Option<&Owner>) -> Adoption {
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
    pub fn owned(&self, hubspot_id: &str, owner: &Owner) -> Refusal {
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

/// Whether a text can be HubSpot's id of a record. Anything else may become another path of HubSpot's on its way.
fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::{Object, OnDelete, OnMissing, TableName};

    const SENT: &str = r#"{"firstname":"Ana"}"#;

    fn object() -> Object {
        Object {
            name: "contacts".to_owned(),
            table: TableName {
                schema: "public".to_owned(),
                name: "contact".to_owned(),
            },
            from: None,
            watch: Vec::new(),
            object_type: "0-1".to_owned(),
            key: "id".to_owned(),
            hubspot_id: "hubspot_id".to_owned(),
            synced_at: "synced_at".to_owned(),
            match_on: Some("email".to_owned()),
            adopt: Adopt::Overwrite,
            create: true,
            capture: true,
            on_missing: OnMissing::Fail,
            on_delete: OnDelete::Keep,
            condition: None,
            properties: Vec::new(),
            links: Vec::new(),
        }
    }

    fn rules(adopt: Adopt) -> Rules {
        Rules::new(&Object { adopt, ..object() }, true)
    }

    fn record() -> Record {
        Record {
            key: "1".into(),
            hubspot_id: None,
            intent_id: None,
            intent: None,
            properties: SENT.into(),
            update_properties: SENT.into(),
            match_value: Some("a@example.com".to_owned()),
            targets: Vec::new(),
            linked: Vec::new(),
            entries: Vec::new(),
            update_only_set: false,
            failed: false,
            problems: Vec::new(),
        }
    }

    fn refused(step: Step) -> Refusal {
        match step {
            Step::Refuse(refusal) => refusal,
            other => panic!("{other:?} is no refusal"),
        }
    }

    #[test]
    fn a_row_with_an_id_is_updated_whatever_else_is_empty() {
        let id = Some("17".to_owned());
        let row = Record {
            hubspot_id: id.clone(),
            match_value: None,
            ..record()
        };
        assert_eq!(rules(Adopt::Overwrite).step(&row), Step::Update("17".to_owned()));
        let awaiting = Record {
            intent_id: id,
            ..record()
        };
        assert_eq!(rules(Adopt::Fail).step(&awaiting), Step::Update("17".to_owned()));
    }

    #[test]
    fn to_a_known_record_of_which_nothing_is_to_be_written_nothing_is_sent() {
        let row = Record {
            hubspot_id: Some("17".to_owned()),
            properties: "{}".into(),
            ..record()
        };
        assert_eq!(rules(Adopt::Overwrite).step(&row), Step::Keep("17".to_owned()));
        let full = Record {
            update_properties: "{}".into(),
            properties: SENT.into(),
            ..row
        };
        assert_eq!(
            rules(Adopt::Overwrite).step(&full),
            Step::Update("17".to_owned()),
            "create-only properties that go along are something"
        );
        let new = Record {
            properties: "{}".into(),
            ..record()
        };
        assert_eq!(
            rules(Adopt::Overwrite).step(&new),
            Step::Create("a@example.com".to_owned()),
            "a create is one in any case"
        );
    }

    #[test]
    fn what_cannot_be_an_id_never_becomes_part_of_a_path() {
        for odd in ["..", "a", "1/2", "\t", "1 ", "\u{661}"] {
            let row = Record {
                hubspot_id: Some(odd.to_owned()),
                ..record()
            };
            assert_eq!(
                refused(rules(Adopt::Overwrite).step(&row)).category,
                "id",
                "{odd:?}"
            );
        }
    }

    #[test]
    fn the_rows_own_id_wins_over_the_one_awaiting_a_receipt() {
        let row = Record {
            hubspot_id: Some("1".to_owned()),
            intent_id: Some("2".to_owned()),
            ..record()
        };
        assert_eq!(rules(Adopt::Overwrite).step(&row), Step::Update("1".to_owned()));
    }

    #[test]
    fn a_row_without_id_is_created_by_its_natural_key_or_left_alone() {
        let step = rules(Adopt::Overwrite).step(&record());
        assert_eq!(step, Step::Create("a@example.com".to_owned()));
        let never = Object {
            create: false,
            match_on: None,
            ..object()
        };
        assert_eq!(Rules::new(&never, false).step(&record()), Step::Leave);
        let keyless = Record {
            match_value: None,
            ..record()
        };
        let refusal = refused(rules(Adopt::Overwrite).step(&keyless));
        assert_eq!(refusal.category, "match_on");
        assert!(refusal.message.contains("email"));
    }

    #[test]
    fn a_value_without_a_form_refuses_the_row_and_names_the_property() {
        let row = Record {
            hubspot_id: Some("1".to_owned()),
            problems: vec![
                "at: it is infinite".to_owned(),
                "ratio: it is not a number".to_owned(),
            ],
            ..record()
        };
        let refusal = refused(rules(Adopt::Overwrite).step(&row));
        assert_eq!(refusal.category, "value");
        assert_eq!(refusal.properties, ["at", "ratio"]);
    }

    #[test]
    fn adoption_is_what_the_mapping_says_of_a_record_that_nobody_owns() {
        let cases = [
            (Adopt::Overwrite, Adoption::Upsert),
            (Adopt::UpdateOnly, Adoption::UpdateOnly("9".to_owned())),
        ];
        for (adopt, expected) in cases {
            assert_eq!(rules(adopt).adoption(Some("9"), None), expected);
        }
        let Adoption::Refuse(refusal) = rules(Adopt::Fail).adoption(Some("9"), None) else {
            panic!("adopt = \"fail\" takes nothing over");
        };
        assert_eq!(refusal.category, "adopt");
        assert_eq!(refusal.existing_id.as_deref(), Some("9"));
    }

    #[test]
    fn a_record_that_another_row_owns_is_never_adopted_and_one_that_is_not_there_is_created() {
        let owner = Owner {
            object: 0,
            key: "2".into(),
            elsewhere: None,
        };
        for adopt in [Adopt::Overwrite, Adopt::UpdateOnly, Adopt::Fail] {
            let Adoption::Refuse(refusal) = rules(adopt).adoption(Some("9"), Some(&owner)) else {
                panic!("{adopt:?} adopts what another row owns");
            };
            assert_eq!(refusal.category, "owner");
            assert!(refusal.message.contains("row 2"), "{}", refusal.message);
            assert_eq!(rules(adopt).adoption(None, None), Adoption::Upsert);
        }
    }

    #[test]
    fn hubspot_is_asked_first_unless_postgres_keeps_the_key_unique_and_all_is_taken_over() {
        assert!(!rules(Adopt::Overwrite).ask_first);
        assert!(rules(Adopt::UpdateOnly).ask_first);
        assert!(rules(Adopt::Fail).ask_first);
        assert!(Rules::new(&object(), false).ask_first);
    }

    #[test]
    fn only_an_e_mail_is_compared_without_case() {
        assert_eq!(rules(Adopt::Overwrite).normalise(" A@B.C "), "a@b.c");
        let plates = Object {
            object_type: "2-1".to_owned(),
            ..object()
        };
        assert_eq!(Rules::new(&plates, true).normalise(" A@B.C "), " A@B.C ");
    }
}
