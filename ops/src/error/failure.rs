//! What went wrong, what to do next, and the exit code that says so to scripts.
//!
//! Laws
//! * Exit codes are stable; a new kind gets a new number.
//! * A failure after something was asked of the cluster never claims that nothing happened (`OutcomeUnknown`).
//!
//! Not here: what comes of other rooms' errors (`../error.rs`). The fuzz targets compile this file, and do without those rooms.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// Why a command did not succeed. The number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something else went wrong.
    General = 1,
    /// The command line, or a file it names, makes no sense.
    Usage = 2,
    /// The question was answered, and the answer is no: unhealthy, or a check that found something.
    Unhealthy = 3,
    /// No node answers, or no leader, or no quorum. Nothing was done.
    Unavailable = 4,
    /// Whoever asks isn't known there, or may not. Nothing was done.
    Denied = 5,
    /// It may or may not have been done. Asking again with the same ids is safe.
    OutcomeUnknown = 6,
    /// The ledger's rules or the cluster's state say no. Nothing was changed.
    Conflict = 7,
    /// A signal came before the end: 128 and its number, as a shell counts. The message says what was done by then.
    HungUp = 129,
    Interrupted = 130,
    Terminated = 143,
}

impl Kind {
    pub fn exit_code(self) -> ExitCode {
        ExitCode::from(self as u8)
    }

    fn is_signal(self) -> bool {
        matches!(self, Kind::HungUp | Kind::Interrupted | Kind::Terminated)
    }
}

/// The list for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done, and well
  1  error
  2  the command line makes no sense
  3  unhealthy, or a check found something
  4  no node, no leader or no quorum: nothing was done
  5  not known there, or not allowed: nothing was done
  6  outcome unknown: it may have been done; asking again with the same ids is safe
  7  refused by the ledger's rules or by the state of the cluster
  129, 130, 143  ended by SIGHUP, Ctrl-C or SIGTERM before its end: standard error says what is done and what to type
";

/// An error on its way to a person.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: Kind,
    pub message: String,
    /// What to do next.
    pub advice: Option<String>,
}

impl Failure {
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), advice: None }
    }

    pub fn general(message: impl Into<String>) -> Failure {
        Failure::new(Kind::General, message)
    }

    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Kind::Usage, message)
    }

    /// A file that the command line names.
    pub fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
        Failure::usage(format!("{} can't be read: {error}", path.display()))
    }

    pub fn advise(mut self, advice: impl Into<String>) -> Failure {
        self.advice = Some(advice.into());
        self
    }

    /// Prints it where errors belong.
    pub fn report(&self) -> ExitCode {
        let mut stderr = std::io::stderr().lock();
        // With standard error gone there is nobody left to tell.
        let _ = match self.kind.is_signal() {
            true => writeln!(stderr, "{}", self.message),
            false => writeln!(stderr, "error: {}", self.message),
        };
        if let Some(advice) = &self.advice {
            let _ = writeln!(stderr, "  -> {advice}");
        }
        self.kind.exit_code()
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::general(error.to_string())
    }
}

/// Puts what was being done in front of an I/O error: the error itself never says which file.
pub trait During<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> During<T> for std::io::Result<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::general(format!("{}: {error}", what())))
    }
}
