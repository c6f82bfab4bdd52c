//! A HubSpot to talk to: a world with rules, not a list of canned replies.
