//! The mirror as a whole: a portal is pulled, changes in every way a portal can, and is pulled again; then every record
//! and every association here is what HubSpot has, and none is here that is not there.
//!
//! Small with the other tests. As large as the measurements of the README are, with figures on stderr:
//!
//! ```sh
//! HUBSYNCD_MIRROR=100000,20000,20000 cargo test --release --test all -- --nocapture mirrored_whole::
//! ```
//!
//! With `HUBSYNCD_DLT` (a Python that has `dlt[postgres]`) the same portal is copied by dlt in the same run.

use super::support::daemon::{Daemon, QUICK, Stage};
use super::support::wait_within;
use hubsyncd::sandbox::{Endpoint, Population, Record, Settings, World};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// What is mirrored: name, type, the property that says when a record was modified.
const KINDS: [(&str, &str, &str); 3] = [
    ("contacts", "0-1", "lastmodifieddate"),
    ("companies", "0-2", "hs_lastmodifieddate"),
    ("deals", "0-3", "hs_lastmodifieddate"),
];
/// Properties that the portal works out by itself.
const WORKED_OUT: [&str; 5] = [
    "hs_object_id",
    "createdate",
    "lastmodifieddate",
    "hs_lastmodifieddate",
    "hs_merged_object_ids",
];
/// Nothing of the pace in the way: what is measured is the mirror.
const UNHURRIED: &str = "[hubspot]\nrequests = 10000\nwindow = \"1s\"\n";
/// The most resident memory that the daemon may ever have taken, in megabytes.
const MEMORY_MAX: f64 = 50.0;
const PATIENCE: Duration = Duration::from_secs(600);
/// Records of a listed page, associated records that stand beside a record in it, and in a page of their own.
const LISTED: usize = 100;
const BESIDE: usize = 100;
const LINKED: usize = 500;

fn toml(every: &str) -> String {
    format!("{QUICK}{UNHURRIED}[mirror]\nevery = \"{every}\"\nfull-every = \"12h\"\n")
}

fn population() -> Population {
    let given = std::env::var("HUBSYNCD_MIRROR").unwrap_or_else(|_| "1200,150,150".to_owned());
    let counts: Vec<usize> = given
        .split(',')
        .map(|count| count.trim().parse().unwrap())
        .collect();
    let [contacts, companies, deals] = counts[..] else {
        panic!("HUBSYNCD_MIRROR is three numbers: contacts,companies,deals");
    };
    Population {
        contacts,
        companies,
        deals,
    }
}

#[tokio::test]
async fn after_changes_deletions_and_merges_the_mirror_is_what_hubspot_has() {
    let population = population();
    let mut stage = Stage::with("mirror_whole", Settings::default(), &toml("10h")).await;
    stage.sandbox.world().populate(population);
    let minimum = fewest_requests(&stage.sandbox.world());
    let daemon = stage.start().await;
    let begun = Instant::now();
    let pulled = pull(&daemon).await;
    let first = Figures::since(&stage, &daemon, begun, 0);
    assert_eq!(pulled["success"], true, "{pulled}");
    first.tell("full pass into empty tables", minimum);
    assert_eq!(differences(&stage, Strictly::Yes).await, Vec::<String>::new());

    let before = stage.sandbox.world().now_ms();
    upheaval(&mut stage.sandbox.world(), population);
    let changed_at = stage.sandbox.world().now_ms();
    let asked = stage.sandbox.world().count(Endpoint::Any);
    let begun = Instant::now();
    configure(&mut stage, &daemon, "1s").await;
    wait_within(PATIENCE, "an incremental pass has caught up", async || {
        let status = daemon.status().await;
        KINDS.iter().all(|(kind, ..)| {
            let at = status["mirror"]["kinds"][kind]["caught_up_at"].as_str();
            let at: Option<jiff::Timestamp> = at.and_then(|at| at.parse().ok());
            at.is_some_and(|at| at.as_millisecond() > changed_at + 1_000)
        })
    })
    .await;
    configure(&mut stage, &daemon, "10h").await;
    let incremental = Figures::since(&stage, &daemon, begun, asked);
    incremental.tell("incremental passes", 0);
    assert_eq!(
        differences(&stage, Strictly::ForTheModified(before)).await,
        Vec::<String>::new()
    );

    let asked = stage.sandbox.world().count(Endpoint::Any);
    let minimum = fewest_requests(&stage.sandbox.world());
    let begun = Instant::now();
    let pulled = pull(&daemon).await;
    assert_eq!(pulled["success"], true, "{pulled}");
    let second = Figures::since(&stage, &daemon, begun, asked);
    second.tell("full pass over what is known", minimum);
    assert_eq!(differences(&stage, Strictly::Yes).await, Vec::<String>::new());
    assert!(
        second.megabytes < MEMORY_MAX,
        "the daemon took {} MB",
        second.megabytes
    );
    // A pass asks for properties and for what changed while it went, besides the pages.
    let asked = first.requests;
    assert!(
        asked >= minimum || asked == 0,
        "{asked} requests cannot be fewer than {minimum}"
    );
    peer(&stage, population).await;
}

/// Asks for everything and waits for its end.
async fn pull(daemon: &Daemon) -> Value {
    let (code, text) = daemon.post("/api/admin/hubspot/sync/all").await;
    assert_eq!(code, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Takes another period of incremental passes.
async fn configure(stage: &mut Stage, daemon: &Daemon, every: &str) {
    stage.toml = stage.toml.replace("every = \"1s\"", "every = \"10h\"");
    stage.toml = stage
        .toml
        .replacen("every = \"10h\"", &format!("every = \"{every}\""), 1);
    // Writes the file.
    let _ = stage.command("daemon");
    let (code, text) = daemon.post("/reload").await;
    assert_eq!(code, 200, "{text}");
}

/// Everything that can happen to a portal, to some of each kind.
fn upheaval(world: &mut World, population: Population) {
    let ids = |world: &World, kind: &str| -> Vec<String> { world.records(kind).map(Record::id).collect() };
    let contacts = ids(world, "0-1");
    // A job of HubSpot's, larger than a search reaches if the portal is large enough for that.
    let stamped = contacts.iter().take(population.contacts / 8).map(String::as_str);
    world.stamp("0-1", stamped);
    for (_, object, _) in KINDS {
        let all = ids(world, object);
        let (property, other) = match object {
            "0-1" => ("firstname", "jobtitle"),
            "0-2" => ("name", "industry"),
            _ => ("dealname", "amount"),
        };
        for id in all.iter().skip(3).step_by(97) {
            world.set(object, id, property, "Änderung \"mit\" \\ und 𝄞");
            world.set(object, id, other, "");
        }
        for id in all.iter().skip(5).step_by(101) {
            world.archive(object, id);
        }
        for id in all.iter().skip(7).step_by(211) {
            world.purge(object, id);
        }
        let left = ids(world, object);
        for pair in left.chunks(2).skip(4).step_by(89).filter(|pair| pair.len() == 2) {
            world.merge(object, &pair[0], &pair[1]);
        }
    }
    let (contacts, companies, deals) = (ids(world, "0-1"), ids(world, "0-2"), ids(world, "0-3"));
    for number in 0..population.contacts / 100 {
        let email = format!("new.{number}@example.com");
        let new = world.create("0-1", [("email", email.as_str()), ("lastname", "Neu")]);
        world.associate(("0-1", &new), ("0-2", &companies[number % companies.len()]));
        let deal = world.create("0-3", [("dealname", email.as_str()), ("amount", "1")]);
        world.associate(("0-3", &deal), ("0-1", &new));
    }
    // What comes and goes between records that are otherwise as they were.
    for (contact, deal) in contacts.iter().step_by(53).zip(deals.iter().cycle()) {
        world.associate(("0-1", contact), ("0-3", deal));
    }
    for contact in contacts.iter().step_by(59) {
        for company in world.associations("0-1", contact, "0-2") {
            world.dissociate(("0-1", contact), ("0-2", &company.to));
        }
    }
}

/// The pages without which nobody can know all of a portal: its lists, and what is too long to stand beside a record.
fn fewest_requests(world: &World) -> u64 {
    let mut pages = 0;
    for (_, object, _) in KINDS {
        pages += world.records(object).count().div_ceil(LISTED).max(1);
        for record in world.records(object) {
            for (_, other, _) in KINDS.iter().filter(|(_, other, _)| *other != object) {
                let linked = world.associations(object, &record.id(), other).len();
                pages += linked.saturating_sub(BESIDE).div_ceil(LINKED);
            }
        }
    }
    pages as u64
}

/// What may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strictly {
    /// Nothing.
    Yes,
    /// What incremental passes cannot see. They ask HubSpot for what was modified at this time (milliseconds) or later, so
    /// a record that is gone is still here: a search shows nothing of it. And HubSpot does not count an association as a
    /// modification: what a record is associated with is read when the record itself was modified, and is compared for
    /// those; what came or went at a record that is otherwise as it was, the next full pass finds.
    ForTheModified(i64),
}

impl Strictly {
    fn compares(self, record: &Record) -> bool {
        match self {
            Strictly::Yes => true,
            Strictly::ForTheModified(since) => record.updated_ms() >= since,
        }
    }
}

/// Where the mirror differs from the portal, at most a few of each kind.
async fn differences(stage: &Stage, strictly: Strictly) -> Vec<String> {
    let session = stage.database.session().await;
    let mut found = Vec::new();
    for (kind, object, modified) in KINDS {
        let sql = format!(
            "SELECT hubspot_id, properties::text, (extract(epoch FROM hubspot_updated_at) * 1000)::bigint, sync_status \
             FROM hubsyncd.mirrored_{kind}"
        );
        let rows = session.query(&sql, &[]).await.unwrap();
        let mut here: BTreeMap<String, (String, Option<i64>, String)> = rows
            .iter()
            .map(|row| (row.get(0), (row.get(1), row.get(2), row.get(3))))
            .collect();
        let world = stage.sandbox.world();
        for record in world.records(object) {
            match here.remove(&record.id()) {
                None => found.push(format!("{kind} {} is missing", record.id())),
                Some((properties, updated, status)) => {
                    let told: BTreeMap<String, Option<String>> = serde_json::from_str(&properties).unwrap();
                    if !same(record, &told) || updated != Some(record.updated_ms()) || status != "synced" {
                        found.push(format!(
                            "{kind} {} ({modified}) differs: {status} {told:?}",
                            record.id()
                        ));
                    }
                }
            }
        }
        if strictly == Strictly::Yes {
            found.extend(
                here.keys()
                    .map(|id| format!("{kind} {id} is gone and still here")),
            );
        }
    }
    found.extend(links(stage, &session, strictly).await);
    let more = found.len();
    found.truncate(8);
    if more > 8 {
        found.push(format!("and {} more", more - 8));
    }
    found
}

/// Whether a record's properties are those that the portal has, whatever is not set being null or absent.
fn same(record: &Record, told: &BTreeMap<String, Option<String>>) -> bool {
    let set: BTreeMap<&str, &str> = told
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?)))
        .filter(|(name, _)| !WORKED_OUT.contains(name))
        .collect();
    let held: BTreeMap<&str, &str> = record
        .values()
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    let id = told.get("hs_object_id").cloned().flatten();
    set == held && id == Some(record.id())
}

async fn links(stage: &Stage, session: &hubsyncd::postgres::Session, strictly: Strictly) -> Vec<String> {
    let sql = "SELECT from_kind, from_id, to_kind, to_id FROM hubsyncd.mirror_association";
    let rows = session.query(sql, &[]).await.unwrap();
    let mut here: BTreeSet<[String; 4]> = rows
        .iter()
        .map(|row| [row.get(0), row.get(1), row.get(2), row.get(3)])
        .collect();
    let mut there = BTreeSet::new();
    let mut compared = BTreeSet::new();
    let world = stage.sandbox.world();
    for (kind, object, _) in KINDS {
        for record in world.records(object).filter(|record| strictly.compares(record)) {
            compared.insert((kind, record.id()));
            for (other, to, _) in KINDS {
                for link in world.associations(object, &record.id(), to) {
                    there.insert([kind.to_owned(), record.id(), other.to_owned(), link.to]);
                }
            }
        }
    }
    if strictly != Strictly::Yes {
        assert!(compared.len() > 100, "most of the upheaval modifies records");
        here.retain(|[kind, id, ..]| compared.contains(&(kind.as_str(), id.clone())));
    }
    let missing = there.difference(&here).map(|link| format!("{link:?} is missing"));
    let gone = here
        .difference(&there)
        .map(|link| format!("{link:?} is gone and still here"));
    missing.chain(gone).collect()
}

/// What a pass took.
struct Figures {
    seconds: f64,
    cpu_seconds: f64,
    /// The most the process ever had in memory.
    megabytes: f64,
    requests: u64,
}

impl Figures {
    fn since(stage: &Stage, daemon: &Daemon, begun: Instant, asked: u64) -> Figures {
        let process = Path::new("/proc").join(daemon.pid().to_string());
        let status = std::fs::read_to_string(process.join("status")).unwrap();
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        let kilobytes: f64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        let stat = std::fs::read_to_string(process.join("stat")).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks = fields.split(' ').skip(11).take(2);
        let ticks: f64 = ticks.map(|ticks| ticks.parse::<f64>().unwrap()).sum();
        Figures {
            seconds: begun.elapsed().as_secs_f64(),
            cpu_seconds: ticks / 100.0,
            megabytes: kilobytes / 1024.0,
            requests: stage.sandbox.world().count(Endpoint::Any) - asked,
        }
    }

    fn tell(&self, what: &str, minimum: u64) {
        let Figures {
            seconds,
            cpu_seconds,
            megabytes,
            requests,
        } = self;
        let fewest = match minimum {
            0 => String::new(),
            minimum => format!(" of at least {minimum}"),
        };
        eprintln!(
            "{what}: {seconds:.2} s, {requests} requests{fewest}; the daemon so far: {cpu_seconds:.2} CPU-seconds, \
             {megabytes:.1} MB at most"
        );
    }
}

/// What dlt makes of the same portal, if there is a Python that has it.
async fn peer(stage: &Stage, population: Population) {
    let Some(python) = std::env::var_os("HUBSYNCD_DLT") else {
        eprintln!("dlt was not run: HUBSYNCD_DLT names no Python that has it");
        return;
    };
    let url = stage.database.url();
    let (place, query) = url.split_once('?').unwrap();
    // It wants a host and a password, and takes neither.
    let database = place.rsplit('/').next().unwrap();
    let port = query.rsplit("port=").next().unwrap();
    let url = format!("postgresql://postgres:none@localhost:{port}/{database}?{query}");
    let run = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mirror/dlt_peer.py"))
        .args([stage.sandbox.base_url(), url])
        .env("HUBSPOT_ACCESS_TOKEN", stage.sandbox.token())
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "dlt: {said} {errors}");
    let told: Value = serde_json::from_str(said.lines().last().unwrap_or_default()).unwrap();
    eprintln!("dlt, full load of the same portal, its three lists alone: {told}");
    assert!(
        told["records"].as_u64().unwrap() as usize > population.contacts / 2,
        "{told}"
    );
}
