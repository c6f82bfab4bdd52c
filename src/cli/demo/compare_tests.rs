//! The comparison finds what was changed, and nothing else.

use super::{Row, Rows, Verdict};
use crate::cli::demo::school::{BOOKINGS, CONTACTS, EXAMS};
use crate::sandbox::{Sandbox, Settings};

/// A contact, an exam and a booking of both that stand alike at both ends.
struct Ends {
    sandbox: Sandbox,
    rows: Rows,
    contact: String,
    exam: String,
    booking: String,
}

fn row(key: &str, id: &str, properties: &[(&str, Option<&str>)], links: &[(&str, &str)]) -> Row {
    let own = |text: &str| text.to_owned();
    Row {
        key: own(key),
        hubspot_id: Some(own(id)),
        synced: true,
        properties: properties
            .iter()
            .map(|(name, value)| (own(name), value.map(own)))
            .collect(),
        links: links.iter().map(|(to, id)| (own(to), Some(own(id)))).collect(),
    }
}

impl Ends {
    async fn alike() -> Ends {
        let sandbox = Sandbox::tutoring(Settings::default())
            .await
            .expect("a loopback port is free");
        let mut world = sandbox.world();
        let contact = world.create(CONTACTS, [("email", "a@example.com"), ("sj_credits", "3")]);
        let exam = world.create(EXAMS, [("total_bookings", "1")]);
        let booking = world.create(BOOKINGS, [("booking_id", "b1"), ("is_active", "Active")]);
        world.associate((BOOKINGS, &booking), (CONTACTS, &contact));
        world.associate((BOOKINGS, &booking), (EXAMS, &exam));
        drop(world);
        let contacts = [("email", Some("a@example.com")), ("sj_credits", Some("3"))];
        let bookings = [
            ("booking_id", Some("b1")),
            ("is_active", Some("Active")),
            ("attendance", None),
        ];
        let links = [("contacts", contact.as_str()), ("mock_exams", &exam)];
        let rows = Rows {
            objects: vec![
                vec![row("c", &contact, &contacts, &[])],
                vec![row("b", &booking, &bookings, &links)],
                vec![row("e", &exam, &[("total_bookings", Some("1"))], &[])],
            ],
            entries: (5, 0),
        };
        Ends {
            sandbox,
            rows,
            contact,
            exam,
            booking,
        }
    }

    fn verdict(&self) -> Verdict {
        self.rows.compare(&self.sandbox.world())
    }

    fn differences(&self) -> Vec<String> {
        let verdict = self.verdict();
        verdict.differences.iter().map(ToString::to_string).collect()
    }
}

#[tokio::test]
async fn ends_that_agree_have_no_difference_and_everything_is_counted() {
    let verdict = Ends::alike().await.verdict();
    assert_eq!(verdict.differences, []);
    let counted = verdict.counted.iter().map(|counted| {
        (
            counted.object,
            counted.rows,
            counted.properties,
            counted.associations,
        )
    });
    assert_eq!(
        counted.collect::<Vec<_>>(),
        [
            ("contacts", 1, 2, 0),
            ("bookings", 1, 3, 2),
            ("mock_exams", 1, 1, 0)
        ]
    );
    assert_eq!(verdict.entries, 5);
}

#[tokio::test]
async fn a_property_typed_over_in_hubspot_is_named_with_its_row_and_without_its_value() {
    let ends = Ends::alike().await;
    ends.sandbox
        .world()
        .set(CONTACTS, &ends.contact, "sj_credits", "99");
    assert_eq!(ends.differences(), ["contacts c: sj_credits differs"]);
    ends.sandbox
        .world()
        .set(CONTACTS, &ends.contact, "sj_credits", "3");
    ends.sandbox
        .world()
        .set(BOOKINGS, &ends.booking, "attendance", "Yes");
    assert_eq!(ends.differences(), ["bookings b: attendance differs"]);
    ends.sandbox
        .world()
        .set(BOOKINGS, &ends.booking, "attendance", "");
    ends.sandbox.world().set(EXAMS, &ends.exam, "total_bookings", "");
    assert_eq!(ends.differences(), ["mock_exams e: total_bookings differs"]);
}

#[tokio::test]
async fn an_association_too_few_or_too_many_is_named() {
    let mut ends = Ends::alike().await;
    let (contact, exam) = (ends.contact.clone(), ends.exam.clone());
    let other = ends.sandbox.world().create(EXAMS, [("total_bookings", "0")]);
    let properties = [("total_bookings", Some("0"))];
    ends.rows.objects[2].push(row("e2", &other, &properties, &[]));
    assert_eq!(ends.differences(), [""; 0]);
    ends.rows.objects[1][0].links[1].1 = Some(other.clone());
    assert_eq!(
        ends.differences(),
        [
            format!("bookings b: the association with mock_exams {other} is missing"),
            format!("bookings b: an association with mock_exams {exam} that the row does not name"),
        ]
    );
    ends.rows.objects[1][0].links = vec![("contacts".to_owned(), None)];
    assert_eq!(
        ends.differences(),
        [format!(
            "bookings b: an association with contacts {contact} that the row does not name"
        )]
    );
}

#[tokio::test]
async fn a_row_without_a_record_and_a_record_without_a_row_are_named() {
    let mut ends = Ends::alike().await;
    let twin = ends
        .sandbox
        .world()
        .create(CONTACTS, [("email", "b@example.com")]);
    assert_eq!(
        ends.differences(),
        [format!("contacts record {twin}: belongs to no row")]
    );
    ends.sandbox.world().archive(CONTACTS, &twin);
    ends.rows.objects[0].push(Row {
        key: "c2".to_owned(),
        ..Row::default()
    });
    ends.rows.objects[0].push(row("c3", &twin, &[], &[]));
    assert_eq!(
        ends.differences(),
        [
            "contacts c2: the row has no HubSpot id".to_owned(),
            format!("contacts c3: HubSpot has no record {twin}"),
        ]
    );
}

#[tokio::test]
async fn a_row_that_does_not_say_it_was_pushed_and_unmarked_audit_entries_are_named() {
    let mut ends = Ends::alike().await;
    ends.rows.objects[2][0].synced = false;
    ends.rows.entries = (5, 2);
    assert_eq!(
        ends.differences(),
        [
            "mock_exams e: the row does not say when it was pushed",
            "audit log: 2 entries are not marked as synced"
        ]
    );
}
