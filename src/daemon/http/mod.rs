//! The socket: what operators and monitors ask the daemon, over HTTP/1.1.
//!
//! JSON for programs (`routes`), pages for people (`dashboard`).
//!
//! On the unix socket the file's permissions are the key; on TCP the cron secret is. Reading a request and writing an
//! answer is bounded in size, time and number, each listener for itself, so that a stalled client harms nobody. A
//! listener that cannot be bound stops the start; nothing that a client does stops a listener.

mod dashboard;
mod guard;
mod mirror;
mod parameters;
mod routes;
mod session;
mod socket;
mod stall;

use super::board::Board;
use super::health::Limits;
use super::operations::Operations;
use crate::config;
use guard::Gate;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket::UnixSocket;
use stall::Stalling;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections at one time, of each listener.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take to send a request's head, and a connection may idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may not take any byte of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Header fields of a request.
const HEADERS_MAX: usize = 64;
/// How long open connections may take to end when the daemon stops.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long nothing is accepted after the process ran out of file descriptors or the like.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What the routes answer from.
pub struct Context {
    /// What the tasks report.
    pub board: Arc<Board>,
    /// What the tasks can be asked.
    pub operations: Arc<dyn Operations>,
    /// When health warns and fails, as of now.
    pub limits: Box<dyn Fn() -> Limits + Send + Sync>,
}

/// The bound listeners, not yet answering.
#[derive(Debug)]
pub struct Server {
    operators: UnixSocket,
    health: Option<UnixSocket>,
    tcp: Option<(TcpListener, SocketAddr)>,
    settings: config::Http,
}

impl Server {
    /// Binds what `[http]` names. A socket file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// The path or address, and why it cannot be bound.
    pub fn bind(settings: &config::Http) -> io::Result<Server> {
        let operators = UnixSocket::bind(&settings.socket, settings.socket_mode)?;
        let health = match &settings.health_socket {
            Some(path) => Some(UnixSocket::bind(path, 0o666)?),
            None => None,
        };
        let tcp = match settings.listen {
            Some(address) => Some(bind_tcp(address)?),
            None => None,
        };
        Ok(Server {
            operators,
            health,
            tcp,
            settings: settings.clone(),
        })
    }

    /// The TCP address that was bound, with its port.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().map(|(_, address)| *address)
    }

    /// Answers until `stop`, then lets open connections end, and removes the sockets.
    pub async fn run(self, context: Context, stop: CancellationToken) {
        let context = Arc::new(context);
        let mut listeners = JoinSet::new();
        let operators = routes::everything(Arc::clone(&context), Gate::unix());
        listeners.spawn(accept_unix(self.operators, operators, stop.clone()));
        if let Some(health) = self.health {
            let router = routes::observing(Arc::clone(&context), Gate::unix());
            listeners.spawn(accept_unix(health, router, stop.clone()));
        }
        if let (Some((listener, address)), Some(secret)) = (self.tcp, &self.settings.cron_secret) {
            let router = routes::everything(context, Gate::tcp(address, secret));
            listeners.spawn(accept_tcp(listener, router, stop.clone()));
        }
        while listeners.join_next().await.is_some() {}
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{address} cannot be listened on: {error}"));
    let listener = std::net::TcpListener::bind(address).map_err(named)?;
    listener.set_nonblocking(true).map_err(named)?;
    let listener = TcpListener::from_std(listener).map_err(named)?;
    let bound = listener.local_addr().map_err(named)?;
    Ok((listener, bound))
}

async fn accept_unix(socket: UnixSocket, router: axum::Router, stop: CancellationToken) {
    let connect = || async { socket.listener().accept().await.map(|(stream, _)| stream) };
    accept(connect, router, &stop).await;
}

async fn accept_tcp(listener: TcpListener, router: axum::Router, stop: CancellationToken) {
    let connect = || async { listener.accept().await.map(|(stream, _)| stream) };
    accept(connect, router, &stop).await;
}

/// Accepts as many connections as there is room for and answers on each, until `stop`.
async fn accept<S, F>(connect: impl Fn() -> F, router: axum::Router, stop: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<S>>,
{
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let place = Arc::clone(&room)
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            (connect().await, place)
        };
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            (accepted, place) = next => match accepted {
                Ok(stream) => {
                    let served = serve(stream, router.clone(), stop.clone());
                    connections.spawn(async move {
                        served.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(FAREWELL, ended).await;
}

/// Answers one client until it leaves, stalls, or the daemon stops.
async fn serve<S>(stream: S, router: axum::Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(
            TokioIo::new(Stalling::new(stream, WRITE_TIMEOUT)),
            TowerToHyperService::new(router),
        );
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // How a client leaves, rightly or not, is no concern of ours.
        _ = connection.as_mut() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
