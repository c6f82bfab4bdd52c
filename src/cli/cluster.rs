//! A throw-away Postgres cluster: what `demo` and the tests run on.
//!
//! It lives in a directory of mode 0700 under the system's temporary directory, is reached through a unix socket
//! in it (the permission of the directory is the key, authentication is `trust`), and never opens a port unless a
//! setting asks for one. PostgreSQL refuses to run as root, so root starts it as `postgres` or `nobody`.
//!
//! Nothing of it stays behind, however we end: a small shell, the guard (`guard.sh`), makes the directory and is
//! the parent of the server. It holds the reading end of a pipe from us; when the pipe closes, which the kernel
//! does also after kill -9, it stops the server and removes the directory. Guard and server are in a process
//! group of their own, so that Ctrl-C reaches us alone and we choose the order of the end.

mod programs;

pub use programs::find_programs;

use programs::{Owner, complete, copy_unreachable, temp_dir, unprivileged_user};
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// How a cluster is to be.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The directory of `initdb` and `postgres`; by default looked for where packages put it.
    pub bin: Option<PathBuf>,
    /// Further settings for `postgresql.conf`; they win over ours.
    pub settings: Vec<(String, String)>,
    /// Whether commits reach the disk. Off unless something measures them.
    pub fsync: bool,
}

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Sessions are ended, everything is written out.
    Fast,
    /// Like a power failure: the next start recovers from the log.
    Immediate,
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The programs are not on this machine.
    #[error("PostgreSQL is not installed here (no initdb and postgres found). Install it with:\n{INSTALL}")]
    Missing,
    /// The directory that was asked for does not hold them.
    #[error("there are no initdb and postgres in {}", .0.display())]
    NotThere(PathBuf),
    /// The server or its preparation failed.
    #[error("the private PostgreSQL failed: {reason}; its log ends:\n{log}")]
    Failed {
        /// What failed.
        reason: String,
        /// The last lines of its log.
        log: String,
    },
    /// The operating system refused something.
    #[error("the private PostgreSQL cannot be run: {doing}")]
    Io {
        /// What we were doing.
        doing: &'static str,
        /// What the system answered.
        source: io::Error,
    },
}

/// The line to paste where PostgreSQL is missing.
pub const INSTALL: &str = "sudo apt-get install -y postgresql";

/// A running cluster; dropping it stops the server and removes its files.
#[derive(Debug)]
pub struct Cluster {
    guard: Guard,
    directory: PathBuf,
    owner: Option<Owner>,
    port: String,
    pid: Option<u32>,
}

/// The shell that owns server and directory, and the pipes to it.
#[derive(Debug)]
struct Guard {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Cluster {
    /// Makes a cluster and starts its server; takes about a second. The superuser is `postgres`.
    ///
    /// # Errors
    /// See [`ClusterError`]; nothing is left behind.
    pub fn start(options: Options) -> Result<Cluster, ClusterError> {
        let bin = match &options.bin {
            Some(bin) if complete(bin) => bin.clone(),
            Some(bin) => return Err(ClusterError::NotThere(bin.clone())),
            None => find_programs()?,
        };
        let owner = unprivileged_user()?;
        let mut guard = Guard::spawn(&bin, owner)?;
        let answer = guard.answer()?;
        let Some(directory) = answer.strip_prefix("directory ").map(PathBuf::from) else {
            return Err(failed(answer, Path::new("")));
        };
        let mut cluster = Cluster {
            guard,
            directory,
            owner,
            port: String::new(),
            pid: None,
        };
        if let Some(owner) = owner {
            copy_unreachable(&bin, owner, &cluster.directory)?;
        }
        cluster.order("initdb")?;
        for (name, value) in our_settings(&cluster.directory, options.fsync) {
            cluster.configure(name, &value)?;
        }
        for (name, value) in &options.settings {
            cluster.configure(name, value)?;
        }
        cluster.run()?;
        Ok(cluster)
    }

    /// The address of a database in this cluster for the superuser.
    pub fn url(&self, database: &str) -> String {
        self.url_as("postgres", database)
    }

    /// The address of a database in this cluster for a role (no password is wanted).
    pub fn url_as(&self, role: &str, database: &str) -> String {
        format!(
            "postgres://{role}@/{database}?host={}&port={}",
            self.directory.display(),
            self.port
        )
    }

    /// The directory that holds everything of this cluster, and the socket; the data directory is `data` in it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The process id of the server, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Adds a line to `postgresql.conf`; a restart makes it count. The port is a part of the socket's name.
    ///
    /// # Errors
    /// [`ClusterError::Io`] if the file cannot be written.
    pub fn configure(&mut self, name: &str, value: &str) -> Result<(), ClusterError> {
        let doing = "writing postgresql.conf";
        let mut file = fs::OpenOptions::new()
            .append(true)
            .open(self.directory.join("data/postgresql.conf"))
            .map_err(|source| ClusterError::Io { doing, source })?;
        writeln!(file, "{name} = '{}'", value.replace('\'', "''"))
            .map_err(|source| ClusterError::Io { doing, source })?;
        if name == "port" {
            value.clone_into(&mut self.port);
        }
        Ok(())
    }

    /// Puts a file that only the server's user may read (a key, a certificate) into the directory.
    ///
    /// # Errors
    /// [`ClusterError::Io`] if it cannot be written.
    pub fn put_file(&self, name: &str, content: &[u8]) -> Result<PathBuf, ClusterError> {
        let path = self.directory.join(name);
        let put = || -> io::Result<()> {
            let mut open = fs::OpenOptions::new();
            std::os::unix::fs::OpenOptionsExt::mode(&mut open, 0o600);
            open.write(true)
                .create(true)
                .truncate(true)
                .open(&path)?
                .write_all(content)?;
            match self.owner {
                Some(owner) => std::os::unix::fs::chown(&path, Some(owner.uid), Some(owner.gid)),
                None => Ok(()),
            }
        };
        put().map_err(|source| ClusterError::Io {
            doing: "writing a file for the server",
            source,
        })?;
        Ok(path)
    }

    /// Stops the server and keeps its data; [`Cluster::restart`] brings it back.
    ///
    /// # Errors
    /// [`ClusterError::Io`] if the guard is gone.
    pub fn stop(&mut self, mode: Mode) -> Result<(), ClusterError> {
        self.pid = None;
        self.order(match mode {
            Mode::Fast => "stop INT",
            Mode::Immediate => "stop QUIT",
        })?;
        Ok(())
    }

    /// Stops the server, if it runs, and starts it again on the same data.
    ///
    /// # Errors
    /// [`ClusterError::Failed`] if it does not start.
    pub fn restart(&mut self, mode: Mode) -> Result<(), ClusterError> {
        self.stop(mode)?;
        self.run()
    }

    fn run(&mut self) -> Result<(), ClusterError> {
        let answer = self.order("start")?;
        self.pid = answer.strip_prefix("ready ").and_then(|pid| pid.parse().ok());
        Ok(())
    }

    fn order(&mut self, order: &str) -> Result<String, ClusterError> {
        self.guard.order(order)?;
        let answer = self.guard.answer()?;
        if answer.starts_with("failed") || answer.is_empty() {
            return Err(failed(answer, &self.directory));
        }
        Ok(answer)
    }
}

impl Guard {
    fn spawn(bin: &Path, owner: Option<Owner>) -> Result<Guard, ClusterError> {
        let mut command = Command::new("sh");
        command
            .args(["-c", include_str!("cluster/guard.sh"), "hubsyncd-cluster"])
            .arg(bin)
            .arg(temp_dir(owner.is_some()))
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        // PGPORT, PGDATA, PGOPTIONS and their like are meant for somebody else's server.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        if let Some(owner) = owner {
            // The standard library drops root's supplementary groups with the user.
            command.uid(owner.uid).gid(owner.gid);
        }
        let doing = "starting its guard (sh)";
        let mut child = command
            .spawn()
            .map_err(|source| ClusterError::Io { doing, source })?;
        let orders = child.stdin.take();
        let answers = child
            .stdout
            .take()
            .expect("standard output was asked to be a pipe");
        Ok(Guard {
            child,
            orders,
            answers: BufReader::new(answers),
        })
    }

    fn order(&mut self, order: &str) -> Result<(), ClusterError> {
        let doing = "talking to its guard";
        match &mut self.orders {
            Some(pipe) => writeln!(pipe, "{order}").map_err(|source| ClusterError::Io { doing, source }),
            None => Ok(()),
        }
    }

    /// The guard answers every order once, and bounds how long it takes itself.
    fn answer(&mut self) -> Result<String, ClusterError> {
        let mut line = String::new();
        let doing = "listening to its guard";
        self.answers
            .read_line(&mut line)
            .map_err(|source| ClusterError::Io { doing, source })?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.orders.take());
        // The only failure is that somebody else has waited for it: then it is gone, too.
        let _ = self.child.wait();
    }
}

/// What every cluster of ours is set to: reachable through its socket alone, and nothing outside its directory.
fn our_settings(directory: &Path, fsync: bool) -> Vec<(&'static str, String)> {
    let durable = if fsync { "on" } else { "off" };
    vec![
        ("listen_addresses", String::new()),
        ("port", "5432".to_owned()),
        ("unix_socket_directories", directory.display().to_string()),
        ("fsync", durable.to_owned()),
        ("full_page_writes", durable.to_owned()),
        ("synchronous_commit", durable.to_owned()),
        ("dynamic_shared_memory_type", "mmap".to_owned()),
        ("max_connections", "400".to_owned()),
        ("max_prepared_transactions", "0".to_owned()),
        ("shared_buffers", "64MB".to_owned()),
        ("checkpoint_timeout", "1h".to_owned()),
        ("lc_messages", "C".to_owned()),
    ]
}

fn failed(reason: String, directory: &Path) -> ClusterError {
    let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(10)..].join("\n");
    let reason = match reason.strip_prefix("failed ") {
        Some(reason) => reason.to_owned(),
        None => "its guard ended".to_owned(),
    };
    ClusterError::Failed { reason, log: tail }
}
