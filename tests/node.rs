//! Tests: node.
