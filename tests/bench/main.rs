//! `cargo bench`: every goal of speed and weight, measured, in one table.
//!
//! The daemon of the release profile runs as a process of its own between a private Postgres with fsync on and the
//! sandbox, which lives in this process. What is compared is measured in turns in one run, so that both sides meet the
//! same machine. `cargo bench -- --quick` runs everything small, to see that it still works; names (or parts of names) of
//! topics choose some of them. The exit code says whether something broke, not whether a goal is missed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a measurement that cannot be made should fail loudly"
)]

#[path = "../support/mod.rs"]
mod support;

mod bulk;
mod cost;
mod ground;
mod growth;
mod latency;
mod lifecycle;
mod machine;
mod memory;
mod mirror;
mod plot;
mod process;
mod race;
mod requests;
mod rival;
mod samples;
mod sweeps;
mod table;
mod writers;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use ground::Ground;
use std::process::ExitCode;
use std::time::Instant;
use table::{Measured, Table};

/// One topic: a name to choose it by, and what measures it.
struct Topic {
    name: &'static str,
    run: for<'a> fn(&'a Ground) -> LocalBoxFuture<'a, Vec<Measured>>,
}

const TOPICS: &[Topic] = &[
    Topic {
        name: "writers",
        run: |ground| writers::measure(ground).boxed_local(),
    },
    Topic {
        name: "bulk",
        run: |ground| bulk::measure(ground).boxed_local(),
    },
    Topic {
        name: "lone",
        run: |ground| latency::lone(ground).boxed_local(),
    },
    Topic {
        name: "stream",
        run: |ground| latency::stream(ground).boxed_local(),
    },
    Topic {
        name: "limit",
        run: |ground| sweeps::at_the_limit(ground).boxed_local(),
    },
    Topic {
        name: "unlimited",
        run: |ground| sweeps::without_limit(ground).boxed_local(),
    },
    Topic {
        name: "requests",
        run: |ground| requests::measure(ground).boxed_local(),
    },
    Topic {
        name: "race",
        run: |ground| race::measure(ground).boxed_local(),
    },
    Topic {
        name: "memory",
        run: |ground| memory::measure(ground).boxed_local(),
    },
    Topic {
        name: "mirror",
        run: |ground| mirror::measure(ground).boxed_local(),
    },
    Topic {
        name: "growth",
        run: |ground| growth::measure(ground).boxed_local(),
    },
    Topic {
        name: "cost",
        run: |ground| cost::measure(ground).boxed_local(),
    },
    Topic {
        name: "lifecycle",
        run: |ground| lifecycle::measure(ground).boxed_local(),
    },
];

/// What was asked for on the command line.
struct Asked {
    quick: bool,
    names: Vec<String>,
}

impl Asked {
    fn of(arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
        let mut asked = Asked {
            quick: false,
            names: Vec::new(),
        };
        for argument in arguments {
            match argument.as_str() {
                "--quick" => asked.quick = true,
                // Cargo adds it to every benchmark.
                "--bench" => {}
                flag if flag.starts_with('-') => return Err(format!("unknown flag {flag}")),
                name if TOPICS.iter().any(|topic| topic.name.contains(name)) => {
                    asked.names.push(name.to_owned())
                }
                name => return Err(format!("no topic has `{name}` in its name")),
            }
        }
        Ok(asked)
    }

    fn wants(&self, topic: &Topic) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| topic.name.contains(name.as_str()))
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if std::env::args().nth(1).is_some_and(|word| word == rival::WORD) {
        arguments.next();
        rival::run(arguments);
        return ExitCode::SUCCESS;
    }
    let asked = match Asked::of(arguments) {
        Ok(asked) => asked,
        Err(words) => {
            let names: Vec<&str> = TOPICS.iter().map(|topic| topic.name).collect();
            eprintln!("{words}; usage: cargo bench -- [--quick] [{}]", names.join("|"));
            return ExitCode::from(64);
        }
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let table = runtime.block_on(measure(&asked));
    print!("\n{table}");
    if table.is_whole() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Measures what was asked for, topic by topic; one that breaks does not keep the next from being measured.
async fn measure(asked: &Asked) -> Table {
    let ground = Ground::new(asked.quick).await;
    let mut table = Table::new(machine::describe(&ground).await);
    for topic in TOPICS.iter().filter(|topic| asked.wants(topic)) {
        let begun = Instant::now();
        let measured = std::panic::AssertUnwindSafe((topic.run)(&ground))
            .catch_unwind()
            .await;
        let took = begun.elapsed().as_secs_f64();
        eprintln!(
            "{}: {took:.1} s{}",
            topic.name,
            if measured.is_ok() { "" } else { ", BROKEN" }
        );
        eprint!("{}", table.add(topic.name, measured.ok()));
    }
    table
}
