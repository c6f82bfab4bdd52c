//! The README's runbook: every block of it is run in the situation that it is for, and ends it.

use super::support::daemon::{CONTACTS, QUICK, Stage};
use super::support::machine::{Machine, blocks, readme, sections};
use super::support::postgres::Server;
use super::support::wait_until;
use hubsyncd::sandbox::{Endpoint, Fault, Policy, Population, Settings, World};
use serde_json::Value;

/// The entries, and how many blocks of lines each has; a test of this file runs each of them.
const ENTRIES: [(&str, usize); 12] = [
    ("first-look", 1),
    ("token-rotated", 1),
    ("database-moved", 1),
    ("quota-exhausted", 1),
    ("refused-records", 1),
    ("wrong-mapping-shipped", 1),
    ("triggers-lost-in-a-restore", 1),
    ("hubspot-record-deleted-or-merged", 1),
    ("take-over", 3),
    ("mirror-out-of-date", 1),
    ("upgrade-and-downgrade", 1),
    ("uninstall", 1),
];

const START: &str = "sudo systemctl start hubsyncd; until hubsyncd health; do sleep 0.1; done";
const FAILURES: &str = "SELECT coalesce(string_agg(category, ' '), '') FROM hubsyncd.failure";

/// The lines of an entry's block.
fn block(entry: &str, at: usize) -> String {
    let sections = sections(&readme());
    let section = sections.iter().find(|section| section.anchor == entry);
    let section = section.unwrap_or_else(|| panic!("the runbook has no entry {entry}"));
    blocks(&section.text).swap_remove(at)
}

/// A database that its owner has set up, a HubSpot, and a machine where the daemon is installed and does not run.
async fn installed(hint: &str, toml: &str) -> (Stage, Machine) {
    let stage = Stage::without_setup(hint, Settings::default(), toml).await;
    let machine = Machine::of(&stage);
    machine
        .runs(r#"DATABASE_URL="$OWNER_URL" hubsyncd setup"#, "")
        .await;
    (stage, machine)
}

/// The same, and the daemon runs.
async fn running(hint: &str) -> (Stage, Machine) {
    let (stage, machine) = installed(hint, QUICK).await;
    machine.runs(START, "").await;
    (stage, machine)
}

async fn status(machine: &Machine) -> Value {
    let said = machine.runs("hubsyncd status --json", "").await;
    serde_json::from_str(&said).unwrap()
}

/// Waits until the health of a machine's daemon speaks of something.
async fn wait_health(machine: &Machine, words: &str) {
    wait_until(&format!("health speaks of {words}"), async || {
        machine.tries("hubsyncd health", "").await.1.contains(words)
    })
    .await;
}

/// An insertion of a contact.
fn student(student: &str) -> String {
    format!(
        "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email) VALUES ('{student}', '{student}@example.com')"
    )
}

async fn wait_student(stage: &Stage, student: &str) {
    let arrived = |world: &World| world.find(CONTACTS, "student_id", student).is_some();
    stage.wait_world("the student is in HubSpot", arrived).await;
}

async fn wait_credits(stage: &Stage, contact: &str, property: &str, credits: &str) {
    let what = format!("{property} of the contact is {credits}");
    let arrived = |world: &World| world.record(CONTACTS, contact).unwrap().get(property) == Some(credits);
    stage.wait_world(&what, arrived).await;
}

#[test]
fn every_entry_is_tested_and_every_alert_leads_to_one() {
    let readme = readme();
    let all = sections(&readme);
    let runbook = all
        .iter()
        .position(|section| section.anchor == "runbook")
        .unwrap();
    let entries = all[runbook + 1..].iter().take_while(|section| section.level > 2);
    let entries: Vec<(&str, usize)> = entries
        .map(|entry| (entry.anchor.as_str(), blocks(&entry.text).len()))
        .collect();
    assert_eq!(entries, ENTRIES);
    let rules = include_str!("../systemd/hubsyncd-alerts.yml");
    let alerts: Vec<&str> = rules.split("\n      - alert: ").skip(1).collect();
    assert!(alerts.len() > 8);
    for alert in alerts {
        let link = alert
            .lines()
            .find_map(|line| line.trim().strip_prefix("runbook_url: "));
        let anchor = link.and_then(|link| link.strip_prefix("file:///usr/share/doc/hubsyncd/README.md#"));
        assert!(
            ENTRIES.iter().any(|(entry, _)| Some(*entry) == anchor),
            "no entry for {alert}"
        );
    }
    // What links within the README lead to is there, too.
    for link in readme.split("](#").skip(1) {
        let anchor = link.split(')').next().unwrap();
        assert!(all.iter().any(|section| section.anchor == anchor), "#{anchor}");
    }
}

#[tokio::test]
async fn a_first_look_shows_what_is_wrong_and_changes_nothing() {
    let (stage, machine) = running("rb_look").await;
    stage.sandbox.refuse_record(CONTACTS, "student_id", "bad", None);
    stage.app(&student("bad")).await;
    stage.wait_value(FAILURES, "validation_error").await;
    let said = machine.runs(&block("first-look", 0), "").await;
    for part in ["this daemon pushes", "contacts", "active (running)", "outcome"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    stage.sandbox.fault(Fault::status(401).always());
    stage.app(&student("other")).await;
    wait_health(&machine, "token").await;
    let (code, said) = machine.tries(&block("first-look", 0), "").await;
    assert_eq!(code, 1, "{said}");
    let looks = block("first-look", 0).replace("hubsyncd health", "hubsyncd health || true");
    let said = machine.runs(&looks, "").await;
    assert!(said.contains("breaker") && said.contains("contacts"), "{said}");
}

#[tokio::test]
async fn a_rotated_token_is_put_in_its_place() {
    let (stage, machine) = installed("rb_token", QUICK).await;
    machine.write(
        "/etc/hubsyncd/credentials/hubspot-access-token",
        "pat-na1-revoked",
    );
    machine.runs("sudo systemctl start hubsyncd", "").await;
    wait_health(&machine, "token").await;
    stage.app(&student("waits")).await;
    let token = stage.sandbox.token();
    let said = machine
        .runs(&block("token-rotated", 0), &format!("{token}\n"))
        .await;
    wait_student(&stage, "waits").await;
    assert!(!said.contains(token) && !machine.journal().contains(token));
    let place = machine.path("/etc/hubsyncd/credentials/hubspot-access-token");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(place).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_database_that_moved_is_adopted_and_swept() {
    let (stage, mut machine) = running("rb_moved").await;
    stage.app(&student("before")).await;
    wait_student(&stage, "before").await;
    stage.wait_drained().await;
    machine.runs("sudo systemctl stop hubsyncd", "").await;
    let moved = Server::shared().await.database("rb_moved_to").await;
    machine.set("FROM", &stage.database.url());
    machine.set("TO", &moved.url());
    machine
        .runs(r#"pg_dump "$FROM" | psql -q -v ON_ERROR_STOP=1 "$TO""#, "")
        .await;
    let superuser = moved.session().await;
    superuser
        .batch_execute("SET session_replication_role = replica")
        .await
        .unwrap();
    superuser.batch_execute(&student("unseen")).await.unwrap();
    machine.set("OWNER_URL", &moved.url_as("app_owner"));
    let url = moved.url_as("hubsyncd");
    machine
        .runs(&block("database-moved", 0), &format!("{url}\n"))
        .await;
    wait_student(&stage, "unseen").await;
    let application = moved.session_as("app").await;
    application.batch_execute(&student("after")).await.unwrap();
    wait_student(&stage, "after").await;
    let world = stage.sandbox.world();
    assert_eq!(world.records(CONTACTS).count(), 3, "nothing is made twice");
}

#[tokio::test]
async fn a_spent_quota_is_seen_and_sweeps_are_made_to_take_less() {
    let (stage, mut machine) = running("rb_quota").await;
    stage.sandbox.fault(Fault::limited(Policy::Daily).always());
    stage.app(&student("waits")).await;
    wait_health(&machine, "daily").await;
    machine.set("EDITOR", r#"sed -i 's/^\[sweep\]/&\nevery = "6h"/' "$1""#);
    let said = machine.runs(&block("quota-exhausted", 0), "").await;
    assert!(said.contains("quota"), "{said}");
    wait_until("the reload is taken", async || {
        machine.journal().contains("reloaded: sweep.every")
    })
    .await;
    let next = status(&machine).await["next_sweep_at"]
        .as_str()
        .unwrap()
        .to_owned();
    let hour: u32 = next.split_once('T').unwrap().1[..2].parse().unwrap();
    assert_eq!(hour % 6, 0, "{next}");
}

#[tokio::test]
async fn refused_records_are_listed_and_tried_again_once_mended() {
    let (stage, machine) = running("rb_refused").await;
    stage.sandbox.refuse_record(CONTACTS, "student_id", "bad", None);
    stage.app(&student("bad")).await;
    stage.wait_value(FAILURES, "validation_error").await;
    stage.sandbox.clear_faults();
    let said = machine.runs(&block("refused-records", 0), "").await;
    assert!(said.contains("validation_error"), "{said}");
    stage.wait_value(FAILURES, "").await;
    wait_student(&stage, "bad").await;
}

#[tokio::test]
async fn a_wrong_mapping_is_replaced_and_what_it_wrote_is_put_right() {
    let swapped = "[columns.contacts]\nsj_credits = \"cs_credits\"\ncs_credits = \"sj_credits\"\n";
    let (stage, mut machine) = installed("rb_mapping", &format!("{QUICK}{swapped}")).await;
    machine.runs(START, "").await;
    let contact = stage.known_contact("s1").await;
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 3, cs_credits = 5")
        .await;
    wait_credits(&stage, &contact, "sj_credits", "5").await;
    machine.set("EDITOR", r#"sed -i '/^\[columns/,$d' "$1""#);
    machine.runs(&block("wrong-mapping-shipped", 0), "").await;
    wait_credits(&stage, &contact, "sj_credits", "3").await;
    wait_credits(&stage, &contact, "cs_credits", "5").await;
}

#[tokio::test]
async fn lost_triggers_are_installed_again_and_what_changed_meanwhile_is_swept() {
    let (stage, machine) = running("rb_triggers").await;
    let contact = stage.known_contact("s1").await;
    stage.wait_drained().await;
    let lost = "SELECT string_agg(format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass), ';')
                FROM pg_trigger WHERE NOT tgisinternal AND tgname LIKE 'hubsyncd%'";
    stage.sql(&stage.value(lost).await.unwrap()).await;
    let spend =
        |credits: u32| format!("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = {credits}");
    stage.app(&spend(7)).await;
    assert_eq!(
        stage
            .value("SELECT count(*) FROM hubsyncd.change")
            .await
            .as_deref(),
        Some("0"),
        "nobody saw it"
    );
    machine.runs(&block("triggers-lost-in-a-restore", 0), "").await;
    wait_credits(&stage, &contact, "sj_credits", "7").await;
    stage.app(&spend(8)).await;
    wait_credits(&stage, &contact, "sj_credits", "8").await;
}

#[tokio::test]
async fn a_record_that_was_deleted_in_hubspot_is_made_anew_once_somebody_says_so() {
    let (stage, machine) = running("rb_deleted").await;
    let gone = stage.known_contact("S-1017").await;
    stage.wait_drained().await;
    stage.sandbox.world().archive(CONTACTS, &gone);
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 5")
        .await;
    stage.wait_value(FAILURES, "missing").await;
    let said = machine
        .runs(&block("hubspot-record-deleted-or-merged", 0), "")
        .await;
    assert!(said.contains("missing"), "{said}");
    stage.wait_value(FAILURES, "").await;
    wait_student(&stage, "S-1017").await;
    let id = stage
        .value("SELECT hubspot_id FROM hubspot_sync.hubspot_contact_credits")
        .await;
    assert!(id.is_some_and(|id| id != gone));
}

#[tokio::test]
async fn another_machine_takes_over() {
    let (stage, here) = running("rb_takeover").await;
    let there = Machine::of(&stage);
    let said = there.runs(&block("take-over", 0), "").await;
    assert!(said.contains("standby"), "{said}");
    here.runs(&block("take-over", 1), "").await;
    there.runs(&block("take-over", 2), "").await;
    assert!(here.tries("systemctl status hubsyncd", "").await.0 != 0);
    stage.app(&student("s1")).await;
    wait_student(&stage, "s1").await;
}

#[tokio::test]
async fn after_an_upgrade_setup_installs_what_the_other_version_wants() {
    let (stage, machine) = running("rb_upgrade").await;
    machine.runs("sudo systemctl stop hubsyncd", "").await;
    // As a version with another capture function would find it.
    stage
        .sql("UPDATE hubsyncd.meta SET value = 'of another version' WHERE key LIKE 'setup:%'")
        .await;
    machine.runs("sudo systemctl start hubsyncd", "").await;
    wait_until("it ends", async || {
        machine.read("/run/systemd/exit").trim() == "78"
    })
    .await;
    assert!(
        machine.journal().contains("hubsyncd setup"),
        "{}",
        machine.journal()
    );
    let said = machine.runs(&block("upgrade-and-downgrade", 0), "").await;
    assert!(
        said.contains(concat!("hubsyncd ", env!("CARGO_PKG_VERSION"))),
        "{said}"
    );
    stage.app(&student("s1")).await;
    wait_student(&stage, "s1").await;
}

#[tokio::test]
async fn uninstalling_leaves_the_applications_tables_as_they_were() {
    let (stage, machine) = running("rb_uninstall").await;
    let contact = stage.known_contact("s1").await;
    stage.wait_drained().await;
    machine.runs(&block("uninstall", 0), "").await;
    let ours = "SELECT count(*) FROM pg_namespace WHERE nspname = 'hubsyncd'";
    assert_eq!(stage.value(ours).await.as_deref(), Some("0"));
    let triggers = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal";
    assert_eq!(stage.value(triggers).await.as_deref(), Some("0"));
    let id = stage
        .value("SELECT hubspot_id FROM hubspot_sync.hubspot_contact_credits")
        .await;
    assert_eq!(id, Some(contact));
    assert!(!machine.path("/run/systemd/enabled").exists());
    assert!(machine.read("/asked-of-apt").contains("purge hubsyncd"));
}

#[tokio::test]
async fn a_mirror_out_of_date_says_what_stops_it_and_is_complete_after_a_pull() {
    let mirror = "[mirror]\nevery = \"1s\"\nfull-every = \"1s\"\nstale-after = \"3s\"\n";
    let (stage, machine) = installed("rb_mirror", &format!("{QUICK}{mirror}")).await;
    stage.sandbox.world().populate(Population {
        contacts: 12,
        companies: 3,
        deals: 4,
    });
    stage
        .sandbox
        .fault(Fault::status(403).on(Endpoint::List).always());
    machine.runs(START, "").await;
    wait_health(&machine, "mirror:age").await;
    let (code, said) = machine.tries("hubsyncd mirror", "").await;
    assert!(code == 75 && said.contains("cut short"), "{code} {said}");
    stage.sandbox.clear_faults();
    let said = machine.runs(&block("mirror-out-of-date", 0), "").await;
    for part in ["mirror", "complete_as_of", "incomplete", "complete: "] {
        assert!(said.contains(part), "{part}: {said}");
    }
    wait_until("the mirror is in date", async || {
        !machine
            .tries("hubsyncd health", "")
            .await
            .1
            .contains("mirror:age")
    })
    .await;
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.mirrored_contacts", "12")
        .await;
}
