//! The right wall: it alone speaks to HubSpot.
//!
//! - [`pace`] is the one budget for the token: nothing is sent without a [`Slot`] from it.
//! - [`client`] sends one request for one slot and hands back what HubSpot said, or [`Failed`]; [`transport`]
//!   carries it.
//! - [`wire`] writes request bodies around properties that stay the text Postgres made of them, and holds
//!   the replies; `reply` reads them with every field optional, because HubSpot's documentation says so
//!   and its history proves it.
//! - [`error`] sorts every failure by what the caller does about it, and `redact` takes out of HubSpot's
//!   texts whatever may be a value of a row.
//!
//! [`webhook`] is not HubSpot's: alerts go there, over the wall's HTTPS.
//!
//! Nothing here retries: a slot is one request, and what is sent again is read again from Postgres first.

pub mod client;
mod endpoint;
pub mod error;
mod loose;
pub mod pace;
mod records;
mod redact;
mod reply;
pub mod transport;
pub mod webhook;
pub mod wire;

pub use client::{Answered, Client, Observed, Observer, Settings, Setup};
pub use error::{Disposition, Failed, Policy};
pub use pace::{Budget, Halt, Lane, Limits, Pace, Pause, Slot, Why, Withheld};
pub use records::{Listing, ModifiedPage, Question, ReadRecords, RecordPage, Records, searchable_names};
pub use wire::{
    ASSOCIATION_READ_MAX, Account, Associated, AssociationKind, AssociationPage, AssociationType, BatchReply,
    CreateInput, Dissociated, Done, Found, FoundLink, PropertyInfo, ReadLinks, ReadReply, RecordError,
    UpdateInput, UpsertInput,
};
