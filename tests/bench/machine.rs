//! The machine that the numbers were measured on.

use super::ground::Ground;
use super::samples::{median, ms};
use std::fs;
use std::io::Write;
use std::time::Instant;

/// How often the disk is asked.
const WRITES: usize = 200;

/// One paragraph: cores, memory, kernel, Postgres, how long the disk takes to make a write durable.
pub async fn describe(ground: &Ground) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = value(&processors, "model name").unwrap_or_else(|| "unknown".to_owned());
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = value(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    let memory = memory.map_or(0.0, |kib| kib * 1024.0 / 1e9);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    let postgres = ground.version().await;
    let disk = disk();
    let run = if ground.quick {
        ", a quick run: nothing here is to be judged"
    } else {
        ""
    };
    format!(
        "{cores} cores ({model}), {memory:.0} GB, Linux {}, {postgres} with fsync on, a write durable in {disk:.2} ms, \
         load {load} at the start{run}",
        kernel.trim()
    )
}

/// How long it takes to make 8 KiB durable, in milliseconds.
fn disk() -> f64 {
    let mut file = tempfile::tempfile_in("/tmp").unwrap();
    let page = [0; 8192];
    let taken: Vec<f64> = (0..WRITES)
        .map(|_| {
            let begun = Instant::now();
            file.write_all(&page).unwrap();
            file.sync_data().unwrap();
            ms(begun.elapsed())
        })
        .collect();
    median(&taken)
}

/// The value of a line `name : value`.
fn value(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
}
