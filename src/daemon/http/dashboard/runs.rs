//! The runs: what was swept, when, why, and what came of it.

use super::frame::Tab;
use super::words::{self, number, span};
use super::{RUNS, Trouble, query, tabs};
use crate::daemon::http::parameters::Parameters;
use crate::daemon::http::routes::{Desk, Shared, page_of, soon, wall_micros};
use crate::daemon::status::ordered;
use crate::sync::report::{Counts, Run};
use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

pub(super) async fn page(
    State(desk): Shared,
    Parameters(parameters): Parameters,
) -> Result<Response, Trouble> {
    let (after, limit) = page_of(&parameters)?;
    let page = soon(desk.context.operations.runs(after, limit)).await?;
    let body = html! {
        section.card {
            h2 { "Runs, the newest first" }
            (table(&desk, &page.items, wall_micros()))
            @if let Some(next) = &page.next { p { a href={ (RUNS) "?after=" (query(next)) } { "Older" } } }
            p.quiet { "Kept for 90 days in " code { "hubsyncd.run" } "." }
        }
    };
    Ok(tabs(&desk, Tab::Runs, "runs").render(&body))
}

/// Runs, one a row.
pub(super) fn table(desk: &Desk, runs: &[Run], wall: i64) -> Markup {
    let names = desk.context.board.objects();
    html! {
        @if runs.is_empty() {
            p.quiet { "Nothing ran yet." }
        } @else {
            table {
                thead { tr { th { "Began" } th { "What" } th { "Outcome" } th.n { "Took" } th { "Created · updated · failed" } } }
                tbody { @for run in runs { (row(&ordered(run.clone(), &names), wall)) } }
            }
        }
    }
}

fn row(run: &Run, wall: i64) -> Markup {
    let outcome = run.outcome.as_deref().unwrap_or("runs");
    let bad = run.outcome.is_some() && !run.is_done();
    let took = words::between(run.started_at, run.finished_at.unwrap_or(wall));
    let did = |counts: &Counts| counts.created + counts.updated + counts.failed > 0;
    html! {
        tr {
            th scope="row" { (words::moment(run.started_at)) }
            td data-label="What" { (run.kind) " " span.quiet { "by " (run.reason) } }
            td.wide[run.error.is_some()] data-label="Outcome" {
                span.bad[bad] { (outcome) }
                @if let Some(error) = &run.error { br; span.quiet { (error) } }
            }
            td.n data-label="Took" { (span(took)) }
            td data-label="Created · updated · failed" {
                @for (name, counts) in run.summary.0.iter().filter(|(_, counts)| did(counts)) {
                    span.counts {
                        (name) " " (number(counts.created)) " · " (number(counts.updated)) " · "
                        span.bad[counts.failed > 0] { (number(counts.failed)) }
                    }
                }
                @if !run.summary.0.iter().any(|(_, counts)| did(counts)) { span.quiet { "no record" } }
            }
        }
    }
}
