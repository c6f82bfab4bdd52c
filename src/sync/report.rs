//! What operators are told: runs with their summaries, and failures.

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a sweep did to one object's rows; each row counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Rows that got their HubSpot id in this sweep, also by adoption.
    pub created: u64,
    /// Rows that had one and were written.
    pub updated: u64,
    /// Rows refused, or a link of which was refused.
    pub failed: u64,
}

/// The counts of every object, in the order of the mapping. A JSON object, as `hubsyncd.run.summary` holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary(pub Vec<(String, Counts)>);

impl Summary {
    /// The counts of one object; zeros if it is not there.
    pub fn of(&self, object: &str) -> Counts {
        self.0
            .iter()
            .find(|(name, _)| name == object)
            .map_or_else(Counts::default, |(_, counts)| *counts)
    }
}

impl Serialize for Summary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, counts) in &self.0 {
            map.serialize_entry(name, counts)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Summary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Summary, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Summary;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of counts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Summary, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Summary(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// The outcome of a run of the mirror that was to take the first few records only, and did: it makes nothing complete.
pub const LIMITED: &str = "limited";

/// One row of `hubsyncd.run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// What ran: `sweep`.
    pub kind: String,
    /// Who asked: `start`, `clock`, `signal`, `socket`, `trigger`, …
    pub reason: String,
    /// Microseconds since the Unix epoch.
    #[serde(serialize_with = "rfc3339")]
    pub started_at: i64,
    /// Microseconds since the Unix epoch; `None` while it runs.
    #[serde(serialize_with = "rfc3339_or_null")]
    pub finished_at: Option<i64>,
    /// `complete`, `incomplete`, or [`LIMITED`]; `None` while it runs.
    pub outcome: Option<String>,
    /// Why it is incomplete, without personal data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it did, by object.
    pub summary: Summary,
}

impl Run {
    /// Whether every row was reached. Refused rows do not make a run incomplete.
    pub fn is_complete(&self) -> bool {
        self.outcome.as_deref() == Some("complete")
    }

    /// Whether it did all that it was to do.
    pub fn is_done(&self) -> bool {
        self.is_complete() || self.outcome.as_deref() == Some(LIMITED)
    }
}

/// One row of `hubsyncd.failure`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The object's name.
    pub object: String,
    /// The row's key; `None` where the whole object is at fault.
    pub key: Option<String>,
    /// The row's HubSpot id, if it has one.
    pub hubspot_id: Option<String>,
    /// See [`super::outcome::Refusal::category`].
    pub category: String,
    /// Without personal data.
    pub message: String,
    /// HubSpot's, for its support.
    pub correlation_id: Option<String>,
    /// How often it was refused.
    pub attempts: u64,
    /// Microseconds since the Unix epoch.
    #[serde(serialize_with = "rfc3339")]
    pub first_failed_at: i64,
    /// Microseconds since the Unix epoch.
    #[serde(serialize_with = "rfc3339")]
    pub last_failed_at: i64,
}

/// Which failures have one cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CauseName {
    /// The object's name.
    pub object: String,
    /// See [`super::outcome::Refusal::category`]; `paused` is the whole object's.
    pub category: String,
    /// What their messages have in common.
    pub shape: String,
}

/// Failures that have one cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Which.
    pub name: CauseName,
    /// How many.
    pub records: u64,
    /// The message of one of them, without personal data.
    pub message: String,
    /// The key of one of them; `None` where the whole object is at fault.
    pub key: Option<String>,
    /// The first refusal, microseconds since the Unix epoch.
    pub first_failed_at: i64,
    /// The last refusal, microseconds since the Unix epoch.
    pub last_failed_at: i64,
}

/// An error with all its causes in one line; libraries keep what a server said in a cause.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A moment as people and monitors read it, e.g. `2026-11-21T02:00:00Z`; a moment out of range is empty.
pub fn moment(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).map_or_else(|_| String::new(), |moment| moment.to_string())
}

fn rfc3339<S: Serializer>(micros: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&moment(*micros))
}

fn rfc3339_or_null<S: Serializer>(micros: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    micros.map(moment).serialize(serializer)
}
