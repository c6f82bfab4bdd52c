//! Records by the page, for the mirror: lists, searches by modification date, and reads by id.
//!
//! A page stays the text that HubSpot wrote; of a record only its id is looked at here. What is in it, Postgres reads.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::Client;
use super::endpoint::{Call, Endpoint};
use super::error::Failed;
use super::loose::{Raw, fields, id_of, list, next_after, text};
use super::pace::Slot;
use super::redact;
use super::reply::{self, Unreadable};

/// The longest URL that every place between here and HubSpot takes.
const URL_CHARACTERS_MAX: usize = 2_000;

/// The most results of a search.
const FOUND_MAX: usize = 200;
/// The longest body of a search, in characters.
const SEARCH_CHARACTERS_MAX: usize = 3_000;

/// Which page of a list is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Listing<'a> {
    /// Records in a page, 1..=100.
    pub limit: usize,
    /// Where it begins: `next` of the page before; `None`: at the beginning.
    pub after: Option<&'a str>,
    /// The properties wanted; none: the few that HubSpot shows by itself.
    pub properties: &'a [&'a str],
    /// The object types whose associated records are wanted, by their plural names.
    pub associations: &'a [&'a str],
}

impl Listing<'_> {
    /// Whether the question is short enough to be a URL anywhere.
    pub fn fits(&self) -> bool {
        let names = |names: &[&str]| names.iter().map(|name| name.len() + 1).sum::<usize>();
        // The host, the path and a cursor of any usual length.
        300 + names(self.properties) + names(self.associations) <= URL_CHARACTERS_MAX
    }
}

/// Records as HubSpot wrote them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    /// A JSON array.
    pub json: String,
    /// The ids, in the order of the array; `None` where a record has none that an id can be.
    pub ids: Vec<Option<String>>,
}

/// A page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordPage {
    /// What stands in it.
    pub records: Records,
    /// Where the next one begins; `None`: HubSpot says that there is none.
    pub next: Option<String>,
}

/// Which records are searched for, by when they were modified: milliseconds since the Unix epoch by HubSpot's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question<'a> {
    /// Then or later, in the order of time.
    From(i64),
    /// Later than then, in the order of time.
    After(i64),
    /// At that very time, in the order of ids, above this one.
    Within(i64, Option<&'a str>),
    /// The one modified last.
    Newest,
}

/// A page of what was modified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModifiedPage {
    /// What was found.
    pub records: Records,
    /// When each was modified, in the same order; `None` where HubSpot says nothing that reads.
    pub modified: Vec<Option<i64>>,
    /// Whether HubSpot says that there is more.
    pub more: bool,
    /// How many there are in all, where HubSpot says so.
    pub total: Option<u64>,
}

/// The records of a read by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadRecords {
    /// Those that HubSpot has.
    pub records: Records,
    /// Those of which HubSpot says that it has none. An id in neither is one that HubSpot says nothing about.
    pub missing: Vec<String>,
}

impl Client {
    /// Lists records of a type in the order of their ids.
    ///
    /// # Errors
    ///
    /// [`Failed`] if the request did not succeed, or its answer is no page.
    pub async fn list(
        &self,
        slot: Slot,
        object_type: &str,
        listing: Listing<'_>,
    ) -> Result<RecordPage, Failed> {
        let mut query = vec![("limit", listing.limit.to_string())];
        query.extend(listing.after.map(|after| ("after", after.to_owned())));
        for (name, names) in [
            ("properties", listing.properties),
            ("associations", listing.associations),
        ] {
            if !names.is_empty() {
                query.push((name, names.join(",")));
            }
        }
        let call = Call {
            endpoint: Endpoint::List,
            path: vec!["crm", "objects", self.api_version(), object_type],
            query,
            body: None,
            records: listing.limit,
            of: object_type,
        };
        let (page, _) = self.ask(slot, call, record_page).await?;
        Ok(page)
    }

    /// Searches for the records that were modified at some time, which the property `modified` holds; at most 200. The
    /// slot is one of [`super::Pace::search_slot`]. The index lags behind the records and knows no archived ones.
    ///
    /// # Errors
    ///
    /// [`Failed`] if the request did not succeed, or its answer is no page.
    pub async fn modified(
        &self,
        slot: Slot,
        object_type: &str,
        modified: &str,
        question: Question<'_>,
        properties: &[&str],
    ) -> Result<ModifiedPage, Failed> {
        let call = Call {
            endpoint: Endpoint::Search,
            path: vec!["crm", "objects", self.api_version(), object_type, "search"],
            query: Vec::new(),
            body: Some(modified_body(modified, question, properties)),
            records: FOUND_MAX,
            of: object_type,
        };
        let (page, _) = self.ask(slot, call, |body| modified_page(body, modified)).await?;
        Ok(page)
    }

    /// Reads up to 100 records by id, those that are archived or those that are not.
    ///
    /// # Errors
    ///
    /// [`Failed`] if the request did not succeed as a whole.
    pub async fn records(
        &self,
        slot: Slot,
        object_type: &str,
        ids: &[&str],
        properties: &[&str],
        archived: bool,
    ) -> Result<ReadRecords, Failed> {
        let body = super::wire::read_body(None, ids, properties);
        let mut call = self.batch_call(Endpoint::Read, "read", object_type, body, ids.len());
        if archived {
            call.query.push(("archived", "true".to_owned()));
        }
        match self.ask(slot, call, read_records).await {
            // All ids missing is told as 207 without results, or as 404.
            Err(failed) if failed.is_not_found() => Ok(ReadRecords {
                missing: failed.said.map(|said| said.ids).unwrap_or_default(),
                records: Records {
                    json: "[]".to_owned(),
                    ids: Vec::new(),
                },
            }),
            answer => Ok(answer?.0),
        }
    }
}

/// Whether a search can carry so many names.
pub fn searchable_names(modified: &str, properties: &[&str]) -> bool {
    let body = modified_body(
        modified,
        Question::Within(i64::MAX, Some(&"9".repeat(64))),
        properties,
    );
    String::from_utf8_lossy(&body).chars().count() <= SEARCH_CHARACTERS_MAX
}

fn modified_body(modified: &str, question: Question<'_>, properties: &[&str]) -> Vec<u8> {
    let filter = |name: &str, operator: &str, value: String| serde_json::json!({"propertyName": name, "operator": operator, "value": value});
    let (filters, sort, direction, limit) = match question {
        Question::From(at) => (
            vec![filter(modified, "GTE", at.to_string())],
            modified,
            "ASCENDING",
            FOUND_MAX,
        ),
        Question::After(at) => (
            vec![filter(modified, "GT", at.to_string())],
            modified,
            "ASCENDING",
            FOUND_MAX,
        ),
        Question::Within(at, above) => {
            let mut filters = vec![filter(modified, "EQ", at.to_string())];
            filters.extend(above.map(|id| filter("hs_object_id", "GT", id.to_owned())));
            (filters, "hs_object_id", "ASCENDING", FOUND_MAX)
        }
        Question::Newest => (Vec::new(), modified, "DESCENDING", 1),
    };
    let groups = if filters.is_empty() {
        serde_json::json!([])
    } else {
        serde_json::json!([{ "filters": filters }])
    };
    serde_json::json!({
        "filterGroups": groups,
        "sorts": [{"propertyName": sort, "direction": direction}],
        "properties": properties,
        "limit": limit,
    })
    .to_string()
    .into_bytes()
}

#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(borrow, default)]
    results: Raw<'a>,
    #[serde(borrow, default)]
    paging: Raw<'a>,
    #[serde(borrow, default)]
    total: Raw<'a>,
    #[serde(borrow, default)]
    errors: Raw<'a>,
}

/// Reads a body of records; what is no UTF-8 in it is replaced, so that one such text does not lose the page.
fn paged<T>(body: &[u8], read: impl FnOnce(&RawPage<'_>, Vec<&RawValue>) -> T) -> Result<T, Unreadable> {
    let body = String::from_utf8_lossy(body);
    let page: RawPage<'_> =
        serde_json::from_str(&body).map_err(|_| Unreadable("the body is no JSON object"))?;
    let results = list(page.results).ok_or(Unreadable("the body has no results"))?;
    Ok(read(&page, results))
}

fn records(page: &RawPage<'_>, results: &[&RawValue]) -> Records {
    let id = |raw: &&RawValue| id_of(Some(raw)).filter(|id| redact::is_id(id));
    Records {
        json: page.results.map(|raw| raw.get().to_owned()).unwrap_or_default(),
        ids: results.iter().map(id).collect(),
    }
}

fn record_page(body: &[u8]) -> Result<RecordPage, Unreadable> {
    paged(body, |page, results| RecordPage {
        records: records(page, &results),
        next: next_after(page.paging).filter(|next| !next.is_empty()),
    })
}

fn modified_page(body: &[u8], modified: &str) -> Result<ModifiedPage, Unreadable> {
    paged(body, |page, results| {
        let at = |raw: &&RawValue| {
            let record = fields(Some(raw));
            let properties = fields(record.get("properties").copied());
            moment(&text(properties.get(modified).copied())?)
        };
        let total: Option<u64> = text(page.total).and_then(|total| total.parse().ok());
        ModifiedPage {
            records: records(page, &results),
            modified: results.iter().map(at).collect(),
            more: next_after(page.paging).is_some()
                || total.is_some_and(|total| total > results.len() as u64),
            total,
        }
    })
}

fn read_records(body: &[u8]) -> Result<ReadRecords, Unreadable> {
    paged(body, |page, results| {
        let errors = list(page.errors).unwrap_or_default();
        let errors = errors.into_iter().map(reply::record_error);
        ReadRecords {
            records: records(page, &results),
            missing: errors
                .filter(|error| error.is_not_found())
                .flat_map(|error| error.ids)
                .collect(),
        }
    })
}

/// A moment as HubSpot writes it, ISO 8601 or milliseconds, in milliseconds since the Unix epoch.
fn moment(text: &str) -> Option<i64> {
    let written = || Some(text.parse::<jiff::Timestamp>().ok()?.as_millisecond());
    text.parse().ok().or_else(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_stays_as_it_came_and_what_has_no_id_keeps_its_place() {
        let body = br#"{"results":[{"id":"7","properties":{"a":"\u0000"}},{"properties":{}},5,{"id":8}],"paging":{"next":{"after":"9"}}}"#;
        let page = record_page(body).unwrap();
        let ids: Vec<Option<&str>> = page.records.ids.iter().map(Option::as_deref).collect();
        assert_eq!(ids, [Some("7"), None, None, Some("8")]);
        assert!(page.records.json.contains("\\u0000"));
        assert_eq!(page.next.as_deref(), Some("9"));
        for bad in [&b"<html>"[..], b"[]", b"{}", br#"{"results":{}}"#] {
            assert!(record_page(bad).is_err());
        }
    }

    #[test]
    fn there_is_more_than_was_found_if_either_the_paging_or_the_total_says_so() {
        let more = |body: &str| modified_page(body.as_bytes(), "m").unwrap().more;
        assert!(!more(
            r#"{"total":1,"results":[{"id":"1","properties":{"m":"2026-01-01T00:00:00Z"}}]}"#
        ));
        assert!(more(
            r#"{"total":2,"results":[{"id":"1","properties":{"m":"5"}}]}"#
        ));
        assert!(more(r#"{"results":[],"paging":{"next":{"after":"1"}}}"#));
        let page = modified_page(
            br#"{"results":[{"id":"1","properties":{"m":"1970-01-01T00:00:01.5Z"}},{"id":"2"}]}"#,
            "m",
        );
        assert_eq!(page.unwrap().modified, [Some(1500), None]);
    }

    #[test]
    fn a_search_by_modification_date_has_the_published_shape() {
        let body = |question| -> serde_json::Value {
            serde_json::from_slice(&modified_body("m", question, &["a"])).unwrap()
        };
        let within = body(Question::Within(5, Some("7")));
        assert_eq!(within["filterGroups"][0]["filters"].as_array().unwrap().len(), 2);
        assert_eq!(within["sorts"][0]["propertyName"], "hs_object_id");
        assert_eq!(body(Question::Newest)["filterGroups"], serde_json::json!([]));
        assert_eq!(
            body(Question::From(5))["filterGroups"][0]["filters"][0]["value"],
            "5"
        );
        assert!(searchable_names("m", &["abc"; 100]));
        assert!(!searchable_names("m", &["a_property_with_a_long_name"; 150]));
    }
}
