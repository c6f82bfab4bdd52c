//! How the program ends, by sysexits.

/// All is well.
pub const OK: u8 = 0;
/// The answer is no: unhealthy, or a complete sweep with refused records.
pub const NO: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 64;
/// What is needed is not there: the daemon, a program, an address.
pub const UNAVAILABLE: u8 = 69;
/// A fault of this program.
pub const SOFTWARE: u8 = 70;
/// It may work later.
pub const TRY_AGAIN: u8 = 75;
/// A right is missing, a password or token is refused.
pub const NOT_PERMITTED: u8 = 77;
/// The configuration, the schema or the mapping is wrong; trying again is no use.
pub const CONFIGURATION: u8 = 78;

/// Why the daemon ends, other than because it was told to.
#[derive(Debug)]
pub struct Exit {
    /// One of the constants above.
    pub code: u8,
    /// What happened, with its causes.
    pub error: Box<dyn std::error::Error + Send + Sync>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Exit {
    /// An end with a code and its cause.
    pub fn new(code: u8, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Exit {
        Exit {
            code,
            error: error.into(),
            hint: None,
        }
    }

    /// With what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Exit {
        self.hint = Some(hint.into());
        self
    }
}
