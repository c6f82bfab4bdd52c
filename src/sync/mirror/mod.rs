//! The mirror's decisions: which pass is due, where a list goes on, from when changes are asked for, what became of a
//! record that a list left out, and what operators are told of a pull.

mod due;
mod gone;
mod listing;
mod report;
mod walk;

pub use due::{Due, Periods, due};
pub use gone::{Fate, fates};
pub use listing::{Repeats, Trail};
pub use report::{COMPLAINTS_MAX, Complaint, LISTED, Pulled, Standing, Tally};
pub use walk::{Ask, Horizon, OVERLAP_MS, Stuck, Walk};
