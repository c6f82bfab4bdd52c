//! The order of the mapping. The daemon's answers keep it; a JSON value, once read, does not.

use crate::mapping::Mapping;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use std::fmt;

/// The objects' names, in order.
#[derive(Debug, Default)]
pub(super) struct Order(Vec<String>);

impl Order {
    /// The order of the `objects`, or else of the `summary`, of an answer.
    pub(super) fn of(answer: &str) -> Order {
        #[derive(Deserialize)]
        struct Named {
            #[serde(default)]
            objects: Order,
            #[serde(default)]
            summary: Order,
        }
        match serde_json::from_str(answer) {
            Ok(Named { objects, summary }) if objects.0.is_empty() => summary,
            Ok(Named { objects, .. }) => objects,
            Err(_) => Order::default(),
        }
    }

    /// The order of a mapping.
    pub(super) fn of_mapping(mapping: &Mapping) -> Order {
        Order(mapping.objects.iter().map(|object| object.name.clone()).collect())
    }

    /// What a JSON object holds by name, in this order; what has no place in it comes last.
    pub(super) fn of_entries<'a>(&self, value: &'a Value) -> Vec<(&'a String, &'a Value)> {
        let mut entries: Vec<_> = value.as_object().into_iter().flatten().collect();
        entries.sort_by_key(|(name, _)| {
            let place = self.0.iter().position(|known| known == *name);
            place.unwrap_or(self.0.len())
        });
        entries
    }
}

impl<'de> Deserialize<'de> for Order {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Order, D::Error> {
        deserializer.deserialize_map(Names)
    }
}

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Order;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Order, A::Error> {
        let mut names = Vec::new();
        while let Some((name, IgnoredAny)) = map.next_entry()? {
            names.push(name);
        }
        Ok(Order(names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answers_order_is_kept_and_strangers_come_last() {
        let answer = r#"{"pending": 1, "objects": {"zoo": {"pending": 1}, "ant": {}}}"#;
        let order = Order::of(answer);
        let value: Value = serde_json::from_str(r#"{"ant": 1, "bee": 2, "zoo": 3}"#).expect("JSON");
        let names: Vec<_> = order
            .of_entries(&value)
            .into_iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["zoo", "ant", "bee"]);
        assert_eq!(Order::of(r#"{"summary": {"b": {}, "a": {}}}"#).0, ["b", "a"]);
        assert_eq!(Order::of("nonsense").0, [""; 0]);
    }
}
