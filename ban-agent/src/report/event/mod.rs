//! Tells the world what happened: our log, fail2ban's line format, a stream of ECS documents.
//! Text that an attacker or an operator wrote is escaped here. Nobody who listens holds anything
//! up: who is too slow loses events, and the loss is counted.

mod bus;
mod ecs;
mod escape;
mod fail2ban;
mod file;
mod geo;
mod journal;
mod sink;
mod what;

pub use bus::{Bus, Interest, Part, Subscription};
pub use ecs::{Observer, document, lost};
pub use escape::{disarm, disarm_json, escape};
pub use fail2ban::Fail2banLog;
pub use file::Documents;
pub use geo::{Geo, Place};
pub use journal::{Journal, SOCKET};
pub use sink::{Running, Sink, start};
use what::inert;
pub use what::{Action, Ban, Dropped, Event, Shown, What};

/// What a listener wants beside bans and the agent's own state: what an attacker can cause many
/// of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Each failure.
    pub failures: bool,
    /// Sampled drops.
    pub drops: bool,
}

impl Wanted {
    /// Whether it wants this.
    #[must_use]
    pub fn has(self, what: &What) -> bool {
        match what {
            What::Found { .. } => self.failures,
            What::Dropped(_) => self.drops,
            _ => true,
        }
    }
}

/// Reports what is durable: to our log, and to all listeners.
#[derive(Debug)]
pub struct Reporter(Bus);

impl Reporter {
    /// Over this bus.
    #[must_use]
    pub fn new(bus: Bus) -> Reporter {
        Reporter(bus)
    }

    /// Never fails.
    pub fn report(&self, events: Vec<Event>) {
        for event in &events {
            if let What::Ban(Ban { action, holder, prefix, .. }) = &event.what {
                log::info!("[{}] {action} {}", inert(&holder.to_string()), Shown(*prefix));
                if *action == Action::Ban {
                    self.0.observer().geo().count(prefix.addr());
                }
            }
        }
        self.0.publish(events);
    }
}
