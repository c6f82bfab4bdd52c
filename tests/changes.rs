//! Tests: changes.
