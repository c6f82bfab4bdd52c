//! Tests: a changed configuration is taken without a restart, or refused as a whole.

use super::support::daemon::{CONTACTS, Daemon, QUICK, Stage};
use super::support::sweeping::logged;
use super::support::{DEADLINE, wait_until};
use hubsyncd::sandbox::{Endpoint, Property, Settings, When};

const CREDITS: &str = "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = sj_credits + 1";
const RUNS: &str = "SELECT string_agg(reason || ' ' || coalesce(outcome, 'open'), ', ' ORDER BY started_at) FROM hubsyncd.run";

/// `hubsyncd reload`: exit code, and all that it says.
async fn reload(stage: &Stage) -> (i32, String) {
    let mut command = stage.command("daemon");
    command.arg("reload");
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = ran.await.unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), said)
}

/// SIGHUP, with the stage's configuration written.
fn hang_up(stage: &Stage, daemon: &Daemon) {
    drop(stage.command("daemon"));
    daemon.signal("HUP");
}

async fn updated(daemon: &Daemon) -> String {
    let (_, metrics) = daemon.get("/metrics").await;
    let line = metrics.lines().find(|line| {
        line.starts_with("hubsyncd_records_total") && line.contains("contacts") && line.contains("updated")
    });
    line.unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_changed_configuration_is_taken_and_what_was_counted_stays() {
    let mut stage = Stage::new("reload").await;
    let contact = stage.known_contact("s1").await;
    let notify = tempfile::tempdir().unwrap();
    let notify = notify.path().join("notify");
    let systemd = tokio::net::UnixDatagram::bind(&notify).unwrap();
    stage.set("NOTIFY_SOCKET", notify.to_str().unwrap());
    let daemon = stage.start().await;
    stage.app(CREDITS).await;
    stage.wait_drained().await;
    daemon.settled().await;
    let counted = updated(&daemon).await;
    assert!(counted.contains("contacts"), "{counted}");
    let (code, said) = reload(&stage).await;
    assert_eq!(
        (code, said.as_str()),
        (0, "nothing has changed that a reload takes\n")
    );
    stage.toml =
        "[batch]\nmax-delay = \"10ms\"\nmax-records = 7\n[sweep]\non-start = true\nevery = \"24h\"\n\
                  [hubspot]\ntimeout = \"9s\"\n[http]\nsocket-mode = \"0600\"\n[database]\nconnections = 2\n"
            .to_owned();
    let (code, said) = reload(&stage).await;
    assert_eq!(code, 0, "{said}");
    let (taken, restart) = said.split_once('\n').unwrap();
    assert_eq!(
        taken,
        "taken: hubspot.timeout, batch.max-records, batch.max-delay, sweep.every, sweep.on-start"
    );
    assert_eq!(
        restart,
        "only a restart takes: database.connections, http.socket-mode\n"
    );
    daemon.settled().await;
    let next = daemon.status().await["next_sweep_at"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(next.contains("T00:00:00"), "{next}");
    assert_eq!(updated(&daemon).await, counted, "the counters go on");
    stage.app(CREDITS).await;
    stage
        .wait_world("it pushes as before", |world| {
            world.record(CONTACTS, &contact).unwrap().get("sj_credits") == Some("2")
        })
        .await;
    stage.wait_drained().await;
    assert_eq!(stage.value(RUNS).await, None, "a reload alone sweeps nothing");
    let mut heard = String::new();
    wait_until("systemd hears of the reload and its end", async || {
        let mut buffer = [0; 1024];
        while let Ok(length) = systemd.try_recv(&mut buffer) {
            heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
            heard.push('\n');
        }
        heard
            .rsplit_once("RELOADING=1")
            .is_some_and(|(_, after)| after.contains("MONOTONIC_USEC=") && after.contains("READY=1"))
    })
    .await;
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test]
async fn a_broken_file_is_refused_with_every_problem_and_the_old_one_goes_on() {
    let mut stage = Stage::new("reload_broken").await;
    let contact = stage.known_contact("s1").await;
    let daemon = stage.start().await;
    let good = stage.toml.clone();
    stage.toml = format!("{good}nonsense = 1\n[hubspot]\nin-flight = 0\n");
    let (code, said) = reload(&stage).await;
    assert_eq!(code, 78, "{said}");
    for problem in ["sweep.nonsense", "hubspot.in-flight"] {
        assert!(said.contains(problem), "{problem}: {said}");
    }
    let (code, body) = daemon.post("/reload").await;
    assert_eq!(code, 422, "{body}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["problems"].as_array().unwrap().len(), 2, "{body}");
    stage.toml = "this is no TOML".to_owned();
    hang_up(&stage, &daemon);
    logged(&daemon, "is not TOML here").await;
    logged(&daemon, "the configuration of before goes on").await;
    stage.app(CREDITS).await;
    stage
        .wait_world("it goes on", |world| {
            world.record(CONTACTS, &contact).unwrap().get("sj_credits") == Some("1")
        })
        .await;
    stage.toml = good.replace("30ms", "31ms");
    hang_up(&stage, &daemon);
    logged(&daemon, "reloaded: batch.max-delay").await;
    assert_eq!(daemon.get("/livez").await.0, 200);
}

#[tokio::test]
async fn a_changed_mapping_is_taken_once_setup_has_installed_it_and_is_followed_by_a_sweep() {
    let contacts = |more: &str| {
        format!(
            "{QUICK}[[object]]\nname = \"contacts\"\ntable = \"hubspot_sync.hubspot_contact_credits\"\ntype = \"0-1\"\nkey = \"id\"\n\
             hubspot-id = \"hubspot_id\"\nsynced-at = \"hubspot_last_sync_at\"\nmatch-on = \"email\"\n[object.properties]\n\
             email = {{ column = \"email\", on = \"create\" }}\nsj_credits = \"sj_credits\"\n{more}"
        )
    };
    let mut stage = Stage::with("reload_mapping", Settings::default(), &contacts("")).await;
    stage
        .sandbox
        .world()
        .add_property(CONTACTS, Property::string("nick"));
    let contact = stage.known_contact("s1").await;
    let daemon = stage.start().await;
    stage.toml = contacts("nick = \"student_id\"\n");
    let (code, said) = reload(&stage).await;
    assert_eq!(code, 78, "{said}");
    assert!(
        said.contains("older than the mapping") && said.contains("hubsyncd setup"),
        "{said}"
    );
    stage.app(CREDITS).await;
    stage.wait_drained().await;
    assert_eq!(
        stage
            .sandbox
            .world()
            .record(CONTACTS, &contact)
            .unwrap()
            .get("nick"),
        None
    );
    stage.setup().await;
    let (code, said) = reload(&stage).await;
    assert_eq!((code, said.as_str()), (0, "taken: object contacts\n"));
    stage.wait_value(RUNS, "reload complete").await;
    let nick = stage
        .sandbox
        .world()
        .record(CONTACTS, &contact)
        .unwrap()
        .get("nick")
        .map(str::to_owned);
    assert_eq!(nick.as_deref(), Some("s1"));
    // What HubSpot does not fit is refused too, and kills nobody.
    stage.toml = contacts("ghost = \"student_id\"\n").replace("match-on = \"email\"", "match-on = \"ghost\"");
    stage.setup().await;
    let (code, said) = reload(&stage).await;
    assert!(code == 78 && said.contains("ghost"), "{code}: {said}");
    assert_eq!(daemon.get("/livez").await.0, 200);
}

#[tokio::test]
async fn a_reload_finishes_what_is_under_way_and_sweeps_again_what_it_cut_short() {
    let mut stage = Stage::new("reload_flight").await;
    stage.known_contact("s1").await;
    stage.known_contact("s2").await;
    let mut daemon = stage.start().await;
    let held = stage.sandbox.hold(Endpoint::Update, When::After);
    daemon.post("/sweep").await;
    assert!(held.reached(DEADLINE).await);
    stage.toml = stage.toml.replace("30ms", "20ms");
    hang_up(&stage, &daemon);
    logged(&daemon, "finished first").await;
    // The socket answers meanwhile, and a request for a sweep waits.
    assert_eq!(daemon.get("/status").await.0, 200);
    // Nobody listens for changes at this moment, which is no reason to wake anybody.
    let (code, health) = daemon.get("/health").await;
    assert_eq!(code, 200, "{health}");
    daemon.signal("USR1");
    logged(&daemon, "SIGUSR1: a sweep runs").await;
    assert!(
        !daemon.log().contains("reloaded:"),
        "what is under way is waited for"
    );
    held.release();
    stage.wait_value(RUNS, "socket incomplete, signal complete").await;
    logged(&daemon, "reloaded: batch.max-delay").await;
    // A reload that waits for HubSpot does not keep the daemon from stopping.
    let held = stage.sandbox.hold(Endpoint::Update, When::After);
    stage.app(CREDITS).await;
    assert!(held.reached(DEADLINE).await);
    stage.toml = stage.toml.replace("20ms", "40ms");
    hang_up(&stage, &daemon);
    wait_until("the second reload is heard", async || {
        daemon.log().matches("finished first").count() == 2
    })
    .await;
    daemon.signal("TERM");
    logged(&daemon, "hubsyncd stops").await;
    held.release();
    assert_eq!(daemon.ended().await, Some(0));
    let left = stage.value("SELECT count(*) FROM hubsyncd.change").await;
    assert_eq!(left.as_deref(), Some("0"), "the receipt is written");
}
