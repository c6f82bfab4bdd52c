//! The lanes: who may send a request to HubSpot, and when.
//!
//! HubSpot allows a token so many requests in a rolling window. [`Lanes`] is that one budget as plain
//! arithmetic: three lanes ask for it, time comes in as a [`Duration`] since an epoch of the caller's
//! choice, and nothing here waits. It promises:
//!
//! - **Never too many.** HubSpot counts a request somewhere between the moment it was granted and the
//!   moment its answer came, so it stays charged until one window after its *answer*. No rolling window,
//!   wherever on the way HubSpot looks, sees more than the budget.
//! - **Changes first.** A change takes at once whatever the window has left; a twentieth of it (and one
//!   request in flight) is never given to sweep and mirror.
//! - **Nobody starves.** While sweep or mirror ask, a twentieth of the window (and one request in flight)
//!   is not given to changes; sweep and mirror take turns.
//! - **Evenly.** Sweep and mirror slots lie on a grid over the window, so that they leave no gap in which
//!   HubSpot idles and no burst behind which a change would wait.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// On whose behalf a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// A live change.
    Change,
    /// The sweep.
    Sweep,
    /// The mirror.
    Mirror,
}

/// A place in the queue for a slot, in order of arrival.
pub type Ticket = u64;

/// Leave to send one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Counts the grants; a higher number was granted later.
    pub number: u64,
    /// For whom.
    pub lane: Lane,
}

/// What [`Lanes::advance`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    /// How many tickets were granted.
    pub granted: u64,
    /// When time alone may allow more; `None`: not before something happens.
    pub look_again: Option<Duration>,
}

/// What the token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Requests in a window.
    pub requests: u32,
    /// The rolling window.
    pub window: Duration,
    /// Requests on their way at one time.
    pub in_flight: u32,
}

/// What the headers of an answer say of the window; absent where HubSpot said nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    /// `X-HubSpot-RateLimit-Max`: requests in a window.
    pub requests: Option<u32>,
    /// `X-HubSpot-RateLimit-Interval-Milliseconds`: the window.
    pub window: Option<Duration>,
    /// `X-HubSpot-RateLimit-Remaining`: requests left in it, everybody's counted.
    pub remaining: Option<u32>,
}

/// The part of the window kept for changes, and again for sweep and mirror.
const KEPT: u32 = 20;

/// How far the grid of sweep and mirror may lie behind, as a part of the window: what a stall of that
/// length missed is made up for, so that the rate holds; a longer one is not followed by a burst.
const ARREARS: u32 = 20;

/// A request does not overtake another on its way to HubSpot that was sent so much earlier.
const OVERTAKING: Duration = Duration::from_millis(50);

/// One budget, three lanes.
#[derive(Debug)]
pub struct Lanes {
    budget: Budget,
    waiting: BTreeMap<Ticket, Lane>,
    /// Granted to a ticket and not picked up yet.
    granted: BTreeMap<Ticket, Grant>,
    /// Granted and not answered: number → lane and time of the grant.
    open: BTreeMap<u64, (Lane, Duration)>,
    /// Answered, in order of the answers; charged for one window more.
    answered: VecDeque<Answered>,
    /// How many of `answered` each share has.
    answered_of: [u32; 2],
    /// The times of the grants of the last window, by share (changes; sweep and mirror).
    grants: [VecDeque<Duration>; 2],
    /// Where on the grid the last paced grant lay.
    grid: Option<Duration>,
    /// What somebody else uses of the window, and until when we believe it.
    foreign: (u32, Duration),
    /// The newest request whose `Remaining` we heard.
    newest_heard: u64,
    closed_until: Duration,
    /// How many more requests sweep and mirror may be granted, and until when that holds.
    spare: Option<(u64, Duration)>,
    halted: bool,
    /// One request at a time, until one granted from this number on succeeds.
    careful: Option<u64>,
    last_paced: Lane,
    next_ticket: Ticket,
    next_number: u64,
}

/// A request that HubSpot counted somewhere between its grant and its answer.
#[derive(Debug, Clone, Copy)]
struct Answered {
    at: Duration,
    granted: Duration,
    lane: Lane,
}

/// Changes, or sweep and mirror together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    Changes,
    Paced,
}

fn share(lane: Lane) -> Share {
    match lane {
        Lane::Change => Share::Changes,
        Lane::Sweep | Lane::Mirror => Share::Paced,
    }
}

impl Lanes {
    /// A fresh window, nothing sent yet. Zeros in `budget` are read as ones.
    pub fn new(budget: Budget) -> Lanes {
        Lanes {
            budget: sane(budget),
            waiting: BTreeMap::new(),
            granted: BTreeMap::new(),
            open: BTreeMap::new(),
            answered: VecDeque::new(),
            answered_of: [0, 0],
            grants: [VecDeque::new(), VecDeque::new()],
            grid: None,
            foreign: (0, Duration::ZERO),
            newest_heard: 0,
            closed_until: Duration::ZERO,
            spare: None,
            halted: false,
            careful: None,
            last_paced: Lane::Mirror,
            next_ticket: 1,
            next_number: 1,
        }
    }

    /// Replaces the budget, as a reload does.
    pub fn set_budget(&mut self, budget: Budget) {
        self.budget = sane(budget);
    }

    /// The budget as configured and corrected by what was heard.
    pub fn budget(&self) -> Budget {
        self.budget
    }

    /// Queues up; ask [`Lanes::advance`], then [`Lanes::take`].
    pub fn queue(&mut self, lane: Lane) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.insert(ticket, lane);
        ticket
    }

    /// Gives up a place in the queue, and what was granted to it meanwhile.
    pub fn leave(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
        if let Some(grant) = self.granted.remove(&ticket) {
            self.refund(grant.number);
        }
    }

    /// Picks up what was granted to a ticket.
    pub fn take(&mut self, ticket: Ticket) -> Option<Grant> {
        self.granted.remove(&ticket)
    }

    /// Grants what may be granted now.
    pub fn advance(&mut self, now: Duration) -> Advance {
        self.expire(now);
        let before = self.next_number;
        while let Some(ticket) = self.next_ticket_served(now) {
            if let Some(lane) = self.waiting.remove(&ticket) {
                let grant = self.grant(lane, now);
                self.granted.insert(ticket, grant);
            }
        }
        Advance {
            granted: self.next_number - before,
            look_again: if self.waiting.is_empty() || self.halted {
                None
            } else {
                self.next_event(now)
            },
        }
    }

    /// One request past the queue and past a halt, for the probe of a halted door. It is charged.
    pub fn probe(&mut self, now: Duration) -> Grant {
        self.expire(now);
        self.grant(Lane::Change, now)
    }

    /// The request was never sent: it is not charged.
    pub fn refund(&mut self, number: u64) {
        if let Some((lane, at)) = self.open.remove(&number) {
            let grants = &mut self.grants[share(lane) as usize];
            if let Some(place) = grants.iter().rposition(|granted| *granted == at) {
                grants.remove(place);
            }
        }
    }

    /// The request's answer came, or was given up.
    pub fn answered(&mut self, number: u64, now: Duration) {
        if let Some((lane, granted)) = self.open.remove(&number) {
            self.answered.push_back(Answered {
                at: now,
                granted,
                lane,
            });
            self.answered_of[share(lane) as usize] += 1;
        }
    }

    /// Believes an answer's headers: `Max` and `Interval` always, `Remaining` only if it is lower than
    /// what we count ourselves and no newer request has been heard. Call it before [`Lanes::answered`].
    pub fn hear(&mut self, number: u64, heard: Heard, now: Duration) {
        self.expire(now);
        if let Some(requests) = heard.requests.filter(|requests| (1..=100_000).contains(requests)) {
            self.budget.requests = requests;
        }
        let believable = Duration::from_millis(100)..=Duration::from_secs(600);
        if let Some(window) = heard.window.filter(|window| believable.contains(window)) {
            self.budget.window = window;
        }
        if let Some(remaining) = heard.remaining
            && number > self.newest_heard
        {
            self.newest_heard = number;
            let ours = self.surely_counted_with(number);
            let left = self.budget.requests.saturating_sub(ours);
            self.foreign = (left.saturating_sub(remaining), now + self.budget.window);
        }
    }

    /// Grants nothing before `until`, and then one request at a time until one succeeds.
    pub fn close(&mut self, until: Duration) {
        self.closed_until = self.closed_until.max(until);
        self.careful = Some(self.next_number);
    }

    /// Request `number` succeeded: no need to be careful any more, unless it is of the time before.
    pub fn succeeded(&mut self, number: u64) {
        if !self.predates_closing(number) {
            self.careful = None;
        }
    }

    /// Whether request `number` was granted before the last [`Lanes::close`], which has not been proven
    /// unnecessary since: what it tells is known already.
    pub fn predates_closing(&self, number: u64) -> bool {
        self.careful.is_some_and(|first| number < first)
    }

    /// Says how many requests the day has left for sweep and mirror, and until when that holds; `None`: it sets them no
    /// limit. What was granted and is not picked up yet counts against it.
    pub fn set_spare(&mut self, spare: Option<(u64, Duration)>) {
        self.spare = spare;
    }

    /// Until when the day has nothing left for sweep and mirror.
    fn spared_until(&self, now: Duration) -> Option<Duration> {
        let (spare, until) = self.spare?;
        (now < until && self.granted.len() as u64 >= spare).then_some(until)
    }

    /// Until when nothing is granted.
    pub fn closed_until(&self) -> Duration {
        self.closed_until
    }

    /// Grants nothing until [`Lanes::resume`].
    pub fn halt(&mut self) {
        self.halted = true;
    }

    /// Ends a halt, and whatever pause is on; goes one request at a time until one succeeds.
    pub fn resume(&mut self) {
        if self.halted {
            self.halted = false;
            self.careful = Some(self.next_number);
        }
    }

    /// Requests that the window has left.
    pub fn remaining(&mut self, now: Duration) -> u32 {
        self.expire(now);
        self.allowed(now).saturating_sub(count(self.charged()))
    }

    /// How many of our own requests are surely in the `Remaining` that answers this one. Of those sent at
    /// about the same time, or not answered yet, it is not known; taking them for somebody else's errs on
    /// the safe side until the next answer.
    fn surely_counted_with(&self, number: u64) -> u32 {
        let Some((_, granted)) = self.open.get(&number) else {
            return 0;
        };
        let before = |other: &&Answered| other.at <= *granted || other.granted + OVERTAKING <= *granted;
        count(self.answered.iter().filter(before).count()).saturating_add(1)
    }

    fn grant(&mut self, lane: Lane, now: Duration) -> Grant {
        let number = self.next_number;
        self.next_number += 1;
        if share(lane) == Share::Paced {
            let earliest = now.saturating_sub(self.arrears());
            self.grid = Some(self.grid_next(now).map_or(now, |due| due.max(earliest)));
            self.last_paced = lane;
        }
        self.open.insert(number, (lane, now));
        self.grants[share(lane) as usize].push_back(now);
        Grant { number, lane }
    }

    /// The ticket to be served now, if any.
    fn next_ticket_served(&self, now: Duration) -> Option<Ticket> {
        let in_flight = self.open.len();
        if self.halted
            || now < self.closed_until
            || (self.careful.is_some() && in_flight > 0)
            || count(in_flight) >= self.budget.in_flight
            || count(self.charged()) >= self.allowed(now)
        {
            return None;
        }
        let change = self.first(Lane::Change).filter(|_| self.change_may(now));
        let paced = self.first_paced(now).filter(|_| self.paced_may(now));
        match (change, paced) {
            // Nothing can be kept back of one request, so the lanes take turns.
            (Some(change), Some(paced)) if self.allowed(now) < 2 || self.budget.in_flight < 2 => {
                Some(change.min(paced))
            }
            (change, paced) => change.or(paced),
        }
    }

    fn first(&self, lane: Lane) -> Option<Ticket> {
        let mut tickets = self.waiting.iter();
        tickets
            .find(|(_, waiting)| **waiting == lane)
            .map(|(ticket, _)| *ticket)
    }

    /// Sweep and mirror take turns.
    fn first_paced(&self, now: Duration) -> Option<Ticket> {
        if self.spared_until(now).is_some() {
            return None;
        }
        let other = if self.last_paced == Lane::Sweep {
            Lane::Mirror
        } else {
            Lane::Sweep
        };
        self.first(other).or_else(|| self.first(self.last_paced))
    }

    fn change_may(&self, now: Duration) -> bool {
        let paced_waits = self.first_paced(now).is_some();
        if !paced_waits && self.grants[Share::Paced as usize].is_empty() {
            return true;
        }
        let allowed = self.allowed(now);
        let kept = kept(allowed).max(self.charged_to(Share::Paced));
        let kept_open = u32::from(self.budget.in_flight > 1 && paced_waits).max(self.open_of(Share::Paced));
        self.charged_to(Share::Changes) + kept < allowed
            && self.open_of(Share::Changes) + kept_open < self.budget.in_flight
    }

    fn paced_may(&self, now: Duration) -> bool {
        let kept_open = u32::from(self.budget.in_flight > 1).max(self.open_of(Share::Changes));
        self.granted_to(Share::Paced) + self.kept_for_changes(now) < self.allowed(now)
            && self.open_of(Share::Paced) + kept_open < self.budget.in_flight
            && self.grid_next(now).is_none_or(|due| due <= now)
    }

    /// Where on the grid the next paced slot lies.
    fn grid_next(&self, now: Duration) -> Option<Duration> {
        let slots = self
            .allowed(now)
            .saturating_sub(self.kept_for_changes(now))
            .max(1);
        self.grid.map(|last| last + self.budget.window / slots)
    }

    fn arrears(&self) -> Duration {
        self.budget.window / ARREARS
    }

    fn kept_for_changes(&self, now: Duration) -> u32 {
        kept(self.allowed(now)).max(self.granted_to(Share::Changes))
    }

    /// The window without what others use of it.
    fn allowed(&self, now: Duration) -> u32 {
        let (used, until) = self.foreign;
        let foreign = if now < until { used } else { 0 };
        self.budget.requests.saturating_sub(foreign)
    }

    fn charged(&self) -> usize {
        self.open.len() + self.answered.len()
    }

    fn charged_to(&self, of: Share) -> u32 {
        self.answered_of[of as usize] + self.open_of(of)
    }

    fn open_of(&self, of: Share) -> u32 {
        count(self.open.values().filter(|(lane, _)| share(*lane) == of).count())
    }

    fn granted_to(&self, of: Share) -> u32 {
        count(self.grants[of as usize].len())
    }

    fn expire(&mut self, now: Duration) {
        let window = self.budget.window;
        while let Some(first) = self.answered.front().copied()
            && first.at + window <= now
        {
            self.answered.pop_front();
            self.answered_of[share(first.lane) as usize] -= 1;
        }
        for grants in &mut self.grants {
            while grants.front().is_some_and(|at| *at + window <= now) {
                grants.pop_front();
            }
        }
    }

    fn next_event(&self, now: Duration) -> Option<Duration> {
        if now < self.closed_until {
            return Some(self.closed_until);
        }
        let window = self.budget.window;
        let ends = [
            self.answered.front().map(|first| first.at + window),
            self.grants[0].front().map(|at| *at + window),
            self.grants[1].front().map(|at| *at + window),
            self.first_paced(now).and_then(|_| self.grid_next(now)),
            Some(self.foreign.1),
            self.spared_until(now),
        ];
        ends.into_iter().flatten().filter(|at| *at > now).min()
    }
}

/// What is kept of a window of so many requests: a twentieth, and at least one if there are two.
fn kept(requests: u32) -> u32 {
    if requests < 2 { 0 } else { (requests / KEPT).max(1) }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn sane(budget: Budget) -> Budget {
    Budget {
        requests: budget.requests.max(1),
        window: budget.window.max(Duration::from_millis(1)),
        in_flight: budget.in_flight.max(1),
    }
}
