//! Numbers, spans and moments as people read them.

use jiff::Timestamp;
use maud::{Markup, html};
use std::time::Duration;

/// `1234567` → `1,234,567`.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `2 rows`.
pub(super) fn count(value: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(value), if value == 1 { one } else { many })
}

/// A span in its one or two greatest units: `85 ms`, `3.2 s`, `4 min`, `2 h 5 min`, `3 d 4 h`.
pub(super) fn span(span: Duration) -> String {
    let (millis, seconds) = (span.as_millis(), span.as_secs());
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let two = |great: u64, great_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{great} {great_unit}"),
        _ => format!("{great} {great_unit} {small} {small_unit}"),
    };
    match seconds {
        0 => format!("{millis} ms"),
        1..10 => format!("{:.1} s", span.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..600 => two(minutes, "min", seconds % 60, "s"),
        600..3600 => format!("{minutes} min"),
        3600..86_400 => two(hours, "h", minutes % 60, "min"),
        _ => two(hours / 24, "d", hours % 24, "h"),
    }
}

/// The time from one moment to a later one, both in microseconds since the Unix epoch.
pub(super) fn between(from: i64, to: i64) -> Duration {
    Duration::from_micros(to.saturating_sub(from).try_into().unwrap_or_default())
}

/// How long ago a moment was, with the moment itself for those who point at it.
pub(super) fn ago(micros: i64, now: i64) -> Markup {
    let words = if now.saturating_sub(micros) < 1_000_000 {
        "just now".to_owned()
    } else {
        format!("{} ago", span(between(micros, now)))
    };
    time(micros, &words)
}

/// A moment as `21 Nov 02:00:07`, UTC.
pub(super) fn moment(micros: i64) -> Markup {
    time(micros, &format(micros, "%-d %b %H:%M:%S"))
}

/// The hour and minute of a moment, UTC.
pub(super) fn clock(micros: i64) -> String {
    format(micros, "%H:%M")
}

fn time(micros: i64, words: &str) -> Markup {
    let exact = format(micros, "%Y-%m-%dT%H:%M:%SZ");
    html! { time datetime=(exact) title=(exact) { (words) } }
}

/// A moment out of range is empty.
fn format(micros: i64, form: &str) -> String {
    Timestamp::from_microsecond(micros)
        .map_or_else(|_| String::new(), |moment| moment.strftime(form).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_numbers_read_as_people_say_them() {
        for (millis, words) in [
            (0, "0 ms"),
            (85, "85 ms"),
            (3_240, "3.2 s"),
            (59_900, "59 s"),
            (60_000, "1 min"),
            (61_000, "1 min 1 s"),
            (601_000, "10 min"),
            (7_500_000, "2 h 5 min"),
            (7_200_000, "2 h"),
            (273_600_000, "3 d 4 h"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), words);
        }
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(number),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(count(1, "row", "rows"), "1 row");
        assert_eq!(
            moment(1_800_000_000_000_000)
                .into_string()
                .matches("15 Jan 08:00:00")
                .count(),
            1
        );
    }
}
