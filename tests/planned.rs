//! `plan`: what a sweep would do, asked by reads alone, and then done by a sweep.

use super::support::daemon::{BOOKINGS, CONTACTS, QUICK, Stage};
use hubsyncd::sandbox::{Endpoint, Fault, Property, Settings};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;

const TABLE: &str = "hubspot_sync.hubspot_contact_credits";

/// As fast as the sandbox is.
const FAST: &str = "[hubspot]\nrequests = 10000\n";

/// Exit code, stdout and stderr of the verb.
fn run(stage: &Stage, arguments: &[&str]) -> (i32, String, String) {
    let output = stage
        .command("plan")
        .arg("plan")
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The plan, which has written nothing to either side.
async fn plan(stage: &Stage) -> Value {
    let written = |stage: &Stage| {
        let world = stage.sandbox.world();
        world
            .requests()
            .map(|request| request.writes.len())
            .sum::<usize>()
    };
    let remembered = "SELECT concat_ws(' ', (SELECT count(*) FROM hubsyncd.intent), (SELECT count(*) FROM hubsyncd.link),
        (SELECT count(*) FROM hubsyncd.failure), (SELECT count(*) FROM hubsyncd.change), (SELECT count(*) FROM hubsyncd.run),
        (SELECT generation FROM hubsyncd.lease), (SELECT sum(xmin::text::bigint) FROM hubspot_sync.hubspot_bookings))";
    let (before, first) = (
        stage.value(remembered).await,
        stage.sandbox.world().count(Endpoint::Any),
    );
    let ours = written(stage);
    let (code, said, complained) = run(stage, &["--json"]);
    assert_eq!(code, 0, "{complained}");
    let plan: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (stage.value(remembered).await, written(stage)),
        (before, ours),
        "it wrote something"
    );
    let world = stage.sandbox.world();
    let asked: Vec<_> = world
        .requests()
        .filter(|request| request.number >= first)
        .collect();
    assert_eq!(plan["asked"], asked.len(), "{plan:#}");
    for request in asked {
        let reads = [
            Endpoint::Read,
            Endpoint::Search,
            Endpoint::AssociationRead,
            Endpoint::Labels,
            Endpoint::Properties,
            Endpoint::Account,
        ];
        assert!(reads.contains(&request.endpoint), "{request:?}");
    }
    plan
}

/// Some counts of one object.
fn counts<const N: usize>(plan: &Value, object: &str, names: [&str; N]) -> [u64; N] {
    let objects = plan["objects"].as_array().unwrap();
    let of = objects.iter().find(|planned| planned["name"] == object).unwrap();
    names.map(|name| of[name].as_u64().unwrap_or_else(|| panic!("{name}: {of:#}")))
}

#[tokio::test]
async fn a_sweep_does_what_was_planned() {
    let stage = Stage::new("planned").await;
    for student in ["same", "typed_over", "gone"] {
        stage.known_contact(student).await;
    }
    stage
        .app(&format!(
            "INSERT INTO {TABLE} (student_id, email) VALUES ('again', 'Twice@example.com')"
        ))
        .await;
    let exam = stage.known_exam().await;
    for student in ["new", "newer", "there", "owned", "twice"] {
        stage
            .app(&format!(
                "INSERT INTO {TABLE} (student_id, email) VALUES ('{student}', '{student}@example.com')"
            ))
            .await;
    }
    for student in ["same", "typed_over"] {
        stage
            .app(&format!(
                "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, student_id, student_email)
                 VALUES ('{student}', '{exam}', '{student}', '{student}@example.com')"
            ))
            .await;
    }
    stage
        .sql("INSERT INTO hubspot_sync.hubspot_mock_exams (hubspot_id) VALUES ('')")
        .await;
    {
        let mut world = stage.sandbox.world();
        world.create(CONTACTS, [("email", "there@example.com")]);
        let credits = [
            "sj_credits",
            "cs_credits",
            "sjmini_credits",
            "mock_discussion_token",
            "shared_mock_credits",
        ];
        let ids: Vec<(String, String)> = world
            .records(CONTACTS)
            .map(|record| (record.id(), record.get("email").unwrap_or_default().to_owned()))
            .collect();
        for (id, email) in ids {
            for name in credits {
                world.set(CONTACTS, &id, name, "0");
            }
            match email.as_str() {
                "typed_over@example.com" => world.set(CONTACTS, &id, "sj_credits", "7"),
                "gone@example.com" => assert!(world.archive(CONTACTS, &id)),
                _ => {}
            }
        }
    }
    let owned = stage
        .sandbox
        .world()
        .create(CONTACTS, [("email", "owned@example.com")]);
    stage
        .app(&format!(
            "INSERT INTO {TABLE} (student_id, email, hubspot_id) VALUES ('owner', 'x@example.com', '{owned}')"
        ))
        .await;
    // The sweep alone shall push them.
    stage.sql("TRUNCATE hubsyncd.change").await;

    let planned = plan(&stage).await;
    let names = ["rows", "create", "adopt", "update", "differing", "refuse"];
    assert_eq!(
        counts(&planned, "contacts", names),
        [10, 3, 1, 3, 2, 3],
        "{planned:#}"
    );
    assert_eq!(
        counts(&planned, "bookings", ["create", "link", "refuse"]),
        [2, 4, 0],
        "{planned:#}"
    );
    assert_eq!(
        counts(&planned, "mock_exams", ["update", "leave"]),
        [1, 1],
        "{planned:#}"
    );
    let of_contacts = &planned["objects"][0];
    assert_eq!(
        of_contacts["refusals"],
        json!({"missing": 1, "owner": 2}),
        "{planned:#}"
    );
    let (code, words, _) = run(&stage, &[]);
    assert_eq!(code, 0);
    assert!(
        words.contains("refused  contacts ") && words.contains("wrote nothing"),
        "{words}"
    );
    assert!(!words.contains("example.com"), "{words}");

    let daemon = stage.start().await;
    let before = stage.sandbox.world().count(Endpoint::Any);
    let run = daemon.sweep().await;
    stage.wait_drained().await;
    let sent = stage.sandbox.world().count(Endpoint::Any) - before;
    assert_eq!(
        run["summary"],
        json!({"contacts": {"created": 4, "updated": 3, "failed": 3}, "bookings": {"created": 2, "updated": 0, "failed": 0},
               "mock_exams": {"created": 0, "updated": 1, "failed": 0}}),
        "{run:#}"
    );
    println!("{} requests were foretold, {sent} sent", planned["requests"]);
    let foretold = planned["requests"].as_u64().unwrap();
    assert!(
        foretold.abs_diff(sent) <= 4,
        "{foretold} requests were foretold, {sent} sent"
    );

    let after = plan(&stage).await;
    assert_eq!(
        counts(&after, "contacts", names),
        [10, 0, 0, 7, 0, 3],
        "{after:#}"
    );
    assert_eq!(counts(&after, "contacts", ["refused_before"]), [3]);
    assert_eq!(
        counts(&after, "bookings", ["update", "differing", "link", "unlink"]),
        [2, 0, 0, 0],
        "{after:#}"
    );

    assert_eq!(daemon.stop().await, Some(0));
    stage.known_contact("other").await;
    stage
        .app(
            "UPDATE hubspot_sync.hubspot_bookings SET student_id = 'other', student_email = 'other@example.com' \
             WHERE booking_id = 'same'",
        )
        .await;
    let moved = plan(&stage).await;
    assert_eq!(
        counts(&moved, "bookings", ["update", "link", "unlink"]),
        [2, 1, 1],
        "{moved:#}"
    );
}

#[tokio::test]
async fn a_key_that_is_not_unique_in_hubspot_is_searched_for() {
    let stage = Stage::new("searched").await;
    {
        let mut world = stage.sandbox.world();
        world.remove_property(BOOKINGS, "booking_id");
        world.add_property(BOOKINGS, Property::string("booking_id"));
        world.create(BOOKINGS, [("booking_id", "one")]);
        world.create(BOOKINGS, [("booking_id", "two")]);
        world.create(BOOKINGS, [("booking_id", "two")]);
    }
    for booking in ["none", "one", "two"] {
        stage
            .app(&format!(
                "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, student_id, student_email)
                 VALUES ('{booking}', '1', 's', 's@example.com')"
            ))
            .await;
    }
    let planned = plan(&stage).await;
    assert_eq!(
        counts(&planned, "bookings", ["create", "adopt", "refuse", "searches"]),
        [1, 1, 1, 1],
        "{planned:#}"
    );
    assert_eq!(planned["objects"][1]["refusals"], json!({"ambiguous": 1}));
}

#[tokio::test]
async fn rows_that_cannot_be_read_are_counted_and_hold_up_nobody() {
    let toml = format!(
        "{QUICK}[[object]]\nname = \"shares\"\ntable = \"{TABLE}\"\nfrom = \"hubspot_sync.shares\"\nwatch = [\"sj_credits\"]\n\
         type = \"0-1\"\nmatch-on = \"email\"\n[object.properties]\nemail = {{ column = \"email\", on = \"create\" }}\n\
         sj_credits = \"share\"\n"
    );
    let stage = Stage::without_setup("unreadable", Settings::default(), &toml).await;
    stage
        .sql(&format!(
            "CREATE VIEW hubspot_sync.shares WITH (security_invoker) AS SELECT id, email, hubspot_id, 12 / sj_credits AS share \
             FROM {TABLE}; GRANT SELECT ON hubspot_sync.shares TO hubsyncd;
             INSERT INTO {TABLE} (student_id, email, sj_credits) SELECT n::text, n || '@example.com', n % 10 FROM \
             generate_series(1, 30) AS n"
        ))
        .await;
    stage.setup().await;
    let planned = plan(&stage).await;
    assert_eq!(
        counts(&planned, "shares", ["rows", "create", "refuse"]),
        [30, 27, 3],
        "{planned:#}"
    );
    assert_eq!(planned["objects"][0]["refusals"], json!({"read": 3}));
}

/// The most memory that a plan of the stage's rows has taken, in KiB.
async fn peak(stage: &Stage) -> u64 {
    let mut child = stage
        .command("plan")
        .args(["plan", "--json"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(kib.unwrap_or_default());
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success());
            return peak;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn memory_does_not_grow_with_the_table() {
    let stage = Stage::with("large", Settings::default(), &format!("{QUICK}{FAST}")).await;
    let rows = async |from: u32, to: u32| {
        let sql = format!(
            "INSERT INTO {TABLE} (student_id, email, firstname) SELECT n::text, n || '@example.com', repeat('x', 1000) \
             FROM generate_series({from}, {to}) AS n; TRUNCATE hubsyncd.change"
        );
        stage.sql(&sql).await;
    };
    rows(1, 2_000).await;
    let small = peak(&stage).await;
    rows(2_001, 20_000).await;
    let large = peak(&stage).await;
    assert!(
        small > 1_000 && large < small + 8_000,
        "{small} KiB for 2,000 rows, {large} KiB for 20,000"
    );
}

#[tokio::test]
async fn what_keeps_a_plan_from_being_made_is_told_with_its_exit_code() {
    let mut stage = Stage::new("unplanned").await;
    stage.sandbox.fault(Fault::status(401).always());
    let (code, said, complained) = run(&stage, &["--json"]);
    assert_eq!((code, said.as_str()), (77, ""), "{complained}");
    assert!(
        complained.contains("hint: HubSpot refuses the token"),
        "{complained}"
    );
    stage.sandbox.clear_faults();
    stage.sql("DROP SCHEMA hubsyncd CASCADE").await;
    assert_eq!(run(&stage, &[]).0, 78);
    stage.set(
        "DATABASE_URL",
        "postgres://hubsyncd@127.0.0.1:9/x?sslmode=disable",
    );
    let (code, _, complained) = run(&stage, &[]);
    assert_eq!(code, 69, "{complained}");
}
