//! The last day as two drawings: what waited, and how long changes took.
//!
//! In a drawing every element is closed: an open one would swallow its successors, and they would not be drawn.
//! Drawings have no text in them, so that they may be stretched to any width; their scales stand beside them.

use super::words;
use crate::sync::history::{MINUTES, Minute};
use maud::{Markup, html};
use std::time::Duration;

/// The size of a drawing, in units of its own: a minute is one wide.
const HEIGHT: f64 = 100.0;
/// What the scale of latencies spans: 1 ms to an hour, by powers of ten in between.
const LATENCY_FLOOR: f64 = 0.001;
const LATENCY_CEILING: f64 = 3600.0;
/// The lines across the drawing of latencies.
const LATENCY_LINES: [(f64, &str); 4] = [(0.01, "10 ms"), (1.0, "1 s"), (60.0, "1 min"), (3600.0, "1 h")];

/// How many changes waited.
pub(super) fn pending(minutes: &[Minute], now: i64) -> Markup {
    let most = minutes.iter().map(|minute| minute.pending).max().unwrap_or(0);
    let ceiling = round_up(most);
    let height = |pending: u64| HEIGHT - HEIGHT * pending as f64 / ceiling as f64;
    let values: Vec<Option<f64>> = minutes
        .iter()
        .map(|minute| Some(height(minute.pending)))
        .collect();
    let peak = minutes
        .iter()
        .rposition(|minute| minute.pending == most && most > 0);
    let peak = peak.map_or_else(
        || "nothing waited".to_owned(),
        |place| {
            let at = now - (minutes.len() - 1 - place) as i64 * 60_000_000;
            format!("most {} at {}", words::number(most), words::clock(at))
        },
    );
    let labels = [(0.0, words::number(ceiling)), (HEIGHT, "0".to_owned())];
    figure(
        "Changes waiting",
        &html! {},
        &peak,
        now,
        &labels,
        &html! {
            (unknown(minutes.len()))
            (line_across(HEIGHT / 2.0))
            @for run in runs(&values) {
                path.area d={ (path(&run)) "V" (HEIGHT) "H" (run.first().map_or(0, |point| point.0)) "Z" } {}
                path.line d=(path(&run)) {}
            }
        },
    )
}

/// How long changes took, from when they could be seen until HubSpot accepted them.
pub(super) fn latency(minutes: &[Minute], now: i64) -> Markup {
    let of = |choose: fn(&Minute) -> Option<f32>| -> Vec<Option<f64>> {
        let height = |seconds: f32| latency_height(f64::from(seconds));
        minutes.iter().map(|minute| choose(minute).map(height)).collect()
    };
    let (median, slowest) = (of(|minute| minute.median), of(|minute| minute.slowest));
    let last = minutes.iter().rev().find_map(|minute| minute.slowest);
    let told = last.map_or_else(
        || "no change yet".to_owned(),
        |slowest| {
            format!(
                "99 % lately within {}",
                words::span(Duration::from_secs_f32(slowest))
            )
        },
    );
    let labels = LATENCY_LINES.map(|(seconds, name)| (latency_height(seconds), name.to_owned()));
    figure(
        "Latency of changes",
        &html! { span.key { "half" } span.key.slow { "99 %" } },
        &told,
        now,
        &labels,
        &html! {
            (unknown(minutes.len()))
            @for (seconds, _) in &LATENCY_LINES[..3] { (line_across(latency_height(*seconds))) }
            @for run in runs(&slowest) { path.line.slow d=(path(&run)) {} }
            @for run in runs(&median) { path.line d=(path(&run)) {} }
        },
    )
}

/// The frame of a drawing: what it shows, the scale at its side and the day below it.
fn figure(
    name: &str,
    key: &Markup,
    told: &str,
    now: i64,
    labels: &[(f64, String)],
    drawing: &Markup,
) -> Markup {
    let hour = 3_600_000_000;
    html! {
        figure.card {
            figcaption { h2 { (name) } (key) span.quiet { (told) } }
            div.plot {
                svg viewBox={ "0 0 " (MINUTES) " " (HEIGHT) } preserveAspectRatio="none" role="img"
                    aria-label={ (name) " over the last 24 hours: " (told) } { (drawing) }
                svg.scale aria-hidden="true" {
                    @for (at, label) in labels {
                        // Below its line, but for the lowest, which would not fit.
                        text x="100%" y={ (at) "%" } dy=(if *at > 90.0 { "-0.3em" } else { "1.1em" }) { (label) }
                    }
                }
            }
            div.hours aria-hidden="true" {
                @for back in [24, 18, 12, 6, 0] { span { (words::clock(now - back * hour)) } }
            }
        }
    }
}

/// The part of the day from which nothing is known: the daemon did not run.
fn unknown(known: usize) -> Markup {
    let missing = MINUTES.saturating_sub(known);
    html! { @if missing > 0 { rect.unknown width=(missing) height=(HEIGHT) {} } }
}

fn line_across(at: f64) -> Markup {
    html! { path.across d={ "M0 " (format!("{at:.1}")) "H" (MINUTES) } {} }
}

fn latency_height(seconds: f64) -> f64 {
    let span = (LATENCY_CEILING / LATENCY_FLOOR).ln();
    let part = (seconds.clamp(LATENCY_FLOOR, LATENCY_CEILING) / LATENCY_FLOOR).ln() / span;
    HEIGHT - HEIGHT * part
}

type Point = (usize, f64);

/// The stretches without a gap; the last minute stands at the right edge. A lone minute is drawn as wide as a minute is.
fn runs(values: &[Option<f64>]) -> Vec<Vec<Point>> {
    let offset = MINUTES - values.len().min(MINUTES);
    let mut runs: Vec<Vec<Point>> = Vec::new();
    let mut open = false;
    for (place, value) in values.iter().enumerate() {
        let Some(height) = *value else {
            open = false;
            continue;
        };
        if !open {
            runs.push(Vec::new());
            open = true;
        }
        if let Some(run) = runs.last_mut() {
            run.push((offset + place, height));
        }
    }
    for run in &mut runs {
        if let Some((at, height)) = run.last().copied() {
            run.push((at + 1, height));
        }
    }
    runs
}

/// A run as the path of an SVG; points between equal neighbours are left out.
fn path(run: &[Point]) -> String {
    let mut path = String::new();
    for (place, (at, height)) in run.iter().enumerate() {
        let same = |other: Option<&Point>| other.is_some_and(|(_, other)| (other - height).abs() < 0.05);
        if place > 0 && same(run.get(place - 1)) && same(run.get(place + 1)) {
            continue;
        }
        let verb = if place == 0 { 'M' } else { 'L' };
        path.push_str(&format!("{verb}{at} {height:.1}"));
    }
    path
}

/// A round number that is not below: 1, 2 or 5 times a power of ten, and at least 10.
fn round_up(value: u64) -> u64 {
    let mut power = 10_u64;
    loop {
        for times in [1, 2, 5] {
            if value <= power.saturating_mul(times) {
                return power.saturating_mul(times);
            }
        }
        power = power.saturating_mul(10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers() {
        let rounded = [0, 10, 11, 21, 99, 100, 101, 4_999_999].map(round_up);
        assert_eq!(rounded, [10, 10, 20, 50, 100, 100, 200, 5_000_000]);
        assert_eq!(round_up(u64::MAX), u64::MAX);
    }

    #[test]
    fn gaps_are_not_bridged_and_the_last_minute_stands_at_the_right_edge() {
        let runs = runs(&[Some(1.0), None, Some(2.0), Some(2.0), Some(2.0), Some(3.0)]);
        let end = MINUTES;
        assert_eq!(
            runs,
            [
                vec![(end - 6, 1.0), (end - 5, 1.0)],
                vec![
                    (end - 4, 2.0),
                    (end - 3, 2.0),
                    (end - 2, 2.0),
                    (end - 1, 3.0),
                    (end, 3.0)
                ],
            ]
        );
        assert_eq!(path(&runs[1]), "M1436 2.0L1438 2.0L1439 3.0L1440 3.0");
    }

    #[test]
    fn a_day_of_noise_stays_small() {
        let minutes: Vec<Minute> = (0..MINUTES as u64)
            .map(|at| Minute {
                pending: at * 7919 % 1000,
                accepted: 1,
                median: Some((at % 17) as f32 + 0.01),
                slowest: Some((at % 31) as f32 + 0.01),
            })
            .collect();
        let now = 1_800_000_000_000_000;
        let bytes = pending(&minutes, now).into_string().len() + latency(&minutes, now).into_string().len();
        assert!(bytes < 100_000, "{bytes}");
    }
}
