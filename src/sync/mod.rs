//! The middle: what to do, decided without I/O, async or clock.
//!
//! Everything here is a plain value or a plain function of plain values, so that it is tested by the
//! thousand. Time comes in as a [`std::time::Duration`] since an epoch that the caller chooses.

pub mod alarm;
pub mod answer;
pub mod arming;
pub mod backlog;
pub mod change;
pub mod checkup;
pub mod cost;
pub mod day;
pub mod deletion;
pub mod doubt;
pub mod fitting;
pub mod guard;
pub mod guesses;
pub mod history;
pub mod lanes;
pub mod lease;
pub mod linking;
pub mod mirror;
pub mod outage;
pub mod outcome;
pub mod outlook;
pub mod pausing;
pub mod plan;
pub mod prospect;
pub mod record;
pub mod report;
pub mod schedule;
pub mod watermark;
