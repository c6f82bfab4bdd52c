//! The cost of a sweep: what a plan counts, and the requests and the time that sending it would take.

use super::outcome::Refusal;
use super::outlook::{LinkOutlook, Outlook};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// The most refused rows that are told one by one.
const EXAMPLES_MAX: usize = 20;

/// The share of the window that sweeps leave to live changes: one in this many requests.
const KEPT_FOR_CHANGES: u32 = 20;

/// What a sweep would do with the rows of one object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// The rows that it would read.
    pub rows: u64,
    /// Rows of which a record would be made.
    pub create: u64,
    /// Rows that would take over a record that nobody owns.
    pub adopt: u64,
    /// Rows whose record would be written.
    pub update: u64,
    /// Of these, rows of which HubSpot holds something else.
    pub differing: u64,
    /// Links that would be made.
    pub link: u64,
    /// Links of ours that would be removed.
    pub unlink: u64,
    /// Rows that would be refused before anything is sent.
    pub refuse: u64,
    /// Why, by category.
    pub refusals: BTreeMap<String, u64>,
    /// Rows that were refused the last time, whatever is sent of them now.
    pub refused_before: u64,
    /// Rows without a HubSpot id that are never created here.
    pub leave: u64,
    /// Rows of which an earlier create is not known to have landed yet.
    pub wait: u64,
    /// Requests to HubSpot, about.
    pub requests: u64,
    /// Searches, which have a limit of their own, about.
    pub searches: u64,
    /// Some of the refused rows.
    pub examples: Vec<Refused>,
}

/// A row that would be refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Its key.
    pub key: String,
    /// See [`Refusal::category`].
    pub category: String,
    /// Why, and what to do.
    pub message: String,
}

/// One row of a batch, as the plan sees it.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Its key.
    pub key: String,
    /// What would be done with its record.
    pub outlook: Outlook,
    /// What would be done about each of its links.
    pub links: Vec<LinkOutlook>,
    /// Whether it was refused the last time.
    pub failed: bool,
}

/// How the records of an object are created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Creating {
    /// HubSpot is asked for the natural key before.
    pub asks_first: bool,
    /// HubSpot does not keep the natural key unique: it is searched for.
    pub guarded: bool,
}

impl Tally {
    /// Counts a batch: rows that are sent in one.
    pub fn count(&mut self, batch: &[Planned], creating: Creating) {
        let (mut creates, mut updates, mut vanished) = (false, false, 0_u64);
        let links = batch.iter().map(|row| row.links.len()).max().unwrap_or_default();
        let (mut makes, mut removes) = (vec![false; links], vec![false; links]);
        for row in batch {
            self.rows += 1;
            self.refused_before += u64::from(row.failed);
            match &row.outlook {
                Outlook::Create => (self.create, creates) = (self.create + 1, true),
                Outlook::Adopt { .. } => (self.adopt, creates) = (self.adopt + 1, true),
                Outlook::Update { differing, .. } => {
                    (self.update, updates) = (self.update + 1, true);
                    self.differing += u64::from(!differing.is_empty());
                }
                // It had an id, as a sweep counts it, and takes no request.
                Outlook::Keep { .. } => self.update += 1,
                Outlook::Merged { .. } => {
                    (self.update, updates) = (self.update + 1, true);
                    self.differing += 1;
                    vanished += 1;
                }
                Outlook::Leave => self.leave += 1,
                Outlook::Wait(_) => self.wait += 1,
                Outlook::Refuse(refusal) => {
                    if matches!(refusal.category.as_str(), "missing" | "merged") {
                        // Only when its update is not confirmed is it asked for.
                        (updates, vanished) = (true, vanished + 1);
                    }
                    self.refuse(&row.key, refusal);
                }
            }
            if matches!(
                row.outlook,
                Outlook::Refuse(_) | Outlook::Leave | Outlook::Wait(_)
            ) {
                continue;
            }
            for (at, link) in row.links.iter().enumerate() {
                self.link += u64::from(link.make.is_some());
                self.unlink += link.remove.len() as u64;
                makes[at] |= link.make.is_some();
                removes[at] |= !link.remove.is_empty();
            }
        }
        let asks = creates && creating.asks_first && !creating.guarded;
        let made = makes.iter().filter(|makes| **makes).count() as u64;
        // What is removed is looked at before and after.
        let removed = 3 * removes.iter().filter(|removes| **removes).count() as u64;
        self.requests += u64::from(updates) + u64::from(creates) + u64::from(asks) + made + removed;
        // All of them are asked for at once, and then each by itself.
        self.requests += vanished + u64::from(vanished > 0);
        self.searches += u64::from(creates && creating.guarded);
    }

    /// Counts a row that is refused.
    pub fn refuse(&mut self, key: &str, refusal: &Refusal) {
        self.refuse += 1;
        *self.refusals.entry(refusal.category.clone()).or_default() += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(Refused {
                key: key.to_owned(),
                category: refusal.category.clone(),
                message: refusal.message.clone(),
            });
        }
    }
}

/// How fast requests go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Requests in a window.
    pub requests: u32,
    /// The window.
    pub window: Duration,
    /// How long a request takes.
    pub latency: Duration,
    /// How many are on their way at one time.
    pub in_flight: u32,
}

/// How long a sweep takes that sends so many requests: as long as the limit or the network wants, whichever is slower.
pub fn duration(requests: u64, speed: Speed) -> Duration {
    let count = requests as f64;
    let allowed = f64::from(speed.requests - speed.requests / KEPT_FOR_CHANGES).max(1.0);
    let by_limit = count * speed.window.as_secs_f64() / allowed;
    let by_network = count * speed.latency.as_secs_f64() / f64::from(speed.in_flight.max(1));
    Duration::try_from_secs_f64(by_limit.max(by_network)).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATING: Creating = Creating {
        asks_first: true,
        guarded: false,
    };

    fn row(outlook: Outlook) -> Planned {
        Planned {
            key: "1".to_owned(),
            outlook,
            links: vec![LinkOutlook::default()],
            failed: false,
        }
    }

    fn update(differing: &[&str]) -> Outlook {
        Outlook::Update {
            id: "7".to_owned(),
            differing: differing.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn a_batch_costs_a_request_for_each_thing_that_some_of_its_rows_want() {
        let mut tally = Tally::default();
        tally.count(&[row(update(&[])), row(update(&["a"]))], CREATING);
        assert_eq!((tally.requests, tally.update, tally.differing), (1, 2, 1));
        tally.count(&[row(Outlook::Create), row(update(&[]))], CREATING);
        assert_eq!(
            (tally.requests, tally.create, tally.searches),
            (4, 1, 0),
            "ask, create, update"
        );
        let guarded = Creating {
            guarded: true,
            ..CREATING
        };
        tally.count(&[row(Outlook::Create)], guarded);
        assert_eq!((tally.requests, tally.searches), (5, 1));
        let linked = Planned {
            links: vec![LinkOutlook {
                make: Some("9".to_owned()),
                remove: vec!["8".to_owned()],
                waits: false,
            }],
            ..row(update(&[]))
        };
        tally.count(&[linked.clone(), linked], CREATING);
        assert_eq!((tally.requests, tally.link, tally.unlink), (10, 2, 2));
        tally.count(&[row(Outlook::Leave), row(Outlook::Wait(1))], CREATING);
        assert_eq!(
            (tally.requests, tally.leave, tally.wait, tally.rows),
            (10, 1, 1, 9)
        );
    }

    #[test]
    fn however_many_rows_are_refused_few_are_told_one_by_one() {
        let mut tally = Tally::default();
        for number in 0..1000 {
            tally.refuse(&number.to_string(), &Refusal::ours("value", "it is infinite"));
        }
        assert_eq!(
            (tally.refuse, tally.refusals["value"], tally.examples.len()),
            (1000, 1000, EXAMPLES_MAX)
        );
    }

    #[test]
    fn a_sweep_lasts_as_long_as_the_slower_of_limit_and_network_wants() {
        let speed = Speed {
            requests: 100,
            window: Duration::from_secs(10),
            latency: Duration::from_millis(300),
            in_flight: 8,
        };
        assert_eq!(duration(950, speed), Duration::from_secs(100));
        let slow = Speed {
            latency: Duration::from_secs(8),
            ..speed
        };
        assert_eq!(duration(950, slow), Duration::from_secs(950));
        assert_eq!(duration(0, speed), Duration::ZERO);
    }
}
