//! Takes out of HubSpot's texts whatever may be a value of a row.
//!
//! HubSpot quotes values in its messages, in quotes or bare (`Ana was not one of the allowed options`), so
//! looking for what seems personal would miss some. [`message`] goes the other way: it keeps the words that
//! HubSpot's own sentences are made of, and property names and codes that were found where only those can
//! stand; everything else becomes `…`. What is needed of the rest is taken out beforehand, by
//! [`existing_id`], [`named_properties`] and [`embedded_errors`].

use serde::Deserialize;

/// No message is longer than this many characters.
const MESSAGE_MAX: usize = 300;

/// Begins the message of a refused set of properties; a JSON array follows.
const PROPERTY_ERRORS: &str = "Property values were not valid:";

/// The words of HubSpot's sentences, in lower case.
const WORDS: &str = "\
    a about access account additional administrator again all allowed already an and any api app \
    archived are as assigned associated association associations at attempt authentication batch be \
    because been before being between body bool boolean bug but by calculated call calls can cannot \
    characters check column companies company conditional conflict contact contacts contain contains \
    could create created creating credentials custom daily data date datetime deal deals default \
    defined definition deleted denied details did do does doesn't don't duplicate edit either email \
    empty encountered enter enumeration error errors exceeded exist existing exists expected expired \
    failed field fields find following for format found from get granted greater has hasn't have \
    here id identifier ids if in input inputs integer internal invalid is it items its itself json \
    key label later least length letters limit line locked long longer lowercase made make many \
    maximum may merged minimum missing more must name names no non not null number numbers numeric \
    object objectid objects of on one only option options or other out owner permission perform permissions \
    pipeline please portal problem properties property provide provided rate reached read record \
    records reduce request requests required requires resource rolling rule same scope scopes \
    secondly server set should size some something stage string supported supports temporarily than \
    that the there they this ticket time times timestamp to token too try type types unable \
    unavailable unique unknown unsupported up update updated updating upsert used user using valid \
    validation value values was were when while with within would write wrong you your";

/// One entry of the JSON that HubSpot puts into the message of a refused set of properties.
#[derive(Debug, Default, Deserialize)]
pub(super) struct EmbeddedError {
    /// HubSpot's code, e.g. `INVALID_OPTION`.
    #[serde(default)]
    pub error: String,
    /// The property.
    #[serde(default)]
    pub name: String,
}

/// The JSON inside the message of a refused set of properties, if it is one and reads.
pub(super) fn embedded_errors(text: &str) -> Vec<EmbeddedError> {
    let Some((_, json)) = text.split_once(PROPERTY_ERRORS) else {
        return Vec::new();
    };
    serde_json::from_str(json.trim()).unwrap_or_default()
}

/// What may be shown of a message: its own words, `known` names and codes, and nothing else.
pub(super) fn message(text: &str, known: &[String]) -> String {
    if text.contains(PROPERTY_ERRORS) {
        return shortened(format!("{PROPERTY_ERRORS} {}", property_errors(text)));
    }
    let mut shown = String::new();
    // Text far beyond what is shown (lists of options) is not worth the walk.
    for chunk in text.split_whitespace().take(400) {
        let core = chunk.trim_matches(|c: char| !c.is_alphanumeric());
        let is_known = known.iter().any(|name| name == core);
        if is_known || is_word(core) {
            let end = chunk.chars().next_back().filter(|c| ".,:;".contains(*c));
            push(&mut shown, core, end);
        } else if !core.is_empty() && !shown.ends_with('…') {
            push(&mut shown, "…", None);
        }
    }
    shortened(shown)
}

fn push(shown: &mut String, word: &str, end: Option<char>) {
    if !shown.is_empty() {
        shown.push(' ');
    }
    shown.push_str(word);
    shown.extend(end);
}

fn is_word(core: &str) -> bool {
    let lower = core.to_ascii_lowercase();
    !lower.is_empty()
        && lower
            .split(['-', '/'])
            .all(|part| WORDS.split(' ').any(|word| word == part))
}

fn property_errors(text: &str) -> String {
    let errors = embedded_errors(text);
    let named: Vec<String> = errors
        .iter()
        .filter(|error| is_name(&error.name))
        .map(|error| {
            let code = if is_code(&error.error) {
                error.error.as_str()
            } else {
                "…"
            };
            format!("{} ({code})", error.name)
        })
        .collect();
    if named.is_empty() {
        "…".to_owned()
    } else {
        named.join(", ")
    }
}

fn shortened(text: String) -> String {
    if text.chars().count() <= MESSAGE_MAX {
        return text;
    }
    text.chars().take(MESSAGE_MAX - 1).chain(['…']).collect()
}

/// Whether a text can be the internal name of a property.
pub(super) fn is_name(text: &str) -> bool {
    (1..=100).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether a text can be one of HubSpot's codes or categories.
pub(super) fn is_code(text: &str) -> bool {
    (3..=80).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.".contains(c))
}

/// Whether a text can be one of HubSpot's scopes, e.g. `crm.objects.contacts.read`.
pub(super) fn is_scope(text: &str) -> bool {
    let in_lower_case = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    (3..=80).contains(&text.len()) && text.contains(['.', '-']) && text.chars().all(in_lower_case)
}

/// Whether a text can be a record's id.
pub(super) fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
}

/// Whether a text can be a correlation id.
pub(super) fn is_correlation_id(text: &str) -> bool {
    (8..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// The record that a message ends by naming as the one in the way: `… already exists. Existing ID: 1`,
/// `… 1 already has that value.` Elsewhere in a message the words may be a value's.
pub(super) fn existing_id(text: &str) -> Option<String> {
    let text = text.trim_end().trim_end_matches('.');
    let id = match text.strip_suffix(" already has that value") {
        Some(before) => before.rsplit(' ').next()?,
        None => text.rsplit_once("already exists. Existing ID:")?.1.trim_start(),
    };
    (is_id(id) && id.chars().all(|c| c.is_ascii_digit())).then(|| id.to_owned())
}

/// The properties that a message names where only a property can stand.
pub(super) fn named_properties(text: &str) -> Vec<String> {
    let between = |before: &str, after: char| -> Option<&str> {
        let (_, rest) = text.split_once(before)?;
        rest.split_once(after).map(|(name, _)| name)
    };
    let mut names = Vec::new();
    names.extend(embedded_errors(text).into_iter().map(|error| error.name));
    if text.contains("PropertyValueCoordinates") {
        names.extend(between("propertyName=", ',').map(str::to_owned));
    }
    if text.contains("does not exist") {
        names.extend(between("Property \"", '"').map(str::to_owned));
    }
    if text.contains("calculated property") || text.contains("read only property") {
        let quoted = text.strip_prefix('"').and_then(|rest| rest.split_once('"'));
        names.extend(quoted.map(|(name, _)| name.to_owned()));
    }
    if text.contains("non-unique") {
        let after = text.split_once(" property ").map(|(_, after)| after);
        let name = after.and_then(|after| after.split_whitespace().next());
        names.extend(name.map(|name| name.trim_end_matches('.').to_owned()));
    }
    names.retain(|name| is_name(name));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values as rows have them; none may be found in anything shown.
    const PLANTED: &[&str] = &[
        "Ana",
        "García",
        "ana.garcia@clinic.example",
        "+49 151 2345",
        "4000",
        "1990-02-03",
        "booking:77af",
        "194235157366",
        "ORDER_991",
        "Straße",
        "pat-na1-0000",
        "O'Neill",
        "ABC",
    ];

    /// Messages as HubSpot writes them, with `§` where it puts a value.
    const TEMPLATES: &[&str] = &[
        "§ was not one of the allowed options: [label: \"A\"\nvalue: \"§\"\n]",
        "Email address § is invalid",
        "§ was not a valid long.",
        "§ was not a valid number",
        "Cannot set PropertyValueCoordinates{portalId=1, objectTypeId=ObjectTypeId{legacyObjectType=CONTACT}, propertyName=order_ref, value=§} on 194235157366. 194235510142 already has that value.",
        "Duplicate IDs found in batch input: [§, §]. IDs must be unique",
        "§ is not a valid ID",
        "Object § cannot be associated to itself (§)",
        "CONTACT=§ is not valid",
        "Object not found.  objectId are usually numeric. §",
        "Invalid input JSON on line 1, column 2: Unexpected character ('§')",
        "Property values were not valid: [{\"isValid\":false,\"message\":\"§ was not a valid number.\",\"error\":\"INVALID_DOUBLE\",\"name\":\"price\",\"localizedErrorMessage\":\"§ was not a valid number.\",\"portalId\":1}]",
        "Property values were not valid: [{\"message\":\"§",
        "Something nobody has seen: <§> '§' \"§\" value=§;§,(§)",
    ];

    #[test]
    fn no_value_survives_in_any_message_hubspot_writes() {
        for template in TEMPLATES {
            for planted in PLANTED {
                let text = template.replace('§', planted);
                let properties = named_properties(&text);
                let shown = message(&text, &properties);
                assert!(!shown.contains(planted), "{planted} in {shown}");
                assert!(
                    !properties.iter().any(|name| name == planted),
                    "{planted} as a property"
                );
                for part in planted.split([' ', '@', ':']).filter(|part| part.len() > 3) {
                    assert!(!shown.contains(part), "{part} in {shown}");
                }
            }
        }
    }

    #[test]
    fn what_an_operator_needs_is_kept() {
        let shown = |text: &str| message(text, &named_properties(text));
        assert_eq!(
            shown("Property \"missing\" does not exist"),
            "Property missing does not exist"
        );
        assert_eq!(
            shown("Unable to perform update/upsert by non-unique 0-3 property dealname"),
            "Unable to perform update/upsert by non-unique … property dealname"
        );
        assert_eq!(
            shown("\"hs_score\" is a calculated property; its value cannot be set."),
            "hs_score is a calculated property; its value cannot be set."
        );
        assert_eq!(
            shown("Contact already exists. Existing ID: 12345"),
            "Contact already exists. Existing ID: …"
        );
        assert_eq!(
            shown("Missing 'Edit Associations' permission."),
            "Missing Edit Associations permission."
        );
        assert_eq!(
            shown(
                "This app hasn't been granted all required scopes to make this call. Read more about required scopes here: https://developers.hubspot.com/scopes."
            ),
            "This app hasn't been granted all required scopes to make this call. Read more about required scopes here: …"
        );
        assert_eq!(
            shown(
                "Property values were not valid: [{\"error\":\"INVALID_OPTION\",\"name\":\"dominant_hand\"}]"
            ),
            "Property values were not valid: dominant_hand (INVALID_OPTION)"
        );
        assert_eq!(
            shown(
                "Could not get some CONTACT objects, they may be deleted or not exist. Check that ids are valid."
            ),
            "Could not get some CONTACT objects, they may be deleted or not exist. Check that ids are valid."
        );
    }

    #[test]
    fn the_record_in_the_way_is_found_where_only_hubspot_can_name_it() {
        let found = |text: &str| existing_id(text);
        assert_eq!(
            found("Contact already exists. Existing ID: 12345").as_deref(),
            Some("12345")
        );
        assert_eq!(found(TEMPLATES[4]).as_deref(), Some("194235510142"));
        assert_eq!(named_properties(TEMPLATES[4]), ["order_ref"]);
        assert_eq!(found("Contact already exists"), None);
        assert_eq!(
            found("Contact already exists. Existing ID: 12 was not valid"),
            None
        );
        assert_eq!(found("17 already has that value was not a valid number"), None);
    }

    #[test]
    fn a_huge_message_stays_short() {
        let text = format!(
            "X was not one of the allowed options: [{}",
            "label: \"value\" ".repeat(50_000)
        );
        assert!(message(&text, &[]).chars().count() <= MESSAGE_MAX);
    }
}
