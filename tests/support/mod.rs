//! What the tests stand on: a private Postgres, the sandbox, the built daemon, waiting for predicates.
