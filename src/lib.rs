//! hubsyncd keeps HubSpot in step with a Postgres database.
//!
//! A change in Postgres names a row; the daemon re-reads that row, lets the [`mapping`] say what
//! HubSpot should hold, sends it in batches of a hundred, and writes back what HubSpot answered.
//! Every two hours a sweep names every row and walks through the same door, so whatever was missed
//! is not missed for long. A second, separate path pages HubSpot's contacts, companies and deals into
//! local tables, so that an application can read them without asking HubSpot.
//!
//! ```text
//!   trigger ─► hubsyncd.change ─► collect ─┐
//!      └─ doorbell (NOTIFY) ─► control ────┤        claim → read → plan → send → record
//!                                          ├─► door ───────────────────────────────────► HubSpot
//!   clock, SIGUSR1, socket ─► sweep ───────┘                      └─► receipt ─► Postgres
//!
//!   clock, socket, a stale answer ─► mirror ─► HubSpot's lists and searches ─► hubsyncd.mirror_… ─► routes
//! ```
//!
//! # The rooms
//!
//! - [`mapping`] declares which table is which HubSpot object; [`config`] reads it from TOML.
//! - [`sync`] is the middle: decisions without I/O, async or clock.
//! - [`postgres`] is the left wall and alone speaks to Postgres; [`hubspot`] is the right wall and
//!   alone speaks to HubSpot. The walls never meet but in [`daemon`].
//! - [`daemon`] is the clockwork: it alone spawns, sleeps and holds both walls.
//! - [`sandbox`] is a HubSpot to talk to, for the demo and the tests; it knows nothing of the rest.
//! - [`cli`] has a file for every verb.
//! - [`retry`] is the only file that names the `backoff` crate.
//!
//! # Words
//!
//! A *change* is a row that was named; the *backlog* is the changes not yet pushed; a *batch* is at
//! most 100 *records* (rows as read) of one object; a *plan* says what to send; an *outcome* is what
//! HubSpot made of it; a *receipt* writes the outcome back; the *door* is the one way out to HubSpot; a
//! *sweep* names every row; a *link* is an association; the *mapping* declares table ↔ object; the
//! *mirror* holds HubSpot's records in Postgres, and a *pull* brings it up to date; the *lease* is what
//! only one daemon holds; a *failure* is a record that HubSpot or Postgres refuses.

pub mod cli;
pub mod config;
pub mod daemon;
pub mod hubspot;
pub mod mapping;
pub mod postgres;
pub mod retry;
pub mod sandbox;
pub mod sync;
