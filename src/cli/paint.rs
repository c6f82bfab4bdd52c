//! Colour and tables for people; plain lines for pipes.

use std::io::IsTerminal;

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
    if !std::io::stdout().is_terminal() {
        return rows.iter().map(|row| row.join("\t") + "\n").collect();
    }
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
    paint(&line(&heads), Colour::Faint) + &body
}
