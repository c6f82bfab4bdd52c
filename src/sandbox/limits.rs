//! What HubSpot allows in a span of time: the rolling ten seconds, the day, and search's own second.
//!
//! Refused requests count against nothing. The day is the portal's, in its own time zone.

use super::clock::instant_text;
use super::fault::Policy;
use super::reply::Reply;
use serde_json::{Value, json};
use std::collections::VecDeque;

/// The length of the rolling window.
const WINDOW_MS: i64 = 10_000;
/// Searches per second, per account.
const SEARCHES: usize = 5;
const SEARCH_WINDOW_MS: i64 = 1_000;
/// Of the deprecated headers, which are still sent.
const SECONDLY: u32 = 19;

/// Which limits a request counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// The window and the day.
    Counted,
    /// Search's own bucket and the day; its answers carry no rate headers.
    Search,
    /// Nothing.
    Free,
}

/// What was used of the limits so far.
#[derive(Debug)]
pub(super) struct Limits {
    pub per_window: Option<u32>,
    pub per_day: Option<u32>,
    zone: jiff::tz::TimeZone,
    window: VecDeque<i64>,
    searches: VecDeque<i64>,
    used_today: u32,
    today: jiff::civil::Date,
}

/// Rate headers, ready to be sent.
pub(super) type Headers = Vec<(&'static str, String)>;

impl Limits {
    pub(super) fn new(per_window: Option<u32>, per_day: Option<u32>, zone: &str) -> Self {
        Self {
            per_window,
            per_day,
            zone: jiff::tz::TimeZone::get(zone).unwrap_or(jiff::tz::TimeZone::UTC),
            window: VecDeque::new(),
            searches: VecDeque::new(),
            used_today: 0,
            today: jiff::civil::Date::ZERO,
        }
    }

    /// Counts a request, or says which limit it breaks.
    pub(super) fn admit(&mut self, class: Class, now_ms: i64) -> Result<(), Policy> {
        self.roll(now_ms);
        if class == Class::Free {
            return Ok(());
        }
        if self.per_day.is_some_and(|most| self.used_today >= most) {
            return Err(Policy::Daily);
        }
        if class == Class::Search {
            if self.per_window.is_some() && self.searches.len() >= SEARCHES {
                return Err(Policy::Secondly);
            }
            self.searches.push_back(now_ms);
        } else {
            if self
                .per_window
                .is_some_and(|most| self.window.len() >= most as usize)
            {
                return Err(Policy::TenSecondly);
            }
            self.window.push_back(now_ms);
        }
        self.used_today = self.used_today.saturating_add(1);
        Ok(())
    }

    /// Uses up what another integration of the same portal would.
    pub(super) fn spend(&mut self, of_window: u32, of_day: u32, now_ms: i64) {
        self.roll(now_ms);
        self.window.extend((0..of_window).map(|_| now_ms));
        self.used_today = self.used_today.saturating_add(of_day);
    }

    /// The headers of an answer; none where nothing limits, and none on a search.
    pub(super) fn headers(&self, class: Class) -> Headers {
        let mut headers = Headers::new();
        if class != Class::Counted {
            return headers;
        }
        if let Some(most) = self.per_day {
            headers.push(("X-HubSpot-RateLimit-Daily", most.to_string()));
            let left = most.saturating_sub(self.used_today);
            headers.push(("X-HubSpot-RateLimit-Daily-Remaining", left.to_string()));
        }
        if let Some(most) = self.per_window {
            let used = u32::try_from(self.window.len()).unwrap_or(u32::MAX);
            headers.push(("X-HubSpot-RateLimit-Interval-Milliseconds", WINDOW_MS.to_string()));
            headers.push(("X-HubSpot-RateLimit-Max", most.to_string()));
            headers.push((
                "X-HubSpot-RateLimit-Remaining",
                most.saturating_sub(used).to_string(),
            ));
            headers.push(("X-HubSpot-RateLimit-Secondly", SECONDLY.to_string()));
            headers.push(("X-HubSpot-RateLimit-Secondly-Remaining", SECONDLY.to_string()));
        }
        headers
    }

    /// The usage API's answer.
    pub(super) fn usage(&mut self, now_ms: i64) -> Value {
        self.roll(now_ms);
        let midnight = self
            .today
            .tomorrow()
            .and_then(|day| day.to_zoned(self.zone.clone()));
        let resets_ms = midnight
            .map(|at| at.timestamp().as_millisecond())
            .unwrap_or(now_ms);
        json!({"results": [{
            "name": "private-apps-api-calls-daily",
            "usageLimit": self.per_day.unwrap_or(1_000_000),
            "currentUsage": self.used_today,
            "collectedAt": instant_text(now_ms),
            "fetchStatus": "SUCCESS",
            "resetsAt": instant_text(resets_ms),
        }]})
    }

    /// What the account's details say of its clock.
    pub(super) fn account(&self, now_ms: i64) -> Value {
        let instant = jiff::Timestamp::from_millisecond(now_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let seconds = i64::from(self.zone.to_offset(instant).seconds());
        let sign = if seconds < 0 { '-' } else { '+' };
        let minutes = seconds.abs() / 60;
        json!({
            "utcOffset": format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60),
            "utcOffsetMilliseconds": seconds * 1_000,
        })
    }

    fn roll(&mut self, now_ms: i64) {
        let old = |at: &i64, window_ms| *at <= now_ms - window_ms;
        while self.window.front().is_some_and(|at| old(at, WINDOW_MS)) {
            self.window.pop_front();
        }
        while self.searches.front().is_some_and(|at| old(at, SEARCH_WINDOW_MS)) {
            self.searches.pop_front();
        }
        let instant = jiff::Timestamp::from_millisecond(now_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let today = instant.to_zoned(self.zone.clone()).date();
        if today != self.today {
            self.today = today;
            self.used_today = 0;
        }
    }
}

/// The 429 of a policy.
pub(super) fn refused(policy: Policy, portal_id: i64) -> Reply {
    let (message, name) = match policy {
        Policy::TenSecondly => (
            "You have reached your ten_secondly_rolling limit.",
            "TEN_SECONDLY_ROLLING",
        ),
        Policy::Secondly => ("You have reached your secondly limit.", "SECONDLY"),
        Policy::Daily => ("You have reached your daily limit.", "DAILY"),
    };
    let reply = Reply::error(429, "", message)
        .with("errorType", Value::from("RATE_LIMIT"))
        .with("policyName", Value::from(name));
    match policy {
        Policy::TenSecondly => {
            let group = format!("publicapi:private_app-api-calls-ten-secondly:{portal_id}:26892217");
            reply.with("groupName", Value::from(group))
        }
        Policy::Secondly | Policy::Daily => reply,
    }
}
