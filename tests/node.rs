//! HubSpot's official Node.js client works against the sandbox.
//!
//! What the client sends and expects was not written by us; if it is content, the sandbox speaks HubSpot.

use hubsyncd::sandbox::{Sandbox, Settings};
use std::path::Path;
use std::process::{Command, Output};

const BOOKINGS: &str = "2-50158943";

#[tokio::test]
async fn the_official_node_client_works_against_the_sandbox() {
    if std::env::var("HUBSYNCD_TEST_EXTRAS").as_deref() != Ok("1") {
        println!("not run: the official Node.js client (set HUBSYNCD_TEST_EXTRAS=1; it needs node and npm)");
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node");
    if !folder.join("node_modules").is_dir() {
        shown("npm ci", run("npm", &["ci"], &folder));
    }
    let sandbox = Sandbox::tutoring(Settings::default()).await.unwrap();
    sandbox.world().label(BOOKINGS, "0-1", "Guardian");
    let (url, token) = (sandbox.base_url(), sandbox.token().to_owned());
    // The sandbox answers on threads of its own, so this one may wait.
    shown(
        "node check.mjs",
        run("node", &["check.mjs", &url, &token], &folder),
    );
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
