//! Where the database is and how it is reached: the URL (or `key=value` string) of the configuration.
//!
//! The client library understands most of it; what it understands differently from libpq (`sslmode`,
//! `sslrootcert`) or not at all is taken out and read here. The password is in no message and in no `Debug`.

use super::tls::Tls;
use super::{Error, ErrorKind};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// How long making a TCP or socket connection may take, unless the address says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A peer that is gone without a word is noticed after 10 s + 3 × 5 s of silence.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// How long what we sent may stay unacknowledged; keepalives do not run meanwhile.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(25);

/// The port on which Supabase's pooler, and many a PgBouncer, pools by transaction.
const TRANSACTION_POOLER_PORT: u16 = 6543;

/// Where libpq looks for a server when no host is named.
const SOCKET_DIRECTORY: &str = "/var/run/postgresql";

/// What stands for this machine in [`Address::place`].
const LOCAL: &str = "local";

/// What the client library reads itself.
const PASSED_ON: [&str; 15] = [
    "user",
    "password",
    "dbname",
    "host",
    "hostaddr",
    "port",
    "options",
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
    "sslnegotiation",
];

/// The address of a database, read and found plausible.
#[derive(Clone)]
pub struct Address {
    config: Config,
    tls: Tls,
}

impl Address {
    /// Reads `postgres://user:password@host:port/database?sslmode=…` or `host=… user=… dbname=…`.
    ///
    /// # Errors
    /// [`ErrorKind::Schema`] with all that is wrong in one sentence: a setting of libpq that we do not have, TLS that
    /// cannot be verified as asked, or a transaction pooler, through which neither notifications nor locks work.
    pub fn parse(text: &str) -> Result<Address, Error> {
        let (rest, parameters) = take_parameters(text.trim())
            .map_err(|problem| Error::new(ErrorKind::Schema, format!("the database URL: {problem}")))?;
        let value = |name: &str| {
            let found = parameters.iter().rev().find(|(key, _)| key == name);
            found.map(|(_, value)| value.as_str())
        };
        let mut problems: Vec<String> = parameters
            .iter()
            .filter_map(|(key, _)| unsupported(key))
            .collect();
        let tls = Tls::parse(value("sslmode"), value("sslrootcert"))
            .and_then(|tls| tls.client_config().map(|_| tls))
            .map_err(|problem| problems.push(problem));
        // The library's message may quote a part of a password that was not percent-encoded.
        let config = rest.parse::<Config>().map_err(|_| {
            problems.push(
                "it cannot be read; it looks like postgres://user:password@host:5432/database?sslmode=verify-full, \
                 and what is special in a user or password (@ : / ? # %) is percent-encoded"
                    .to_owned(),
            );
        });
        if let Ok(config) = &config {
            let declared = value("pgbouncer");
            if declared == Some("true") || (declared.is_none() && uses_pooler_port(config)) {
                problems.push(
                    "it leads to a transaction pooler (port 6543, pgbouncer=true), through which LISTEN and session \
                     locks do not work; use the direct address or the session pooler, port 5432 (if it is none, \
                     say pgbouncer=false)"
                        .to_owned(),
                );
            }
        }
        match (config, tls) {
            (Ok(config), Ok(tls)) if problems.is_empty() => Ok(Address::new(config, tls)),
            _ => Err(Error::new(
                ErrorKind::Schema,
                format!("the database URL: {}", problems.join("; ")),
            )),
        }
    }

    fn new(mut config: Config, mut tls: Tls) -> Address {
        if config.get_hosts().is_empty() {
            let addresses: Vec<String> = config.get_hostaddrs().iter().map(ToString::to_string).collect();
            for address in &addresses {
                config.host(address);
            }
            if addresses.is_empty() {
                config.host(SOCKET_DIRECTORY);
            }
        }
        // As in libpq, a unix socket needs no TLS.
        if config
            .get_hosts()
            .iter()
            .all(|host| matches!(host, Host::Unix(_)))
        {
            tls.mode = SslMode::Disable;
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        config
            .ssl_mode(tls.mode)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .tcp_user_timeout(TCP_USER_TIMEOUT);
        if config.get_keepalives_interval().is_none() {
            config
                .keepalives_idle(KEEPALIVE_IDLE)
                .keepalives_interval(KEEPALIVE_INTERVAL);
        }
        Address { config, tls }
    }

    /// The first host: a name, an IP address, or the directory of a socket.
    pub fn host(&self) -> String {
        match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => String::new(),
        }
    }

    /// Where the database is, as far as a configuration that was copied can tell it from another: the names of its
    /// hosts, in order; all that leads to this machine is `local`.
    pub fn place(&self) -> String {
        let mut places: Vec<String> = self.config.get_hosts().iter().map(place_of).collect();
        places.sort();
        places.dedup();
        places.join(",")
    }

    /// Whether it leads to this machine and nowhere else.
    pub fn is_local(&self) -> bool {
        self.place() == LOCAL
    }

    /// The first port.
    pub fn port(&self) -> u16 {
        self.config.get_ports().first().copied().unwrap_or(5432)
    }

    /// The role, if the address names one; else it is the operating system's user.
    pub fn user(&self) -> Option<&str> {
        self.config.get_user()
    }

    /// The name of the database; by default that of the role.
    pub fn database(&self) -> &str {
        self.config
            .get_dbname()
            .or(self.config.get_user())
            .unwrap_or_default()
    }

    /// Whether the connection crosses a network without the server having proved who it is (a warning of `check`).
    pub fn is_unverified(&self) -> bool {
        let over_network = self
            .config
            .get_hosts()
            .iter()
            .any(|host| matches!(host, Host::Tcp(_)));
        over_network && self.tls.verifies_nothing()
    }

    /// How the client library is to connect, under a name that `pg_stat_activity` shows.
    pub(super) fn config(&self, application_name: &str) -> Config {
        let mut config = self.config.clone();
        config.application_name(application_name);
        config
    }

    pub(super) fn tls(&self) -> &Tls {
        &self.tls
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("host", &self.host())
            .field("port", &self.config.get_ports())
            .field("user", &self.user())
            .field("database", &self.database())
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl std::str::FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Address, Error> {
        Address::parse(text)
    }
}

fn place_of(host: &Host) -> String {
    let Host::Tcp(name) = host else {
        return LOCAL.to_owned();
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let loopback = bare.parse::<IpAddr>().map(|address| address.is_loopback());
    if loopback.unwrap_or(bare == "localhost") {
        LOCAL.to_owned()
    } else {
        name
    }
}

fn uses_pooler_port(config: &Config) -> bool {
    config.get_ports().contains(&TRANSACTION_POOLER_PORT)
}

/// What to say about a parameter that neither we nor the client library know.
fn unsupported(key: &str) -> Option<String> {
    match key {
        "sslmode" | "sslrootcert" | "pgbouncer" | "application_name" | "fallback_application_name" => None,
        _ if PASSED_ON.contains(&key) => None,
        "sslcert"
        | "sslkey"
        | "sslpassword"
        | "sslcrl"
        | "sslcrldir"
        | "requirepeer"
        | "service"
        | "passfile"
        | "gssencmode"
        | "krbsrvname"
        | "schema"
        | "connection_limit"
        | "pool_timeout"
        | "client_encoding"
        | "tcp_user_timeout"
        | "keepalives_count"
        | "ssl_min_protocol_version"
        | "sslsni"
        | "require_auth" => Some(format!("{key} is not supported, remove it")),
        // Not shown: it may be a part of a password.
        _ => Some(
            "it has an unknown parameter (what is special in a password, @ : / ? # %, is percent-encoded)"
                .to_owned(),
        ),
    }
}

/// Parameters as name and value.
type Parameters = Vec<(String, String)>;

/// Takes out of an address what we read ourselves: answers the address without it, and all parameters.
fn take_parameters(text: &str) -> Result<(String, Parameters), String> {
    let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
    if !is_url {
        let parameters = words(text)?;
        let kept = parameters
            .iter()
            .filter(|(key, _)| PASSED_ON.contains(&key.as_str()));
        let kept: Vec<String> = kept
            .map(|(key, value)| format!("{key}={}", quoted(value)))
            .collect();
        return Ok((kept.join(" "), parameters));
    }
    // The client library, too, takes everything up to the first `@` for user and password.
    let after_user = text.find('@').map_or(0, |at| at + 1);
    let Some(question) = text[after_user..].find('?').map(|at| at + after_user) else {
        return Ok((text.to_owned(), Vec::new()));
    };
    let mut parameters = Vec::new();
    let mut kept = Vec::new();
    for pair in text[question + 1..].split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair
            .split_once('=')
            .ok_or("a parameter after the ? has no value")?;
        let key = percent_decoded(key)?;
        if PASSED_ON.contains(&key.as_str()) {
            kept.push(pair);
        }
        parameters.push((key, percent_decoded(value)?));
    }
    Ok((format!("{}?{}", &text[..question], kept.join("&")), parameters))
}

fn percent_decoded(text: &str) -> Result<String, String> {
    let problem = "a parameter after the ? is not percent-encoded properly";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let code = digit()
            .zip(digit())
            .and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        bytes.push(code.ok_or(problem)?);
    }
    String::from_utf8(bytes).map_err(|_| problem.to_owned())
}

/// Reads `key = value key='it''s quoted with \' too'` as libpq does.
fn words(text: &str) -> Result<Parameters, String> {
    let mut parameters = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest
            .split_once('=')
            .ok_or("it is neither postgres://… nor a list of key=value")?;
        let mut characters = after.trim_start().chars();
        let is_quoted = characters.as_str().starts_with('\'');
        if is_quoted {
            characters.next();
        }
        let mut value = String::new();
        let mut closed = !is_quoted;
        while let Some(character) = characters.next() {
            match character {
                '\\' => value.extend(characters.next()),
                '\'' if is_quoted => {
                    closed = true;
                    break;
                }
                space if !is_quoted && space.is_ascii_whitespace() => break,
                other => value.push(other),
            }
        }
        if !closed {
            return Err("a quoted value does not end".to_owned());
        }
        parameters.push((key.trim().to_owned(), value));
        rest = characters.as_str().trim_start();
    }
    Ok(parameters)
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}
