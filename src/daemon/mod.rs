//! The clockwork: it alone spawns, sleeps and holds both walls.
//!
//! [`run`] is the daemon. Four tasks live as long as it does, each waiting on few things: the `keeper` (the control
//! session, the lease, and inside it `collect`), the `sweep`, the socket (`http`), and systemd's reporter. A task that
//! ends before it is asked to is a fault: the others are stopped and the process ends.

pub mod alert;
mod answers;
pub mod board;
mod census;
mod collect;
pub mod desk;
pub mod door;
pub mod exit;
pub mod health;
pub mod http;
mod keeper;
pub mod lease;
mod metrics;
pub mod operations;
pub mod pinned;
pub mod prepare;
mod status;
pub mod sweep;
pub mod systemd;

use crate::config::Config;
use crate::hubspot::{Answered, Budget, Client, Observed, Settings};
use crate::postgres::address::Address;
use crate::postgres::connect::Pool;
use board::{Board, Lease};
use door::Door;
use exit::{CONFIGURATION, Exit, SOFTWARE, UNAVAILABLE};
use secrecy::ExposeSecret;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use sweep::Sweeper;
use sweep::request::{Reason, Requests};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// How long systemd is asked to wait for what is between HubSpot's answer and its receipt.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long we wait for it ourselves: longer than a request may take by default. A receipt that a database which is
/// away does not take by then is given up; its rows are pushed again at the next start.
const RECEIPTS: Duration = Duration::from_secs(50);

/// What to do about a fault of ours.
const FAULT: &str = "this is a fault in hubsyncd; systemd starts it again, please report it";

/// What the tasks share.
struct Shared {
    config: Arc<Config>,
    address: Address,
    client: Arc<Client>,
    pool: Arc<Pool>,
    board: Arc<Board>,
    requests: Arc<Requests>,
    lease: Arc<lease::Hold>,
    door: Arc<OnceLock<Arc<Door>>>,
    stop: CancellationToken,
}

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// See [`Exit`]: configuration that cannot work (78), rights (77), a socket that cannot be bound (69), a fault (70).
pub async fn run(config: Config) -> Result<(), Exit> {
    let mut signals = Signals::install()?;
    let shared = Shared::new(config)?;
    let server = http::Server::bind(&shared.config.http).map_err(|error| {
        Exit::new(UNAVAILABLE, error).hint("look at [http] in the configuration, and at who may write there")
    })?;
    if let Some(address) = server.tcp_address() {
        info!("hubsyncd listens on {address}, for who knows the cron secret");
    }
    let mut tasks = shared.spawn(server);
    systemd::ready();
    info!(version = env!("CARGO_PKG_VERSION"), "hubsyncd runs");
    let mut result = Ok(());
    loop {
        tokio::select! {
            ended = tasks.join_next() => {
                result = Err(fault(ended));
                break;
            }
            asked = signals.next() => match asked {
                Asked::Sweep => shared.sweep_now(),
                Asked::Reload => warn!("SIGHUP: this version takes a changed configuration by a restart only"),
                Asked::Stop => break,
            },
        }
    }
    info!("hubsyncd stops; what HubSpot has answered is recorded first");
    systemd::stopping(PATIENCE);
    shared.stop.cancel();
    let patience = tokio::time::sleep(RECEIPTS);
    tokio::pin!(patience);
    loop {
        tokio::select! {
            () = &mut patience => {
                warn!("what HubSpot has answered cannot be recorded: stopping without; the rows under way are pushed again at \
                       the next start");
                break;
            }
            ended = tasks.join_next() => match ended {
                None => break,
                Some(Ok((_, Err(exit)))) if result.is_ok() => result = Err(exit),
                Some(_) => {}
            },
            asked = signals.next() => if matches!(asked, Asked::Stop) {
                warn!("asked to stop a second time: stopping at once; the rows under way are pushed again at the next start");
                break;
            },
        }
    }
    result
}

type Ended = (&'static str, Result<(), Exit>);

/// What the end of a task before its time means.
fn fault(ended: Option<Result<Ended, tokio::task::JoinError>>) -> Exit {
    match ended {
        Some(Ok((_, Err(exit)))) => exit,
        Some(Ok((task, Ok(())))) => {
            error!(task, "a task ended that should not");
            Exit::new(SOFTWARE, format!("the task {task} ended")).hint(FAULT)
        }
        Some(Err(error)) => Exit::new(SOFTWARE, error).hint(FAULT),
        None => Exit::new(SOFTWARE, "all tasks ended").hint(FAULT),
    }
}

impl Shared {
    fn new(config: Config) -> Result<Shared, Exit> {
        let address = Address::parse(config.database.url.expose_secret())
            .map_err(|error| Exit::new(CONFIGURATION, error).hint("look at the database URL"))?;
        let board = Board::new(&config.mapping);
        let observed = Arc::clone(&board);
        let lease = Arc::new(lease::Hold::default());
        let (asked, unanswered) = (Arc::clone(&lease), Arc::clone(&lease));
        let client = Client::new(Settings {
            base_url: config.hubspot.base_url.clone(),
            api_version: config.hubspot.api_version.clone(),
            token: config.hubspot.token.clone(),
            timeout: config.hubspot.timeout,
            budget: Budget {
                requests: config.hubspot.requests,
                window: config.hubspot.window,
                in_flight: u32::try_from(config.hubspot.in_flight).unwrap_or(u32::MAX),
            },
            observer: Arc::new(move |seen: Observed| {
                let status = match seen.outcome {
                    Answered::Status(status) => Some(status),
                    Answered::Unconnected | Answered::TimedOut | Answered::Broken => None,
                };
                if matches!(
                    seen.outcome,
                    Answered::TimedOut | Answered::Broken | Answered::Status(500..)
                ) {
                    unanswered.outcome_unknown();
                }
                observed.request(seen.endpoint, status, seen.took);
            }),
        })
        .map_err(|error| Exit::new(CONFIGURATION, error).hint("look at [hubspot] and the token"))?
        .asking(Arc::new(move || asked.may_ask()));
        Ok(Shared {
            pool: Arc::new(Pool::new(address.clone(), config.database.connections)),
            address,
            client: Arc::new(client),
            board,
            requests: Arc::default(),
            lease,
            door: Arc::default(),
            stop: CancellationToken::new(),
            config: Arc::new(config),
        })
    }

    fn spawn(&self, server: http::Server) -> JoinSet<Ended> {
        let mut tasks = JoinSet::new();
        let keeper = keeper::Keeper {
            config: Arc::clone(&self.config),
            address: self.address.clone(),
            pool: Arc::clone(&self.pool),
            client: Arc::clone(&self.client),
            board: Arc::clone(&self.board),
            lease: Arc::clone(&self.lease),
            door: Arc::clone(&self.door),
            stop: self.stop.clone(),
        };
        tasks.spawn(async move { ("keeper", keeper.run().await) });
        let sweeper = Sweeper {
            door: Arc::clone(&self.door),
            pool: Arc::clone(&self.pool),
            requests: Arc::clone(&self.requests),
            board: Arc::clone(&self.board),
            lease: Arc::clone(&self.lease),
            stop: self.stop.clone(),
            every: self.config.sweep.every,
            on_start: self.config.sweep.on_start,
            give_up: self.config.sweep.give_up,
            in_flight: self.config.hubspot.in_flight,
            progress: Mutex::default(),
            late: Mutex::default(),
        };
        tasks.spawn(async move {
            sweeper.run().await;
            ("sweep", Ok(()))
        });
        let context = http::Context {
            board: Arc::clone(&self.board),
            operations: Arc::new(answers::Answers {
                board: Arc::clone(&self.board),
                pool: Arc::clone(&self.pool),
                requests: Arc::clone(&self.requests),
                door: Arc::clone(&self.door),
                stop: self.stop.clone(),
            }),
            health: self.config.health.clone(),
            every: self.config.sweep.every,
        };
        let stop = self.stop.clone();
        tasks.spawn(async move {
            server.run(context, stop).await;
            ("http", Ok(()))
        });
        let teller = alert::Teller {
            board: Arc::clone(&self.board),
            webhook: self.config.alert.webhook_url.clone(),
            health: self.config.health.clone(),
            every: self.config.sweep.every,
            stop: self.stop.clone(),
        };
        tasks.spawn(async move {
            teller.run().await;
            ("alert", Ok(()))
        });
        let (board, stop) = (Arc::clone(&self.board), self.stop.clone());
        tasks.spawn(async move {
            systemd::report(board, stop).await;
            ("systemd", Ok(()))
        });
        tasks
    }

    /// SIGUSR1.
    fn sweep_now(&self) {
        if let Lease::Standby(holder) = self.board.state().lease {
            let holder = holder.as_deref().unwrap_or("another daemon");
            warn!("SIGUSR1 does nothing here: this daemon stands by, {holder} pushes");
            return;
        }
        let ticket = self.requests.ask(Reason::Signal);
        let when = if ticket.started {
            "now"
        } else {
            "after the one that runs"
        };
        info!(run = %ticket.id, "SIGUSR1: a sweep runs {when}");
    }
}

/// The signals of design and systemd.
struct Signals {
    sweep: Signal,
    reload: Signal,
    terminate: Signal,
    interrupt: Signal,
}

/// What a signal asks for.
enum Asked {
    Sweep,
    Reload,
    Stop,
}

impl Signals {
    /// Installs the handlers: the first thing a daemon does, since SIGUSR1 and SIGHUP kill who has none.
    fn install() -> Result<Signals, Exit> {
        let install = |kind| signal(kind).map_err(|error| Exit::new(SOFTWARE, error));
        Ok(Signals {
            sweep: install(SignalKind::user_defined1())?,
            reload: install(SignalKind::hangup())?,
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.sweep.recv() => Asked::Sweep,
            _ = self.reload.recv() => Asked::Reload,
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
        }
    }
}
