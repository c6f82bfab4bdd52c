//! The doctor: what `check` finds at both ends, each with a hint that mends it, and that it changes nothing.

use super::support::daemon::{BOOKINGS, CONTACTS, EXAMS, QUICK, Stage};
use super::support::extras;
use super::support::postgres::Server;
use super::tls::{Keys, tls_server};
use hubsyncd::config;
use hubsyncd::daemon::checkup;
use hubsyncd::postgres::control::CHANNEL;
use hubsyncd::sandbox::{Property, Sandbox, Settings};
use hubsyncd::sync::checkup::{Checkup, State};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// What the verb prints with `--json`, and its exit code.
fn check(stage: &Stage) -> (serde_json::Value, i32) {
    let output = stage.command("check").args(["check", "--json"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let json = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    (json, output.status.code().unwrap())
}

/// The same without a process, with these variables instead of the stage's.
async fn look(stage: &Stage, instead: &[(&str, &str)]) -> Checkup {
    let command = stage.command("check");
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    let mut variables: BTreeMap<String, String> = variables
        .map(|(name, value)| {
            (
                name.to_str().unwrap().to_owned(),
                value.to_str().unwrap().to_owned(),
            )
        })
        .collect();
    for (name, value) in instead {
        variables.insert((*name).to_owned(), (*value).to_owned());
    }
    let path = PathBuf::from(&variables["HUBSYNCD_CONFIG"]);
    let read = config::examine(Some(&path), &|name| variables.get(name).cloned());
    checkup::look(read, &mut |_| {}).await
}

/// Message and hint of every finding of this check and state.
fn found(checkup: &Checkup, check: &str, state: State) -> Vec<String> {
    let of = |finding: &&hubsyncd::sync::checkup::Finding| finding.check == check && finding.state == state;
    let told = checkup.checks.iter().filter(of);
    told.map(|finding| {
        let hint = finding.hint.as_deref().unwrap_or_default();
        format!("{}: {} ({hint})", finding.about, finding.message)
    })
    .collect()
}

/// The only problem, which is of this check.
fn sole(checkup: &Checkup, check: &str) -> String {
    let problems = found(checkup, check, State::Problem);
    assert_eq!((checkup.problems, problems.len()), (1, 1), "{checkup:#?}");
    problems.into_iter().next().unwrap()
}

fn assert_sound(checkup: &Checkup) {
    assert_eq!((checkup.problems, checkup.warnings), (0, 0), "{checkup:#?}");
}

/// The statement in a hint: from this word on, without what follows it.
fn statement<'a>(told: &'a str, from: &str) -> &'a str {
    let (_, rest) = told.rsplit_once(&format!("{from} ")).unwrap();
    let end = rest.find(", or").unwrap_or(rest.len() - 1);
    &told[told.len() - rest.len() - from.len() - 1..][..end + from.len() + 1]
}

#[tokio::test]
async fn a_sound_installation_is_found_sound_and_left_as_it_is_while_the_daemon_runs() {
    let stage = Stage::new("sound").await;
    let daemon = stage.start().await;
    stage.known_contact("ana").await;
    stage.wait_drained().await;
    let listening = stage.database.session().await;
    let generation = "SELECT generation FROM hubsyncd.lease";
    let before = stage.value(generation).await;
    let rings = format!("{:?}", daemon.status().await["listener"]);
    let (json, code) = check(&stage);
    assert_eq!((code, &json["ok"]), (0, &true.into()), "{json:#}");
    assert_eq!(
        (&json["problems"], &json["warnings"]),
        (&0.into(), &0.into()),
        "{json:#}"
    );
    let names: Vec<&str> = json["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["check"].as_str().unwrap())
        .collect();
    for name in [
        "config",
        "database.address",
        "database.pooler",
        "database.listen",
        "database.connection",
        "tables",
        "capture",
        "capture.triggers",
        "rights",
        "rows",
        "hubspot.token",
        "hubspot.scopes",
        "hubspot.properties",
        "hubspot.key",
        "hubspot.links",
        "clock",
        "pins",
    ] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    assert_eq!(stage.value(generation).await, before, "the lease is as it was");
    assert_eq!(format!("{:?}", daemon.status().await["listener"]), rings);
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'hubsyncd/% check%' \
               AND datname = current_database()";
    stage.wait_value(sql, "0").await;
    drop(listening);
    let world = stage.sandbox.world();
    let written: usize = world.requests().map(|request| request.writes.len()).sum();
    assert_eq!(written, 1, "the contact, which the daemon pushed");
}

#[tokio::test]
async fn a_check_wakes_no_daemon() {
    let stage = Stage::new("asleep").await;
    let session = stage.database.session().await;
    let control = hubsyncd::postgres::control::Control::open(&stage.database.address("hubsyncd")).await;
    let control = control.unwrap();
    assert_sound(&look(&stage, &[]).await);
    let heard = tokio::time::timeout(Duration::ZERO, control.wait_rung()).await;
    assert!(heard.is_err(), "it rang");
    session
        .execute("SELECT pg_notify($1, '')", &[&CHANNEL])
        .await
        .unwrap();
    control.wait_rung().await.unwrap();
}

#[tokio::test]
async fn each_right_that_the_role_lacks_is_named_with_the_statement_that_gives_it() {
    let stage = Stage::new("rightless").await;
    let without_hubspot = [("HUBSPOT_ACCESS_TOKEN", "")];
    let session = stage.database.session().await;
    let granted = r#"
        SELECT x.privilege_type, format('"%s"."%s"', n.nspname, c.relname), NULL, c.relkind = 'S'
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) x
        WHERE x.grantee = 'hubsyncd'::regrole AND n.nspname IN ('hubsyncd', 'hubspot_sync')
        UNION ALL
        SELECT x.privilege_type, format('"%s"."%s"', n.nspname, c.relname), a.attname::text, false
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace,
             aclexplode(a.attacl) x
        WHERE x.grantee = 'hubsyncd'::regrole AND n.nspname IN ('hubsyncd', 'hubspot_sync')
        UNION ALL
        SELECT x.privilege_type, format('"%s"', n.nspname), '', false FROM pg_namespace n, aclexplode(n.nspacl) x
        WHERE x.grantee = 'hubsyncd'::regrole AND n.nspname IN ('hubsyncd', 'hubspot_sync')"#;
    let rights = session.query(granted, &[]).await.unwrap();
    assert!(rights.len() > 50, "{}", rights.len());
    for right in rights {
        let (privilege, on): (String, String) = (right.get(0), right.get(1));
        let revoked = match (
            right.get::<_, Option<String>>(2).as_deref(),
            right.get::<_, bool>(3),
        ) {
            (Some(""), _) => format!("{privilege} ON SCHEMA {on}"),
            (Some(column), _) => format!("{privilege} (\"{column}\") ON {on}"),
            (None, true) => format!("{privilege} ON SEQUENCE {on}"),
            (None, false) => format!("{privilege} ON {on}"),
        };
        stage.sql(&format!("REVOKE {revoked} FROM hubsyncd")).await;
        let told = found(&look(&stage, &without_hubspot).await, "rights", State::Problem);
        let hint = told
            .iter()
            .find(|told| told.contains(&format!("GRANT {revoked} TO")));
        let hint = hint.unwrap_or_else(|| panic!("{revoked}: {told:#?}"));
        stage.sql(statement(hint, "GRANT")).await;
    }
    assert_sound(&look(&stage, &[]).await);
}

#[tokio::test]
async fn a_right_too_many_is_a_warning_with_the_statement_that_takes_it_back() {
    let stage = Stage::new("rightful").await;
    let table = "hubspot_sync.hubspot_bookings";
    for grant in [
        format!("INSERT ON {table}"),
        format!("DELETE ON {table}"),
        format!("TRUNCATE ON {table}"),
        format!("TRIGGER ON {table}"),
        "CREATE ON SCHEMA hubspot_sync".to_owned(),
    ] {
        stage.sql(&format!("GRANT {grant} TO hubsyncd")).await;
        let checkup = look(&stage, &[]).await;
        let told = found(&checkup, "rights.excess", State::Warning);
        assert_eq!(
            (checkup.ok, checkup.warnings, told.len()),
            (true, 1, 1),
            "{grant}: {checkup:#?}"
        );
        stage.sql(statement(&told[0], "REVOKE")).await;
        assert_sound(&look(&stage, &[]).await);
    }
    stage
        .sql(&format!(
            "GRANT UPDATE (attendance, hubspot_id) ON {table} TO hubsyncd"
        ))
        .await;
    let told = found(&look(&stage, &[]).await, "rights.excess", State::Warning);
    assert!(
        told.len() == 1 && told[0].contains("never writes: attendance"),
        "{told:?}"
    );
    assert!(!told[0].contains("hubspot_id"), "{told:?}");
    let all_powerful = stage.database.url_as("postgres");
    let checkup = look(&stage, &[("DATABASE_URL", &all_powerful)]).await;
    let told = found(&checkup, "rights.excess", State::Warning);
    assert!(told.iter().any(|told| told.contains("SUPERUSER")), "{told:?}");
    let owner = stage.database.url_as("app_owner");
    let told = found(
        &look(&stage, &[("DATABASE_URL", &owner)]).await,
        "rights.excess",
        State::Warning,
    );
    assert!(
        told.iter().any(|told| told.contains(&format!("owns {table}"))),
        "{told:?}"
    );
}

#[tokio::test]
async fn row_level_security_without_a_policy_is_a_problem_with_the_policy_to_make() {
    let stage = Stage::new("rls").await;
    for (policy, command) in [("hubsyncd_read", "SELECT"), ("hubsyncd_write", "UPDATE")] {
        stage
            .sql(&format!("DROP POLICY {policy} ON hubspot_sync.hubspot_bookings"))
            .await;
        let told = sole(&look(&stage, &[]).await, "rows");
        assert!(
            told.contains("hubspot_bookings") && told.contains(command),
            "{told}"
        );
        stage.sql(statement(&told, "CREATE POLICY")).await;
        assert_sound(&look(&stage, &[]).await);
    }
    let restrictive = "CREATE POLICY half ON hubspot_sync.hubspot_bookings AS RESTRICTIVE TO hubsyncd USING (is_active = 'x')";
    stage.sql(restrictive).await;
    assert!(sole(&look(&stage, &[]).await, "rows").contains("half"));
}

#[tokio::test]
async fn triggers_that_are_missing_disabled_or_old_are_problems_that_setup_mends() {
    let stage = Stage::without_setup("triggers", Settings::default(), QUICK).await;
    let told = found(&look(&stage, &[]).await, "capture", State::Problem);
    assert!(told.len() == 1 && told[0].contains("hubsyncd setup"), "{told:?}");
    assert_eq!(
        look(&stage, &[]).await.problems,
        1,
        "the rights that setup gives are not told one by one"
    );
    stage.setup().await;
    assert_sound(&look(&stage, &[]).await);
    let table = "hubspot_sync.hubspot_mock_exams";
    let one = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'hubspot_sync.hubspot_mock_exams'::regclass \
               AND tgname LIKE 'hubsyncd%' ORDER BY 1 LIMIT 1";
    let trigger = stage.value(one).await.unwrap();
    for (broken, word) in [
        (
            format!("ALTER TABLE {table} DISABLE TRIGGER {trigger}"),
            "is disabled",
        ),
        (
            format!("ALTER TABLE {table} ENABLE REPLICA TRIGGER {trigger}"),
            "fires on replicas only",
        ),
        (format!("DROP TRIGGER {trigger} ON {table}"), "is missing"),
    ] {
        stage.sql(&broken).await;
        let told = sole(&look(&stage, &[]).await, "capture.triggers");
        assert!(
            told.contains(word) && told.contains(&trigger) && told.contains("hubsyncd setup"),
            "{told}"
        );
        stage.setup().await;
        assert_sound(&look(&stage, &[]).await);
    }
    stage
        .sql("UPDATE hubsyncd.meta SET value = 'old' WHERE key = 'setup:capture:bookings'")
        .await;
    let told = sole(&look(&stage, &[]).await, "capture");
    assert!(told.contains("capture:bookings"), "{told}");
    stage.setup().await;
    assert_sound(&look(&stage, &[]).await);
}

#[tokio::test]
async fn what_hubspot_lacks_is_said_property_by_property() {
    let stage = Stage::new("portal").await;
    {
        let mut world = stage.sandbox.world();
        world.remove_property(CONTACTS, "sj_credits");
        world.add_property(CONTACTS, Property::number("sj_credit"));
        world.remove_property(CONTACTS, "cs_credits");
        world.add_property(CONTACTS, Property::number("cs_credits").calculated());
        world.remove_property(EXAMS, "total_bookings");
        world.add_property(EXAMS, Property::date("total_bookings"));
        world.remove_property(BOOKINGS, "attendance");
        world.add_property(BOOKINGS, Property::boolean("attendance"));
        world.remove_property(BOOKINGS, "booking_id");
        world.add_property(BOOKINGS, Property::string("booking_id"));
    }
    let checkup = look(&stage, &[]).await;
    let told = found(&checkup, "hubspot.properties", State::Problem).join("\n");
    for words in [
        "contacts.sj_credits: 0-1 has no property `sj_credits` (did you mean `sj_credit`?",
        "contacts.cs_credits: `cs_credits` of 0-1 cannot be written",
        "mock_exams.total_bookings: `total_bookings` of 2-50158913 is date, and column `total_bookings` (integer) becomes a \
         number",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let odd = found(&checkup, "hubspot.properties", State::Warning);
    assert!(odd.len() == 1 && odd[0].contains("attendance"), "{odd:?}");
    let key = found(&checkup, "hubspot.key", State::Warning);
    assert!(key.len() == 1 && key[0].contains("`booking_id`"), "{key:?}");
    assert_eq!((checkup.problems, checkup.warnings), (3, 2), "{checkup:#?}");
    assert_eq!(check(&stage).1, 78);
}

/// A mapping of two objects with a labelled link.
fn labelled(kind: &str, condition: &str) -> String {
    format!(
        r#"
[[object]]
name = "people"
table = "hubspot_sync.hubspot_contact_credits"
type = "0-1"
match-on = "email"
where = "{condition}"
[object.properties]
email = {{ column = "email", on = "create" }}
sj_credits = "sj_credits"

[[object]]
name = "exams"
table = "hubspot_sync.hubspot_mock_exams"
type = "{kind}"
create = false
[object.properties]
total_bookings = "total_bookings"
[[object.link]]
to = "people"
column = "location"
label = "Examiner"
"#
    )
}

#[tokio::test]
async fn types_labels_associations_and_conditions_that_do_not_exist_are_problems() {
    let toml = |kind: &str, condition: &str| format!("{QUICK}{}", labelled(kind, condition));
    let mut stage = Stage::with("unlabelled", Settings::default(), &toml(EXAMS, "true")).await;
    let told = sole(&look(&stage, &[]).await, "hubspot.links");
    assert!(
        told.contains("\"Examiner\"") && told.contains("make the label"),
        "{told}"
    );
    stage.sandbox.world().label(EXAMS, CONTACTS, "Examiner");
    assert_sound(&look(&stage, &[]).await);

    stage.toml = toml("2-404", "true");
    let checkup = look(&stage, &[]).await;
    let told = found(&checkup, "hubspot.type", State::Problem);
    assert!(
        told.len() == 1 && told[0].contains("2-404") && told[0].contains("correct `type`"),
        "{checkup:#?}"
    );

    stage.toml = toml(EXAMS, "no_such_column > 0");
    let checkup = look(&stage, &[]).await;
    let told = found(&checkup, "rows", State::Problem).join("\n");
    assert!(
        told.contains("people: Postgres refuses") && told.contains("no_such_column"),
        "{checkup:#?}"
    );

    stage.toml = QUICK.to_owned();
    stage.setup().await;
    assert_sound(&look(&stage, &[]).await);
    let apart = Sandbox::start(Settings::default()).await.unwrap();
    apart.world().define(BOOKINGS, "bookings", []);
    apart.world().define(EXAMS, "exams", []);
    let checkup = look(&stage, &[("HUBSPOT_BASE_URL", &apart.base_url())]).await;
    let told = found(&checkup, "hubspot.links", State::Problem);
    assert_eq!(told.len(), 2, "{checkup:#?}");
    assert!(
        told[0].contains(&format!("associates no {BOOKINGS} with {CONTACTS}")),
        "{told:?}"
    );
}

#[tokio::test]
async fn what_is_mirrored_must_be_readable() {
    let stage = Stage::with(
        "mirrored",
        Settings::default(),
        "[mirror]\nobjects = [\"deals\"]\n",
    )
    .await;
    let scope = "crm.objects.deals.read";
    stage.sandbox.world().revoke_scope(scope);
    stage.sandbox.world().revoke_scope("crm.objects.companies.read");
    let checkup = look(&stage, &[]).await;
    let told = found(&checkup, "hubspot.scopes", State::Problem);
    assert!(told.len() == 1 && told[0].contains(scope), "{told:?}");
    stage.sandbox.world().grant_scope(scope);
    let checkup = look(&stage, &[]).await;
    assert_eq!(
        found(&checkup, "hubspot.scopes", State::Problem).len(),
        0,
        "{checkup:#?}"
    );
}

#[tokio::test]
async fn tokens_scopes_and_portals_that_do_not_fit_are_problems() {
    let stage = Stage::new("token").await;
    let told = sole(
        &look(&stage, &[("HUBSPOT_ACCESS_TOKEN", "pat-na1-wrong")]).await,
        "hubspot.token",
    );
    assert!(told.contains("401") && told.contains("rotated"), "{told}");
    let told = sole(
        &look(&stage, &[("HUBSPOT_BASE_URL", "http://127.0.0.1:9")]).await,
        "hubspot.token",
    );
    assert!(told.contains("cannot be reached"), "{told}");
    stage.sandbox.world().revoke_scope("crm.objects.custom.write");
    let checkup = look(&stage, &[]).await;
    let told = found(&checkup, "hubspot.scopes", State::Problem);
    assert_eq!((told.len(), checkup.problems), (2, 2), "{checkup:#?}");
    assert!(told[0].contains("crm.objects.custom.write"), "{told:?}");
    stage.sandbox.world().grant_scope("crm.objects.custom.write");
    drop(stage.start().await);
    assert_sound(&look(&stage, &[]).await);
    let other = Settings {
        portal_id: Settings::default().portal_id + 1,
        ..Settings::default()
    };
    let other = Sandbox::tutoring(other).await.unwrap();
    let told = sole(
        &look(&stage, &[("HUBSPOT_BASE_URL", &other.base_url())]).await,
        "pins",
    );
    assert!(told.contains("--adopt-portal"), "{told}");
}

#[tokio::test]
async fn clocks_that_differ_are_a_warning() {
    let stage = Stage::new("clocks").await;
    stage.sandbox.advance(Duration::from_secs(60));
    let told = found(&look(&stage, &[]).await, "clock", State::Warning).join("\n");
    for pair in ["of this machine is ", "of the database is "] {
        assert!(
            told.contains(pair) && told.contains("s behind that of HubSpot"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn everything_wrong_is_said_at_once_and_no_secret_with_it() {
    let mut stage = Stage::new("everything").await;
    stage
        .sql("ALTER TABLE hubspot_sync.hubspot_bookings DROP COLUMN attendance")
        .await;
    stage
        .sql("REVOKE SELECT ON hubspot_sync.hubspot_mock_exams FROM hubsyncd")
        .await;
    stage.sql("REVOKE ALL ON hubsyncd.run FROM hubsyncd").await;
    stage.known_contact("planted").await;
    stage.sandbox.world().remove_property(CONTACTS, "sj_credits");
    stage.toml = format!("{QUICK}max-record = 3\n[health]\nwarn-after = \"soon\"\n");
    let output = stage.command("check").arg("check").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8(output.stdout).unwrap();
    for words in [
        "problem\tconfig\tsweep.max-record\t",
        "problem\tconfig\thealth.warn-after\t",
        "problem\ttables\tobject bookings: properties.attendance\t",
        "lacks SELECT on hubspot_sync.hubspot_mock_exams\t",
        "lacks INSERT on hubsyncd.run\t",
        "problem\thubspot.properties\tcontacts.sj_credits\t",
        "ok\ttables\tcontacts\t",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(said.lines().all(|line| line.split('\t').count() == 5), "{said}");
    let complained = String::from_utf8(output.stderr).unwrap();
    for secret in [stage.sandbox.token(), "planted", "example.com", "\x1b"] {
        assert!(
            !said.contains(secret) && !complained.contains(secret),
            "{secret}: {said}{complained}"
        );
    }
}

#[tokio::test]
async fn people_get_colour_on_a_terminal_unless_they_want_none() {
    let stage = Stage::without_setup("terminal", Settings::default(), QUICK).await;
    let on_terminal = |no_color: &str| {
        let command = stage.command("check");
        let variables = command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?)));
        let verb = format!("{} check", env!("CARGO_BIN_EXE_hubsyncd"));
        let mut terminal = Command::new("script");
        terminal
            .args(["-qec", &verb, "/dev/null"])
            .env_clear()
            .envs(variables);
        let output = terminal.env("TERM", "xterm").env("NO_COLOR", no_color).output();
        let output = output.expect("script is installed: it is a part of bsdutils");
        assert_eq!(output.status.code(), Some(78));
        String::from_utf8(output.stdout).unwrap()
    };
    let coloured = on_terminal("");
    assert!(
        coloured.contains("\x1b[31mproblem") && coloured.contains("\x1b[32mok"),
        "{coloured}"
    );
    assert!(coloured.contains("→ run `hubsyncd setup`"), "{coloured}");
    let plain = on_terminal("1");
    assert!(
        !plain.contains('\x1b') && plain.contains("1 problem, 0 warnings"),
        "{plain}"
    );
    assert!(
        plain.lines().any(|line| line.starts_with("ok       config  ")),
        "{plain}"
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_read_and_secrets_that_are_missing_are_told() {
    let mut stage = Stage::without_setup("unread", Settings::default(), QUICK).await;
    let checkup = look(&stage, &[("HUBSPOT_ACCESS_TOKEN", ""), ("DATABASE_URL", "")]).await;
    let told = found(&checkup, "config", State::Problem).join("\n");
    assert!(
        told.contains("DATABASE_URL") && told.contains("HUBSPOT_ACCESS_TOKEN"),
        "{told}"
    );
    assert_eq!(checkup.problems, 2, "{checkup:#?}");
    stage.toml = "[batch\n".to_owned();
    let checkup = look(&stage, &[]).await;
    assert_eq!(found(&checkup, "config", State::Problem).len(), checkup.problems);
    assert_eq!(found(&checkup, "database", State::Skipped).len(), 1);
}

#[tokio::test]
async fn a_locked_table_holds_up_no_check_and_a_check_holds_up_nobody() {
    let stage = Stage::new("locked").await;
    let application = stage.database.session_as("app_owner").await;
    application
        .batch_execute("BEGIN; LOCK TABLE hubspot_sync.hubspot_bookings IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let checkup = look(&stage, &[]).await;
    assert!(checkup.ok, "{checkup:#?}");
    assert_eq!(found(&checkup, "rows", State::Skipped).len(), 1, "{checkup:#?}");
}

#[tokio::test]
async fn a_server_is_proved_by_its_certificate_or_the_way_to_prove_it_is_told() {
    let keys = Keys::make();
    let (_server, port) = tls_server(&keys.read("server")).await;
    let stage = Stage::without_setup("tls", Settings::default(), QUICK).await;
    let at = |host: &str, mode: &str, root: Option<&str>| {
        let root = root.map(|name| format!("&sslrootcert={}", keys.path(name).display()));
        let root = root.unwrap_or_default();
        format!("postgres://app@{host}:{port}/postgres?hostaddr=127.0.0.1&sslmode={mode}{root}")
    };
    let of = async |url: String| look(&stage, &[("DATABASE_URL", &url), ("HUBSPOT_ACCESS_TOKEN", "")]).await;
    let good = of(at("localhost", "verify-full", Some("ca"))).await;
    let connected = found(&good, "database.connection", State::Ok);
    assert!(
        connected.len() == 1 && connected[0].contains(", encrypted"),
        "{good:#?}"
    );
    for (url, words) in [
        (at("localhost", "verify-full", Some("other")), "sslrootcert names"),
        (
            at("elsewhere.example.com", "verify-full", Some("ca")),
            "made out for other names",
        ),
        (
            at("aws-0-eu.pooler.supabase.com", "verify-ca", Some("other")),
            "Supabase signs",
        ),
    ] {
        let told = found(&of(url.clone()).await, "database.connection", State::Problem);
        assert!(told.len() == 1 && told[0].contains(words), "{url}: {told:?}");
    }
    for mode in ["prefer", "require"] {
        let unproved = of(at("elsewhere.example.com", mode, None)).await;
        let told = found(&unproved, "database.address", State::Warning);
        assert!(
            told.len() == 1 && told[0].contains("verify-full"),
            "{unproved:#?}"
        );
        let proved = of(at("elsewhere.example.com", mode, Some("ca"))).await;
        assert_eq!(
            found(&proved, "database.address", State::Warning),
            [""; 0],
            "{mode} with a root"
        );
    }
}

#[tokio::test]
async fn supabases_addresses_that_do_not_work_are_explained() {
    let stage = Stage::without_setup("supabase", Settings::default(), QUICK).await;
    for (url, check, words) in [
        (
            "postgres://postgres.x:hush@aws-0-eu-central-1.pooler.supabase.com:6543/postgres",
            "database.address",
            ["transaction pooler", "5432"],
        ),
        (
            "postgres://postgres:hush@db.abcdefghijklmnopqrst.supabase.co:5432/postgres?connect_timeout=2",
            "database.connection",
            ["IPv6", "session pooler"],
        ),
        (
            "postgres://postgres:hush@h/postgres?sslmode=allow",
            "database.address",
            ["prefer", "verify-full"],
        ),
    ] {
        let checkup = look(&stage, &[("DATABASE_URL", url)]).await;
        let told = found(&checkup, check, State::Problem);
        assert_eq!(told.len(), 1, "{url}: {checkup:#?}");
        assert!(words.iter().all(|word| told[0].contains(word)), "{url}: {told:?}");
        assert!(!format!("{checkup:?}").contains("hush"));
    }
}

#[tokio::test]
async fn a_pgbouncer_that_pools_by_transaction_is_refused_and_one_by_session_is_not() {
    if !extras() {
        println!("not run with pgbouncer: HUBSYNCD_TEST_EXTRAS=1 is not set");
        return;
    }
    let server = Server::shared().await;
    let stage = Stage::on(server, "bouncer", Settings::default(), QUICK).await;
    for (mode, refused) in [("transaction", true), ("session", false)] {
        let bouncer = Bouncer::start(&stage, mode).await;
        let checkup = look(&stage, &[("DATABASE_URL", &bouncer.url)]).await;
        let told = found(&checkup, "database.pooler", State::Problem);
        assert_eq!(told.len(), usize::from(refused), "{mode}: {checkup:#?}");
        if refused {
            assert!(
                told[0].contains("session pooler") && told[0].contains("5432"),
                "{told:?}"
            );
        } else {
            assert_sound(&checkup);
        }
    }
}

/// A pgbouncer between us and the stage's server.
struct Bouncer {
    child: std::process::Child,
    url: String,
    directory: tempfile::TempDir,
}

impl Bouncer {
    async fn start(stage: &Stage, mode: &str) -> Bouncer {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        let socket = stage.database.socket();
        let (host, name) = (socket.parent().unwrap().display(), &stage.database.name);
        let (_, port) = socket.to_str().unwrap().rsplit_once('.').unwrap();
        let configuration = format!(
            "[databases]\n* = host={host} port={port}\n[pgbouncer]\npool_mode = {mode}\nauth_type = any\nlisten_addr =\n\
             unix_socket_dir = {}\nlisten_port = 6000\ndefault_pool_size = 5\nuser = {}\n",
            path.display(),
            if Bouncer::is_root() { "postgres" } else { "" }
        );
        // `auth_type = any` takes everybody for one user, the database's entry says which.
        let configuration = configuration.replace("* = host", &format!("{name} = user=hubsyncd host"));
        let file = path.join("pgbouncer.ini");
        std::fs::write(&file, configuration.replace("user = \n", "")).unwrap();
        // Debian keeps it where only root looks.
        let installed = std::path::Path::new("/usr/sbin/pgbouncer");
        let program = if installed.exists() {
            installed
        } else {
            std::path::Path::new("pgbouncer")
        };
        let child = Command::new(program).arg("-q").arg(&file).spawn();
        let child = child.expect("pgbouncer is installed: sudo apt-get install -y pgbouncer");
        let bouncer = Bouncer {
            child,
            url: format!("postgres://hubsyncd@/{name}?host={}&port=6000", path.display()),
            directory,
        };
        let listening = bouncer.directory.path().join(".s.PGSQL.6000");
        super::support::wait_until("pgbouncer listens", async || listening.exists()).await;
        bouncer
    }

    fn is_root() -> bool {
        let asked = Command::new("id").arg("-u").output().unwrap();
        asked.stdout.trim_ascii() == b"0"
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
