//! Tests: links.
