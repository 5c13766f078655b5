//! `confirm`: ends a trial, or begins another.

use std::time::Duration;

use crate::{
    clock::Now,
    config,
    control::{Refusal, Reply},
    engine::{Engine, probation::left, trial::Trial},
};

impl Engine {
    /// Ends the trial, or begins another.
    pub(in crate::engine) fn confirm(&mut self, again: Option<Duration>, now: Now) -> Reply {
        let wanted =
            again.map_or(Trial::Over, |time| Trial::Running { until: now.boot.after(time) });
        if self.probation.trial() == wanted {
            let message = "there is no trial to confirm: the agent already enforces".into();
            return Reply::Error(Refusal { code: 1, message, hint: None });
        }
        let interfaces = match self.xdp.set_lifetime(wanted.lifetime()) {
            Ok(interfaces) => interfaces.join(", "),
            Err(error) => {
                let (message, hint) = (format!("not confirmed: {error}"), error.hint());
                return Reply::Error(Refusal { code: 2, message, hint });
            }
        };
        let remembered = self.probation.begin(wanted, now);
        let done = match wanted {
            Trial::Running { until } => {
                let left = config::format_duration(left(until, now));
                format!("on trial for {left} more: enforcing on {interfaces}")
            }
            Trial::Over | Trial::Lapsed { .. } => {
                format!("confirmed: the bans stay enforced on {interfaces}")
            }
        };
        log::warn!("{done}");
        match remembered {
            Ok(()) => Reply::text(done),
            Err(message) => Reply::Error(Refusal {
                code: 2,
                message: format!("{done}; but a restart will not know: {message}"),
                hint: Some("make room, then confirm with --for and once more without".into()),
            }),
        }
    }
}
