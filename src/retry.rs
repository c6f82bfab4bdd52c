//! The jittered schedule of repeated attempts; the only file that names the `backoff` crate.
