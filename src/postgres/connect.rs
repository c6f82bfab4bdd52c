//! Sessions: how a connection is made, what every session of ours is pinned to, and the pool of the workers.
//!
//! A session is driven by a task of its own, spawned here: the one thing outside `daemon/` that spawns, because a
//! connection of the client library moves only while somebody polls it. The task ends with the connection. Queries of
//! one session may overlap; they are sent at once and answered in order. A session that is lent for longer than its
//! statements may take is silent for ever, whatever the network says of it: it is given up.

use super::address::Address;
use super::kept::Kept;
use super::{Error, ErrorKind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long a server may take from the first byte to a session that is ready. Longer than making the TCP connection
/// may take, because a server that has stopped accepts connections still.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a session is lent at most: two statements of the longest that [`PINNED`] allows, and something over.
/// Keepalives find a network that is gone; this finds a pooler or a tunnel that is there and says nothing.
const LOAN_MAX: Duration = Duration::from_secs(11 * 60);

/// What the settings of a role or database must not change under our SQL: how values print, how transactions see one
/// another, and that nothing hangs for ever. A session that wants it otherwise sets it for its transaction.
const PINNED: &str = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; \
    SET extra_float_digits = 1; SET bytea_output = 'hex'; SET standard_conforming_strings = on; \
    SET client_min_messages = 'warning'; SET default_transaction_isolation = 'read committed'; \
    SET idle_in_transaction_session_timeout = '30s'; SET idle_session_timeout = 0; SET statement_timeout = '5min'; \
    SET jit = off";

/// A connection of the client library that nobody drives yet.
pub(super) type Wire = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// One connection, driven in the background, with the settings our SQL relies on (`TimeZone` UTC, `DateStyle` ISO,
/// `extra_float_digits` 1, `bytea_output` hex, read committed).
pub struct Session {
    client: Client,
    kept: Kept,
    /// When it has to be given back.
    due: watch::Sender<Option<Instant>>,
}

impl Session {
    /// The statements that this session keeps.
    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }
}

impl std::ops::Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl std::ops::DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// Opens a session; `purpose` is what `pg_stat_activity` shows behind our name and version, e.g. `worker`.
///
/// # Errors
/// [`ErrorKind::Denied`] if the server refuses the role or its password, [`ErrorKind::Schema`] if the address's
/// certificates cannot be read, else [`ErrorKind::Unreachable`].
pub async fn connect(address: &Address, purpose: &str) -> Result<Session, Error> {
    let ready = async {
        let (client, wire) = open(address, purpose).await?;
        let due = watch::Sender::new(None);
        tokio::spawn(drive(wire, due.subscribe()));
        pin(&client).await?;
        Ok(Session {
            client,
            kept: Kept::default(),
            due,
        })
    };
    tokio::time::timeout(READY_TIMEOUT, ready)
        .await
        .unwrap_or_else(|late| Err(Error::with_source(ErrorKind::Unreachable, doing(address), late)))
}

/// Makes a connection without driving it.
pub(super) async fn open(address: &Address, purpose: &str) -> Result<(Client, Wire), Error> {
    let tls = address
        .tls()
        .client_config()
        .map_err(|problem| Error::new(ErrorKind::Schema, format!("the database URL: {problem}")))?;
    let name = format!("hubsyncd/{} {purpose}", env!("CARGO_PKG_VERSION"));
    let connected = address.config(&name).connect(MakeRustlsConnect::new(tls)).await;
    connected.map_err(|error| Error::with_source(kind_of_refusal(&error), doing(address), error))
}

/// Sets what our SQL relies on.
pub(super) async fn pin(client: &Client) -> Result<(), Error> {
    let pinned = client.batch_execute(PINNED).await;
    pinned.map_err(|error| Error::from_client("pinning the session's settings", error))
}

async fn drive(wire: Wire, due: watch::Receiver<Option<Instant>>) {
    tokio::select! {
        // Whoever uses the session is told that it is closed; why it was is known here alone.
        ended = wire => if let Err(error) = ended {
            let reason = crate::sync::report::chain(&error);
            tracing::warn!(reason, "a session with the database was lost");
        },
        () = overdue(due) => tracing::warn!(
            "a session with the database says nothing and does not end: it is given up, and what it was to do is done again; \
             look at what stands between this machine and the database, a pooler or a tunnel"
        ),
    }
}

/// Waits until a loan has lasted too long.
async fn overdue(mut due: watch::Receiver<Option<Instant>>) {
    loop {
        let at = *due.borrow_and_update();
        let late = async {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = late => return,
            changed = due.changed() => if changed.is_err() {
                // The session is dropped, and its connection ends by that.
                return std::future::pending().await;
            },
        }
    }
}

fn doing(address: &Address) -> String {
    format!(
        "connecting to database {} at {}",
        address.database(),
        address.host()
    )
}

/// Who is refused stays refused until somebody does something; all else may pass.
fn kind_of_refusal(error: &tokio_postgres::Error) -> ErrorKind {
    match error.code().map(tokio_postgres::error::SqlState::code) {
        Some("42501") => ErrorKind::Denied,
        Some(code) if code.starts_with("28") => ErrorKind::Denied,
        Some(_) => ErrorKind::Unreachable,
        // No password where the server wants one, or a kind of authentication that the library does not know; it
        // tells them apart from a broken connection in no other way.
        None => match error.to_string().as_str() {
            "authentication error" | "invalid configuration" => ErrorKind::Denied,
            _ => ErrorKind::Unreachable,
        },
    }
}

/// The sessions of the workers: at most so many, made when they are wanted, kept while they live.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    address: Address,
    idle: Mutex<Vec<Session>>,
    slots: Arc<Semaphore>,
    loan_max: Duration,
}

/// A session lent by a [`Pool`]; dropping it gives it back.
///
/// A transaction that must not leak into the next loan is one of the client's `transaction()`, which rolls back when
/// it is dropped; who opens one by other means and may be cancelled calls [`Lent::discard`].
pub struct Lent {
    session: Option<Session>,
    shared: Arc<Shared>,
    _slot: OwnedSemaphorePermit,
}

impl Pool {
    /// A pool of at most `size` sessions; none is opened yet.
    pub fn new(address: Address, size: usize) -> Pool {
        Pool::lending(address, size, LOAN_MAX)
    }

    /// A pool whose sessions are given up if they are lent for longer than this: who waits for an answer of one is told
    /// that it is closed.
    pub fn lending(address: Address, size: usize, loan_max: Duration) -> Pool {
        let slots = Arc::new(Semaphore::new(size.max(1)));
        Pool {
            shared: Arc::new(Shared {
                address,
                idle: Mutex::default(),
                slots,
                loan_max,
            }),
        }
    }

    /// Lends a session; waits while all are lent, and replaces one whose connection has ended.
    ///
    /// # Errors
    /// As [`connect`], if a session has to be made.
    pub async fn get(&self) -> Result<Lent, Error> {
        let slots = Arc::clone(&self.shared.slots);
        let slot = slots
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let session = match self.shared.take_idle() {
            Some(session) => session,
            None => connect(&self.shared.address, "worker").await?,
        };
        session
            .due
            .send_replace(Some(Instant::now() + self.shared.loan_max));
        Ok(Lent {
            session: Some(session),
            shared: Arc::clone(&self.shared),
            _slot: slot,
        })
    }
}

impl Shared {
    fn take_idle(&self) -> Option<Session> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|session| !session.is_closed());
        idle.pop()
    }
}

impl Lent {
    /// Ends the session instead of giving it back.
    pub fn discard(mut self) {
        self.session = None;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            session.due.send_replace(None);
            self.shared
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(session);
        }
    }
}

impl std::ops::Deref for Lent {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session
            .as_ref()
            .expect("a loan has its session until it ends")
    }
}

impl std::ops::DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Session {
        self.session
            .as_mut()
            .expect("a loan has its session until it ends")
    }
}
