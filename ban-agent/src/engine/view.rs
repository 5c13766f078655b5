//! The documents of the CLI that only read: `status`, `list`, `show`, and the drift between ledger
//! and kernel.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
};

use super::Engine;
use crate::{
    clock::Now,
    control::{
        self, Ban, Document, Drift, Fill, Interface, JailStatus, List, Refusal, Reply, Rolled,
        SCHEMA, Show, SourceStatus, Status,
    },
    dataplane::{Hits, Place},
    event::{Shown, escape},
    ledger::{self, Claim, Holder, Looks},
    net::{IpNet, Ports},
    protect::{self, Group},
};

impl Engine {
    /// Who is banned; the socket's end puts them in order and asks for more of them, page by page.
    pub(super) fn roll(&mut self, jail: Option<&str>, now: Now) -> Result<Rolled, Refusal> {
        if let Some(name) = jail {
            self.known_holder(name)?;
        }
        let holder = jail.map(Holder::named);
        let bans = self
            .ledger
            .iter()
            .filter(|ban| holder.as_ref().is_none_or(|holder| ban.is_held_by(holder)))
            .map(|ban| (ban.until(), ban.prefix))
            .collect();
        let alarms = self.alarms(now);
        Ok(Rolled { list: List { schema: SCHEMA, bans: Vec::new(), alarms }, bans })
    }

    /// The bans of exactly these prefixes, with their counters.
    pub(super) fn bans(&mut self, prefixes: &[IpNet], now: Now) -> Result<Vec<Ban>, Refusal> {
        let hits = self.xdp.hits(prefixes).map_err(|error| Refusal {
            code: 2,
            message: format!("cannot read the maps: {error:#}"),
            hint: Some("`ban-agent doctor` tells more".into()),
        })?;
        Ok(prefixes
            .iter()
            .zip(hits)
            .filter_map(|(prefix, hits)| {
                Some(describe(self.ledger.get(*prefix)?, hits, &self.looks, now))
            })
            .collect())
    }

    pub(super) fn show(&mut self, address: IpNet, now: Now) -> Reply {
        let mut covering: Vec<IpNet> =
            self.ledger.covering(address).map(|ban| ban.prefix).collect();
        covering.reverse();
        let bans = match self.bans(&covering, now) {
            Ok(bans) => bans,
            Err(refusal) => return Reply::Error(refusal),
        };
        let protected =
            self.ledger.refusal(address, &Holder::Manual, false).map(|refusal| refusal.to_string());
        Reply::Done(Document::Show(Show {
            schema: SCHEMA,
            address: Shown(address).to_string(),
            banned: !bans.is_empty(),
            protected,
            trusted_by: self.ledger.trusting(address).map(ToString::to_string).collect(),
            bans,
            // the socket's end asks the disk
            evidence: Vec::new(),
            history: 0,
        }))
    }

    /// Whom no jail, or one of them, may ban.
    fn protected(&self) -> Vec<Group> {
        let of_jails = protect::of_jails(&self.config.jails);
        self.protected.iter().cloned().chain(of_jails).collect()
    }

    pub(super) fn status(&mut self, jail: Option<&str>, now: Now) -> Reply {
        if let Some(name) = jail
            && self.pipeline.jail(name).is_none()
        {
            return Reply::Error(self.no_jail(name));
        }
        let [v4, v6] = self.ledger.families();
        let status = Status {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            since: self.started,
            dry_run: self.xdp.is_dry_run(),
            alarms: self.alarms(now),
            warnings: self.warnings(),
            trial: self.probation.shown(now),
            interfaces: self
                .xdp
                .interfaces()
                .iter()
                .map(|attached| Interface {
                    name: attached.name.clone(),
                    mode: match attached.place {
                        _ if attached.ifindex == 0 => "missing",
                        place => place.map_or("detached", Place::name),
                    }
                    .into(),
                })
                .collect(),
            protected: self.protected(),
            bans: Fill { v4, v6, max: self.xdp.capacity() },
            verdicts: self.verdicts(),
            jails: self.jails(jail),
            sources: self.sources(),
            store: self.store.state().to_string(),
            log_to_drop: self.latency(),
            events: self.events(),
            hooks: self.hook_states(),
        };
        Reply::Done(Document::Status(Box::new(status)))
    }

    fn verdicts(&self) -> Vec<control::Verdict> {
        match self.xdp.verdicts(None) {
            Ok(verdicts) => verdicts
                .counts
                .iter()
                .map(|(verdict, hits)| control::Verdict {
                    name: verdict.name().into(),
                    packets: hits.packets,
                    bytes: hits.bytes,
                })
                .collect(),
            Err(error) => {
                log::error!("cannot read the counters: {error}");
                Vec::new()
            }
        }
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

    /// What an operator should know, though it is no alarm.
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
        let there = self.xdp.interfaces().iter().filter(|on| on.ifindex != 0);
        warnings.extend(there.flat_map(|on| on.warnings.iter().cloned()));
        let sources = self.sources();
        let quiet = sources.iter().filter(|status| !Engine::is_alarm(status));
        let waiting = quiet.filter(|status| status.counters.waiting);
        warnings.extend(waiting.map(|status| format!("{}: nothing to read now", status.origin)));
        warnings.extend(self.config.warnings.iter().cloned());
        warnings
    }

    fn jails(&self, only: Option<&str>) -> Vec<JailStatus> {
        let banned: HashMap<Holder, u64> = self
            .ledger
            .held()
            .map(|(holder, counts)| (holder.clone(), counts.iter().sum::<usize>() as u64))
            .collect();
        self.pipeline
            .jails()
            .filter(|(spec, _)| only.is_none_or(|name| *spec.rules.name == *name))
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
                actions: self.actions.status(&spec.rules.name),
            })
            .collect()
    }

    pub(super) fn drift(&mut self) -> Reply {
        let differing = match self.differing() {
            Ok(differing) => differing,
            Err(error) => {
                return Reply::Error(Refusal {
                    code: 2,
                    message: format!("cannot read the maps: {error:#}"),
                    hint: None,
                });
            }
        };
        let surplus = differing.iter().filter(|prefix| self.ledger.get(**prefix).is_none()).count();
        let missing = differing.len() - surplus;
        // what waits for the kernel is an alarm of its own
        self.alarms.drift =
            if self.pending.is_empty() { (missing, surplus) } else { Default::default() };
        Reply::Done(Document::Drift(Drift {
            schema: SCHEMA,
            missing,
            surplus,
            pending: self.pending.len(),
        }))
    }

    /// Where the kernel does not hold what the ledger does. Little memory for each ban: there may be
    /// millions.
    pub(super) fn differing(&mut self) -> anyhow::Result<Vec<IpNet>> {
        let (mut differing, mut known) = (Vec::new(), 0);
        let ledger = &self.ledger;
        self.xdp.each_held(&mut |held| {
            let ban = ledger.get(held.prefix);
            known += usize::from(ban.is_some());
            if ban.is_none_or(|ban| !held.enforced.agrees(&ban.enforced())) {
                differing.push(held.prefix);
            }
        })?;
        if known < self.ledger.len() {
            let held = self.held_prefixes()?;
            let missing = self.ledger.iter().map(|ban| ban.prefix);
            differing.extend(missing.filter(|prefix| !held.contains(prefix)));
        }
        Ok(differing)
    }

    pub(super) fn held_prefixes(&mut self) -> anyhow::Result<HashSet<IpNet>> {
        let mut prefixes = HashSet::new();
        self.xdp.each_held(&mut |held| _ = prefixes.insert(held.prefix))?;
        Ok(prefixes)
    }
}

fn describe(ban: ledger::Ban<'_>, hits: Hits, looks: &Looks, now: Now) -> Ban {
    let claims: Vec<Claim> = ban.claims().collect();
    let mut ports = Ports::new();
    if claims.iter().all(|claim| !claim.ports.is_empty()) {
        ports = ban.enforced().ports;
    }
    Ban {
        address: ban.prefix.addr().to_string(),
        prefix: ban.prefix.prefix_len(),
        family: if matches!(ban.prefix, IpNet::V4(_)) { 4 } else { 6 },
        holders: claims
            .iter()
            .map(|claim| control::Claim {
                jail: claim.holder.to_string(),
                until: now.wall_of(claim.until),
                extended: match &claim.holder {
                    Holder::Jail(jail) => looks.extended(&(claim.prefix, Arc::clone(jail))),
                    Holder::Manual => 0,
                },
            })
            .collect(),
        until: now.wall_of(ban.until()),
        packets: hits.packets,
        bytes: hits.bytes,
        ports,
    }
}
