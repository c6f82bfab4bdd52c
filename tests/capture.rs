//! Tests: capture.
