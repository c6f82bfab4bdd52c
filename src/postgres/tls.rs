//! TLS to Postgres: `sslmode` and `sslrootcert` as libpq means them.
//!
//! | `sslmode` | without a root | with one |
//! |---|---|---|
//! | `disable` | plain | plain |
//! | `prefer` (default) | encrypted if the server can, nothing verified | the same, but the chain is verified |
//! | `require` | encrypted, nothing verified | like `verify-ca` |
//! | `verify-ca` | refused | encrypted, the chain is verified |
//! | `verify-full` | refused | and the name |
//!
//! The root is `sslrootcert`, else `~/.postgresql/root.crt` if it exists; `sslrootcert=system` means the
//! certificates of the operating system and wants `verify-full`. Two things are stricter than libpq: a root that is
//! named but cannot be read is always an error, and `prefer` goes on in plain text only where the server has no TLS,
//! never after a certificate was refused. A name is looked for in the certificate's alternative names alone.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::PathBuf;
use std::sync::Arc;
use tokio_postgres::config::SslMode;

/// What an address asks of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tls {
    /// Whether and how firmly the client library is to ask the server for TLS.
    pub mode: SslMode,
    verify: Verify,
    root: Option<Root>,
}

/// What of the server's certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verify {
    Nothing,
    Chain,
    ChainAndName,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Root {
    System,
    File(PathBuf),
}

impl Tls {
    /// Reads the two settings.
    ///
    /// # Errors
    /// A sentence for the operator: an unknown mode, or verification asked for without a root.
    pub(super) fn parse(mode: Option<&str>, root: Option<&str>) -> Result<Tls, String> {
        let root = match root {
            Some("system") => Some(Root::System),
            Some(path) if !path.is_empty() => Some(Root::File(PathBuf::from(path))),
            _ => root_at_home().map(Root::File),
        };
        let if_root = if root.is_some() {
            Verify::Chain
        } else {
            Verify::Nothing
        };
        let default = if root == Some(Root::System) {
            "verify-full"
        } else {
            "prefer"
        };
        let chosen = mode.unwrap_or(default);
        let (mode, verify) = match chosen {
            "disable" => (SslMode::Disable, Verify::Nothing),
            "prefer" => (SslMode::Prefer, if_root),
            "require" => (SslMode::Require, if_root),
            "verify-ca" => (SslMode::Require, Verify::Chain),
            "verify-full" => (SslMode::Require, Verify::ChainAndName),
            _ => {
                return Err("sslmode must be disable, prefer, require, verify-ca or verify-full".to_owned());
            }
        };
        if verify != Verify::Nothing && root.is_none() {
            return Err(format!(
                "sslmode={chosen} needs the certificate to trust: add sslrootcert=FILE, or sslrootcert=system with \
                 sslmode=verify-full"
            ));
        }
        if root == Some(Root::System) && verify != Verify::ChainAndName {
            return Err("sslrootcert=system wants sslmode=verify-full: anybody can get a certificate that the system \
                        trusts, only the name tells them apart"
                .to_owned());
        }
        Ok(Tls { mode, verify, root })
    }

    /// Whether a connection over TCP may be read by others, or be answered by somebody else than the server meant.
    pub(super) fn verifies_nothing(&self) -> bool {
        self.verify == Verify::Nothing
    }

    /// What the TLS library needs; reads the root each time, so that a renewed one counts at the next connection.
    ///
    /// # Errors
    /// A sentence for the operator: the root cannot be read.
    pub(super) fn client_config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let (certificates, roots) = match &self.root {
            Some(root) if self.verify != Verify::Nothing => read_root(root)?,
            _ => (Vec::new(), RootCertStore::empty()),
        };
        let verifier = Verifier {
            verify: self.verify,
            certificates,
            roots,
            provider: Arc::clone(&provider),
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(config)
    }
}

/// Where libpq looks for a root that is not named.
fn root_at_home() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("HOME")?).join(".postgresql/root.crt");
    path.is_file().then_some(path)
}

fn read_root(root: &Root) -> Result<(Vec<CertificateDer<'static>>, RootCertStore), String> {
    let (name, certificates) = match root {
        Root::System => {
            let name = "the operating system's certificates".to_owned();
            (name, rustls_native_certs::load_native_certs().certs)
        }
        Root::File(path) => {
            let name = format!("sslrootcert {}", path.display());
            let certificates = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| format!("{name} cannot be read: {error}"))?;
            (name, certificates)
        }
    };
    let mut roots = RootCertStore::empty();
    let (_, refused) = roots.add_parsable_certificates(certificates.iter().cloned());
    if roots.is_empty() {
        return Err(format!("{name}: no usable certificate in it ({refused} refused)"));
    }
    Ok((certificates, roots))
}

/// Verifies as much of the server's certificate as is asked for; its signature of the handshake always.
#[derive(Debug)]
struct Verifier {
    verify: Verify,
    certificates: Vec<CertificateDer<'static>>,
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn verify_chain(
        &self,
        server: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let roots = &self.roots;
        match verify_server_cert_signed_by_trust_anchor(parsed, roots, intermediates, now, algorithms) {
            // `openssl req -x509` marks a self-signed certificate as an authority. If it is itself the root that the
            // operator named, OpenSSL accepts it, and so do we; its time has been verified before its role.
            Err(error) if is_authority(&error) && self.certificates.iter().any(|root| root == server) => {
                Ok(())
            }
            result => result,
        }
    }
}

/// Whether a certificate was refused only because it is that of an authority.
fn is_authority(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            other.to_string() == "CaUsedAsEndEntity"
        }
        _ => false,
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.verify != Verify::Nothing {
            let parsed = ParsedCertificate::try_from(server)?;
            self.verify_chain(server, &parsed, intermediates, now)?;
            if self.verify == Verify::ChainAndName {
                verify_server_name(&parsed, name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
