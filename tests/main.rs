//! One binary for all tests: `support/` and a file a topic.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test that fails should fail loudly"
)]

mod support;

mod adoption;
mod alerts;
mod alike;
mod arming;
mod arrows;
mod audit;
mod auditing;
mod bearer;
mod bounded;
mod browser;
mod buried;
mod capture;
mod changes;
mod chaos;
mod check;
mod client;
mod clock;
mod closed;
mod cluster;
mod config;
mod connect;
mod control;
mod conversions;
mod dashboard;
mod deletes;
mod demo;
mod discreet;
mod endings;
mod engine;
mod exchange;
mod explain;
mod failures;
mod faults;
mod fuzz;
mod gone;
mod guarded;
mod heirs;
mod hostile;
mod incomplete;
mod journal;
mod kept;
mod lease;
mod linkdoubts;
mod links;
mod linkshared;
mod live;
mod locks;
mod mirror_bad;
mod mirror_changes;
mod mirror_cut;
mod mirror_full;
mod mirror_large;
mod mirror_reload;
mod mirrored_reading;
mod mirrored_routes;
mod mirrored_verb;
mod mirrored_whole;
mod newcomer;
mod node;
mod operating;
mod outages;
mod pace;
mod package;
mod packaging;
mod paused;
mod payload;
mod people;
mod pins;
mod pitfalls;
mod planned;
mod quoting;
mod receipt;
mod recovery;
mod refusals;
mod refused;
mod reload;
mod rows;
mod runbook;
mod sandbox;
mod scarcity;
mod setup;
mod signals;
mod silence;
mod simulation;
mod socket;
mod sparse;
mod standalone;
mod starting;
mod startup;
mod sweep;
mod tls;
mod unlinking;
mod unnamed;
mod vanished;
mod verbs;
mod versions;
mod views;
