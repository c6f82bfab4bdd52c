//! Colour and tables for people; plain lines for pipes.

use std::io::IsTerminal;

/// The codes that [`paint`] makes.
const CODES: [&str; 5] = ["\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[2m", "\x1b[0m"];

/// How a word is to look.
#[derive(Debug, Clone, Copy)]
pub(super) enum Colour {
    Good,
    Doubtful,
    Bad,
    Faint,
}

/// Whether stdout is a terminal that shows colour.
pub(super) fn is_colourful() -> bool {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let able = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    wanted && able && std::io::stdout().is_terminal()
}

/// The text in a colour, where there is colour.
pub(super) fn paint(text: &str, colour: Colour) -> String {
    if !is_colourful() {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Good => 32,
        Colour::Doubtful => 33,
        Colour::Bad => 31,
        Colour::Faint => 2,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Rows under their heads: aligned on a terminal, tab-separated and without heads in a pipe.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    if std::io::stdout().is_terminal() {
        return aligned(heads, rows);
    }
    rows.iter().map(|row| row.join("\t") + "\n").collect()
}

/// Rows aligned under their heads, wherever they go: numbers among words that nobody could read without heads.
pub(super) fn aligned(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or_default();
        widest.max(heads[column].chars().count())
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    let body: String = rows.iter().map(|row| line(row)).collect();
    paint(line(&heads).trim_end(), Colour::Faint) + "\n" + &body
}

/// A moment without what is below a second: `2026-11-28T23:50:00.559547Z` → `2026-11-28T23:50:00Z`. Programs have the
/// whole of it in `--json`.
pub(super) fn to_the_second(moment: &str) -> String {
    match moment.split_once('.') {
        Some((seconds, rest)) if rest.ends_with('Z') => format!("{seconds}Z"),
        _ => moment.to_owned(),
    }
}

/// The text without what would make a terminal do something: keys and values of rows may hold any character, and none
/// of theirs moves a cursor, sets a title or turns the line around. Lines, tabs and our own colours stay.
pub(super) fn tamed(text: &str) -> String {
    let mut tamed = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let code = CODES.iter().find(|code| rest.starts_with(**code));
        let length = code.map_or(next.len_utf8(), |code| code.len());
        match code {
            Some(code) => tamed.push_str(code),
            None if is_wild(next) => tamed.push(char::REPLACEMENT_CHARACTER),
            None => tamed.push(next),
        }
        rest = &rest[length..];
    }
    tamed
}

/// Control characters but for line ends and tabs, and what changes the direction of writing.
fn is_wild(one: char) -> bool {
    let turns = matches!(one, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (one.is_control() && !matches!(one, '\n' | '\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_rows_reaches_the_terminal_as_a_command() {
        let row = "a\x1b[2Jb\x1b]0;title\x07c\rd\u{9b}2Je\u{202e}f\n";
        let shown = tamed(&format!("\x1b[31m{row}\x1b[0m\tÄ"));
        assert_eq!(
            shown,
            "\x1b[31ma\u{fffd}[2Jb\u{fffd}]0;title\u{fffd}c\u{fffd}d\u{fffd}2Je\u{fffd}f\n\x1b[0m\tÄ"
        );
    }

    #[test]
    fn moments_are_shown_to_the_second() {
        assert_eq!(
            to_the_second("2026-11-28T23:50:00.559547Z"),
            "2026-11-28T23:50:00Z"
        );
        assert_eq!(to_the_second("2026-11-28T23:50:00Z"), "2026-11-28T23:50:00Z");
        assert_eq!(to_the_second("-"), "-");
    }
}
