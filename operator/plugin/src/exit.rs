//! Exit codes: a contract with scripts.

use std::process::ExitCode;

use clap::error::ErrorKind;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or all is well.
    Ok,
    /// It failed; the message says who, on what.
    Failed,
    /// The command line is wrong.
    Usage,
    /// Something needs attention; trading goes on.
    Degraded,
    /// A person is asked.
    WaitForUser,
    /// Refused by a safety rule; nothing was changed.
    Refused,
    /// The other region could not be read.
    PeerUnknown,
    /// Plugin, operators and definitions do not fit each other.
    Skew,
    /// Time is up; what was started goes on.
    Timeout,
    /// Interrupted by a key; the message says whether anything was changed. What was started goes on.
    Interrupt,
}

impl Exit {
    /// All, for documentation and tests.
    pub const ALL: [Exit; 10] = [
        Exit::Ok,
        Exit::Failed,
        Exit::Usage,
        Exit::Degraded,
        Exit::WaitForUser,
        Exit::Refused,
        Exit::PeerUnknown,
        Exit::Skew,
        Exit::Timeout,
        Exit::Interrupt,
    ];

    /// The number that the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Degraded => 3,
            Exit::WaitForUser => 4,
            Exit::Refused => 5,
            Exit::PeerUnknown => 6,
            Exit::Skew => 7,
            Exit::Timeout => 124,
            Exit::Interrupt => 130,
        }
    }

    /// The code for a command line that was not understood; asking for help is not wrong.
    pub fn for_usage(wrong: &clap::Error) -> Self {
        match wrong.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Ok,
            _ => Exit::Usage,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}
