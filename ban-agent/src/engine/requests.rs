//! Answers the CLI: who asks what, and the bans by hand.

use std::{sync::Arc, time::Instant};

use tokio::sync::oneshot;

use super::Engine;
use crate::{
    clock::{Boot, Now},
    control::{self, Call, Changes, Document, Outcome, Refusal, Reply, Request, Term},
    event::{Action, Event, What},
    ledger::{self, Change, Claim, Holder, Plan},
    net::{IpNet, Ports},
    store::import::Former,
};

/// Names of jails that fail2ban runs and we enforce begin like this.
const FAIL2BAN: &str = "f2b-";
/// The widest prefixes, IPv4 and IPv6, that are banned by hand without --force.
const WIDEST: (u8, u8) = (16, 32);
/// How near a jail's name has to be to be named.
const NEAR: usize = 3;
/// Reasons of bans by hand that are told again when one is prolonged.
const REASONS: usize = 4096;

impl Engine {
    /// Answers one request; changes are answered once the store has them.
    pub(super) fn answer(&mut self, call: Call, now: Now) {
        let Call { request, reply, user } = call;
        self.asker = user;
        self.reply(request, reply, now);
        self.asker = None;
    }

    fn reply(&mut self, request: Request, reply: oneshot::Sender<Reply>, now: Now) {
        let answer = match request {
            Request::Ban { targets, duration, jail, ports, reason, force } => {
                let term = Terms { duration, jail, ports, reason, force };
                match self.ban(&targets, &term, now) {
                    Ok((plan, events, changes)) => {
                        let pending = (reply, Reply::Done(Document::Changes(changes)));
                        return self.commit(plan, events, Some(pending), now);
                    }
                    Err(refusal) => Reply::Error(refusal),
                }
            }
            Request::Unban { targets, all, jail } => match self.unban(&targets, all, jail, now) {
                Ok((plan, changes)) => {
                    let pending = (reply, Reply::Done(Document::Changes(changes)));
                    return self.commit(plan, Vec::new(), Some(pending), now);
                }
                Err(refusal) => Reply::Error(refusal),
            },
            Request::Import { formers } => {
                let (plan, events, changes) = self.import(&formers, now);
                let pending = (reply, Reply::Done(Document::Changes(changes)));
                return self.commit(plan, events, Some(pending), now);
            }
            Request::Status { jail } => self.status(jail.as_deref(), now),
            Request::Show { address } => self.show(address, now),
            Request::Drift => self.drift(),
            // the socket's end serves it; nothing else asks
            Request::Watch { .. } | Request::List { .. } => {
                Reply::text("sent over the socket only".into())
            }
            Request::Reload => match self.reload() {
                Ok(waiting) => {
                    let mut said = format!("reloaded: {} jails run", self.config.jails.len());
                    if !waiting.is_empty() {
                        said.push_str("; these take effect only at the next start: ");
                        said.push_str(&waiting.join(", "));
                    }
                    Reply::text(said)
                }
                Err(error) => Reply::Error(Refusal {
                    code: error.code(),
                    message: format!("not reloaded: {error}"),
                    hint: error.hint(),
                }),
            },
            Request::Confirm { again } => self.confirm(again, now),
            Request::Resume { jail } => self.resume(jail.as_deref()),
            Request::Detach => return self.detach(reply),
        };
        // the asker may have gone
        let _ = reply.send(answer);
    }

    fn ban(
        &mut self,
        targets: &[IpNet],
        terms: &Terms,
        now: Now,
    ) -> Result<(Plan, Vec<Event>, Changes), Refusal> {
        let holder = self.holder(terms.jail.as_deref())?;
        let until = match (terms.duration, terms.jail.as_deref()) {
            (Some(Term::For(time)), _) => now.boot.after(time),
            (Some(Term::Forever), _) => Boot::NEVER,
            (None, jail) => self.bantime(jail, now),
        };
        let reason: Option<Arc<str>> = terms.reason.as_deref().map(Into::into);
        let (mut plan, mut events, mut changes) = (Plan::default(), Vec::new(), Vec::new());
        for prefix in targets {
            if !terms.force && is_wide(*prefix) {
                changes.push(too_wide(*prefix));
                continue;
            }
            let claim = Claim {
                prefix: *prefix,
                holder: holder.clone(),
                until,
                ports: terms.ports.clone(),
                derived: false,
            };
            let change = self.ledger.claim(&claim, terms.force, now.boot, &mut plan);
            if let Some(action) = Action::of(&change) {
                self.tell_banned(&claim, &change, None, now);
                self.count_ban(&claim, &change, now);
                if change == Change::Extended && reason.is_none() {
                    // what was said of it still holds
                    self.store.claim(&claim, None, now);
                } else {
                    self.store.manual(&claim, reason.as_deref(), now);
                }
                let mut event = Event::of(action, &claim, now);
                if let What::Ban(ban) = &mut event.what {
                    ban.reason = self.reason(&claim, reason.as_ref());
                }
                events.push(event);
            }
            changes.push(self.changed(&claim, &change, now));
        }
        if terms.force {
            self.allow();
        }
        Ok((plan, events, Changes::new(changes, self.alarms(now))))
    }

    /// Why a claim by hand is there: as is said now, or was when it was made.
    fn reason(&mut self, claim: &Claim, said: Option<&Arc<str>>) -> Option<Arc<str>> {
        let key = (claim.prefix.trunc(), claim.holder.clone());
        let Some(said) = said else { return self.reasons.get(&key).cloned() };
        if self.reasons.len() < REASONS {
            self.reasons.insert(key, Arc::clone(said));
        }
        Some(Arc::clone(said))
    }

    /// History and evidence of all, and the claims of those whose ban still runs. The socket's end has
    /// taken off the bans that were taken over before.
    fn import(&mut self, formers: &[Former], now: Now) -> (Plan, Vec<Event>, Changes) {
        let (mut plan, mut events, mut changes) = (Plan::default(), Vec::new(), Vec::new());
        let mut past = Vec::new();
        for former in formers {
            self.store.former(former);
            let jail: Arc<str> = former.jail.as_str().into();
            let more = usize::try_from(former.bans).unwrap_or(usize::MAX);
            let newest = former.times.iter().rev().take(more);
            past.extend(newest.map(|at| (*at, Arc::clone(&jail), former.prefix)));
            let until = former.until.map_or(Boot::NEVER, |until| now.boot_of(until));
            if until <= now.boot {
                continue;
            }
            let holder = Holder::named(&former.jail);
            // as wide as the jail would ban; fail2ban's database does not tell
            let ports = self.pipeline.jail(&former.jail).map(|spec| spec.rules.ports.clone());
            let ports = ports.unwrap_or_default();
            let claim = Claim { prefix: former.prefix, holder, until, ports, derived: false };
            let change = self.ledger.claim(&claim, false, now.boot, &mut plan);
            if matches!(change, Change::New | Change::Joined | Change::Extended) {
                self.tell_restored(&claim, now);
                self.store.claim(&claim, None, now);
                events.push(Event::of(Action::Restore, &claim, now));
            }
            changes.push(self.changed(&claim, &change, now));
        }
        self.pipeline.tell_bans(past);
        let alarms = self.alarms(now);
        (plan, events, Changes::new(changes, alarms))
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
                (Outcome::Refused, Some(format!("{refusal}; use --force to ban it anyway")))
            }
            Change::Refused(refusal) => (Outcome::Refused, Some(refusal.to_string())),
        };
        let until = self.ledger.get(claim.prefix).and_then(|ban| now.wall_of(ban.until()));
        control::Change { prefix: claim.prefix, result, until, reason }
    }

    fn bantime(&self, jail: Option<&str>, now: Now) -> Boot {
        let time = match jail {
            None => self.config.agent.manual_bantime,
            Some(jail) => self.pipeline.jail(jail).and_then(|spec| spec.rules.bantime),
        };
        match time {
            Some(time) => now.boot.after(time),
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
        if let Some(jail) = &jail {
            self.known_holder(jail)?;
        }
        let holder = jail.as_deref().map(Holder::named);
        let mut plan = Plan::default();
        self.pardon(targets, all, holder.as_ref(), now);
        if all {
            self.flush = true;
            self.ledger.release_all(holder.as_ref(), &mut plan);
            self.narrow(&mut plan, now);
            let mut prefixes: Vec<IpNet> =
                plan.ended.iter().map(|ended| ended.claim.prefix).collect();
            prefixes.dedup();
            let changes = prefixes.iter().map(|prefix| self.released(*prefix, 1, now)).collect();
            return Ok((plan, Changes::new(changes, self.alarms(now))));
        }
        let mut release = |prefix: &IpNet| self.ledger.release(*prefix, holder.as_ref(), &mut plan);
        let counts: Vec<usize> = targets.iter().map(&mut release).collect();
        // before it is told what still covers them
        self.narrow(&mut plan, now);
        let released = targets.iter().zip(counts);
        let changes = released.map(|(prefix, count)| self.released(*prefix, count, now)).collect();
        Ok((plan, Changes::new(changes, self.alarms(now))))
    }

    /// What was logged before an unban bans nobody after it, also if a crash has it read again.
    fn pardon(&mut self, targets: &[IpNet], all: bool, holder: Option<&Holder>, now: Now) {
        let everybody = all.then_some(None);
        let prefixes = targets.iter().map(|prefix| Some(prefix.trunc()));
        let pardoned: Vec<Option<IpNet>> = everybody.into_iter().chain(prefixes).collect();
        let of_whom = |prefix: &Option<IpNet>| (*prefix, holder.cloned());
        let given = Instant::now();
        self.pipeline.forgive(pardoned.iter().map(of_whom).collect(), given);
        for prefix in pardoned {
            self.pardons.insert((prefix, holder.cloned()), now.wall, Some(given));
            self.store.pardon((prefix, holder.cloned()), now.wall);
        }
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
    pub(super) fn resume(&mut self, jail: Option<&str>) -> Reply {
        if let Some(jail) = jail
            && let Err(refusal) = self.known_holder(jail)
        {
            return Reply::Error(refusal);
        }
        let chosen =
            self.breakers.iter_mut().filter(|(name, _)| jail.is_none_or(|jail| jail == &***name));
        let mut resumed: Vec<&str> =
            chosen.filter_map(|(name, breaker)| breaker.resume().then_some(&**name)).collect();
        resumed.sort_unstable();
        let jails = resumed.iter().map(|jail| What::Resumed { jail: (*jail).into() });
        self.bus.publish(jails.map(Event::now).collect());
        if resumed.is_empty() {
            let message = match jail {
                Some(jail) => format!("the jail '{jail}' is not stopped"),
                None => "no jail is stopped".to_owned(),
            };
            return Reply::Error(Refusal { code: 1, message, hint: None });
        }
        Reply::text(format!("banning again: {}", resumed.join(", ")))
    }

    fn holder(&self, jail: Option<&str>) -> Result<Holder, Refusal> {
        let Some(name) = jail else { return Ok(Holder::Manual) };
        if self.pipeline.jail(name).is_some() {
            return Ok(Holder::named(name));
        }
        if name.strip_prefix(FAIL2BAN).is_some_and(|rest| !rest.is_empty() && rest.len() <= 64) {
            return Ok(Holder::named(name));
        }
        Err(self.no_jail(name))
    }

    /// Whether somebody may hold bans by this name: a jail, also one that is off or gone and left
    /// some, the operator, or a jail of fail2ban.
    pub(super) fn known_holder(&self, name: &str) -> Result<(), Refusal> {
        let holder = Holder::named(name);
        let known = name == "manual"
            || name.starts_with(FAIL2BAN)
            || self.pipeline.jail(name).is_some()
            || self.config.disabled.iter().any(|off| off == name)
            || self.config.refused.iter().any(|refused| refused.part == format!("jail {name}"))
            || self.ledger.held().any(|(other, _)| *other == holder);
        if known { Ok(()) } else { Err(self.no_jail(name)) }
    }

    /// That there is no such jail, and which was meant perhaps.
    pub(super) fn no_jail(&self, name: &str) -> Refusal {
        let known: Vec<&str> = self.pipeline.jails().map(|(spec, _)| &*spec.rules.name).collect();
        let near = known.iter().map(|jail| (strsim::damerau_levenshtein(jail, name), *jail));
        let hint = match near.min() {
            Some((distance, jail)) if distance <= NEAR.min(name.chars().count() / 2) => {
                format!("did you mean '{jail}'?")
            }
            _ => format!("running jails: {}", known.join(", ")),
        };
        Refusal { code: 2, message: format!("there is no jail '{name}'"), hint: Some(hint) }
    }
}

/// Whether a ban by hand has to be meant: it is more than a slip of the hand should ban.
fn is_wide(prefix: IpNet) -> bool {
    prefix.prefix_len() < if matches!(prefix, IpNet::V4(_)) { WIDEST.0 } else { WIDEST.1 }
}

fn too_wide(prefix: IpNet) -> control::Change {
    let widest = if matches!(prefix, IpNet::V4(_)) { WIDEST.0 } else { WIDEST.1 };
    let reason = format!("it is wider than a /{widest}; use --force to ban it anyway");
    control::Change { prefix, result: Outcome::Refused, until: None, reason: Some(reason) }
}

/// How a ban by hand was asked for.
struct Terms {
    duration: Option<Term>,
    jail: Option<String>,
    ports: Ports,
    reason: Option<String>,
    force: bool,
}
