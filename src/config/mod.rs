//! The configuration: a TOML file, the environment and systemd's credentials become a [`Config`].
//!
//! Unknown and wrong settings are all reported at once, with their line and what would be right
//! ([`Problem`]); nothing is half-loaded. Secrets never stand in arguments and are never printed.

mod built_in;
mod changes;
mod columns;
mod mirror;
mod names;
mod object;
mod problem;
mod property;
mod secrets;
mod section;
mod settings;

pub use changes::Changes;
pub use problem::{Problem, closest};

use crate::mapping::{Mapping, Mirrored};
use secrecy::SecretString;
use section::{Fault, Findings, Section};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeTable;

/// Where the file is looked for if nobody says otherwise; it may be absent there.
pub const DEFAULT_PATH: &str = "/etc/hubsyncd/hubsyncd.toml";

/// Where the daemon listens if nobody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/hubsyncd/hubsyncd.sock";

/// Everything the daemon is told. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct Config {
    /// The database.
    pub database: Database,
    /// HubSpot.
    pub hubspot: HubSpot,
    /// How changes are put together.
    pub batch: Batch,
    /// When everything is swept.
    pub sweep: Sweep,
    /// Where the daemon is asked things.
    pub http: Http,
    /// When it calls itself unwell.
    pub health: Health,
    /// Who is told that it is.
    pub alert: Alert,
    /// What is copied from HubSpot; `None`: nothing.
    pub mirror: Option<Mirror>,
    /// Which table is which HubSpot object.
    pub mapping: Mapping,
}

/// `[database]`
#[derive(Debug, Clone)]
pub struct Database {
    /// The connection URL with its password; default none, `DATABASE_URL` or a credential.
    pub url: SecretString,
    /// Connections beside the control session, 1..=64; default 4.
    pub connections: usize,
}

/// `[hubspot]`
#[derive(Debug, Clone)]
pub struct HubSpot {
    /// The private app's access token.
    pub token: SecretString,
    /// Without a slash at its end; https unless the host is loopback.
    pub base_url: String,
    /// HubSpot's dated API version, e.g. `2026-09`.
    pub api_version: String,
    /// Requests per window until the portal's headers say otherwise; default 100.
    pub requests: u32,
    /// The rate window; default 10 s.
    pub window: Duration,
    /// Requests at one time, 1..=64; default 8.
    pub in_flight: usize,
    /// How long an answer is waited for; default 30 s.
    pub timeout: Duration,
    /// How long a request whose outcome is unknown may still land; default 2 min.
    pub settle: Duration,
    /// The share of the daily quota kept for live changes, 0.0..=0.9; default 0.1.
    pub daily_reserve: f64,
}

/// `[batch]`
#[derive(Debug, Clone)]
pub struct Batch {
    /// Records in one request, 1..=100; default 100.
    pub max_records: usize,
    /// Bytes of one request's body; default 4 MiB.
    pub max_bytes: usize,
    /// How long a lone change waits for others; default 250 ms.
    pub max_delay: Duration,
}

/// `[sweep]`
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The period, which divides 24 h, on the wall clock in UTC; default 2 h.
    pub every: Duration,
    /// Whether the start sweeps, unless a complete sweep is younger than `every`; default true.
    pub on_start: bool,
    /// How long nothing could be sent before a sweep ends incomplete; default 5 min.
    pub give_up: Duration,
    /// Which rows get their synced-at column written by a sweep; default all.
    pub touch: Touch,
}

/// Which rows get their synced-at column written by a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Every row that HubSpot confirmed.
    All,
    /// Only rows that were not in step: their id or a link is new, they had failed, or an audit entry named them.
    Changed,
}

/// `[http]`
#[derive(Debug, Clone)]
pub struct Http {
    /// The operators' socket.
    pub socket: PathBuf,
    /// Its permission bits; default 0660.
    pub socket_mode: u32,
    /// A second socket that everybody may ask for livez, health and metrics; default none.
    pub health_socket: Option<PathBuf>,
    /// A TCP address; default none.
    pub listen: Option<SocketAddr>,
    /// What TCP clients must know; always there with `listen`.
    pub cron_secret: Option<SecretString>,
}

/// `[health]`
#[derive(Debug, Clone)]
pub struct Health {
    /// Age of the oldest change from which health warns; default 1 min.
    pub warn_after: Duration,
    /// Age of the oldest change from which health fails; default 5 min.
    pub fail_after: Duration,
}

/// `[alert]`
#[derive(Debug, Clone, Default)]
pub struct Alert {
    /// Where JSON is posted on failure and on recovery; https unless the host is loopback. As good as a password.
    pub webhook_url: Option<SecretString>,
}

/// `[mirror]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The period of incremental passes; default 1 h, or `full_every` if that is shorter.
    pub every: Duration,
    /// The period of full passes, below `stale_after`; default half of it, and 12 h at most.
    pub full_every: Duration,
    /// How long a record may go without being seen by a pass before it counts as `pending`; default 24 h.
    pub stale_after: Duration,
    /// What is mirrored, in the order of [`Mirrored::ALL`]; default all.
    pub objects: Vec<Mirrored>,
}

/// Which secrets a verb cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// The database and HubSpot: `run`.
    Everything,
    /// The database: `setup`. HubSpot's token may be missing and is then empty.
    Database,
}

/// Reads one variable of the environment.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// Loads the file at `path` (else [`DEFAULT_PATH`] if it exists), the environment and systemd's credentials.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the file.
    pub fn load(path: Option<&Path>, environment: Environment<'_>) -> Result<Config, Vec<Problem>> {
        Config::load_for(Needs::Everything, path, environment)
    }

    /// [`Config::load`] for a verb that can do without some of the secrets.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the file.
    pub fn load_for(
        needs: Needs,
        path: Option<&Path>,
        environment: Environment<'_>,
    ) -> Result<Config, Vec<Problem>> {
        let (origin, text) = read_file(path)?;
        Config::parse(needs, &origin, &text, environment)
    }

    /// Makes a configuration of the text of a file; `origin` is what problems call it.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the file.
    pub fn parse(
        needs: Needs,
        origin: &str,
        text: &str,
        environment: Environment<'_>,
    ) -> Result<Config, Vec<Problem>> {
        let document = parse_toml(origin, text)?;
        let findings = Findings::new(origin.to_owned(), text);
        let config = settings::read(&findings, document.get_ref(), needs, environment);
        let problems = findings.into_problems();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(problems)
        }
    }
}

/// Reads the configuration as [`Config::load`] does and answers it beside everything that is wrong with it, where what is
/// wrong has its default: to look further in spite of it, not to work with. `None` if the file cannot be read at all.
pub fn examine(path: Option<&Path>, environment: Environment<'_>) -> (Option<Config>, Vec<Problem>) {
    let (origin, text) = match read_file(path) {
        Ok(read) => read,
        Err(problems) => return (None, problems),
    };
    let document = match parse_toml(&origin, &text) {
        Ok(document) => document,
        Err(problems) => return (None, problems),
    };
    let findings = Findings::new(origin, &text);
    let config = settings::read(&findings, document.get_ref(), Needs::Everything, environment);
    (Some(config), findings.into_problems())
}

/// The database's URL if there is one of Postgres, for a look at it beside whatever else may be wrong; `None` also where
/// [`Config::load`] has something to say about it.
pub fn database_url(path: Option<&Path>, environment: Environment<'_>) -> Option<SecretString> {
    let (origin, text) = read_file(path).ok()?;
    let document = parse_toml(&origin, &text).ok()?;
    let findings = Findings::new(origin, &text);
    settings::database_url(&findings, document.get_ref(), environment)
}

/// Where the daemon's socket is, for the verbs that only ask the daemon: `HUBSYNCD_SOCKET`, else the file's
/// `http.socket`, else [`DEFAULT_SOCKET`]. Other settings of the file may be wrong meanwhile.
///
/// # Errors
/// The file cannot be read, is no TOML, or its `http.socket` is no text.
pub fn socket_path(path: Option<&Path>, environment: Environment<'_>) -> Result<PathBuf, Vec<Problem>> {
    if let Some(socket) = environment("HUBSYNCD_SOCKET").filter(|socket| !socket.is_empty()) {
        return Ok(PathBuf::from(socket));
    }
    let (origin, text) = read_file(path)?;
    let document = parse_toml(&origin, &text)?;
    let findings = Findings::new(origin, &text);
    let socket = {
        let http = document.get_ref().get("http");
        let known: Vec<&str> = http
            .and_then(|http| http.get_ref().as_table())
            .map(|table| table.keys().map(|key| key.get_ref().as_ref()).collect())
            .unwrap_or_default();
        Section::of(&findings, "http", http, &known).text("socket")
    };
    let problems = findings.into_problems();
    if problems.is_empty() {
        Ok(PathBuf::from(socket.unwrap_or_else(|| DEFAULT_SOCKET.to_owned())))
    } else {
        Err(problems)
    }
}

/// The file's `alert.webhook-url`, for the verb that tells of a daemon that failed. Other settings of the file may be
/// wrong: they may be why it failed.
///
/// # Errors
/// The file cannot be read, is no TOML, or its `[alert]` is wrong.
pub fn webhook_url(path: Option<&Path>) -> Result<Option<SecretString>, Vec<Problem>> {
    let (origin, text) = read_file(path)?;
    let document = parse_toml(&origin, &text)?;
    let findings = Findings::new(origin, &text);
    let alert = settings::alert(&findings, document.get_ref().get("alert"));
    let problems = findings.into_problems();
    if problems.is_empty() {
        Ok(alert.webhook_url)
    } else {
        Err(problems)
    }
}

/// The file's name and text; an absent file at the default place is an empty one.
fn read_file(path: Option<&Path>) -> Result<(String, String), Vec<Problem>> {
    let named = path.unwrap_or_else(|| Path::new(DEFAULT_PATH));
    match std::fs::read_to_string(named) {
        Ok(text) => Ok((named.display().to_string(), text)),
        Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            Ok((DEFAULT_PATH.to_owned(), String::new()))
        }
        Err(error) => Err(vec![Problem {
            origin: named.display().to_string(),
            line: None,
            key: String::new(),
            message: format!("cannot be read: {error}"),
            hint: Some("see --config and HUBSYNCD_CONFIG".to_owned()),
        }]),
    }
}

fn parse_toml<'a>(origin: &str, text: &'a str) -> Result<toml::Spanned<DeTable<'a>>, Vec<Problem>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(document);
    }
    let findings = Findings::new(origin.to_owned(), text);
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        let message = format!("is not TOML here: {}", error.message().replace('\n', "; "));
        findings.at(
            at,
            "",
            Fault::new(message, "the format is explained at https://toml.io"),
        );
    }
    Err(findings.into_problems())
}
