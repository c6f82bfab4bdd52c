//! Tests: what is installed beside the binary.

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
    // 2.0 of 10; most services of a distribution have 9.
    for unit in ["hubsyncd.service", "hubsyncd-alert@.service"] {
        analyze(&["security", "--offline=true", "--threshold=20"], unit);
    }
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
