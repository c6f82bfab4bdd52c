//! Tests: rows.
