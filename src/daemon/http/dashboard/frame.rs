//! What every page has: the head, the names of the pages, the style, and the headers that forbid everything else.

use super::{CHANGES, FAILURES, HOME, RECORD, RUNS, words};
use crate::daemon::http::routes::wall_micros;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// The whole style. It is part of this program, so it needs no escaping.
const STYLE: &str = include_str!("style.css");

/// How well things are, in the colour of the banner and of the icon in the browser's tab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Good,
    Idle,
    Warning,
    Bad,
}

impl Mood {
    pub(super) fn class(self) -> &'static str {
        match self {
            Mood::Good => "good",
            Mood::Idle => "idle",
            Mood::Warning => "warning",
            Mood::Bad => "bad",
        }
    }

    /// A small picture that differs in shape, not in colour alone.
    fn icon(self) -> &'static str {
        match self {
            Mood::Good => {
                "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='7' fill='%231a7f37'/%3E%3C/svg%3E"
            }
            Mood::Idle => {
                "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='5.5' fill='none' stroke='%23768390' stroke-width='3'/%3E%3C/svg%3E"
            }
            Mood::Warning => {
                "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath d='M8 1l7 14H1z' fill='%23d4a72c'/%3E%3C/svg%3E"
            }
            Mood::Bad => {
                "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath d='M1 1h14v14H1z' fill='%23cf222e'/%3E%3C/svg%3E"
            }
        }
    }
}

/// The pages that the head links to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Overview,
    Failures,
    Changes,
    Runs,
    Record,
}

/// A page without its body.
#[derive(Debug)]
pub(super) struct Page {
    title: String,
    /// Which of the head's pages this is; without, the head links to none.
    tab: Option<Tab>,
    mood: Mood,
    failures: u64,
    pending: u64,
    /// After how many seconds a browser loads it again, and from where.
    again: Option<(u32, &'static str)>,
}

impl Page {
    pub(super) fn new(title: &str, tab: Option<Tab>) -> Page {
        Page {
            title: title.to_owned(),
            tab,
            mood: Mood::Idle,
            failures: 0,
            pending: 0,
            again: None,
        }
    }

    /// With the counts that the head shows.
    pub(super) fn counting(self, failures: u64, pending: u64) -> Page {
        Page {
            failures,
            pending,
            ..self
        }
    }

    pub(super) fn in_mood(self, mood: Mood) -> Page {
        Page { mood, ..self }
    }

    /// Loaded again so often.
    pub(super) fn every(self, seconds: u32, from: &'static str) -> Page {
        Page {
            again: Some((seconds, from)),
            ..self
        }
    }

    /// The whole page.
    pub(super) fn render(&self, body: &Markup) -> Response {
        // Only this answer's style sheet knows it.
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    title { (self.title) " · hubsyncd" }
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    @if let Some((seconds, from)) = self.again {
                        meta http-equiv="refresh" content={ (seconds) "; url=" (from) };
                    }
                    link rel="icon" href=(self.mood.icon());
                    style nonce=(nonce) { (PreEscaped(STYLE)) }
                }
                body {
                    (self.head())
                    main { (body) }
                    (self.foot())
                }
            }
        };
        let policy = format!(
            "default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; form-action 'self'; base-uri 'none'; \
             frame-ancestors 'none'"
        );
        let policy = HeaderValue::try_from(policy).expect("a nonce is letters and digits");
        let fixed = |name: HeaderName, value| (name, HeaderValue::from_static(value));
        let headers = [
            fixed(header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CONTENT_SECURITY_POLICY, policy),
            fixed(header::X_FRAME_OPTIONS, "DENY"),
            // Not `no-referrer`: with that, browsers send forms with the origin `null`.
            fixed(header::REFERRER_POLICY, "same-origin"),
            fixed(
                HeaderName::from_static("cross-origin-opener-policy"),
                "same-origin",
            ),
            fixed(
                HeaderName::from_static("cross-origin-resource-policy"),
                "same-origin",
            ),
        ];
        (headers, page.into_string()).into_response()
    }

    fn head(&self) -> Markup {
        let link = |tab: Tab, to: &str, name: &str, count: u64| {
            html! {
                a href=(to) aria-current=[(self.tab == Some(tab)).then_some("page")] {
                    (name)
                    @if count > 0 { " " span.count { (words::number(count)) } }
                }
            }
        };
        html! {
            header {
                strong { "hubsyncd" }
                @if self.tab.is_some() {
                    nav {
                        (link(Tab::Overview, HOME, "Overview", 0))
                        (link(Tab::Failures, FAILURES, "Failures", self.failures))
                        (link(Tab::Changes, CHANGES, "Changes", self.pending))
                        (link(Tab::Runs, RUNS, "Runs", 0))
                        (link(Tab::Record, RECORD, "Record", 0))
                    }
                }
            }
        }
    }

    fn foot(&self) -> Markup {
        html! {
            footer {
                (words::moment(wall_micros())) " UTC"
                @if let Some((seconds, _)) = self.again { " · loads again every " (seconds) " s" }
                " · version " (env!("CARGO_PKG_VERSION"))
            }
        }
    }
}
