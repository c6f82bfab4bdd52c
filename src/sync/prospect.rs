//! The prospect: what happens next with one row, in sentences for people.

use super::outlook::{LinkOutlook, Outlook};
use super::report::moment;
use crate::mapping::{Object, OnDelete};

/// Where the row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the table, and read by a push.
    There,
    /// In the table, and not read: outside the mapping's condition, or not in the view.
    Outside,
    /// Not in the table, or hidden from the role.
    Gone,
}

/// Whether anybody pushes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pusher {
    /// A daemon holds the lease, heard of a moment ago.
    Present,
    /// None does; in words.
    Absent(String),
}

/// All that is known of one row.
#[derive(Debug, Clone)]
pub struct Situation<'a> {
    /// The object's mapping.
    pub object: &'a Object,
    /// The row's key.
    pub key: &'a str,
    /// Where the row is.
    pub place: Place,
    /// Who pushes.
    pub pusher: Pusher,
    /// The letters of the changes that wait, see [`super::change::Op`].
    pub waiting: Vec<&'a str>,
    /// Why the object is paused.
    pub paused: Option<&'a str>,
    /// How often the row was refused, if it is listed as refused.
    pub refused: Option<u64>,
    /// When it is pushed once more, since an older request may still land; microseconds since the Unix epoch.
    pub due_at: Option<i64>,
    /// What a push would do; `None` while HubSpot cannot be asked.
    pub outlook: Option<&'a Outlook>,
    /// What it would do about each link, by name.
    pub links: Vec<(&'a str, &'a LinkOutlook)>,
    /// The record that a row which is gone had.
    pub left_behind: Option<&'a str>,
    /// When that was archived, microseconds since the Unix epoch.
    pub archived_at: Option<i64>,
}

impl Situation<'_> {
    /// What happens next, one sentence each, the first thing first.
    pub fn next(&self) -> Vec<String> {
        let mut next = Vec::new();
        if let Pusher::Absent(why) = &self.pusher {
            next.push(format!("nothing happens until a daemon runs: {why}"));
        }
        if let Some(why) = self.paused {
            let name = &self.object.name;
            next.push(format!(
                "{name} is paused, and one record of it tried every minute: {why}"
            ));
        }
        next.push(self.when());
        match self.place {
            Place::There => self.there(&mut next),
            Place::Outside => next.push(
                "it is not pushed: it is outside the object's `where`, or the view that it is read from does not show it; its \
                 HubSpot record stays as it is"
                    .to_owned(),
            ),
            Place::Gone => next.push(self.gone()),
        }
        if let Some(due_at) = self.due_at {
            next.push(format!(
                "at {} it is pushed once more, since an older request may land until then",
                moment(due_at)
            ));
        }
        if let Some(times) = self.refused {
            let (name, key) = (&self.object.name, self.key);
            next.push(format!(
                "it was refused {}; each change and each sweep tries again, and `hubsyncd failures retry {name} {key}` does at \
                 once",
                often(times)
            ));
        }
        next
    }

    fn when(&self) -> String {
        match self.waiting.len() {
            0 if self.place != Place::There => "no change of it waits".to_owned(),
            0 => "no change of it waits: it is pushed when it changes, and by the next sweep".to_owned(),
            1 => "a change of it waits, and is pushed in its turn".to_owned(),
            many => format!("{many} changes of it wait, and are pushed in one, in their turn"),
        }
    }

    fn there(&self, next: &mut Vec<String>) {
        let Some(outlook) = self.outlook else {
            next.push("what would be sent cannot be told while HubSpot cannot be asked".to_owned());
            return;
        };
        next.push(self.of(outlook));
        if matches!(outlook, Outlook::Refuse(_) | Outlook::Leave) {
            return;
        }
        for (name, link) in &self.links {
            if let Some(to) = &link.make {
                next.push(format!("then it is linked with {to} ({name})"));
            }
            for from in &link.remove {
                next.push(format!(
                    "then its link with {from} ({name}), which we made, is removed"
                ));
            }
            if link.waits {
                next.push(format!(
                    "its link with {name} waits until the row it leads to has a HubSpot id"
                ));
            }
        }
    }

    fn of(&self, outlook: &Outlook) -> String {
        let match_on = self.object.match_on.as_deref().unwrap_or("natural key");
        match outlook {
            Outlook::Create => format!("a push makes a record, to be found again by its {match_on}"),
            Outlook::Adopt {
                id,
                update_only: false,
            } => {
                format!("a push takes over record {id}, which has its {match_on} and belongs to no other row")
            }
            Outlook::Adopt {
                id,
                update_only: true,
            } => format!(
                "a push takes over record {id}, which has its {match_on} and belongs to no other row, and writes to it what \
                 updates carry"
            ),
            Outlook::Update { id, differing } if differing.is_empty() => {
                format!("a push writes to record {id} what it holds already")
            }
            Outlook::Update { id, differing } => {
                format!("a push puts {} of record {id} right", differing.join(", "))
            }
            Outlook::Keep { id } => format!(
                "nothing is written to record {id}: its properties are written when it is made, and no more"
            ),
            Outlook::Merged { into } => {
                format!(
                    "its record was merged into {into} in HubSpot: a push takes that id over and writes to it"
                )
            }
            Outlook::Leave => {
                "nothing is sent: it has no HubSpot id, and this object is never created here".to_owned()
            }
            Outlook::Wait(until) => format!(
                "nothing is sent before {}: only then is it known what became of an earlier create",
                moment(*until)
            ),
            Outlook::Refuse(refusal) => format!("it is refused ({}): {}", refusal.category, refusal.message),
        }
    }

    fn gone(&self) -> String {
        let dies = self.waiting.iter().any(|op| matches!(*op, "D" | "A"));
        match (self.object.on_delete, self.left_behind, self.archived_at) {
            (_, _, Some(at)) => format!(
                "its HubSpot record was archived at {}; HubSpot can restore it for 90 days",
                moment(at)
            ),
            (OnDelete::Keep, Some(id), None) => {
                format!("its HubSpot record {id} stays as it is: on-delete = \"keep\"")
            }
            (OnDelete::Archive, Some(id), None) if dies => {
                format!("record {id} is archived, unless another row holds it by then")
            }
            (OnDelete::Archive, Some(id), None) => {
                format!("record {id} is not archived yet: see why it was refused")
            }
            (_, None, None) => "nothing: there is no such row here, and none is remembered".to_owned(),
        }
    }
}

/// How often, in words.
pub fn often(times: u64) -> String {
    match times {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        many => format!("{many} times"),
    }
}
