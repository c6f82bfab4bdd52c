//! The pace's waiting, with paused time.

use super::*;

fn pace(requests: u32, in_flight: u32) -> Arc<Pace> {
    Pace::new(Budget {
        requests,
        window: Duration::from_secs(10),
        in_flight,
    })
}

fn answer(mut slot: Slot, verdict: Verdict) {
    slot.send();
    slot.answered(Heard::default(), HeardDay::default(), verdict);
}

/// How long until the next change gets a slot and is answered well.
async fn wait_for_change(pace: &Arc<Pace>) -> Duration {
    let since = Instant::now();
    answer(pace.slot(Lane::Change).await, Verdict::Answered);
    since.elapsed()
}

fn is_about(took: Duration, expected: Duration) -> bool {
    (expected..expected + Duration::from_millis(20)).contains(&took)
}

#[tokio::test(start_paused = true)]
async fn the_window_is_waited_for() {
    let pace = pace(3, 8);
    for _ in 0..3 {
        assert!(wait_for_change(&pace).await.is_zero());
    }
    assert!(is_about(wait_for_change(&pace).await, Duration::from_secs(10)));
}

#[tokio::test(start_paused = true)]
async fn an_answer_wakes_who_waits_for_a_place_in_flight() {
    let pace = pace(100, 1);
    let first = pace.slot(Lane::Change).await;
    let second = wait_for_change(&pace);
    let answered = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        answer(first, Verdict::Answered);
    };
    let (took, ()) = tokio::join!(second, answered);
    assert!(is_about(took, Duration::from_millis(300)));
}

#[tokio::test(start_paused = true)]
async fn a_slot_dropped_unused_or_never_picked_up_is_given_back() {
    let pace = pace(1, 8);
    drop(pace.slot(Lane::Change).await);
    let held = pace.slot(Lane::Change).await;
    let waiting = tokio::time::timeout(Duration::from_secs(1), pace.slot(Lane::Change)).await;
    assert!(waiting.is_err());
    drop(held);
    assert!(wait_for_change(&pace).await.is_zero());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_stays_charged() {
    let pace = pace(1, 8);
    let mut slot = pace.slot(Lane::Change).await;
    slot.send();
    drop(slot);
    assert!(is_about(wait_for_change(&pace).await, Duration::from_secs(10)));
}

#[tokio::test(start_paused = true)]
async fn every_policy_waits_as_long_as_it_lasts_and_retry_after_wins() {
    let asked = Some(Duration::from_secs(33));
    for (why, asked, expected) in [
        (Why::Window, None, Duration::from_secs(10)),
        (Why::Second, None, Duration::from_secs(1)),
        (Why::Daily, None, HOUR),
        (Why::Locked, None, LOCK),
        (Why::Locked, Some(Duration::from_millis(1)), LOCK),
        (Why::Migration, asked, Duration::from_secs(33)),
        (Why::Window, asked, Duration::from_secs(33)),
        (Why::Window, Some(Duration::ZERO), WAITS.0),
    ] {
        let pace = pace(100, 8);
        answer(pace.slot(Lane::Sweep).await, Verdict::Slower(why, asked));
        assert_eq!(pace.paused().map(|pause| pause.why), Some(why));
        let took = wait_for_change(&pace).await;
        assert!(is_about(took, expected), "{why:?} with {asked:?}: {took:?}");
        assert_eq!(pace.paused(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_day_ends_at_the_portals_midnight() {
    let pace = pace(100, 8);
    pace.set_day(Some("Nowhere/Unknown"), Some(0));
    let expected = until_reset(&jiff::Timestamp::now().to_zoned(TimeZone::UTC)).unwrap();
    answer(pace.slot(Lane::Change).await, Verdict::Slower(Why::Daily, None));
    let left = pace.paused().unwrap().left;
    assert!(
        left.abs_diff(expected) < Duration::from_secs(2),
        "{left:?}, {expected:?}"
    );
}

#[test]
fn midnight_is_found_also_on_days_of_23_and_25_hours() {
    let left = |text: &str| until_midnight(&text.parse().unwrap()).unwrap() - MIDNIGHT_MARGIN;
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    assert_eq!(left("2026-11-20T22:00-05:00[-05:00]"), hours(2));
    if TimeZone::get("Europe/Berlin").is_ok() {
        assert_eq!(left("2026-03-29T00:00[Europe/Berlin]"), hours(23));
        assert_eq!(left("2026-10-25T00:00[Europe/Berlin]"), hours(25));
    }
}

#[test]
fn a_quota_spent_right_after_midnight_is_yesterdays() {
    let left = |text: &str| until_reset(&text.parse().unwrap()).unwrap();
    assert_eq!(left("2026-11-20T00:00:05-05:00[-05:00]"), EARLY_PAUSE);
    assert_eq!(left("2026-11-20T00:14:59-05:00[-05:00]"), EARLY_PAUSE);
    assert!(left("2026-11-20T00:15:00-05:00[-05:00]") > Duration::from_secs(23 * 3600));
}

#[tokio::test(start_paused = true)]
async fn the_reserve_of_the_day_is_left_to_changes_until_midnight() {
    let pace = pace(1000, 8);
    pace.set_reserve(0.1);
    let mut slot = pace.slot(Lane::Change).await;
    slot.send();
    let day = HeardDay {
        quota: Some(1000),
        remaining: Some(103),
    };
    slot.answered(Heard::default(), day, Verdict::Answered);
    for _ in 0..3 {
        assert_eq!(pace.withheld(), None);
        answer(pace.slot(Lane::Sweep).await, Verdict::Answered);
    }
    let withheld = pace.withheld().unwrap();
    assert!(!withheld.spent);
    for lane in [Lane::Sweep, Lane::Mirror] {
        let waiting = tokio::time::timeout(Duration::from_secs(600), pace.slot(lane)).await;
        assert!(waiting.is_err());
        let waiting = tokio::time::timeout(Duration::from_secs(600), pace.search_slot(lane)).await;
        assert!(waiting.is_err());
    }
    assert!(wait_for_change(&pace).await.is_zero());
    assert_eq!(pace.limits().daily_remaining, Some(99));
    // Of a portal whose zone is not known, the day is taken to end within the hour.
    let since = Instant::now();
    answer(pace.slot(Lane::Sweep).await, Verdict::Answered);
    assert!(since.elapsed() <= HOUR);
    assert_eq!(pace.withheld(), None);
}

#[tokio::test(start_paused = true)]
async fn three_troubles_in_a_row_make_everybody_wait_longer_and_longer() {
    let pace = pace(1000, 8);
    for _ in 0..TROUBLE_MAX - 1 {
        answer(pace.slot(Lane::Change).await, Verdict::Trouble(None));
        assert_eq!(pace.paused(), None);
    }
    let mut longest = Duration::ZERO;
    for _ in 0..10 {
        answer(pace.slot(Lane::Change).await, Verdict::Trouble(None));
        longest = longest.max(pace.paused().unwrap().left);
    }
    assert!(longest > Duration::from_secs(10), "{longest:?}");
    assert!(longest < Duration::from_secs(46), "{longest:?}");
    wait_for_change(&pace).await;
    answer(pace.slot(Lane::Change).await, Verdict::Trouble(None));
    assert_eq!(pace.paused(), None, "a success begins anew");
}

#[tokio::test(start_paused = true)]
async fn requests_that_fail_together_count_as_one_further_attempt() {
    let pace = pace(1000, 8);
    let mut slots = Vec::new();
    for _ in 0..8 {
        slots.push(pace.slot(Lane::Change).await);
    }
    for slot in slots {
        answer(slot, Verdict::Trouble(None));
    }
    assert!(pace.paused().unwrap().left < Duration::from_millis(400));
}

#[tokio::test(start_paused = true)]
async fn a_halt_stops_all_lanes_until_it_is_ended_and_the_first_reason_stays() {
    let pace = pace(100, 8);
    let slot = pace.slot(Lane::Change).await;
    slot.halt("the token is refused".to_owned());
    slot.halt("again".to_owned());
    drop(slot);
    assert_eq!(pace.halted().unwrap().reason, "the token is refused");
    for lane in [Lane::Change, Lane::Sweep, Lane::Mirror] {
        let waiting = tokio::time::timeout(Duration::from_secs(3600), pace.slot(lane)).await;
        assert!(waiting.is_err());
    }
    answer(pace.probe(), Verdict::Answered);
    let resumed = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        pace.resume();
    };
    let (took, ()) = tokio::join!(wait_for_change(&pace), resumed);
    assert!(is_about(took, Duration::from_secs(1)));
    assert_eq!(pace.halted(), None);
}

#[tokio::test(start_paused = true)]
async fn limits_tell_what_the_headers_told() {
    let pace = pace(100, 8);
    let mut slot = pace.slot(Lane::Change).await;
    slot.send();
    let heard = Heard {
        requests: Some(190),
        window: None,
        remaining: Some(50),
    };
    let day = HeardDay {
        quota: Some(250_000),
        remaining: Some(1234),
    };
    slot.answered(heard, day, Verdict::Answered);
    let limits = pace.limits();
    assert_eq!(limits.window_remaining, 50);
    assert_eq!(limits.window_max, 190);
    assert_eq!(limits.daily_remaining, Some(1234));
}

#[tokio::test(start_paused = true)]
async fn a_search_takes_nothing_from_the_window_and_waits_for_its_own_second() {
    let pace = pace(1, 8);
    answer(pace.slot(Lane::Change).await, Verdict::Answered);
    let since = Instant::now();
    for _ in 0..SEARCHES.requests {
        answer(pace.search_slot(Lane::Change).await, Verdict::Answered);
    }
    assert!(since.elapsed().is_zero());
    answer(pace.search_slot(Lane::Change).await, Verdict::Answered);
    assert!(is_about(since.elapsed(), SEARCHES.window));
    assert!(is_about(wait_for_change(&pace).await, Duration::from_secs(9)));
}

#[tokio::test(start_paused = true)]
async fn too_many_searches_make_searches_wait_alone_and_an_exhausted_day_everybody() {
    let pace = pace(100, 8);
    let search = pace.search_slot(Lane::Change).await;
    answer(search, Verdict::Slower(Why::Second, None));
    assert_eq!(pace.paused(), None, "changes go on");
    assert!(wait_for_change(&pace).await.is_zero());
    let since = Instant::now();
    let search = pace.search_slot(Lane::Change).await;
    assert!(is_about(since.elapsed(), Duration::from_secs(1)));
    answer(search, Verdict::Slower(Why::Daily, Some(Duration::from_secs(60))));
    assert_eq!(pace.paused().map(|pause| pause.why), Some(Why::Daily));
    assert!(is_about(wait_for_change(&pace).await, Duration::from_secs(60)));
}

#[tokio::test(start_paused = true)]
async fn a_halt_stops_searches_too() {
    let pace = pace(100, 8);
    pace.halt(Halt {
        reason: "the token is refused".to_owned(),
    });
    let waiting = tokio::time::timeout(Duration::from_secs(3600), pace.search_slot(Lane::Sweep)).await;
    assert!(waiting.is_err());
    pace.resume();
    drop(pace.search_slot(Lane::Sweep).await);
}
