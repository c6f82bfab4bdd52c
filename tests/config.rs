//! The configuration: what is read, what is refused, and in which words.

use hubsyncd::config::{Config, Needs, Problem, Touch, socket_path};
use hubsyncd::mapping::{Kind, Mapping, Mirrored, Null, On};
use secrecy::ExposeSecret;
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

const SECRETS: [(&str, &str); 2] = [
    ("DATABASE_URL", "postgres://hubsyncd:hunter2@db/app"),
    ("HUBSPOT_ACCESS_TOKEN", "pat-na1-planted"),
];

fn parse_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, Vec<Problem>> {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    let environment = |name: &str| variables.get(name).map(|value| (*value).to_owned());
    Config::parse(Needs::Everything, "hubsyncd.toml", text, &environment)
}

fn parse(text: &str) -> Result<Config, Vec<Problem>> {
    parse_with(text, &SECRETS)
}

fn refused(text: &str) -> String {
    let problems = parse(text).expect_err("this must be refused");
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

#[test]
fn an_empty_file_is_the_defaults_and_the_built_in_mapping() {
    let config = parse("").unwrap();
    assert_eq!(config.database.connections, 4);
    assert_eq!(config.hubspot.base_url, "https://api.hubapi.com");
    assert_eq!(config.hubspot.api_version, "2026-09");
    assert_eq!((config.hubspot.requests, config.hubspot.in_flight), (100, 8));
    assert_eq!(config.hubspot.settle, Duration::from_secs(120));
    assert!((config.hubspot.daily_reserve - 0.1).abs() < 1e-9);
    assert_eq!((config.batch.max_records, config.batch.max_bytes), (100, 4 << 20));
    assert_eq!(config.batch.max_delay, Duration::from_millis(250));
    assert_eq!(config.sweep.every, Duration::from_secs(7200));
    assert!(config.sweep.on_start && config.sweep.touch == Touch::All);
    assert_eq!(config.http.socket, Path::new("/run/hubsyncd/hubsyncd.sock"));
    assert_eq!(config.http.socket_mode, 0o660);
    assert_eq!(config.mapping, Mapping::built_in());
}

#[test]
fn exactly_two_versions_of_hubspots_api_are_known() {
    let with = |version: &str| format!("[hubspot]\napi-version = \"{version}\"\n");
    for version in ["2026-03", "2026-09"] {
        assert_eq!(parse(&with(version)).unwrap().hubspot.api_version, version);
    }
    for version in ["v3", "v4", "2025-09", "2026-9", "2026-09-beta", "2027-03", ""] {
        let told = refused(&with(version));
        assert!(told.contains("hubspot.api-version"), "{told}");
    }
}

#[test]
fn the_shipped_example_says_the_defaults() {
    let shipped = parse(include_str!("../systemd/hubsyncd.toml")).unwrap();
    assert_eq!(format!("{shipped:?}"), format!("{:?}", parse("").unwrap()));
}

#[test]
fn the_shipped_example_is_right_also_where_it_is_commented_out() {
    let example = include_str!("../systemd/hubsyncd.toml");
    let settings = example.lines().filter_map(|line| {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let is_setting = bare.starts_with('[') || bare.contains(" = ");
        is_setting.then_some(bare)
    });
    let mut all: String = settings.map(|line| format!("{line}\n")).collect();
    let columns = all.find("[columns.bookings]").unwrap();
    let audit = all.find("[audit]").unwrap();
    all.replace_range(columns..audit, "");
    all = all.replace(
        "[[object.link]]\nto = \"customers\"",
        "[[object.link]]\nto = \"orders\"",
    );
    let mut secrets = SECRETS.to_vec();
    secrets.push(("CRON_SECRET", "planted"));
    let config = parse_with(&all, &secrets).unwrap_or_else(|problems| panic!("{problems:#?}\n{all}"));
    assert_eq!(
        config.mapping.objects[0].properties[1].null,
        Null::Literal("0".to_owned())
    );
}

#[test]
fn the_mirror_is_off_without_its_section_and_has_the_defaults_with_an_empty_one() {
    const HOUR: Duration = Duration::from_secs(3600);
    assert_eq!(parse("").unwrap().mirror, None);
    let mirror = |keys: &str| parse(&format!("[mirror]\n{keys}")).unwrap().mirror.unwrap();
    let periods = |keys: &str| {
        let mirror = mirror(keys);
        (mirror.every, mirror.full_every, mirror.stale_after)
    };
    assert_eq!(periods(""), (HOUR, 12 * HOUR, 24 * HOUR));
    assert_eq!(mirror("").objects, Mirrored::ALL);
    // What the file says of one period, the others follow.
    assert_eq!(periods("stale-after = \"10h\""), (HOUR, 5 * HOUR, 10 * HOUR));
    assert_eq!(periods("stale-after = \"3d\""), (HOUR, 12 * HOUR, 72 * HOUR));
    assert_eq!(periods("full-every = \"30m\""), (HOUR / 2, HOUR / 2, 24 * HOUR));
    assert_eq!(
        periods("stale-after = \"10s\""),
        (HOUR / 720, HOUR / 720, HOUR / 360)
    );
    assert_eq!(
        periods("every = \"1s\"\nfull-every = \"1m\"\nstale-after = \"61s\""),
        (HOUR / 3600, HOUR / 60, Duration::from_secs(61))
    );
    assert_eq!(
        periods("every = \"7d\"\nfull-every = \"30d\"\nstale-after = \"60d\""),
        (7 * 24 * HOUR, 30 * 24 * HOUR, 60 * 24 * HOUR)
    );
    assert_eq!(
        mirror("objects = [\"deals\", \"contacts\"]").objects,
        [Mirrored::Contacts, Mirrored::Deals],
        "in their own order"
    );
}

#[test]
fn what_is_wrong_with_the_mirror_is_said_with_its_line_and_what_would_be_right() {
    for (keys, said) in [
        (
            "evry = \"1h\"",
            "2: mirror.evry: unknown setting (did you mean `every`?)",
        ),
        ("every = 5", "2: mirror.every: "),
        ("every = \"soon\"", "2: mirror.every: \"soon\" is no duration"),
        ("every = \"999ms\"", "2: mirror.every: \"999ms\" is out of range"),
        (
            "every = \"8d\"\nfull-every = \"9d\"\nstale-after = \"20d\"",
            "2: mirror.every: \"8d\" is out of range",
        ),
        ("every = \"13h\"", "2: mirror.every: is longer than `full-every`"),
        (
            "every = \"2h\"\nfull-every = \"1h\"",
            "2: mirror.every: is longer than `full-every` (incremental passes run between",
        ),
        ("full-every = true", "2: mirror.full-every: "),
        (
            "full-every = \"0s\"",
            "2: mirror.full-every: \"0s\" is out of range",
        ),
        (
            "full-every = \"31d\"\nstale-after = \"59d\"",
            "2: mirror.full-every: \"31d\" is out of range",
        ),
        (
            "full-every = \"24h\"",
            "2: mirror.full-every: is not below `stale-after` (records would count as pending",
        ),
        (
            "stale-after = \"1s\"",
            "2: mirror.stale-after: \"1s\" is out of range",
        ),
        (
            "stale-after = \"61d\"",
            "2: mirror.stale-after: \"61d\" is out of range",
        ),
        ("objects = \"contacts\"", "2: mirror.objects: "),
        ("objects = [1]", "2: mirror.objects: "),
        (
            "objects = []",
            "2: mirror.objects: is empty (name what is to be mirrored, or take the section out)",
        ),
        (
            "objects = [\"deals\", \"deals\"]",
            "2: mirror.objects: \"deals\" stands there twice (name it once)",
        ),
        (
            "objects = [\"contact\"]",
            "2: mirror.objects: \"contact\" cannot be mirrored (any of \"contacts\", \"companies\" and \"deals\")",
        ),
    ] {
        let text = refused(&format!("[mirror]\n{keys}\n"));
        assert!(
            text.contains(&format!("hubsyncd.toml:{said}")),
            "{keys}: {said}\nis not in\n{text}"
        );
        assert_eq!(text.lines().count(), 1, "{keys}: {text}");
    }
    let text = refused("mirror = \"on\"\n");
    assert!(text.contains("hubsyncd.toml:1: mirror: "), "{text}");
    // Several at once.
    let text = refused("[mirror]\nevery = \"x\"\nobjects = [\"a\", \"b\"]\nstale-after = \"1s\"\n");
    assert_eq!(text.lines().count(), 4, "{text}");
}

#[test]
fn the_mirror_of_the_shipped_example_says_the_defaults() {
    let example = include_str!("../systemd/hubsyncd.toml");
    let section = example.split_once("# [mirror]\n").unwrap().1;
    let section = section.split_once("\n\n").unwrap().0;
    let lines = section.lines().map(|line| line.trim_start_matches("# "));
    let section: String = lines.map(|line| format!("{line}\n")).collect();
    for key in ["every", "full-every", "stale-after", "objects"] {
        assert!(
            section.contains(&format!("\n{key} = ")) || section.starts_with(key),
            "{key}"
        );
    }
    let told = parse(&format!("[mirror]\n{section}")).unwrap().mirror;
    assert_eq!(told, parse("[mirror]\n").unwrap().mirror);
}

#[test]
fn every_problem_is_reported_at_once_with_its_line_and_a_hint() {
    let text = refused(
        "[batch]\nmax-record = 5\nmax-delay = \"soon\"\n[sweep]\nevery = \"7h\"\n[hubspot]\nbase-url = \"http://example.com\"\n\
         daily-reserve = \"110%\"\nin-flight = 0\n[htp]\n[http]\nsocket-mode = \"0666\"\nlisten = \"3002\"\n",
    );
    for part in [
        "hubsyncd.toml:2: batch.max-record: unknown setting (did you mean `max-records`?)",
        "hubsyncd.toml:3: batch.max-delay: \"soon\" is no duration (a duration like \"250ms\"",
        "hubsyncd.toml:5: sweep.every: 7h does not divide a day",
        "hubsyncd.toml:7: hubspot.base-url: is not https",
        "hubsyncd.toml:8: hubspot.daily-reserve: \"110%\" is out of range",
        "hubsyncd.toml:9: hubspot.in-flight: 0 is out of range (a whole number from 1 to 64)",
        "hubsyncd.toml:10: htp: unknown setting (did you mean `http`?)",
        "hubsyncd.toml:12: http.socket-mode: \"0666\" lets everybody",
        "hubsyncd.toml:13: http.listen: \"3002\" is no address",
    ] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
    assert_eq!(text.lines().count(), 9, "{text}");
}

#[test]
fn what_is_no_toml_is_said_with_its_line() {
    let text = refused("[batch]\nmax-records = = 3\n[sweep\n");
    assert!(
        text.contains("hubsyncd.toml:2") && text.contains("is not TOML here"),
        "{text}"
    );
    assert!(
        text.contains("hubsyncd.toml:3"),
        "the second error is reported too: {text}"
    );
}

#[test]
fn values_of_the_wrong_kind_are_named_with_what_would_be_right() {
    let text = refused(
        "sweep = 3\n[batch]\nmax-records = \"100\"\nmax-bytes = 5\n[http]\nsocket = [1]\nsocket-mode = 0o660\n\
         [health]\nwarn-after = \"6m\"\nfail-after = \"5m\"\n",
    );
    for part in [
        "sweep: is an integer, not a table (write [sweep])",
        "batch.max-records: is a text (a whole number from 1 to 100)",
        "batch.max-bytes: is no size",
        "http.socket: is an array",
        "http.socket-mode: is an integer (permission bits as text",
        "health.warn-after: is longer than `fail-after`",
    ] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
}

#[test]
fn secrets_come_from_credential_then_file_then_variable_and_are_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let credential = directory.path().join("hubspot-access-token");
    let file = directory.path().join("token");
    std::fs::write(&file, "from-file\n").unwrap();
    let (directory_name, file_name) = (directory.path().to_str().unwrap(), file.to_str().unwrap());
    let mut variables = vec![
        ("DATABASE_URL", "postgres://u:planted@h/d"),
        ("HUBSPOT_ACCESS_TOKEN", "planted-variable"),
    ];
    let token = |variables: &[(&str, &str)]| {
        let config = parse_with("[database]\nurl = \"postgres://file\"\n", variables).unwrap();
        assert_eq!(config.database.url.expose_secret(), "postgres://u:planted@h/d");
        assert!(!format!("{config:?}").contains("planted"));
        config.hubspot.token.expose_secret().to_owned()
    };
    assert_eq!(token(&variables), "planted-variable");
    variables.push(("HUBSPOT_ACCESS_TOKEN_FILE", file_name));
    assert_eq!(token(&variables), "from-file");
    variables.push(("CREDENTIALS_DIRECTORY", directory_name));
    assert_eq!(token(&variables), "from-file", "no such credential");
    std::fs::write(credential, "from-credential").unwrap();
    assert_eq!(token(&variables), "from-credential");
}

#[test]
fn missing_or_unreadable_secrets_are_all_named_and_their_values_never() {
    let problems = parse_with("", &[("HUBSPOT_ACCESS_TOKEN_FILE", "/nonexistent/token")]).unwrap_err();
    let text: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
    assert!(
        text.contains("DATABASE_URL") && text.contains("credential `database-url`"),
        "{text}"
    );
    assert!(
        text.contains("HUBSPOT_ACCESS_TOKEN_FILE: the file /nonexistent/token cannot be read"),
        "{text}"
    );
    let problems = parse_with("", &[("DATABASE_URL", "mysql://planted"), SECRETS[1]]).unwrap_err();
    let text = problems[0].to_string();
    assert!(
        text.contains("begins with postgres://") && !text.contains("planted"),
        "{text}"
    );
}

#[test]
fn the_environment_overrides_base_url_and_socket() {
    let mut variables = SECRETS.to_vec();
    variables.push(("HUBSPOT_BASE_URL", "http://127.0.0.1:9/"));
    variables.push(("HUBSYNCD_SOCKET", "/tmp/h.sock"));
    let config = parse_with("[http]\nsocket = \"/run/x.sock\"\n", &variables).unwrap();
    assert_eq!(config.hubspot.base_url, "http://127.0.0.1:9");
    assert_eq!(config.http.socket, Path::new("/tmp/h.sock"));
    variables[2].1 = "http://example.com";
    assert!(
        parse_with("", &variables).unwrap_err()[0]
            .key
            .contains("HUBSPOT_BASE_URL")
    );
}

#[test]
fn a_tcp_address_wants_a_cron_secret() {
    let text = refused("[http]\nlisten = \"127.0.0.1:3002\"\n");
    assert!(
        text.contains("http.listen: a TCP address wants a cron secret"),
        "{text}"
    );
    let mut variables = SECRETS.to_vec();
    variables.push(("CRON_SECRET", "planted"));
    let config = parse_with("[http]\nlisten = \"127.0.0.1:3002\"\n", &variables).unwrap();
    assert_eq!(config.http.listen.unwrap().port(), 3002);
}

const OBJECT: &str = "[[object]]\nname = \"orders\"\ntable = \"shop.orders\"\ntype = \"2-7\"\nmatch-on = \"number\"\n\
                      [object.properties]\nnumber = \"number\"\n";

#[test]
fn a_declared_object_is_read_whole() {
    let config = parse(
        "[audit]\ntable = '\"my schema\".\"a.b\"\"c\"'\n\
         [[object]]\nname = \"people\"\ntable = \"shop.people\"\ntype = \"contacts\"\nkey = \"n\"\nmatch-on = \"email\"\n\
         adopt = \"fail\"\non-missing = \"recreate\"\nwhere = \"not hidden\"\nfrom = \"shop.v\"\nwatch = [\"a\", \"b\"]\n\
         [object.properties]\nzeta = \"z\"\nemail = { column = \"mail\", on = \"create\" }\n\
         tags = { column = \"tags\", as = \"multi\", null = \"omit\" }\n\
         born = { column = \"born\", as = \"date\", null = \"0\", zone = \"America/Toronto\" }\n\
         [[object.link]]\nto = \"people\"\nlookup = { z_id = \"boss\", a = \"b\" }\nlabel = \"Boss\"\n",
    )
    .unwrap();
    let audit = config.mapping.audit.unwrap();
    assert_eq!(
        (audit.schema.as_str(), audit.name.as_str()),
        ("my schema", "a.b\"c")
    );
    let object = &config.mapping.objects[0];
    assert_eq!(object.object_type, "0-1", "the name of a standard type is its id");
    assert!(object.matches_on_email());
    let names: Vec<&str> = object
        .properties
        .iter()
        .map(|property| property.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["zeta", "email", "tags", "born"],
        "in the order of the file"
    );
    assert_eq!(
        (object.properties[0].on, &object.properties[0].null),
        (On::Both, &Null::Clear)
    );
    assert_eq!(
        (object.properties[1].on, &object.properties[1].null),
        (On::Create, &Null::Omit)
    );
    assert_eq!(
        (object.properties[2].kind, &object.properties[2].null),
        (Some(Kind::Multi), &Null::Omit)
    );
    assert_eq!(object.properties[3].zone, "America/Toronto");
    assert_eq!(object.links[0].lookup[0], ("z_id".to_owned(), "boss".to_owned()));
    assert_eq!(object.links[0].name(), "people:Boss");
}

#[test]
fn what_is_wrong_with_objects_is_said_by_their_names() {
    let text = refused(&format!(
        "{OBJECT}[[object.link]]\nto = \"order\"\ncolumn = \"c\"\n[[object.link]]\nto = \"orders\"\n\
         [[object]]\nname = \"Bad Name\"\ntable = \"orders\"\ntype = \"2_7\"\non-delete = \"archive\"\ncapture = false\nadopt = \"take\"\n\
         watch = [\"a\"]\n[object.properties]\nBig = \"b\"\nsynced = \"hubspot_last_sync_at\"\nx = {{ colum = \"x\" }}\n\
         [[object]]\nname = \"orders\"\ntable = \"shop.orders\"\ntype = \"2-8\"\nmatch-on = \"nothing\"\nkey = \"hubspot_id\"\n\
         [object.properties]\nlong = \"{}\"\n",
        "x".repeat(64)
    ));
    for part in [
        "object orders: link.to: \"order\" is no object of this mapping (did you mean `orders`?)",
        "object orders: link.column: is missing",
        "object Bad Name: name: \"Bad Name\" is no name for an object",
        "object Bad Name: table: \"orders\" is not schema.table",
        "object Bad Name: type: \"2_7\" is no object type id",
        "object Bad Name: on-delete: archives nothing while capture = false",
        "object Bad Name: adopt: \"take\" is not known",
        "object Bad Name: watch: means nothing without `from`",
        "object Bad Name: properties.Big: is no property's internal name",
        "object Bad Name: properties.x.colum: unknown setting (did you mean `column`?)",
        "object Bad Name: properties.x.column: is missing",
        "object Bad Name: synced-at: `hubspot_last_sync_at` is written after every push",
        "object Bad Name: match-on: is missing, and create = true wants it",
        "object orders: name: \"orders\" is declared twice",
        "object orders: table: `orders` writes the same columns of shop.orders back",
        "object orders: match-on: `nothing` is not among the properties",
        "object orders: hubspot-id: is the same column as `key`",
        "cannot be a name in Postgres",
    ] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
}

#[test]
fn columns_of_the_built_in_mapping_can_bear_other_names() {
    let config = parse(
        "[columns.bookings]\nstudent_name = \"name\"\ncontact_id = \"associated_contact_id\"\n\
         mock_exam_id = \"associated_mock_exam\"\nhubspot_id = \"hs\"\n[columns.contacts]\nemail = \"mail\"\n",
    )
    .unwrap();
    let bookings = &config.mapping.objects[1];
    let column = |property: &str| {
        let found = bookings.properties.iter().find(|one| one.name == property);
        found.unwrap().column.clone()
    };
    assert_eq!(column("student_name"), "name");
    assert_eq!(column("mock_exam_id"), "associated_mock_exam");
    assert_eq!(bookings.hubspot_id, "hs");
    assert_eq!(bookings.links[0].column.as_deref(), Some("associated_contact_id"));
    assert_eq!(bookings.links[1].column.as_deref(), Some("associated_mock_exam"));
    assert_eq!(
        bookings.links[0].lookup[1],
        ("mail".to_owned(), "student_email".to_owned())
    );
    assert_eq!(config.mapping.objects[0].match_property().unwrap().column, "mail");
    let text = refused("[columns.booking]\nx = \"y\"\n[columns.bookings]\nstudent_nam = \"name\"\n");
    assert!(
        text.contains("columns.booking: unknown setting (did you mean `bookings`?)"),
        "{text}"
    );
    assert!(
        text.contains("columns.bookings.student_nam: unknown setting (did you mean `student_name`?)"),
        "{text}"
    );
    let text = refused(&format!("[columns.bookings]\nstudent_name = \"name\"\n{OBJECT}"));
    assert!(
        text.contains("columns: renames columns of the built-in mapping"),
        "{text}"
    );
}

#[test]
fn the_verbs_find_the_socket_though_other_settings_are_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hubsyncd.toml");
    std::fs::write(
        &file,
        "[http]\nsocket = \"/tmp/s.sock\"\nsoket = 1\n[batch]\nmax-records = 0\n",
    )
    .unwrap();
    let nothing = |_: &str| None;
    assert_eq!(
        socket_path(Some(&file), &nothing).unwrap(),
        Path::new("/tmp/s.sock")
    );
    let elsewhere = |name: &str| (name == "HUBSYNCD_SOCKET").then(|| "/tmp/other.sock".to_owned());
    assert_eq!(
        socket_path(Some(&file), &elsewhere).unwrap(),
        Path::new("/tmp/other.sock")
    );
    let missing = directory.path().join("missing.toml");
    let problems = socket_path(Some(&missing), &nothing).unwrap_err();
    assert!(
        problems[0].to_string().contains("missing.toml: cannot be read"),
        "{}",
        problems[0]
    );
}

#[test]
fn a_token_that_no_header_could_carry_is_a_problem_beside_the_others() {
    let with = |token: &str| {
        let secrets = [
            ("DATABASE_URL", "postgres://hubsyncd@localhost/x"),
            ("HUBSPOT_ACCESS_TOKEN", token),
        ];
        let problems = parse_with("[batch]\nmax-records = 0\n", &secrets).unwrap_err();
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        lines.join("\n")
    };
    for token in ["planted pat", "pat\nplanted", "plántéd"] {
        let text = with(token);
        assert!(text.contains("characters that no token has"), "{text}");
        assert!(text.contains("max-records"), "and what else is wrong: {text}");
        assert!(!text.contains("planted"), "{text}");
    }
    let text = with("  \t ");
    assert!(
        text.contains("HUBSPOT_ACCESS_TOKEN: holds nothing but blanks"),
        "{text}"
    );
}

#[test]
fn what_is_known_is_listed_once() {
    let object = |link: &str| {
        format!(
            "[[object]]\nname = \"bookings\"\ntable = \"a.b\"\ntype = \"2-1\"\nkey = \"id\"\nhubspot-id = \"h\"\nsynced-at = \"s\"\n\
             create = false\nproperties = {{ x = \"x\" }}\n{link}"
        )
    };
    let link = "[[object.link]]\nto = \"nonsense\"\ncolumn = \"c\"\n";
    let text = refused(&format!("{}{}", object(""), object(link)));
    assert!(text.contains("(known here: bookings)"), "{text}");
}
