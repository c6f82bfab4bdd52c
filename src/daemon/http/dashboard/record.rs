//! One record explained: what `hubsyncd explain` tells, with every value masked.

use super::frame::{Page, Tab};
use super::{RECORD, RETRY, Trouble, query, tabs, token, words};
use crate::daemon::http::parameters::Parameters;
use crate::daemon::http::routes::{Desk, Shared, failure, refused};
use crate::daemon::outlook::explain::{Explanation, Link};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use std::time::Duration;

/// How long both ends may take to tell a record's story.
const PATIENCE: Duration = Duration::from_secs(30);

/// What stands for a value.
const MASK: &str = "•••";

pub(super) async fn page(
    State(desk): Shared,
    Parameters(mut parameters): Parameters,
) -> Result<Response, Trouble> {
    let page = tabs(&desk, Tab::Record, "record");
    let (Some(object), Some(key)) = (parameters.remove("object"), parameters.remove("key")) else {
        return Ok(page.render(&asking(&desk, None)));
    };
    let told = desk.context.operations.explain(object.clone(), key);
    let told = tokio::time::timeout(PATIENCE, told)
        .await
        .map_err(|_| failure(StatusCode::GATEWAY_TIMEOUT, "both ends did not answer in time"))?;
    let told = told.map_err(refused)?;
    Ok(render(&desk, &page, &told))
}

/// The address of a record's page.
pub(super) fn address(object: &str, key: &str) -> String {
    format!("{RECORD}?object={}&key={}", query(object), query(key))
}

/// The form that asks which record.
fn asking(desk: &Desk, object: Option<&str>) -> Markup {
    html! {
        section.card {
            form.look method="get" action=(RECORD) {
                label for="object" { "Object" }
                select #object name="object" {
                    @for known in desk.context.board.objects().iter() {
                        option selected[object == Some(known.name.as_str())] { (known.name) }
                    }
                }
                label for="key" { "Key" }
                input #key name="key" required;
                button { "Explain" }
            }
        }
    }
}

fn render(desk: &Desk, page: &Page, told: &Explanation) -> Response {
    let body = html! {
        section.card {
            h2 { (told.table) " → HubSpot " (told.object_type) }
            h1.record { (told.object) " " code { (told.key) } }
            ul { @for next in &told.next { li { (next) } } }
            @if let Some(why) = &told.paused { p.bad { "The object is paused: " (why) } }
        }
        (refusals(desk, told))
        section.card {
            h2 { "Both ends" }
            dl {
                dt { "Row" } dd { (row(told)) }
                dt { "A push" } dd { (push(told)) }
                dt { "HubSpot" } dd { (held(told)) }
                @for change in &told.waiting {
                    dt { "Waits" } dd { "a change (" (change.op) ") since " (change.captured_at) }
                }
            }
        }
        (properties(told))
        (links(&told.links))
        (asking(desk, Some(&told.object)))
    };
    page.render(&body)
}

fn refusals(desk: &Desk, told: &Explanation) -> Markup {
    html! {
        @if !told.failures.is_empty() {
            section.card {
                h2 { "Refused" }
                @for failure in &told.failures {
                    p {
                        span.badge.bad { (failure.category) } " " (failure.message)
                        span.quiet {
                            " · " (words::count(failure.attempts, "time", "times")) ", last " (words::moment(failure.last_failed_at)) " UTC"
                            @if let Some(id) = &failure.correlation_id { " · correlation " code { (id) } }
                        }
                    }
                }
                form method="post" action=(RETRY) {
                    (token(desk))
                    input type="hidden" name="object" value=(told.object);
                    input type="hidden" name="key" value=(told.key);
                    button { "Try again" }
                }
            }
        }
    }
}

fn row(told: &Explanation) -> Markup {
    let Some(row) = &told.row else {
        return html! { "there is none of this key, or row level security hides it" };
    };
    let id = row.hubspot_id.as_deref().filter(|id| !id.trim().is_empty());
    html! {
        @match (id, &row.awaiting_hubspot_id) {
            (Some(id), _) => { "HubSpot id " code { (id) } }
            (None, Some(id)) => { "HubSpot id " code { (id) } " is noted and not written yet" }
            (None, None) => { "no HubSpot id" }
        }
        ", last sync " (row.synced_at.as_deref().unwrap_or("never"))
        @match told.place {
            "outside" => { "; a push does not read it" }
            "unreadable" => { "; a push fails to read it" }
            _ => {}
        }
    }
}

fn push(told: &Explanation) -> Markup {
    html! {
        @match &told.payload {
            None => { "sends nothing" }
            Some(payload) => {
                (payload.does)
                @if let Some(id) = &payload.to { " record " code { (id) } }
                ", " (payload.properties.len()) " properties"
            }
        }
    }
}

fn held(told: &Explanation) -> Markup {
    html! {
        @match (&told.hubspot, &told.hubspot_silent) {
            (_, Some(why)) => { span.bad { "cannot be asked: " (why) } }
            (Some(held), None) => {
                "holds record " code { (held.id) }
                @if !told.differing.is_empty() { ", " (told.differing.len()) " values differ" }
            }
            (None, None) => { "holds no record of it" }
        }
    }
}

fn properties(told: &Explanation) -> Markup {
    let sent = told.payload.as_ref().map(|payload| &payload.properties);
    let theirs = |name: &str| told.hubspot.as_ref()?.properties.get(name)?.as_deref();
    html! {
        @if let Some(sent) = sent.filter(|sent| !sent.is_empty()) {
            section.card {
                h2 { "Properties" }
                table {
                    thead { tr { th { "Property" } th { "To send" } th { "In HubSpot" } th {} } }
                    tbody {
                        @for (name, value) in sent {
                            tr {
                                th scope="row" { (name) }
                                td data-label="To send" { (masked(Some(value))) }
                                td data-label="In HubSpot" { (masked(theirs(name))) }
                                td { @if told.differing.contains(name) { span.badge { "differs" } } }
                            }
                        }
                    }
                }
                p.quiet { "Values are not shown here; " code { "hubsyncd explain OBJECT KEY" } " on the machine shows them." }
            }
        }
    }
}

fn masked(value: Option<&str>) -> &'static str {
    match value {
        None | Some("") => "empty",
        Some(_) => MASK,
    }
}

fn links(links: &[Link]) -> Markup {
    html! {
        @if !links.is_empty() {
            section.card {
                h2 { "Links" }
                table {
                    thead { tr { th { "Link" } th { "The row leads to" } th { "In HubSpot" } th { "Ours" } } }
                    tbody {
                        @for link in links {
                            tr {
                                th scope="row" { (link.link) }
                                td data-label="The row leads to" {
                                    @match (&link.target, link.waits) {
                                        (Some(to), _) => { code { (to) } }
                                        (None, true) => { "a row without a HubSpot id" }
                                        (None, false) => { "nobody" }
                                    }
                                }
                                td data-label="In HubSpot" {
                                    @match &link.held {
                                        Some(held) if held.is_empty() => { "none" }
                                        Some(held) => { (held.join(", ")) }
                                        None => { "–" }
                                    }
                                }
                                td data-label="Ours" {
                                    @for (to, state) in &link.remembered { span.counts { (to) " " (state) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
