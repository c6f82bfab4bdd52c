//! What every portal has from the start: contacts, companies, deals, their properties and associations,
//! and the properties that each object type has.

use super::object_type::ObjectType;
use super::property::{Kind, Property};
use super::world::World;

/// The position of contacts in every world.
pub(super) const CONTACTS: usize = 0;
/// The position of companies.
pub(super) const COMPANIES: usize = 1;
/// The position of deals.
pub(super) const DEALS: usize = 2;

/// In the order in which `lifecyclestage` moves; it never moves back.
pub(super) const LIFECYCLE: [&str; 8] = [
    "subscriber",
    "lead",
    "marketingqualifiedlead",
    "salesqualifiedlead",
    "opportunity",
    "customer",
    "evangelist",
    "other",
];

/// The stages of a deal.
pub(super) const DEAL_STAGES: [&str; 7] = [
    "appointmentscheduled",
    "qualifiedtobuy",
    "presentationscheduled",
    "decisionmakerboughtin",
    "contractsent",
    "closedwon",
    "closedlost",
];

/// Fills an empty world with what HubSpot ships.
pub(super) fn furnish(world: &mut World) {
    let text = |name: &&str| Property::string(name).built_in();
    let mut contacts: Vec<Property> = ["firstname", "lastname", "company", "city", "website", "jobtitle"]
        .iter()
        .map(text)
        .collect();
    contacts.extend([
        Property::new("email", Kind::Email).built_in(),
        Property::string("hs_additional_emails").read_only().built_in(),
        Property::new("phone", Kind::Phone).built_in(),
        Property::enumeration("lifecyclestage", &LIFECYCLE).built_in(),
    ]);
    let mut companies: Vec<Property> = ["name", "domain", "industry", "city"].iter().map(text).collect();
    companies.push(Property::new("phone", Kind::Phone).built_in());
    let deals = [
        Property::string("dealname").built_in(),
        Property::number("amount").built_in(),
        Property::enumeration("dealstage", &DEAL_STAGES).built_in(),
        Property::enumeration("pipeline", &["default"]).built_in(),
        Property::datetime("closedate").built_in(),
    ];
    for (id, name, singular, properties) in [
        ("0-1", "contacts", "contact", contacts),
        ("0-2", "companies", "company", companies),
        ("0-3", "deals", "deal", deals.to_vec()),
    ] {
        let mut kind = ObjectType::new(id, name, singular);
        furnish_type(&mut kind);
        for property in properties {
            kind.define(property);
        }
        world.types.push(kind);
    }
    let links = &mut world.links;
    links.define_built_in((CONTACTS, 279), (COMPANIES, 280), None);
    links.define_built_in((CONTACTS, 1), (COMPANIES, 2), Some("Primary"));
    links.define_built_in((CONTACTS, 4), (DEALS, 3), None);
    links.define_built_in((DEALS, 341), (COMPANIES, 342), None);
    links.define_built_in((DEALS, 5), (COMPANIES, 6), Some("Primary"));
    links.define_built_in((CONTACTS, 449), (CONTACTS, 449), None);
    links.define_built_in((COMPANIES, 450), (COMPANIES, 450), None);
    links.define_built_in((DEALS, 451), (DEALS, 451), None);
}

/// Gives an object type the properties that each has.
pub(super) fn furnish_type(kind: &mut ObjectType) {
    let created = Property::datetime(kind.created_name()).read_only().built_in();
    let modified = Property::datetime(kind.modified_name()).read_only().built_in();
    kind.define(created);
    kind.define(modified);
    kind.define(Property::number("hs_object_id").read_only().built_in());
    kind.define(Property::string("hs_merged_object_ids").read_only().built_in());
    kind.define(Property::string("hs_object_source").read_only().built_in());
    kind.define(Property::string("hs_object_source_id").read_only().built_in());
    kind.define(
        Property::string("hs_unique_creation_key")
            .read_only()
            .unique()
            .built_in(),
    );
}

/// What a read answers when it names no properties.
pub(super) fn shown_by_default(kind: &ObjectType) -> &'static [&'static str] {
    match kind.id.as_str() {
        "0-1" => &["email", "firstname", "lastname"],
        "0-2" => &["domain", "name"],
        "0-3" => &["amount", "closedate", "dealname", "dealstage", "pipeline"],
        _ => &[],
    }
}

/// A portal as the tutoring application's: its three objects with every mapped property, and the
/// associations between them.
pub(super) fn furnish_tutoring(world: &mut World) {
    let credits = [
        "sj_credits",
        "cs_credits",
        "sjmini_credits",
        "mock_discussion_token",
        "shared_mock_credits",
    ];
    let mut contact: Vec<Property> = credits.iter().map(|name| Property::number(name)).collect();
    contact.push(Property::string("student_id"));
    contact.push(Property::string("ndecc_exam_date"));
    world.define("0-1", "contacts", contact);

    let text = |name: &&str| Property::string(name);
    let mut booking: Vec<Property> = [
        "student_id",
        "student_name",
        "student_email",
        "mock_exam_id",
        "token_used",
        "attending_location",
        "dominant_hand",
        "idempotency_key",
        "attendance",
        "is_active",
    ]
    .iter()
    .map(text)
    .collect();
    booking.push(Property::string("booking_id").unique());
    booking.push(Property::date("exam_date"));
    world.define("2-50158943", "bookings", booking);

    let mut exam: Vec<Property> = [
        "mock_exam_name",
        "mock_type",
        "start_time",
        "end_time",
        "location",
        "is_active",
    ]
    .iter()
    .map(text)
    .collect();
    exam.push(Property::date("exam_date"));
    exam.push(Property::number("capacity"));
    exam.push(Property::number("total_bookings"));
    world.define("2-50158913", "mock_exams", exam);

    world.associate_types("2-50158943", "0-1");
    world.associate_types("2-50158943", "2-50158913");
    world.associate_types("0-1", "2-50158913");
}
