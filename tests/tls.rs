//! TLS to Postgres: each `sslmode` against servers with good, foreign and expired certificates.

use crate::support::postgres::Server;
use hubsyncd::cli::cluster::{Mode, Options};
use hubsyncd::postgres::{Address, connect::connect};
use hubsyncd::sync::report::chain;
use std::path::{Path, PathBuf};
use std::process::Command;

#[tokio::test]
async fn tls_means_what_it_means_to_libpq() {
    let keys = Keys::make();
    let (server, port) = tls_server(&keys.read("server")).await;
    let at = |host: &str, mode: &str, root: Option<&str>| {
        let root = root
            .map(|name| format!("&sslrootcert={}", keys.path(name).display()))
            .unwrap_or_default();
        format!("postgres://app@{host}:{port}/postgres?sslmode={mode}{root}")
    };
    assert!(!encrypted(&at("localhost", "disable", None)).await.unwrap());
    for (mode, root) in [
        ("prefer", None),
        ("require", None),
        ("prefer", Some("ca")),
        ("require", Some("ca")),
        ("verify-ca", Some("ca")),
    ] {
        assert!(
            encrypted(&at("127.0.0.1", mode, root)).await.unwrap(),
            "{mode} {root:?}"
        );
    }
    assert!(
        encrypted(&at("localhost", "verify-full", Some("ca")))
            .await
            .unwrap()
    );
    let message = encrypted(&at("127.0.0.1", "verify-full", Some("ca")))
        .await
        .unwrap_err();
    assert!(message.contains("not valid for name"), "{message}");
    for mode in ["prefer", "require", "verify-ca", "verify-full"] {
        let message = encrypted(&at("localhost", mode, Some("other")))
            .await
            .unwrap_err();
        assert!(message.contains("UnknownIssuer"), "{mode}: {message}");
    }
    // TLS is nothing a unix socket has or needs.
    let socket = format!(
        "{}&sslmode=verify-full&sslrootcert={}",
        server.cluster.url("postgres"),
        keys.path("ca").display()
    );
    assert!(!encrypted(&socket).await.unwrap());
}

#[tokio::test]
async fn a_self_signed_certificate_is_its_own_root_and_an_expired_one_is_none() {
    let keys = Keys::make();
    for (name, good) in [("own", true), ("expired", false)] {
        let (_server, port) = tls_server(&keys.read(name)).await;
        let root = keys.path(name);
        let url = format!(
            "postgres://app@localhost:{port}/postgres?sslmode=verify-full&sslrootcert={}",
            root.display()
        );
        let answer = encrypted(&url).await;
        assert_eq!(answer.is_ok(), good, "{name}: {answer:?}");
        encrypted(&format!(
            "postgres://app@localhost:{port}/postgres?sslmode=require"
        ))
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn only_prefer_goes_on_in_plain_text_where_the_server_has_no_tls() {
    let port = free_port();
    let server = Server::start(Options {
        settings: tcp(port),
        ..Options::default()
    })
    .await;
    let url = |mode: &str| format!("postgres://app@127.0.0.1:{port}/postgres?sslmode={mode}");
    assert!(!encrypted(&url("prefer")).await.unwrap());
    assert!(
        encrypted(&url("require"))
            .await
            .unwrap_err()
            .contains("does not support TLS")
    );
    drop(server);
}

/// Whether the connection that an address makes is encrypted.
async fn encrypted(url: &str) -> Result<bool, String> {
    let address = Address::parse(url).unwrap();
    let session = connect(&address, "test").await.map_err(|error| chain(&error))?;
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    Ok(session.query_one(sql, &[]).await.unwrap().get(0))
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn tcp(port: u16) -> Vec<(String, String)> {
    vec![
        ("listen_addresses".to_owned(), "127.0.0.1".to_owned()),
        ("port".to_owned(), port.to_string()),
    ]
}

/// A server that speaks TLS on a port of its own.
pub(super) async fn tls_server((certificate, key): &(Vec<u8>, Vec<u8>)) -> (Server, u16) {
    let mut server = Server::start(Options::default()).await;
    let cluster = &mut server.cluster;
    let certificate = cluster.put_file("server.crt", certificate).unwrap();
    let key = cluster.put_file("server.key", key).unwrap();
    let port = free_port();
    cluster
        .configure("ssl_cert_file", certificate.to_str().unwrap())
        .unwrap();
    cluster.configure("ssl_key_file", key.to_str().unwrap()).unwrap();
    cluster.configure("ssl", "on").unwrap();
    for (name, value) in tcp(port) {
        cluster.configure(&name, &value).unwrap();
    }
    cluster.restart(Mode::Fast).unwrap();
    (server, port)
}

/// Certificates made by `openssl`, which PostgreSQL's package brings along.
pub(super) struct Keys {
    directory: tempfile::TempDir,
}

/// What `openssl ca` wants; it alone of Debian 12's commands makes a certificate that has expired.
const AUTHORITY: &str = "[ca]\ndefault_ca=c\n[c]\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\n\
    policy=p\nx509_extensions=e\n[p]\ncommonName=supplied\n\
    [e]\nsubjectAltName=DNS:localhost\nbasicConstraints=CA:TRUE\n";

impl Keys {
    pub(super) fn make() -> Keys {
        let directory = tempfile::tempdir().unwrap();
        for (file, content) in [
            ("san", "subjectAltName=DNS:localhost"),
            ("index", ""),
            ("serial", "01"),
            ("ca.cnf", AUTHORITY),
        ] {
            std::fs::write(directory.path().join(file), content).unwrap();
        }
        let keys = Keys { directory };
        for name in ["ca", "other", "own"] {
            keys.request(name, "-x509 -days 2 -addext subjectAltName=DNS:localhost", "crt");
        }
        keys.request("server", "", "csr");
        keys.openssl("x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile san -out server.crt");
        keys.request("expired", "", "csr");
        keys.openssl(
            "ca -batch -config ca.cnf -selfsign -keyfile expired.key -in expired.csr -out expired.crt \
             -startdate 20200101000000Z -enddate 20200102000000Z -notext",
        );
        keys
    }

    fn request(&self, name: &str, more: &str, kind: &str) {
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        self.openssl(&format!(
            "req {key} -subj /CN={name} -keyout {name}.key -out {name}.{kind} {more}"
        ));
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        let output = command
            .args(arguments.split_whitespace())
            .current_dir(self.directory.path())
            .output();
        let output = output.expect("openssl is installed: sudo apt-get install -y openssl");
        assert!(
            output.status.success(),
            "openssl {arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.crt"))
    }

    /// Certificate and key.
    pub(super) fn read(&self, name: &str) -> (Vec<u8>, Vec<u8>) {
        let read = |path: &Path| std::fs::read(path).unwrap();
        (
            read(&self.path(name)),
            read(&self.path(name).with_extension("key")),
        )
    }
}
