//! A proxy of the tests' own: connections that go silent without closing, and come back, or never do.
//!
//! It stands between the daemon and its database, or the daemon and HubSpot. While a direction is silent nothing of
//! it passes and nobody is told: neither bytes nor the end of a connection, as behind a router that drops packets.
//! What was on its way is delivered when the direction is opened again, and lost when the connections are cut. It
//! runs on a thread of its own, so that a test that blocks does not stop it.

use super::postgres::Database;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{io, sync::Arc};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What of a connection passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silent {
    /// Everything passes.
    Not,
    /// Nothing passes, and no connection is accepted.
    Both,
    /// What the daemon sends is not delivered; it hears the other side still.
    Up,
    /// What the other side sends is not delivered; it hears the daemon still.
    Down,
}

/// Where a proxy leads.
#[derive(Debug, Clone)]
enum Upstream {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// A proxy on a loopback port; dropping it cuts every connection.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// `None` only while dropping.
    runtime: Option<Runtime>,
}

#[derive(Debug)]
struct Shared {
    upstream: Upstream,
    silent: watch::Sender<Silent>,
    /// Cancelled to cut the connections that are open.
    open: Mutex<CancellationToken>,
    connections: AtomicUsize,
}

impl Proxy {
    /// A proxy to the server of a database.
    pub fn to_database(database: &Database) -> Proxy {
        Proxy::start(Upstream::Unix(database.socket()))
    }

    /// A proxy to an address such as [`hubsyncd::sandbox::Sandbox::base_url`] answers.
    pub fn to_http(base_url: &str) -> Proxy {
        let address = base_url.trim_start_matches("http://").parse().unwrap();
        Proxy::start(Upstream::Tcp(address))
    }

    /// A proxy to a daemon's socket, as `ssh -L` makes one.
    pub fn to_socket(socket: &Path) -> Proxy {
        Proxy::start(Upstream::Unix(socket.to_owned()))
    }

    fn start(upstream: Upstream) -> Proxy {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("proxy")
            .enable_all()
            .build()
            .unwrap();
        let shared = Arc::new(Shared {
            upstream,
            silent: watch::Sender::new(Silent::Not),
            open: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        runtime.spawn(accept(listener, Arc::clone(&shared)));
        Proxy {
            address,
            shared,
            runtime: Some(runtime),
        }
    }

    /// The address of a database through this proxy, for a role.
    pub fn database_url(&self, role: &str, database: &Database) -> String {
        format!(
            "postgres://{role}@{}/{}?sslmode=disable",
            self.address, database.name
        )
    }

    /// The base URL through this proxy.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets this much pass from now on; whatever waited and may pass is delivered.
    pub fn silence(&self, silent: Silent) {
        self.shared.silent.send_replace(silent);
    }

    /// Closes every connection; what was on its way is lost.
    pub fn cut(&self) {
        std::mem::take(&mut *self.shared.open.lock().unwrap()).cancel();
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut silent = shared.silent.subscribe();
    loop {
        // The sender lives as long as `shared`.
        let _ = silent.wait_for(|silent| *silent != Silent::Both).await;
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((down, _)) = accepted else { continue };
                let _ = down.set_nodelay(true);
                tokio::spawn(serve(down, Arc::clone(&shared)));
            }
            _ = silent.changed() => {}
        }
    }
}

async fn serve(down: TcpStream, shared: Arc<Shared>) {
    let cut = shared.open.lock().unwrap().clone();
    shared.connections.fetch_add(1, Ordering::AcqRel);
    let joined = async {
        let (from_down, to_down) = down.into_split();
        match &shared.upstream {
            Upstream::Unix(path) => {
                let (from_up, to_up) = UnixStream::connect(path).await?.into_split();
                join(&shared, from_down, to_up, from_up, to_down).await
            }
            Upstream::Tcp(address) => {
                let up = TcpStream::connect(address).await?;
                up.set_nodelay(true)?;
                let (from_up, to_up) = up.into_split();
                join(&shared, from_down, to_up, from_up, to_down).await
            }
        }
    };
    tokio::select! {
        _ = joined => {}
        () = cut.cancelled() => {}
    }
    shared.connections.fetch_sub(1, Ordering::AcqRel);
}

/// Moves bytes both ways until either side ends: then the other is closed too, as a dead process's would be.
async fn join(
    shared: &Shared,
    from_down: impl AsyncRead + Unpin,
    to_up: impl AsyncWrite + Unpin,
    from_up: impl AsyncRead + Unpin,
    to_down: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    tokio::select! {
        ended = pump(from_down, to_up, shared.silent.subscribe(), Silent::Up) => ended,
        ended = pump(from_up, to_down, shared.silent.subscribe(), Silent::Down) => ended,
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut silent: watch::Receiver<Silent>,
    way: Silent,
) -> io::Result<()> {
    let passes = |silent: &Silent| *silent != Silent::Both && *silent != way;
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut bytes).await?;
        // Nobody is told of an end either while it is silent.
        let _ = silent.wait_for(passes).await;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&bytes[..count]).await?;
    }
}
