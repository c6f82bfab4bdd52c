//! Tests: arrows.
