//! A HubSpot to talk to: a world with rules, not a list of canned replies.
//!
//! [`Sandbox::start`] serves a [`World`] on a loopback port the way HubSpot's CRM API would: its paths and
//! versions, its limits, its error bodies, and its manners (results out of order, ids that change in a
//! merge, a search that lags). It knows nothing of the rest of the program, so that it cannot come to
//! believe what the program believes; what it claims is written in HubSpot's specifications and documents,
//! and in what others have seen on real portals.
//!
//! A test looks at the final state through [`Sandbox::world`], waits for it with [`Sandbox::wait_until`],
//! and breaks things with [`Fault`]s, [`Sandbox::hold`] and [`Sandbox::refuse_record`]. The same can be
//! done over HTTP below `/_sandbox/`. A [`Portal`] is the same world without a port and with a clock that stands.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use hubsyncd::sandbox::{Endpoint, Fault, Property, Sandbox, Settings};
//! let sandbox = Sandbox::start(Settings::default()).await?;
//! sandbox.world().define("2-77", "cars", [Property::string("plate").unique(), Property::number("price")]);
//! sandbox.fault(Fault::lose_reply().on(Endpoint::Upsert));
//! println!("{} with {}", sandbox.base_url(), sandbox.token());
//! # Ok(())
//! # }
//! ```

mod admission;
mod association;
mod bulk;
mod call;
mod clock;
mod control;
mod definition;
mod draft;
mod fault;
mod http;
mod index;
mod limits;
mod link;
mod log;
mod object_type;
mod portal;
mod problem;
mod property;
mod read;
mod reply;
mod route;
mod search;
mod show;
mod spoil;
mod standard;
mod value;
mod wire;
mod world;
mod write;

pub use bulk::Population;
pub use fault::{Endpoint, Fault, Policy, When};
pub use log::{Request, Write};
pub use object_type::{ObjectType, Record, Values};
pub use portal::{Delivered, Portal};
pub use property::{Choice, Kind, Name, Property, Writable};
pub use world::{Link, World};

use clock::Clock;
use fault::{Faults, Gate};
use limits::Limits;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use wire::{Wire, Wires};

/// How a sandbox behaves. The default is a small portal as HubSpot would serve it, without latency,
/// without limits, and with a search that does not lag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The loopback port; 0 for any that is free.
    pub port: u16,
    /// The token that every request must carry.
    pub token: String,
    /// The portal's id.
    pub portal_id: i64,
    /// The portal's IANA time zone; its midnight ends the daily quota. Unknown names mean UTC.
    pub time_zone: String,
    /// How long a request takes; it is carried out half-way through.
    pub latency: Duration,
    /// Requests per rolling ten seconds; `None`: neither limit nor headers, and no limit on searches.
    pub requests_per_window: Option<u32>,
    /// Requests per day; `None`: no limit.
    pub daily: Option<u32>,
    /// How long search takes to see what was written.
    pub search_lag: Duration,
    /// The seed of ids and of the order of results.
    pub seed: u64,
    /// Whether results come in an order other than the inputs'.
    pub shuffle: bool,
    /// Whether results of a create carry the trace id of their input.
    pub echo_trace_on_create: bool,
    /// Whether results of an update or upsert carry the trace id of their input.
    pub echo_trace_on_upsert: bool,
    /// Whether 2026-09 answers partly refused batches with 207 as the other versions do; if not, with
    /// 200 or 201 and the errors in the body, as its specification says.
    pub multi_status: bool,
    /// Whether records carry fields that no specification names.
    pub extra_fields: bool,
    /// Whether a merge keeps the primary's id instead of making a new one.
    pub merge_keeps_primary_id: bool,
    /// The largest body taken, in bytes; more is answered with 413.
    pub body_max_bytes: usize,
    /// How many requests the log keeps.
    pub log_max: usize,
    /// The scopes of the token.
    pub scopes: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            port: 0,
            token: String::from("pat-na1-00000000-0000-4000-8000-000000000000"),
            portal_id: 12_345_678,
            time_zone: String::from("US/Eastern"),
            latency: Duration::ZERO,
            requests_per_window: None,
            daily: None,
            search_lag: Duration::ZERO,
            seed: 1,
            shuffle: true,
            echo_trace_on_create: false,
            echo_trace_on_upsert: true,
            multi_status: true,
            extra_fields: true,
            merge_keeps_primary_id: false,
            body_max_bytes: 16 * 1024 * 1024,
            log_max: 10_000,
            scopes: all_scopes(),
        }
    }
}

/// A running sandbox; it stops when it is dropped, with every connection.
#[derive(Debug)]
pub struct Sandbox {
    shared: Arc<Shared>,
    address: SocketAddr,
    token: String,
    /// A runtime of its own, so that dropping it ends also what hangs; `None` only while dropping.
    runtime: Option<Runtime>,
}

/// What the server's tasks share.
#[derive(Debug)]
struct Shared {
    world: Mutex<World>,
    limits: Mutex<Limits>,
    faults: Mutex<Faults>,
    holds: Mutex<Vec<(String, Arc<Gate>)>>,
    clock: Arc<Clock>,
    changes: watch::Sender<u64>,
    latency_us: AtomicU64,
    body_max_bytes: usize,
}

impl Sandbox {
    /// Starts a sandbox with contacts, companies and deals, empty.
    ///
    /// # Errors
    /// If the port cannot be bound or no thread can be started.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, settings.port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder
            .worker_threads(1)
            .thread_name("sandbox")
            .enable_all()
            .build()?;
        let token = settings.token.clone();
        let shared = Arc::new(Shared::new(settings));
        let served = Arc::clone(&shared);
        runtime.spawn(async move {
            let Ok(listener) = TcpListener::from_std(listener) else {
                return;
            };
            let router = axum::Router::new().fallback(http::answer).with_state(served);
            let service = router.into_make_service_with_connect_info::<Wire>();
            // Ends only with the runtime: accepting never fails, see `Wires`.
            let _ = axum::serve(Wires(listener), service).await;
        });
        Ok(Self {
            shared,
            address,
            token,
            runtime: Some(runtime),
        })
    }

    /// Starts a sandbox with the tutoring application's objects: contacts with the credit fields,
    /// bookings (`2-50158943`) with a unique `booking_id`, mock exams (`2-50158913`), and the
    /// associations between them.
    ///
    /// # Errors
    /// As [`Sandbox::start`].
    pub async fn tutoring(settings: Settings) -> io::Result<Self> {
        let sandbox = Self::start(settings).await?;
        standard::furnish_tutoring(&mut sandbox.world());
        Ok(sandbox)
    }

    /// Where it listens, e.g. `http://127.0.0.1:40123`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The token to send.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The world, locked: nothing is answered while the guard is held.
    ///
    /// # Panics
    /// If it stays locked for ten seconds, as it does when one statement asks for it twice, or when a
    /// guard is alive while a request is awaited.
    pub fn world(&self) -> MutexGuard<'_, World> {
        let asked = Instant::now();
        loop {
            match self.shared.world.try_lock() {
                Ok(world) => return world,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
            let stuck = asked.elapsed() > Duration::from_secs(10);
            assert!(
                !stuck,
                "the sandbox's world is still locked by a guard: in this statement, or across an await?"
            );
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Waits until the world satisfies `predicate`, at most this long; answers whether it did. The
    /// predicate is asked again after every request.
    pub async fn wait_until(&self, within: Duration, mut predicate: impl FnMut(&World) -> bool) -> bool {
        let mut changes = self.shared.changes.subscribe();
        let satisfied = async {
            loop {
                changes.mark_unchanged();
                if predicate(&self.world()) {
                    return;
                }
                // Search catches up and time passes without a request.
                let _ = tokio::time::timeout(Duration::from_millis(100), changes.changed()).await;
            }
        };
        tokio::time::timeout(within, satisfied).await.is_ok()
    }

    /// Queues a fault for the first request that it covers.
    pub fn fault(&self, fault: Fault) {
        self.shared.faults().add(fault);
    }

    /// How many faults wait for their request.
    pub fn faults_waiting(&self) -> usize {
        self.shared.faults().waiting().len()
    }

    /// How often faults have struck, by name.
    pub fn struck(&self) -> BTreeMap<String, u64> {
        self.shared.faults().struck().clone()
    }

    /// Forgets all faults and rules of refusal, and lets go what is held.
    pub fn clear_faults(&self) {
        self.shared.clear_faults();
    }

    /// Holds the next request of a kind until the answer is released or dropped.
    pub fn hold(&self, endpoint: Endpoint, when: When) -> Hold {
        let gate = Gate::shut();
        self.fault(Fault::hold(when, Arc::clone(&gate)).on(endpoint));
        Hold { gate }
    }

    /// Holds every request of a kind, as [`Sandbox::hold`].
    pub fn hold_all(&self, endpoint: Endpoint, when: When) -> Hold {
        let gate = Gate::shut();
        self.fault(Fault::hold(when, Arc::clone(&gate)).on(endpoint).always());
        Hold { gate }
    }

    /// Refuses writes to the records whose property has this value (`hs_object_id` for an id), as a
    /// portal's own validation rule would: this many times, or always.
    ///
    /// # Panics
    /// If the type was never defined.
    pub fn refuse_record(&self, object: &str, property: &str, value: &str, times: Option<u32>) {
        self.shared
            .world()
            .refuse_record(object, property, value, times)
            .expect("the object type was defined");
    }

    /// Refuses associations from one type to another at whose either end is this record.
    ///
    /// # Panics
    /// If a type was never defined.
    pub fn refuse_association(&self, from: &str, to: &str, id: &str, times: Option<u32>) {
        self.shared
            .world()
            .refuse_association(from, to, id, times)
            .expect("the object types were defined");
    }

    /// Uses up requests of the window and of the day, as another integration of the portal would.
    pub fn spend(&self, of_window: u32, of_day: u32) {
        let now_ms = self.shared.clock.now_ms();
        self.shared.limits().spend(of_window, of_day, now_ms);
    }

    /// Changes the limits, as another plan or another day would.
    pub fn limit(&self, requests_per_window: Option<u32>, daily: Option<u32>) {
        let mut limits = self.shared.limits();
        limits.per_window = requests_per_window;
        limits.per_day = daily;
    }

    /// Changes how long a request takes.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.set_latency(latency);
    }

    /// Moves the world's clock ahead: limits, search lag and times of records follow.
    pub fn advance(&self, by: Duration) {
        self.shared.clock.advance(by);
        self.shared.changed();
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Requests that are held; dropping it releases them.
#[derive(Debug)]
pub struct Hold {
    gate: Arc<Gate>,
}

impl Hold {
    /// Waits until a request is being held, at most this long; answers whether one is.
    pub async fn reached(&self, within: Duration) -> bool {
        let mut reached = self.gate.reached();
        let held = tokio::time::timeout(within, reached.wait_for(|count| *count > 0)).await;
        matches!(held, Ok(Ok(_)))
    }

    /// How many requests have come to the gate so far.
    pub fn count(&self) -> usize {
        *self.gate.reached().borrow()
    }

    /// Lets the held requests go, and those to come.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.gate.open();
    }
}

impl Shared {
    fn new(settings: Settings) -> Self {
        Self::around(settings, Clock::start())
    }

    fn around(settings: Settings, clock: Clock) -> Self {
        let clock = Arc::new(clock);
        let shared = Self {
            limits: Mutex::new(Limits::new(
                settings.requests_per_window,
                settings.daily,
                &settings.time_zone,
            )),
            faults: Mutex::default(),
            holds: Mutex::default(),
            changes: watch::Sender::new(0),
            latency_us: AtomicU64::new(0),
            body_max_bytes: settings.body_max_bytes,
            clock: Arc::clone(&clock),
            world: Mutex::new(World::new(settings.clone(), clock)),
        };
        shared.set_latency(settings.latency);
        shared
    }

    fn world(&self) -> MutexGuard<'_, World> {
        // A test that failed while it held the world says enough by itself.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self) -> MutexGuard<'_, Vec<(String, Arc<Gate>)>> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn clear_faults(&self) {
        self.faults().clear();
        self.world().refusals.clear();
        for (_, gate) in self.holds().drain(..) {
            gate.open();
        }
    }

    fn latency(&self) -> Duration {
        Duration::from_micros(self.latency_us.load(Ordering::Relaxed))
    }

    fn set_latency(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency_us.store(micros, Ordering::Relaxed);
    }
}

fn all_scopes() -> Vec<String> {
    let mut scopes = vec![String::from("oauth")];
    for family in ["contacts", "companies", "deals", "custom"] {
        scopes.push(format!("crm.objects.{family}.read"));
        scopes.push(format!("crm.objects.{family}.write"));
        scopes.push(format!("crm.schemas.{family}.read"));
    }
    scopes
}
