//! Those who listen: what they are told of the agent, and what `status` tells of them.

use super::Engine;
use crate::{control, event::escape};

impl Engine {
    /// The program tells of dropped packets only while somebody listens.
    pub(super) fn sample(&self) {
        self.xdp.set_sampling(if self.sampling { self.config.events.sample } else { 0 });
    }

    pub(super) fn latency(&self) -> control::Latency {
        let histogram = self.latency.histogram();
        control::Latency {
            bans: histogram.count(),
            median: histogram.quantile(0.5),
            p99: histogram.quantile(0.99),
        }
    }

    pub(super) fn hook_states(&self) -> Vec<control::HookStatus> {
        let hooks = self.hooks.iter();
        hooks
            .map(|(name, stats)| control::HookStatus {
                name: name.to_string(),
                sent: stats.sent(),
                failed: stats.failed(),
                error: stats.error().map(|error| escape(error.as_bytes())),
            })
            .collect()
    }

    pub(super) fn events(&self) -> control::Events {
        let lost = self.bus.lost().into_iter();
        control::Events {
            told: self.bus.published(),
            lost: lost.map(|(kind, count)| (kind.to_owned(), count)).collect(),
            drops_lost: self.xdp.verdicts(None).map_or(0, |verdicts| verdicts.events_lost),
        }
    }
}
