//! Tests: receipt.
