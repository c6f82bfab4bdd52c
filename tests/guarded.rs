//! Guarded creation: the natural key is not unique in HubSpot, answers are lost, and one row stays one record.

use crate::support::daemon::{CONTACTS, QUICK, Stage};
use crate::support::instep::wait_contacts_in_step;
use crate::support::{DEADLINE, wait_within};
use hubsyncd::sandbox::{Endpoint, Fault, Property, Settings, When, World};
use std::collections::HashSet;
use std::time::Duration;

/// The tickets' object type.
pub const TICKETS: &str = "2-70009";

/// The most that the sandbox's index lags: below a quarter of [`SETTLE`].
const LAG: Duration = Duration::from_millis(80);
/// The latest that a request lands after its start: below the settle time.
const LATE: Duration = Duration::from_millis(350);

const HUBSPOT: &str =
    "[hubspot]\nsettle = \"400ms\"\ntimeout = \"1s\"\nrequests = 10000\nwindow = \"1s\"\nin-flight = 16\n";

const TABLE: &str = "
CREATE SCHEMA desk;
CREATE TABLE desk.ticket (id bigint PRIMARY KEY, ref text NOT NULL, state text, hubspot_id text, synced timestamptz);
GRANT USAGE ON SCHEMA desk TO hubsyncd, app;
GRANT SELECT ON desk.ticket TO hubsyncd;
GRANT UPDATE (hubspot_id, synced) ON desk.ticket TO hubsyncd;
GRANT SELECT, INSERT, UPDATE, DELETE ON desk.ticket TO app;
";

/// Tickets, and requests that settle soon.
pub fn mapping(adopt: &str) -> String {
    format!(
        "{QUICK}{HUBSPOT}[[object]]\nname = \"tickets\"\ntable = \"desk.ticket\"\ntype = \"{TICKETS}\"\nkey = \"id\"\n\
         hubspot-id = \"hubspot_id\"\nsynced-at = \"synced\"\nmatch-on = \"ref\"\nadopt = \"{adopt}\"\n\
         [object.properties]\nref = \"ref\"\nstate = \"state\"\n"
    )
}

/// Tickets, whose natural key only Postgres keeps unique, if at all.
async fn tickets(hint: &str, adopt: &str, unique: bool) -> Stage {
    stage(hint, &mapping(adopt), unique).await
}

/// The same with a configuration of the test's own.
pub async fn stage(hint: &str, toml: &str, unique: bool) -> Stage {
    let settings = Settings {
        search_lag: LAG,
        log_max: 1_000_000,
        ..Settings::default()
    };
    let stage = Stage::without_setup(hint, settings, toml).await;
    stage.sql(TABLE).await;
    if unique {
        stage.sql("CREATE UNIQUE INDEX ON desk.ticket (ref)").await;
    }
    let properties = [Property::string("ref"), Property::string("state")];
    stage.sandbox.world().define(TICKETS, "tickets", properties);
    stage.setup().await;
    stage
}

/// A ticket in HubSpot that nobody here made, known to its search.
async fn foreign(stage: &Stage, reference: &str) -> String {
    let id = stage
        .sandbox
        .world()
        .create(TICKETS, [("ref", reference), ("state", "theirs")]);
    stage.sandbox.advance(LAG);
    id
}

fn with_ref<'w>(world: &'w World, reference: &str) -> Vec<&'w hubsyncd::sandbox::Record> {
    let has =
        |record: &&hubsyncd::sandbox::Record| record.get("ref") == Some(reference) && !record.archived();
    world.records(TICKETS).filter(has).collect()
}

/// Waits until every row is one record with the row's values, and nothing waits or is due.
pub async fn wait_in_step(stage: &Stage, deadline: Duration) {
    let session = stage.database.session().await;
    let mut last = String::new();
    wait_within(deadline, "every ticket is in step", async || {
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

async fn out_of_step(stage: &Stage, session: &hubsyncd::postgres::Session) -> Option<String> {
    for table in ["change", "intent", "failure"] {
        let count = format!("SELECT count(*) FROM hubsyncd.{table}");
        let count: i64 = session.query_one(&count, &[]).await.unwrap().get(0);
        if count > 0 {
            return Some(format!("{count} rows in {table}"));
        }
    }
    let rows = "SELECT hubspot_id, ref, coalesce(state, '') FROM desk.ticket";
    let rows = session.query(rows, &[]).await.unwrap();
    let world = stage.sandbox.world();
    let mut owned = HashSet::new();
    for row in &rows {
        let id: Option<&str> = row.get(0);
        let Some(id) = id else {
            return Some(format!("ticket {} has no id", row.get::<_, &str>(1)));
        };
        assert!(owned.insert(id.to_owned()), "two rows hold {id}");
        let record = world.record(TICKETS, id).unwrap();
        let held = (record.get("ref"), record.get("state").unwrap_or_default());
        if held != (Some(row.get(1)), row.get(2)) {
            return Some(format!("ticket {} is {held:?} in HubSpot", row.get::<_, &str>(1)));
        }
    }
    None
}

/// How many replies to lose: `HUBSYNCD_LOST_REPLIES`, or this many.
fn losses(default: u64) -> u64 {
    let told = std::env::var("HUBSYNCD_LOST_REPLIES").ok();
    told.and_then(|told| told.parse().ok()).unwrap_or(default)
}

/// How many requests of a kind were not answered as they should.
fn lost(stage: &Stage, endpoint: Endpoint) -> u64 {
    let world = stage.sandbox.world();
    let unanswered = |request: &&hubsyncd::sandbox::Request| {
        request.endpoint == endpoint && request.status.is_none_or(|status| status >= 500)
    };
    world.requests().filter(unanswered).count() as u64
}

/// The fault of one request in `number`: most are committed and their answers lost, some land late, some never.
fn loss(number: u64) -> Fault {
    match number % 8 {
        0 => Fault::hang(Some(LATE)),
        1 => Fault::commit_then(502),
        2 => Fault::refuse_connection(),
        3 => Fault::commit_then(504),
        4 => Fault::status(500),
        _ => Fault::lose_reply(),
    }
}

/// Waits until few changes wait, so that batches stay small and many.
async fn wait_room(stage: &Stage) {
    let waiting = "SELECT count(*) < 200 FROM hubsyncd.change";
    wait_within(Duration::from_secs(60), "the backlog drains", async || {
        stage.value(waiting).await.as_deref() == Some("t")
    })
    .await;
}

#[tokio::test]
async fn pitfall_4_06_lost_replies_to_guarded_creates_double_nothing() {
    let goal = losses(100);
    let stage = tickets("lost", "overwrite", true).await;
    let daemon = stage.start().await;
    for number in 0..goal {
        // One in two passes: else all would wait for HubSpot to come back.
        stage.sandbox.fault(loss(number).on(Endpoint::Create).after(1));
    }
    let session = stage.database.session_as("app").await;
    let mut rows = 0_i64;
    let began = std::time::Instant::now();
    while lost(&stage, Endpoint::Create) < goal {
        let patience = Duration::from_secs(60 + goal);
        assert!(began.elapsed() < patience, "{rows} rows, and not enough lost");
        wait_room(&stage).await;
        for _ in 0..50 {
            rows += 1;
            let sql =
                "INSERT INTO desk.ticket (id, ref, state) VALUES ($1::bigint, 'T-' || $1::bigint, 'open')";
            session.execute(sql, &[&rows]).await.unwrap();
            if rows % 3 == 0 {
                let sql = "UPDATE desk.ticket SET state = 'changed' WHERE id = $1::bigint / 2";
                session.execute(sql, &[&rows]).await.unwrap();
            }
        }
    }
    wait_in_step(&stage, Duration::from_secs(60 + goal / 10)).await;
    daemon.settled().await;
    let world = stage.sandbox.world();
    assert_eq!(world.records(TICKETS).count() as i64, rows, "a record a row");
    println!(
        "{goal} lost replies, {rows} rows, {} creates, {} searches, {:?}",
        world.count(Endpoint::Create),
        world.count(Endpoint::Search),
        began.elapsed()
    );
}

#[tokio::test]
async fn lost_replies_to_upserts_whose_e_mail_changes_between_the_attempts_double_nothing() {
    let goal = losses(50);
    let toml = format!("{QUICK}{HUBSPOT}");
    let settings = Settings {
        log_max: 1_000_000,
        ..Settings::default()
    };
    let stage = Stage::with("moved_mail", settings, &toml).await;
    let daemon = stage.start().await;
    for number in 0..goal {
        stage.sandbox.fault(loss(number).on(Endpoint::Upsert).after(1));
    }
    let session = stage.database.session_as("app").await;
    let table = "hubspot_sync.hubspot_contact_credits";
    let mut rows = 0_i32;
    let began = std::time::Instant::now();
    while lost(&stage, Endpoint::Upsert) < goal {
        let patience = Duration::from_secs(60 + goal);
        assert!(began.elapsed() < patience, "{rows} rows, and not enough lost");
        wait_room(&stage).await;
        for _ in 0..50 {
            rows += 1;
            let sql = format!(
                "INSERT INTO {table} (student_id, email, sj_credits)
                 VALUES ('s' || $1::int, 'first' || $1::int || '@example.com', $1::int)"
            );
            session.execute(&sql, &[&rows]).await.unwrap();
            // Some while their create is on its way or lost, some before it, some after it is done.
            let sql = format!(
                "UPDATE {table} SET email = 'second' || $1::int || '@example.com' WHERE student_id = 's' || ($1::int - 5)::text"
            );
            session
                .execute(
                    &sql.replace("second' || $1::int", "second' || ($1::int - 5)::text"),
                    &[&rows],
                )
                .await
                .unwrap();
        }
    }
    wait_within(
        Duration::from_secs(60 + goal / 10),
        "nothing waits or is due",
        async || {
            let left =
                "SELECT (SELECT count(*) FROM hubsyncd.change) + (SELECT count(*) FROM hubsyncd.intent)
                    + (SELECT count(*) FROM hubsyncd.failure)";
            stage.value(left).await.as_deref() == Some("0")
        },
    )
    .await;
    daemon.settled().await;
    let contacts = stage.sandbox.world().records(CONTACTS).count();
    assert_eq!(contacts as i32, rows, "a contact a row");
    let ids = format!("SELECT count(DISTINCT hubspot_id) FROM {table}");
    stage.wait_value(&ids, &rows.to_string()).await;
    println!("{goal} lost replies, {rows} rows, {:?}", began.elapsed());
}

#[tokio::test]
async fn a_daemon_killed_after_a_lost_reply_looks_for_the_record_before_it_creates_another() {
    let stage = tickets("guard_killed", "overwrite", true).await;
    let daemon = stage.start().await;
    let hold = stage.sandbox.hold(Endpoint::Create, When::After);
    stage
        .app("INSERT INTO desk.ticket VALUES (1, 'T-1', 'open')")
        .await;
    assert!(hold.reached(DEADLINE).await);
    daemon.kill();
    hold.release();
    assert_eq!(with_ref(&stage.sandbox.world(), "T-1").len(), 1);
    stage.app("UPDATE desk.ticket SET state = 'closed'").await;
    let _daemon = stage.launch("daemon");
    wait_in_step(&stage, Duration::from_secs(60)).await;
    let world = stage.sandbox.world();
    assert_eq!(world.records(TICKETS).count(), 1);
    assert_eq!(world.count(Endpoint::Create), 1, "searched for, not created");
}

#[tokio::test]
async fn a_row_that_changes_its_natural_key_after_a_lost_reply_keeps_the_record_it_made() {
    let stage = tickets("guard_moved", "overwrite", true).await;
    let _daemon = stage.start().await;
    stage.sandbox.fault(Fault::lose_reply().on(Endpoint::Create));
    stage
        .app("INSERT INTO desk.ticket VALUES (1, 'T-old', 'open')")
        .await;
    stage
        .wait_world("the create is done, its reply lost", |world| {
            with_ref(world, "T-old").len() == 1
        })
        .await;
    stage.app("UPDATE desk.ticket SET ref = 'T-new'").await;
    wait_in_step(&stage, DEADLINE).await;
    assert_eq!(stage.sandbox.world().records(TICKETS).count(), 1);
}

#[tokio::test]
async fn a_row_that_changes_its_natural_key_twice_keeps_the_record_it_made() {
    // The second key reaches the record, and nobody hears of it: by the first one it is not found any more.
    for (hint, unique) in [("guard_moved_twice", false), ("guard_mail_twice", true)] {
        let (stage, object, endpoint, insert, second, third) = if unique {
            let stage = Stage::with(hint, Settings::default(), &format!("{QUICK}{HUBSPOT}")).await;
            let table = "hubspot_sync.hubspot_contact_credits";
            let insert =
                format!("INSERT INTO {table} (student_id, email) VALUES ('s1', 'first@example.com')");
            let moved = |to: &str| format!("UPDATE {table} SET email = '{to}@example.com'");
            (
                stage,
                CONTACTS,
                Endpoint::Upsert,
                insert,
                moved("second"),
                moved("third"),
            )
        } else {
            let stage = tickets(hint, "overwrite", true).await;
            let insert = "INSERT INTO desk.ticket VALUES (1, 'T-first', 'open')".to_owned();
            let moved = |to: &str| format!("UPDATE desk.ticket SET ref = 'T-{to}'");
            (
                stage,
                TICKETS,
                Endpoint::Create,
                insert,
                moved("second"),
                moved("third"),
            )
        };
        let daemon = stage.start().await;
        stage.sandbox.fault(Fault::lose_reply().on(endpoint));
        stage.app(&insert).await;
        stage
            .wait_world("the create is done, its reply lost", |world| {
                world.records(object).count() == 1
            })
            .await;
        let hold = stage.sandbox.hold(Endpoint::Update, When::After);
        stage.app(&second).await;
        assert!(hold.reached(DEADLINE).await);
        daemon.kill();
        hold.release();
        stage.app(&third).await;
        let _daemon = stage.launch("again");
        stage.wait_drained().await;
        stage
            .wait_value("SELECT count(*) FROM hubsyncd.intent", "0")
            .await;
        let world = stage.sandbox.world();
        let records: Vec<_> = world.records(object).collect();
        assert_eq!(records.len(), 1, "{hint}");
        let name = if unique { "email" } else { "ref" };
        assert!(
            records[0].get(name).is_some_and(|value| value.contains("third")),
            "{hint}"
        );
    }
}

#[tokio::test]
async fn a_request_that_lands_after_its_successor_is_put_right_when_it_can_land_no_more() {
    let mut stage = tickets("guard_late", "overwrite", true).await;
    // The old request lands after the time-out, when the new one is long confirmed.
    stage.toml = stage.toml.replace("settle = \"400ms\"", "settle = \"4s\"");
    let _daemon = stage.start().await;
    stage
        .app("INSERT INTO desk.ticket VALUES (1, 'T-1', 'first')")
        .await;
    wait_in_step(&stage, DEADLINE).await;
    stage
        .sandbox
        .fault(Fault::hang(Some(Duration::from_millis(2_500))).on(Endpoint::Update));
    let updates = stage.sandbox.world().count(Endpoint::Update);
    stage.app("UPDATE desk.ticket SET state = 'second'").await;
    stage
        .wait_world("the update is on its way", |world| {
            world.count(Endpoint::Update) > updates
        })
        .await;
    stage.app("UPDATE desk.ticket SET state = 'third'").await;
    let state = |world: &World| with_ref(world, "T-1")[0].get("state").map(str::to_owned);
    stage
        .wait_world("the newer one is confirmed", |world| {
            state(world).as_deref() == Some("third")
        })
        .await;
    stage
        .wait_world("the older one lands after it", |world| {
            state(world).as_deref() == Some("second")
        })
        .await;
    wait_in_step(&stage, DEADLINE).await;
    assert_eq!(state(&stage.sandbox.world()).as_deref(), Some("third"));
}

/// Two rows share an e-mail; the lost create of the one lands on the record that the other got meanwhile.
#[tokio::test]
async fn a_create_that_lands_late_on_another_rows_record_is_put_right_with_all_its_properties() {
    let toml = format!("{QUICK}[hubspot]\nsettle = \"4s\"\ntimeout = \"1s\"\n");
    let stage = Stage::with("guard_shared", Settings::default(), &toml).await;
    let daemon = stage.start().await;
    daemon.settled().await;
    let insert = async |student: &str| {
        stage
            .app(&format!(
                "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, sj_credits)
                 VALUES ('{student}', 'shared@example.com', 3)"
            ))
            .await;
    };
    stage
        .sandbox
        .fault(Fault::hang(Some(Duration::from_millis(3_000))).on(Endpoint::Upsert));
    insert("late").await;
    stage
        .wait_world("the first create is on its way", |world| {
            world.count(Endpoint::Upsert) == 1
        })
        .await;
    insert("owner").await;
    let student = |world: &World| {
        let contact = world.find(CONTACTS, "email", "shared@example.com")?;
        contact.get("student_id").map(str::to_owned)
    };
    let is = |name: &'static str| move |world: &World| student(world).as_deref() == Some(name);
    stage
        .wait_world("one of the two owns the contact", |world| {
            student(world).is_some()
        })
        .await;
    let owner = "SELECT student_id FROM hubspot_sync.hubspot_contact_credits WHERE hubspot_id IS NOT NULL";
    wait_within(DEADLINE, "a row owns the contact", async || {
        stage.value(owner).await.is_some()
    })
    .await;
    assert_eq!(stage.value(owner).await.as_deref(), Some("owner"));
    stage.wait_world("the lost create lands", is("late")).await;
    stage
        .wait_world("the owner's values win again", is("owner"))
        .await;
    assert_eq!(stage.sandbox.world().records(CONTACTS).count(), 1);
}

#[tokio::test]
async fn two_records_under_a_natural_key_are_a_failure_and_never_guessed_from() {
    let stage = tickets("guard_two", "overwrite", true).await;
    // Not named by an insert: it was there before the triggers were.
    let daemon = stage.start().await;
    stage.sql("ALTER TABLE desk.ticket DISABLE TRIGGER USER").await;
    stage
        .app("INSERT INTO desk.ticket VALUES (1, 'T-1', 'open')")
        .await;
    stage.sql("ALTER TABLE desk.ticket ENABLE TRIGGER USER").await;
    let (one, two) = (foreign(&stage, "T-1").await, foreign(&stage, "T-1").await);
    stage.app("UPDATE desk.ticket SET state = 'closed'").await;
    stage
        .wait_value("SELECT category FROM hubsyncd.failure", "ambiguous")
        .await;
    daemon.settled().await;
    let world = stage.sandbox.world();
    assert_eq!(world.records(TICKETS).count(), 2);
    for id in [one, two] {
        assert_eq!(world.record(TICKETS, &id).unwrap().get("state"), Some("theirs"));
    }
    assert_eq!(world.count(Endpoint::Create) + world.count(Endpoint::Update), 0);
}

#[tokio::test]
async fn pitfall_4_12_a_row_that_no_insert_named_is_searched_for_and_its_record_taken_over() {
    let stage = tickets("guard_search", "overwrite", true).await;
    let _daemon = stage.start().await;
    stage.sql("ALTER TABLE desk.ticket DISABLE TRIGGER USER").await;
    stage
        .app("INSERT INTO desk.ticket VALUES (1, 'Ticket-ONE', 'open'), (2, 'T-2', 'open')")
        .await;
    stage.sql("ALTER TABLE desk.ticket ENABLE TRIGGER USER").await;
    let known = foreign(&stage, "Ticket-ONE").await;
    stage.app("UPDATE desk.ticket SET state = 'closed'").await;
    wait_in_step(&stage, DEADLINE).await;
    stage
        .wait_value("SELECT hubspot_id FROM desk.ticket WHERE id = 1", &known)
        .await;
    let world = stage.sandbox.world();
    assert_eq!(world.records(TICKETS).count(), 2);
    let creates: usize = world
        .requests()
        .filter(|request| request.endpoint == Endpoint::Create)
        .map(|request| request.inputs)
        .sum();
    assert_eq!(creates, 1, "only what is not there");
}

#[tokio::test]
async fn a_row_whose_record_another_row_holds_is_a_failure_that_names_it() {
    let stage = tickets("guard_owner", "overwrite", false).await;
    let daemon = stage.start().await;
    stage
        .app("INSERT INTO desk.ticket VALUES (1, 'T-1', 'mine')")
        .await;
    wait_in_step(&stage, DEADLINE).await;
    stage.sandbox.advance(LAG);
    stage
        .app("INSERT INTO desk.ticket VALUES (2, 'T-1', 'yours')")
        .await;
    stage
        .wait_value("SELECT key || ' ' || category FROM hubsyncd.failure", "2 owner")
        .await;
    let names = "SELECT message LIKE '%row 1%' FROM hubsyncd.failure";
    assert_eq!(stage.value(names).await.as_deref(), Some("t"));
    daemon.settled().await;
    let world = stage.sandbox.world();
    assert_eq!(world.records(TICKETS).count(), 1);
    assert_eq!(with_ref(&world, "T-1")[0].get("state"), Some("mine"));
}

#[tokio::test]
async fn what_may_be_taken_over_is_as_the_mapping_says_where_the_key_is_not_unique_too() {
    for (adopt, category) in [("fail", Some("adopt")), ("update-only", None)] {
        let stage = tickets(&format!("guard_{}", &adopt[..4]), adopt, true).await;
        let known = foreign(&stage, "T-1").await;
        let daemon = stage.start().await;
        stage
            .app("INSERT INTO desk.ticket VALUES (1, 'T-1', 'open')")
            .await;
        if let Some(category) = category {
            stage
                .wait_value("SELECT category FROM hubsyncd.failure", category)
                .await;
            daemon.settled().await;
        } else {
            wait_in_step(&stage, DEADLINE).await;
        }
        let world = stage.sandbox.world();
        assert_eq!(world.records(TICKETS).count(), 1);
        let expected = if category.is_some() { "theirs" } else { "open" };
        assert_eq!(
            world.record(TICKETS, &known).unwrap().get("state"),
            Some(expected)
        );
    }
}

#[tokio::test]
async fn a_take_over_for_updates_only_sends_no_more_after_a_locked_receipt() {
    let toml = format!(
        "{QUICK}{HUBSPOT}[[object]]\nname = \"contacts\"\ntable = \"hubspot_sync.hubspot_contact_credits\"\ntype = \"0-1\"\n\
         match-on = \"email\"\nadopt = \"update-only\"\n[object.properties]\n\
         email = {{ column = \"email\", on = \"create\" }}\nfirstname = {{ column = \"firstname\", on = \"create\" }}\n\
         sj_credits = {{ column = \"sj_credits\", null = \"0\" }}\n"
    );
    let stage = Stage::with("only_locked", Settings::default(), &toml).await;
    let known = stage
        .sandbox
        .world()
        .create(CONTACTS, [("email", "anna@example.com"), ("firstname", "Old")]);
    let _daemon = stage.start().await;
    let hold = stage.sandbox.hold(Endpoint::Update, When::After);
    stage
        .app(
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, firstname, sj_credits)
             VALUES ('s1', 'anna@example.com', 'New', 3)",
        )
        .await;
    assert!(hold.reached(DEADLINE).await);
    // The application holds the row while the receipt wants it, and changes it: named as new, since it has no id.
    let holder = stage.database.session_as("app").await;
    holder
        .batch_execute(
            "BEGIN; UPDATE hubspot_sync.hubspot_contact_credits SET firstname = 'Newer', sj_credits = 4",
        )
        .await
        .unwrap();
    let updates = stage.sandbox.world().count(Endpoint::Update);
    hold.release();
    stage
        .wait_world("the locked row is pushed again", |world| {
            world.count(Endpoint::Update) > updates
        })
        .await;
    holder.batch_execute("COMMIT").await.unwrap();
    wait_contacts_in_step(&stage).await;
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.intent", "0")
        .await;
    let world = stage.sandbox.world();
    let contact = world.record(CONTACTS, &known).unwrap();
    assert_eq!(
        (contact.get("firstname"), contact.get("sj_credits")),
        (Some("Old"), Some("4"))
    );
}
