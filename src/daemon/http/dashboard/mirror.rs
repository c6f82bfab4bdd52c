//! The mirror on the overview: a tile, and a section with a row for each kind.

use super::words::{self, number};
use crate::daemon::mirror::state::{MirrorState, Pulling};
use crate::sync::mirror::Standing;
use maud::{Markup, html};

/// The tile's value and what stands below it.
pub(super) fn tile(mirror: Option<&MirrorState>, wall: i64) -> (Markup, Markup) {
    let Some(mirror) = mirror else {
        return (html! { "off" }, html! { "HubSpot → Postgres is not configured" });
    };
    if !mirror.known {
        return (
            html! { "–" },
            html! { "the database has not said yet where it stands" },
        );
    }
    let total: u64 = mirror.kinds.iter().map(|kind| count(kind.total())).sum();
    let stale = mirror.kinds.iter().any(|kind| mirror.is_stale(kind.kind, wall));
    // What is complete in all kinds is so as of the oldest of them.
    let complete = mirror
        .kinds
        .iter()
        .map(|kind| kind.complete_as_of)
        .min()
        .flatten();
    let more = html! {
        @match (&mirror.running, complete) {
            (Some(pulling), _) => { "pulling " (pulling.kind.name()) ", " (number(pulling.records)) " so far" }
            (None, Some(at)) => { span.bad[stale] { "complete as of " (words::ago(at, wall)) } }
            (None, None) => { span.bad[stale] { "not complete yet" } }
        }
    };
    (html! { (number(total)) }, more)
}

/// Every kind, and the pull that goes on or was the last.
pub(super) fn section(mirror: Option<&MirrorState>, wall: i64) -> Markup {
    let Some(mirror) = mirror else {
        return html! {};
    };
    html! {
        section.card {
            h2 { "Mirror" }
            table {
                thead {
                    tr {
                        th { "Kind" } th.n { "Records" } th.n { "Pending" } th.n { "Errors" } th { "Complete as of" }
                        th { "Changes up to" }
                    }
                }
                tbody { @for kind in &mirror.kinds { (row(mirror, kind, wall)) } }
            }
            p.quiet { (pulls(mirror, wall)) }
        }
    }
}

fn row(mirror: &MirrorState, kind: &Standing, wall: i64) -> Markup {
    let moment = |at: Option<i64>| match at {
        Some(at) => words::ago(at, wall),
        None => html! { "–" },
    };
    let known = |value: i64| match mirror.known {
        true => html! { (number(count(value))) },
        false => html! { "–" },
    };
    html! {
        tr {
            th scope="row" {
                (kind.kind.name())
                @if mirror.known && mirror.is_stale(kind.kind, wall) { " " span.badge.bad { "stale" } }
            }
            td.n data-label="Records" { (known(kind.total())) }
            td.n data-label="Pending" { (known(kind.pending)) }
            td.n.bad[kind.error > 0] data-label="Errors" { (known(kind.error)) }
            td data-label="Complete as of" { (moment(kind.complete_as_of)) }
            td data-label="Changes up to" { (moment(kind.caught_up_at)) }
        }
    }
}

fn pulls(mirror: &MirrorState, wall: i64) -> Markup {
    html! {
        @match (&mirror.running, &mirror.last) {
            (Some(pulling), _) => { (running(pulling)) }
            (None, Some(run)) => {
                "The last pull (" (run.reason) ") was "
                span.bad[!run.is_done()] { (run.outcome.as_deref().unwrap_or("unfinished")) } ", "
                (words::ago(run.finished_at.unwrap_or(run.started_at), wall)) "."
                @if let Some(error) = &run.error { " " (error) "." }
            }
            (None, None) => { "Nothing was pulled since the start." }
        }
        @if let Some(at) = mirror.next_at { " The next is due at " (words::clock(at)) " UTC." }
    }
}

fn running(pulling: &Pulling) -> Markup {
    html! {
        "A " (pulling.pass) " pull runs since " (words::moment(pulling.started_at)) ": "
        (number(pulling.records)) " " (pulling.kind.name()) " so far."
    }
}

fn count(value: i64) -> u64 {
    value.try_into().unwrap_or_default()
}
