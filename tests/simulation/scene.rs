//! What a seed's run is about: the mapping, HubSpot's manners, and what goes wrong.
//!
//! The scenes differ from seed to seed instead of adding to each other, so that a run stays short.

use super::dice::Dice;
use hubsyncd::mapping::{
    Adopt, Link, Mapping, Null, Object, On, OnDelete, OnMissing, Property as Mapped, TableName,
};
use hubsyncd::sandbox::{Property, World as Portal};
use std::collections::BTreeMap;
use std::time::Duration;

pub const CONTACTS: usize = 0;
pub const BOOKINGS: usize = 1;
pub const EXAMS: usize = 2;
/// Only in wide scenes: their natural key is not unique in HubSpot.
pub const PAYMENTS: usize = 3;
/// The payments' object type.
pub const PAYMENT: &str = "2-777";
/// The label of the booking's second link to a contact.
pub const PROCTOR: &str = "Proctor";
/// A label that only people use.
pub const FRIEND: &str = "Friend";

/// What is played.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    /// Whether payments and a labelled link are mapped beside the built-in mapping.
    pub wide: bool,
    /// Whether the records of deleted bookings and payments are archived.
    pub archive: bool,
    /// How long HubSpot's search lags behind its records, milliseconds.
    pub search_lag: u64,
    /// How far HubSpot's clock is ahead of the database's, milliseconds.
    pub skew: i64,
    /// Whether people merge records. Merges move links, so that only without them these are held to the letter.
    pub merges: bool,
    /// Whether the run begins shortly before the portal's midnight, and others spend the day's quota.
    pub midnight: bool,
    /// Whether the doorbell never rings.
    pub deaf: bool,
    /// Whether rows come in while there are no triggers.
    pub unnamed: bool,
    /// Whether many rows are deleted at once.
    pub purge: bool,
    /// Whether records that are gone from HubSpot are made anew.
    pub recreate: bool,
    /// Whether people link much, and rows lead to where they did.
    pub crossed: bool,
    /// Whether whole tables are emptied.
    pub truncates: bool,
    /// Whether the database's clock jumps.
    pub jumps: bool,
    /// Whether daemons are stopped right after a write has left them, and its rows changed meanwhile.
    pub handover: bool,
}

impl Scene {
    /// The scene of a seed.
    pub fn of(seed: u64) -> Scene {
        let mut dice = Dice::new(seed, 6);
        let lag = dice.between(1, 29_000);
        let skew = i64::try_from(dice.below(16_000)).expect("it is small") - 8_000;
        let mut one_in = |number: u64| dice.below(number) == 0;
        let wide = !one_in(4);
        let archive = wide && !one_in(3);
        let (merges, midnight, deaf) = (one_in(2), one_in(16), one_in(8));
        let (purge, handover) = (archive && one_in(6), one_in(6));
        let unnamed = wide && !handover && one_in(4);
        let crossed = wide && !handover && one_in(3);
        let (recreate, truncates, jumps) = (one_in(4), wide && one_in(8), one_in(8));
        Scene {
            wide,
            archive,
            search_lag: if one_in(2) { 0 } else { lag },
            skew,
            merges: merges && !crossed,
            recreate,
            crossed,
            truncates,
            jumps,
            midnight,
            deaf,
            unnamed,
            purge,
            handover,
        }
    }

    /// The mapping.
    pub fn mapping(&self) -> Mapping {
        let mut mapping = Mapping::built_in();
        if self.recreate {
            for object in mapping.objects.iter_mut().filter(|object| object.create) {
                object.on_missing = OnMissing::Recreate;
            }
        }
        if !self.wide {
            return mapping;
        }
        let on_delete = if self.archive {
            OnDelete::Archive
        } else {
            OnDelete::Keep
        };
        let bookings = &mut mapping.objects[BOOKINGS];
        bookings.on_delete = on_delete;
        bookings.links.push(Link {
            to: "contacts".to_owned(),
            column: Some("proctor_id".to_owned()),
            lookup: Vec::new(),
            label: Some(PROCTOR.to_owned()),
        });
        mapping.objects.push(payments(on_delete, self.recreate));
        mapping
    }

    /// Adds to a tutoring portal what the mapping needs besides; answers the labels' ids.
    pub fn furnish(&self, portal: &mut Portal) -> BTreeMap<String, u32> {
        let texts = ["reference", "payer", "amount"].map(Property::string);
        portal.define(PAYMENT, "payments", texts);
        let labels = [PROCTOR, FRIEND];
        let label = |name: &str| (name.to_owned(), portal.label("2-50158943", "0-1", name).0);
        labels.map(label).into()
    }

    /// How long search lags.
    pub fn lag(&self) -> Duration {
        Duration::from_millis(self.search_lag)
    }
}

fn payments(on_delete: OnDelete, recreate: bool) -> Object {
    let property = |name: &str, on: On| Mapped {
        name: name.to_owned(),
        column: name.to_owned(),
        on,
        kind: None,
        null: if on == On::Create { Null::Omit } else { Null::Clear },
        zone: "UTC".to_owned(),
    };
    Object {
        name: "payments".to_owned(),
        table: TableName {
            schema: "hubspot_sync".to_owned(),
            name: "payments".to_owned(),
        },
        from: None,
        watch: Vec::new(),
        object_type: PAYMENT.to_owned(),
        key: "id".to_owned(),
        hubspot_id: "hubspot_id".to_owned(),
        synced_at: "hubspot_last_sync_at".to_owned(),
        match_on: Some("reference".to_owned()),
        adopt: Adopt::Overwrite,
        create: true,
        capture: true,
        on_missing: if recreate {
            OnMissing::Recreate
        } else {
            OnMissing::Fail
        },
        on_delete,
        condition: None,
        properties: vec![
            property("reference", On::Create),
            property("payer", On::Create),
            property("amount", On::Both),
        ],
        links: Vec::new(),
    }
}

/// How much of what goes wrong in a run, in a thousand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trouble {
    /// Requests that the network or HubSpot spoils.
    pub network: u64,
    /// Round trips to the database that break.
    pub database: u64,
    /// Steps of the application at which the daemon is killed.
    pub crashes: u64,
    /// Steps at which the daemon's process is stopped for a while beside another one.
    pub freezes: u64,
    /// Steps at which the database goes away for a while.
    pub outages: u64,
    /// Steps at which a person does something in HubSpot.
    pub people: u64,
    /// Rows that HubSpot, a link or a table refuses.
    pub refusals: u64,
    /// Steps at which the daemon is stopped as an operator would.
    pub stops: u64,
    /// Steps at which the token is revoked for a while.
    pub revocations: u64,
}

impl Trouble {
    /// What a seed's run has to bear.
    pub fn of(seed: u64, scene: Scene) -> Trouble {
        let mut dice = Dice::new(seed, 1);
        let mut some = |one_in: u64, most: u64| {
            if dice.below(one_in) == 0 {
                dice.between(1, most)
            } else {
                0
            }
        };
        let trouble = Trouble {
            network: some(2, 400),
            database: some(2, 120),
            crashes: some(2, 120),
            freezes: some(4, 80),
            outages: some(4, 60),
            people: some(3, 100),
            refusals: some(3, 250),
            stops: some(4, 120),
            revocations: some(8, 60),
        };
        if scene.crossed {
            return Trouble {
                people: 900,
                refusals: 0,
                ..trouble
            };
        }
        if !scene.handover {
            let people = if scene.recreate { 150 } else { 0 };
            return Trouble {
                people: trouble.people.max(people),
                ..trouble
            };
        }
        // So that nothing but the push that is due puts right what an old request has written.
        Trouble {
            network: 0,
            people: 0,
            refusals: 0,
            ..trouble
        }
    }
}
