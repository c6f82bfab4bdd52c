//! `explain`: one record's whole story, whatever has become of it, asked of both ends without the daemon.

use super::support::daemon::{BOOKINGS, CONTACTS, QUICK, Stage};
use hubsyncd::sandbox::{Fault, Settings};
use serde_json::{Value, json};

const TABLE: &str = "hubspot_sync.hubspot_contact_credits";

/// Exit code, stdout and stderr of the verb.
fn run(stage: &Stage, arguments: &[&str]) -> (i32, String, String) {
    let output = stage
        .command("explain")
        .arg("explain")
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

/// The story of a row as JSON; told in words it must succeed too.
fn explain(stage: &Stage, object: &str, key: &str) -> Value {
    let (code, said, complained) = run(stage, &[object, key, "--json"]);
    assert_eq!(code, 0, "{complained}");
    let (code, words, complained) = run(stage, &[object, key]);
    assert_eq!(code, 0, "{complained}");
    let story: Value = serde_json::from_str(&said).unwrap();
    for sentence in story["next"].as_array().unwrap() {
        assert!(words.contains(sentence.as_str().unwrap()), "{words}");
    }
    story
}

/// Whether one of the sentences on what happens next holds these words.
fn says(story: &Value, words: &str) -> bool {
    let next = story["next"].as_array().unwrap();
    next.iter()
        .any(|sentence| sentence.as_str().unwrap().contains(words))
}

async fn key_of(stage: &Stage, student: &str) -> String {
    let sql = format!("SELECT id FROM {TABLE} WHERE student_id = '{student}'");
    stage.value(&sql).await.unwrap()
}

#[tokio::test]
async fn a_record_in_step_and_one_typed_over_are_told_apart() {
    let stage = Stage::new("story").await;
    let id = stage.known_contact("ana").await;
    let key = key_of(&stage, "ana").await;
    let daemon = stage.start().await;
    stage.wait_drained().await;
    let story = explain(&stage, "contacts", &key);
    assert_eq!(
        (&story["place"], &story["payload"]["does"]),
        (&json!("there"), &json!("update")),
        "{story:#}"
    );
    assert_eq!(
        (&story["row"]["hubspot_id"], &story["hubspot"]["id"]),
        (&json!(id), &json!(id))
    );
    assert_eq!(story["payload"]["properties"]["sj_credits"], "0");
    assert_eq!(
        story["hubspot"]["properties"]["email"], "ana@example.com",
        "values are what it is for"
    );
    assert_eq!(
        (&story["differing"], &story["failures"]),
        (&json!([]), &json!([])),
        "{story:#}"
    );
    assert!(
        says(&story, "no change of it waits") && says(&story, "what it holds already"),
        "{story:#}"
    );
    assert!(!says(&story, "until a daemon runs"), "{story:#}");

    stage.sandbox.world().set(CONTACTS, &id, "sj_credits", "9");
    let story = explain(&stage, "contacts", &key);
    assert_eq!(story["differing"], json!(["sj_credits"]));
    assert!(
        says(&story, &format!("puts sj_credits of record {id} right")),
        "{story:#}"
    );

    assert_eq!(daemon.stop().await, Some(0));
    stage.app(&format!("UPDATE {TABLE} SET sj_credits = 3")).await;
    let story = explain(&stage, "contacts", &key);
    assert_eq!(story["waiting"][0]["op"], "U", "{story:#}");
    assert!(
        says(&story, "nothing happens until a daemon runs") && says(&story, "a change of it waits"),
        "{story:#}"
    );
    assert_eq!(story["payload"]["properties"]["sj_credits"], "3");
    let writes = stage
        .sandbox
        .world()
        .requests()
        .map(|request| request.writes.len())
        .sum::<usize>();
    assert_eq!(writes, 1, "only what the daemon pushed");
}

#[tokio::test]
async fn what_becomes_of_a_row_without_a_record_is_foretold() {
    let stage = Stage::new("foretold").await;
    for student in ["new", "old", "owned"] {
        stage
            .app(&format!(
                "INSERT INTO {TABLE} (student_id, email) VALUES ('{student}', '{student}@example.com')"
            ))
            .await;
    }
    let old = stage
        .sandbox
        .world()
        .create(CONTACTS, [("email", "old@example.com")]);
    let owned = stage
        .sandbox
        .world()
        .create(CONTACTS, [("email", "owned@example.com")]);
    stage
        .app(&format!(
            "INSERT INTO {TABLE} (student_id, email, hubspot_id) VALUES ('owner', 'x@example.com', '{owned}')"
        ))
        .await;
    let story = explain(&stage, "contacts", &key_of(&stage, "new").await);
    assert_eq!(
        (&story["payload"]["does"], &story["hubspot"]),
        (&json!("create"), &Value::Null),
        "{story:#}"
    );
    assert_eq!(story["payload"]["properties"]["email"], "new@example.com");
    assert!(
        says(&story, "makes a record, to be found again by its email"),
        "{story:#}"
    );
    let story = explain(&stage, "contacts", &key_of(&stage, "old").await);
    assert_eq!(
        (&story["payload"]["does"], &story["payload"]["to"]),
        (&json!("adopt"), &json!(old)),
        "{story:#}"
    );
    let story = explain(&stage, "contacts", &key_of(&stage, "owned").await);
    assert_eq!(story["payload"]["does"], "refuse", "{story:#}");
    let owner = key_of(&stage, "owner").await;
    assert!(says(&story, &format!("belongs to row {owner}")), "{story:#}");
    let exam = stage
        .value("INSERT INTO hubspot_sync.hubspot_mock_exams (hubspot_id) VALUES (' ') RETURNING id")
        .await;
    let story = explain(&stage, "mock_exams", &exam.unwrap());
    assert!(says(&story, "never created here"), "{story:#}");
    let _daemon = stage.start().await;
    let failed = "SELECT count(*) FROM hubsyncd.failure";
    stage.wait_value(failed, "1").await;
    let sql = format!("SELECT hubspot_id FROM {TABLE} WHERE student_id = 'old'");
    assert_eq!(stage.value(&sql).await, Some(old), "as foretold");
    let story = explain(&stage, "contacts", &key_of(&stage, "owned").await);
    assert_eq!(
        (&story["failures"][0]["category"], &story["waiting"]),
        (&json!("owner"), &json!([])),
        "{story:#}"
    );
    assert!(says(&story, "hubsyncd failures retry contacts"), "{story:#}");
}

#[tokio::test]
async fn a_refused_record_is_told_with_hubspots_reason_and_its_links() {
    let stage = Stage::new("refused_story").await;
    let contact = stage.known_contact("bo").await;
    let exam = stage.known_exam().await;
    stage
        .sandbox
        .refuse_association(BOOKINGS, CONTACTS, &contact, None);
    stage
        .app(&format!(
            "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, student_id, student_email)
             VALUES ('b1', '{exam}', 'bo', 'bo@example.com')"
        ))
        .await;
    let _daemon = stage.start().await;
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.failure", "1")
        .await;
    let key = stage
        .value("SELECT id FROM hubspot_sync.hubspot_bookings")
        .await
        .unwrap();
    let story = explain(&stage, "bookings", &key);
    assert_eq!(story["failures"][0]["category"], "link", "{story:#}");
    let links = story["links"].as_array().unwrap();
    assert_eq!(
        (&links[0]["target"], &links[0]["held"]),
        (&json!(contact), &json!([])),
        "{story:#}"
    );
    assert_eq!(
        (&links[0]["make"], &links[1]["make"]),
        (&json!(contact), &Value::Null),
        "{story:#}"
    );
    assert_eq!(
        (&links[1]["held"], &links[1]["remembered"][&exam]),
        (&json!([exam]), &json!("made")),
        "{story:#}"
    );
    assert!(
        says(&story, &format!("then it is linked with {contact} (contacts)")),
        "{story:#}"
    );
}

#[tokio::test]
async fn rows_that_are_gone_outside_or_whose_record_is_gone_have_a_story_too() {
    let mut stage = Stage::with("gone_story", Settings::default(), QUICK).await;
    let id = stage.known_contact("cy").await;
    let key = key_of(&stage, "cy").await;
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.change", "1")
        .await;
    stage.sandbox.world().archive(CONTACTS, &id);
    let story = explain(&stage, "contacts", &key);
    assert_eq!(
        (&story["payload"]["does"], &story["hubspot"]),
        (&json!("refuse"), &Value::Null),
        "{story:#}"
    );
    assert!(says(&story, "is gone and on-missing"), "{story:#}");

    stage.app(&format!("DELETE FROM {TABLE}")).await;
    let story = explain(&stage, "contacts", &key);
    assert_eq!(
        (&story["place"], &story["row"], &story["payload"]),
        (&json!("gone"), &Value::Null, &Value::Null)
    );
    assert!(
        says(&story, &format!("its HubSpot record {id} stays as it is")),
        "{story:#}"
    );
    let nobody = "00000000-0000-4000-8000-000000000000";
    assert!(says(&explain(&stage, "contacts", nobody), "no such row here"));

    let out = stage.known_contact("dee").await;
    stage.toml = format!(
        "{QUICK}[[object]]\nname = \"people\"\ntable = \"{TABLE}\"\ntype = \"0-1\"\nmatch-on = \"email\"\n\
         where = \"sj_credits > 5\"\non-delete = \"archive\"\n[object.properties]\nemail = \"email\"\n"
    );
    stage.setup().await;
    let key = key_of(&stage, "dee").await;
    let story = explain(&stage, "people", &key);
    assert_eq!(
        (&story["place"], &story["row"]["hubspot_id"]),
        (&json!("outside"), &json!(out)),
        "{story:#}"
    );
    assert!(says(&story, "outside the object's `where`"), "{story:#}");
    assert_eq!(
        story["hubspot"]["id"],
        json!(out),
        "what HubSpot holds of it is shown"
    );
    stage.app(&format!("DELETE FROM {TABLE}")).await;
    let story = explain(&stage, "people", &key);
    assert!(
        says(
            &story,
            &format!("record {out} is archived, unless another row holds it")
        ),
        "{story:#}"
    );
    assert_eq!(story["hubspot"]["properties"]["email"], "dee@example.com");
}

#[tokio::test]
async fn a_row_that_postgres_cannot_read_has_a_story_without_its_values() {
    let mut stage = Stage::without_setup("unreadable_story", Settings::default(), QUICK).await;
    let id = stage.known_contact("fay").await;
    stage.toml = format!(
        "{QUICK}[[object]]\nname = \"people\"\ntable = \"{TABLE}\"\ntype = \"0-1\"\nmatch-on = \"email\"\n\
         where = \"student_id::int > 5\"\n[object.properties]\nemail = \"email\"\n"
    );
    stage.setup().await;
    let key = key_of(&stage, "fay").await;
    let story = explain(&stage, "people", &key);
    assert_eq!(
        (
            &story["place"],
            &story["row"]["hubspot_id"],
            &story["hubspot"]["id"]
        ),
        (&json!("unreadable"), &json!(id), &json!(id)),
        "{story:#}"
    );
    assert!(
        says(
            &story,
            "no push can send it: Postgres fails to read this row (SQLSTATE 22P02)"
        ),
        "{story:#}"
    );
    assert!(!story["next"].to_string().contains("fay"), "{story:#}");
}

#[tokio::test]
async fn without_hubspot_the_rest_is_told() {
    let stage = Stage::new("silent_story").await;
    stage.known_contact("eve").await;
    let key = key_of(&stage, "eve").await;
    stage.sandbox.fault(Fault::status(401).always());
    let story = explain(&stage, "contacts", &key);
    assert!(
        story["hubspot_silent"].as_str().unwrap().contains("401"),
        "{story:#}"
    );
    assert_eq!(
        (&story["payload"]["does"], &story["hubspot"]),
        (&json!("unknown"), &Value::Null)
    );
    assert_eq!(story["payload"]["properties"]["sj_credits"], "0");
    assert!(
        says(&story, "cannot be told while HubSpot cannot be asked"),
        "{story:#}"
    );
}

#[tokio::test]
async fn what_is_no_object_and_what_is_no_key_is_a_usage_error_with_a_hint() {
    let stage = Stage::new("no_story").await;
    let (code, said, complained) = run(&stage, &["contact", "1"]);
    assert_eq!((code, said.as_str()), (64, ""), "{complained}");
    assert!(complained.contains("did you mean `contacts`?"), "{complained}");
    let (code, _, complained) = run(&stage, &["unlike", "1"]);
    assert_eq!(code, 64);
    assert!(
        complained.contains("contacts, bookings, mock_exams"),
        "{complained}"
    );
    let (code, said, complained) = run(&stage, &["contacts", "17", "--json"]);
    assert_eq!((code, said.as_str()), (64, ""), "{complained}");
    assert!(
        complained.contains("cannot be a key") && complained.contains("is uuid"),
        "{complained}"
    );
    let upper = "00000000-0000-4000-8000-00000000000A";
    assert_eq!(explain(&stage, "contacts", upper)["key"], upper.to_lowercase());
}
