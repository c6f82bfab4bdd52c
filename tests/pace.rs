//! The pace's arithmetic, by simulation: whatever is asked, no rolling window sees more than the budget, and
//! nobody starves.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hubsyncd::sync::lanes::{Budget, Heard, Lane, Lanes, Ticket};
use proptest::prelude::*;

const WINDOW: Duration = Duration::from_secs(10);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn budget(requests: u32, in_flight: u32) -> Budget {
    Budget {
        requests,
        window: WINDOW,
        in_flight,
    }
}

/// Requests on their way, and when each was granted and arrived.
struct World {
    lanes: Lanes,
    now: Duration,
    waiting: HashMap<Ticket, (Lane, Duration)>,
    answers: BTreeMap<(Duration, u64), ()>,
    grants: Vec<(Duration, Lane)>,
    arrivals: Vec<Duration>,
    longest_wait: HashMap<Lane, Duration>,
    /// How long a request takes, and which part of that it takes to arrive (percent).
    travel: Box<dyn FnMut() -> (Duration, u32)>,
}

impl World {
    fn new(budget: Budget, travel: impl FnMut() -> (Duration, u32) + 'static) -> World {
        World {
            lanes: Lanes::new(budget),
            now: Duration::ZERO,
            waiting: HashMap::new(),
            answers: BTreeMap::new(),
            grants: Vec::new(),
            arrivals: Vec::new(),
            longest_wait: HashMap::new(),
            travel: Box::new(travel),
        }
    }

    fn ask(&mut self, lane: Lane) {
        let ticket = self.lanes.queue(lane);
        self.waiting.insert(ticket, (lane, self.now));
    }

    /// Grants what may be granted; says when time alone allows more.
    fn settle(&mut self) -> Option<Duration> {
        let look_again = self.lanes.advance(self.now).look_again;
        for (ticket, (lane, since)) in self.waiting.clone() {
            let Some(grant) = self.lanes.take(ticket) else {
                continue;
            };
            assert_eq!(grant.lane, lane);
            self.waiting.remove(&ticket);
            let longest = self.longest_wait.entry(lane).or_default();
            *longest = (*longest).max(self.now - since);
            let (latency, part) = (self.travel)();
            self.grants.push((self.now, lane));
            self.arrivals.push(self.now + latency * part / 100);
            self.answers.insert((self.now + latency, grant.number), ());
        }
        look_again
    }

    /// Goes to the next moment at which something happens, at most `until`.
    fn step(&mut self, until: Duration) {
        let look_again = self.settle();
        let answer = self.answers.keys().next().map(|(at, _)| *at);
        assert!(
            self.waiting.is_empty() || look_again.is_some() || answer.is_some(),
            "somebody waits and nothing will ever happen"
        );
        self.now = [look_again, answer, Some(until)]
            .into_iter()
            .flatten()
            .min()
            .unwrap()
            .min(until);
        while let Some(((at, number), ())) = self.answers.pop_first() {
            if at > self.now {
                self.answers.insert((at, number), ());
                break;
            }
            self.lanes.succeeded(number);
            self.lanes.answered(number, self.now);
        }
    }

    fn count(&self, lane: Lane) -> usize {
        self.grants.iter().filter(|(_, of)| *of == lane).count()
    }
}

fn most_in_a_window(mut times: Vec<Duration>, window: Duration) -> usize {
    times.sort();
    let mut most = 0;
    let mut first = 0;
    for last in 0..times.len() {
        while times[last] - times[first] >= window {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most
}

fn any_lane() -> impl Strategy<Value = Lane> {
    prop_oneof![Just(Lane::Change), Just(Lane::Sweep), Just(Lane::Mirror)]
}

/// A source of travels that repeats what it was given.
fn travels(of: Vec<(u64, u32)>) -> impl FnMut() -> (Duration, u32) + 'static {
    let mut next = of.into_iter().cycle();
    move || {
        next.next()
            .map_or((ms(1), 0), |(latency, part)| (ms(latency), part))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_rolling_window_sees_more_than_the_budget_and_everybody_is_served(
        requests in 1u32..40,
        in_flight in 1u32..12,
        asks in prop::collection::vec((0u64..60_000, any_lane()), 1..250),
        trips in prop::collection::vec((0u64..3_000, 0u32..=100), 1..20),
    ) {
        let mut asks = asks;
        asks.sort_by_key(|(at, _)| *at);
        let mut world = World::new(budget(requests, in_flight), travels(trips));
        for (at, lane) in asks {
            while world.now < ms(at) {
                world.step(ms(at));
            }
            world.ask(lane);
        }
        let deadline = Duration::from_secs(10_000);
        while !world.waiting.is_empty() {
            prop_assert!(world.now < deadline, "somebody starved");
            world.step(deadline);
        }
        prop_assert!(most_in_a_window(world.arrivals.clone(), WINDOW) <= requests as usize);
        let granted = world.grants.iter().map(|(at, _)| *at).collect();
        prop_assert!(most_in_a_window(granted, WINDOW) <= requests as usize);
    }

    #[test]
    fn no_lane_starves_while_all_ask_without_end(
        requests in 1u32..60,
        in_flight in 1u32..12,
        trips in prop::collection::vec((0u64..3_000, 0u32..=100), 1..20),
    ) {
        let mut world = World::new(budget(requests, in_flight), travels(trips));
        let end = Duration::from_secs(150);
        while world.now < end {
            for lane in [Lane::Change, Lane::Sweep, Lane::Mirror] {
                while world.waiting.values().filter(|(of, _)| *of == lane).count() < 3 {
                    world.ask(lane);
                }
            }
            world.step(end);
        }
        for lane in [Lane::Change, Lane::Sweep, Lane::Mirror] {
            // Three wait in line; with one request a window the lanes take turns.
            let longest = world.longest_wait.get(&lane).copied().unwrap_or(end);
            prop_assert!(longest < Duration::from_secs(135), "{lane:?} waited {longest:?}");
        }
        prop_assert!(most_in_a_window(world.arrivals.clone(), WINDOW) <= requests as usize);
    }
}

/// `workers` sweepers ask again as soon as they are answered, for a minute; a timer fires 0 to 2 ms late.
fn sweep_for_a_minute(requests: u32, latency: Duration) -> World {
    let mut world = World::new(budget(requests, 8), move || (latency, 50));
    let end = Duration::from_secs(60);
    let mut late = [0, 1, 2, 1].into_iter().cycle();
    while world.now < end {
        while world.waiting.len() + world.answers.len() < 8 {
            world.ask(Lane::Sweep);
        }
        world.step(end);
        world.now += ms(late.next().unwrap());
    }
    world
}

#[test]
fn a_sweep_alone_reaches_its_share_of_the_limit_evenly() {
    for requests in [100, 190] {
        let world = sweep_for_a_minute(requests, ms(300));
        let rate = world.grants.len() as f64 / 6.0 / f64::from(requests);
        assert!(
            (0.945..=0.96).contains(&rate),
            "{rate} of the limit of {requests}"
        );
        assert!(most_in_a_window(world.arrivals.clone(), WINDOW) <= requests as usize);
        let granted = world.grants.iter().map(|(at, _)| *at).collect();
        let in_a_second = most_in_a_window(granted, Duration::from_secs(1));
        assert!(
            in_a_second <= requests as usize * 3 / 20,
            "{in_a_second} in one second"
        );
    }
}

#[test]
fn a_change_during_a_sweep_waits_no_longer_than_one_slot() {
    let mut world = World::new(budget(100, 8), || (ms(300), 50));
    let end = Duration::from_secs(60);
    let mut next_change = Duration::from_secs(12);
    while world.now < end {
        while world
            .waiting
            .values()
            .filter(|(lane, _)| *lane == Lane::Sweep)
            .count()
            < 8
        {
            world.ask(Lane::Sweep);
        }
        if world.now >= next_change {
            world.ask(Lane::Change);
            next_change += Duration::from_secs(5);
        }
        world.step(end.min(next_change));
    }
    assert!(world.count(Lane::Change) >= 9);
    let waits = world.longest_wait[&Lane::Change];
    assert!(waits <= WINDOW / 95, "a change waited {waits:?}");
}

#[test]
fn changes_alone_take_the_whole_window_at_once() {
    let mut world = World::new(budget(100, 200), || (ms(300), 50));
    for _ in 0..150 {
        world.ask(Lane::Change);
    }
    world.settle();
    assert_eq!(world.grants.len(), 100);
}

#[test]
fn changes_without_end_leave_a_twentieth_to_the_sweep_and_the_other_way_round() {
    let mut world = World::new(budget(100, 8), || (ms(50), 50));
    let end = Duration::from_secs(100);
    while world.now < end {
        for lane in [Lane::Change, Lane::Sweep] {
            while world.waiting.values().filter(|(of, _)| *of == lane).count() < 8 {
                world.ask(lane);
            }
        }
        world.step(end);
    }
    let (changes, sweep) = (world.count(Lane::Change), world.count(Lane::Sweep));
    assert!(
        (45..=100).contains(&sweep),
        "the sweep got {sweep} in ten windows"
    );
    assert!(changes + sweep >= 950, "{changes} and {sweep} in ten windows");
}

#[test]
fn sweep_and_mirror_share_alike() {
    let mut world = World::new(budget(100, 8), || (ms(300), 50));
    let end = Duration::from_secs(60);
    while world.now < end {
        for lane in [Lane::Mirror, Lane::Sweep] {
            while world.waiting.values().filter(|(of, _)| *of == lane).count() < 8 {
                world.ask(lane);
            }
        }
        world.step(end);
    }
    let (sweep, mirror) = (world.count(Lane::Sweep), world.count(Lane::Mirror));
    assert!(
        sweep.abs_diff(mirror) <= 2 && sweep + mirror >= 560,
        "{sweep} and {mirror}"
    );
}

fn granted_at_once(lanes: &mut Lanes, lane: Lane, now: Duration) -> Vec<u64> {
    let tickets: Vec<Ticket> = (0..500).map(|_| lanes.queue(lane)).collect();
    lanes.advance(now);
    let numbers = tickets
        .iter()
        .filter_map(|ticket| lanes.take(*ticket))
        .map(|grant| grant.number)
        .collect();
    for ticket in tickets {
        lanes.leave(ticket);
    }
    numbers
}

#[test]
fn a_lower_remaining_is_believed_from_the_newest_request_only_and_for_one_window() {
    let mut lanes = Lanes::new(budget(100, 1000));
    let heard = |remaining| Heard {
        remaining: Some(remaining),
        ..Heard::default()
    };
    let answer = |lanes: &mut Lanes, number, remaining, now| {
        lanes.hear(number, heard(remaining), now);
        lanes.answered(number, now);
    };
    let (first, second) = (lanes.probe(ms(0)), lanes.probe(ms(1)));
    answer(&mut lanes, second.number, 40, ms(10));
    assert_eq!(
        lanes.remaining(ms(10)),
        39,
        "another program uses the token, and the first may not be counted yet"
    );
    answer(&mut lanes, first.number, 3, ms(11));
    assert_eq!(lanes.remaining(ms(11)), 39, "an older answer is older news");
    let third = lanes.probe(ms(20));
    answer(&mut lanes, third.number, 99, ms(30));
    assert_eq!(
        lanes.remaining(ms(30)),
        97,
        "a higher one than our own count is not believed"
    );
    let fourth = lanes.probe(ms(40));
    answer(&mut lanes, fourth.number, 0, ms(50));
    assert_eq!(granted_at_once(&mut lanes, Lane::Change, ms(60)).len(), 0);
    let later = granted_at_once(&mut lanes, Lane::Change, ms(10_049));
    assert!(
        later.len() <= 3,
        "what it leaves beside the others is what our own requests give back"
    );
    assert_eq!(granted_at_once(&mut lanes, Lane::Change, ms(10_050)).len(), 97);
}

#[test]
fn requests_granted_after_the_answering_one_are_not_in_its_remaining() {
    let mut lanes = Lanes::new(budget(100, 1000));
    let early = lanes.probe(ms(0));
    for _ in 0..10 {
        lanes.probe(ms(1));
    }
    lanes.hear(
        early.number,
        Heard {
            remaining: Some(99),
            ..Heard::default()
        },
        ms(10),
    );
    assert_eq!(lanes.remaining(ms(10)), 89);
}

#[test]
fn the_headers_correct_the_configured_window() {
    let mut lanes = Lanes::new(budget(100, 1000));
    let probe = lanes.probe(ms(0));
    let heard = Heard {
        requests: Some(190),
        window: Some(ms(20_000)),
        remaining: None,
    };
    lanes.hear(probe.number, heard, ms(1));
    assert_eq!(lanes.budget().requests, 190);
    assert_eq!(lanes.budget().window, ms(20_000));
    let absurd = Heard {
        requests: Some(0),
        window: Some(Duration::ZERO),
        remaining: None,
    };
    lanes.hear(probe.number, absurd, ms(1));
    assert_eq!(lanes.budget().requests, 190);
}

#[test]
fn a_slot_given_back_is_not_charged() {
    let mut lanes = Lanes::new(budget(10, 100));
    let numbers = granted_at_once(&mut lanes, Lane::Change, ms(0));
    assert_eq!(numbers.len(), 10);
    lanes.refund(numbers[3]);
    lanes.refund(numbers[4]);
    assert_eq!(granted_at_once(&mut lanes, Lane::Change, ms(1)).len(), 2);
    let waiting = lanes.queue(Lane::Change);
    lanes.refund(numbers[5]);
    lanes.advance(ms(2));
    lanes.leave(waiting);
    assert_eq!(
        lanes.remaining(ms(2)),
        1,
        "a grant nobody picked up is given back"
    );
}

#[test]
fn after_a_pause_one_request_goes_alone_until_one_of_the_time_after_succeeds() {
    let mut lanes = Lanes::new(budget(100, 8));
    let before = lanes.probe(ms(0));
    lanes.close(ms(10_000));
    assert_eq!(granted_at_once(&mut lanes, Lane::Change, ms(9_999)).len(), 0);
    lanes.succeeded(before.number);
    lanes.answered(before.number, ms(100));
    let alone = granted_at_once(&mut lanes, Lane::Change, ms(10_000));
    assert_eq!(alone.len(), 1, "what succeeded before the pause proves nothing");
    assert_eq!(granted_at_once(&mut lanes, Lane::Change, ms(10_001)).len(), 0);
    lanes.succeeded(alone[0]);
    lanes.answered(alone[0], ms(10_300));
    assert_eq!(granted_at_once(&mut lanes, Lane::Change, ms(10_301)).len(), 8);
}

#[test]
fn a_halt_lets_nothing_through_but_the_probe() {
    let mut lanes = Lanes::new(budget(100, 8));
    lanes.halt();
    assert_eq!(granted_at_once(&mut lanes, Lane::Change, ms(1)).len(), 0);
    let probe = lanes.probe(ms(2));
    lanes.answered(probe.number, ms(3));
    lanes.resume();
    assert_eq!(granted_at_once(&mut lanes, Lane::Change, ms(4)).len(), 1);
}

#[test]
fn a_sweep_that_makes_up_for_a_stall_leaves_the_changes_their_part() {
    let mut world = World::new(budget(100, 8), || (ms(1), 50));
    world.ask(Lane::Sweep);
    world.settle();
    world.step(Duration::from_secs(20));
    world.step(Duration::from_secs(20));
    let end = Duration::from_secs(40);
    while world.now < end {
        while world.waiting.len() < 8 {
            world.ask(Lane::Sweep);
        }
        world.step(end);
    }
    let granted = world.grants.iter().map(|(at, _)| *at).collect();
    assert_eq!(most_in_a_window(granted, WINDOW), 95);
}

#[test]
fn a_request_that_was_overtaken_is_not_taken_for_counted() {
    let mut lanes = Lanes::new(budget(100, 1000));
    let (overtaken, first) = (lanes.probe(ms(0)), lanes.probe(ms(1)));
    // HubSpot counts the second (ten left), then the first, whose answer is the earlier to arrive.
    lanes.answered(overtaken.number, ms(5));
    let heard = Heard {
        remaining: Some(10),
        ..Heard::default()
    };
    lanes.hear(first.number, heard, ms(6));
    lanes.answered(first.number, ms(6));
    assert_eq!(lanes.remaining(ms(6)), 9);
}
