//! The guard: what HubSpot is asked before a record is created, so that one row is one record.
//!
//! Every create is preceded by an intent in our own table, so that whoever comes after a lost answer or a crash knows
//! under which natural key a record may have been made. Where HubSpot keeps the key unique a create is an upsert and
//! may be repeated at once; only if the row has changed its key since, the old one is asked for first. Where HubSpot
//! does not, nothing is repeated until a search has said what became of the last attempt, and a search knows only
//! when the attempt can land no more (`settle`) and what landed has come into the index (`lag`).
//!
//! Times are microseconds since the Unix epoch by the database's clock.

use super::change::Owner;
use super::outcome::Refusal;
use super::plan::{Adoption, Rules};
use super::record::Record;

/// The longest that HubSpot's search index is believed to lag behind its records: half a minute has been reported.
const LAG_MAX: i64 = 30_000_000;

/// How far HubSpot's clock may be behind the database's.
const CLOCKS: i64 = 10_000_000;

/// How long a search has to wait for the index, by the settle time: a quarter of it, and half a minute at most.
pub fn index_lag(settle: i64) -> i64 {
    (settle / 4).min(LAG_MAX)
}

/// The guard of one object.
#[derive(Debug, Clone, Copy)]
pub struct Guard<'a> {
    /// What the object's mapping says.
    pub rules: &'a Rules,
    /// How long after its start a request may still land.
    pub settle: i64,
    /// Until when another daemon, which held the lease before, may have started requests; `None` if it ended well.
    pub former: Option<i64>,
}

/// A row that is to be created.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its natural key, as [`Rules::normalise`] has it.
    pub value: String,
    /// The create whose outcome is not known.
    pub pending: Option<Pending>,
    /// Whether an insert named it, so that no record of it can be older than the row.
    pub inserted: bool,
}

/// A create that was sent, or was about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The natural key it was sent under, normalised.
    pub value: String,
    /// When it was started, at the latest.
    pub started: i64,
}

/// What is done first for a row that is to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Create it.
    Create,
    /// Ask HubSpot for its own natural key: [`Guard::asked`].
    Ask,
    /// Ask HubSpot for the natural key of the pending create: [`Guard::resolved`].
    Resolve,
    /// Nothing before this time.
    Wait(i64),
}

/// A record that HubSpot found under a natural key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Its id.
    pub id: String,
    /// The other row that holds it.
    pub owner: Option<Owner>,
    /// Whether another row is being given it, or loses it, right now.
    pub busy: bool,
    /// Until when a request to archive it, as the record of a row that was deleted, may still land.
    pub leaves: Option<i64>,
    /// When HubSpot made it, by its own clock.
    pub created_at: Option<i64>,
}

/// What the create of a row that is gone has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// Nothing, or nothing that is nobody's.
    Nothing,
    /// This record.
    Record(String),
    /// One of several records, if any.
    Unclear,
}

/// What an answer to a question means for the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Create it (by upsert, where the key is unique).
    Create,
    /// The pending create is over: go on as if there were none.
    GoOn {
        /// What to do next; never [`Next::Resolve`].
        next: Next,
        /// The row that holds the record which the pending create may have written to: its values are to win again.
        owner: Option<Owner>,
    },
    /// The record is this row's: write to it.
    Update {
        /// Its id.
        id: String,
        /// Whether create-only properties are left out.
        update_only: bool,
    },
    /// Nothing before this time.
    Wait(i64),
    /// Nothing before it is seen what became of the record, which another row is on its way to.
    Held,
    /// The row is refused.
    Refuse(Refusal),
}

impl Hit {
    /// Whether it is not known yet whose it will be, or whether it will be there.
    fn is_on_its_way(&self) -> bool {
        self.busy || self.leaves.is_some()
    }

    fn awaited(&self) -> Answer {
        match self.leaves {
            Some(until) if !self.busy => Answer::Wait(until),
            _ => Answer::Held,
        }
    }
}

impl Guard<'_> {
    /// The create of a row whose outcome is not known, if one was noted. One of a former holder of the lease may have
    /// been started as late as that could start any request.
    pub fn pending(&self, record: &Record) -> Option<Pending> {
        let intent = record.intent.as_ref()?;
        Some(self.sent(intent.match_value.as_deref()?, intent.noted_at))
    }

    /// The create that was noted at this time under this natural key.
    pub fn sent(&self, match_value: &str, noted_at: i64) -> Pending {
        let value = self.rules.normalise(match_value);
        let started = self.former.map_or(noted_at, |former| noted_at.max(former));
        Pending { value, started }
    }

    /// When it can be known what became of a create: it can land no more, and a search would find what landed.
    pub fn known_at(&self, pending: &Pending) -> i64 {
        let lag = if self.rules.guarded {
            index_lag(self.settle)
        } else {
            0
        };
        pending.started.saturating_add(self.settle).saturating_add(lag)
    }

    /// What a create that was first noted at this time has made, by what HubSpot has under its natural key. The row is gone, so
    /// what is said to be its record is taken away: one that a row holds, or that is older, is not, and neither is any of
    /// several that nobody holds.
    pub fn made(&self, first_at: i64, hits: &[Hit]) -> Made {
        let ours = |hit: &Hit| {
            hit.created_at
                .is_some_and(|at| at >= first_at.saturating_sub(CLOCKS))
        };
        let of_nobody: Vec<&Hit> = hits.iter().filter(|hit| hit.owner.is_none()).collect();
        match of_nobody.as_slice() {
            [] => Made::Nothing,
            [hit] if ours(hit) => Made::Record(hit.id.clone()),
            [_] => Made::Nothing,
            _ => Made::Unclear,
        }
    }

    /// What is done first for a row.
    pub fn next(&self, row: &Row, now: i64) -> Next {
        match &row.pending {
            Some(pending) if self.rules.guarded => {
                let known = self.known_at(pending);
                if now < known {
                    Next::Wait(known)
                } else {
                    Next::Resolve
                }
            }
            Some(pending) if pending.value != row.value => Next::Resolve,
            _ if self.rules.ask_first || (self.rules.guarded && !row.inserted) => Next::Ask,
            _ => Next::Create,
        }
    }

    /// What HubSpot's answer to the question for the pending create's natural key means.
    pub fn resolved(&self, row: &Row, hits: &[Hit], now: i64) -> Answer {
        let Some(pending) = &row.pending else {
            return self.go_on(row, None);
        };
        let same = pending.value == row.value;
        let landed = pending.started + self.settle;
        match hits {
            [] if now < landed => Answer::Wait(landed),
            // What is asked for now is asked for, under whatever key.
            [] if same => Answer::Create,
            [] => self.go_on(row, None),
            [hit] => match &hit.owner {
                None if hit.is_on_its_way() => hit.awaited(),
                None => Answer::Update {
                    id: hit.id.clone(),
                    update_only: false,
                },
                Some(owner) if same => Answer::Refuse(self.rules.owned(&hit.id, owner)),
                Some(_) if now < landed => Answer::Wait(landed),
                Some(owner) => self.go_on(row, Some(owner.clone())),
            },
            several => Answer::Refuse(self.several(several.len())),
        }
    }

    /// What HubSpot's answer to the question for the row's own natural key means.
    pub fn asked(&self, row: &Row, hits: &[Hit]) -> Answer {
        let hit = match hits {
            [] => return Answer::Create,
            [hit] => hit,
            several => return Answer::Refuse(self.several(several.len())),
        };
        if hit.owner.is_none() && hit.is_on_its_way() {
            return hit.awaited();
        }
        if row.pending.is_some() && hit.owner.is_none() {
            // Asked before, it was not there: our own create made it.
            return Answer::Create;
        }
        match self.rules.adoption(Some(&hit.id), hit.owner.as_ref()) {
            Adoption::Upsert if self.rules.guarded => Answer::Update {
                id: hit.id.clone(),
                update_only: false,
            },
            Adoption::Upsert => Answer::Create,
            Adoption::UpdateOnly(id) => Answer::Update {
                id,
                update_only: true,
            },
            Adoption::Refuse(refusal) => Answer::Refuse(refusal),
        }
    }

    fn go_on(&self, row: &Row, owner: Option<Owner>) -> Answer {
        let anew = Row {
            pending: None,
            ..row.clone()
        };
        let next = self.next(&anew, i64::MAX);
        Answer::GoOn { next, owner }
    }

    fn several(&self, count: usize) -> Refusal {
        let match_on = self.rules.match_on.as_deref().unwrap_or("natural key");
        Refusal::ours(
            "ambiguous",
            format!(
                "HubSpot has {count} records with this {match_on}, so it cannot be told which of them is this row's; merge \
                 or delete all but one there, or write the id of the right one into the row"
            ),
        )
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
