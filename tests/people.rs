//! The verbs for people: manual page, completions, a status that is watched, and what a terminal gets that a pipe does not.

use super::support::served::{Desk, Served};
use super::support::wait_until;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

/// The built program in an environment of its own.
fn hubsyncd(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hubsyncd"));
    command
        .args(arguments)
        .env_clear()
        .kill_on_drop(true)
        .stdin(Stdio::null());
    command
}

async fn finish(command: &mut Command) -> (i32, String, String) {
    let ended = tokio::time::timeout(Duration::from_secs(60), command.output());
    let Output {
        status,
        stdout,
        stderr,
    } = ended.await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[tokio::test]
async fn the_manual_page_and_completions_know_every_verb_and_option() {
    let (code, help, _) = finish(&mut hubsyncd(&["--help"])).await;
    assert_eq!(code, 0);
    let verbs: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')))
        .filter_map(|line| line.split(' ').next().filter(|verb| *verb != "help"))
        .collect();
    assert!(verbs.len() >= 12, "{help}");
    let (code, page, stderr) = finish(&mut hubsyncd(&["man"])).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(page.contains(".TH hubsyncd 8"), "{page}");
    for verb in &verbs {
        assert!(
            page.contains(&format!(".SS \"hubsyncd {verb}\"\n")),
            "{verb}: {page}"
        );
    }
    for part in [
        ".SH \"EXIT STATUS\"",
        "\\-\\-uninstall",
        "\\-\\-adopt\\-portal",
        "SIGUSR1",
        "\\-\\-watch",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    for (shell, sign) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef hubsyncd"),
        ("fish", "complete -c hubsyncd"),
    ] {
        let (code, script, _) = finish(&mut hubsyncd(&["completions", shell])).await;
        assert!(code == 0 && script.contains(sign), "{shell}: {script}");
        for verb in &verbs {
            assert!(
                script.contains(verb),
                "{verb} is not in the completions of {shell}"
            );
        }
    }
    assert_eq!(finish(&mut hubsyncd(&["completions", "teletype"])).await.0, 64);
}

#[tokio::test]
async fn bash_completes_verbs_and_options() {
    let (_, script, _) = finish(&mut hubsyncd(&["completions", "bash"])).await;
    let ask = "source /dev/stdin; COMP_WORDS=(hubsyncd stat); COMP_CWORD=1; _hubsyncd hubsyncd stat hubsyncd; \
               echo ${COMPREPLY[@]}; COMP_WORDS=(hubsyncd status --wa); COMP_CWORD=2; \
               _hubsyncd hubsyncd --wa status; echo ${COMPREPLY[@]}";
    let mut bash = Command::new("bash")
        .args(["--norc", "-c", ask])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    bash.stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .await
        .unwrap();
    let output = bash.wait_with_output().await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "status\n--watch\n");
}

#[tokio::test]
async fn a_watched_status_goes_on_through_a_restart_and_ends_with_its_reader() {
    let served = Served::start(Desk::new("complete", None));
    let socket = served.settings.socket.clone();
    let mut command = hubsyncd(&["status", "--watch", "--json"]);
    command
        .env("HUBSYNCD_SOCKET", &socket)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
    let soon = Duration::from_secs(20);
    for _ in 0..2 {
        let line = tokio::time::timeout(soon, lines.next_line())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        let status: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    }
    let directory = socket.parent().unwrap().to_owned();
    let away = directory.join("away");
    std::fs::rename(&socket, &away).unwrap();
    let said = tokio::time::timeout(soon, errors.next_line())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(said.contains("cannot be reached"), "{said}");
    std::fs::rename(&away, &socket).unwrap();
    let line = tokio::time::timeout(soon, lines.next_line())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(line.starts_with('{'), "{line}");
    drop(lines);
    let ended = tokio::time::timeout(soon, child.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(0));
    let mut command = hubsyncd(&["status", "--watch"]);
    let (code, _, stderr) = finish(command.env("HUBSYNCD_SOCKET", away.with_extension("no"))).await;
    assert_eq!(code, 69, "a daemon that was never there: {stderr}");
}

#[tokio::test]
async fn on_a_terminal_the_status_has_heads_and_colour_and_is_watched_in_place() {
    let served = Served::start(Desk::new("complete", None));
    served.in_step();
    let program = env!("CARGO_BIN_EXE_hubsyncd");
    let in_terminal = |line: &str, into: &str| {
        let mut command = Command::new("script");
        command
            .args(["-qfec", &format!("{program} {line}"), into])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("TERM", "xterm")
            .env("HUBSYNCD_SOCKET", &served.settings.socket)
            .stdin(Stdio::null());
        command
    };
    let terminal = async |line: &str, environment: &[(&str, &str)]| {
        let mut command = in_terminal(line, "/dev/null");
        command.envs(environment.iter().copied());
        finish(&mut command).await.1
    };
    let shown = terminal("status", &[]).await;
    assert!(
        shown.contains("\x1b[2mOBJECT") && shown.contains("bookings"),
        "{shown:?}"
    );
    let shown = terminal("status", &[("NO_COLOR", "1")]).await;
    assert!(shown.contains("OBJECT") && !shown.contains('\x1b'), "{shown:?}");
    let shown = tempfile::NamedTempFile::new().unwrap();
    let mut watching = in_terminal("status --watch", shown.path().to_str().unwrap());
    let mut watching = watching.stdout(Stdio::null()).spawn().unwrap();
    wait_until("it is drawn twice in place", async || {
        let shown = std::fs::read(shown.path()).unwrap();
        let shown = String::from_utf8_lossy(&shown);
        shown.matches("\x1b[Hhealth").count() >= 2
    })
    .await;
    watching.kill().await.unwrap();
}
