//! Those who listen: what they are told of the agent, and what `status` tells of them.

use super::core::Core;
use crate::{
    clock::Now,
    control,
    event::{Action, Ban, Event, What, escape},
    ledger::Claim,
};

impl Core {
    /// An interface that has come back is put under protection again.
    pub(super) fn check_interfaces(&mut self) {
        let before = self.present();
        match self.xdp.check_interfaces() {
            Ok(changes) => changes.iter().for_each(|change| log::warn!("{change}")),
            Err(error) => log::error!("cannot protect an interface: {error}"),
        }
        let after = self.present();
        let what = |(name, there): (String, bool)| match there {
            true => What::InterfaceAttached { name },
            false => What::InterfaceLost { name },
        };
        let changed = after.into_iter().zip(before).filter(|(after, before)| after != before);
        self.bus.publish(changed.map(|(after, _)| Event::now(what(after))).collect());
    }

    fn present(&self) -> Vec<(String, bool)> {
        let interfaces = self.xdp.interfaces().iter();
        interfaces.map(|attached| (attached.name.clone(), attached.ifindex != 0)).collect()
    }

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

/// What `claim` means to the world.
pub(super) fn event(action: Action, claim: &Claim, now: Now) -> Event {
    let what = What::Ban(Ban {
        action,
        holder: claim.holder.clone(),
        prefix: claim.prefix,
        until: now.wall_of(claim.until),
        failures: None,
        reason: None,
        by: None,
    });
    Event { at: now.wall, what }
}

pub(super) fn asked_by(user: Option<u32>, events: &mut [Event]) {
    for event in events {
        if let What::Ban(ban) = &mut event.what {
            ban.by = user;
        }
    }
}
