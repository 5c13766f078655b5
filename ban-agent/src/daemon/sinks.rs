//! Who writes events where, as the configuration says.

use super::{Error, Options};
use crate::event::{
    Bus, Documents, Fail2banLog, Interest, Journal, Observer, Running, SOCKET, Wanted, start,
};

/// The threads that write.
#[derive(Debug)]
pub(super) struct Sinks {
    running: Vec<Running>,
    _interests: Vec<Interest>,
}

impl Sinks {
    /// Starts what `[events]` and `fail2ban_log` ask for.
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
            let file = Documents::new(path.clone(), Observer::here(), events.include);
            running.push(start("file", bus, file).map_err(failed)?);
        }
        if events.journal {
            interests.push(bus.interest(events.include));
            let journal = Journal::new(SOCKET.into(), Observer::here(), events.include);
            running.push(start("journal", bus, journal.map_err(failed)?).map_err(failed)?);
        }
        Ok(Sinks { running, _interests: interests })
    }

    /// Waits until everything is written, or hangs. To be called when the bus is closed.
    pub(super) async fn finish(self) {
        for running in self.running {
            running.finish().await;
        }
    }
}
