//! A change: a row was named.

use std::fmt;
use std::sync::Arc;

/// A row's key as text, as Postgres prints it. Cheap to clone.
pub type Key = Arc<str>;

/// The position of an object in [`crate::mapping::Mapping::objects`].
pub type ObjectIndex = usize;

/// A row that holds a HubSpot record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The row's object.
    pub object: ObjectIndex,
    /// The row.
    pub key: Key,
    /// The name of its object, where that is another one than that of the row for which it was asked.
    pub elsewhere: Option<Arc<str>>,
}

impl Owner {
    /// Whether it is the very row with this key for which it was asked.
    pub fn is(&self, key: &Key) -> bool {
        self.elsewhere.is_none() && self.key == *key
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.elsewhere {
            None => write!(f, "{}", self.key),
            Some(name) => write!(f, "{} of {name}", self.key),
        }
    }
}

/// Why a change was written, as `hubsyncd.change.op` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// `I`: the row was inserted.
    Insert,
    /// `N`: the row was updated while it had no HubSpot id.
    New,
    /// `U`: the row was updated, or something of ours names it again.
    Update,
    /// `D`: the row was deleted; the change carries its HubSpot id.
    Delete,
    /// `A`: a HubSpot record lost its row otherwise: it was made in vain, or its archiving is to be tried again; the
    /// change carries its id.
    Archive,
    /// `*`: something changed and could not be named; the object wants a sweep.
    Everything,
    /// `T`: the table was truncated; the object wants a sweep.
    Truncate,
}

impl Op {
    /// Reads the `"char"` column; an unknown letter, from a newer version, is a plain update.
    pub fn from_letter(letter: u8) -> Op {
        match letter {
            b'I' => Op::Insert,
            b'N' => Op::New,
            b'D' => Op::Delete,
            b'A' => Op::Archive,
            b'*' => Op::Everything,
            b'T' => Op::Truncate,
            _ => Op::Update,
        }
    }

    /// The letter of the `"char"` column.
    pub fn letter(self) -> u8 {
        match self {
            Op::Insert => b'I',
            Op::New => b'N',
            Op::Update => b'U',
            Op::Delete => b'D',
            Op::Archive => b'A',
            Op::Everything => b'*',
            Op::Truncate => b'T',
        }
    }

    /// Whether create-only properties are sent also where the record turns out to exist.
    pub fn sends_create_only(self) -> bool {
        matches!(self, Op::Insert | Op::New)
    }
}

/// One row of `hubsyncd.change`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which object.
    pub object: ObjectIndex,
    /// Its place in the change table; only rows whose `seq` was pushed are deleted.
    pub seq: i64,
    /// The row's key; `None` for [`Op::Everything`] and [`Op::Truncate`].
    pub key: Option<Key>,
    /// Why.
    pub op: Op,
    /// With [`Op::Delete`] the id that the deleted row held; with [`Op::Archive`] the record's.
    pub hubspot_id: Option<String>,
    /// When it was captured: microseconds since the Unix epoch by the database's clock.
    pub captured_at: i64,
}
