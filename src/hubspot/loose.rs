//! Reads single JSON values in whatever type HubSpot sends them today.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// A value as it stands in the body, if it stands there and is not null.
pub(super) type Raw<'a> = Option<&'a RawValue>;

/// An object's fields by name.
pub(super) type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// The fields of an object; none if it is something else.
pub(super) fn fields(raw: Raw<'_>) -> Fields<'_> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default()
}

/// The items of an array, if it is one.
pub(super) fn list(raw: Raw<'_>) -> Option<Vec<&RawValue>> {
    serde_json::from_str(raw?.get()).ok()
}

/// `next.after` of a `paging`.
pub(super) fn next_after(paging: Raw<'_>) -> Option<String> {
    let paging = fields(paging);
    let next = fields(paging.get("next").copied());
    text(next.get("after").copied())
}

/// The `id` of an object.
pub(super) fn id_of(raw: Raw<'_>) -> Option<String> {
    text(fields(raw).get("id").copied())
}

/// A string, or a number or bool as its text.
pub(super) fn text(raw: Raw<'_>) -> Option<String> {
    let json = raw?.get();
    match json.as_bytes().first()? {
        b'"' => serde_json::from_str(json).ok(),
        b'[' | b'{' | b'n' => None,
        _ => Some(json.to_owned()),
    }
}

/// A string, or each string of an array.
pub(super) fn texts(raw: Raw<'_>) -> Vec<String> {
    match list(raw) {
        Some(items) => items.into_iter().filter_map(|item| text(Some(item))).collect(),
        None => text(raw).into_iter().collect(),
    }
}

/// A bool, or its text.
pub(super) fn flag(raw: Raw<'_>) -> Option<bool> {
    match text(raw)?.as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}
