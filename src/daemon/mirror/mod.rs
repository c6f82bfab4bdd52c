//! The mirror: HubSpot's contacts, companies and deals, copied into Postgres.

pub mod request;
pub mod state;
