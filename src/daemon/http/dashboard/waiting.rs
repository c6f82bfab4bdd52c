//! The changes that are not pushed yet, and what each waits for.

use super::frame::Tab;
use super::words::{self, number, span};
use super::{CHANGES, record, tabs};
use crate::daemon::board::Lease;
use crate::daemon::http::routes::Shared;
use crate::daemon::operations::WaitingRow;
use crate::sync::backlog::Stage;
use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

/// How often a browser loads it again, in seconds.
const AGAIN: u32 = 5;
/// Rows of each object.
const ROWS: usize = 100;

pub(super) async fn page(State(desk): Shared) -> Response {
    let known = desk.context.board.state();
    let rows = desk.context.operations.waiting(ROWS);
    let body = html! {
        @match &rows {
            None => { section.card {
                h2 { "Changes" }
                p {
                    @match &known.lease {
                        Lease::Standby(holder) => {
                            "This daemon stands by; " (holder.as_deref().unwrap_or("another daemon")) " pushes: look there."
                        }
                        Lease::Held | Lease::Unknown => { "Both ends are not known yet; nothing is pushed." }
                    }
                }
            } }
            Some(rows) => {
                @if rows.is_empty() {
                    section.card { h2 { "Changes" } p.quiet { "Nothing waits and nothing is on its way." } }
                }
                @for object in &known.objects {
                    @let rows: Vec<&WaitingRow> = rows.iter().filter(|row| row.object == object.name).collect();
                    @if !rows.is_empty() {
                        section.card {
                            h2 { (object.name) " " span.quiet { (words::count(object.pending, "change", "changes")) } }
                            @if let Some(why) = &object.paused { p.bad { "Paused: " (why) } }
                            (table(&rows))
                            @if rows.len() == ROWS { p.quiet { "The first " (number(ROWS as u64)) " rows." } }
                        }
                    }
                }
            }
        }
    };
    tabs(&desk, Tab::Changes, "changes")
        .every(AGAIN, CHANGES)
        .render(&body)
}

fn table(rows: &[&WaitingRow]) -> Markup {
    html! {
        table {
            thead { tr { th { "Row" } th { "State" } th.n { "Waited" } th.n { "Attempts before" } } }
            tbody {
                @for row in rows {
                    tr {
                        th scope="row" { a href=(record::address(&row.object, &row.key)) { code { (row.key) } } }
                        td.wide data-label="State" { (stage(row.stage)) }
                        td.n data-label="Waited" { (row.waited.map_or_else(|| "–".to_owned(), span)) }
                        td.n data-label="Attempts before" { (row.attempts) }
                    }
                }
            }
        }
    }
}

fn stage(stage: Stage) -> Markup {
    match stage {
        Stage::Claimed => html! { "on its way" },
        Stage::Ready => html! { "ready; goes as soon as HubSpot's rate allows" },
        Stage::Order => html! { "waits for new records that it may link to" },
        Stage::BackOff(left) => html! { "tried again in " (span(left)) },
        Stage::Paused => html! { span.bad { "its object is paused; one record is tried every minute" } },
    }
}
