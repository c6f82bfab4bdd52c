//! The README's first steps, from an empty machine to a running service and back, line by line.

use super::support::machine::{Machine, blocks, have, readme, sections};
use hubsyncd::cli::cluster::{Cluster, Options};

#[tokio::test]
async fn the_readmes_first_steps_lead_from_an_empty_machine_to_a_running_service_and_back() {
    if !have("psql") || !have("curl") {
        println!("not run: psql and curl are wanted");
        return;
    }
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(Options::default()).unwrap());
    let cluster = cluster.await.unwrap();
    let mut machine = Machine::empty();
    machine.set("PGHOST", cluster.directory().to_str().unwrap());
    let readme = readme();
    let all = sections(&readme);
    let first = all
        .iter()
        .find(|section| section.anchor == "first-steps")
        .unwrap();
    let lines = blocks(&first.text).concat();
    let socket = cluster.directory().to_str().unwrap().to_owned();
    machine.instead.push(("/var/run/postgresql".to_owned(), socket));
    // Somebody else's sandbox may have the port.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let port = ("--port 8025".to_owned(), format!("--port {}", free.port()));
    machine.instead.push(port);
    let said = machine.runs(&lines, "").await;
    for part in ["installed ", "S-1", "this daemon pushes", "removed "] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let asked = machine.read("/asked-of-apt");
    assert_eq!(asked, "update\ninstall -y postgresql curl\n");
    assert_eq!(machine.read("/users"), "hubsyncd\n");
    for installed in [
        "/usr/local/bin/hubsyncd",
        "/usr/share/doc/hubsyncd/README.md",
        "/etc/systemd/system/hubsyncd-alert@.service",
    ] {
        assert!(machine.path(installed).exists(), "{installed}");
    }
    assert_eq!(machine.read("/run/systemd/exit").trim(), "0");
}
