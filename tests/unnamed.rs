//! Tests: what no live change can carry to HubSpot, a change that could not be named and a row that cannot be read, is
//! the sweep's.

use super::support::daemon::{CONTACTS, QUICK, Stage};
use super::support::sweeping::counts;
use super::support::wait_until;
use hubsyncd::sandbox::{Endpoint, Property, Settings};

const CREDITS: &str = "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = sj_credits + 1";
const SWEPT: &str = "SELECT count(*) FROM hubsyncd.run WHERE reason = 'trigger' AND outcome = 'complete'";

#[tokio::test]
async fn a_capture_that_cannot_name_its_rows_makes_a_sweep_of_its_object() {
    let stage = Stage::new("unnamed").await;
    let contact = stage.known_contact("s1").await;
    stage.known_exam().await;
    let daemon = stage.start().await;
    let exam_writes = stage.sandbox.world().count(Endpoint::Update);
    // Rows with a key are refused; the row that says "something changed" is not.
    stage
        .sql("ALTER TABLE hubsyncd.change ADD CONSTRAINT broken CHECK (key IS NULL)")
        .await;
    stage.app(CREDITS).await;
    stage
        .wait_world("the sweep carries the change", |world| {
            world.record(CONTACTS, &contact).unwrap().get("sj_credits") == Some("1")
        })
        .await;
    stage.wait_value(SWEPT, "1").await;
    stage.wait_drained().await;
    assert_eq!(
        stage.sandbox.world().count(Endpoint::Update),
        exam_writes + 1,
        "the exams were not swept"
    );
    assert_eq!(daemon.get("/health").await.0, 200);
    // Another one within five minutes waits, and health says so.
    stage.app(CREDITS).await;
    wait_until("health warns", async || {
        let (code, body) = daemon.get("/health").await;
        code == 200 && body.contains("unnamed-changes") && body.contains("contacts")
    })
    .await;
    stage
        .sql("ALTER TABLE hubsyncd.change DROP CONSTRAINT broken")
        .await;
    stage.app(CREDITS).await;
    stage
        .wait_world("named changes go on as ever", |world| {
            world.record(CONTACTS, &contact).unwrap().get("sj_credits") == Some("3")
        })
        .await;
    assert_eq!(daemon.sweep().await["outcome"], "complete");
    stage.wait_drained().await;
    wait_until("health is well again", async || {
        !daemon.get("/health").await.1.contains("unnamed-changes")
    })
    .await;
}

const RATIOS: &str = "2-70003";
const RATIO_TABLES: &str = "
CREATE TABLE public.ratios (id int PRIMARY KEY, above numeric, below numeric, hubspot_id text, synced timestamptz);
CREATE VIEW public.ratio_view AS SELECT id, 'r' || id AS name, above / below AS ratio FROM public.ratios;
GRANT SELECT ON public.ratios, public.ratio_view TO hubsyncd;
GRANT UPDATE (hubspot_id, synced) ON public.ratios TO hubsyncd;
INSERT INTO public.ratios SELECT n, n, CASE WHEN n IN (7, 250) THEN 0 ELSE 2 END FROM generate_series(1, 320) AS n;";
const RATIO_MAPPING: &str = r#"
[[object]]
name = "ratios"
table = "public.ratios"
from = "public.ratio_view"
watch = ["above", "below"]
type = "2-70003"
key = "id"
hubspot-id = "hubspot_id"
synced-at = "synced"
match-on = "name"
[object.properties]
name = { column = "name", on = "create" }
ratio = "ratio"
"#;

#[tokio::test]
async fn a_sweep_lists_the_rows_whose_view_fails_and_pushes_all_others() {
    let stage = Stage::without_setup(
        "unreadable_row",
        Settings::default(),
        &format!("[hubspot]\nrequests = 10000\n{QUICK}{RATIO_MAPPING}"),
    )
    .await;
    stage.sql(RATIO_TABLES).await;
    {
        let mut world = stage.sandbox.world();
        let properties = [Property::string("name").unique(), Property::number("ratio")];
        world.define(RATIOS, "ratios", properties);
    }
    stage.setup().await;
    let daemon = stage.start().await;
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "complete", "{run}");
    assert_eq!(counts(&run, "ratios"), (318, 0, 2), "{run}");
    assert_eq!(stage.sandbox.world().records(RATIOS).count(), 318);
    let failures = "SELECT string_agg(key || ' ' || category, ', ' ORDER BY key::int) FROM hubsyncd.failure";
    assert_eq!(stage.value(failures).await.as_deref(), Some("7 read, 250 read"));
    let (_, listed) = daemon.get("/failures").await;
    assert!(listed.contains("22012"), "{listed}");
    stage
        .sql(
            "SET session_replication_role = replica; UPDATE public.ratios SET below = 4 WHERE below = 0;
              RESET session_replication_role",
        )
        .await;
    let run = daemon.sweep().await;
    assert_eq!(counts(&run, "ratios"), (2, 318, 0), "{run}");
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.failure", "0")
        .await;
}
