//! The built-in mapping: the tables of the documents that this program comes from.

use crate::mapping::{Adopt, Link, Mapping, Null, Object, On, OnDelete, OnMissing, Property, TableName};

/// The five properties that say what a contact may still book.
const CREDITS: [&str; 5] = [
    "sj_credits",
    "cs_credits",
    "sjmini_credits",
    "mock_discussion_token",
    "shared_mock_credits",
];

impl Mapping {
    /// Contacts, bookings and mock exams of schema `hubspot_sync`, and its audit log.
    ///
    /// Triggers go on the contacts, the bookings and the audit log. Mock exams have none of their own: an audit
    /// entry names them, and every sweep takes them.
    pub fn built_in() -> Mapping {
        Mapping {
            objects: vec![contacts(), bookings(), mock_exams()],
            audit: Some(table("supabase_audit_log")),
        }
    }
}

fn contacts() -> Object {
    let identity = ["student_id", "email", "firstname", "lastname"];
    let mut properties: Vec<Property> = identity.map(on_create).into();
    properties.extend(CREDITS.map(|name| property(name, On::Both, Null::Literal("0".to_owned()))));
    Object {
        match_on: Some("email".to_owned()),
        properties,
        ..object("contacts", "hubspot_contact_credits", "0-1")
    }
}

fn bookings() -> Object {
    let identity = [
        "booking_id",
        "student_id",
        "student_name",
        "student_email",
        "mock_exam_id",
    ];
    let details = [
        "token_used",
        "attending_location",
        "dominant_hand",
        "exam_date",
        "idempotency_key",
    ];
    let mut properties: Vec<Property> = identity.map(on_create).into();
    properties.push(property("is_active", On::Both, Null::Clear));
    properties.extend(details.map(on_create));
    properties.push(property("attendance", On::Update, Null::Clear));
    let contact = Link {
        to: "contacts".to_owned(),
        column: Some("contact_id".to_owned()),
        lookup: vec![
            ("student_id".to_owned(), "student_id".to_owned()),
            ("email".to_owned(), "student_email".to_owned()),
        ],
        label: None,
    };
    let mock_exam = Link {
        to: "mock_exams".to_owned(),
        column: Some("mock_exam_id".to_owned()),
        lookup: Vec::new(),
        label: None,
    };
    Object {
        match_on: Some("booking_id".to_owned()),
        properties,
        links: vec![contact, mock_exam],
        ..object("bookings", "hubspot_bookings", "2-50158943")
    }
}

fn mock_exams() -> Object {
    Object {
        create: false,
        properties: vec![property(
            "total_bookings",
            On::Update,
            Null::Literal("0".to_owned()),
        )],
        ..object("mock_exams", "hubspot_mock_exams", "2-50158913")
    }
}

fn object(name: &str, relation: &str, object_type: &str) -> Object {
    Object {
        name: name.to_owned(),
        table: table(relation),
        from: None,
        watch: Vec::new(),
        object_type: object_type.to_owned(),
        key: "id".to_owned(),
        hubspot_id: "hubspot_id".to_owned(),
        synced_at: "hubspot_last_sync_at".to_owned(),
        match_on: None,
        adopt: Adopt::Overwrite,
        create: true,
        capture: true,
        on_missing: OnMissing::Fail,
        on_delete: OnDelete::Keep,
        condition: None,
        properties: Vec::new(),
        links: Vec::new(),
    }
}

fn table(name: &str) -> TableName {
    TableName {
        schema: "hubspot_sync".to_owned(),
        name: name.to_owned(),
    }
}

fn on_create(name: &str) -> Property {
    property(name, On::Create, Null::Omit)
}

/// A property that bears its column's name.
fn property(name: &str, on: On, null: Null) -> Property {
    Property {
        name: name.to_owned(),
        column: name.to_owned(),
        on,
        kind: None,
        null,
        zone: "UTC".to_owned(),
    }
}
