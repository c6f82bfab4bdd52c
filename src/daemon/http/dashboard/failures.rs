//! The refused records: grouped by cause, then one by one.

use super::frame::Tab;
use super::words::{self, number};
use super::{FAILURES, RETRY, Trouble, query, record, tabs, token};
use crate::daemon::http::parameters::Parameters;
use crate::daemon::http::routes::{Desk, Shared, page_of, soon, wall_micros};
use crate::sync::report::{Cause, Failure};
use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

/// Causes shown: whoever has more has one problem that words itself in many ways.
const CAUSES: usize = 50;

pub(super) async fn page(
    State(desk): Shared,
    Parameters(mut parameters): Parameters,
) -> Result<Response, Trouble> {
    let retried: Option<u64> = parameters.remove("retried").and_then(|text| text.parse().ok());
    let (after, limit) = page_of(&parameters)?;
    let first = after.is_none();
    let operations = &desk.context.operations;
    let (causes, page) =
        soon(async { tokio::try_join!(operations.causes(CAUSES), operations.failures(after, limit)) })
            .await?;
    let ((list, more), wall) = (causes, wall_micros());
    let body = html! {
        @if let Some(retried) = retried {
            p.notice role="status" {
                (words::count(retried, "record is", "records are")) " tried again; what is refused again stays here."
            }
        }
        @if first {
            section.card {
                h2 { "By cause" }
                (self::causes(&desk, &list, wall))
                @if more > 0 { p.quiet { (words::count(more, "more cause", "more causes")) " of fewer records." } }
                @if list.len() > 1 {
                    form method="post" action=(RETRY) { (token(&desk)) button { "Try all again" } }
                }
            }
        }
        @if !page.items.is_empty() {
            section.card {
                h2 { "One by one, the latest first" }
                (table(&desk, &page.items, wall))
                @if let Some(next) = &page.next {
                    p { a href={ (FAILURES) "?after=" (query(next)) } { "Older" } }
                }
            }
        }
    };
    Ok(tabs(&desk, Tab::Failures, "failures").render(&body))
}

/// The causes, each with its button.
pub(super) fn causes(desk: &Desk, causes: &[Cause], wall: i64) -> Markup {
    html! {
        @if causes.is_empty() { p.quiet { "No record is refused." } }
        @for cause in causes {
            div.cause {
                div {
                    p {
                        strong { (cause.name.object) } " " span.badge { (cause.name.category) } " "
                        span.quiet {
                            @if cause.key.is_some() { (words::count(cause.records, "record", "records")) }
                            @else { "the whole object" }
                            ", last " (words::ago(cause.last_failed_at, wall))
                            ", first " (words::ago(cause.first_failed_at, wall))
                        }
                    }
                    p.message { (cause.message) }
                    @if let Some(key) = &cause.key {
                        p.quiet { @if cause.records > 1 { "for example " } a href=(record::address(&cause.name.object, key)) { code { (cause.name.object) " " (key) } } }
                    }
                }
                form method="post" action=(RETRY) {
                    (token(desk))
                    input type="hidden" name="object" value=(cause.name.object);
                    input type="hidden" name="category" value=(cause.name.category);
                    input type="hidden" name="shape" value=(cause.name.shape);
                    button { "Try " @if cause.records > 1 { (number(cause.records)) " " } "again" }
                }
            }
        }
    }
}

fn table(desk: &Desk, failures: &[Failure], wall: i64) -> Markup {
    html! {
        table {
            thead { tr { th { "Record" } th { "Why" } th.n { "Attempts" } th { "Last" } th {} } }
            tbody { @for failure in failures { (row(desk, failure, wall)) } }
        }
    }
}

fn row(desk: &Desk, failure: &Failure, wall: i64) -> Markup {
    html! {
        tr {
            th scope="row" {
                (failure.object) " "
                @match &failure.key {
                    Some(key) => { a href=(record::address(&failure.object, key)) { code { (key) } } }
                    None => { "(all)" }
                }
                @if let Some(id) = &failure.hubspot_id { br; span.quiet { "HubSpot " code { (id) } } }
            }
            td.wide data-label="Why" {
                span.badge { (failure.category) } " " (failure.message)
                @if let Some(id) = &failure.correlation_id { br; span.quiet { "correlation " code { (id) } } }
            }
            td.n data-label="Attempts" { (number(failure.attempts)) }
            td data-label="Last" { (words::ago(failure.last_failed_at, wall)) }
            td {
                form method="post" action=(RETRY) {
                    (token(desk))
                    input type="hidden" name="object" value=(failure.object);
                    input type="hidden" name="key" value=(failure.key.as_deref().unwrap_or_default());
                    button { "Try again" }
                }
            }
        }
    }
}
