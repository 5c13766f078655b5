//! Who writes events where, and who is sent messages, as the configuration says.

use std::{sync::Arc, time::Duration};

use super::{Error, Options};
use crate::{
    event::{Bus, Documents, Fail2banLog, Interest, Journal, Running, SOCKET, Wanted, start},
    hook,
    report::Deliveries,
};

/// How long an end waits for the last message of a hook.
const PATIENCE: Duration = Duration::from_secs(2);

/// The threads that write, and the hooks.
#[derive(Debug)]
pub(super) struct Sinks {
    running: Vec<Running>,
    hooks: Vec<hook::Running>,
    _interests: Vec<Interest>,
}

impl Sinks {
    /// Starts what `[events]`, `[hooks]` and `fail2ban_log` ask for.
    pub(super) fn start(bus: &Bus, options: &Options) -> Result<Sinks, Error> {
        let failed = |error| Error::System("start a thread for events", error);
        let events = &options.config.events;
        let (mut running, mut interests) = (Vec::new(), Vec::new());
        if let Some(path) = &options.agent.fail2ban_log {
            interests.push(bus.interest(Wanted { failures: true, drops: false }));
            running
                .push(start("fail2ban_log", bus, Fail2banLog::new(path.clone())).map_err(failed)?);
        }
        if let Some(path) = &events.file {
            interests.push(bus.interest(events.include));
            let file = Documents::new(path.clone(), bus.observer().clone(), events.include);
            running.push(start("file", bus, file).map_err(failed)?);
        }
        if events.journal {
            interests.push(bus.interest(events.include));
            let journal = Journal::new(SOCKET.into(), bus.observer().clone(), events.include);
            running.push(start("journal", bus, journal.map_err(failed)?).map_err(failed)?);
        }
        let hooks = options.config.hooks.iter().map(|spec| hook::start(spec.clone(), bus));
        Ok(Sinks { running, hooks: hooks.collect(), _interests: interests })
    }

    /// Returns what the hooks count.
    pub(super) fn hooks(&self) -> Vec<(Arc<str>, Arc<Deliveries>)> {
        self.hooks.iter().map(hook::Running::stats).collect()
    }

    /// Waits until everything is written, or hangs. To be called when the bus is closed.
    pub(super) async fn finish(self) {
        for running in self.running {
            running.finish().await;
        }
        for hook in self.hooks {
            hook.finish(PATIENCE).await;
        }
    }
}
