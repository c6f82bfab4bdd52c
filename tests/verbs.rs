//! Tests: verbs.
