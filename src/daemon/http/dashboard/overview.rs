//! The overview: how things are, in one second; then what waits, what failed, what ran, and what is left.

use super::frame::{Mood, Page, Tab};
use super::words::{self, number, span};
use super::{CHANGES, FAILURES, HOME, RUNS, SWEEP, chart, failures, mirror, runs, token, unreadable};
use crate::daemon::board::{Lease, ObjectState, State as Known};
use crate::daemon::health::{self, Status, Verdict};
use crate::daemon::http::parameters::Parameters;
use crate::daemon::http::routes::{Desk, Failure, Shared, failure, refused, wall_micros};
use crate::daemon::operations::Refused;
use crate::sync::history::Minute;
use crate::sync::report::{Counts, Run};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use std::time::{Duration, Instant};
use tokio::time::error::Elapsed;

/// How often a browser loads it again, in seconds.
const AGAIN: u32 = 10;
/// How long the database may keep the page waiting: the board says how things are without it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Causes and runs shown; the rest is on pages of its own.
const CAUSES: usize = 5;
const RECENT: usize = 5;

pub(super) async fn page(State(desk): Shared, Parameters(parameters): Parameters) -> Response {
    let operations = &desk.context.operations;
    let (causes, recent) = tokio::join!(
        tokio::time::timeout(PATIENCE, operations.causes(CAUSES)),
        tokio::time::timeout(PATIENCE, operations.runs(None, RECENT)),
    );
    let (known, now, wall) = (desk.context.board.state(), Instant::now(), wall_micros());
    let limits = (desk.context.limits)();
    let verdict = health::verdict(&known, &limits.health, limits.every, now, wall);
    let (mood, headline) = headline(&verdict, &known);
    let minutes = desk.context.board.minutes();
    let body = html! {
        (banner(mood, headline, &verdict, &known))
        (asked(parameters.get("sweep").map(String::as_str)))
        (tiles(&desk, &known, &minutes, now, wall))
        section.charts { (chart::pending(&minutes, wall)) (chart::latency(&minutes, wall)) }
        section.card {
            h2 { "Refused, by cause" }
            @match flatten(causes) {
                Ok((causes, more)) => {
                    (failures::causes(&desk, &causes, wall))
                    @if more > 0 { p { a href=(FAILURES) { (words::count(more, "more cause", "more causes")) } } }
                }
                Err(why) => { (unreadable(&why)) }
            }
        }
        section.card { h2 { "Objects" } (objects(&known, now, wall)) }
        (mirror::section(known.mirror.as_ref(), wall))
        section.card {
            h2 { "Last runs" }
            @match flatten(recent) {
                Ok(page) => {
                    (runs::table(&desk, &page.items, wall))
                    @if page.next.is_some() { p { a href=(RUNS) { "All runs" } } }
                }
                Err(why) => { (unreadable(&why)) }
            }
        }
    };
    Page::new(headline, Some(Tab::Overview))
        .counting(known.failures(), known.pending())
        .in_mood(mood)
        .every(AGAIN, HOME)
        .render(&body)
}

fn flatten<T>(answer: Result<Result<T, Refused>, Elapsed>) -> Result<T, Failure> {
    match answer {
        Ok(answer) => answer.map_err(refused),
        Err(_) => Err(failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "the database does not answer",
        )),
    }
}

fn headline(verdict: &Verdict, known: &Known) -> (Mood, &'static str) {
    match (verdict.status, &known.lease) {
        (Status::Fail, _) => (Mood::Bad, "Failing"),
        (Status::Warn, _) => (Mood::Warning, "Warning"),
        (Status::Pass, Lease::Standby(_)) => (Mood::Idle, "Standing by"),
        (Status::Pass, _) => (Mood::Good, "In step"),
    }
}

fn banner(mood: Mood, headline: &str, verdict: &Verdict, known: &Known) -> Markup {
    let mut wrong: Vec<_> = verdict
        .checks
        .iter()
        .filter(|check| check.status != Status::Pass)
        .collect();
    wrong.sort_by_key(|check| std::cmp::Reverse(check.status));
    html! {
        section class={ "banner " (mood.class()) } {
            h1 { (headline) }
            @if wrong.is_empty() {
                p { (well(verdict, known)) "." }
            } @else {
                ul {
                    @for check in wrong {
                        li {
                            strong { (check.name) } ": " (check.output.as_deref().unwrap_or_default())
                        }
                    }
                }
            }
            @if let Some(run) = &known.sweep { (running(run)) }
        }
    }
}

/// What is added to good news: refused records are none of health's business, and still somebody's.
fn well(verdict: &Verdict, known: &Known) -> String {
    if matches!(known.lease, Lease::Standby(_)) {
        return verdict.output.clone();
    }
    let changes = match known.pending() {
        0 => "every change is in HubSpot".to_owned(),
        waiting => format!(
            "{} on the way to HubSpot",
            words::count(waiting, "change is", "changes are")
        ),
    };
    match known.failures() {
        0 => format!("Nothing is refused, and {changes}"),
        refused => format!(
            "But for {}, {changes}",
            words::count(refused, "refused record", "refused records")
        ),
    }
}

fn running(run: &Run) -> Markup {
    let sum = |of: fn(&Counts) -> u64| -> u64 { run.summary.0.iter().map(|(_, counts)| of(counts)).sum() };
    let done = format!(
        "{} created, {} updated, {} failed so far",
        number(sum(|counts| counts.created)),
        number(sum(|counts| counts.updated)),
        number(sum(|counts| counts.failed))
    );
    html! { p { "A sweep runs since " (words::moment(run.started_at)) ": " (done) "." } }
}

/// What became of the button.
fn asked(state: Option<&str>) -> Markup {
    let words = match state {
        Some("started") => "The sweep that you asked for has begun, or does as soon as it can.",
        Some("queued") => "The sweep that you asked for waits for the one that runs.",
        _ => return html! {},
    };
    html! { p.notice role="status" { (words) } }
}

fn tiles(desk: &Desk, known: &Known, minutes: &[Minute], now: Instant, wall: i64) -> Markup {
    html! {
        section.tiles {
            (tile("Waiting", html! { a href=(CHANGES) { (number(known.pending())) } }, html! {
                @match known.oldest_pending(now) {
                    Some(oldest) => { "oldest " (span(oldest)) }
                    None => { "no change waits" }
                }
            }))
            (tile("Refused", html! { a.bad[known.failures() > 0] href=(FAILURES) { (number(known.failures())) } },
                html! { "records, tried again by every sweep" }))
            (today(minutes))
            (left(known))
            (last_sweep(known, wall))
            (next_sweep(desk, known, wall))
            (daemon(known, now))
            (mirrored(known, wall))
        }
    }
}

fn mirrored(known: &Known, wall: i64) -> Markup {
    let (value, more) = mirror::tile(known.mirror.as_ref(), wall);
    tile("Mirror", value, more)
}

fn tile(name: &str, value: Markup, more: Markup) -> Markup {
    html! {
        div.tile {
            h2 { (name) }
            p.value { (value) }
            p.quiet { (more) }
        }
    }
}

fn today(minutes: &[Minute]) -> Markup {
    let accepted: u64 = minutes.iter().map(|minute| u64::from(minute.accepted)).sum();
    let last = minutes.iter().rev().find_map(|minute| minute.median);
    let more = html! {
        "changes in 24 hours"
        @if let Some(median) = last { ", lately in " (span(Duration::from_secs_f32(median))) }
    };
    tile("Accepted", html! { (number(accepted)) }, more)
}

fn last_sweep(known: &Known, wall: i64) -> Markup {
    let Some(run) = &known.last_sweep else {
        return tile("Last sweep", html! { "none" }, html! { "since the start" });
    };
    let ended = run.finished_at.unwrap_or(run.started_at);
    let outcome = run.outcome.as_deref().unwrap_or("unfinished");
    tile(
        "Last sweep",
        words::ago(ended, wall),
        html! {
            span.bad[!run.is_complete()] { (outcome) }
            ", took " (span(words::between(run.started_at, ended)))
        },
    )
}

fn next_sweep(desk: &Desk, known: &Known, wall: i64) -> Markup {
    let value = match known.next_sweep_at {
        Some(at) if at > wall => format!("in {}", span(words::between(wall, at))),
        Some(_) => "due".to_owned(),
        None => "–".to_owned(),
    };
    let more = html! {
        @if let Some(at) = known.next_sweep_at { (words::clock(at)) " UTC" }
        @if matches!(known.lease, Lease::Held) {
            form method="post" action=(SWEEP) { (token(desk)) button { "Sweep now" } }
        }
    };
    tile("Next sweep", html! { (value) }, more)
}

fn left(known: &Known) -> Markup {
    let value = match known.window {
        Some((remaining, max)) => html! { (number(remaining)) span.quiet { " / " (number(max)) } },
        None => html! { "–" },
    };
    let more = html! {
        "requests left in this window"
        @if let Some(daily) = known.daily_remaining { ", " (number(daily)) " today" }
    };
    tile("HubSpot", value, more)
}

fn daemon(known: &Known, now: Instant) -> Markup {
    let (value, more) = match &known.lease {
        Lease::Held => ("pushes", None),
        Lease::Standby(holder) => ("stands by", Some(holder.as_deref().unwrap_or("another daemon"))),
        Lease::Unknown => ("not connected", None),
    };
    let up = span(now.saturating_duration_since(known.started));
    let more = html! {
        @if let Some(holder) = more { (holder) " holds the lease, " } @else { "listener " (known.listener.word()) ", " }
        "up " (up)
    };
    tile("Daemon", html! { (value) }, more)
}

fn objects(known: &Known, now: Instant, wall: i64) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th { "Object" } th.n { "Rows" } th.n { "Without id" } th.n { "Waiting" } th.n { "Oldest" } th.n { "Refused" }
                    th { "Last sync" }
                }
            }
            tbody { @for object in &known.objects { (object_row(object, now, wall)) } }
        }
    }
}

fn object_row(object: &ObjectState, now: Instant, wall: i64) -> Markup {
    html! {
        tr {
            th scope="row" {
                (object.name)
                @if object.paused.is_some() { " " span.badge.bad { "paused" } }
            }
            td.n data-label="Rows" { (number(object.rows)) }
            td.n data-label="Without id" { (number(object.awaiting_hubspot_id)) }
            td.n data-label="Waiting" { (number(object.pending)) }
            td.n data-label="Oldest" { (object.oldest_pending(now).map_or_else(|| "–".to_owned(), span)) }
            td.n.bad[object.failures > 0] data-label="Refused" { (number(object.failures)) }
            td data-label="Last sync" {
                @match object.last_sync_at { Some(at) => { (words::ago(at, wall)) } None => { "–" } }
            }
        }
    }
}
