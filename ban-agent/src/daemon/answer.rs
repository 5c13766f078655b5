//! Answers the CLI: the documents of `status`, `list` and `show`, and the bans by hand.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use super::core::{Core, event};
use crate::{
    clock::{Boot, Now},
    control::{
        self, Ban, Call, Changes, Document, Drift, Fill, Interface, JailStatus, List, Outcome,
        Refusal, Reply, Request, SCHEMA, Show, SourceStatus, Status, Term, Text,
    },
    event::{Action, Shown, escape},
    kernel::{Enforcer as _, Held, Hits},
    ledger::{self, Change, Claim, Holder, Op, Plan},
    net::{self, IpNet, Ports},
    store::{self, import::Former},
};

impl Core {
    /// Answers one request; changes are answered once the store has them.
    pub(super) fn answer(&mut self, call: Call, now: Now) {
        let Call { request, reply } = call;
        let answer = match request {
            Request::Ban { targets, duration, jail, ports, reason, force } => {
                let term = Terms { duration, jail, ports, reason, force };
                match self.ban(&targets, &term, now) {
                    Ok((plan, events, changes)) => {
                        let receipt = (reply, done(Document::Changes(changes)));
                        return self.commit(plan, events, Some(receipt), now);
                    }
                    Err(refusal) => Reply::Error(refusal),
                }
            }
            Request::Unban { targets, all, jail } => match self.unban(&targets, all, jail, now) {
                Ok((plan, changes)) => {
                    let receipt = (reply, done(Document::Changes(changes)));
                    return self.commit(plan, Vec::new(), Some(receipt), now);
                }
                Err(refusal) => Reply::Error(refusal),
            },
            Request::Import { formers } => {
                let (plan, events, changes) = self.import(&formers, now);
                let receipt = (reply, done(Document::Changes(changes)));
                return self.commit(plan, events, Some(receipt), now);
            }
            Request::Status { jail } => self.status(jail.as_deref()),
            Request::List { jail, limit } => self.list(jail.as_deref(), limit, now),
            Request::Show { address } => self.show(address, now),
            Request::Drift => self.drift(now),
            Request::Reload => match self.reload() {
                Ok(()) => text(format!("reloaded: {} jails run", self.config.jails.len())),
                Err(error) => Reply::Error(Refusal {
                    code: error.code(),
                    message: format!("not reloaded: {error}"),
                    hint: error.hint(),
                }),
            },
            Request::Resume { jail } => self.resume(jail.as_deref()),
            Request::Detach => {
                self.detach();
                text("detached; no ban is enforced any more, and the agent ends".into())
            }
        };
        // the asker may have gone
        let _ = reply.send(answer);
    }

    fn ban(
        &mut self,
        targets: &[IpNet],
        terms: &Terms,
        now: Now,
    ) -> Result<(Plan, Vec<crate::event::Event>, Changes), Refusal> {
        let holder = self.holder(terms.jail.as_deref())?;
        let ports = ports(&terms.ports)?;
        let until = match (terms.duration, terms.jail.as_deref()) {
            (Some(Term::Millis(millis)), _) => now.boot.plus(millis),
            (Some(Term::Forever), _) => Boot::NEVER,
            (None, jail) => self.bantime(jail, now),
        };
        let (mut plan, mut events, mut changes) = (Plan::default(), Vec::new(), Vec::new());
        for prefix in targets {
            let claim =
                Claim { prefix: *prefix, holder: holder.clone(), until, ports: ports.clone() };
            let change = self.ledger.claim(&claim, terms.force, now.boot, &mut plan);
            if matches!(change, Change::New | Change::Joined | Change::Extended) {
                self.store.manual(&claim, terms.reason.as_deref(), now);
                events.push(event(Action::Ban, &claim, now));
            }
            changes.push(self.changed(&claim, &change, now));
        }
        if terms.force {
            self.allow();
        }
        Ok((plan, events, Changes { schema: SCHEMA, changes }))
    }

    /// History and evidence of all, and the claims of those whose ban still runs.
    fn import(
        &mut self,
        formers: &[Former],
        now: Now,
    ) -> (Plan, Vec<crate::event::Event>, Changes) {
        let (mut plan, mut events, mut changes) = (Plan::default(), Vec::new(), Vec::new());
        for former in formers {
            self.store.former(former);
            let until = former.until.map_or(Boot::NEVER, |until| now.boot_of(until));
            if until <= now.boot {
                continue;
            }
            let holder = holder_named(&former.jail);
            let claim = Claim { prefix: former.prefix, holder, until, ports: Ports::new() };
            let change = self.ledger.claim(&claim, false, now.boot, &mut plan);
            if matches!(change, Change::New | Change::Joined | Change::Extended) {
                self.store.claim(&claim, None, now);
                events.push(event(Action::Restore, &claim, now));
            }
            changes.push(self.changed(&claim, &change, now));
        }
        (plan, events, Changes { schema: SCHEMA, changes })
    }

    fn changed(&self, claim: &Claim, change: &Change, now: Now) -> control::Change {
        let (result, reason) = match change {
            Change::New => (Outcome::Banned, None),
            Change::Joined | Change::Extended => (Outcome::Extended, None),
            Change::Unchanged(_) => (Outcome::Unchanged, None),
            Change::Over => (Outcome::Refused, Some("its end is past".into())),
            Change::Refused(refusal @ ledger::Refusal::Full(_)) => {
                (Outcome::Full, Some(refusal.to_string()))
            }
            Change::Refused(refusal @ ledger::Refusal::Protected(..)) => {
                (Outcome::Refused, Some(format!("{refusal}; --force bans it all the same")))
            }
            Change::Refused(refusal) => (Outcome::Refused, Some(refusal.to_string())),
        };
        let until = self.ledger.get(claim.prefix).and_then(|ban| now.wall_of(ban.until()));
        control::Change { prefix: claim.prefix, result, until, reason }
    }

    fn bantime(&self, jail: Option<&str>, now: Now) -> Boot {
        let spec = jail.and_then(|jail| self.wiring.jail(jail));
        match spec.and_then(|spec| spec.bantime) {
            Some(time) => now.boot.plus(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            None => Boot::NEVER,
        }
    }

    fn unban(
        &mut self,
        targets: &[IpNet],
        all: bool,
        jail: Option<String>,
        now: Now,
    ) -> Result<(Plan, Changes), Refusal> {
        // the claims of a jail that is gone from the configuration can still be lifted
        let holder = jail.as_deref().map(holder_named);
        let mut plan = Plan::default();
        if all {
            self.ledger.release_all(holder.as_ref(), &mut plan);
            let mut prefixes: Vec<IpNet> =
                plan.ended.iter().map(|ended| ended.claim.prefix).collect();
            prefixes.dedup();
            let changes = prefixes.iter().map(|prefix| self.released(*prefix, 1, now)).collect();
            return Ok((plan, Changes { schema: SCHEMA, changes }));
        }
        let changes = targets
            .iter()
            .map(|prefix| {
                let count = self.ledger.release(*prefix, holder.as_ref(), &mut plan);
                self.released(*prefix, count, now)
            })
            .collect();
        Ok((plan, Changes { schema: SCHEMA, changes }))
    }

    fn released(&self, prefix: IpNet, count: usize, now: Now) -> control::Change {
        let left = self.ledger.get(prefix);
        let result = match (count, &left) {
            (0, None) => Outcome::Absent,
            (0, Some(_)) => Outcome::Held,
            (_, None) => Outcome::Unbanned,
            (_, Some(_)) => Outcome::Held,
        };
        let reason = match &left {
            Some(ban) => {
                let holders: Vec<String> =
                    ban.claims().map(|claim| claim.holder.to_string()).collect();
                Some(format!("held by {}", holders.join(", ")))
            }
            None => self
                .ledger
                .covering(prefix)
                .next()
                .map(|ban| format!("{} is still banned and covers it", ban.prefix)),
        };
        let until = left.and_then(|ban| now.wall_of(ban.until()));
        control::Change { prefix, result, until, reason }
    }

    /// Lets stopped jails ban again.
    fn resume(&mut self, jail: Option<&str>) -> Reply {
        let chosen =
            self.breakers.iter_mut().filter(|(name, _)| jail.is_none_or(|jail| jail == &***name));
        let mut resumed: Vec<&str> =
            chosen.filter_map(|(name, breaker)| breaker.resume().then_some(&**name)).collect();
        resumed.sort_unstable();
        if resumed.is_empty() {
            let message = match jail {
                Some(jail) => format!("the jail '{jail}' is not stopped"),
                None => "no jail is stopped".to_owned(),
            };
            return Reply::Error(Refusal { code: 1, message, hint: None });
        }
        text(format!("banning again: {}", resumed.join(", ")))
    }

    fn holder(&self, jail: Option<&str>) -> Result<Holder, Refusal> {
        let Some(name) = jail else { return Ok(Holder::Manual) };
        if self.wiring.jail(name).is_some() {
            return Ok(holder_named(name));
        }
        let known: Vec<&str> = self.wiring.jails().map(|(spec, _)| &*spec.name).collect();
        Err(Refusal {
            code: 2,
            message: format!("there is no jail '{name}'"),
            hint: Some(format!("running jails: {}", known.join(", "))),
        })
    }

    fn list(&mut self, jail: Option<&str>, limit: Option<usize>, now: Now) -> Reply {
        let holder = jail.map(holder_named);
        let mut chosen: Vec<(Boot, IpNet)> = self
            .ledger
            .iter()
            .filter(|ban| holder.as_ref().is_none_or(|holder| ban.is_held_by(holder)))
            .map(|ban| (ban.until(), ban.prefix))
            .collect();
        chosen.sort_unstable();
        chosen.truncate(limit.unwrap_or(usize::MAX));
        let prefixes: Vec<IpNet> = chosen.iter().map(|(_, prefix)| *prefix).collect();
        match self.bans(&prefixes, now) {
            Ok(bans) => done(Document::List(List { schema: SCHEMA, bans })),
            Err(refusal) => Reply::Error(refusal),
        }
    }

    /// The bans of exactly these prefixes, with their counters.
    fn bans(&mut self, prefixes: &[IpNet], now: Now) -> Result<Vec<Ban>, Refusal> {
        let hits = self.xdp.hits(prefixes).map_err(|error| Refusal {
            code: 2,
            message: format!("cannot read the maps: {error:#}"),
            hint: Some("`ban-agent doctor` tells more".into()),
        })?;
        Ok(prefixes
            .iter()
            .zip(hits)
            .filter_map(|(prefix, hits)| Some(describe(self.ledger.get(*prefix)?, hits, now)))
            .collect())
    }

    fn show(&mut self, address: IpNet, now: Now) -> Reply {
        let mut covering: Vec<IpNet> =
            self.ledger.covering(address).map(|ban| ban.prefix).collect();
        covering.reverse();
        let bans = match self.bans(&covering, now) {
            Ok(bans) => bans,
            Err(refusal) => return Reply::Error(refusal),
        };
        let protected =
            self.ledger.refusal(address, &Holder::Manual, false).map(|refusal| refusal.to_string());
        let evidence =
            covering.iter().flat_map(|prefix| self.store.evidence(*prefix)).map(shown).collect();
        done(Document::Show(Show {
            schema: SCHEMA,
            address: Shown(address).to_string(),
            banned: !bans.is_empty(),
            protected,
            bans,
            evidence,
            history: self.store.history(address),
        }))
    }

    fn status(&mut self, jail: Option<&str>) -> Reply {
        if let Some(name) = jail
            && self.wiring.jail(name).is_none()
        {
            return Reply::Error(Refusal {
                code: 1,
                message: format!("there is no jail '{name}'"),
                hint: Some("`ban-agent status` names them all".into()),
            });
        }
        let v4 = self.ledger.iter().filter(|ban| matches!(ban.prefix, IpNet::V4(_))).count();
        let v6 = self.ledger.len() - v4;
        let status = Status {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            since: self.started,
            dry_run: self.xdp.is_dry_run(),
            warnings: self.warnings(),
            interfaces: self
                .xdp
                .interfaces()
                .iter()
                .map(|attached| Interface {
                    name: attached.name.clone(),
                    mode: attached.place.name().into(),
                })
                .collect(),
            bans: Fill { v4, v6, max: self.xdp.capacity() },
            verdicts: self.verdicts(),
            jails: self.jails(jail),
            sources: self.sources(),
            store: self.store.state().to_string(),
        };
        done(Document::Status(Box::new(status)))
    }

    fn verdicts(&self) -> Vec<control::Verdict> {
        match self.xdp.verdicts() {
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
        let all = self.wiring.stats().snapshot().into_iter();
        all.map(|(origin, counters)| SourceStatus { origin: origin.to_string(), counters })
            .collect()
    }

    /// What is wrong, the worst first.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(error) = &self.kernel_error {
            warnings.push(format!("{} steps wait for the kernel: {error}", self.pending.len()));
        }
        for (jail, breaker) in &self.breakers {
            if let Some(trip) = breaker.tripped() {
                warnings.push(format!("{jail} has stopped banning: {trip}; see `resume`"));
            }
        }
        let state = self.store.state();
        if !state.is_sound() {
            warnings.push(format!("the store is degraded: {state}"));
        }
        warnings.extend(self.xdp.interfaces().iter().flat_map(|on| on.warnings.iter().cloned()));
        for (origin, counters) in self.wiring.stats().snapshot() {
            if let Some(error) = counters.error {
                warnings.push(format!("{origin}: {error}"));
            } else if counters.waiting {
                warnings.push(format!("{origin}: nothing to read yet"));
            }
        }
        warnings.extend(self.config.warnings.iter().cloned());
        warnings
    }

    fn jails(&self, only: Option<&str>) -> Vec<JailStatus> {
        let mut banned: HashMap<Holder, u64> = HashMap::new();
        for ban in self.ledger.iter() {
            for claim in ban.claims() {
                *banned.entry(claim.holder).or_default() += 1;
            }
        }
        self.wiring
            .jails()
            .filter(|(spec, _)| only.is_none_or(|name| *spec.name == *name))
            .map(|(spec, counters)| JailStatus {
                name: spec.name.to_string(),
                sources: spec.sources.iter().map(ToString::to_string).collect(),
                lines: counters.lines.load(Ordering::Relaxed),
                matched: counters.matched.load(Ordering::Relaxed),
                ignored: counters.ignored.load(Ordering::Relaxed),
                failed: counters.failing.load(Ordering::Relaxed),
                banned: banned
                    .get(&Holder::Jail(Arc::clone(&spec.name)))
                    .copied()
                    .unwrap_or_default(),
                total: counters.total.load(Ordering::Relaxed),
            })
            .collect()
    }

    fn drift(&mut self, now: Now) -> Reply {
        let ops = match self.differences(now) {
            Ok(ops) => ops,
            Err(error) => {
                return Reply::Error(Refusal {
                    code: 2,
                    message: format!("cannot read the maps: {error:#}"),
                    hint: None,
                });
            }
        };
        let surplus = ops.iter().filter(|op| matches!(op, Op::Clear(_))).count();
        let set = ops.len() - surplus;
        done(Document::Drift(Drift {
            schema: SCHEMA,
            missing: set,
            surplus,
            pending: self.pending.len(),
        }))
    }

    /// The steps that bring the kernel in line with the ledger. Ends may differ by the second
    /// that the maps' own end is rounded to.
    pub(super) fn differences(&mut self, now: Now) -> anyhow::Result<Vec<Op>> {
        let held: HashMap<IpNet, Held> =
            self.xdp.held()?.into_iter().map(|held| (held.prefix, held)).collect();
        let mut ops = Vec::new();
        for prefix in held.keys() {
            if self.ledger.get(*prefix).is_none() {
                ops.push(Op::Clear(*prefix));
            }
        }
        for ban in self.ledger.iter() {
            let same = held.get(&ban.prefix).is_some_and(|held| agrees(held, &ban, now));
            if !same {
                ops.push(Op::Set(ban.prefix, ban.enforced()));
            }
        }
        Ok(ops)
    }
}

/// How a ban by hand was asked for.
struct Terms {
    duration: Option<Term>,
    jail: Option<String>,
    ports: Vec<String>,
    reason: Option<String>,
    force: bool,
}

/// Evidence for people: what an attacker wrote is inert from here on.
fn shown(evidence: store::Evidence) -> control::Evidence {
    control::Evidence {
        jail: evidence.holder.to_string(),
        at: evidence.at,
        prefix: evidence.prefix,
        failures: evidence.failures,
        reason: evidence.reason.map(|reason| escape(reason.as_bytes())),
        lines: evidence.lines.iter().map(|line| escape(line)).collect(),
    }
}

fn agrees(held: &Held, ban: &ledger::Ban<'_>, now: Now) -> bool {
    match (held.until, now.wall_of(ban.until())) {
        (None, None) => true,
        (Some(held), Some(wanted)) => (held.as_second() - wanted.as_second()).abs() <= 1,
        _ => false,
    }
}

fn describe(ban: ledger::Ban<'_>, hits: Hits, now: Now) -> Ban {
    let claims: Vec<Claim> = ban.claims().collect();
    let mut ports: Vec<String> = Vec::new();
    if claims.iter().all(|claim| !claim.ports.is_empty()) {
        ports = ban.enforced().ports.iter().map(ToString::to_string).collect();
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
            })
            .collect(),
        until: now.wall_of(ban.until()),
        packets: hits.packets,
        bytes: hits.bytes,
        ports,
    }
}

fn holder_named(name: &str) -> Holder {
    if name == "manual" { Holder::Manual } else { Holder::Jail(name.into()) }
}

fn ports(rules: &[String]) -> Result<Ports, Refusal> {
    let mut ports = Ports::new();
    for rule in rules {
        let parsed = net::parse_ports(rule).map_err(|error| Refusal {
            code: 2,
            message: error.to_string(),
            hint: None,
        })?;
        ports.extend(parsed);
    }
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}

fn done(document: Document) -> Reply {
    Reply::Done(document)
}

fn text(message: String) -> Reply {
    done(Document::Text(Text { schema: SCHEMA, message }))
}
