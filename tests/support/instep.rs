//! What both ends must agree on at the end of a test.

use super::daemon::{CONTACTS, Stage};
use super::wait_until;
use hubsyncd::postgres::Session;
use hubsyncd::sandbox::World;

const ROWS: &str = "SELECT coalesce(hubspot_id, ''), lower(email), coalesce(sj_credits, 0)::text, \
    hubspot_last_sync_at IS NOT NULL FROM hubspot_sync.hubspot_contact_credits";

/// Waits until nothing waits and every contact's row is in HubSpot: once, under the row's id, with the row's credits.
pub async fn wait_contacts_in_step(stage: &Stage) {
    let session = stage.database.session().await;
    let mut last = String::new();
    wait_until("every contact is in step", async || {
        match out_of_step(stage, &session).await {
            None => true,
            Some(why) => {
                if why != last {
                    eprintln!("not in step yet: {why}");
                    last = why;
                }
                false
            }
        }
    })
    .await;
}

async fn out_of_step(stage: &Stage, session: &Session) -> Option<String> {
    let waiting = "SELECT count(*) FROM hubsyncd.change";
    let waiting: i64 = session.query_one(waiting, &[]).await.unwrap().get(0);
    if waiting > 0 {
        return Some(format!("{waiting} changes wait"));
    }
    let rows = session.query(ROWS, &[]).await.unwrap();
    let world = stage.sandbox.world();
    for row in &rows {
        let (id, email, credits): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
        if id.is_empty() || !row.get::<_, bool>(3) {
            return Some(format!("{email} is not marked"));
        }
        let held = world
            .record(CONTACTS, id)
            .and_then(|record| record.get("sj_credits"));
        if held.unwrap_or("0") != credits {
            return Some(format!("{email} has {credits}, HubSpot {held:?}"));
        }
        if with_email(&world, email) != 1 {
            return Some(format!("HubSpot has {} of {email}", with_email(&world, email)));
        }
    }
    None
}

/// How many contacts of HubSpot have this e-mail.
pub fn with_email(world: &World, email: &str) -> usize {
    world
        .records(CONTACTS)
        .filter(|record| record.get("email") == Some(email))
        .count()
}
