//! The control session: the one connection that listens, holds the lease, and holds the armed lock.
//!
//! All three are properties of a session, so they live and die together with its connection, and whoever sees the
//! connection go ([`Control::lost`]) knows that all three are gone. It writes nothing but the lease's row: a session
//! lock does not conflict with its owner, so a change written here would not ring. A holder's session is ended by the
//! server after 10 s of silence, also while it is armed and only waits: the pings of [`Pinger`] keep it alive.
//!
//! Whether the armed lock is held is a type: [`Awake`] can try to arm, [`Armed`] can only disarm. A trigger that finds
//! the lock free holds it shared to the end of its transaction; one that finds it taken rings. Both use
//! [`LOCK_CLASS`] and [`ARMED_LOCK`].
//!
//! A notification carries no data: whatever its text, it rings. It is kept until somebody waits, and many are one.
//! One text is an exception: at the start the session notifies itself and waits for its own echo, which alone proves
//! that notifications arrive. Without the proof the daemon never arms and looks for itself.

use super::address::Address;
use super::connect::{self, Wire};
use super::{Error, ErrorKind, lease};
use crate::sync::lease::Taken;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_postgres::{AsyncMessage, Client, SimpleQueryMessage};

/// The class of all our advisory locks: `hubs` in ASCII, 1752523379.
pub const LOCK_CLASS: i32 = 0x6875_6273;

/// The lock that says "asleep: ring". Held exclusively by the control session while armed, shared by transactions
/// that captured a change while it was not.
pub const ARMED_LOCK: i32 = 1;

/// The lock of which the holder alone pushes.
pub const LEASE_LOCK: i32 = 2;

/// The channel that triggers ring.
pub const CHANNEL: &str = "hubsyncd";

/// How long the session's notification to itself may take. It waits only for other commits that notify.
const ECHO_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a statement of this session may take: all of them are short, and none waits for a lock but that of a row
/// nobody else writes.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// `application_name` has 63 bytes; name, version, process id and this much of the host's name fit.
const HOST_NAME_BYTES_MAX: usize = 30;

/// The control session, whatever its state towards the doorbell.
pub struct Control {
    client: Arc<Client>,
    signals: Arc<Signals>,
    lose: Arc<watch::Sender<Option<String>>>,
    name: String,
    listen_proven: bool,
    prepared_transactions: bool,
    lease: Lease,
}

/// What came over the connection unasked.
struct Signals {
    rung: Notify,
    echoed: Notify,
}

/// How far the taking of the lease has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lease {
    Standby,
    /// The server ends this session if it falls silent.
    Watched,
    /// The lock is held, the row not yet written.
    Locked,
    /// Held under this generation.
    Held(i64),
}

/// Keeps the lease of a control session: pings, beside whatever else the session does.
pub struct Pinger {
    client: Arc<Client>,
    lose: Arc<watch::Sender<Option<String>>>,
    generation: i64,
}

/// The control session while triggers do not ring.
pub struct Awake(Control);

/// The control session while the armed lock is held: any change captured from now on rings.
pub struct Armed(Control);

/// What became of an attempt to arm.
pub enum Arming {
    /// The lock is held. What was captured before may not have been seen yet: look once more, then wait.
    Armed(Armed),
    /// A transaction that captured a change has not ended, or arming is not possible here: look again soon.
    Refused(Awake),
}

impl Control {
    /// Connects, listens, and finds out what this server can do.
    ///
    /// # Errors
    /// As [`connect::connect`]; [`ErrorKind::Schema`] if a transaction pooler stands between us and the server.
    pub async fn open(address: &Address) -> Result<Awake, Error> {
        Control::open_on(address, "control", CHANNEL).await
    }

    /// The same on a channel of its own, which wakes no daemon: to find out, and to be dropped.
    ///
    /// # Errors
    /// As [`Control::open`].
    pub async fn try_out(address: &Address) -> Result<Awake, Error> {
        Control::open_on(address, "check", "hubsyncd_check").await
    }

    async fn open_on(address: &Address, purpose: &str, channel: &str) -> Result<Awake, Error> {
        let name = format!("{}:{}", host_name(), std::process::id());
        let purpose = format!("{purpose} {name}");
        let opening = connect::open(address, &purpose);
        let (client, wire) = tokio::time::timeout(STATEMENT_TIMEOUT, opening)
            .await
            .unwrap_or_else(|late| Err(late_error("opening the control session", late)))?;
        let signals = Arc::new(Signals {
            rung: Notify::new(),
            echoed: Notify::new(),
        });
        let lose = Arc::new(watch::channel(None).0);
        let echo = format!("echo {}", uuid::Uuid::new_v4());
        tokio::spawn(drive(wire, Arc::clone(&signals), Arc::clone(&lose), echo.clone()));
        let mut control = Control {
            client: Arc::new(client),
            signals,
            lose,
            name,
            listen_proven: false,
            prepared_transactions: false,
            lease: Lease::Standby,
        };
        connect::pin(&control.client).await?;
        control.refuse_pooler(address).await?;
        let setting = control
            .value("SELECT current_setting('max_prepared_transactions')")
            .await?;
        control.prepared_transactions = setting.as_deref() != Some("0");
        control.prove_listening(channel, &echo).await?;
        Ok(Awake(control))
    }

    /// Whether a notification has been seen to arrive.
    pub fn listen_proven(&self) -> bool {
        self.listen_proven
    }

    /// Whether arming can succeed at all: notifications arrive, and triggers may ring (a transaction that has
    /// notified cannot be prepared, so they never do where transactions can be).
    pub fn can_arm(&self) -> bool {
        self.listen_proven && !self.prepared_transactions
    }

    /// Tries to become the one daemon that pushes; never waits for another to let go. `None` while another session
    /// holds the lease. `own` is the generation that this daemon held last, if any.
    ///
    /// # Errors
    /// The connection is lost, or `hubsyncd.lease` is missing or not ours to write.
    pub async fn try_lease(&mut self, own: Option<i64>) -> Result<Option<Taken>, Error> {
        // In this order: a process that is stopped with the lock in its hand must not keep it.
        if self.lease == Lease::Standby {
            self.execute("preparing for the lease", lease::IMPATIENT).await?;
            self.lease = Lease::Watched;
        }
        if let Lease::Held(generation) = self.lease {
            return Ok(Some(Taken::resumed(generation)));
        }
        if self.lease == Lease::Watched {
            if !self.try_lock(LEASE_LOCK).await? {
                return Ok(None);
            }
            self.lease = Lease::Locked;
        }
        match self.write_lease(own).await {
            Ok(taken) => {
                self.lease = Lease::Held(taken.generation);
                Ok(Some(taken))
            }
            Err(error) => {
                // What ends the connection shows at the next use.
                let _ = self.execute("giving up the lease's row", "ROLLBACK").await;
                Err(error)
            }
        }
    }

    async fn write_lease(&self, own: Option<i64>) -> Result<Taken, Error> {
        let doing = "taking the lease";
        let unread = || Error::new(ErrorKind::Other, "the row of hubsyncd.lease cannot be read");
        let found = self.ask(doing, lease::FIND).await?;
        let found = lease::found(&found).ok_or_else(unread)?;
        let written = self.ask(doing, &lease::write(&self.name, own)).await?;
        let generation = first_value(written).and_then(|text| text.parse().ok());
        Ok(lease::taken(found, own, generation.ok_or_else(unread)?))
    }

    /// Whether this session holds the lease.
    pub fn holds_lease(&self) -> bool {
        matches!(self.lease, Lease::Held(_))
    }

    /// What keeps the lease while this session lives, if it holds it.
    pub fn pinger(&self) -> Option<Pinger> {
        let Lease::Held(generation) = self.lease else {
            return None;
        };
        Some(Pinger {
            client: Arc::clone(&self.client),
            lose: Arc::clone(&self.lose),
            generation,
        })
    }

    /// Notes that the lease is given back with nothing on its way to HubSpot, so that its next holder need not wait.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn give_back(&self) -> Result<(), Error> {
        if let Lease::Held(generation) = self.lease {
            self.execute("giving the lease back", &lease::give_back(generation))
                .await?;
        }
        Ok(())
    }

    /// The generation that the lease was taken under last.
    ///
    /// # Errors
    /// The connection is lost, or `hubsyncd.lease` is missing or not ours to read.
    pub async fn generation(&self) -> Result<i64, Error> {
        let text = self.value("SELECT generation FROM hubsyncd.lease").await?;
        Ok(text.and_then(|text| text.parse().ok()).unwrap_or_default())
    }

    /// Who holds the lease, for people: host, process id and address, as far as this role may see them.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn holder(&self) -> Result<Option<String>, Error> {
        let sql = format!(
            "SELECT coalesce(nullif(activity.application_name, ''), 'a session of another role')
                 || coalesce(' at ' || pg_catalog.host(activity.client_addr), '') || ', backend ' || lock.pid
             FROM pg_catalog.pg_locks AS lock
             LEFT JOIN pg_catalog.pg_stat_activity AS activity ON activity.pid = lock.pid
             WHERE lock.locktype = 'advisory' AND lock.granted AND lock.mode = 'ExclusiveLock'
               AND lock.classid = {LOCK_CLASS} AND lock.objid = {LEASE_LOCK} AND lock.objsubid = 2
               AND lock.database =
                   (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"
        );
        self.value(&sql).await
    }

    /// Waits until the doorbell rings; a ring that came before counts. Dropping the future loses none.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] if the connection is lost: then nothing will ever ring.
    pub async fn wait_rung(&self) -> Result<(), Error> {
        tokio::select! {
            biased;
            error = self.lost() => Err(error),
            () = self.signals.rung.notified() => Ok(()),
        }
    }

    /// Waits until the connection is lost, and says why. Lease and armed lock are gone then, and changes captured
    /// since may not have rung.
    pub async fn lost(&self) -> Error {
        let mut lost = self.lose.subscribe();
        let reason = match lost.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "its driver ended".to_owned(),
        };
        Error::with_source(ErrorKind::Unreachable, "the control session is lost", reason)
    }

    /// A transaction pooler gives two clients one backend in turn: while another connection of ours sits in a
    /// transaction, ours must still have its own.
    async fn refuse_pooler(&self, address: &Address) -> Result<(), Error> {
        const PID: &str = "SELECT pg_catalog.pg_backend_pid()";
        let doing = "looking for a pooler between us and the database";
        let failed = |error| Error::from_client(doing, error);
        let before = self.value(PID).await?;
        let keeps_its_backend = async {
            let (other, wire) = connect::open(address, "probe").await?;
            // It ends when `other` is dropped.
            tokio::spawn(wire);
            other.batch_execute("BEGIN").await.map_err(failed)?;
            let theirs = first_value(other.simple_query(PID).await.map_err(failed)?);
            // Asking further would wait for ever if the pooler has one backend only.
            if before == theirs {
                return Ok(false);
            }
            let ours = first_value(self.client.simple_query(PID).await.map_err(failed)?);
            other.batch_execute("ROLLBACK").await.map_err(failed)?;
            Ok(before == ours)
        };
        if tokio::time::timeout(STATEMENT_TIMEOUT, keeps_its_backend)
            .await
            .unwrap_or_else(|late| Err(late_error(doing, late)))?
        {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Schema,
            "the database URL leads to a transaction pooler: our sessions do not keep their backend, so LISTEN and \
             session locks mean nothing. Use the direct address or a session pooler (at Supabase: port 5432)",
        ))
    }

    async fn prove_listening(&mut self, channel: &str, echo: &str) -> Result<(), Error> {
        self.execute("listening", &format!("LISTEN {channel}")).await?;
        let sql = format!("SELECT pg_catalog.pg_notify('{channel}', '{echo}')");
        self.execute("notifying ourselves", &sql).await?;
        let echoed = tokio::time::timeout(ECHO_TIMEOUT, self.signals.echoed.notified()).await;
        self.listen_proven = echoed.is_ok();
        Ok(())
    }

    async fn try_lock(&self, lock: i32) -> Result<bool, Error> {
        let sql = format!("SELECT pg_catalog.pg_try_advisory_lock({LOCK_CLASS}, {lock})");
        Ok(self.value(&sql).await?.as_deref() == Some("t"))
    }

    async fn unlock(&self, lock: i32) -> Result<(), Error> {
        let sql = format!("SELECT pg_catalog.pg_advisory_unlock({LOCK_CLASS}, {lock})");
        self.execute("unlocking", &sql).await
    }

    async fn execute(&self, doing: &'static str, sql: &str) -> Result<(), Error> {
        self.ask(doing, sql).await.map(|_| ())
    }

    /// The first column of the first row.
    async fn value(&self, sql: &str) -> Result<Option<String>, Error> {
        let messages = self.ask("asking the control session", sql).await?;
        Ok(first_value(messages))
    }

    /// One statement. The simple protocol needs one round trip and no prepared statement.
    async fn ask(&self, doing: &'static str, sql: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        match tokio::time::timeout(STATEMENT_TIMEOUT, self.client.simple_query(sql)).await {
            Ok(answer) => answer.map_err(|error| Error::from_client(doing, error)),
            Err(late) => Err(late_error(doing, late)),
        }
    }
}

impl Pinger {
    /// Confirms the lease; false if its generation is gone. One round trip.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn ping(&self) -> Result<bool, Error> {
        let answer = self.client.simple_query(&lease::renew(self.generation)).await;
        let answer = answer.map_err(|error| Error::from_client("confirming the lease", error))?;
        Ok(lease::changed(&answer))
    }

    /// Ends the control session's use: whoever waits in [`Control::lost`] learns why.
    pub fn lose(&self, reason: String) {
        self.lose.send_if_modified(|lost| {
            let first = lost.is_none();
            if first {
                *lost = Some(reason);
            }
            first
        });
    }
}

impl Awake {
    /// Tries to take the armed lock; never waits for it. To be awaited to its end: a dropped attempt ends the session.
    ///
    /// # Errors
    /// The session cannot be used any more; it has been closed, and with it went lease and lock.
    pub async fn try_arm(self) -> Result<Arming, Error> {
        if self.0.can_arm() && self.0.try_lock(ARMED_LOCK).await? {
            return Ok(Arming::Armed(Armed(self.0)));
        }
        Ok(Arming::Refused(self))
    }
}

impl Armed {
    /// Gives the armed lock back, before a look. To be awaited to its end.
    ///
    /// # Errors
    /// The session cannot be used any more; it has been closed, and with it went lease and lock.
    pub async fn disarm(self) -> Result<Awake, Error> {
        self.0.unlock(ARMED_LOCK).await?;
        Ok(Awake(self.0))
    }
}

impl std::ops::Deref for Awake {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.0
    }
}

impl std::ops::DerefMut for Awake {
    fn deref_mut(&mut self) -> &mut Control {
        &mut self.0
    }
}

impl std::ops::Deref for Armed {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.0
    }
}

/// Moves the connection and sorts what comes over it unasked.
async fn drive(
    mut wire: Wire,
    signals: Arc<Signals>,
    lose: Arc<watch::Sender<Option<String>>>,
    echo: String,
) {
    let reason = loop {
        match std::future::poll_fn(|context| wire.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(notification))) if notification.payload() == echo => {
                signals.echoed.notify_one();
            }
            Some(Ok(AsyncMessage::Notification(_))) => signals.rung.notify_one(),
            Some(Ok(_)) => {}
            Some(Err(error)) => break crate::sync::report::chain(&error),
            None => break "the connection was closed".to_owned(),
        }
    };
    lose.send_replace(Some(reason));
}

fn first_value(messages: Vec<SimpleQueryMessage>) -> Option<String> {
    messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    })
}

fn late_error(doing: &'static str, late: tokio::time::error::Elapsed) -> Error {
    Error::with_source(ErrorKind::Unreachable, doing, late)
}

/// The name of this machine, for people. Asked of the kernel: under the unit's confinement /proc shows processes only.
fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename()
        .to_string_lossy()
        .chars()
        .filter(char::is_ascii_graphic)
        .take(HOST_NAME_BYTES_MAX)
        .collect()
}
