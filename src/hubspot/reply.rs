//! Reads HubSpot's replies with every field optional.
//!
//! HubSpot's own advice is that all fields of an error are optional, its specifications and its servers
//! disagree about types (ids are strings or numbers, `subCategory` an object or a string, context values a
//! string or an array), and fields are added without notice. So only the outermost shape must be right;
//! whatever else does not read is left out, and a record left out is unknown to the caller, never done.
//!
//! The JSON reader's own complaints quote what they complain about, so they are never passed on.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::loose::{Fields, Raw, fields, flag, id_of, list, next_after, text, texts};
use super::redact;
use super::wire::{
    Account, Associated, AssociationPage, AssociationType, BatchReply, Done, Found, FoundLink, PropertyInfo,
    RecordError,
};

/// A body that is not what a success should be; the sentence says in what way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable(pub &'static str);

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Unreadable {}

/// What an error status says in its body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ErrorBody {
    pub error: RecordError,
    pub correlation_id: Option<String>,
    pub policy: Option<String>,
    /// Whether the message speaks of a daily limit; where no policy is named.
    pub daily: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawError<'a> {
    #[serde(borrow, default)]
    category: Raw<'a>,
    #[serde(borrow, default)]
    sub_category: Raw<'a>,
    #[serde(borrow, default)]
    message: Raw<'a>,
    #[serde(borrow, default)]
    correlation_id: Raw<'a>,
    #[serde(borrow, default)]
    policy_name: Raw<'a>,
    #[serde(borrow, default)]
    errors: Raw<'a>,
    #[serde(borrow, default)]
    context: Raw<'a>,
    #[serde(borrow, default)]
    code: Raw<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBatch<'a> {
    #[serde(borrow, default)]
    results: Raw<'a>,
    #[serde(borrow, default)]
    errors: Raw<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDone<'a> {
    #[serde(borrow, default)]
    id: Raw<'a>,
    #[serde(borrow, default)]
    object_write_trace_id: Raw<'a>,
    #[serde(borrow, default)]
    new: Raw<'a>,
    #[serde(borrow, default)]
    created_at: Raw<'a>,
    #[serde(borrow, default)]
    properties: Raw<'a>,
}

/// A batch of records. `keep` names the properties wanted of each.
pub(super) fn batch(body: &[u8], keep: &[&str]) -> Result<BatchReply, Unreadable> {
    let (results, errors) = lists(body)?;
    Ok(BatchReply {
        results: results
            .into_iter()
            .filter_map(|raw| done(raw.get(), keep))
            .collect(),
        errors: errors.into_iter().map(record_error).collect(),
        correlation_id: None,
    })
}

/// What a search found. `keep` names the properties wanted of each.
pub(super) fn found(body: &[u8], keep: &[&str]) -> Result<Found, Unreadable> {
    #[derive(Deserialize)]
    struct RawFound<'a> {
        #[serde(borrow, default)]
        paging: Raw<'a>,
        #[serde(borrow, default)]
        total: Raw<'a>,
    }
    let results = batch(body, keep)?.results;
    let found: RawFound<'_> =
        serde_json::from_slice(body).map_err(|_| Unreadable("the body is no JSON object"))?;
    let more = next_after(found.paging).is_some();
    let total: Option<usize> = text(found.total).and_then(|total| total.parse().ok());
    let whole = match total {
        Some(total) => more || results.len() >= total,
        None => !results.is_empty(),
    };
    Ok(Found { results, more, whole })
}

/// One record by itself.
pub(super) fn one(body: &[u8], keep: &[&str]) -> Result<Done, Unreadable> {
    let text = std::str::from_utf8(body).map_err(|_| Unreadable("the body is no JSON"))?;
    done(text, keep).ok_or(Unreadable("the body is no record with an id"))
}

/// A batch of associations made. Only `asked` pairs are listed.
pub(super) fn associated(body: &[u8], asked: &[(&str, &str)]) -> Result<Associated, Unreadable> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct RawPair<'a> {
        #[serde(borrow, default)]
        from: Raw<'a>,
        #[serde(borrow, default)]
        to: Raw<'a>,
        #[serde(borrow, default)]
        from_object_id: Raw<'a>,
        #[serde(borrow, default)]
        to_object_id: Raw<'a>,
    }
    let (results, errors) = lists(body)?;
    let made = results.into_iter().filter_map(|raw| {
        let pair: RawPair<'_> = serde_json::from_str(raw.get()).ok()?;
        let from = text(pair.from_object_id).or_else(|| id_of(pair.from))?;
        let to = text(pair.to_object_id).or_else(|| id_of(pair.to))?;
        Some((from, to))
    });
    // A default association comes back in both directions.
    let asked: std::collections::HashSet<_> = asked.iter().copied().collect();
    Ok(Associated {
        made: made
            .filter(|(from, to)| asked.contains(&(from.as_str(), to.as_str())))
            .collect(),
        errors: errors.into_iter().map(record_error).collect(),
        correlation_id: None,
    })
}

/// What a removal of associations says: nothing, or errors. Whether a pair is parted is not in it.
pub(super) fn dissociated(body: &[u8]) -> Vec<RecordError> {
    let (_, errors) = lists(body).unwrap_or_default();
    errors.into_iter().map(record_error).collect()
}

/// A page of associations.
pub(super) fn association_page(body: &[u8]) -> Result<AssociationPage, Unreadable> {
    #[derive(Deserialize)]
    struct RawFrom<'a> {
        #[serde(borrow, default)]
        from: Raw<'a>,
        #[serde(borrow, default)]
        to: Raw<'a>,
        #[serde(borrow, default)]
        paging: Raw<'a>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct RawTo<'a> {
        #[serde(borrow, default)]
        to_object_id: Raw<'a>,
        #[serde(borrow, default)]
        association_types: Raw<'a>,
    }
    let (results, errors) = lists(body)?;
    let mut page = AssociationPage::default();
    for raw in results {
        let Ok(entry) = serde_json::from_str::<RawFrom<'_>>(raw.get()) else {
            continue;
        };
        let Some(from) = id_of(entry.from) else { continue };
        for raw in list(entry.to).unwrap_or_default() {
            let Ok(to) = serde_json::from_str::<RawTo<'_>>(raw.get()) else {
                continue;
            };
            if let Some(id) = text(to.to_object_id) {
                let types = list(to.association_types).unwrap_or_default();
                page.links.push(FoundLink {
                    from: from.clone(),
                    to: id,
                    types: types.into_iter().filter_map(association_type).collect(),
                });
            }
        }
        if let Some(after) = next_after(entry.paging) {
            page.next.push((from, after));
        }
    }
    for raw in errors {
        let error = record_error(raw);
        if error.is_not_found() {
            page.without.extend(records_asked_for(raw));
        } else {
            page.errors.push(error);
        }
    }
    Ok(page)
}

/// The records that an error of a read of associations is about.
fn records_asked_for(raw: &RawValue) -> Vec<String> {
    let context = serde_json::from_str::<RawError<'_>>(raw.get()).ok();
    let context = context.map(|error| fields(error.context)).unwrap_or_default();
    texts(context.get("fromObjectId").copied())
}

/// The association types of a pair of object types.
pub(super) fn labels(body: &[u8]) -> Result<Vec<AssociationType>, Unreadable> {
    let (results, _) = lists(body)?;
    Ok(results.into_iter().filter_map(association_type).collect())
}

/// The properties of an object type.
pub(super) fn properties(body: &[u8]) -> Result<Vec<PropertyInfo>, Unreadable> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct RawProperty<'a> {
        #[serde(borrow, default)]
        name: Raw<'a>,
        #[serde(borrow, default, rename = "type")]
        kind: Raw<'a>,
        #[serde(borrow, default)]
        has_unique_value: Raw<'a>,
        #[serde(borrow, default)]
        calculated: Raw<'a>,
        #[serde(borrow, default)]
        modification_metadata: Raw<'a>,
    }
    let (results, _) = lists(body)?;
    let info = |raw: &RawValue| {
        let property: RawProperty<'_> = serde_json::from_str(raw.get()).ok()?;
        let metadata = fields(property.modification_metadata);
        let fixed = metadata.get("readOnlyValue").copied();
        Some(PropertyInfo {
            name: text(property.name)?,
            kind: text(property.kind).unwrap_or_default(),
            has_unique_value: flag(property.has_unique_value).unwrap_or(false),
            read_only: flag(fixed).or_else(|| flag(property.calculated)).unwrap_or(false),
        })
    };
    let known: Vec<PropertyInfo> = results.into_iter().filter_map(info).collect();
    if known.is_empty() {
        // There is no object type without any: an answer that lacks all of them was cut short.
        return Err(Unreadable("the body names no property"));
    }
    Ok(known)
}

/// The portal.
pub(super) fn account(body: &[u8]) -> Result<Account, Unreadable> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct RawAccount<'a> {
        #[serde(borrow, default)]
        portal_id: Raw<'a>,
        #[serde(borrow, default)]
        time_zone: Raw<'a>,
        #[serde(borrow, default)]
        utc_offset_milliseconds: Raw<'a>,
    }
    let account: RawAccount<'_> =
        serde_json::from_slice(body).map_err(|_| Unreadable("the body is no JSON object"))?;
    let portal_id = text(account.portal_id).and_then(|id| id.parse().ok());
    let offset = text(account.utc_offset_milliseconds).and_then(|offset| offset.parse::<i64>().ok());
    Ok(Account {
        portal_id: portal_id.ok_or(Unreadable("the body names no portal"))?,
        time_zone: text(account.time_zone),
        utc_offset_seconds: offset.and_then(|offset| i32::try_from(offset / 1000).ok()),
    })
}

/// The scopes of the token.
pub(super) fn scopes(body: &[u8]) -> Result<Vec<String>, Unreadable> {
    #[derive(Deserialize)]
    struct RawToken<'a> {
        #[serde(borrow, default)]
        scopes: Raw<'a>,
    }
    let token: RawToken<'_> =
        serde_json::from_slice(body).map_err(|_| Unreadable("the body is no JSON object"))?;
    match texts(token.scopes) {
        none if none.is_empty() => Err(Unreadable("the body names no scopes")),
        scopes => Ok(scopes),
    }
}

/// The body of an error status; `None` if it is no JSON object.
pub(super) fn error_body(body: &[u8]) -> Option<ErrorBody> {
    let raw: RawError<'_> = serde_json::from_slice(body).ok()?;
    let message = text(raw.message).unwrap_or_default().to_ascii_lowercase();
    Some(ErrorBody {
        correlation_id: text(raw.correlation_id).filter(|id| redact::is_correlation_id(id)),
        policy: text(raw.policy_name).filter(|name| redact::is_code(name)),
        daily: message.contains("daily"),
        error: described(&raw),
    })
}

pub(super) fn record_error(raw: &RawValue) -> RecordError {
    match serde_json::from_str::<RawError<'_>>(raw.get()) {
        Ok(error) => described(&error),
        Err(_) => RecordError {
            category: "UNKNOWN".to_owned(),
            message: "…".to_owned(),
            ..RecordError::default()
        },
    }
}

fn described(raw: &RawError<'_>) -> RecordError {
    let message = text(raw.message).unwrap_or_default();
    let context = fields(raw.context);
    let inner: Vec<RawError<'_>> = list(raw.errors)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|raw| serde_json::from_str(raw.get()).ok())
        .collect();
    let all_of = |name: &str| texts(context.get(name).copied());
    let properties = properties_at_fault(&message, &context, &inner);
    let codes = codes(&message, raw, &context, &inner);
    let known: Vec<String> = properties.iter().chain(&codes).cloned().collect();
    let mut shown = redact::message(&message, &known);
    // The newer form of a refusal says little itself and the rest in its parts.
    for part in inner.iter().filter_map(|inner| text(inner.message)).take(3) {
        let part = redact::message(&part, &known);
        if !message.contains("not valid:") && shown.chars().count() + part.chars().count() < 300 {
            shown = if shown.is_empty() {
                part
            } else {
                format!("{shown} {part}")
            };
        }
    }
    let scopes = wanted_scopes(&context, &inner);
    if !scopes.is_empty() {
        shown = format!("{shown} {}", scopes.join(", "));
    }
    RecordError {
        traces: all_of("objectWriteTraceId"),
        ids: ["ids", "id", "objectId"]
            .iter()
            .flat_map(|name| all_of(name))
            .collect(),
        category: text(raw.category)
            .filter(|category| redact::is_code(category))
            .unwrap_or_else(|| "UNKNOWN".to_owned()),
        existing_id: all_of("existingId")
            .into_iter()
            .find(|id| redact::is_id(id))
            .or_else(|| redact::existing_id(&message)),
        message: shown,
        properties,
        codes,
    }
}

fn properties_at_fault(message: &str, context: &Fields<'_>, inner: &[RawError<'_>]) -> Vec<String> {
    let mut names = redact::named_properties(message);
    let inner_contexts = inner.iter().map(|inner| fields(inner.context));
    for context in inner_contexts.chain([context.clone()]) {
        for key in ["propertyName", "properties"] {
            names.extend(texts(context.get(key).copied()));
        }
    }
    names.retain(|name| redact::is_name(name));
    distinct(names)
}

/// The scopes that HubSpot says are wanted; not those in its sentences, which may quote a row.
fn wanted_scopes(context: &Fields<'_>, inner: &[RawError<'_>]) -> Vec<String> {
    let mut scopes: Vec<String> = Vec::new();
    let inner_contexts = inner.iter().map(|inner| fields(inner.context));
    for context in inner_contexts.chain([context.clone()]) {
        for key in ["requiredGranularScopes", "requiredScopes"] {
            scopes.extend(texts(context.get(key).copied()));
        }
    }
    scopes.retain(|scope| redact::is_scope(scope));
    distinct(scopes)
}

fn codes(message: &str, raw: &RawError<'_>, context: &Fields<'_>, inner: &[RawError<'_>]) -> Vec<String> {
    let mut codes: Vec<String> = redact::embedded_errors(message)
        .into_iter()
        .map(|error| error.error)
        .collect();
    for error in inner.iter().chain([raw]) {
        codes.extend(text(error.code));
        codes.extend(text(error.sub_category));
    }
    // Some contexts are keyed by a code: `{"INVALID_OBJECT_IDS": […]}`.
    let is_shouted =
        |key: &&String| key.contains('_') && key.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    codes.extend(context.keys().filter(is_shouted).cloned());
    codes.retain(|code| redact::is_code(code));
    distinct(codes)
}

fn distinct(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names.dedup();
    names.truncate(20);
    names
}

fn done(json: &str, keep: &[&str]) -> Option<Done> {
    let raw: RawDone<'_> = serde_json::from_str(json).ok()?;
    let properties = if keep.is_empty() {
        Fields::new()
    } else {
        fields(raw.properties)
    };
    let kept = keep.iter().filter_map(|name| {
        let value = properties.get(*name)?;
        let is_null = value.get() == "null";
        let value = text(Some(value));
        (is_null || value.is_some()).then(|| ((*name).to_owned(), value))
    });
    Some(Done {
        id: text(raw.id).filter(|id| redact::is_id(id))?,
        trace: text(raw.object_write_trace_id),
        new: flag(raw.new),
        created_at: text(raw.created_at).and_then(|at| instant(&at)),
        properties: kept.collect(),
    })
}

/// An instant as HubSpot writes it, in microseconds since the Unix epoch.
fn instant(text: &str) -> Option<i64> {
    let at: jiff::Timestamp = text.parse().ok()?;
    Some(at.as_microsecond())
}

fn association_type(raw: &RawValue) -> Option<AssociationType> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct RawType<'a> {
        #[serde(borrow, default)]
        category: Raw<'a>,
        #[serde(borrow, default)]
        type_id: Raw<'a>,
        #[serde(borrow, default)]
        label: Raw<'a>,
    }
    let raw: RawType<'_> = serde_json::from_str(raw.get()).ok()?;
    Some(AssociationType {
        category: text(raw.category)?,
        type_id: text(raw.type_id)?.parse().ok()?,
        label: text(raw.label),
    })
}

/// `results` and `errors` of a reply that has at least one of them.
fn lists(body: &[u8]) -> Result<(Vec<&RawValue>, Vec<&RawValue>), Unreadable> {
    let raw: RawBatch<'_> =
        serde_json::from_slice(body).map_err(|_| Unreadable("the body is no JSON object"))?;
    match (list(raw.results), list(raw.errors)) {
        (None, None) => Err(Unreadable("the body has neither results nor errors")),
        (results, errors) => Ok((results.unwrap_or_default(), errors.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_everything(body: &[u8]) {
        let _ = batch(body, &["email"]);
        let _ = one(body, &["email"]);
        let _ = associated(body, &[("1", "2")]);
        let _ = dissociated(body);
        let _ = association_page(body);
        let _ = labels(body);
        let _ = properties(body);
        let _ = account(body);
        let _ = error_body(body);
    }

    /// A reply as HubSpot sends it, with everything in it that is read.
    const WHOLE: &str = r#"{"status":"COMPLETE","portalId":7,"timeZone":"US/Eastern","utcOffsetMilliseconds":-1,
        "id":"1","message":"Contact already exists. Existing ID: 9","correlationId":"aaaaaaaa-0","policyName":"DAILY",
        "results":[{"id":"1","new":true,"objectWriteTraceId":"t","properties":{"email":"a@b.example","x":null},
            "from":{"id":1},"to":[{"toObjectId":2,"associationTypes":[{"category":"C","typeId":3,"label":null}]}],
            "paging":{"next":{"after":"5"}},"name":"email","type":"string","hasUniqueValue":false,"category":"C",
            "typeId":4,"modificationMetadata":{"readOnlyValue":true}}],
        "errors":[{"category":"CONFLICT","subCategory":{"a":1},"message":"Property values were not valid: [{\"name\":\"x\"}]",
            "context":{"objectWriteTraceId":["t"],"ids":"1","existingId":[9]},"errors":[{"code":"A_B","context":{}}]}]}"#;

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let names = prop::sample::select(vec![
            "results",
            "errors",
            "id",
            "properties",
            "context",
            "message",
            "from",
            "to",
            "paging",
            "category",
        ]);
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".{0,12}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::btree_map(names.clone().prop_map(str::to_owned), inner, 0..6)
                    .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            read_everything(&body);
        }

        #[test]
        fn no_json_panics_whatever_stands_where(value in json()) {
            read_everything(value.to_string().as_bytes());
        }

        #[test]
        fn no_truncated_or_damaged_reply_panics(cut in 0..WHOLE.len(), at in 0..WHOLE.len(), byte in any::<u8>()) {
            read_everything(&WHOLE.as_bytes()[..cut]);
            let mut damaged = WHOLE.as_bytes().to_vec();
            damaged[at] = byte;
            read_everything(&damaged);
        }
    }

    #[test]
    fn a_truncated_reply_is_no_reply() {
        for cut in 0..WHOLE.len() {
            assert!(batch(&WHOLE.as_bytes()[..cut], &[]).is_err());
        }
        assert_eq!(
            batch(WHOLE.as_bytes(), &["email", "x", "y"]).unwrap().results[0]
                .properties
                .len(),
            2
        );
    }

    #[test]
    fn ids_and_contexts_are_read_in_every_type_that_was_seen() {
        let reply = batch(WHOLE.as_bytes(), &[]).unwrap();
        let error = &reply.errors[0];
        assert_eq!(error.traces, ["t"]);
        assert_eq!(error.ids, ["1"]);
        assert_eq!(error.existing_id.as_deref(), Some("9"));
        assert_eq!(error.properties, ["x"]);
        let numbers = batch(
            br#"{"results":[{"id":17,"objectWriteTraceId":5,"new":"true"}]}"#,
            &[],
        )
        .unwrap();
        assert_eq!(numbers.results[0].id, "17");
        assert_eq!(numbers.results[0].trace.as_deref(), Some("5"));
        assert_eq!(numbers.results[0].new, Some(true));
    }

    #[test]
    fn a_record_without_an_id_that_can_be_one_is_not_done() {
        let body = br#"{"results":[{"id":""},{"id":null},{"id":"a b"},{},[],{"id":{}},{"id":"1"}]}"#;
        let reply = batch(body, &[]).unwrap();
        assert_eq!(reply.results.len(), 1);
    }
}
