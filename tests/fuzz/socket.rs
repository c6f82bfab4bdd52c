//! The socket: whatever a client sends, nothing acts that may not, and the next client is served.

use super::runner;
use crate::support::served::{Desk, SECRET, Served};
use proptest::prelude::*;
use proptest::sample::select;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A request in pieces, so that what it may do can be told.
#[derive(Debug, Clone)]
struct Asked {
    method: &'static str,
    path: String,
    host: &'static str,
    secret: Option<String>,
    origin: Option<&'static str>,
    site: Option<&'static str>,
    body: Vec<u8>,
    length: Option<String>,
}

impl Asked {
    /// Whether it may look at what is kept here.
    fn may_look(&self) -> bool {
        let known = ["hubsyncd", "localhost:3002", "127.0.0.1", "[::1]:80"].contains(&self.host);
        known && self.secret.as_deref() == Some(&*format!("Bearer {SECRET}"))
    }

    /// Whether it may make the daemon do something.
    fn may_act(&self) -> bool {
        let own_page = match self.origin {
            None => true,
            Some(origin) => origin.strip_prefix("http://") == Some(self.host),
        };
        let own_site = self
            .site
            .is_none_or(|site| site == "none" || site == "same-origin");
        self.may_look() && own_page && own_site
    }

    fn bytes(&self) -> Vec<u8> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\n",
            self.method, self.path, self.host
        );
        let headers = [
            ("Authorization", self.secret.as_deref()),
            ("Origin", self.origin),
            ("Sec-Fetch-Site", self.site),
            ("Content-Length", self.length.as_deref()),
        ];
        for (name, value) in headers {
            if let Some(value) = value {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        head.push_str("Connection: close\r\n\r\n");
        [head.as_bytes(), &self.body].concat()
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    // Mostly what acts, so that each of its locks is tried alone.
    let method = prop_oneof![
        3 => Just("POST"),
        1 => select(vec!["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "BREW"]),
    ];
    let acting = select(vec![
        "/sweep",
        "/failures/retry",
        "/api/admin/cron/batch-sync-hubspot",
    ]);
    let others = select(vec![
        "/livez",
        "/health",
        "/status",
        "/metrics",
        "/sweep",
        "/runs",
        "/failures",
        "/failures/retry",
        "/api/admin/cron/batch-sync-hubspot",
        "/reload",
        "/",
        "//sweep",
        "/sweep/../livez",
        "/%73weep",
    ]);
    let route = prop_oneof![acting, others];
    let query = prop_oneof![
        2 => Just(String::new()),
        1 => "\\?[!-~]{0,40}",
        1 => Just("?wait=%00".to_owned()),
    ];
    let path = (route, query).prop_map(|(route, query)| format!("{route}{query}"));
    let host = select(vec![
        "hubsyncd",
        "localhost:3002",
        "127.0.0.1",
        "[::1]:80",
        "evil.example",
        "hubsyncd.evil.example",
        "",
        "@",
    ]);
    let secret = prop_oneof![
        5 => Just(Some(format!("Bearer {SECRET}"))),
        1 => Just(None),
        1 => "(Bearer|Basic|bearer) [!-~]{0,30}".prop_map(Some),
        1 => Just(Some(format!("Bearer {}", &SECRET[1..]))),
    ];
    let origin = prop::option::weighted(
        0.3,
        select(vec![
            "http://hubsyncd",
            "http://localhost:3002",
            "http://evil.example",
            "null",
            "",
        ]),
    );
    let site = prop::option::weighted(
        0.3,
        select(vec!["none", "same-origin", "same-site", "cross-site", ""]),
    );
    let body = prop::collection::vec(any::<u8>(), 0..64);
    let length = prop::option::of("[0-9]{1,20}|-1|x|0, 5");
    (method, path, host, secret, origin, site, body, length).prop_map(
        |(method, path, host, secret, origin, site, body, length)| Asked {
            method,
            path,
            host,
            secret,
            origin,
            site,
            body,
            length,
        },
    )
}

/// Sends bytes and reads what comes, which is nothing or an answer; a request that promises more than it sends is
/// left hanging.
async fn send(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The other side may have closed already.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer));
    let _ = read.await.expect("a client that closed its side is let go");
    answer
}

fn status(answer: &[u8]) -> Option<u16> {
    let text = String::from_utf8_lossy(answer);
    text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

#[test]
fn no_request_acts_that_may_not_and_the_next_one_is_served() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let served = runtime.block_on(async { Served::start(Desk::new("complete", None)) });
    let checked = runner(800).run(&asked(), |asked| {
        let answer = runtime.block_on(send(&served.tcp, &asked.bytes()));
        let looks = ["runs ", "failures ", "causes "];
        let (looked, acted): (Vec<String>, Vec<String>) = served
            .asked()
            .into_iter()
            .partition(|what| looks.iter().any(|look| what.starts_with(look)));
        prop_assert!(looked.is_empty() || asked.may_look(), "{asked:?} saw {looked:?}");
        prop_assert!(acted.is_empty() || asked.may_act(), "{asked:?} did {acted:?}");
        if !answer.is_empty() {
            let status = status(&answer);
            prop_assert!(
                status.is_some(),
                "no HTTP: {:?}",
                String::from_utf8_lossy(&answer)
            );
            prop_assert_ne!(status, Some(500), "{:?}", asked);
        }
        let next = runtime.block_on(served.ask_tcp("GET /livez"));
        prop_assert_eq!(next.0, 200);
        Ok(())
    });
    checked.unwrap();
}

#[test]
fn no_bytes_at_all_act_or_stop_the_next_client() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let served = runtime.block_on(async { Served::start(Desk::new("complete", None)) });
    let line = "(GET|POST|\\PC{0,8}) [ -~]{0,40}( HTTP/[0-9.]{0,4})?(\r\n|\n|\r)([ -~]{0,30}(\r\n|\n)){0,6}";
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..400),
        line.prop_map(String::into_bytes),
    ];
    let checked = runner(400).run(&bytes, |bytes| {
        runtime.block_on(send(&served.tcp, &bytes));
        let acted = served.asked();
        prop_assert!(acted.is_empty(), "without the secret it did {acted:?}");
        let next = runtime.block_on(served.ask_tcp("GET /livez"));
        prop_assert_eq!(next.0, 200);
        Ok(())
    });
    checked.unwrap();
}
