//! Payloads: what HubSpot is sent for a row's values.

use crate::support::daemon::{BOOKINGS, CONTACTS, QUICK, Stage};
use hubsyncd::sandbox::{Endpoint, Property, Settings, World, Write};

/// The properties of every write of a record, oldest first, with its values as sent.
fn writes(world: &World, record: &str) -> Vec<Vec<(String, String)>> {
    let writes = world.requests().flat_map(|request| &request.writes);
    let of_record = writes.filter_map(|write| match write {
        Write::Record { id, properties, .. } if id == record => Some(properties.clone()),
        _ => None,
    });
    of_record.collect()
}

fn last_write(world: &World, record: &str) -> Vec<(String, String)> {
    writes(world, record).pop().unwrap_or_default()
}

fn names(write: &[(String, String)]) -> Vec<&str> {
    let mut names: Vec<&str> = write.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names
}

fn get<'w>(world: &'w World, object: &str, key: (&str, &str), name: &str) -> Option<&'w str> {
    world.find(object, key.0, key.1)?.get(name)
}

#[tokio::test]
async fn a_new_contact_is_sent_with_its_nulls_left_out_and_its_credits_as_numbers() {
    let stage = Stage::new("contact").await;
    let _daemon = stage.start().await;
    stage
        .app(
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, firstname, lastname, sj_credits, \
             cs_credits, sjmini_credits) VALUES ('s1', 's1@example.com', NULL, 'Žižek 🎓 👩‍🔬', 0, NULL, 12)",
        )
        .await;
    stage
        .wait_value(
            "SELECT count(hubspot_id) FROM hubspot_sync.hubspot_contact_credits",
            "1",
        )
        .await;
    stage.wait_drained().await;
    let world = stage.sandbox.world();
    let contact = world.find(CONTACTS, "email", "s1@example.com").unwrap();
    let held = |name: &str| contact.get(name);
    assert_eq!(held("lastname"), Some("Žižek 🎓 👩‍🔬"));
    assert_eq!((held("sj_credits"), held("cs_credits")), (Some("0"), Some("0")));
    assert_eq!(
        (held("sjmini_credits"), held("shared_mock_credits")),
        (Some("12"), Some("0"))
    );
    let sent = last_write(&world, &contact.id());
    assert!(!names(&sent).contains(&"firstname"), "{sent:?}");
}

#[tokio::test]
async fn a_null_create_only_field_leaves_the_value_of_an_adopted_record_and_the_others_win() {
    let stage = Stage::new("adopted").await;
    let known = stage.sandbox.world().create(
        CONTACTS,
        [
            ("email", "s1@example.com"),
            ("firstname", "Ada"),
            ("lastname", "Old"),
            ("sj_credits", "9"),
        ],
    );
    let _daemon = stage.start().await;
    stage
        .app(
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, firstname, lastname, sj_credits)
             VALUES ('s1', 's1@example.com', NULL, 'New', NULL)",
        )
        .await;
    stage
        .wait_value(
            "SELECT hubspot_id FROM hubspot_sync.hubspot_contact_credits",
            &known,
        )
        .await;
    stage.wait_drained().await;
    let world = stage.sandbox.world();
    let contact = world.record(CONTACTS, &known).unwrap();
    assert_eq!(contact.get("firstname"), Some("Ada"));
    assert_eq!(contact.get("lastname"), Some("New"));
    assert_eq!(contact.get("sj_credits"), Some("0"));
    assert_eq!(world.records(CONTACTS).count(), 1);
}

#[tokio::test]
async fn create_only_fields_of_a_known_record_are_not_sent_when_they_change() {
    let stage = Stage::new("create_only").await;
    let known = stage.known_contact("s1").await;
    let marker = stage.known_contact("s2").await;
    let daemon = stage.start().await;
    let before = stage.sandbox.world().count(Endpoint::Any);
    let written = writes(&stage.sandbox.world(), &known);
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET firstname = 'Changed' WHERE student_id = 's1'")
        .await;
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 4 WHERE student_id = 's2'")
        .await;
    stage
        .wait_world("the marker arrives", |world| {
            world
                .record(CONTACTS, &marker)
                .and_then(|record| record.get("sj_credits"))
                == Some("4")
        })
        .await;
    daemon.settled().await;
    let world = stage.sandbox.world();
    assert_eq!(world.count(Endpoint::Any), before + 1);
    assert_eq!(names(&last_write(&world, &marker)).len(), 5, "the credit fields");
    assert_eq!(writes(&world, &known), written, "nothing of it is sent");
    assert_eq!(world.record(CONTACTS, &known).unwrap().get("firstname"), None);
}

#[tokio::test]
async fn pitfall_1l_a_booking_is_sent_with_its_day_and_without_nulls_and_what_becomes_null_is_cleared() {
    let stage = Stage::new("booking").await;
    let contact = stage.known_contact("s1").await;
    let exam = stage.known_exam().await;
    let _daemon = stage.start().await;
    stage
        .app(&format!(
            "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, contact_id, student_id, student_email, \
             student_name, exam_date, is_active) VALUES ('b1', '{exam}', '{contact}', 's1', 's1@example.com', 'Zoë 🎉', \
             '2026-03-08 23:30:00', 'Active')"
        ))
        .await;
    let synced = "SELECT count(hubspot_last_sync_at) FROM hubspot_sync.hubspot_bookings";
    stage.wait_value(synced, "1").await;
    stage.wait_drained().await;
    {
        let world = stage.sandbox.world();
        let booking = world.find(BOOKINGS, "booking_id", "b1").unwrap();
        assert_eq!(booking.get("exam_date"), Some("2026-03-08"));
        assert_eq!(booking.get("student_name"), Some("Zoë 🎉"));
        let sent = last_write(&world, &booking.id());
        assert_eq!(
            names(&sent),
            [
                "booking_id",
                "exam_date",
                "is_active",
                "mock_exam_id",
                "student_email",
                "student_id",
                "student_name"
            ]
        );
    }
    let set = async |sql: &str, property: &str, value: Option<&str>| {
        stage
            .app(&format!("UPDATE hubspot_sync.hubspot_bookings SET {sql}"))
            .await;
        stage
            .wait_world(sql, |world| {
                get(world, BOOKINGS, ("booking_id", "b1"), property).filter(|held| !held.is_empty()) == value
            })
            .await;
    };
    set("attendance = 'Attended'", "attendance", Some("Attended")).await;
    set("attendance = NULL", "attendance", None).await;
    set("is_active = NULL", "is_active", None).await;
    stage.wait_drained().await;
    let world = stage.sandbox.world();
    let booking = world.find(BOOKINGS, "booking_id", "b1").unwrap();
    assert_eq!(
        last_write(&world, &booking.id()),
        [
            ("attendance".to_owned(), String::new()),
            ("is_active".to_owned(), String::new())
        ]
    );
    assert_eq!(booking.get("student_name"), Some("Zoë 🎉"));
}

#[tokio::test]
async fn a_booking_that_is_created_with_attendance_set_gets_it_too() {
    let stage = Stage::new("attended").await;
    let contact = stage.known_contact("s1").await;
    let exam = stage.known_exam().await;
    let daemon = stage.start().await;
    let before = stage.sandbox.world().count(Endpoint::Any);
    stage
        .app(&format!(
            "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, contact_id, student_id, student_email, \
             attendance) VALUES ('b1', '{exam}', '{contact}', 's1', 's1@example.com', 'No show')"
        ))
        .await;
    stage
        .wait_world("the booking has its attendance", |world| {
            get(world, BOOKINGS, ("booking_id", "b1"), "attendance") == Some("No show")
        })
        .await;
    stage.wait_drained().await;
    daemon.settled().await;
    assert_eq!(
        stage.sandbox.world().count(Endpoint::Any),
        before + 4,
        "a create, two links, an update"
    );
}

const CARS: &str = "
[[object]]
name = \"cars\"
table = \"public.cars\"
type = \"2-77\"
match-on = \"plate\"
[object.properties]
plate = { column = \"plate\", on = \"create\" }
electric = \"electric\"
built = \"built\"
sold = \"sold\"
seen = \"seen\"
inspected = { column = \"inspected\", zone = \"America/Toronto\" }
price = \"price\"
weight = \"weight\"
note = \"note\"
doors = { column = \"doors\", null = \"4\" }
colour = { column = \"colour\", null = \"omit\" }
";

const CARS_TABLE: &str = "CREATE TABLE public.cars (id integer PRIMARY KEY, plate text UNIQUE, electric boolean, built date, \
    sold timestamp, seen timestamptz, inspected timestamp, price numeric, weight double precision, note text, doors integer, \
    colour text, hubspot_id text, hubspot_last_sync_at timestamptz); \
    GRANT SELECT, INSERT, UPDATE ON public.cars TO app";

fn define_cars(world: &mut World) {
    world.define(
        "2-77",
        "cars",
        [
            Property::string("plate").unique(),
            Property::boolean("electric"),
            Property::date("built"),
            Property::datetime("sold"),
            Property::datetime("seen"),
            Property::datetime("inspected"),
            Property::number("price"),
            Property::number("weight"),
            Property::string("note"),
            Property::number("doors"),
            Property::string("colour"),
        ],
    );
}

#[tokio::test]
async fn pitfall_4_19_every_type_of_value_arrives_as_hubspot_wants_it() {
    let stage = Stage::without_setup("cars", Settings::default(), &format!("{QUICK}{CARS}")).await;
    define_cars(&mut stage.sandbox.world());
    stage.sql(CARS_TABLE).await;
    stage.setup().await;
    let _daemon = stage.start().await;
    stage
        .app(
            "INSERT INTO public.cars VALUES
             (1, 'A1', true, '2024-02-29', '2026-03-08 02:30:00.5', '2026-03-08 02:30:00-05', '2026-07-01 12:00:00', 0, \
              1e21, E'\u{1F697} \"fast\"\\n\\\\ ''; DROP', 0, 'red'),
             (2, 'B2', false, '2025-12-31', NULL, NULL, NULL, 19.90, 0.1, '', NULL, NULL)",
        )
        .await;
    stage
        .wait_value("SELECT count(hubspot_last_sync_at) FROM public.cars", "2")
        .await;
    stage.wait_drained().await;
    let held = |plate: &str, name: &str| {
        let world = stage.sandbox.world();
        get(&world, "2-77", ("plate", plate), name).map(str::to_owned)
    };
    for (plate, name, value) in [
        ("A1", "electric", Some("true")),
        ("A1", "built", Some("2024-02-29")),
        ("A1", "sold", Some("2026-03-08T02:30:00.500Z")),
        ("A1", "seen", Some("2026-03-08T07:30:00Z")),
        ("A1", "inspected", Some("2026-07-01T16:00:00Z")),
        ("A1", "price", Some("0")),
        ("A1", "weight", Some("1000000000000000000000")),
        ("A1", "note", Some("\u{1F697} \"fast\"\n\\ '; DROP")),
        ("A1", "doors", Some("0")),
        ("B2", "electric", Some("false")),
        ("B2", "price", Some("19.90")),
        ("B2", "weight", Some("0.1")),
        ("B2", "sold", None),
        ("B2", "doors", Some("4")),
    ] {
        assert_eq!(held(plate, name).as_deref(), value, "{name} of {plate}");
    }
    stage
        .app("UPDATE public.cars SET electric = NULL, built = NULL, seen = NULL, price = NULL, doors = NULL, colour = NULL WHERE id = 1")
        .await;
    stage
        .wait_world("the price is cleared", |world| {
            get(world, "2-77", ("plate", "A1"), "price").is_none_or(str::is_empty)
        })
        .await;
    let cleared = |name: &str| held("A1", name).is_none_or(|value| value.is_empty());
    assert!(cleared("electric") && cleared("built") && cleared("seen"));
    assert_eq!(held("A1", "doors").as_deref(), Some("4"), "its null is a literal");
    assert_eq!(
        held("A1", "colour").as_deref(),
        Some("red"),
        "its null is left out"
    );
    assert_eq!(held("A1", "sold").as_deref(), Some("2026-03-08T02:30:00.500Z"));
}
