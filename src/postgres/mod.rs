//! The left wall: it alone speaks to Postgres.

pub mod catalog;
pub mod connect;
pub mod convert;
pub mod error;
pub mod inspection;
pub mod quote;
pub mod rows;
mod select;

pub use connect::Session;
pub use error::{Error, ErrorKind};
pub use inspection::{Inspection, Problem};
