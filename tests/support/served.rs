//! A socket that answers without a daemon behind it: tests say what the tasks would.

use futures::future::BoxFuture;
use hubsyncd::config::{Health, Http};
use hubsyncd::daemon::board::{Board, Condition, Lease, Listener};
use hubsyncd::daemon::health::Limits;
use hubsyncd::daemon::http::{Context, Server};
use hubsyncd::daemon::mirror::request::{self, Extent};
use hubsyncd::daemon::operations::{
    MirrorPage, NotReloaded, Operations, Page, Refused, Ticket, TicketState, WaitingRow,
};
use hubsyncd::daemon::outlook::explain::Explanation;
use hubsyncd::daemon::reload::Reloaded;
use hubsyncd::mapping::{Mapping, Mirrored};
use hubsyncd::sync::backlog::Stage;
use hubsyncd::sync::mirror::{Complaint, Pulled, Tally};
use hubsyncd::sync::report::{Cause, CauseName, Counts, Failure, Run, Summary};
use secrecy::SecretString;
use serde_json::Value;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The cron secret of every [`Served`].
pub const SECRET: &str = "s3cret-of-the-cron";
/// 2027-01-15 08:00 UTC, in microseconds.
pub const NOW: i64 = 1_800_000_000_000_000;

/// How it goes with the mirror's records, of which there are 250 of each kind, numbered from 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct Going {
    /// Postgres cannot be read, from this record on.
    pub unreadable_from: Option<u64>,
    /// HubSpot does not answer.
    pub unanswered: bool,
    /// The mirror is older than `stale-after`.
    pub stale: bool,
}

impl Going {
    const RECORDS: u64 = 250;

    fn page(self, from: Option<&str>, limit: usize) -> MirrorPage {
        let from: u64 = from.map_or(1, |from| from.parse().unwrap());
        let end = Self::RECORDS.min(from + limit as u64 - 1);
        MirrorPage {
            records: (from..=end).map(|id| format!("{{\"id\":\"{id}\"}}")).collect(),
            next: (end < Self::RECORDS).then(|| (end + 1).to_string()),
            stale: self.stale,
        }
    }
}

/// The tasks' side of the socket, as a test wants it.
pub struct Desk {
    /// What every sweep comes to.
    pub run: Run,
    /// Whether another daemon pushes.
    standby: bool,
    /// What of the mirror goes wrong.
    pub mirror: Going,
    asked: Mutex<Vec<String>>,
}

impl Desk {
    /// A desk whose sweeps come to this.
    pub fn new(outcome: &str, error: Option<&str>) -> Desk {
        let counts = |created, updated, failed| Counts {
            created,
            updated,
            failed,
        };
        let summary = vec![
            ("mock_exams".to_owned(), counts(0, 6, 0)),
            ("contacts".to_owned(), counts(1, 2, 3)),
        ];
        Desk {
            run: Run {
                id: "17".to_owned(),
                kind: "sweep".to_owned(),
                reason: "manual".to_owned(),
                started_at: NOW,
                finished_at: Some(NOW + 1_234_567),
                outcome: Some(outcome.to_owned()),
                error: error.map(str::to_owned),
                summary: Summary(summary),
            },
            standby: false,
            mirror: Going::default(),
            asked: Mutex::default(),
        }
    }

    /// A desk of a daemon that stands by.
    pub fn of_standby() -> Desk {
        Desk {
            standby: true,
            ..Desk::new("complete", None)
        }
    }

    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }
}

impl Operations for Desk {
    fn request_sweep(&self, reason: &'static str, archive: bool) -> Result<Ticket, Refused> {
        if self.standby {
            return Err(Refused::Standby(Some("vm-1:4711".to_owned())));
        }
        let archive = if archive { " archive" } else { "" };
        self.note(format!("sweep {reason}{archive}"));
        let (id, state) = ("17".to_owned(), TicketState::Queued);
        Ok(Ticket { id, state })
    }

    fn wait(&self, id: String) -> BoxFuture<'_, Result<Run, Refused>> {
        self.note(format!("wait {id}"));
        Box::pin(async { Ok(self.run.clone()) })
    }

    fn runs(&self, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page<Run>, Refused>> {
        self.note(format!("runs {after:?} {limit}"));
        let (items, next) = (vec![self.run.clone()], None);
        Box::pin(async { Ok(Page { items, next }) })
    }

    fn failures(&self, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page<Failure>, Refused>> {
        self.note(format!("failures {after:?} {limit}"));
        let next = after.is_none().then(|| "bookings:k".to_owned());
        let failure = Failure {
            object: "bookings".to_owned(),
            key: Some("k".to_owned()),
            hubspot_id: None,
            category: "validation_error".to_owned(),
            message: "is_active: not one of the options".to_owned(),
            correlation_id: Some("c-1".to_owned()),
            attempts: 2,
            first_failed_at: NOW,
            last_failed_at: NOW + 1_000_000,
        };
        let items = vec![failure];
        Box::pin(async { Ok(Page { items, next }) })
    }

    fn causes(&self, limit: usize) -> BoxFuture<'_, Result<(Vec<Cause>, u64), Refused>> {
        self.note(format!("causes {limit}"));
        let cause = Cause {
            name: CauseName {
                object: "bookings".to_owned(),
                category: "validation_error".to_owned(),
                shape: "is_active: not one of the … options".to_owned(),
            },
            records: 1234,
            message: "is_active: not one of the 3 <b>options</b>".to_owned(),
            key: Some("k".to_owned()),
            first_failed_at: NOW,
            last_failed_at: NOW + 1_000_000,
        };
        Box::pin(async { Ok((vec![cause], 0)) })
    }

    fn retry_cause(&self, cause: CauseName) -> BoxFuture<'_, Result<u64, Refused>> {
        self.note(format!(
            "retry cause {} {} {}",
            cause.object, cause.category, cause.shape
        ));
        Box::pin(async { Ok(1234) })
    }

    fn explain(&self, object: String, key: String) -> BoxFuture<'_, Result<Explanation, Refused>> {
        self.note(format!("explain {object} {key}"));
        Box::pin(async move { Err(Refused::Unknown(format!("{object} {key}"))) })
    }

    fn waiting(&self, limit: usize) -> Option<Vec<WaitingRow>> {
        self.note(format!("waiting {limit}"));
        let row = WaitingRow {
            object: "contacts".to_owned(),
            key: "<b>k</b>".to_owned(),
            waited: Some(Duration::from_secs(7)),
            attempts: 2,
            stage: Stage::BackOff(Duration::from_secs(3)),
        };
        (!self.standby).then(|| vec![row])
    }

    fn retry(&self, object: Option<String>, key: Option<String>) -> BoxFuture<'_, Result<u64, Refused>> {
        self.note(format!("retry {object:?} {key:?}"));
        Box::pin(async move {
            match object.as_deref() {
                Some("nothing") => Err(Refused::Unknown("object `nothing`".to_owned())),
                _ => Ok(1),
            }
        })
    }

    fn pull(
        &self,
        reason: request::Reason,
        kinds: &[Mirrored],
        extent: Extent,
    ) -> Result<request::Ticket, Refused> {
        if self.standby {
            return Err(Refused::Standby(Some("vm-1:4711".to_owned())));
        }
        let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
        self.note(format!("pull {} {} {extent:?}", reason.word(), names.join(",")));
        let (id, joined) = ("18".to_owned(), false);
        Ok(request::Ticket { id, joined })
    }

    fn pulled(&self, id: String) -> BoxFuture<'_, Result<Arc<Pulled>, Refused>> {
        self.note(format!("pulled {id}"));
        let complaint = Complaint {
            id: Some("42".to_owned()),
            reason: "property amount: not a number".to_owned(),
        };
        let tally = Tally {
            synced: 10,
            updated: 5,
            errors: 1,
            removed: 2,
            complaints: vec![complaint],
        };
        let error = self.run.error.clone().map(|error| (Mirrored::Contacts, error));
        let pulled = Pulled {
            id,
            tallies: vec![
                (Mirrored::Contacts, tally),
                (Mirrored::Companies, Tally::default()),
            ],
            errors: error.into_iter().collect(),
            started_at: NOW,
            finished_at: NOW + 1_234_567,
        };
        Box::pin(async { Ok(Arc::new(pulled)) })
    }

    fn mirrored(
        &self,
        kind: Mirrored,
        from: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<MirrorPage, Refused>> {
        self.note(format!("mirrored {} {from:?} {limit}", kind.name()));
        let begins: u64 = from.as_deref().map_or(1, |from| from.parse().unwrap());
        let unreadable = self.mirror.unreadable_from.is_some_and(|first| begins >= first);
        let page = match unreadable {
            true => Err(Refused::Unavailable("the table is gone".to_owned())),
            false => Ok(self.mirror.page(from.as_deref(), limit)),
        };
        Box::pin(async { page })
    }

    fn in_hubspot(
        &self,
        kind: Mirrored,
        from: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<MirrorPage, Refused>> {
        self.note(format!("in_hubspot {} {from:?} {limit}", kind.name()));
        let page = match self.mirror.unanswered {
            true => Err(Refused::Unavailable("HubSpot is away".to_owned())),
            false => Ok(self.mirror.page(from.as_deref(), limit)),
        };
        Box::pin(async { page })
    }

    fn standings(&self) -> BoxFuture<'_, Result<Vec<(String, String)>, Refused>> {
        let of = |total: u32| format!("{{\"total\":{total}}}");
        let standings = vec![("deals".to_owned(), of(3)), ("contacts".to_owned(), of(1))];
        Box::pin(async { Ok(standings) })
    }

    fn reload(&self) -> BoxFuture<'_, Result<Reloaded, NotReloaded>> {
        self.note("reload".to_owned());
        Box::pin(async { Err(NotReloaded::Refused(vec!["one".to_owned(), "two".to_owned()])) })
    }
}

/// A server on sockets of its own; it stops when this is dropped.
pub struct Served {
    /// Where its sockets are.
    pub directory: tempfile::TempDir,
    /// How it listens.
    pub settings: Http,
    /// What its tasks would report to.
    pub board: Arc<Board>,
    /// What its tasks would answer.
    pub desk: Arc<Desk>,
    /// Its TCP address.
    pub tcp: String,
    _stop: DropGuard,
}

impl Served {
    /// Starts to listen, in the test's runtime.
    pub fn start(desk: Desk) -> Served {
        let directory = tempfile::tempdir().unwrap();
        let settings = Http {
            socket: directory.path().join("run/h.sock"),
            socket_mode: 0o640,
            health_socket: Some(directory.path().join("health.sock")),
            listen: Some("127.0.0.1:0".parse().unwrap()),
            cron_secret: Some(SecretString::from(SECRET)),
        };
        let server = Server::bind(&settings).unwrap();
        let board = Board::new(&Mapping::built_in());
        let desk = Arc::new(desk);
        let context = Context {
            board: Arc::clone(&board),
            operations: Arc::clone(&desk) as Arc<dyn Operations>,
            limits: Box::new(|| Limits {
                health: Health {
                    warn_after: Duration::from_secs(60),
                    fail_after: Duration::from_secs(300),
                },
                every: Duration::from_secs(7200),
            }),
        };
        let stop = CancellationToken::new();
        let tcp = server.tcp_address().unwrap().to_string();
        tokio::spawn(server.run(context, stop.clone()));
        Served {
            directory,
            settings,
            board,
            desk,
            tcp,
            _stop: stop.drop_guard(),
        }
    }

    /// Asks on the operators' socket; `head` is the request line and any headers.
    pub async fn ask(&self, head: &str) -> (u16, Value) {
        let (code, text) = ask(UnixStream::connect(&self.settings.socket).await.unwrap(), head).await;
        (code, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Asks on TCP.
    pub async fn ask_tcp(&self, head: &str) -> (u16, String) {
        ask(TcpStream::connect(&self.tcp).await.unwrap(), head).await
    }

    /// What was asked of the tasks since the last call.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.desk.asked.lock().unwrap())
    }

    /// Makes the board that of a daemon in step.
    pub fn in_step(&self) {
        self.board.set_condition(Condition::Database, None);
        self.board.set_lease(Lease::Held);
        self.board.set_listener(Listener::Armed);
        let wall = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let wall = i64::try_from(wall.as_micros()).unwrap();
        self.board.remember_sweeps(None, Some(wall));
    }
}

/// One request in HTTP's own words, without a client that would tidy it up.
pub async fn ask<S: AsyncReadExt + AsyncWriteExt + Unpin>(mut stream: S, head: &str) -> (u16, String) {
    let (line, headers) = head.split_once('\n').unwrap_or((head, ""));
    let host = if headers.to_lowercase().contains("host:") {
        ""
    } else {
        "Host: hubsyncd\r\n"
    };
    let headers: String = headers.lines().map(|header| format!("{header}\r\n")).collect();
    let request = format!("{line} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let code = answer
        .split(' ')
        .nth(1)
        .unwrap_or_else(|| panic!("no status: {answer:?}"));
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (code.parse().unwrap(), body.to_owned())
}
