//! A booking with a contact and an exam, linked to both, and two more contacts that it may be moved to.

use super::daemon::{BOOKINGS, CONTACTS, EXAMS, QUICK, Stage};
use hubsyncd::sandbox::{Settings, World};
use serde_json::json;

/// Contacts, and bookings that end before their links.
pub const BOOKINGS_AND_CONTACTS: &str = r#"
[[object]]
name = "contacts"
table = "hubspot_sync.hubspot_contact_credits"
type = "0-1"
hubspot-id = "hubspot_id"
synced-at = "hubspot_last_sync_at"
match-on = "email"
[object.properties]
email = { column = "email", on = "create" }
[[object]]
name = "bookings"
table = "hubspot_sync.hubspot_bookings"
type = "2-50158943"
hubspot-id = "hubspot_id"
synced-at = "hubspot_last_sync_at"
match-on = "booking_id"
[object.properties]
booking_id = { column = "booking_id", on = "create" }
is_active = "is_active"
"#;

/// A booking with a contact and an exam, linked to both, and two more contacts.
pub struct Scene {
    pub stage: Stage,
    /// The booking's id in HubSpot, once it is there.
    pub booking: String,
    /// The contacts' ids in HubSpot; the first is the booking's at first.
    pub contacts: [String; 3],
    pub exam: String,
}

impl Scene {
    /// The scene before the booking is there, with settings beyond [`QUICK`].
    pub async fn empty(hint: &str, toml: &str) -> Scene {
        let toml = format!("{QUICK}{toml}");
        let stage = Stage::with(hint, Settings::default(), &toml).await;
        let exam = stage.known_exam().await;
        let contacts = [
            stage.known_contact("s1").await,
            stage.known_contact("s2").await,
            stage.known_contact("s3").await,
        ];
        Scene {
            stage,
            booking: String::new(),
            contacts,
            exam,
        }
    }

    /// Adds the booking.
    pub async fn book(&mut self) {
        let sql = format!(
            "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, contact_id, student_id, student_email)
             VALUES ('b1', '{}', '{}', 's1', 's1@example.com')",
            self.exam, self.contacts[0]
        );
        self.stage.app(&sql).await;
        self.in_step().await;
        let world = self.stage.sandbox.world();
        self.booking = world.find(BOOKINGS, "booking_id", "b1").unwrap().id();
        assert_eq!(contacts_of(&world, &self.booking), [self.contacts[0].as_str()]);
    }

    /// Lets the booking's contact be another.
    pub async fn move_to(&self, contact: usize) {
        let sql = format!(
            "UPDATE hubspot_sync.hubspot_bookings SET contact_id = '{}'",
            self.contacts[contact]
        );
        self.stage.app(&sql).await;
    }

    /// Waits until everything is pushed and marked.
    pub async fn in_step(&self) {
        self.stage
            .wait_value(
                "SELECT count(*) FROM hubspot_sync.hubspot_bookings
                 WHERE hubspot_id IS NULL OR hubspot_last_sync_at IS NULL",
                "0",
            )
            .await;
        self.stage.wait_drained().await;
    }

    /// Waits until the booking is linked to exactly these contacts.
    pub async fn linked(&self, contacts: &[usize]) {
        let mut wanted: Vec<&str> = contacts.iter().map(|at| self.contacts[*at].as_str()).collect();
        wanted.sort_unstable();
        self.stage
            .wait_world("the booking is linked to exactly the right contacts", |world| {
                contacts_of(world, &self.booking) == wanted
            })
            .await;
        let world = self.stage.sandbox.world();
        let exams = world.associations(BOOKINGS, &self.booking, EXAMS);
        assert!(
            exams.iter().all(|link| link.to == self.exam),
            "its other link stands"
        );
    }

    /// What is remembered of the booking's contacts.
    pub async fn wait_memory(&self, expected: &str) {
        let sql = "SELECT coalesce(string_agg(to_id || ' ' || state, ', ' ORDER BY to_id), '')
                   FROM hubsyncd.link WHERE link = 'contacts'";
        self.stage.wait_value(sql, expected).await;
    }

    /// A person gives the pair of the booking and a contact this label.
    pub async fn label(&self, contact: usize, label: &str) {
        let (id, _) = self.stage.sandbox.world().label(BOOKINGS, CONTACTS, label);
        let types = json!([{"associationCategory": "USER_DEFINED", "associationTypeId": id}]);
        let pair =
            json!({"from": {"id": self.booking}, "to": {"id": self.contacts[contact]}, "types": types});
        let sandbox = &self.stage.sandbox;
        let url = format!(
            "{}/crm/associations/2026-09/{BOOKINGS}/{CONTACTS}/batch/create",
            sandbox.base_url()
        );
        let answer = super::http()
            .post(url)
            .bearer_auth(sandbox.token())
            .body(json!({ "inputs": [pair] }).to_string())
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status().as_u16(), 200);
    }

    /// The labels of the pair of the booking and a contact.
    pub fn labels(&self, contact: usize) -> Vec<String> {
        let world = self.stage.sandbox.world();
        let links = world.associations(BOOKINGS, &self.booking, CONTACTS);
        let mut links = links.into_iter().filter(|link| link.to == self.contacts[contact]);
        let mut labels = links.next().expect("they are associated").labels;
        labels.sort();
        labels
    }

    /// A person links the booking to a contact.
    pub fn person_links(&self, contact: usize) {
        self.stage
            .sandbox
            .world()
            .associate((BOOKINGS, &self.booking), (CONTACTS, &self.contacts[contact]));
    }
}

/// The contacts that a booking is linked to.
pub fn contacts_of(world: &World, booking: &str) -> Vec<String> {
    let links = world.associations(BOOKINGS, booking, CONTACTS);
    let mut contacts: Vec<String> = links.into_iter().map(|link| link.to).collect();
    contacts.sort_unstable();
    contacts
}
