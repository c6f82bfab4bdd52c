//! Which values a property takes, and what HubSpot makes of them.
//!
//! A value arrives as text and is stored as HubSpot would give it back: e-mails lower-cased, days as
//! `YYYY-MM-DD`, instants as ISO 8601. A value that does not fit is refused with HubSpot's code and words.

use super::clock::instant_text;
use super::property::{Choice, Kind, Property, Writable};

/// HubSpot's limit for one text value, in characters.
const TEXT_MAX: usize = 65_536;

/// Top-level names that never resolve on the public net (RFC 2606, RFC 6761); HubSpot refuses addresses
/// under names it does not know.
const UNKNOWN_DOMAINS: [&str; 6] = ["test", "example", "invalid", "localhost", "local", "internal"];

/// A value that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    /// As stored; empty clears the property.
    pub value: String,
    /// Whether a date was moved to midnight, which 2026-09 tells in a warning.
    pub normalised: bool,
}

/// A value that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Invalid {
    /// HubSpot's code, e.g. `INVALID_OPTION`.
    pub code: String,
    /// HubSpot's words.
    pub message: String,
    /// The property.
    pub name: String,
}

impl Invalid {
    pub(super) fn new(code: &str, name: &str, message: String) -> Self {
        Self {
            code: code.to_owned(),
            name: name.to_owned(),
            message,
        }
    }
}

impl Property {
    /// Takes or refuses a value. `lenient` is 2026-09, which moves a date to midnight instead of refusing.
    pub(super) fn take(&self, raw: &str, lenient: bool) -> Result<Taken, Invalid> {
        self.writable()?;
        let refuse = |code: &str, message: String| Err(Invalid::new(code, &self.name, message));
        let plain = |value: &str| {
            Ok(Taken {
                value: value.to_owned(),
                normalised: false,
            })
        };
        if raw.is_empty() {
            return plain("");
        }
        match &self.kind {
            Kind::String | Kind::Phone if raw.chars().count() > TEXT_MAX => refuse(
                "INVALID_STRING",
                format!("The value is longer than {TEXT_MAX} characters."),
            ),
            Kind::String | Kind::Phone => plain(raw),
            Kind::Email => match email(raw) {
                Some(value) => plain(&value),
                None => refuse(
                    "INVALID_EMAIL",
                    format!("Email address {} is invalid", raw.trim()),
                ),
            },
            Kind::Number if is_number(raw.trim()) => plain(raw.trim()),
            Kind::Number => refuse("INVALID_DOUBLE", format!("{raw} was not a valid number.")),
            Kind::Bool => match raw.trim() {
                value @ ("true" | "false") => plain(value),
                _ => refuse("INVALID_OPTION", not_an_option(raw, &boolean_choices())),
            },
            Kind::Date => match date(raw.trim()) {
                Some((value, exact)) if exact || lenient => Ok(Taken {
                    value,
                    normalised: !exact,
                }),
                _ => refuse("INVALID_DATE", format!("{raw} was not a valid date.")),
            },
            Kind::DateTime => match datetime_ms(raw.trim()) {
                Some(ms) => plain(&instant_text(ms)),
                None => refuse("INVALID_DATE", format!("{raw} was not a valid date.")),
            },
            Kind::Enumeration { choices, several } => {
                let wanted: Vec<&str> = match several {
                    true => raw.split(';').filter(|part| !part.is_empty()).collect(),
                    false => vec![raw],
                };
                match wanted
                    .iter()
                    .find(|want| !choices.iter().any(|choice| choice.value == **want))
                {
                    Some(unknown) => refuse("INVALID_OPTION", not_an_option(unknown, choices)),
                    None => plain(raw),
                }
            }
        }
    }

    fn writable(&self) -> Result<(), Invalid> {
        let kind = match self.writable {
            Writable::Yes => return Ok(()),
            Writable::Calculated => "calculated",
            Writable::ReadOnly => "read only",
        };
        let message = format!("\"{}\" is a {kind} property; its value cannot be set.", self.name);
        Err(Invalid::new("READ_ONLY_VALUE", &self.name, message))
    }

    /// Whether a raw value asks to be added to the chosen ones instead of replacing them (`;b`).
    pub(super) fn appends(&self, raw: &str) -> bool {
        matches!(self.kind, Kind::Enumeration { several: true, .. }) && raw.starts_with(';')
    }
}

/// The address as HubSpot stores it, or nothing if it cannot be one.
pub(super) fn email(raw: &str) -> Option<String> {
    let address = raw.trim().to_lowercase();
    let (local, domain) = address.split_once('@')?;
    let is_word = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '@');
    let labels: Vec<&str> = domain.split('.').collect();
    let top = labels.last()?;
    let names = labels.len() > 1 && labels.iter().all(|label| is_word(label));
    let known =
        top.chars().count() > 1 && !UNKNOWN_DOMAINS.contains(top) && top.chars().all(char::is_alphabetic);
    let fine = is_word(local) && names && known && !local.contains(['(', ')', '<', '>', ',', ';', '"']);
    fine.then_some(address)
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    is_digits(whole) && is_digits(fraction)
}

/// A day, and whether it was given exactly: as a day, or as midnight UTC in milliseconds.
fn date(text: &str) -> Option<(String, bool)> {
    if text.len() == 10
        && let Ok(day) = text.parse::<jiff::civil::Date>()
    {
        return Some((day.to_string(), true));
    }
    let ms = datetime_ms(text)?;
    let given_in_ms = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let midnight = ms.rem_euclid(86_400_000) == 0;
    let day = jiff::Timestamp::from_millisecond(ms)
        .ok()?
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date();
    Some((day.to_string(), given_in_ms && midnight))
}

/// An instant in milliseconds since 1970, from ISO 8601 with a zone, a day, or milliseconds.
pub(super) fn datetime_ms(text: &str) -> Option<i64> {
    if let Ok(ms) = text.parse::<i64>() {
        return jiff::Timestamp::from_millisecond(ms)
            .ok()
            .map(|instant| instant.as_millisecond());
    }
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return Some(instant.as_millisecond());
    }
    let day = (text.len() == 10).then(|| text.parse::<jiff::civil::Date>().ok())??;
    let midnight = day.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(midnight.timestamp().as_millisecond())
}

fn boolean_choices() -> Vec<Choice> {
    let choice = |label: &str, value: &str| Choice {
        label: label.to_owned(),
        value: value.to_owned(),
    };
    vec![choice("Yes", "true"), choice("No", "false")]
}

fn not_an_option(value: &str, choices: &[Choice]) -> String {
    let shown: Vec<String> = choices
        .iter()
        .map(|choice| format!("label: \"{}\"\nvalue: \"{}\"\n", choice.label, choice.value))
        .collect();
    format!(
        "{value} was not one of the allowed options: [{}]",
        shown.join(", ")
    )
}
