//! Tests: what is installed beside the binary.

use hubsyncd::daemon::exit;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn shipped(name: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join("systemd").join(name)).unwrap()
}

#[test]
fn the_units_are_right_and_confined() {
    if !super::support::extras() {
        println!("not run: the units are examined with systemd-analyze under HUBSYNCD_TEST_EXTRAS=1");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for name in ["hubsyncd.service", "hubsyncd-alert@.service"] {
        let unit = directory.path().join(name);
        let text = shipped(name);
        assert!(
            text.contains("\nExecStart=hubsyncd "),
            "found where it is installed, here or there"
        );
        let here = text.replace("=hubsyncd ", &format!("={} ", env!("CARGO_BIN_EXE_hubsyncd")));
        std::fs::write(&unit, here).unwrap();
    }
    let analyze = |arguments: &[&str], unit: &str| {
        let mut command = std::process::Command::new("systemd-analyze");
        let output = command
            .args(arguments)
            .arg(directory.path().join(unit))
            .output()
            .expect("systemd is installed");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && text.trim().is_empty() == (arguments[0] == "verify"),
            "{arguments:?}: {text}"
        );
    };
    for unit in ["hubsyncd.service", "hubsyncd-alert@hubsyncd.service.service"] {
        analyze(&["verify", "--man=no"], unit);
    }
    // 1.5 of 10; most services of a distribution have 9.
    for unit in ["hubsyncd.service", "hubsyncd-alert@.service"] {
        analyze(&["security", "--offline=true", "--threshold=15"], unit);
    }
    // With the drop-in for those who listen on TCP.
    let drop_in = directory.path().join("hubsyncd.service.d");
    std::fs::create_dir(&drop_in).unwrap();
    std::fs::write(drop_in.join("cron-secret.conf"), shipped("cron-secret.conf")).unwrap();
    analyze(&["verify", "--man=no"], "hubsyncd.service");
}

#[test]
fn systemd_is_told_what_the_daemon_does_and_does_not_start_in_vain() {
    let unit = shipped("hubsyncd.service");
    let value = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_else(|| panic!("{key} is not in the unit"))
    };
    assert_eq!(value("Type="), "notify");
    assert_eq!(value("Restart="), "on-failure");
    let in_vain: Vec<u8> = value("RestartPreventExitStatus=")
        .split(' ')
        .map(|code| code.parse().unwrap())
        .collect();
    assert_eq!(in_vain, [exit::USAGE, exit::NOT_PERMITTED, exit::CONFIGURATION]);
    // A loop counts as stuck after 30 s, and what HubSpot has answered may take 50 s to be recorded.
    assert!(value("WatchdogSec=").parse::<u32>().unwrap() >= 60);
    assert!(value("TimeoutStopSec=").parse::<u32>().unwrap() >= 60);
    assert!(
        value("ExecReload=").starts_with("hubsyncd reload "),
        "it waits, as a signal does not"
    );
    assert_eq!(
        (value("User="), value("RuntimeDirectory=")),
        ("hubsyncd", "hubsyncd")
    );
}

#[test]
fn only_the_secrets_that_every_start_needs_are_demanded_of_systemd() {
    let credentials = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("LoadCredential="));
        lines
            .map(|line| line.split(':').next().unwrap().to_owned())
            .collect()
    };
    let unit = credentials(&shipped("hubsyncd.service"));
    assert_eq!(unit, ["database-url", "hubspot-access-token"]);
    assert_eq!(credentials(&shipped("cron-secret.conf")), ["cron-secret"]);
}

#[test]
fn prometheus_takes_the_alert_rules_and_each_fires_when_it_should() {
    if !super::support::extras() {
        println!("not run: the alert rules are checked with promtool under HUBSYNCD_TEST_EXTRAS=1");
        return;
    }
    let promtool = |arguments: &[&str]| {
        let checked = std::process::Command::new("promtool").args(arguments).output();
        let checked = checked.expect("promtool is installed");
        let said = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{said}");
        said.into_owned()
    };
    let rules = Path::new(ROOT).join("systemd/hubsyncd-alerts.yml");
    let said = promtool(&["check", "rules", rules.to_str().unwrap()]);
    assert!(said.contains("SUCCESS: 12 rules found"), "{said}");
    // Each fires for a daemon that has its ailment, and none for one that is well.
    let place = tempfile::tempdir().unwrap();
    let situations = Path::new(ROOT).join("tests/support/alerts.yml");
    for (from, name) in [(&rules, "hubsyncd-alerts.yml"), (&situations, "alerts.yml")] {
        std::fs::copy(from, place.path().join(name)).unwrap();
    }
    promtool(&["test", "rules", place.path().join("alerts.yml").to_str().unwrap()]);
}

#[test]
fn a_daemon_that_fails_for_good_is_told_of() {
    let unit = shipped("hubsyncd.service");
    assert!(unit.contains("\nOnFailure=hubsyncd-alert@%n.service\n"));
    assert!(shipped("hubsyncd-alert@.service").contains("\nExecStart=hubsyncd alert unit %i "));
    // systemd gives up, and only then starts the other unit, if so many starts fall into the interval.
    let seconds = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        humantime::parse_duration(line)
            .or_else(|_| humantime::parse_duration(&format!("{line}s")))
            .unwrap()
    };
    let burst: u32 = unit
        .lines()
        .find_map(|line| line.strip_prefix("StartLimitBurst="))
        .unwrap()
        .parse()
        .unwrap();
    assert!(burst * seconds("RestartSec=") * 2 < seconds("StartLimitIntervalSec="));
}

#[test]
fn everything_that_the_package_holds_is_there_and_what_an_operator_edits_is_kept() {
    let manifest = std::fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    let assets = deb["assets"].as_array().unwrap();
    let mut installed = Vec::new();
    for asset in assets {
        let [from, to, mode] = [0, 1, 2].map(|at| asset[at].as_str().unwrap());
        assert!(matches!(mode, "644" | "755"), "{from}: {mode}");
        let name = from.rsplit('/').next().unwrap();
        installed.push(if to.ends_with('/') {
            format!("/{to}{name}")
        } else {
            format!("/{to}")
        });
        // What is built, and what the program prints about itself, is there when the package is made.
        if !from.starts_with("target/") {
            assert!(Path::new(ROOT).join(from).is_file(), "{from} is not there");
        }
    }
    for kept in deb["conf-files"].as_array().unwrap() {
        assert!(
            installed.iter().any(|path| path == kept.as_str().unwrap()),
            "{kept}"
        );
    }
    // Where the units look.
    for path in [
        "/usr/bin/hubsyncd",
        "/etc/hubsyncd/hubsyncd.toml",
        "/usr/share/doc/hubsyncd/README.md",
        "/usr/lib/systemd/system/hubsyncd-alert@.service",
    ] {
        assert!(installed.iter().any(|there| there == path), "{path}");
    }
    let scripts = Path::new(ROOT).join(deb["maintainer-scripts"].as_str().unwrap());
    for script in ["postinst", "postrm"] {
        let text = std::fs::read_to_string(scripts.join(script)).unwrap();
        assert!(
            text.contains("\n#DEBHELPER#\n"),
            "{script} lets systemd's part in"
        );
        let checked = std::process::Command::new("sh")
            .arg("-n")
            .arg(scripts.join(script))
            .status();
        assert!(checked.unwrap().success(), "{script}");
    }
    let units = &deb["systemd-units"];
    let place = Path::new(ROOT).join(units["unit-scripts"].as_str().unwrap());
    for kind in ["service", "sysusers"] {
        let name = format!("{}.{kind}", units["unit-name"].as_str().unwrap());
        assert!(place.join(&name).is_file(), "{name}");
    }
}
