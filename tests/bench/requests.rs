//! How many requests new records take.

use super::ground::{Ground, NO_SWEEP, UNLIMITED};
use super::support::daemon::Stage;
use super::support::wait_within;
use super::table::{self, Goal, Measured};
use hubsyncd::sandbox::{Endpoint, Settings};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

/// Makes contacts of which HubSpot has heard nothing, numbered from `from`.
pub fn new_contacts(from: usize, count: usize) -> String {
    format!(
        "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, firstname, lastname, sj_credits)
         SELECT 'n' || g, 'n' || g || '@example.com', 'First', 'Last', 3
         FROM generate_series({from}, {from} + {count} - 1) AS g"
    )
}

/// Makes bookings of a contact and of an exam that HubSpot has, numbered from `from`.
pub fn new_bookings(from: usize, count: usize, contact: &str, exam: &str) -> String {
    format!(
        "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, contact_id, student_id, student_name,
             student_email, is_active, token_used, attending_location, dominant_hand, exam_date, idempotency_key)
         SELECT 'b' || g, '{exam}', '{contact}', 's', 'A Student', 's@example.com', 'Active', 'Situational Judgment',
             'Toronto', 'true', '2026-03-01', 'k' || g FROM generate_series({from}, {from} + {count} - 1) AS g"
    )
}

/// Waits until every row of both tables has its id and nothing waits.
pub async fn in_step(stage: &Stage) {
    let open = "SELECT (SELECT count(*) FROM hubspot_sync.hubspot_contact_credits WHERE hubspot_last_sync_at IS NULL)
                     + (SELECT count(*) FROM hubspot_sync.hubspot_bookings WHERE hubspot_last_sync_at IS NULL)
                     + (SELECT count(*) FROM hubsyncd.change)";
    wait_within(PATIENCE, "all is in HubSpot and recorded", async || {
        stage.value(open).await.as_deref() == Some("0")
    })
    .await;
}

pub async fn measure(ground: &Ground) -> Vec<Measured> {
    let count = ground.scale(1_000, 200);
    let stage = ground
        .stage("requests", Settings::default(), &format!("{UNLIMITED}{NO_SWEEP}"))
        .await;
    let (contact, exam) = (stage.known_contact("s").await, stage.known_exam().await);
    let daemon = stage.start().await;
    in_step(&stage).await;
    let asked = || stage.sandbox.world().count(Endpoint::Any) as f64;
    let hundreds = count as f64 / 100.0;
    let (mut contacts, mut bookings) = (Vec::new(), Vec::new());
    for turn in 0..ground.scale(5, 1) {
        let from = turn * count;
        let before = asked();
        stage.app(&new_contacts(from, count)).await;
        in_step(&stage).await;
        let between = asked();
        stage.app(&new_bookings(from, count, &contact, &exam)).await;
        in_step(&stage).await;
        contacts.push((between - before) / hundreds);
        bookings.push((asked() - between) / hundreds);
    }
    daemon.kill();
    let new = table::count(count);
    vec![
        Measured::new(
            format!("requests for {new} new contacts, per 100"),
            Goal::AtMost(2.0),
            "",
            contacts,
        ),
        Measured::new(
            format!("requests for {new} new bookings with two links each, per 100"),
            Goal::AtMost(3.0),
            "",
            bookings,
        ),
    ]
}
