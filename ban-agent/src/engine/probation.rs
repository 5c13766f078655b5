//! Carries out what [`Trial`] decides: holds the program, lets go of it, and has it remembered.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;

use super::{Engine, Options, trial::Trial};
use crate::{
    clock::{Boot, Now},
    config, control,
    store::trial::{Record, load, path, save},
};

/// How long a failed detachment waits for its next try.
const RETRY: Duration = Duration::from_secs(1);

/// The trial, and where it is remembered.
#[derive(Debug)]
pub(super) struct Probation {
    trial: Trial,
    began: Timestamp,
    file: PathBuf,
}

/// Decides what this start begins with. A record that makes no sense confirms nothing.
pub(crate) fn at_start(options: &Options, now: Now) -> Trial {
    let file = path(&options.agent.state);
    let record = load(&file).unwrap_or_else(|error| {
        log::error!("{}: {error}; taking the trial for unconfirmed", file.display());
        Some(Record::Lapsed { at: now.wall })
    });
    Trial::at_start(record, options.grace, now)
}

impl Probation {
    /// Remembers a trial that is not over.
    pub(super) fn new(trial: Trial, state: &Path, now: Now) -> Probation {
        let probation = Probation { trial, began: now.wall, file: path(state) };
        match trial {
            Trial::Over => return probation,
            Trial::Running { until } => log::warn!(
                "on trial: nothing is enforced any more in {} unless `ban-agent confirm` comes \
                 before, or if the agent dies",
                config::format_duration(left(until, now))
            ),
            Trial::Lapsed { at } => log::error!(
                "nothing is enforced: the trial ended at {at}; `ban-agent confirm` ends this"
            ),
        }
        if let Err(message) = probation.remember(now) {
            log::error!("{message}");
        }
        probation
    }

    pub(super) fn trial(&self) -> Trial {
        self.trial
    }

    pub(super) fn deadline(&self) -> Option<Boot> {
        self.trial.deadline()
    }

    /// For `status`.
    pub(super) fn shown(&self, now: Now) -> Option<control::Trial> {
        match self.trial {
            Trial::Over => None,
            Trial::Running { until } => {
                Some(control::Trial::Running { until: now.wall_of(until).unwrap_or(now.wall) })
            }
            Trial::Lapsed { at } => Some(control::Trial::Lapsed { since: at }),
        }
    }

    /// Begins `trial`, and remembers it.
    ///
    /// # Errors
    ///
    /// What could not be written: a restart will not know.
    pub(super) fn begin(&mut self, trial: Trial, now: Now) -> Result<(), String> {
        (self.trial, self.began) = (trial, now.wall);
        self.remember(now)
    }

    fn remember(&self, now: Now) -> Result<(), String> {
        save(&self.file, &self.trial.record(self.began, now))
            .map_err(|error| format!("cannot write {}: {error}", self.file.display()))
    }
}

impl Engine {
    /// Lets go of the interfaces if the trial has run out.
    pub(super) fn lapse(&mut self, now: Now) {
        let trial = self.probation.trial.at(now);
        if trial == self.probation.trial {
            return;
        }
        match self.xdp.set_lifetime(trial.lifetime()) {
            Ok(interfaces) => {
                self.probation.trial = trial;
                log::error!(
                    "the trial was not confirmed: detached from {}; nothing is enforced until \
                     `ban-agent confirm`",
                    interfaces.join(", ")
                );
                if let Err(message) = self.probation.remember(now) {
                    log::error!("{message}");
                }
            }
            Err(error) => {
                log::error!("the trial has ended, but the program could not be taken off: {error}");
                self.probation.trial = Trial::Running { until: now.boot.after(RETRY) };
            }
        }
    }
}

/// Returns how long the trial lasts still, in whole seconds.
pub(super) fn left(until: Boot, now: Now) -> Duration {
    Duration::from_secs(until.0.saturating_sub(now.boot.0).div_ceil(1000))
}
