//! The mirror's decisions: which pass is due, where a list goes on, from when changes are asked for, and what operators
//! are told of a pull.

mod report;

pub use report::{COMPLAINTS_MAX, Complaint, Pulled, Standing, Tally};
