//! What a browser carries: the tokens of forms, and over TCP the session that the cron secret buys.
//!
//! A browser cannot send `Authorization: Bearer` by itself, so the dashboard, and it alone, also takes a cookie. Both it
//! and the tokens are digests under a key that lives as long as the process: nothing is stored, and a restart ends all.

use sha2::{Digest, Sha256};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use subtle::ConstantTimeEq;

/// How long a session lasts.
const SESSION: Duration = Duration::from_secs(12 * 3600);
/// The cookie's name.
const COOKIE: &str = "hubsyncd";

/// What a form does. The token of one is none for the other: the form that asks for the secret is shown to strangers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Asks the daemon for something.
    Act,
    /// Asks for a session.
    SignIn,
}

/// The key of this process and listener.
pub(super) struct Keys([u8; 32]);

impl Keys {
    /// A new key.
    pub(super) fn new() -> Keys {
        let mut hash = Sha256::new();
        for _ in 0..4 {
            // Each holds 122 bits from the system's source of randomness.
            hash.update(uuid::Uuid::new_v4().as_bytes());
        }
        Keys(hash.finalize().into())
    }

    /// The token of the forms that do this.
    pub(super) fn form(&self, purpose: Purpose) -> String {
        let purpose = match purpose {
            Purpose::Act => b'a',
            Purpose::SignIn => b'i',
        };
        self.sign(purpose, 0)
    }

    /// Whether a form brought the token that it was given.
    pub(super) fn is_form(&self, purpose: Purpose, token: &str) -> bool {
        same(token, &self.form(purpose))
    }

    /// The header that gives a browser a session.
    pub(super) fn session(&self, now: SystemTime) -> String {
        let until = seconds(now) + SESSION.as_secs();
        let (signature, lasts) = (self.sign(b's', until), SESSION.as_secs());
        format!("{COOKIE}={until}.{signature}; Path=/; Max-Age={lasts}; HttpOnly; SameSite=Strict")
    }

    /// Whether a `Cookie` header holds a session that has not ended.
    pub(super) fn is_session(&self, cookies: &str, now: SystemTime) -> bool {
        let mut ours = cookies
            .split(';')
            .filter_map(|cookie| cookie.trim().split_once('='));
        ours.any(|(name, value)| {
            name == COOKIE
                && value.split_once('.').is_some_and(|(until, signature)| {
                    until
                        .parse()
                        .is_ok_and(|until| same(signature, &self.sign(b's', until)) && seconds(now) < until)
                })
        })
    }

    /// What is signed always has the same length, so that no signature can be extended into another.
    fn sign(&self, purpose: u8, number: u64) -> String {
        let digest = Sha256::new()
            .chain_update(self.0)
            .chain_update([purpose])
            .chain_update(number.to_be_bytes())
            .finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn same(given: &str, wanted: &str) -> bool {
    given.as_bytes().ct_eq(wanted.as_bytes()).into()
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_opens_for_its_time_under_its_key_and_not_otherwise() {
        let (keys, now) = (Keys::new(), UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let header = keys.session(now);
        let (cookie, _) = header.split_once(';').expect("it has attributes");
        let among_others = format!("theme=dark; {cookie}; x=y");
        for (cookies, at, opens) in [
            (cookie, now, true),
            (&among_others, now + SESSION - Duration::from_secs(1), true),
            (cookie, now + SESSION, false),
            (&cookie.replace("hubsyncd=18", "hubsyncd=19"), now, false),
            (&cookie[..cookie.len() - 1], now, false),
            ("hubsyncd=", now, false),
            ("hubsyncd=1800043200.", now, false),
            ("", now, false),
        ] {
            assert_eq!(keys.is_session(cookies, at), opens, "{cookies}");
        }
        assert!(!Keys::new().is_session(cookie, now), "another process's");
    }

    #[test]
    fn a_token_is_good_for_its_purpose_only() {
        let keys = Keys::new();
        let token = keys.form(Purpose::Act);
        assert!(keys.is_form(Purpose::Act, &token));
        assert!(!keys.is_form(Purpose::SignIn, &token));
        assert!(!keys.is_form(Purpose::Act, ""));
        assert!(!Keys::new().is_form(Purpose::Act, &token));
    }
}
