//! The right wall: it alone speaks to HubSpot.
