//! Linking: one link of one record, from what we remember to what is made and removed.
//!
//! HubSpot must end with the link to the row's target and with the links that people made. Which ones are ours is
//! remembered in `hubsyncd.link`, and every step is committed there before its request (`making`, `removing`), so
//! that a crash between any two steps leaves what the next push needs. A [`Linking`] is one pass over those steps:
//! it says what to ask, what to send and what to remember, and is told what came of it.
//!
//! What HubSpot held before we sent anything is never ours: a pair that was linked already is remembered as
//! [`Found::Link`] and left alone when the target changes. Removing the unlabelled link of a pair would remove its
//! labels too, so where a label stands beside ours the pair is left to it. A request whose outcome is not known may
//! land late: until the settle time is over, its row stays in memory, and the push that is due after that looks once
//! more. Both must agree on that time: what is remembered is never later than the request, so that the due push finds
//! it settled, and while the row is still due nothing of it is ([`Clock::quiet`]).

use std::collections::{BTreeMap, BTreeSet};

/// Where a row's link leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// To the record with this HubSpot id.
    To(String),
    /// The row names a target that has no HubSpot id yet, or several that match: nothing is made, nothing removed.
    Unknown,
    /// The row names none: what we linked is removed.
    Nowhere,
}

impl Target {
    /// The target's HubSpot id, if it is known.
    pub fn id(&self) -> Option<&str> {
        match self {
            Target::To(id) => Some(id),
            Target::Unknown | Target::Nowhere => None,
        }
    }
}

/// How far a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The request that makes it may have been sent.
    Making,
    /// HubSpot held it.
    Made,
    /// The request that removes it may have been sent.
    Removing,
}

impl State {
    /// The word in `hubsyncd.link`.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Making => "making",
            State::Made => "made",
            State::Removing => "removing",
        }
    }

    /// The state of a word in `hubsyncd.link`.
    pub fn of(word: &str) -> State {
        match word {
            "made" => State::Made,
            "removing" => State::Removing,
            _ => State::Making,
        }
    }
}

/// What HubSpot held of a pair before we linked it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Found {
    /// Nothing: the pair is linked by us alone.
    Nothing,
    /// Another association of the pair: only our label is ours.
    Pair,
    /// This very link: it is not ours.
    Link,
}

impl Found {
    /// The word in `hubsyncd.link`.
    pub fn as_str(self) -> &'static str {
        match self {
            Found::Nothing => "nothing",
            Found::Pair => "pair",
            Found::Link => "link",
        }
    }

    /// What a word in `hubsyncd.link` means.
    pub fn of(word: &str) -> Found {
        match word {
            "nothing" => Found::Nothing,
            "pair" => Found::Pair,
            _ => Found::Link,
        }
    }
}

/// A time that the database fills in with its own.
pub const NOW: i64 = i64::MAX;

/// A row of `hubsyncd.link`, without the names of its object, row and link.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Remembered {
    /// The target's HubSpot id.
    pub to: String,
    /// The HubSpot id of the record that is linked; `None`: the row's own, whichever that is.
    pub from: Option<String>,
    /// How far it is.
    pub state: State,
    /// What HubSpot held before.
    pub found: Found,
    /// A time not after the begin of the last request about it whose outcome is not known, by the database's clock in
    /// microseconds since the Unix epoch; [`NOW`]: when this is written.
    pub unsettled: Option<i64>,
}

/// What is to be remembered of one link from now on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Note {
    /// The link's name in `hubsyncd.link`.
    pub link: String,
    /// The target's HubSpot id.
    pub to: String,
    /// What is remembered; `None`: nothing any more.
    pub row: Option<Remembered>,
}

/// Two records of a link, by their HubSpot ids.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    /// The record that is linked.
    pub from: String,
    /// The target.
    pub to: String,
}

/// What HubSpot holds of a pair that it associates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Whether the link in question is held: for an unlabelled one, any association of the pair.
    pub ours: bool,
    /// Whether the pair has labels other than the link's.
    pub others: bool,
}

/// A link in our memory between the same two records: of another row, of another link of the row, one that is declared
/// in the other direction, or this very one, which the row may have been given since it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beside {
    /// Whether it is this very link of this very row.
    pub own: bool,
    /// Whether it is of the same kind: removing one would remove the other.
    pub same: bool,
    /// What HubSpot held before it was linked.
    pub found: Found,
    /// How far it is.
    pub state: State,
}

/// How the target's link is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Making {
    /// HubSpot holds it: nothing is sent.
    Stands,
    /// A request is to be sent; what is remembered is to be committed before.
    Send,
}

/// How a link is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Nothing is sent: it is not there, not ours, or others need it.
    Forget,
    /// The label is taken from the pair.
    Label,
    /// The pair is parted.
    Pair,
}

/// What became of a request about one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// HubSpot confirms it.
    Done,
    /// HubSpot refuses it.
    Refused,
    /// Not sent, or HubSpot answered and has not done it: nothing can land any more.
    Undone,
    /// Not learned: it may have been done, and may still be.
    Unknown,
}

/// The clock of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// The database's clock at the read of the row, microseconds since the Unix epoch.
    pub now: i64,
    /// How long a request whose outcome is not known may still land, microseconds.
    pub settle: i64,
    /// Until when, at least, one of this row may still land: the row is pushed once more after that. By the database's
    /// clock; the past if nothing is known of any.
    pub quiet: i64,
}

/// One link of one record on its way.
#[derive(Debug, Clone)]
pub struct Linking {
    from: String,
    labelled: bool,
    clock: Clock,
    make: Option<String>,
    stands: bool,
    /// Whether a request follows whose memory is to be committed first.
    under_way: bool,
    drops: Vec<String>,
    /// Removed links that stay in memory, since it is not known yet whether another link takes their pair over.
    lingering: BTreeSet<String>,
    read: BTreeMap<String, Remembered>,
    rows: BTreeMap<String, Remembered>,
    touched: BTreeSet<String>,
}

impl Linking {
    /// What is to be done about the link of the record `from`; `None`: nothing. `merged` is the record that was merged
    /// into it a moment ago, whose links HubSpot moved: they are looked at before they are believed.
    pub fn new(
        from: &str,
        merged: Option<&str>,
        labelled: bool,
        target: &Target,
        remembered: &[Remembered],
        clock: Clock,
    ) -> Option<Linking> {
        let mut read: BTreeMap<String, Remembered> = BTreeMap::new();
        let mut touched: BTreeSet<String> = BTreeSet::new();
        for row in remembered {
            let mut row = row.clone();
            let of = row.from.as_deref();
            if merged.is_some() && (of.is_none() || of == merged) {
                row.from = Some(from.to_owned());
                if row.state == State::Made {
                    row.state = State::Making;
                }
                touched.insert(row.to.clone());
            } else if of.is_some_and(|of| of != from) {
                // Of a record that the row has left: not this one's link, and no longer ours to remove.
                if *target != Target::Unknown {
                    touched.insert(row.to);
                }
                continue;
            }
            read.insert(row.to.clone(), row);
        }
        let make = target.id().filter(|to| match read.get(*to) {
            Some(row) => {
                row.state != State::Made || row.unsettled.is_some() && clock.recent(row.unsettled).is_none()
            }
            None => true,
        });
        let is_dropped = |row: &&Remembered| match target {
            Target::To(to) => row.to != *to,
            Target::Unknown => row.state == State::Removing,
            Target::Nowhere => true,
        };
        let drops: Vec<String> = read
            .values()
            .filter(is_dropped)
            .map(|row| row.to.clone())
            .collect();
        if make.is_none() && drops.is_empty() && touched.is_empty() {
            return None;
        }
        Some(Linking {
            from: from.to_owned(),
            labelled,
            clock,
            make: make.map(str::to_owned),
            stands: make.is_none(),
            under_way: false,
            drops,
            lingering: BTreeSet::new(),
            rows: read.clone(),
            read,
            touched,
        })
    }

    /// The record that is linked.
    pub fn from(&self) -> &str {
        &self.from
    }

    /// The target whose link is to be made, or looked at.
    pub fn to_make(&self) -> Option<&str> {
        self.make.as_deref()
    }

    /// Whether HubSpot must be asked what it holds; `is_new`: the record was created a moment ago, so nobody linked it.
    pub fn asks(&self, is_new: bool) -> bool {
        !self.drops.is_empty() || (self.make.is_some() && !is_new)
    }

    /// Whether our memory must be asked who else linked the target, because HubSpot holds something of the pair that
    /// this link did not make.
    pub fn asks_memory(&self, seen: Option<Seen>) -> bool {
        let Some((to, seen)) = self.make.as_ref().zip(seen) else {
            return false;
        };
        !seen.ours || !self.read.contains_key(to)
    }

    /// Decides how the target's link is made, and remembers it so.
    pub fn make(&mut self, seen: Option<Seen>, beside: &[Beside]) -> Making {
        let Some(to) = self.make.clone() else {
            return Making::Stands;
        };
        let known = self.read.get(&to).map(|row| row.found);
        // What the row was given since it was read is told by its memory as it is now.
        let beside: Vec<Beside> = beside
            .iter()
            .filter(|other| !other.own || known.is_none())
            .copied()
            .collect();
        if seen.is_some_and(|seen| seen.ours) {
            let found = known.unwrap_or_else(|| self.found_by(&beside));
            let unsettled = self.recent(&to);
            self.remember(&to, State::Made, found, unsettled);
            self.stands = true;
            return Making::Stands;
        }
        let is_ours = beside.iter().any(|other| other.found == Found::Nothing);
        let found = match seen {
            Some(_) if !is_ours => Found::Pair,
            _ => Found::Nothing,
        };
        self.remember(&to, State::Making, found, Some(NOW));
        self.under_way = true;
        Making::Send
    }

    /// Whether the target's link is to be sent.
    pub fn is_making(&self) -> bool {
        self.under_way && !self.stands
    }

    /// Whether a request follows whose memory is to be committed first.
    pub fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// Takes in what became of the request that makes the target's link.
    pub fn made(&mut self, answer: Answer) {
        let Some(to) = self.make.clone() else { return };
        self.under_way = false;
        let recent = self.recent(&to);
        let found = self.rows.get(&to).map_or(Found::Nothing, |row| row.found);
        match answer {
            Answer::Done => {
                self.stands = true;
                self.remember(&to, State::Made, found, recent);
            }
            Answer::Refused if recent.is_none() => self.forget(&to),
            Answer::Refused | Answer::Undone => self.remember(&to, State::Making, found, recent),
            Answer::Unknown => self.remember(&to, State::Making, found, Some(self.clock.now)),
        }
    }

    /// The links to be removed now: once the target's stands, those of which HubSpot holds what may be ours. They are
    /// remembered as being removed, which is to be committed before our memory is asked who else needs them.
    pub fn removals(&mut self, seen: impl Fn(&str) -> Option<Seen>) -> Vec<String> {
        if !self.stands {
            return Vec::new();
        }
        let mut removals = Vec::new();
        for to in std::mem::take(&mut self.drops) {
            let Some(row) = self.read.get(&to) else { continue };
            // Of a pair that we linked alone, what is left of it is ours, also where our label was taken from it.
            let is_there = seen(&to).is_some_and(|seen| seen.ours || row.found == Found::Nothing);
            if row.found == Found::Link || !is_there {
                self.let_go(&to);
            } else {
                self.remember(&to, State::Removing, row.found, Some(NOW));
                self.under_way = true;
                removals.push(to);
            }
        }
        removals
    }

    /// Decides how one of [`Linking::removals`] is removed.
    pub fn removal(&mut self, to: &str, seen: Seen, beside: &[Beside]) -> Removal {
        let found = self.read.get(to).map_or(Found::Link, |row| row.found);
        let mut stay = beside
            .iter()
            .filter(|other| !other.own && other.state != State::Removing);
        if found == Found::Nothing && !seen.others && stay.clone().count() == 0 {
            return Removal::Pair;
        }
        if stay.clone().any(|other| other.state == State::Making) {
            self.lingering.insert(to.to_owned());
        }
        if self.labelled && seen.ours && !stay.any(|other| other.same) {
            return Removal::Label;
        }
        self.let_go(to);
        Removal::Forget
    }

    /// Takes in what became of a removal.
    pub fn removed(&mut self, to: &str, answer: Answer) {
        let found = self.read.get(to).map_or(Found::Link, |row| row.found);
        match answer {
            Answer::Done => self.let_go(to),
            Answer::Refused | Answer::Undone => self.remember(to, State::Removing, found, self.recent(to)),
            Answer::Unknown => self.remember(to, State::Removing, found, Some(self.clock.now)),
        }
    }

    /// What is to be remembered, as far as this pass has touched it; `link` is the link's name.
    pub fn notes(&self, link: &str) -> Vec<Note> {
        let notes = self.touched.iter().map(|to| Note {
            link: link.to_owned(),
            to: to.clone(),
            row: self.rows.get(to).cloned(),
        });
        notes.collect()
    }

    /// What HubSpot held before a link that stands and that this row did not make: what whoever made it found.
    fn found_by(&self, beside: &[Beside]) -> Found {
        let found = beside
            .iter()
            .filter(|other| other.same || (!self.labelled && other.found == Found::Nothing))
            .map(|other| other.found);
        found.min().unwrap_or(Found::Link)
    }

    fn remember(&mut self, to: &str, state: State, found: Found, unsettled: Option<i64>) {
        let row = Remembered {
            to: to.to_owned(),
            from: Some(self.from.clone()),
            state,
            found,
            unsettled,
        };
        self.rows.insert(to.to_owned(), row);
        self.touched.insert(to.to_owned());
    }

    fn forget(&mut self, to: &str) {
        self.rows.remove(to);
        self.touched.insert(to.to_owned());
    }

    /// A link that is gone, or is left to others, is forgotten; not while a request about it may still land.
    fn let_go(&mut self, to: &str) {
        match self.recent(to) {
            None if !self.lingering.contains(to) => self.forget(to),
            recent => {
                let found = self.read.get(to).map_or(Found::Link, |row| row.found);
                self.remember(to, State::Removing, found, recent);
            }
        }
    }

    /// When an earlier pass began a request about the link that may still land.
    fn recent(&self, to: &str) -> Option<i64> {
        self.clock.recent(self.read.get(to).and_then(|row| row.unsettled))
    }
}

impl Clock {
    fn recent(self, unsettled: Option<i64>) -> Option<i64> {
        unsettled.filter(|begun| self.now < self.quiet || self.now.saturating_sub(*begun) < self.settle)
    }
}

/// Compares what we remember of the target's link with what HubSpot holds: one that is gone is to be made again, one
/// that is there is not to be made.
pub fn compare(from: &str, target: &Target, remembered: &mut Vec<Remembered>, is_held: bool) {
    let Some(to) = target.id() else { return };
    let is_here = |row: &&mut Remembered| row.to == to && row.from.as_deref().is_none_or(|of| of == from);
    match remembered.iter_mut().find(is_here) {
        Some(row) if !is_held && row.state == State::Made => row.state = State::Making,
        Some(_) => {}
        None if is_held => {
            remembered.retain(|row| row.to != to);
            remembered.push(Remembered {
                to: to.to_owned(),
                from: Some(from.to_owned()),
                state: State::Made,
                found: Found::Link,
                unsettled: None,
            });
        }
        None => {}
    }
}

#[cfg(test)]
#[path = "linking_tests.rs"]
mod tests;
