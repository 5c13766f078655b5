//! Tells when a part of the agent stops doing what it should, and when it does again.

use super::{core::Core, trial::Trial};
use crate::{
    event::{Event, Machine, What},
    store::State,
};

/// What the world knows to be degraded.
#[derive(Debug, Default)]
pub(super) struct Health {
    store: bool,
    kernel: bool,
    enforcement: bool,
}

impl Core {
    /// Tells what has changed since the last time.
    pub(super) fn tell_health(&mut self) {
        let store = match self.store.state() {
            State::Sound => None,
            State::Degraded(why) => Some(why),
        };
        let kernel = self.kernel_error.clone();
        let lapsed = matches!(self.probation.trial(), Trial::Lapsed { .. });
        let lapsed = lapsed.then(|| "nobody confirmed the trial: nothing is dropped".to_owned());
        let mut events = Vec::new();
        for (part, known, trouble) in [
            (Machine::Store, &mut self.health.store, store),
            (Machine::Kernel, &mut self.health.kernel, kernel),
            (Machine::Enforcement, &mut self.health.enforcement, lapsed),
        ] {
            events.extend(change(part, known, trouble).map(Event::now));
        }
        self.bus.publish(events);
    }
}

fn change(part: Machine, known: &mut bool, trouble: Option<String>) -> Option<What> {
    let was = std::mem::replace(known, trouble.is_some());
    match (was, trouble) {
        (false, Some(reason)) => Some(What::Degraded { part, reason }),
        (true, None) => Some(What::Recovered { part }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once() {
        let mut known = false;
        let part = Machine::Store;
        let mut told = |trouble: Option<&str>| change(part, &mut known, trouble.map(Into::into));
        assert_eq!(told(None), None);
        let degraded = What::Degraded { part, reason: "disk full".into() };
        assert_eq!(told(Some("disk full")), Some(degraded));
        assert_eq!(told(Some("disk full")), None);
        assert_eq!(told(None), Some(What::Recovered { part }));
        assert_eq!(told(None), None);
    }
}
