//! The left wall: it alone speaks to Postgres.

pub mod address;
pub mod audit;
mod beside;
mod capture;
pub mod catalog;
pub mod changes;
pub mod connect;
pub mod control;
pub mod convert;
pub mod error;
pub mod failures;
pub mod inspection;
pub mod intent;
pub mod inventory;
mod lease;
pub mod links;
pub mod orphans;
pub mod pins;
mod pipeline;
pub mod quote;
pub mod receipt;
mod rights;
pub mod rows;
pub mod runs;
pub mod schema;
mod select;
pub mod setup;
mod template;
mod tls;
pub mod uninstall;
mod views;

pub use address::Address;
pub use connect::{Pool, Session};
pub use error::{Error, ErrorKind};
pub use inspection::{Inspection, Problem};
