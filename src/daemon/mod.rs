//! The clockwork: it alone spawns, sleeps and holds both walls.
//!
//! [`run`] is the daemon, [`errand::Errand`] one that somebody brings along for a single task. Its tasks wait on few things each: the `keeper` (the control session, the lease, and inside it
//! `collect`) and the `sweep`, which live for a term, that is from one configuration to the next (`term`, `reload`); the
//! socket (`http`), the teller of alerts and systemd's reporter, which live as long as it does. A task that
//! ends before it is asked to is a fault: the others are stopped and the process ends.

pub mod alert;
mod answers;
pub mod board;
mod census;
pub mod checkup;
mod collect;
pub mod desk;
pub mod door;
pub mod errand;
pub mod exit;
mod glance;
pub mod health;
pub mod http;
mod keeper;
mod learn;
pub mod lease;
mod metrics;
pub mod mirror;
pub mod operations;
pub mod outlook;
pub mod pinned;
pub mod prepare;
pub mod reload;
mod reopen;
mod signals;
mod status;
pub mod sweep;
pub mod systemd;
mod term;
mod trouble;

use crate::config::Config;
use crate::hubspot::{Answered, Budget, Client, Observed, Settings};
use crate::postgres::address::Address;
use crate::postgres::connect::Pool;
use board::{Board, Lease};
use exit::{CONFIGURATION, Exit, SOFTWARE, UNAVAILABLE};
use mirror::request::Pulls;
use mirror::state::MirrorState;
use reload::{Ask, Loader};
use secrecy::ExposeSecret;
use signals::{Asked, Signals};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;
use sweep::request::{Reason, Requests};
use systemd::Systemd;
use term::{Doorway, Term};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use trouble::Trouble;

/// How long systemd is asked to wait for what is between HubSpot's answer and its receipt.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long we wait for it ourselves: longer than a request may take by default. A receipt that a database which is
/// away does not take by then is given up; its rows are pushed again at the next start.
const RECEIPTS: Duration = Duration::from_secs(50);

/// Reloads that may wait for the one that is under way.
const RELOADS_WAITING: usize = 8;

/// What to do about a fault of ours.
const FAULT: &str = "this is a fault in hubsyncd; systemd starts it again, please report it";

/// What a daemon runs for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// For good: it stands by while another one holds the lease, and tells systemd how it goes.
    Service,
    /// For one task of somebody who waits for it: another one's lease ends it.
    Errand,
}

/// Why a daemon without a fault ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// By a signal.
    Signal,
    /// Because what it ran for is done.
    Done,
}

/// What the tasks share, from the first term to the last.
struct Shared {
    purpose: Purpose,
    live: watch::Sender<Arc<Config>>,
    address: Address,
    pool: Arc<Pool>,
    board: Arc<Board>,
    requests: Arc<Requests>,
    pulls: Arc<Pulls>,
    lease: Arc<lease::Hold>,
    doorway: Arc<Doorway>,
    reloads: mpsc::Sender<Ask>,
    /// Who speaks to HubSpot in the present term, also without the lease: for reads alone.
    speaker: watch::Sender<Option<Client>>,
    /// Told when an object is open that was closed.
    reopened: Arc<Notify>,
    systemd: Arc<Systemd>,
    stop: CancellationToken,
}

/// Runs the daemon until SIGTERM or SIGINT; `load` reads its configuration again, for a reload.
///
/// # Errors
/// See [`Exit`]: configuration that cannot work (78), rights (77), a socket that cannot be bound (69), a fault (70).
pub async fn run(config: Config, load: Loader) -> Result<(), Exit> {
    let signals = Signals::install(Purpose::Service)?;
    let never = CancellationToken::new();
    serve(Purpose::Service, config, load, signals, never).await?;
    Ok(())
}

/// Runs a daemon until a signal, or `done`, ends it.
async fn serve(
    purpose: Purpose,
    config: Config,
    load: Loader,
    mut signals: Signals,
    done: CancellationToken,
) -> Result<Stopped, Exit> {
    let (asking, mut reloads) = mpsc::channel(RELOADS_WAITING);
    let shared = Shared::new(purpose, config, asking)?;
    let config = Arc::clone(&shared.live.borrow());
    let server = http::Server::bind(&config.http).map_err(unbound)?;
    if let Some(address) = server.tcp_address() {
        info!("hubsyncd listens on {address}, for who knows the cron secret");
    }
    let client = Arc::new(shared.client(&config)?);
    let mut tasks = shared.spawn(server);
    let mut term = Term::begin(&shared, client, None);
    shared.tell(|systemd| systemd.ready());
    info!(version = env!("CARGO_PKG_VERSION"), "hubsyncd runs");
    let mut result = loop {
        tokio::select! {
            ended = next_ended(&mut tasks, &mut term.tasks) => break Err(fault(ended)),
            asked = signals.next() => if shared.obey(asked) == Asked::Stop {
                break Ok(Stopped::Signal);
            },
            () = done.cancelled() => break Ok(Stopped::Done),
            Some(ask) = reloads.recv() => {
                let reload = shared.reload(&mut term, &load, ask);
                if let Some(result) = shared.through(reload, &mut signals, &mut tasks).await {
                    break result;
                }
            }
            () = shared.reopened.notified() => {
                let renewal = shared.renew(&mut term);
                if let Some(result) = shared.through(renewal, &mut signals, &mut tasks).await {
                    break result;
                }
            }
        }
    };
    info!("hubsyncd stops; what HubSpot has answered is recorded first");
    shared.tell(|systemd| systemd.stopping(PATIENCE));
    shared.stop.cancel();
    drop(reloads);
    let patience = tokio::time::sleep(RECEIPTS);
    tokio::pin!(patience);
    loop {
        tokio::select! {
            () = &mut patience => {
                warn!("what HubSpot has answered cannot be recorded: stopping without; the rows under way are pushed again at \
                       the next start");
                break;
            }
            ended = next_ended(&mut tasks, &mut term.tasks) => match ended {
                None => break,
                Some(Ok((_, Err(exit)))) if result.is_ok() => result = Err(exit),
                Some(_) => {}
            },
            asked = signals.next() => if asked == Asked::Stop {
                warn!("asked to stop a second time: stopping at once; the rows under way are pushed again at the next start");
                break;
            },
        }
    }
    result
}

/// A socket or an address that cannot be bound.
fn unbound(error: io::Error) -> Exit {
    let hint = match error.kind() {
        ErrorKind::AddrInUse => {
            "somebody listens there already, a daemon perhaps: `hubsyncd status` shows it, `systemctl stop hubsyncd` ends \
             it; or name another address in [http]"
        }
        ErrorKind::NotFound => {
            "make the directory of the socket (systemd does, by RuntimeDirectory=), or look at [http] in the configuration"
        }
        ErrorKind::PermissionDenied => {
            "look at who may write there, and at the user that this runs as; or name another socket in [http]"
        }
        _ => "look at [http] in the configuration",
    };
    Exit::new(UNAVAILABLE, error).hint(hint)
}

/// The next task to end, of those that last and of those of the term; `None` when none is left.
async fn next_ended(
    tasks: &mut JoinSet<Ended>,
    term: &mut JoinSet<Ended>,
) -> Option<Result<Ended, tokio::task::JoinError>> {
    tokio::select! {
        Some(ended) = tasks.join_next() => Some(ended),
        Some(ended) = term.join_next() => Some(ended),
        else => None,
    }
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
    fn new(purpose: Purpose, config: Config, reloads: mpsc::Sender<Ask>) -> Result<Shared, Exit> {
        let address = Address::parse(config.database.url.expose_secret())
            .map_err(|error| Exit::new(CONFIGURATION, error).hint("look at the database URL"))?;
        let board = Board::new(&config.mapping);
        // Before the socket answers: a daemon that starts is not one without a mirror.
        board.set_mirror(config.mirror.as_ref().map(MirrorState::new));
        Ok(Shared {
            purpose,
            pool: Arc::new(Pool::new(address.clone(), config.database.connections)),
            address,
            board,
            requests: Arc::default(),
            pulls: Arc::default(),
            lease: Arc::new(lease::Hold::default()),
            doorway: Arc::default(),
            reloads,
            speaker: watch::Sender::new(None),
            reopened: Arc::default(),
            systemd: Arc::new(Systemd::of_environment()),
            stop: CancellationToken::new(),
            live: watch::Sender::new(Arc::new(config)),
        })
    }

    /// Who speaks to HubSpot under a configuration.
    fn client(&self, config: &Config) -> Result<Client, Exit> {
        let observed = Arc::clone(&self.board);
        let (asked, unanswered) = (Arc::clone(&self.lease), Arc::clone(&self.lease));
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
        });
        let client = client
            .map_err(|error| Exit::new(CONFIGURATION, error).hint("look at [hubspot] and the token"))?;
        client.pace().set_reserve(config.hubspot.daily_reserve);
        Ok(client.asking(Arc::new(move || asked.may_ask())))
    }

    /// Starts the tasks that last as long as the daemon.
    fn spawn(&self, server: http::Server) -> JoinSet<Ended> {
        let mut tasks = JoinSet::new();
        let live = self.live.subscribe();
        let context = http::Context {
            board: Arc::clone(&self.board),
            operations: Arc::new(answers::Answers {
                board: Arc::clone(&self.board),
                pool: Arc::clone(&self.pool),
                requests: Arc::clone(&self.requests),
                pulls: Arc::clone(&self.pulls),
                doorway: Arc::clone(&self.doorway),
                reloads: self.reloads.clone(),
                live: self.live.subscribe(),
                explaining: tokio::sync::Mutex::default(),
                glance: glance::Glance {
                    speaker: self.speaker.subscribe(),
                    names: tokio::sync::Mutex::default(),
                },
                stop: self.stop.clone(),
            }),
            limits: Box::new(move || health::Limits::of(&live.borrow())),
        };
        let stop = self.stop.clone();
        tasks.spawn(async move {
            server.run(context, stop).await;
            ("http", Ok(()))
        });
        let teller = alert::Teller {
            board: Arc::clone(&self.board),
            live: self.live.subscribe(),
            stop: self.stop.clone(),
            trouble: Trouble::new(),
        };
        tasks.spawn(async move {
            teller.run().await;
            ("alert", Ok(()))
        });
        self.tell(|systemd| {
            let (board, stop) = (Arc::clone(&self.board), self.stop.clone());
            let systemd = Arc::clone(systemd);
            tasks.spawn(async move {
                systemd.report(board, stop).await;
                ("systemd", Ok(()))
            });
        });
        tasks
    }

    /// Tells systemd something, if it is what watches this daemon.
    fn tell(&self, something: impl FnOnce(&Arc<Systemd>)) {
        match self.purpose {
            Purpose::Service => something(&self.systemd),
            Purpose::Errand => {}
        }
    }

    /// Sees a reload through, and what is asked meanwhile; answers how the daemon ends if it does.
    async fn through(
        &self,
        reload: impl Future<Output = ()>,
        signals: &mut Signals,
        tasks: &mut JoinSet<Ended>,
    ) -> Option<Result<Stopped, Exit>> {
        let mut reload = std::pin::pin!(reload);
        loop {
            tokio::select! {
                () = &mut reload => return None,
                ended = tasks.join_next() => return Some(Err(fault(ended))),
                asked = signals.next() => if self.obey(asked) == Asked::Stop {
                    return Some(Ok(Stopped::Signal));
                },
            }
        }
    }

    /// Does what a signal asks for, but for stopping; answers what it was.
    fn obey(&self, asked: Asked) -> Asked {
        match asked {
            Asked::Sweep => self.sweep_now(),
            Asked::Reload => {
                info!("SIGHUP: the configuration is read again");
                if self.reloads.try_send(None).is_err() {
                    warn!("SIGHUP: enough reloads wait already");
                }
            }
            Asked::Stop => {}
        }
        asked
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
