//! `[mirror]`: what is copied from HubSpot, and how often.

use super::Mirror;
use super::section::{Fault, Findings, Section};
use crate::mapping::Mirrored;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Reads the section; without it nothing is mirrored.
pub(super) fn read<'a>(findings: &'a Findings<'a>, root: &Section<'a>) -> Option<Mirror> {
    let value = root.value("mirror")?;
    let known = ["every", "full-every", "stale-after", "objects"];
    let table = Section::of(findings, "mirror", Some(value), &known);
    let every = table.duration("every", SECOND, 7 * DAY);
    let full_every = table.duration("full-every", SECOND, 30 * DAY);
    let stale_after = table.duration("stale-after", 2 * SECOND, 60 * DAY);
    let stale_after = stale_after.unwrap_or(DAY);
    let full_every = full_every.unwrap_or_else(|| (12 * HOUR).min(stale_after / 2));
    let mirror = Mirror {
        stale_after,
        full_every,
        every: every.unwrap_or_else(|| HOUR.min(full_every)),
        objects: table
            .read("objects", |_| Ok(()))
            .map_or_else(|| Mirrored::ALL.to_vec(), |()| objects(&table)),
    };
    if mirror.full_every >= mirror.stale_after {
        let fault = Fault::new(
            "is not below `stale-after`",
            "records would count as pending before the next full pass can confirm them; half of it is a good measure",
        );
        table.refuse("full-every", fault);
    }
    if mirror.every > mirror.full_every {
        let fault = Fault::new(
            "is longer than `full-every`",
            "incremental passes run between the full ones",
        );
        table.refuse("every", fault);
    }
    Some(mirror)
}

/// The kinds named, in their own order; every unknown one is a problem.
fn objects(table: &Section<'_>) -> Vec<Mirrored> {
    let hint = "any of \"contacts\", \"companies\" and \"deals\"";
    let Some(names) = table.texts("objects") else {
        return Mirrored::ALL.to_vec();
    };
    if names.is_empty() {
        let fault = Fault::new("is empty", "name what is to be mirrored, or take the section out");
        table.refuse("objects", fault);
    }
    for name in names.iter().filter(|name| Mirrored::named(name).is_none()) {
        table.refuse(
            "objects",
            Fault::new(format!("\"{name}\" cannot be mirrored"), hint),
        );
    }
    let named = |kind: &Mirrored| names.iter().any(|name| name == kind.name());
    Mirrored::ALL.into_iter().filter(named).collect()
}
