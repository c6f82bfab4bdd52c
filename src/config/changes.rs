//! What is different between two configurations, and which of it a running daemon can take.

use super::Config;
use crate::mapping::Mapping;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeSet;

/// The settings that differ, by name. Never a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Those that a reload takes.
    pub taken: Vec<String>,
    /// Those that only a restart takes.
    pub restart: Vec<String>,
    /// Whether the mapping is among those taken: then what is installed must fit it.
    pub mapping: bool,
    /// Whether something of `[hubspot]` is.
    pub hubspot: bool,
}

impl Config {
    /// What of `next` differs from this configuration.
    pub fn changes(&self, next: &Config) -> Changes {
        let hubspot = self.hubspot_changes(next);
        let mapping = mapping_changes(&self.mapping, &next.mapping);
        let mut changes = Changes {
            mapping: !mapping.is_empty(),
            hubspot: !hubspot.is_empty(),
            taken: hubspot,
            restart: self.restart_changes(next),
        };
        changes.taken.extend(self.other_changes(next));
        changes.taken.extend(mapping);
        changes
    }

    /// This configuration with everything of `next` that a running daemon can take.
    pub fn reloaded(&self, next: Config) -> Config {
        let mut config = next;
        config.database = self.database.clone();
        config.http = self.http.clone();
        config.hubspot.base_url = self.hubspot.base_url.clone();
        config.hubspot.token = self.hubspot.token.clone();
        config
    }

    fn hubspot_changes(&self, next: &Config) -> Vec<String> {
        let (old, new) = (&self.hubspot, &next.hubspot);
        differing(&[
            ("hubspot.api-version", old.api_version == new.api_version),
            ("hubspot.requests", old.requests == new.requests),
            ("hubspot.window", old.window == new.window),
            ("hubspot.in-flight", old.in_flight == new.in_flight),
            ("hubspot.timeout", old.timeout == new.timeout),
            ("hubspot.settle", old.settle == new.settle),
            (
                "hubspot.daily-reserve",
                old.daily_reserve.to_bits() == new.daily_reserve.to_bits(),
            ),
        ])
    }

    fn other_changes(&self, next: &Config) -> Vec<String> {
        let webhook = |config: &Config| config.alert.webhook_url.as_ref().map(exposed);
        differing(&[
            (
                "batch.max-records",
                self.batch.max_records == next.batch.max_records,
            ),
            ("batch.max-bytes", self.batch.max_bytes == next.batch.max_bytes),
            ("batch.max-delay", self.batch.max_delay == next.batch.max_delay),
            ("sweep.every", self.sweep.every == next.sweep.every),
            ("sweep.on-start", self.sweep.on_start == next.sweep.on_start),
            ("sweep.give-up", self.sweep.give_up == next.sweep.give_up),
            ("sweep.touch", self.sweep.touch == next.sweep.touch),
            (
                "health.warn-after",
                self.health.warn_after == next.health.warn_after,
            ),
            (
                "health.fail-after",
                self.health.fail_after == next.health.fail_after,
            ),
            ("alert.webhook-url", webhook(self) == webhook(next)),
            ("mirror", self.mirror == next.mirror),
        ])
    }

    fn restart_changes(&self, next: &Config) -> Vec<String> {
        let (old, new) = (&self.http, &next.http);
        let cron_secret = |config: &Config| config.http.cron_secret.as_ref().map(exposed);
        differing(&[
            (
                "database.url",
                exposed(&self.database.url) == exposed(&next.database.url),
            ),
            (
                "database.connections",
                self.database.connections == next.database.connections,
            ),
            ("hubspot.base-url", self.hubspot.base_url == next.hubspot.base_url),
            (
                "HUBSPOT_ACCESS_TOKEN",
                exposed(&self.hubspot.token) == exposed(&next.hubspot.token),
            ),
            ("http.socket", old.socket == new.socket),
            ("http.socket-mode", old.socket_mode == new.socket_mode),
            ("http.health-socket", old.health_socket == new.health_socket),
            ("http.listen", old.listen == new.listen),
            ("CRON_SECRET", cron_secret(self) == cron_secret(next)),
        ])
    }
}

fn exposed(secret: &SecretString) -> String {
    secret.expose_secret().to_owned()
}

/// The names of those that are not the same.
fn differing(settings: &[(&str, bool)]) -> Vec<String> {
    let differing = settings.iter().filter(|(_, same)| !same);
    differing.map(|(name, _)| (*name).to_owned()).collect()
}

fn mapping_changes(old: &Mapping, new: &Mapping) -> Vec<String> {
    let order = |mapping: &Mapping| -> Vec<String> {
        mapping.objects.iter().map(|object| object.name.clone()).collect()
    };
    let (before, after) = (order(old), order(new));
    let names: BTreeSet<&String> = before.iter().chain(&after).collect();
    let of =
        |mapping: &Mapping, name: &str| mapping.objects.iter().find(|object| object.name == name).cloned();
    let changed = names.into_iter().filter(|name| of(old, name) != of(new, name));
    let mut changes: Vec<String> = changed.map(|name| format!("object {name}")).collect();
    if changes.is_empty() && before != after {
        changes.push("the order of the objects".to_owned());
    }
    if old.audit != new.audit {
        changes.push("audit".to_owned());
    }
    changes
}
