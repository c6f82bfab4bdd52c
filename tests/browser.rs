//! The dashboard in a real browser, as operators use it: over the socket through a tunnel, and over TCP.

use crate::bearer::address;
use crate::hostile::things;
use crate::support::proxy::Proxy;
use crate::support::{extras, wait_until};
use std::path::Path;
use std::process::{Command, Output};

const SECRET: &str = "s3cret-of-the-cron";
const THINGS: &str = "2-70003";
/// What a hostile application calls a row; each part would be noticed if a browser took it for more than text.
const HOSTILE: &str =
    "<script>document.title = \"owned\"</script><img src=x onerror=\"document.title='owned'\">' -->";

#[tokio::test]
async fn in_a_browser_the_dashboard_shows_failures_retries_them_and_no_other_site_or_row_can_act() {
    if !extras() {
        println!(
            "not run: the dashboard in Chromium (set HUBSYNCD_TEST_EXTRAS=1; it needs chromium, node and npm)"
        );
        return;
    }
    let mut stage = things("browser").await;
    stage.set("CRON_SECRET", SECRET);
    stage.toml = format!("[http]\nlisten = \"127.0.0.1:0\"\n{}", stage.toml);
    stage
        .sandbox
        .refuse_record(THINGS, "label", "refused for a while", None);
    let daemon = stage.start().await;
    let hostile = HOSTILE.replace('\'', "''");
    stage
        .app(&format!(
            "INSERT INTO thing (k, label, amount) VALUES ('plain', 'refused for a while', '1'), \
             ('{hostile}', 'x{hostile}', 'no number {hostile}'), ('good', 'good', '2')"
        ))
        .await;
    wait_until("two records are refused", async || {
        daemon.status().await["failures"] == 2
    })
    .await;
    // From now on only the hostile row is refused.
    stage.sandbox.clear_faults();
    let tunnel = Proxy::to_socket(daemon.socket());
    let over_tcp = format!("http://{}", address(&daemon).await);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    if !folder.join("node_modules").is_dir() {
        shown("npm ci", run("npm", &["ci"], &folder));
    }
    let arguments = ["check.mjs", &tunnel.base_url(), &over_tcp, SECRET, HOSTILE];
    let checked = run("node", &arguments, &folder);
    let runs = "SELECT count(*) || ' ' || coalesce(string_agg(DISTINCT reason, ' '), '') FROM hubsyncd.run";
    let ran = stage.value(runs).await;
    shown("node check.mjs", checked);
    // The one sweep is that of the button; what other sites sent began none.
    assert_eq!(ran.as_deref(), Some("1 socket"));
    assert!(
        stage
            .sandbox
            .world()
            .find(THINGS, "label", "refused for a while")
            .is_some()
    );
    assert!(!daemon.log().contains(SECRET), "the secret is in the log");
    assert_eq!(daemon.stop().await, Some(0));
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> Output {
    let ran = Command::new(program).args(arguments).current_dir(folder).output();
    ran.unwrap_or_else(|error| panic!("{program} cannot be started: {error}"))
}

fn shown(what: &str, output: Output) {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    println!("{out}");
    assert!(
        output.status.success(),
        "{what} failed: {}\n{out}\n{err}",
        output.status
    );
}
