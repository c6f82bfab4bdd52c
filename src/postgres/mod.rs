//! The left wall: it alone speaks to Postgres.

pub mod address;
mod beside;
pub mod catalog;
pub mod changes;
pub mod connect;
pub mod control;
pub mod convert;
pub mod error;
pub mod inspection;
mod pipeline;
pub mod quote;
pub mod receipt;
pub mod rows;
mod select;
mod tls;

pub use address::Address;
pub use connect::{Pool, Session};
pub use error::{Error, ErrorKind};
pub use inspection::{Inspection, Problem};
