//! The file's sections, one function each, with their defaults and limits.

use super::section::{Fault, Findings, Section, a_kind, choose, text};
use super::{Alert, Batch, Config, Database, Environment, Health, Http, HubSpot, Needs, Sweep, Touch};
use super::{DEFAULT_SOCKET, mirror, object, secrets};
use secrecy::SecretString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The sections of the file.
const SECTIONS: &[&str] = &[
    "database", "hubspot", "batch", "sweep", "http", "health", "audit", "columns", "object", "mirror",
    "alert",
];

/// Reads the whole file. What is wrong stands in `findings`, and its default in the answer.
pub(super) fn read<'a>(
    findings: &'a Findings<'a>,
    document: &'a DeTable<'a>,
    needs: Needs,
    environment: Environment<'_>,
) -> Config {
    let root = Section::root(findings, document, SECTIONS);
    Config {
        database: database(findings, &root, environment),
        hubspot: hubspot(findings, &root, needs, environment),
        batch: batch(findings, &root),
        sweep: sweep(findings, &root),
        http: http(findings, &root, environment),
        health: health(findings, &root),
        alert: alert(findings, root.value("alert")),
        mirror: mirror::read(findings, &root),
        mapping: object::mapping(findings, &root),
    }
}

fn section<'a>(findings: &'a Findings<'a>, root: &Section<'a>, name: &str, known: &[&str]) -> Section<'a> {
    Section::of(findings, name, root.value(name), known)
}

fn database<'a>(findings: &'a Findings<'a>, root: &Section<'a>, environment: Environment<'_>) -> Database {
    let table = section(findings, root, "database", &["url", "connections"]);
    let in_file = table.text("url").map(SecretString::from);
    let url = secrets::find("DATABASE_URL", environment, findings).or(in_file);
    match &url {
        None if table.value("url").is_none() => {
            let hint = format!(
                "{}, or `url` in [database]",
                secrets::where_to_put("DATABASE_URL")
            );
            findings.elsewhere(
                "secrets",
                "DATABASE_URL",
                Fault::new("the database's URL is missing", hint),
            );
        }
        Some(url) if !is_postgres_url(url) => findings.elsewhere(
            "secrets",
            "DATABASE_URL",
            Fault::new(
                "the database's URL is not one of Postgres",
                "it begins with postgres:// or postgresql://",
            ),
        ),
        _ => {}
    }
    Database {
        url: url.unwrap_or_default(),
        connections: count(table.integer("connections", 1, 64), 4),
    }
}

/// The URL that [`read`] would take, if it is one of Postgres.
pub(super) fn database_url<'a>(
    findings: &'a Findings<'a>,
    file: &'a DeTable<'a>,
    environment: Environment<'_>,
) -> Option<SecretString> {
    let root = Section::root(findings, file, SECTIONS);
    let url = database(findings, &root, environment).url;
    is_postgres_url(&url).then_some(url)
}

fn is_postgres_url(url: &SecretString) -> bool {
    use secrecy::ExposeSecret;
    let url = url.expose_secret();
    let words = !url.contains("://") && url.contains('=');
    url.starts_with("postgres://") || url.starts_with("postgresql://") || words
}

fn hubspot<'a>(
    findings: &'a Findings<'a>,
    root: &Section<'a>,
    needs: Needs,
    environment: Environment<'_>,
) -> HubSpot {
    let known = [
        "base-url",
        "api-version",
        "requests",
        "window",
        "in-flight",
        "timeout",
        "settle",
        "daily-reserve",
    ];
    let table = section(findings, root, "hubspot", &known);
    let token = secrets::find("HUBSPOT_ACCESS_TOKEN", environment, findings);
    if token.is_none() && needs == Needs::Everything {
        let hint = secrets::where_to_put("HUBSPOT_ACCESS_TOKEN");
        let fault = Fault::new("HubSpot's access token is missing", hint);
        findings.elsewhere("secrets", "HUBSPOT_ACCESS_TOKEN", fault);
    }
    if token.as_ref().is_some_and(|token| !is_visible(token)) {
        let fault = Fault::new(
            "HubSpot's access token has blanks or other characters that no token has",
            "is the right file named? It holds the token and nothing else",
        );
        findings.elsewhere("secrets", "HUBSPOT_ACCESS_TOKEN", fault);
    }
    let in_file = table.read("base-url", |value| base_url(&text(value)?));
    let from_environment = environment("HUBSPOT_BASE_URL")
        .filter(|url| !url.is_empty())
        .map(|url| base_url(&url));
    let base_url = match from_environment {
        None => in_file,
        Some(Ok(url)) => Some(url),
        Some(Err(fault)) => {
            findings.elsewhere("environment", "HUBSPOT_BASE_URL", fault);
            None
        }
    };
    HubSpot {
        token: token.unwrap_or_default(),
        base_url: base_url.unwrap_or_else(|| "https://api.hubapi.com".to_owned()),
        api_version: table
            .read("api-version", api_version)
            .unwrap_or_else(|| "2026-09".to_owned()),
        requests: table
            .integer("requests", 1, 10_000)
            .and_then(|requests| u32::try_from(requests).ok())
            .unwrap_or(100),
        window: table.duration("window", SECOND, HOUR).unwrap_or(10 * SECOND),
        in_flight: count(table.integer("in-flight", 1, 64), 8),
        timeout: table
            .duration("timeout", SECOND, 10 * MINUTE)
            .unwrap_or(30 * SECOND),
        settle: table
            .duration("settle", Duration::ZERO, HOUR)
            .unwrap_or(2 * MINUTE),
        daily_reserve: table.read("daily-reserve", share).unwrap_or(0.1),
    }
}

/// Whether a header can carry it, and a token be it.
fn is_visible(token: &SecretString) -> bool {
    use secrecy::ExposeSecret;
    token.expose_secret().bytes().all(|byte| byte.is_ascii_graphic())
}

/// A base URL without the slash at its end; https, or anything on the loopback.
fn base_url(url: &str) -> Result<String, Fault> {
    let hint = "e.g. \"https://api.hubapi.com\"";
    let parsed = secure_url(url, hint)?;
    if parsed.query().is_some() {
        return Err(Fault::new("has a query, which is not wanted here", hint));
    }
    Ok(url.trim().trim_end_matches('/').to_owned())
}

/// A URL of https, or of anything on the loopback.
fn secure_url(url: &str, hint: &str) -> Result<hyper::Uri, Fault> {
    let refuse = |message: &str| Fault::new(message, hint);
    let parsed: hyper::Uri = url.trim().parse().map_err(|_| refuse("is no URL"))?;
    let authority = parsed
        .authority()
        .ok_or_else(|| refuse("is no URL with a host"))?;
    if authority.as_str().contains('@') {
        return Err(refuse("has a user or a password, which are not wanted here"));
    }
    let host = authority.host().trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    match parsed.scheme_str() {
        Some("https") => {}
        Some("http") if loopback => {}
        _ => return Err(refuse("is not https, which every host but the loopback must be")),
    }
    Ok(parsed)
}

fn api_version(value: &DeValue<'_>) -> Result<String, Fault> {
    let versions = [("2026-09", "2026-09"), ("2026-03", "2026-03")];
    choose(value, &versions).map(str::to_owned)
}

/// A share like `"10%"`, as a number from 0.0 to 0.9.
fn share(value: &DeValue<'_>) -> Result<f64, Fault> {
    let hint = "a share like \"10%\", from \"0%\" to \"90%\"";
    let text = text(value).map_err(|_| Fault::new("is no share", hint))?;
    let number = text
        .trim()
        .strip_suffix('%')
        .map(|number| number.trim().parse::<f64>());
    match number {
        Some(Ok(number)) if (0.0..=90.0).contains(&number) => Ok(number / 100.0),
        Some(Ok(_)) => Err(Fault::new(format!("\"{text}\" is out of range"), hint)),
        _ => Err(Fault::new(format!("\"{text}\" is no share"), hint)),
    }
}

fn batch<'a>(findings: &'a Findings<'a>, root: &Section<'a>) -> Batch {
    let table = section(
        findings,
        root,
        "batch",
        &["max-records", "max-bytes", "max-delay"],
    );
    Batch {
        max_records: count(table.integer("max-records", 1, 100), 100),
        max_bytes: table.read("max-bytes", bytes).unwrap_or(4 << 20),
        max_delay: table
            .duration("max-delay", Duration::ZERO, 10 * SECOND)
            .unwrap_or(250 * MILLISECOND),
    }
}

/// A size like `"4MiB"`, in bytes.
fn bytes(value: &DeValue<'_>) -> Result<usize, Fault> {
    let hint = "a size like \"4MiB\", from \"64KiB\" to \"64MiB\"";
    let text = text(value).map_err(|_| Fault::new("is no size", hint))?;
    let digits = text
        .trim()
        .trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit: usize = match text.trim()[digits.len()..].to_ascii_lowercase().as_str() {
        "b" | "" => 1,
        "kb" => 1_000,
        "kib" => 1 << 10,
        "mb" => 1_000_000,
        "mib" => 1 << 20,
        _ => return Err(Fault::new(format!("\"{text}\" has no unit known here"), hint)),
    };
    let size = digits
        .trim()
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_mul(unit));
    match size {
        Some(size) if ((64 << 10)..=(64 << 20)).contains(&size) => Ok(size),
        Some(_) => Err(Fault::new(format!("\"{text}\" is out of range"), hint)),
        None => Err(Fault::new(format!("\"{text}\" is no size"), hint)),
    }
}

fn sweep<'a>(findings: &'a Findings<'a>, root: &Section<'a>) -> Sweep {
    let table = section(
        findings,
        root,
        "sweep",
        &["every", "on-start", "give-up", "touch"],
    );
    let every = table.duration("every", MINUTE, DAY);
    if let Some(every) = every
        && (every.subsec_nanos() != 0 || !DAY.as_secs().is_multiple_of(every.as_secs()))
    {
        let fault = Fault::new(
            format!("{} does not divide a day", humantime::format_duration(every)),
            "sweeps fall on the same times every day: e.g. \"15m\", \"1h\", \"2h\", \"6h\" or \"24h\"",
        );
        table.refuse("every", fault);
    }
    Sweep {
        every: every.unwrap_or(2 * HOUR),
        on_start: table.truth("on-start").unwrap_or(true),
        give_up: table.duration("give-up", SECOND, DAY).unwrap_or(5 * MINUTE),
        touch: table
            .choice("touch", &[("all", Touch::All), ("changed", Touch::Changed)])
            .unwrap_or(Touch::All),
    }
}

fn http<'a>(findings: &'a Findings<'a>, root: &Section<'a>, environment: Environment<'_>) -> Http {
    let table = section(
        findings,
        root,
        "http",
        &["socket", "socket-mode", "health-socket", "listen"],
    );
    let in_file = table.read("socket", socket);
    let socket_path = environment("HUBSYNCD_SOCKET")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or(in_file)
        .unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET));
    let health_socket = table.read("health-socket", socket);
    if health_socket.as_ref() == Some(&socket_path) {
        let fault = Fault::new(
            "is the same as `socket`",
            "everybody may ask it: give it a path of its own",
        );
        table.refuse("health-socket", fault);
    }
    let listen = table.read("listen", |value| {
        let text = text(value)?;
        text.parse::<SocketAddr>().map_err(|_| {
            Fault::new(
                format!("\"{text}\" is no address"),
                "e.g. \"127.0.0.1:3002\" or \"[::1]:3002\"",
            )
        })
    });
    let cron_secret = secrets::find("CRON_SECRET", environment, findings);
    if listen.is_some() && cron_secret.is_none() {
        let hint = format!("{}, or take `listen` out", secrets::where_to_put("CRON_SECRET"));
        table.refuse("listen", Fault::new("a TCP address wants a cron secret", hint));
    }
    Http {
        socket: socket_path,
        socket_mode: table.read("socket-mode", mode).unwrap_or(0o660),
        health_socket,
        listen,
        cron_secret,
    }
}

/// A path that fits into a socket address.
fn socket(value: &DeValue<'_>) -> Result<PathBuf, Fault> {
    let path = text(value)?;
    if !path.starts_with('/') {
        return Err(Fault::new(
            format!("\"{path}\" is not absolute"),
            "a path from the root",
        ));
    }
    if path.len() > 100 {
        // sun_path takes 108 bytes, and the socket is bound under a temporary name first.
        return Err(Fault::new("is too long for a socket", "at most 100 bytes"));
    }
    Ok(PathBuf::from(path))
}

fn mode(value: &DeValue<'_>) -> Result<u32, Fault> {
    let hint = "permission bits as text, e.g. \"0660\"";
    let text = text(value).map_err(|_| Fault::new(format!("is {}", a_kind(value)), hint))?;
    match u32::from_str_radix(&text, 8) {
        Ok(mode) if mode > 0o777 => Err(Fault::new(
            format!("\"{text}\" has more than permission bits"),
            hint,
        )),
        Ok(mode) if mode & 0o600 != 0o600 => Err(Fault::new(
            format!("\"{text}\" locks the daemon's own user out"),
            hint,
        )),
        Ok(mode) if mode & 0o002 != 0 => Err(Fault::new(
            format!("\"{text}\" lets everybody on the machine start sweeps"),
            "use \"0660\" and the group; `health-socket` is for everybody",
        )),
        Ok(mode) => Ok(mode),
        Err(_) => Err(Fault::new(format!("\"{text}\" is not octal"), hint)),
    }
}

fn health<'a>(findings: &'a Findings<'a>, root: &Section<'a>) -> Health {
    let table = section(findings, root, "health", &["warn-after", "fail-after"]);
    let health = Health {
        warn_after: table.duration("warn-after", SECOND, DAY).unwrap_or(MINUTE),
        fail_after: table.duration("fail-after", SECOND, DAY).unwrap_or(5 * MINUTE),
    };
    if health.warn_after > health.fail_after {
        let fault = Fault::new("is longer than `fail-after`", "health warns before it fails");
        table.refuse("warn-after", fault);
    }
    health
}

pub(super) fn alert<'a>(findings: &'a Findings<'a>, value: Option<&'a Spanned<DeValue<'a>>>) -> Alert {
    let table = Section::of(findings, "alert", value, &["webhook-url"]);
    let webhook_url = table.read("webhook-url", |value| {
        let url = text(value)?;
        secure_url(&url, "e.g. \"https://hooks.example.com/…\"")?;
        Ok(SecretString::from(url.trim().to_owned()))
    });
    if value.is_some() && table.value("webhook-url").is_none() {
        let fault = Fault::new("is missing", "set it, or take the section out");
        table.refuse("webhook-url", fault);
    }
    Alert { webhook_url }
}

/// A number already checked against its range, or its default.
fn count(number: Option<u64>, default: usize) -> usize {
    number
        .and_then(|number| usize::try_from(number).ok())
        .unwrap_or(default)
}
