//! The demo, by the built binary: both ends agree, a difference is seen, and nothing stays behind, however it ends.

use crate::support::postgres::session;
use crate::support::wait_until;
use hubsyncd::sandbox::Settings;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long a demo of a few seconds may take on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(150);

/// A demo that runs, in a process group of its own as a shell would start it.
struct Demo {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Demo {
    fn start(arguments: &[&str]) -> Demo {
        Demo::of(Command::new(env!("CARGO_BIN_EXE_hubsyncd")).args(arguments))
    }

    fn of(command: &mut Command) -> Demo {
        let mut child = command
            // What is configured here is meant for a daemon that is none of the demo's.
            .env("HUBSYNCD_CONFIG", "/nowhere/hubsyncd.toml")
            .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing")
            .env("HUBSPOT_BASE_URL", "http://127.0.0.1:1")
            .env("HUBSYNCD_SOCKET", "/nowhere/hubsyncd.sock")
            .env("PGHOST", "/nowhere")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        keep(child.stdout.take().unwrap(), &lines);
        keep(child.stderr.take().unwrap(), &lines);
        Demo { child, lines }
    }

    fn said(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits for the first line that contains this text.
    async fn says(&mut self, text: &str) -> String {
        let begin = Instant::now();
        loop {
            if let Some(line) = self.said().into_iter().find(|line| line.contains(text)) {
                return line;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                begin.elapsed() < PATIENCE && ended.is_none(),
                "the demo does not say {text:?} ({ended:?}):\n{}",
                self.said().join("\n")
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The directory that holds everything of it, once it has said so.
    async fn directory(&mut self) -> PathBuf {
        let line = self.says("tail -f ").await;
        let log = line.split_once("tail -f ").unwrap().1;
        PathBuf::from(log).parent().unwrap().to_owned()
    }

    /// Waits until its users are at work; answers its directory.
    async fn at_work(&mut self) -> PathBuf {
        let directory = self.directory().await;
        self.says("at work").await;
        assert!(directory.exists() && !processes_of(&directory).is_empty());
        directory
    }

    /// Sends a signal to its whole process group, as a terminal does.
    fn signal(&self, name: &str) {
        let group = format!("-{}", self.child.id());
        let sent = Command::new("kill").args(["-s", name, "--", &group]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end; answers the exit code and everything it said.
    async fn ended(mut self) -> (Option<i32>, String) {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "the demo does not end:\n{}",
                self.said().join("\n")
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        wait_until("its output is read", async || Arc::strong_count(&self.lines) == 1).await;
        (status.code(), self.said().join("\n"))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps the lines of a pipe until it ends.
fn keep(pipe: impl std::io::Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    });
}

/// The processes, by id and command line, that name the directory of a demo.
fn processes_of(directory: &std::path::Path) -> Vec<(u32, String)> {
    let name = directory.display().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(&name).then_some((pid, line))
    });
    processes.collect()
}

/// Fails unless no process and no file of a demo is left, at once or after a moment.
async fn nothing_is_left(directory: &std::path::Path) {
    wait_until("no process and no file is left", async || {
        !directory.exists() && processes_of(directory).is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_demo_of_a_few_seconds_shows_everything_and_ends_with_both_ends_agreeing() {
    let mut demo = Demo::start(&["demo", "--seconds", "5", "--seed", "7"]);
    let directory = demo.at_work().await;
    let (code, said) = demo.ended().await;
    assert_eq!(code, Some(0), "{said}");
    for expected in [
        "seed 7",
        "psql 'postgres://",
        "curl --unix-socket",
        "first sweep is complete",
        " ms, p95 ",
        "INVALID_EMAIL",
        "has the same email and belongs to row",
        "the sweep is complete",
        "the office corrects",
        "0 differences",
    ] {
        assert!(said.contains(expected), "{expected:?} is missing:\n{said}");
    }
    assert!(said.ends_with("Both ends agree."), "{said}");
    assert!(
        !directory.exists() && processes_of(&directory).is_empty(),
        "something is left"
    );
}

#[tokio::test]
async fn ctrl_c_ends_the_demo_with_a_comparison_and_leaves_nothing() {
    let mut demo = Demo::start(&["demo"]);
    let directory = demo.at_work().await;
    demo.says(" changes, ").await;
    demo.signal("INT");
    let (code, said) = demo.ended().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("Both ends agree."), "{said}");
    assert!(
        !directory.exists() && processes_of(&directory).is_empty(),
        "something is left"
    );
}

#[tokio::test]
async fn sigterm_ends_the_demo_with_a_comparison_and_leaves_nothing() {
    let mut demo = Demo::start(&["demo", "--seconds", "600"]);
    let directory = demo.at_work().await;
    demo.signal("TERM");
    let (code, said) = demo.ended().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("Both ends agree."), "{said}");
    assert!(
        !directory.exists() && processes_of(&directory).is_empty(),
        "something is left"
    );
}

#[tokio::test]
async fn ctrl_c_while_the_demo_starts_leaves_nothing() {
    let mut demo = Demo::start(&["demo"]);
    let directory = demo.directory().await;
    demo.signal("INT");
    let (code, said) = demo.ended().await;
    // It may have begun meanwhile; then it compares.
    match code {
        Some(1) => assert!(said.ends_with("nothing was compared"), "{said}"),
        Some(0) => assert!(said.ends_with("Both ends agree."), "{said}"),
        _ => panic!("{code:?}: {said}"),
    }
    nothing_is_left(&directory).await;
}

#[tokio::test]
async fn a_killed_demo_leaves_nothing() {
    let mut demo = Demo::start(&["demo"]);
    let directory = demo.at_work().await;
    demo.child.kill().unwrap();
    demo.child.wait().unwrap();
    nothing_is_left(&directory).await;
}

#[tokio::test]
async fn a_daemon_that_dies_ends_the_demo_and_its_log_is_shown() {
    let mut demo = Demo::start(&["demo"]);
    let directory = demo.at_work().await;
    let daemon = processes_of(&directory)
        .into_iter()
        .find(|(_, line)| line.ends_with(" run ") && !line.starts_with("sh "))
        .unwrap();
    let killed = Command::new("kill")
        .args(["-s", "KILL", &daemon.0.to_string()])
        .status();
    assert!(killed.unwrap().success());
    let (code, said) = demo.ended().await;
    assert_eq!(code, Some(70), "{said}");
    assert!(
        said.contains("the daemon ended by itself") && said.contains("batch pushed"),
        "{said}"
    );
    nothing_is_left(&directory).await;
}

#[tokio::test]
async fn what_was_changed_in_hubspot_alone_is_reported_exactly() {
    let mut demo = Demo::start(&["demo"]);
    let directory = demo.at_work().await;
    let base = demo.says("a stand-in on http://").await;
    let base = base
        .split("http://")
        .nth(1)
        .unwrap()
        .split(',')
        .next()
        .unwrap()
        .to_owned();
    let url = demo.says("psql '").await;
    let database = session(url.split('\'').nth(1).unwrap()).await;
    let rows = database
        .query(
            "SELECT id::text, hubspot_id, contact_id FROM hubspot_sync.hubspot_bookings
             WHERE hubspot_id IS NOT NULL AND contact_id IS NOT NULL ORDER BY id LIMIT 2",
            &[],
        )
        .await
        .unwrap();
    let (unlinked, renamed): ([String; 3], [String; 3]) = (
        std::array::from_fn(|at| rows[0].get(at)),
        std::array::from_fn(|at| rows[1].get(at)),
    );
    let [key, id, contact] = &unlinked;
    // No sweep is asked for within the first ten seconds, and a create-only property is never written again.
    post(
        &base,
        "/crm/associations/2026-09/2-50158943/0-1/batch/archive",
        &format!(r#"{{"inputs":[{{"from":{{"id":"{id}"}},"to":[{{"id":"{contact}"}}]}}]}}"#),
    )
    .await;
    post(
        &base,
        "/crm/objects/2026-09/2-50158943/batch/update",
        &format!(
            r#"{{"inputs":[{{"id":"{}","properties":{{"student_name":"X"}}}}]}}"#,
            renamed[1]
        ),
    )
    .await;
    drop(database);
    demo.signal("INT");
    let (code, said) = demo.ended().await;
    let mut differences: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("  differs: "))
        .collect();
    differences.sort_unstable();
    let mut expected = [
        format!("bookings {key}: the association with contacts {contact} is missing"),
        format!("bookings {}: student_name differs", renamed[0]),
    ];
    expected.sort_unstable();
    assert_eq!(differences, expected, "{said}");
    assert_eq!(code, Some(1));
    assert!(said.ends_with("The ends do not agree: 2 differences."), "{said}");
    nothing_is_left(&directory).await;
}

/// Asks the sandbox as HubSpot is asked.
async fn post(base: &str, path: &str, body: &str) {
    let token = Settings::default().token;
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {base}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut stream = tokio::net::TcpStream::connect(base).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
}

#[tokio::test]
async fn an_ordinary_user_can_run_the_demo() {
    let who = Command::new("id").arg("-u").output().unwrap();
    if who.stdout.trim_ascii() != b"0" {
        println!("not run as nobody: every other test here is run by an ordinary user already");
        return;
    }
    // The build directory may be one that only root can enter.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("hubsyncd");
    fs::copy(env!("CARGO_BIN_EXE_hubsyncd"), &program).unwrap();
    let mut demo = Demo::of(
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(&program)
            .args(["demo", "--seconds", "2"])
            .current_dir("/")
            .env_remove("TMPDIR"),
    );
    let place = demo.at_work().await;
    let (code, said) = demo.ended().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("Both ends agree."), "{said}");
    assert!(
        !place.exists() && processes_of(&place).is_empty(),
        "something is left"
    );
}
