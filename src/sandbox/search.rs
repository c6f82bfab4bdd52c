//! The search API: filters, one sort, pages, and the limits HubSpot puts on them.
//!
//! Search sees an index of its own, which follows the records with a lag and never holds archived ones.

use super::association::TypeIx;
use super::index::Seen;
use super::object_type::{ObjectType, Record};
use super::property::Kind;
use super::reply::{Reply, Text, parse};
use super::value::datetime_ms;
use super::write::Asked;
use serde::Deserialize;
use serde_json::{Value, json};
use std::cmp::Ordering;

/// The longest body, in characters.
const BODY_MAX: usize = 3_000;
const PAGE_MAX: usize = 200;
/// The most results that paging reaches.
const REACH_MAX: usize = 10_000;
const GROUPS_MAX: usize = 5;
const FILTERS_IN_GROUP_MAX: usize = 6;
const FILTERS_MAX: usize = 18;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Search {
    filter_groups: Vec<Group>,
    sorts: Vec<Sort>,
    properties: Vec<String>,
    limit: Option<usize>,
    after: Option<Text>,
    query: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Group {
    #[serde(default)]
    filters: Vec<Filter>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    property_name: String,
    operator: String,
    #[serde(default)]
    value: Option<Text>,
    #[serde(default)]
    high_value: Option<Text>,
    #[serde(default)]
    values: Vec<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Sort {
    Named(String),
    #[serde(rename_all = "camelCase")]
    Directed {
        property_name: String,
        #[serde(default)]
        direction: String,
    },
}

impl Asked<'_> {
    pub(super) fn search(&mut self, kind: TypeIx, body: &[u8]) -> Result<Reply, Reply> {
        if String::from_utf8_lossy(body).chars().count() > BODY_MAX {
            return Err(Reply::validation(format!(
                "The request is longer than {BODY_MAX} characters."
            )));
        }
        let search: Search = parse(body)?;
        let (limit, after) = search.page()?;
        let now_ms = self.world.now_ms();
        self.world.types[kind].catch_up(now_ms);
        let object = &self.world.types[kind];
        search.allowed(object)?;
        let seen = object.seen(!self.world.settings.search_lag.is_zero());
        let found = search.found(object, &seen);
        let total = found.len();
        let page: Vec<Value> = found
            .into_iter()
            .skip(after)
            .take(limit)
            .filter_map(|(_, id)| seen.record(id))
            .map(|record| self.world.shown_read(object, record, &search.properties))
            .collect();
        let mut answer = json!({"total": total, "results": page});
        if after + limit < total {
            answer["paging"] = json!({"next": {"after": (after + limit).to_string()}});
        }
        Ok(Reply::new(200, answer))
    }
}

impl Search {
    /// How many results to show, and how many to pass over.
    fn page(&self) -> Result<(usize, usize), Reply> {
        let limit = self.limit.unwrap_or(10);
        if limit > PAGE_MAX {
            return Err(Reply::validation(format!(
                "The limit must be at most {PAGE_MAX}."
            )));
        }
        let after = self
            .after
            .as_ref()
            .map_or(Ok(0), |after| after.0.parse::<usize>());
        let after = after.map_err(|_| Reply::validation("after must be a number"))?;
        if after + limit > REACH_MAX {
            return Err(Reply::validation(format!(
                "Paging past {REACH_MAX} results is not possible."
            )));
        }
        Ok((limit, after))
    }

    fn allowed(&self, object: &ObjectType) -> Result<(), Reply> {
        let filters = || self.filter_groups.iter().flat_map(|group| &group.filters);
        let crowded = self
            .filter_groups
            .iter()
            .any(|group| group.filters.len() > FILTERS_IN_GROUP_MAX);
        if self.filter_groups.len() > GROUPS_MAX || crowded || filters().count() > FILTERS_MAX {
            return Err(Reply::validation(format!(
                "At most {GROUPS_MAX} filter groups of {FILTERS_IN_GROUP_MAX} filters are allowed, {FILTERS_MAX} \
                 filters in all."
            )));
        }
        for filter in filters() {
            if !object.properties.contains_key(filter.property_name.as_str()) {
                let name = &filter.property_name;
                return Err(Reply::validation(format!(
                    "There was a problem with the request. {name} is no property."
                )));
            }
            if !OPERATORS.contains(&filter.operator.as_str()) {
                let operator = &filter.operator;
                return Err(Reply::validation(format!(
                    "Invalid input JSON: {operator} is no operator."
                )));
            }
        }
        Ok(())
    }

    /// What is found, in the order asked for: (when modified, id).
    fn found(&self, object: &ObjectType, seen: &Seen<'_>) -> Vec<(i64, u64)> {
        let groups: Vec<Vec<Test<'_>>> = self
            .filter_groups
            .iter()
            .map(|group| {
                group
                    .filters
                    .iter()
                    .map(|filter| Test::of(object, filter))
                    .collect()
            })
            .collect();
        let words = self.query.as_ref().map(|words| words.to_lowercase());
        let said = |record: &Record| {
            words.as_ref().is_none_or(|words| {
                let mut values = record.values.values();
                values.any(|value| value.to_lowercase().contains(words))
            })
        };
        let (from, to) = span(&groups);
        let mut found: Vec<(i64, u64)> = seen
            .by_modified
            .range((from, 0)..=(to, u64::MAX))
            .copied()
            .filter(|at| {
                let hit = |group: &Vec<Test<'_>>| group.iter().all(|test| test.holds(object, seen, *at));
                groups.is_empty() || groups.iter().any(hit)
            })
            .filter(|at| words.is_none() || seen.record(at.1).is_some_and(said))
            .collect();
        self.sort(object, seen, &mut found);
        found
    }

    /// Only the first sort counts; without one the order is that of the ids. It comes in the order of modification.
    fn sort(&self, object: &ObjectType, seen: &Seen<'_>, found: &mut [(i64, u64)]) {
        let (name, descending) = match self.sorts.first() {
            None => return found.sort_unstable_by_key(|at| at.1),
            Some(Sort::Named(name)) => (name.trim_start_matches('-'), name.starts_with('-')),
            Some(Sort::Directed {
                property_name,
                direction,
            }) => (property_name.as_str(), direction == "DESCENDING"),
        };
        match name {
            "hs_object_id" if descending => found.sort_unstable_by_key(|at| std::cmp::Reverse(at.1)),
            "hs_object_id" => found.sort_unstable_by_key(|at| at.1),
            name if name == object.modified_name() && descending => {
                found.sort_by_key(|at| std::cmp::Reverse(at.0));
            }
            name if name == object.modified_name() => {}
            name => {
                found.sort_unstable_by_key(|at| at.1);
                let value = |at: &(i64, u64)| seen.record(at.1).and_then(|record| object.value(record, name));
                found.sort_by(|one, other| {
                    let order = match (value(one), value(other)) {
                        (Some(one), Some(other)) => compare(object, name, &one, &other),
                        (None, None) => Ordering::Equal,
                        (None, Some(_)) => Ordering::Greater,
                        (Some(_), None) => Ordering::Less,
                    };
                    if descending { order.reverse() } else { order }
                });
            }
        }
    }
}

/// A filter made ready: those on the date of modification and on the id need no look at the record.
enum Test<'a> {
    Modified(i64, i64),
    Id(u64, u64),
    Record(&'a Filter),
}

impl<'a> Test<'a> {
    fn of(object: &ObjectType, filter: &'a Filter) -> Self {
        let text = |value: &'a Option<Text>| value.as_ref().map(|value| value.0.as_str());
        let (low, high) = (text(&filter.value), text(&filter.high_value));
        let made = match filter.property_name.as_str() {
            "hs_object_id" => {
                let bound = |text: Option<&str>| text?.parse::<u64>().ok();
                between(&filter.operator, bound(low), bound(high), 0, u64::MAX)
                    .map(|(low, high)| Test::Id(low, high))
            }
            name if name == object.modified_name() => {
                let bound = |text: Option<&str>| datetime_ms(text?);
                between(&filter.operator, bound(low), bound(high), i64::MIN, i64::MAX)
                    .map(|(low, high)| Test::Modified(low, high))
            }
            _ => None,
        };
        made.unwrap_or(Test::Record(filter))
    }

    fn holds(&self, object: &ObjectType, seen: &Seen<'_>, at: (i64, u64)) -> bool {
        match self {
            Test::Modified(low, high) => (*low..=*high).contains(&at.0),
            Test::Id(low, high) => (*low..=*high).contains(&at.1),
            Test::Record(filter) => seen
                .record(at.1)
                .is_some_and(|record| filter.holds(object, record)),
        }
    }
}

/// The smallest and the largest value that an operator lets pass; `None` if they are no single run of values.
fn between<T: Copy + Step>(
    operator: &str,
    low: Option<T>,
    high: Option<T>,
    min: T,
    max: T,
) -> Option<(T, T)> {
    let value = low?;
    match operator {
        "EQ" => Some((value, value)),
        "GTE" => Some((value, max)),
        "LTE" => Some((min, value)),
        "GT" => value.next().map(|next| (next, max)),
        "LT" => value.previous().map(|previous| (min, previous)),
        "BETWEEN" => Some((value, high?)),
        _ => None,
    }
}

/// Whole numbers that have neighbours.
trait Step: Sized {
    fn next(self) -> Option<Self>;
    fn previous(self) -> Option<Self>;
}

impl Step for i64 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

impl Step for u64 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

/// The dates of modification that the filters leave to be looked at.
fn span(groups: &[Vec<Test<'_>>]) -> (i64, i64) {
    let [group] = groups else {
        return (i64::MIN, i64::MAX);
    };
    let bounds = group.iter().filter_map(|test| match test {
        Test::Modified(low, high) => Some((*low, *high)),
        _ => None,
    });
    let (low, high) = bounds.fold((i64::MIN, i64::MAX), |all, one| {
        (all.0.max(one.0), all.1.min(one.1))
    });
    // An empty span is no range: what is looked at then is one point, which the filters refuse.
    (low, high.max(low))
}

const OPERATORS: [&str; 13] = [
    "EQ",
    "NEQ",
    "LT",
    "LTE",
    "GT",
    "GTE",
    "BETWEEN",
    "IN",
    "NOT_IN",
    "HAS_PROPERTY",
    "NOT_HAS_PROPERTY",
    "CONTAINS_TOKEN",
    "NOT_CONTAINS_TOKEN",
];

impl Filter {
    fn holds(&self, object: &ObjectType, record: &Record) -> bool {
        let held = object.value(record, &self.property_name);
        let Some(held) = held.as_deref() else {
            return matches!(
                self.operator.as_str(),
                "NOT_HAS_PROPERTY" | "NEQ" | "NOT_IN" | "NOT_CONTAINS_TOKEN"
            );
        };
        let wanted = self
            .value
            .as_ref()
            .map(|value| value.0.as_str())
            .unwrap_or_default();
        let order = |wanted: &str| compare(object, &self.property_name, held, wanted);
        match self.operator.as_str() {
            "EQ" => order(wanted).is_eq(),
            "NEQ" => order(wanted).is_ne(),
            "LT" => order(wanted).is_lt(),
            "LTE" => order(wanted).is_le(),
            "GT" => order(wanted).is_gt(),
            "GTE" => order(wanted).is_ge(),
            "BETWEEN" => {
                let high = self
                    .high_value
                    .as_ref()
                    .map(|value| value.0.as_str())
                    .unwrap_or_default();
                order(wanted).is_ge() && order(high).is_le()
            }
            // The values of IN are compared as they are, so those with capitals find nothing.
            "IN" => self.values.iter().any(|wanted| wanted.0 == held.to_lowercase()),
            "NOT_IN" => !self.values.iter().any(|wanted| wanted.0 == held.to_lowercase()),
            "HAS_PROPERTY" => true,
            "CONTAINS_TOKEN" => contains_token(held, wanted),
            "NOT_CONTAINS_TOKEN" => !contains_token(held, wanted),
            _ => false,
        }
    }
}

/// Compares two values as the property's type does: numbers and instants by size, text without case.
fn compare(object: &ObjectType, name: &str, one: &str, other: &str) -> Ordering {
    let kind = object.properties.get(name).map(|property| &property.kind);
    let by_size = match kind {
        Some(Kind::Number) => one
            .parse::<f64>()
            .ok()
            .zip(other.parse::<f64>().ok())
            .map(|(one, other)| one.total_cmp(&other)),
        Some(Kind::Date | Kind::DateTime) => datetime_ms(one)
            .zip(datetime_ms(other))
            .map(|(one, other)| one.cmp(&other)),
        _ => None,
    };
    by_size.unwrap_or_else(|| one.to_lowercase().cmp(&other.to_lowercase()))
}

/// Whether a word of the text is the wanted one; `*` stands for any letters at either end.
fn contains_token(text: &str, wanted: &str) -> bool {
    let wanted = wanted.to_lowercase();
    let bare = wanted.trim_matches('*');
    let text = text.to_lowercase();
    let mut words = text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty());
    words.any(|word| match (wanted.starts_with('*'), wanted.ends_with('*')) {
        (true, true) => word.contains(bare),
        (true, false) => word.ends_with(bare),
        (false, true) => word.starts_with(bare),
        (false, false) => word == bare,
    }) || text == wanted
}
