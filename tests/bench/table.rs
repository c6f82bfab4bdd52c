//! The table: what was measured, against which goal.

use super::samples::{median, spread};
use std::fmt;

/// What is wanted of a number.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// It is shown, and nothing is wanted of it.
    None,
}

impl Goal {
    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Goal::AtLeast(least) => Some(value >= least),
            Goal::AtMost(most) => Some(value <= most),
            Goal::None => None,
        }
    }

    fn words(self, unit: &str) -> String {
        match self {
            Goal::AtLeast(least) => format!("≥ {}{unit}", number(least)),
            Goal::AtMost(most) => format!("≤ {}{unit}", number(most)),
            Goal::None => "–".to_owned(),
        }
    }
}

/// One number, measured several times.
#[derive(Debug)]
pub struct Measured {
    what: String,
    goal: Goal,
    unit: &'static str,
    samples: Vec<f64>,
}

impl Measured {
    /// A number with its goal; `unit` stands behind it, with a blank before it if it wants one.
    pub fn new(what: impl Into<String>, goal: Goal, unit: &'static str, samples: Vec<f64>) -> Measured {
        Measured {
            what: what.into(),
            goal,
            unit,
            samples,
        }
    }

    /// Whether anything was measured.
    fn is_there(&self) -> bool {
        !self.samples.is_empty() && self.samples.iter().all(|sample| sample.is_finite())
    }
}

/// All rows, and whether each could be measured.
pub struct Table {
    machine: String,
    rows: Vec<(&'static str, Option<Measured>)>,
}

impl Table {
    pub fn new(machine: String) -> Table {
        Table {
            machine,
            rows: Vec::new(),
        }
    }

    /// Adds what a topic measured and answers its lines; `None`: it broke.
    pub fn add(&mut self, topic: &'static str, measured: Option<Vec<Measured>>) -> Lines<'_> {
        let first = self.rows.len();
        let measured = measured.unwrap_or_default();
        if measured.is_empty() {
            self.rows.push((topic, None));
        }
        let rows = measured.into_iter();
        self.rows
            .extend(rows.map(|measured| (topic, Some(measured).filter(Measured::is_there))));
        Lines(&self.rows[first..])
    }

    /// Whether every row holds a number.
    pub fn is_whole(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|(_, measured)| measured.is_some())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        writeln!(f, "| topic | what | goal | median | spread | met |")?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        self.rows.iter().try_for_each(|row| line(f, row))
    }
}

/// What was measured of one topic, to be read while the next is measured.
pub struct Lines<'a>(&'a [(&'static str, Option<Measured>)]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|row| line(f, row))
    }
}

fn line(f: &mut fmt::Formatter<'_>, (topic, measured): &(&'static str, Option<Measured>)) -> fmt::Result {
    let Some(Measured {
        what,
        goal,
        unit,
        samples,
    }) = measured
    else {
        return writeln!(f, "| {topic} | BROKEN | | | | |");
    };
    let (middle, (low, high)) = (median(samples), spread(samples));
    let spread = match samples.len() {
        1 => "once".to_owned(),
        count => format!("{}…{} of {count}", number(low), number(high)),
    };
    let met = match goal.is_met(middle) {
        Some(true) => "yes",
        Some(false) => "**no**",
        None => "",
    };
    let (goal, middle) = (goal.words(unit), number(middle));
    writeln!(
        f,
        "| {topic} | {what} | {goal} | {middle}{unit} | {spread} | {met} |"
    )
}

/// How many of something, thousands apart.
pub fn count(number_of: usize) -> String {
    number(number_of as f64)
}

/// A number with three digits that count, thousands apart.
fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1000.0 {
        let digits = format!("{value:.0}");
        let mut text = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at) % 3 == 0 {
                text.push(',');
            }
            text.push(digit);
        }
        text
    } else if size >= 100.0 || value == value.trunc() {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 0.01 {
        format!("{value:.2}")
    } else {
        format!("{value:.4}")
    }
}
