//! What a process has used, from `/proc`.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;

/// The seconds of processor time that a process has used itself.
pub fn cpu_seconds(pid: u32) -> f64 {
    ticks(pid).map_or(f64::NAN, |(own, _)| own as f64 / ticks_per_second())
}

/// The seconds of processor time of a server and all its processes, those that have ended too.
pub fn cpu_seconds_with_children(pid: u32) -> f64 {
    let Some((own, ended)) = ticks(pid) else {
        return f64::NAN;
    };
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let alive = children
        .split_whitespace()
        .filter_map(|pid| ticks(pid.parse().ok()?));
    let alive: u64 = alive.map(|(own, _)| own).sum();
    (own + ended + alive) as f64 / ticks_per_second()
}

/// The most memory that a process has had in core, in MB of 1,000,000 bytes.
pub fn peak_mb(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib * 1024.0 / 1e6)
}

/// The ticks a process has used itself, and those of its children that have ended.
fn ticks(pid: u32) -> Option<(u64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program may hold blanks; it ends with the last parenthesis.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 2..].split(' ').collect();
    let field = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((field(11)? + field(12)?, field(13)? + field(14)?))
}

fn ticks_per_second() -> f64 {
    static TICKS: OnceLock<f64> = OnceLock::new();
    *TICKS.get_or_init(|| {
        let said = Command::new("getconf").arg("CLK_TCK").output().unwrap();
        String::from_utf8(said.stdout).unwrap().trim().parse().unwrap()
    })
}
