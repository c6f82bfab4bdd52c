//! What people see: lines that stay, and on a terminal a last line that is written over.

use crate::cli::paint::{Colour, paint};
use std::io::{self, IsTerminal, Write};
use std::time::Instant;

/// Standard output.
pub(super) struct Screen {
    terminal: bool,
    begin: Instant,
    /// Whether the last line is one to be written over.
    passing: bool,
    /// Nobody reads any more.
    gone: bool,
}

impl Screen {
    pub(super) fn new() -> Screen {
        Screen {
            terminal: io::stdout().is_terminal(),
            begin: Instant::now(),
            passing: false,
            gone: false,
        }
    }

    /// Whether nobody reads any more: then there is nothing left to show.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// The clock of the lines begins now.
    pub(super) fn begin(&mut self) {
        self.begin = Instant::now();
    }

    /// Lines that stay.
    pub(super) fn say(&mut self, text: &str) {
        let clear = if self.passing { "\r\x1b[K" } else { "" };
        self.passing = false;
        self.write(&format!("{clear}{text}\n"));
    }

    /// Something that happened, with its time.
    pub(super) fn event(&mut self, text: &str, colour: Colour) {
        let line = format!("{}  {}", self.time(), paint(text, colour));
        self.say(&line);
    }

    /// How things stand: written over by the next line on a terminal, a line of its own otherwise.
    pub(super) fn standing(&mut self, text: &str) {
        let line = format!("{}  {text}", self.time());
        if self.terminal {
            self.passing = true;
            // A line that wraps cannot be written over: the terminal is told not to wrap meanwhile.
            self.write(&format!("\r\x1b[K\x1b[?7l{line}\x1b[?7h"));
        } else {
            self.write(&format!("{line}\n"));
        }
    }

    /// Lets the line that would be written over stay.
    pub(super) fn keep(&mut self) {
        if self.passing {
            self.passing = false;
            self.write("\n");
        }
    }

    fn time(&self) -> String {
        format!("{:>4} s", self.begin.elapsed().as_secs())
    }

    fn write(&mut self, text: &str) {
        let mut out = io::stdout().lock();
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            self.gone = true;
        }
    }
}
