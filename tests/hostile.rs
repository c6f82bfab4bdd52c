//! Bad input from the database's side: notifications with garbage, hostile rows, nonsense in the audit log. No panic, no
//! neighbour harmed, and no value of a row in anything that is written for people or machines to read.

use crate::support::daemon::{CONTACTS, Daemon, QUICK, Stage};
use hubsyncd::sandbox::{Property, Settings};
use std::fmt::Write;

const THINGS: &str = "2-70003";

/// Stands in every value that must not be told to anybody but HubSpot.
const PLANTED: &str = "pLaNtEd";

/// As quick as others, and no pause for the rate while a batch is halved down to its bad records.
const FAST: &str = "[hubspot]\nrequests = 10000\n[batch]\nmax-delay = \"30ms\"\n[sweep]\non-start = false\n";

/// Everything the daemon has said and written so far, to people and to its own tables.
async fn everything_said(stage: &Stage, daemon: &Daemon) -> String {
    let mut said = daemon.log();
    for path in ["/failures", "/metrics", "/status", "/runs", "/health"] {
        said.push_str(&daemon.get(path).await.1);
    }
    for table in ["failure", "intent", "run", "link", "change"] {
        let rows = format!("SELECT string_agg(t::text, ' ') FROM hubsyncd.{table} AS t");
        said.push_str(&stage.value(&rows).await.unwrap_or_default());
    }
    said
}

/// Neither a planted value nor an address of a student nor a panic is in what was said.
async fn assert_discreet(stage: &Stage, daemon: &Daemon) {
    let said = everything_said(stage, daemon).await.to_lowercase();
    for secret in [PLANTED.to_lowercase().as_str(), "@example.com", "@nowhere"] {
        let at = said.find(secret);
        let around = at.map(|at| said[..at].chars().rev().take(300).collect::<String>());
        let around = around.map(|around| around.chars().rev().collect::<String>());
        assert_eq!(around, None, "{secret} was told, after this");
    }
    assert!(!said.contains("panicked"));
}

async fn failures(daemon: &Daemon) -> Vec<serde_json::Value> {
    let (status, body) = daemon.get("/failures").await;
    assert_eq!(status, 200, "{body}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    body["failures"].as_array().unwrap().clone()
}

#[tokio::test]
async fn pitfall_3_11_notifications_with_garbage_and_floods_of_them_wake_and_harm_nobody() {
    let stage = Stage::with("garbage", Settings::default(), QUICK).await;
    let contact = stage.known_contact("s1").await;
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.change", "1")
        .await;
    let daemon = stage.start().await;
    let garbage = [
        String::new(),
        "{\"op\":\"DROP\"".to_owned(),
        "'; DROP TABLE hubspot_sync.hubspot_bookings; --".replace('\'', "''"),
        "\u{1f4a5}\n\r\t\u{7f}".to_owned(),
        "echo 00000000-0000-0000-0000-000000000000".to_owned(),
        PLANTED.repeat(1_128),
    ];
    for text in &garbage {
        stage.sql(&format!("NOTIFY hubsyncd, E'{text}'")).await;
    }
    // Twenty thousand in one transaction, and some hundred in transactions of their own while changes come.
    stage
        .sql("SELECT pg_notify('hubsyncd', i || repeat('x', 500)) FROM generate_series(1, 20000) AS i")
        .await;
    let flooding = stage.database.session().await;
    let flood = tokio::spawn(async move {
        for _ in 0..500 {
            flooding.batch_execute("NOTIFY hubsyncd, 'again'").await.unwrap();
        }
    });
    for credits in 1..=5_u32 {
        let text = credits.to_string();
        stage
            .app(&format!(
                "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = {credits}"
            ))
            .await;
        stage
            .wait_world("the change arrives in the flood", |world| {
                world
                    .record(CONTACTS, &contact)
                    .and_then(|record| record.get("sj_credits"))
                    == Some(&text)
            })
            .await;
    }
    flood.await.unwrap();
    daemon.settled().await;
    assert_eq!(daemon.get("/livez").await.0, 200);
    assert_discreet(&stage, &daemon).await;
    assert_eq!(daemon.stop().await, Some(0));
}

/// Names that HubSpot takes as they are.
fn odd_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "O'Hara \"the\" `x`",
        "'; DROP TABLE hubspot_sync.hubspot_bookings; --",
        "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} \u{202e}rtl",
        "\"},{\"id\":\"1\"",
        "\\u0041 \\ \\\\ %s {} ${x}",
        "a\tb\nc\r\nd",
        "NULL",
    ]
    .map(|name| format!("{name} {PLANTED}"))
    .into();
    names.push(format!("{PLANTED}{}", "x".repeat(65_536 - PLANTED.len())));
    names.push(format!("{PLANTED}{}", "ü".repeat(32_000)));
    names
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[tokio::test]
async fn pitfall_3_03_hostile_texts_arrive_as_they_are_and_what_hubspot_refuses_is_refused_alone() {
    let stage = Stage::with("hostile", Settings::default(), FAST).await;
    let daemon = stage.start().await;
    // Student (and local part of the address), first name, HubSpot id.
    let row = |student: &str, name: &str, id: Option<&str>| {
        let email = format!("{student}@example.com");
        [
            Some(student.to_owned()),
            Some(email),
            Some(name.to_owned()),
            id.map(str::to_owned),
        ]
    };
    let mut rows: Vec<[Option<String>; 4]> = Vec::new();
    for (at, name) in odd_names().iter().enumerate() {
        rows.push(row(&format!("odd{at}"), name, None));
    }
    rows.push(row("blank0", "counts as no id", Some("")));
    rows.push(row("blank1", "counts as no id", Some("  ")));
    rows.extend((0..20).map(|at| row(&format!("neighbour{at}"), "n", None)));
    let good = rows.len();
    rows.push(row("long", &format!("{PLANTED}{}", "y".repeat(70_000)), None));
    for (student, email) in [
        ("mail0", format!("{PLANTED} is no address")),
        ("mail1", "two@@nowhere, three@nowhere".to_owned()),
    ] {
        let mut refused = row(student, "m", None);
        refused[1] = Some(email);
        rows.push(refused);
    }
    let ids = [
        "no number",
        "99999999999999999999999999",
        "1\"}]}",
        "..",
        "1/../2",
        "\t",
        "\u{661}\u{662}",
        "-1",
        "1e3",
    ];
    for (at, id) in ids.into_iter().enumerate() {
        rows.push(row(&format!("id{at}"), "i", Some(id)));
    }
    let bad = rows.len() - good;
    let mut sql =
        "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, firstname, hubspot_id) VALUES "
            .to_owned();
    for (at, row) in rows.iter().enumerate() {
        let values = row
            .each_ref()
            .map(|value| value.as_deref().map_or("NULL".to_owned(), quoted));
        write!(sql, "{}({})", if at == 0 { "" } else { ", " }, values.join(", ")).unwrap();
    }
    stage.app(&sql).await;
    stage.wait_drained().await;
    daemon.settled().await;
    {
        let world = stage.sandbox.world();
        assert_eq!(world.records(CONTACTS).count(), good);
        for row in &rows[..good] {
            let [student, _, name, _] = row.each_ref().map(|value| value.as_deref().unwrap_or_default());
            let record = world
                .find(CONTACTS, "student_id", student)
                .unwrap_or_else(|| panic!("{student}"));
            assert!(
                record.get("firstname") == Some(name),
                "{student} has the wrong name"
            );
        }
    }
    let listed = failures(&daemon).await;
    assert_eq!(listed.len(), bad, "{listed:#?}");
    let told = |property: &str| {
        let tells = |row: &&serde_json::Value| row["message"].as_str().unwrap().contains(property);
        listed.iter().filter(tells).count()
    };
    assert_eq!((told("firstname"), told("email")), (1, 2), "{listed:#?}");
    let ids =
        "SELECT count(*) FROM hubspot_sync.hubspot_contact_credits WHERE hubspot_id ~ '^[0-9]{6,20}$' AND
        hubspot_last_sync_at IS NOT NULL";
    assert_eq!(stage.value(ids).await, Some(good.to_string()));
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "complete", "{run}");
    assert_eq!(run["summary"]["contacts"]["updated"], good, "{run}");
    assert_eq!(run["summary"]["contacts"]["failed"], bad, "{run}");
    assert_discreet(&stage, &daemon).await;
    assert_eq!(daemon.stop().await, Some(0));
}

const THING_TABLE: &str = r#"
CREATE TABLE public.thing (k text PRIMARY KEY, label text NOT NULL UNIQUE, amount text, ratio float8, at timestamptz,
  moment timestamp, day date, hubspot_id text, hubspot_last_sync_at timestamptz);
GRANT SELECT, INSERT, UPDATE, DELETE ON public.thing TO app;
GRANT SELECT, UPDATE (hubspot_id, hubspot_last_sync_at) ON public.thing TO hubsyncd;
"#;

const THING_MAPPING: &str = r#"
[[object]]
name = "things"
table = "public.thing"
type = "2-70003"
key = "k"
match-on = "label"
[object.properties]
label = { column = "label", on = "create" }
amount = { column = "amount", null = "omit" }
ratio = { column = "ratio", null = "omit" }
at = { column = "at", null = "omit" }
moment = { column = "moment", null = "omit" }
day = { column = "day", null = "omit" }
"#;

/// A stage with a table whose key is any text.
pub async fn things(hint: &str) -> Stage {
    let stage = Stage::without_setup(hint, Settings::default(), &format!("{FAST}{THING_MAPPING}")).await;
    stage.sql(THING_TABLE).await;
    let properties = [
        Property::string("label").unique(),
        Property::number("amount"),
        Property::number("ratio"),
        Property::datetime("at"),
        Property::datetime("moment"),
        Property::date("day"),
    ];
    stage.sandbox.world().define(THINGS, "things", properties);
    stage.setup().await;
    stage
}

#[tokio::test]
async fn values_without_a_form_in_hubspot_are_refused_alone_and_by_the_name_of_the_property() {
    let stage = things("values").await;
    let daemon = stage.start().await;
    let bad = [
        ("amount", format!("'twelve {PLANTED}'")),
        ("amount", format!("'1; DROP TABLE {PLANTED}'")),
        ("ratio", "'NaN'".to_owned()),
        ("ratio", "'Infinity'".to_owned()),
        ("ratio", "'-Infinity'".to_owned()),
        ("at", "'infinity'".to_owned()),
        ("at", "'-infinity'".to_owned()),
        ("at", "'99999-01-01'".to_owned()),
        ("moment", "'infinity'".to_owned()),
        ("moment", "'0044-03-15 BC'".to_owned()),
        ("day", "'infinity'".to_owned()),
        ("day", "'99999-12-31'".to_owned()),
        ("day", "'4713-01-01 BC'".to_owned()),
    ];
    let good = [
        ("amount", "'-1e3'"),
        ("ratio", "1e300"),
        ("ratio", "4.9e-324"),
        ("at", "'9999-12-30 21:59:59.999+00'"),
        ("day", "'2024-02-29'"),
        ("amount", "NULL"),
    ];
    let mut sql = String::new();
    let all = bad
        .iter()
        .map(|(column, value)| (*column, value.as_str()))
        .chain(good);
    for (at, (column, value)) in all.enumerate() {
        write!(
            sql,
            "INSERT INTO thing (k, label, {column}) VALUES ('k{at}', 'l{at} {PLANTED}', {value});"
        )
        .unwrap();
    }
    stage.app(&sql).await;
    stage.wait_drained().await;
    daemon.settled().await;
    let listed = failures(&daemon).await;
    for (at, (column, _)) in bad.iter().enumerate() {
        let row = listed.iter().find(|row| row["key"] == format!("k{at}"));
        let row = row.unwrap_or_else(|| panic!("k{at} ({column}) is not listed: {listed:#?}"));
        assert!(row["message"].as_str().unwrap().contains(column), "{row:#?}");
    }
    assert_eq!(listed.len(), bad.len(), "{listed:#?}");
    assert_eq!(stage.sandbox.world().records(THINGS).count(), good.len());
    assert_discreet(&stage, &daemon).await;
}

#[tokio::test]
async fn keys_of_any_text_name_their_rows() {
    let stage = things("keys").await;
    let daemon = stage.start().await;
    let keys = [
        "",
        " ",
        "  ",
        "'",
        "\"",
        "\\",
        "%",
        "_",
        "{a,b}",
        "NULL",
        "null",
        "a\nb",
        "a\u{0}b".trim_end_matches("\u{0}b"),
        "ключ \u{1f511}",
        "e\u{301}",
        "é",
        "1",
        "01",
        "'; DROP TABLE thing; --",
        "../../failures?x=1&y=%00",
        "key with: colons: 1:2",
    ];
    let long = "k".repeat(2_000);
    let all: Vec<&str> = keys.into_iter().chain([long.as_str()]).collect();
    let mut sql = String::new();
    for (at, key) in all.iter().enumerate() {
        write!(
            sql,
            "INSERT INTO thing (k, label, amount) VALUES ({}, 'l{at}', '1');",
            quoted(key)
        )
        .unwrap();
    }
    stage.app(&sql).await;
    stage.wait_drained().await;
    stage.app("UPDATE thing SET amount = '2'").await;
    stage.wait_drained().await;
    for (at, key) in all.iter().enumerate() {
        let label = format!("l{at}");
        let id = {
            let world = stage.sandbox.world();
            let record = world
                .find(THINGS, "label", &label)
                .unwrap_or_else(|| panic!("{key:?} was not created"));
            assert_eq!(record.get("amount"), Some("2"), "{key:?}");
            record.id()
        };
        let row = format!("SELECT hubspot_id FROM thing WHERE k = {}", quoted(key));
        assert_eq!(stage.value(&row).await, Some(id), "{key:?}");
    }
    // Refused ones are listed and named again by such keys too.
    stage.app("UPDATE thing SET amount = 'x'").await;
    stage.wait_drained().await;
    let count = format!("{}", all.len());
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.failure", &count)
        .await;
    stage
        .sql("ALTER TABLE thing DISABLE TRIGGER USER; UPDATE thing SET amount = '3'; ALTER TABLE thing ENABLE TRIGGER USER")
        .await;
    assert_eq!(daemon.post("/failures/retry").await.0, 202);
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.failure", "0")
        .await;
    stage.app("UPDATE thing SET amount = '4' WHERE k <> ''").await;
    stage.wait_drained().await;
    let run = daemon.sweep().await;
    assert_eq!(run["summary"]["things"]["updated"], all.len(), "{run}");
    let missed = stage
        .sandbox
        .world()
        .records(THINGS)
        .filter(|record| !matches!(record.get("amount"), Some("3" | "4")))
        .count();
    assert_eq!(missed, 0);
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test]
async fn nonsense_in_the_audit_log_names_nobody_and_stops_nobody() {
    let stage = Stage::without_setup("nonsense", Settings::default(), QUICK).await;
    stage
        .sql("ALTER TABLE hubspot_sync.supabase_audit_log ALTER record_id TYPE text")
        .await;
    stage.setup().await;
    let contact = stage.known_contact("s1").await;
    let daemon = stage.start().await;
    let long = format!("{PLANTED}{}", "z".repeat(100_000));
    let mut sql = String::new();
    for record in [
        "nonsense",
        "",
        " ",
        "'; DROP TABLE x; --",
        "\u{1f4a5}",
        "1",
        "00000000-0000-0000-0000-00000000000g",
        &long,
    ] {
        for table in [
            "hubspot_contact_credits",
            "hubspot_sync.hubspot_bookings",
            "no_such_table",
            "",
            "a.b.c\".d",
        ] {
            write!(
                sql,
                "INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, operation) VALUES ({}, {}, 'UPDATE');",
                quoted(table),
                quoted(record)
            )
            .unwrap();
        }
    }
    stage.app(&sql).await;
    stage
        .app(
            "INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, operation)
             SELECT 'hubspot_contact_credits', id, 'UPDATE' FROM hubspot_sync.hubspot_contact_credits;
             UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 3",
        )
        .await;
    stage
        .wait_world("the contact that a true entry names is pushed", |world| {
            world
                .record(CONTACTS, &contact)
                .and_then(|record| record.get("sj_credits"))
                == Some("3")
        })
        .await;
    stage.wait_drained().await;
    daemon.settled().await;
    let marked = "SELECT count(*) FROM hubspot_sync.supabase_audit_log WHERE synced_to_hubspot_at IS NOT NULL
        AND record_id IN (SELECT id::text FROM hubspot_sync.hubspot_contact_credits)";
    stage.wait_value(marked, "1").await;
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "complete", "{run}");
    assert!(failures(&daemon).await.is_empty());
    assert_discreet(&stage, &daemon).await;
    assert_eq!(daemon.stop().await, Some(0));
}
