//! How the command line fails: one line of cause, one line of remedy, a documented exit code.

use std::{fmt, io::Write as _, process::ExitCode};

use crate::{config, control::CallError, event::escape};

/// Why a verb failed.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    message: String,
    hint: Option<String>,
}

impl Failure {
    pub(super) fn new(code: u8, message: impl fmt::Display) -> Failure {
        Failure { code, message: message.to_string(), hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// The reader of our output went away: that is success, silently.
    pub(super) fn broken_pipe() -> Failure {
        Failure { code: 0, message: String::new(), hint: None }
    }

    pub(super) fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            let mut text = format!("ban-agent: {}\n", escape(self.message.as_bytes()));
            if let Some(hint) = &self.hint {
                text.push_str(&format!("hint: {}\n", escape(hint.as_bytes())));
            }
            // nowhere left to report to
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
        ExitCode::from(self.code)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Failure {
        Failure { code: error.code(), hint: error.hint(), message: error.to_string() }
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Failure {
        Failure { code: 78, hint: error.hint(), message: chain(&error) }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::new(2, format!("{error:#}"))
    }
}

/// `a: b: c` without repeating what a message already holds.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = error.source();
    }
    text
}
