//! Reading a TOML table setting by setting, so that every problem is reported and not only the first.
//!
//! A [`Section`] is one table of the file. Asking it for a setting answers `None` where the setting is absent
//! or wrong, and wrong ones leave a [`Problem`] with their line behind; reading goes on.

use super::problem::{Problem, suggestion};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The file being read, and what was found wrong with it.
pub(super) struct Findings<'a> {
    origin: String,
    text: &'a str,
    problems: RefCell<Vec<Problem>>,
}

/// Why a value is refused: what is wrong, and what would be right.
pub(super) struct Fault {
    message: String,
    hint: Option<String>,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> Fault {
        Fault {
            message: message.into(),
            hint: Some(hint.into()),
        }
    }
}

impl<'a> Findings<'a> {
    pub(super) fn new(origin: String, text: &'a str) -> Findings<'a> {
        Findings {
            origin,
            text,
            problems: RefCell::new(Vec::new()),
        }
    }

    /// Notes a problem at a byte of the file.
    pub(super) fn at(&self, byte: usize, key: impl Into<String>, fault: Fault) {
        let before = self.text.as_bytes().get(..byte).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        self.problems.borrow_mut().push(Problem {
            origin: self.origin.clone(),
            line: Some(line),
            key: key.into(),
            message: fault.message,
            hint: fault.hint,
        });
    }

    /// Notes a problem that no line of the file is to blame for.
    pub(super) fn elsewhere(&self, origin: &str, key: &str, fault: Fault) {
        self.problems.borrow_mut().push(Problem {
            origin: origin.to_owned(),
            line: None,
            key: key.to_owned(),
            message: fault.message,
            hint: fault.hint,
        });
    }

    /// What was found, in the order of the file.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        problems
    }
}

/// One table of the file, or its absence.
pub(super) struct Section<'a> {
    findings: &'a Findings<'a>,
    name: String,
    start: usize,
    table: Option<&'a DeTable<'a>>,
}

impl<'a> Section<'a> {
    /// The table `value`; every key of it that is not `known` is a problem.
    pub(super) fn of(
        findings: &'a Findings<'a>,
        name: impl Into<String>,
        value: Option<&'a Spanned<DeValue<'a>>>,
        known: &[&str],
    ) -> Section<'a> {
        let name = name.into();
        let start = value.map_or(0, |value| value.span().start);
        let table = value.and_then(|value| value.get_ref().as_table());
        if let (Some(value), None) = (value, table) {
            let fault = Fault::new(
                format!("is {}, not a table", a_kind(value.get_ref())),
                format!("write [{name}]"),
            );
            findings.at(start, name.clone(), fault);
        }
        let section = Section {
            findings,
            name,
            start,
            table,
        };
        section.refuse_unknown(known);
        section
    }

    /// The whole file.
    pub(super) fn root(findings: &'a Findings<'a>, table: &'a DeTable<'a>, known: &[&str]) -> Section<'a> {
        let section = Section {
            findings,
            name: String::new(),
            start: 0,
            table: Some(table),
        };
        section.refuse_unknown(known);
        section
    }

    fn refuse_unknown(&self, known: &[&str]) {
        for (key, _) in self.entries() {
            let word: &str = key.get_ref().as_ref();
            if !known.contains(&word) {
                let fault = Fault::new("unknown setting", suggestion(word, known));
                self.findings.at(key.span().start, self.key(word), fault);
            }
        }
    }

    /// Every entry, in the order of the file.
    pub(super) fn entries(&self) -> Vec<(&'a Spanned<std::borrow::Cow<'a, str>>, &'a Spanned<DeValue<'a>>)> {
        let mut entries: Vec<_> = self.table.iter().flat_map(|table| table.iter()).collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries
    }

    /// The setting's full name.
    pub(super) fn key(&self, key: &str) -> String {
        match self.name.as_str() {
            "" => key.to_owned(),
            name if name.contains(' ') && !name.contains(": ") => format!("{name}: {key}"),
            name => format!("{name}.{key}"),
        }
    }

    /// The setting as it stands in the file.
    pub(super) fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table?.get(key)
    }

    /// Notes a problem with one setting, at its line, or at the table's where it is absent.
    pub(super) fn refuse(&self, key: &str, fault: Fault) {
        let at = self.value(key).map_or(self.start, |value| value.span().start);
        self.findings.at(at, self.key(key), fault);
    }

    /// Reads one setting.
    pub(super) fn read<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&'a DeValue<'a>) -> Result<T, Fault>,
    ) -> Option<T> {
        match parse(self.value(key)?.get_ref()) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.refuse(key, fault);
                None
            }
        }
    }

    /// Reads a setting that must be there.
    pub(super) fn required<T>(
        &self,
        key: &str,
        hint: &str,
        parse: impl FnOnce(&'a DeValue<'a>) -> Result<T, Fault>,
    ) -> Option<T> {
        if self.value(key).is_none() {
            self.refuse(key, Fault::new("is missing", hint));
        }
        self.read(key, parse)
    }

    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.read(key, text)
    }

    pub(super) fn truth(&self, key: &str) -> Option<bool> {
        self.read(key, |value| {
            value.as_bool().ok_or_else(|| {
                Fault::new(
                    format!("is {}", a_kind(value)),
                    "write true or false, without quotes",
                )
            })
        })
    }

    pub(super) fn integer(&self, key: &str, least: u64, most: u64) -> Option<u64> {
        self.read(key, |value| {
            let hint = format!("a whole number from {least} to {most}");
            let number = value.as_integer().and_then(|integer| {
                u64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).ok()
            });
            match number {
                Some(number) if (least..=most).contains(&number) => Ok(number),
                Some(number) => Err(Fault::new(format!("{number} is out of range"), hint)),
                None => Err(Fault::new(format!("is {}", a_kind(value)), hint)),
            }
        })
    }

    pub(super) fn duration(&self, key: &str, least: Duration, most: Duration) -> Option<Duration> {
        self.read(key, |value| {
            let (from, to) = (
                humantime::format_duration(least),
                humantime::format_duration(most),
            );
            let hint = format!("a duration like \"250ms\", \"30s\" or \"2h\", from {from} to {to}");
            let text = text(value).map_err(|fault| Fault::new(fault.message, hint.clone()))?;
            match humantime::parse_duration(text.trim()) {
                Ok(duration) if (least..=most).contains(&duration) => Ok(duration),
                Ok(_) => Err(Fault::new(format!("\"{text}\" is out of range"), hint)),
                Err(_) => Err(Fault::new(format!("\"{text}\" is no duration"), hint)),
            }
        })
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        self.read(key, |value| choose(value, choices))
    }

    /// An array of texts.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<String>> {
        self.read(key, |value| {
            let array = value.as_array().ok_or_else(|| {
                Fault::new(
                    format!("is {}", a_kind(value)),
                    "write a list like [\"one\", \"two\"]",
                )
            })?;
            let mut seen = BTreeSet::new();
            let mut texts = Vec::new();
            for element in array.iter() {
                let element = text(element.get_ref())?;
                if !seen.insert(element.clone()) {
                    return Err(Fault::new(
                        format!("\"{element}\" stands there twice"),
                        "name it once",
                    ));
                }
                texts.push(element);
            }
            Ok(texts)
        })
    }
}

/// One of a few words.
pub(super) fn choose<T: Copy>(value: &DeValue<'_>, choices: &[(&str, T)]) -> Result<T, Fault> {
    let word = text(value)?;
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    choices
        .iter()
        .find(|(name, _)| *name == word)
        .map(|(_, choice)| *choice)
        .ok_or_else(|| Fault::new(format!("\"{word}\" is not known"), suggestion(&word, &words)))
}

/// A text that is not blank.
pub(super) fn text(value: &DeValue<'_>) -> Result<String, Fault> {
    match value.as_str() {
        Some(text) if text.trim().is_empty() => {
            Err(Fault::new("is empty", "give it a value or leave it out"))
        }
        Some(text) if text.contains('\0') => Err(Fault::new("contains a NUL byte", "take it out")),
        Some(text) => Ok(text.to_owned()),
        None => Err(Fault::new(
            format!("is {}", a_kind(value)),
            "write a text in quotes",
        )),
    }
}

/// A kind of TOML value with its article.
pub(super) fn a_kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
