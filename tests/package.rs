//! The package, made as the README says, installed, upgraded, removed and purged by dpkg in a root that holds a fresh Debian
//! and nothing else.

use super::support::extras;
use super::support::machine::ROOT;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Stands for systemctl in the root, where no systemd runs: notes what the package's scripts ask of it.
const SYSTEMCTL: &str = "#!/bin/sh\necho \"$*\" >> /asked-of-systemctl\n";

/// A root directory with a fresh Debian.
struct Fresh {
    root: PathBuf,
    _directory: tempfile::TempDir,
}

/// Runs a command as root.
fn as_root(program: &str, arguments: &[&str]) -> Output {
    let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let mut command = if root {
        Command::new(program)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", program]);
        sudo
    };
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C.UTF-8");
    command
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

#[track_caller]
fn must(program: &str, arguments: &[&str]) -> String {
    let output = as_root(program, arguments);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

impl Fresh {
    /// What debootstrap and its like call minbase, with what the package depends on.
    fn new() -> Fresh {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        let release = std::fs::read_to_string("/etc/os-release").unwrap();
        let name = release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        let include = "--include=ca-certificates,systemd";
        let target = root.to_str().unwrap();
        must(
            "mmdebstrap",
            &["--quiet", "--variant=minbase", include, name.unwrap(), target],
        );
        let fresh = Fresh {
            root,
            _directory: directory,
        };
        // The scripts talk to systemd only where it seems to run.
        fresh.inside(&["mkdir", "-p", "/run/systemd/system"]);
        let fake = fresh._directory.path().join("systemctl");
        std::fs::write(&fake, SYSTEMCTL).unwrap();
        let place = fresh.root.join("usr/local/sbin/systemctl");
        must(
            "install",
            &["-m", "755", fake.to_str().unwrap(), place.to_str().unwrap()],
        );
        fresh
    }

    #[track_caller]
    fn inside(&self, command: &[&str]) -> String {
        let mut arguments = vec![self.root.to_str().unwrap()];
        arguments.extend(command);
        must("chroot", &arguments)
    }

    fn shell(&self, line: &str) -> String {
        self.inside(&["sh", "-c", line])
    }

    /// What the package's scripts asked of systemd since the last question.
    fn asked(&self) -> String {
        self.shell("cat /asked-of-systemctl 2> /dev/null; rm -f /asked-of-systemctl")
    }

    fn dpkg(&self, action: &str, what: &str) {
        self.inside(&["dpkg", action, what]);
    }

    fn put(&self, package: &Path) -> String {
        let name = format!("/{}", package.file_name().unwrap().to_str().unwrap());
        let place = self.root.join(&name[1..]);
        must("cp", &[package.to_str().unwrap(), place.to_str().unwrap()]);
        name
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        as_root("rm", &["-rf", "--one-file-system", self.root.to_str().unwrap()]);
    }
}

/// The package, of the program as the tests have it.
fn built() -> PathBuf {
    let output = Command::new(Path::new(ROOT).join("systemd/deb/build"))
        .arg("dev")
        .output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo deb: {said}");
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    PathBuf::from(path.lines().last().unwrap())
}

/// The same package with a higher version.
fn newer(package: &Path, directory: &Path) -> PathBuf {
    let tree = directory.join("tree");
    let (from, to) = (package.to_str().unwrap(), tree.to_str().unwrap());
    must("dpkg-deb", &["-R", from, to]);
    let control = tree.join("DEBIAN/control");
    let control = control.to_str().unwrap();
    must("sed", &["-i", r"s/^Version: .*/Version: 99.0-1/", control]);
    let newer = directory.join("hubsyncd_99.deb");
    must("dpkg-deb", &["--build", to, newer.to_str().unwrap()]);
    must("rm", &["-rf", to]);
    newer
}

#[test]
fn the_package_installs_starts_nothing_keeps_what_was_configured_and_purges_cleanly() {
    if !extras() {
        println!("not run: the package is installed into a fresh Debian under HUBSYNCD_TEST_EXTRAS=1");
        return;
    }
    let package = built();
    let fresh = Fresh::new();
    let before = fresh.shell("find / -xdev -name '*hubsyncd*' -not -path '/proc/*'");
    assert_eq!(before, "");

    let name = fresh.put(&package);
    fresh.dpkg("--install", &name);
    assert!(
        fresh.shell("getent passwd hubsyncd").contains("nologin"),
        "a user of its own"
    );
    assert_eq!(
        fresh.shell("stat -c '%a %U' /etc/hubsyncd/credentials"),
        "700 root\n"
    );
    fresh.shell("test -f /etc/hubsyncd/hubsyncd.toml -a -f /usr/lib/systemd/system/hubsyncd.service");
    fresh.shell(
        "test -f /usr/lib/systemd/system/hubsyncd-alert@.service -a -f /usr/share/doc/hubsyncd/README.md",
    );
    fresh.shell("test ! -e /etc/systemd/system/multi-user.target.wants/hubsyncd.service");
    let asked = fresh.asked();
    for verb in ["start hubsyncd", "restart hubsyncd", "enable"] {
        assert!(
            !asked.contains(verb),
            "an unconfigured daemon is not started: {asked}"
        );
    }
    assert!(
        fresh
            .shell("hubsyncd --version")
            .contains(env!("CARGO_PKG_VERSION"))
    );
    let shipped = fresh.shell("dpkg --listfiles hubsyncd");
    for path in [
        "/usr/share/man/man8/hubsyncd.8.gz",
        "/usr/share/bash-completion/completions/hubsyncd",
        "/usr/share/zsh/vendor-completions/_hubsyncd",
        "/usr/share/fish/vendor_completions.d/hubsyncd.fish",
        "/usr/share/doc/hubsyncd/cron-secret.conf",
    ] {
        assert!(
            shipped.lines().any(|line| line == path),
            "{path} is not in {shipped}"
        );
    }

    fresh.shell("echo '# ours' >> /etc/hubsyncd/hubsyncd.toml && echo secret > /etc/hubsyncd/credentials/database-url");
    let directory = tempfile::tempdir().unwrap();
    let name = fresh.put(&newer(&package, directory.path()));
    fresh.dpkg("--install", &name);
    let kept = "tail -1 /etc/hubsyncd/hubsyncd.toml && cat /etc/hubsyncd/credentials/database-url";
    assert_eq!(fresh.shell(kept), "# ours\nsecret\n");
    let asked = fresh.asked();
    assert!(asked.contains("restart hubsyncd.service"), "{asked}");
    let name = format!("/{}", package.file_name().unwrap().to_str().unwrap());
    fresh.inside(&["dpkg", "--force-downgrade", "--install", &name]);
    assert_eq!(
        fresh.shell(kept),
        "# ours\nsecret\n",
        "nor does a downgrade touch it"
    );
    fresh.asked();

    fresh.dpkg("--remove", "hubsyncd");
    assert_eq!(fresh.shell(kept), "# ours\nsecret\n", "removed is not purged");
    assert!(fresh.asked().contains("stop hubsyncd.service"));
    fresh.dpkg("--purge", "hubsyncd");
    let left = fresh.shell("find / -xdev -name '*hubsyncd*' -not -path '/proc/*' -not -name '*.deb'");
    assert_eq!(left, "", "nothing is left but the user");
}
