//! Tests: quoting.
