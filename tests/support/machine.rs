//! A machine as its operator finds it: the files of an installation below a directory of its own, and stand-ins for the
//! programs that want root or systemd (`machine/`), so that the README's lines can be run as they are written.

use super::daemon::Stage;
use super::extras;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The repository.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// How long a block of lines may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// What the lines name by an absolute path, and the tests keep below the machine's directory.
const PLACES: [&str; 5] = [
    "/etc/",
    "/run/hubsyncd",
    "/usr/local/bin",
    "/usr/share/doc",
    "/usr/lib/",
];

/// A directory that stands for `/`, and what its operator has in the environment.
pub struct Machine {
    root: TempDir,
    environment: Vec<(String, String)>,
    /// Words of the lines that mean something else here.
    pub instead: Vec<(String, String)>,
}

impl Machine {
    /// Nothing is installed; the lines are run in a checkout of the repository, where the program has been built.
    pub fn empty() -> Machine {
        let root = tempfile::tempdir().unwrap();
        let machine = Machine {
            root,
            environment: Vec::new(),
            instead: Vec::new(),
        };
        let checkout = machine.path("/checkout");
        std::fs::create_dir_all(checkout.join("target/release")).unwrap();
        for name in ["README.md", "systemd", "sql"] {
            std::os::unix::fs::symlink(Path::new(ROOT).join(name), checkout.join(name)).unwrap();
        }
        let program = env!("CARGO_BIN_EXE_hubsyncd");
        std::os::unix::fs::symlink(program, checkout.join("target/release/hubsyncd")).unwrap();
        for place in [
            "/etc",
            "/run",
            "/usr/local/bin",
            "/usr/lib/sysusers.d",
            "/etc/systemd/system",
        ] {
            std::fs::create_dir_all(machine.path(place)).unwrap();
        }
        // The verbs are told of this file, which is as good as none.
        machine.write("/etc/hubsyncd/hubsyncd.toml", "");
        machine
    }

    /// The package is installed and configured for a stage; the daemon does not run yet.
    pub fn of(stage: &Stage) -> Machine {
        let mut machine = Machine::empty();
        let program = machine.path("/usr/local/bin/hubsyncd");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hubsyncd"), program).unwrap();
        for unit in ["hubsyncd.service", "hubsyncd-alert@.service"] {
            let text = std::fs::read_to_string(Path::new(ROOT).join("systemd").join(unit)).unwrap();
            machine.write(&format!("/usr/lib/systemd/system/{unit}"), &text);
        }
        let base = format!("[hubspot]\nbase-url = \"{}\"\n", stage.sandbox.base_url());
        machine.write("/etc/hubsyncd/hubsyncd.toml", &(base + &stage.toml));
        machine.write(
            "/etc/hubsyncd/credentials/hubspot-access-token",
            stage.sandbox.token(),
        );
        machine.write(
            "/etc/hubsyncd/credentials/database-url",
            &stage.database.url_as("hubsyncd"),
        );
        machine.set("OWNER_URL", &stage.database.url_as("app_owner"));
        machine
    }

    /// Sets a variable of the operator's environment.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Where a path of the machine is.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    /// Writes a file of the machine.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Reads a file of the machine.
    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// What the daemon logged.
    pub fn journal(&self) -> String {
        self.read("/run/systemd/journal")
    }

    /// Runs lines that must succeed, every one, with what is typed into them; answers what they said.
    pub async fn runs(&self, lines: &str, typed: &str) -> String {
        let (code, said) = self.tries(lines, typed).await;
        assert_eq!(
            code,
            0,
            "{lines}\n--- said:\n{said}--- the daemon's log:\n{}",
            self.journal()
        );
        said
    }

    /// Runs lines until one fails; answers its exit code and what all of them said.
    pub async fn tries(&self, lines: &str, typed: &str) -> (i32, String) {
        let mut command = self.shell(lines);
        let (said, input) = (self.path("/said"), self.path("/typed"));
        std::fs::write(&input, typed).unwrap();
        let file = std::fs::File::create(&said).unwrap();
        command
            .stdin(std::fs::File::open(&input).unwrap())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        let code = tokio::task::spawn_blocking(move || finish(&mut command))
            .await
            .unwrap();
        (code, std::fs::read_to_string(said).unwrap())
    }

    fn shell(&self, lines: &str) -> Command {
        let programs = Path::new(ROOT).join("tests/support/machine");
        let path = [
            self.path("/usr/local/bin"),
            programs,
            "/usr/bin".into(),
            "/bin".into(),
            "/usr/sbin".into(),
        ];
        let path = std::env::join_paths(path).unwrap();
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", &self.rooted(lines)])
            .current_dir(self.path("/checkout"))
            .env_clear()
            .env("PATH", path)
            .env("MACHINE", self.root.path())
            .env("HUBSYNCD_CONFIG", self.path("/etc/hubsyncd/hubsyncd.toml"))
            .env("HUBSYNCD_SOCKET", self.path("/run/hubsyncd/hubsyncd.sock"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .process_group(0);
        command
    }

    /// The lines with their absolute paths below the machine's directory.
    fn rooted(&self, lines: &str) -> String {
        let mut lines = lines.to_owned();
        for (word, here) in &self.instead {
            assert!(lines.contains(word), "{word} is not in {lines}");
            lines = lines.replace(word, here);
        }
        for place in PLACES {
            let here = format!("{}{place}", self.root.path().display());
            for before in [" ", "=", "<", ">", "\"", "'"] {
                lines = lines.replace(&format!("{before}{place}"), &format!("{before}{here}"));
            }
        }
        lines
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let alive = !self.path("/run/systemd/exit").exists();
        if let (true, Ok(pid)) = (alive, self.read("/run/systemd/pid").trim().parse::<u32>()) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

/// Runs a shell to its end and ends what it left running in its process group.
fn finish(command: &mut Command) -> i32 {
    let mut shell = command.spawn().unwrap();
    let group = format!("-{}", shell.id());
    let begin = Instant::now();
    let code = loop {
        if let Some(status) = shell.try_wait().unwrap() {
            break status.code().unwrap_or(-1);
        }
        if begin.elapsed() > PATIENCE {
            break -1;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut end = Command::new("kill");
    let _ = end
        .args(["-9", "--", &group])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let _ = shell.wait();
    code
}

/// The README.
pub fn readme() -> String {
    std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap()
}

/// A section of the README: what stands below its heading, up to the next heading of its level or a higher one.
pub struct Section {
    /// The heading's words.
    pub heading: String,
    /// Its anchor, as those who show Markdown make it.
    pub anchor: String,
    /// How deep it is: 2 for `##`.
    pub level: usize,
    /// The text.
    pub text: String,
}

/// The sections of a Markdown text in their order, deeper ones after those that hold them.
pub fn sections(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let (mut open, mut is_code): (Vec<usize>, bool) = (Vec::new(), false);
    for line in text.lines() {
        is_code ^= line.starts_with("```");
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        if !is_code && level > 0 && line[level..].starts_with(' ') {
            open.retain(|at| sections[*at].level < level);
            let heading = line[level..].trim().to_owned();
            open.push(sections.len());
            sections.push(Section {
                anchor: anchor(&heading),
                heading,
                level,
                text: String::new(),
            });
        } else {
            for at in &open {
                sections[*at].text.push_str(line);
                sections[*at].text.push('\n');
            }
        }
    }
    sections
}

/// The anchor of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept
        .chars()
        .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-');
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The blocks of shell lines in a text.
pub fn blocks(text: &str) -> Vec<String> {
    let parts = text.split("```sh\n").skip(1);
    parts
        .map(|part| part.split("```").next().unwrap().to_owned())
        .collect()
}

/// Whether a program is on this machine; under the extras it must be.
pub fn have(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status();
    let found = found.is_ok_and(|status| status.success());
    assert!(found || !extras(), "HUBSYNCD_TEST_EXTRAS=1 wants {program}");
    found
}
