//! The rooms of `src/` and who may know whom, read from the source.
//!
//! What a comment or a test module says counts for nothing.

use std::collections::BTreeMap;
use std::path::Path;

/// A source file: its path below `src/`, and its code without comments and test modules.
struct Source {
    path: String,
    code: String,
}

impl Source {
    fn room(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap()
    }

    /// Whether a name stands in the code as a word of its own.
    fn names(&self, word: &str) -> bool {
        let part_of_word = |letter: char| letter.is_alphanumeric() || letter == '_';
        self.code.match_indices(word).any(|(at, _)| {
            let before = self.code[..at].chars().next_back();
            let after = self.code[at + word.len()..].chars().next();
            !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
        })
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &root, &mut files);
    assert!(files.len() > 20, "the source was not found");
    files
}

fn collect(root: &Path, directory: &Path, files: &mut Vec<Source>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_tests(&path) {
            let text = std::fs::read_to_string(&path).unwrap();
            files.push(Source {
                path: path.strip_prefix(root).unwrap().display().to_string(),
                code: without_comments(without_tests(&text)),
            });
        }
    }
}

/// Some unit tests have a file of their own.
fn is_tests(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_str().unwrap();
    name == "tests" || name.ends_with("_tests")
}

/// Others stand at the end of their file.
fn without_tests(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod ")
        .map_or(text, |at| &text[..at + 1])
}

/// Whole-line comments go; a `//` after code may be part of a URL in a text, so that it stays.
fn without_comments(text: &str) -> String {
    let lines = text.lines().map(|line| {
        if line.trim_start().starts_with("//") {
            ""
        } else {
            line
        }
    });
    lines.map(|line| format!("{line}\n")).collect()
}

/// Every file that names one of the words, outside those whose path begins as allowed.
fn outside(words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources() {
        let is_allowed = allowed.iter().any(|prefix| source.path.starts_with(prefix));
        for word in words.iter().filter(|word| !is_allowed && source.names(word)) {
            found.push(format!("{} names {word}", source.path));
        }
    }
    found
}

#[test]
fn each_wall_alone_names_its_client_library() {
    assert_eq!(
        outside(&["tokio_postgres", "tokio_postgres_rustls"], &["postgres/"]),
        [""; 0]
    );
    assert_eq!(outside(&["reqwest"], &["hubspot/"]), [""; 0]);
    assert_eq!(
        outside(
            &["backoff::backoff", "backoff::ExponentialBackoff", "use backoff"],
            &["retry.rs"]
        ),
        [""; 0]
    );
}

#[test]
fn the_middle_has_no_io_no_async_and_no_clock() {
    let forbidden = [
        "tokio",
        "futures",
        "async",
        "await",
        "Instant",
        "SystemTime",
        "std::fs",
        "std::net",
        "std::env",
        "std::thread",
        "std::process",
        "Timestamp::now",
        "axum",
        "hyper",
        "tracing",
    ];
    for source in sources()
        .iter()
        .filter(|source| source.room() == "sync" || source.room() == "mapping")
    {
        for word in forbidden {
            assert!(!source.names(word), "{} names {word}", source.path);
        }
    }
}

#[test]
fn the_clockwork_alone_spawns() {
    // Beside it a session's driver, and the sandbox, which is a server of its own.
    let allowed = [
        "daemon/",
        "postgres/connect.rs",
        "postgres/control.rs",
        "sandbox/",
    ];
    let words = [
        "tokio::spawn",
        "JoinSet",
        "TaskTracker",
        "spawn_blocking",
        "spawn_local",
    ];
    let mut found = outside(&words, &allowed);
    // The demo plays the application and the operator, for which it needs hands.
    found.retain(|line| !line.starts_with("cli/demo"));
    assert_eq!(found, [""; 0]);
}

#[test]
fn the_clockwork_alone_sleeps() {
    // Beside it the pace, whose business is time, the sandbox's latency, and progress shown to people.
    let allowed = ["daemon/", "hubspot/pace", "sandbox/", "cli/"];
    assert_eq!(
        outside(
            &["tokio::time::sleep", "tokio::time::interval", "thread::sleep"],
            &allowed
        ),
        [""; 0]
    );
}

#[test]
fn arrows_between_rooms_point_downwards() {
    let arrows: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("main", &["cli"][..]),
        (
            "lib",
            &[
                "cli", "config", "daemon", "hubspot", "mapping", "postgres", "retry", "sandbox", "sync",
            ],
        ),
        (
            "cli",
            &["config", "daemon", "postgres", "mapping", "sync", "sandbox"],
        ),
        (
            "daemon",
            &["config", "postgres", "hubspot", "sync", "mapping", "retry"],
        ),
        ("postgres", &["sync", "mapping"]),
        ("hubspot", &["sync", "mapping", "retry"]),
        ("config", &["mapping"]),
        ("sync", &["mapping"]),
        ("mapping", &[]),
        ("retry", &[]),
        ("sandbox", &[]),
    ]);
    for source in sources() {
        let room = source.room();
        let allowed = arrows
            .get(room)
            .unwrap_or_else(|| panic!("{} is in no room", source.path));
        for other in arrows
            .keys()
            .filter(|other| **other != room && !allowed.contains(other))
        {
            for path in [format!("crate::{other}"), format!("hubsyncd::{other}")] {
                assert!(!source.names(&path), "{} names {path}", source.path);
            }
        }
        assert!(
            !source.code.contains("crate::{"),
            "{}: one room a `use`, so that arrows are seen",
            source.path
        );
    }
}

#[test]
fn nothing_that_can_fail_is_unwrapped_outside_tests() {
    for source in sources() {
        for word in [".unwrap()", "todo!(", "unimplemented!(", "dbg!("] {
            assert!(!source.code.contains(word), "{} has {word}", source.path);
        }
    }
}

#[test]
fn files_stay_small_enough_to_read() {
    let mut large: Vec<(usize, String)> = sources()
        .into_iter()
        .map(|source| {
            let lines = source.code.lines().filter(|line| !line.trim().is_empty());
            (lines.count(), source.path)
        })
        .collect();
    large.sort();
    for (lines, path) in large.iter().filter(|(lines, _)| *lines > 400) {
        println!("{path} has {lines} lines: more than most");
    }
    large.retain(|(lines, _)| *lines > 500);
    assert_eq!(large, [], "these files hold more than one idea");
}

#[test]
fn the_mapping_of_the_documents_is_named_nowhere_in_the_engine() {
    let tables = [
        "hubspot_contact_credits",
        "hubspot_bookings",
        "hubspot_mock_exams",
        "supabase_audit_log",
    ];
    for source in sources() {
        if ["daemon", "postgres", "hubspot", "sync", "retry"].contains(&source.room()) {
            for table in tables {
                assert!(!source.names(table), "{} names {table}", source.path);
            }
        }
    }
}
