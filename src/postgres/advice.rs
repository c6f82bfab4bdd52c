//! Advice: what to do about a connection that cannot be made, by what is known of its address.

use super::address::Address;
use super::{Error, ErrorKind};
use std::net::SocketAddr;

/// Where Supabase explains the two addresses of a project.
const SESSION_POOLER: &str = "use the session pooler instead: Dashboard → Connect → Session pooler, host \
     aws-…pooler.supabase.com, port 5432, user ROLE.PROJECT";

/// What to do about a connection that failed. Asks the resolver which kinds of addresses the host has.
pub async fn on_connection(address: &Address, error: &Error) -> String {
    let host = address.host();
    let found = tokio::net::lookup_host((host.as_str(), address.port())).await;
    let found: Vec<SocketAddr> = found.map(Iterator::collect).unwrap_or_default();
    let only_v6 = !found.is_empty() && found.iter().all(SocketAddr::is_ipv6);
    let said = crate::sync::report::chain(error);
    by_words(&host, &said)
        .or_else(|| by_host(&host, error.kind, only_v6, found.is_empty()))
        .unwrap_or_else(|| by_kind(error.kind).to_owned())
}

/// What the failure's words tell.
fn by_words(host: &str, said: &str) -> Option<String> {
    let has = |words: &str| said.contains(words);
    let advice = if has("UnknownIssuer") {
        match is_supabase(host) {
            true => {
                "Supabase signs with a certificate authority of its own: Dashboard → Database → SSL configuration → Download \
                 certificate, and name that file in sslrootcert"
            }
            false => {
                "the server's certificate is not signed by the authority that sslrootcert names: name the one that signed it"
            }
        }
    } else if has("not valid for name") || has("NotValidForName") {
        "the certificate is made out for other names: connect by one of those, or make one for this name; verify-ca verifies \
         the signer alone"
    } else if has("Expired") || has("NotValidYet") {
        "the server's certificate is not valid now: renew it, or look at both clocks"
    } else if has("does not support TLS") {
        "turn TLS on in the server (ssl = on); where the network itself is trusted: sslmode=disable"
    } else if has("Tenant or user not found") {
        "Supabase's pooler wants the project in the user's name: ROLE.PROJECT, e.g. hubsyncd.abcdefghijklmnopqrst"
    } else if has("remaining connection slots") || has("too many connections") || has("max clients") {
        "the server's connections are used up: it needs five for the daemon (one, and `connections` of [database])"
    } else {
        return None;
    };
    Some(advice.to_owned())
}

/// What the host's name and addresses tell.
fn by_host(host: &str, kind: ErrorKind, only_v6: bool, unknown: bool) -> Option<String> {
    if kind != ErrorKind::Unreachable {
        return None;
    }
    if is_supabase_direct(host) && (only_v6 || unknown) {
        return Some(format!(
            "Supabase's direct address has IPv6 only, which this machine does not reach; {SESSION_POOLER} (or buy the \
             project's IPv4 add-on)"
        ));
    }
    if only_v6 {
        return Some(format!(
            "{host} has IPv6 addresses only: give this machine IPv6, or use an address that has IPv4"
        ));
    }
    (unknown && !host.starts_with('/'))
        .then(|| format!("{host} is not known to this machine's resolver: is the name right?"))
}

fn by_kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Denied => "look at user, password and pg_hba.conf; Postgres' own log says more",
        ErrorKind::Schema => "correct the database URL",
        _ => "is the database up, and are host, port, database and firewall right?",
    }
}

fn is_supabase(host: &str) -> bool {
    [".supabase.co", ".supabase.com"]
        .iter()
        .any(|end| host.ends_with(end))
}

/// `db.PROJECT.supabase.co`
fn is_supabase_direct(host: &str) -> bool {
    host.starts_with("db.") && host.ends_with(".supabase.co")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supabases_direct_address_is_explained_where_it_cannot_be_reached() {
        let host = "db.abcdefghijklmnopqrst.supabase.co";
        for (only_v6, unknown) in [(true, false), (false, true)] {
            let advice = by_host(host, ErrorKind::Unreachable, only_v6, unknown).unwrap_or_default();
            assert!(
                advice.contains("IPv6") && advice.contains("Session pooler"),
                "{advice}"
            );
        }
        assert_eq!(by_host(host, ErrorKind::Denied, true, false), None);
        assert_eq!(by_host(host, ErrorKind::Unreachable, false, false), None);
        let other = by_host("db.example.com", ErrorKind::Unreachable, true, false).unwrap_or_default();
        assert!(other.contains("IPv6") && !other.contains("Supabase"), "{other}");
    }

    #[test]
    fn supabases_own_authority_is_named_to_who_needs_it() {
        let said = "connecting: invalid peer certificate: UnknownIssuer";
        let advice = by_words("aws-0-eu-central-1.pooler.supabase.com", said).unwrap_or_default();
        assert!(
            advice.contains("Supabase") && advice.contains("sslrootcert"),
            "{advice}"
        );
        let other = by_words("db.example.com", said).unwrap_or_default();
        assert!(
            !other.contains("Supabase") && other.contains("sslrootcert"),
            "{other}"
        );
        assert!(
            by_words("h", "FATAL: Tenant or user not found")
                .is_some_and(|advice| advice.contains("ROLE.PROJECT"))
        );
        assert_eq!(by_words("h", "connection refused"), None);
    }
}
