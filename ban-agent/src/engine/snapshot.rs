//! The agent at one instant, gathered in one place: `status` and the metrics are drawn from it. It
//! costs the engine a few system calls, however much is banned.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use super::Engine;
use crate::{
    clock::Now,
    control::{self, Document, Fill, Interface, JailStatus, Reply, SCHEMA, SourceStatus, Status},
    dataplane::{Hits, Verdicts, XdpMode},
    event::escape,
    ledger::Holder,
    metrics::Snapshot,
    protect::{self, Group},
};

impl Engine {
    /// Returns everything at a glance, or one jail.
    pub(super) fn status(&mut self, jail: Option<&str>, now: Now) -> Reply {
        if let Some(name) = jail
            && self.pipeline.jail(name).is_none()
        {
            return Reply::Error(self.no_jail(name));
        }
        let mut status = self.snapshot(now).status;
        status.jails.retain(|shown| jail.is_none_or(|name| shown.name == name));
        Reply::Done(Document::Status(Box::new(status)))
    }

    pub(super) fn snapshot(&mut self, now: Now) -> Snapshot {
        let alarms = self.alarms(now);
        let [v4, v6] = self.ledger.families();
        let all = self.xdp.verdicts(None).unwrap_or_else(|error| {
            log::error!("cannot read the counters: {error}");
            Verdicts::default()
        });
        let latency = self.latency.histogram();
        let lost = self.bus.lost().into_iter();
        let status = Status {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            since: self.started,
            dry_run: self.xdp.is_dry_run(),
            alarms,
            warnings: self.warnings(),
            trial: self.probation.shown(now),
            orders: self.orders.shown(),
            interfaces: self.interfaces(),
            protected: self.protected(),
            bans: Fill { v4, v6, max: self.xdp.capacity() },
            verdicts: all
                .counts
                .iter()
                .map(|(verdict, Hits { packets, bytes })| control::Verdict {
                    name: verdict.name().into(),
                    packets: *packets,
                    bytes: *bytes,
                })
                .collect(),
            jails: self.jails(),
            sources: self.sources(),
            store: self.store.state().to_string(),
            log_to_drop: control::Latency {
                bans: latency.count(),
                median: latency.quantile(0.5),
                p99: latency.quantile(0.99),
            },
            longest_hold: self.holds.longest(),
            longest_wait: self.holds.longest_wait(),
            events: control::Events {
                told: self.bus.published(),
                lost: lost.map(|(kind, count)| (kind.to_owned(), count)).collect(),
                drops_lost: all.events_lost,
            },
            hooks: self.hook_states(),
        };
        let held = self.ledger.held();
        Snapshot {
            status,
            alarms: self.alarm_counts(),
            held: held.map(|(holder, counts)| (holder.to_string(), counts)).collect(),
            refused: self.ledger.refused(),
            evicted: self.ledger.evicted(),
            interfaces: self.counted(),
            offences: self
                .pipeline
                .jails()
                .map(|(_, counters)| {
                    [&counters.offences, &counters.evicted]
                        .map(|count| count.load(Ordering::Relaxed))
                })
                .collect(),
            store_sound: self.store.state().is_sound(),
            pending: self.pending.len(),
            countries: self.bus.observer().geo().countries(),
            latency,
            holds: self.holds.histogram(),
            waits: self.holds.waits(),
        }
    }

    fn interfaces(&self) -> Vec<Interface> {
        let attached = self.xdp.interfaces().into_iter();
        attached
            .map(|attached| Interface {
                name: attached.name.clone(),
                mode: match attached.mode {
                    _ if attached.ifindex == 0 => "missing",
                    mode => mode.map_or("detached", XdpMode::name),
                }
                .into(),
            })
            .collect()
    }

    fn counted(&self) -> Vec<(String, Verdicts)> {
        let interfaces = self.xdp.interfaces().into_iter();
        let counted = interfaces.filter_map(|attached| match self.xdp.verdicts(Some(attached)) {
            Ok(verdicts) => Some((attached.name.clone(), verdicts)),
            Err(error) => {
                log::error!("cannot read the counters of {}: {error}", attached.name);
                None
            }
        });
        counted.collect()
    }

    /// Returns whom no jail, or one of them, may ban.
    fn protected(&self) -> Vec<Group> {
        let of_jails = protect::of_jails(&self.config.jails);
        self.protected.iter().cloned().chain(of_jails).collect()
    }

    fn sources(&self) -> Vec<SourceStatus> {
        let all = self.pipeline.stats().snapshot().into_iter();
        // whoever may make a file that a glob fits chooses its name
        all.map(|(origin, mut counters)| {
            counters.error = counters.error.map(|error| escape(error.as_bytes()));
            SourceStatus { origin: escape(origin.as_bytes()), counters }
        })
        .collect()
    }

    /// Returns what an operator should know, though it is no alarm.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (spec, counters) in self.pipeline.jails() {
            let undated = counters.undated.load(Ordering::Relaxed);
            let unclear = counters.unclear.load(Ordering::Relaxed);
            if unclear > 0 {
                warnings.push(format!(
                    "[{}] {unclear} lines count for nobody, for their IPv6 address may end in a port: \
                     see `ban-agent check`",
                    spec.rules.name
                ));
            }
            if undated > 0 {
                warnings.push(format!(
                    "[{}] {undated} failures without a date in logs that were there before: not counted",
                    spec.rules.name
                ));
            }
        }
        warnings.extend(self.bus.observer().geo().trouble());
        let there = self.xdp.interfaces().into_iter().filter(|on| on.ifindex != 0);
        warnings.extend(there.flat_map(|on| on.warnings.iter().cloned()));
        let sources = self.sources();
        let quiet = sources.iter().filter(|status| !Engine::is_alarm(status));
        let waiting = quiet.filter(|status| status.counters.waiting);
        warnings.extend(waiting.map(|status| format!("{}: nothing to read now", status.origin)));
        warnings.extend(self.config.warnings.iter().cloned());
        warnings
    }

    fn jails(&self) -> Vec<JailStatus> {
        let banned: HashMap<Holder, u64> = self
            .ledger
            .held()
            .map(|(holder, counts)| (holder.clone(), counts.iter().sum::<usize>() as u64))
            .collect();
        self.pipeline
            .jails()
            .map(|(spec, counters)| JailStatus {
                name: spec.rules.name.to_string(),
                sources: spec.sources.iter().map(ToString::to_string).collect(),
                lines: counters.lines.load(Ordering::Relaxed),
                matched: counters.matched.load(Ordering::Relaxed),
                ignored: counters.ignored.load(Ordering::Relaxed),
                failed: counters.failing.load(Ordering::Relaxed),
                banned: banned
                    .get(&Holder::Jail(Arc::clone(&spec.rules.name)))
                    .copied()
                    .unwrap_or_default(),
                total: counters.total.load(Ordering::Relaxed),
                stopped: self.breakers.get(&spec.rules.name).and_then(|breaker| {
                    let reason = breaker.tripped()?.to_string();
                    Some(control::Stopped { reason, withheld: breaker.withheld() })
                }),
                withheld: self.orders.withheld(&spec.rules.name),
                actions: self.actions.status(&spec.rules.name),
            })
            .collect()
    }

    pub(super) fn hook_states(&self) -> Vec<control::HookStatus> {
        let hooks = self.hooks.iter();
        hooks
            .map(|(name, stats)| control::HookStatus {
                name: name.to_string(),
                sent: stats.done(),
                failed: stats.failed(),
                error: stats.error().map(|error| escape(error.as_bytes())),
            })
            .collect()
    }
}
