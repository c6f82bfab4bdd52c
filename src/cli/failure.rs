//! What went wrong, as it is printed.

use crate::daemon::exit::{self, Exit};
use std::io::Write;

/// Why a verb ends otherwise than it should.
#[derive(Debug)]
pub(super) struct Failure {
    /// The process's exit code.
    pub(super) code: u8,
    /// What happened and why, outermost first.
    error: anyhow::Error,
    /// What to do about it.
    hint: Option<String>,
}

impl Failure {
    pub(super) fn new(code: u8, error: anyhow::Error) -> Failure {
        Failure {
            code,
            error,
            hint: None,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// What happened and why, in one line.
    pub(super) fn words(&self) -> String {
        let mut words = self.error.to_string();
        for cause in self.error.chain().skip(1) {
            let cause = cause.to_string();
            if !words.contains(&cause) {
                words.push_str(&format!(": {cause}"));
            }
        }
        words
    }

    /// Prints [`Failure::lines`].
    pub(super) fn print(&self) {
        // There is nobody to tell if stderr is gone.
        let _ = std::io::stderr().write_all(self.lines().as_bytes());
    }

    /// Logs all of it as one event.
    pub(super) fn log(&self) {
        let hint = self.hint.as_deref().unwrap_or_default();
        tracing::error!(exit_code = self.code, hint, "hubsyncd ends: {}", self.words());
    }

    /// `error:`, `caused by:` for every cause that says something new, `hint:`.
    pub(super) fn lines(&self) -> String {
        let mut lines = format!("error: {}\n", self.error);
        let mut said = self.error.to_string();
        for cause in self.error.chain().skip(1) {
            let words = cause.to_string();
            if !said.contains(&words) {
                lines.push_str(&format!("caused by: {words}\n"));
            }
            said = words;
        }
        if let Some(hint) = &self.hint {
            lines.push_str(&format!("hint: {hint}\n"));
        }
        lines
    }
}

impl From<Exit> for Failure {
    fn from(exit: Exit) -> Failure {
        Failure {
            code: exit.code,
            error: anyhow::Error::from_boxed(exit.error),
            hint: exit.hint,
        }
    }
}

/// Prints a result. It may not be possible: the reader went away, which is no failure, or the disk is full.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    print_on(text).map(|_| ())
}

/// Prints a part of a result; answers whether anybody reads on.
pub(super) fn print_on(text: &str) -> Result<bool, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            let error = anyhow::Error::new(error).context("printing the result");
            Err(Failure::new(exit::UNAVAILABLE, error))
        }
    }
}
