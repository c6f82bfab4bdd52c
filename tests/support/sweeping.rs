//! What tests of sweeps share.

use super::daemon::{CONTACTS, Daemon, Stage};
use super::wait_until;
use hubsyncd::sandbox::{World, Write};
use std::time::Duration;

/// Changes made as this are seen by no trigger.
pub async fn unseen(stage: &Stage, sql: &str) {
    stage
        .sql(&format!(
            "SET session_replication_role = replica; {sql}; RESET session_replication_role"
        ))
        .await;
}

/// Contacts with their records, made past the daemon's sight.
pub async fn known_contacts(stage: &Stage, count: usize) {
    let ids: Vec<String> = {
        let mut world = stage.sandbox.world();
        (0..count)
            .map(|at| {
                let (email, student) = (format!("p{at}@example.com"), format!("p{at}"));
                world.create(
                    CONTACTS,
                    [("email", email.as_str()), ("student_id", student.as_str())],
                )
            })
            .collect()
    };
    let ids = ids.join("','");
    unseen(
        stage,
        &format!(
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, hubspot_id, sj_credits)
             SELECT 'p' || (at - 1), 'p' || (at - 1) || '@example.com', id, 3
             FROM unnest(ARRAY['{ids}']) WITH ORDINALITY AS known (id, at)"
        ),
    )
    .await;
}

/// What a run counted of an object: created, updated, failed.
pub fn counts(run: &serde_json::Value, object: &str) -> (u64, u64, u64) {
    let counts = &run["summary"][object];
    let count = |name: &str| counts[name].as_u64().unwrap();
    (count("created"), count("updated"), count("failed"))
}

/// The values that writes gave a property of a record, in the order of the requests.
pub fn written(world: &World, object: &str, id: &str, property: &str) -> Vec<String> {
    let writes = world.requests().flat_map(|request| &request.writes);
    writes
        .filter_map(|write| match write {
            Write::Record {
                object: of,
                id: to,
                properties,
                ..
            } if of == object && to == id => properties
                .iter()
                .find(|(name, _)| name == property)
                .map(|(_, value)| value.clone()),
            _ => None,
        })
        .collect()
}

/// Waits for the log to say something.
pub async fn logged(daemon: &Daemon, words: &str) {
    wait_until(&format!("the log says {words}"), async || {
        daemon.log().contains(words)
    })
    .await;
}

/// Moves the portal's clock so that its next midnight, by its own zone, is so far away.
pub fn before_midnight(stage: &Stage, left: Duration) {
    let now = jiff::Timestamp::from_millisecond(stage.sandbox.world().now_ms()).unwrap();
    let now = now.to_zoned(jiff::tz::TimeZone::get("US/Eastern").unwrap());
    let midnights = [1, 2].map(|days| now.checked_add(jiff::Span::new().days(days)).unwrap());
    let aways = midnights.map(|day| {
        let midnight = day.start_of_day().unwrap();
        Duration::try_from(now.duration_until(&midnight)).unwrap()
    });
    let away = aways.into_iter().find(|away| *away > left).unwrap();
    stage.sandbox.advance(away - left);
}
