//! The configuration: nonsense is refused with a problem for each thing wrong, and no secret is ever repeated.

use super::runner;
use hubsyncd::config::{Config, Needs};
use proptest::prelude::*;
use proptest::sample::select;

const PASSWORD: &str = "hunter2-planted";
const EXAMPLE: &str = include_str!("../../systemd/hubsyncd.toml");

/// A value of any kind of TOML, most of them wrong wherever they stand.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| format!("{number:?}").to_lowercase()),
        any::<bool>().prop_map(|truth| truth.to_string()),
        "\\PC{0,20}".prop_map(|text| format!("{text:?}")),
        select(vec![
            "\"0s\"",
            "\"99999999999999999999h\"",
            "\"-1s\"",
            "\"1e3\"",
            "\"101%\"",
            "\"18446744073709551615GiB\"",
            "[]",
            "{}",
            "[[[[[[[[1]]]]]]]]",
            "{ a = { b = { c = 1 } } }",
            "1979-05-27T07:32:00Z",
            "\"\"",
            "\"\\u0000\"",
            "'''\n'''",
            "0x7fffffffffffffff",
        ])
        .prop_map(str::to_owned),
    ]
}

/// The example with its settings live, some of them given another value, dropped, doubled, or cut short.
fn file() -> impl Strategy<Value = String> {
    let lines: Vec<String> = EXAMPLE
        .lines()
        .map(|line| line.strip_prefix("# ").unwrap_or(line).to_owned())
        .filter(|line| line.starts_with('[') || line.contains(" = "))
        .collect();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), 0..5_u8, value()), 1..6);
    (Just(lines), changes).prop_map(|(mut lines, changes)| {
        for (at, what, value) in changes {
            let at = at.index(lines.len());
            let name = lines[at].split(" = ").next().unwrap_or_default().to_owned();
            match what {
                0 | 1 => lines[at] = format!("{name} = {value}"),
                2 => drop(lines.remove(at)),
                3 => lines.insert(at, format!("{name}x = {value}")),
                _ => {
                    let line = lines[at].clone();
                    lines[at] = line.chars().take(line.chars().count() / 2).collect();
                }
            }
        }
        lines.join("\n")
    })
}

/// Reads a file beside planted secrets; what is refused says why, and shows none of them.
fn check(text: &str) -> Result<(), TestCaseError> {
    let environment = |name: &str| match name {
        "DATABASE_URL" => Some(format!("postgres://hubsyncd:{PASSWORD}@db.example/app")),
        "HUBSPOT_ACCESS_TOKEN" => Some(format!("pat-na1-{PASSWORD}")),
        "CRON_SECRET" => Some(PASSWORD.to_owned()),
        _ => None,
    };
    match Config::parse(Needs::Everything, "hubsyncd.toml", text, &environment) {
        Ok(config) => {
            let shown = format!("{config:?}");
            prop_assert!(!shown.contains(PASSWORD), "a secret is shown: {shown}");
            prop_assert!((1..=100).contains(&config.batch.max_records));
            prop_assert!(!config.sweep.every.is_zero());
            prop_assert!((0.0..=0.9).contains(&config.hubspot.daily_reserve));
        }
        Err(problems) => {
            prop_assert!(!problems.is_empty(), "refused without a word");
            for problem in problems {
                let words = problem.to_string();
                prop_assert!(!words.trim().is_empty());
                prop_assert!(!words.contains(PASSWORD), "a secret is shown: {words}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_mangled_example_is_taken_or_refused_in_words_without_secrets() {
    runner(2000).run(&file(), |text| check(&text)).unwrap();
}

#[test]
fn any_text_is_taken_or_refused_in_words_without_secrets() {
    runner(2000).run(&"\\PC{0,200}", |text| check(&text)).unwrap();
}
