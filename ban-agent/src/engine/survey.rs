//! The snapshot behind the metrics. It costs the core a few system calls, however much is banned.

use std::sync::atomic::Ordering;

use super::Engine;
use crate::{
    clock::Now,
    dataplane::Verdicts,
    metrics::{Jail, Snapshot},
};

impl Engine {
    pub(super) fn survey(&mut self) -> Snapshot {
        self.look_for_alarms(Now::read());
        let held = self.ledger.held();
        let stats = self.pipeline.stats().snapshot().into_iter();
        Snapshot {
            started: self.started,
            dry_run: self.xdp.is_dry_run(),
            alarms: self.alarm_counts(),
            held: held.map(|(holder, counts)| (holder.to_string(), counts)).collect(),
            bans: self.ledger.families(),
            capacity: self.xdp.capacity(),
            refused: self.ledger.refused(),
            evicted: self.ledger.evicted(),
            interfaces: self.counted(),
            jails: self.surveyed_jails(),
            sources: stats.map(|(origin, counters)| (origin.to_string(), counters)).collect(),
            store_sound: self.store.state().is_sound(),
            pending: self.pending.len(),
            events: self.bus.published(),
            events_lost: self.bus.lost(),
            countries: self.bus.observer().geo().countries(),
            hooks: self
                .hooks
                .iter()
                .map(|(name, stats)| (name.to_string(), stats.sent(), stats.failed()))
                .collect(),
            latency: self.latency.histogram(),
        }
    }

    fn counted(&self) -> Vec<(String, Verdicts)> {
        let interfaces = self.xdp.interfaces().iter();
        let counted = interfaces.filter_map(|attached| match self.xdp.verdicts(Some(attached)) {
            Ok(verdicts) => Some((attached.name.clone(), verdicts)),
            Err(error) => {
                log::error!("cannot read the counters of {}: {error}", attached.name);
                None
            }
        });
        counted.collect()
    }

    fn surveyed_jails(&self) -> Vec<Jail> {
        let stopped =
            |name: &str| self.breakers.get(name).is_some_and(|breaker| breaker.tripped().is_some());
        self.pipeline
            .jails()
            .map(|(spec, counters)| Jail {
                name: spec.rules.name.to_string(),
                lines: counters.lines.load(Ordering::Relaxed),
                matches: counters.matched.load(Ordering::Relaxed),
                ignored: counters.ignored.load(Ordering::Relaxed),
                offences: counters.offences.load(Ordering::Relaxed),
                bans: counters.total.load(Ordering::Relaxed),
                watched: counters.failing.load(Ordering::Relaxed),
                forgotten: counters.evicted.load(Ordering::Relaxed),
                stopped: stopped(&spec.rules.name),
                actions: self
                    .actions
                    .status(&spec.rules.name)
                    .into_iter()
                    .map(|action| (action.name, [action.done, action.failed, action.dropped]))
                    .collect(),
            })
            .collect()
    }
}
