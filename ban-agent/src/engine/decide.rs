//! What a jail wants, and what becomes of it: a claim, a wider one, or nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::Engine;
use crate::{
    action::Ticket,
    clock::{Boot, Now},
    event::{Action, Event, Shown, What},
    jail::{self, Offence, Widen},
    ledger::{Change, Claim, Holder, Plan, Refusal},
    net::IpNet,
    pipeline::OwnBan,
    protect::Watcher,
};

impl Engine {
    /// A jail's offence becomes its claim. `read`: when the line was that was one too many.
    pub(super) fn offence(
        &mut self,
        jail: Arc<str>,
        offence: Offence,
        read: Instant,
        now: Now,
        plan: &mut Plan,
        events: &mut Vec<Event>,
    ) {
        let holder = Holder::Jail(Arc::clone(&jail));
        if self.unban_marks.forgive(offence.prefix, &holder, offence.time, Some(read)) {
            return log::debug!("[{jail}] {} was let go since", offence.prefix);
        }
        if self.withhold(&jail, &offence, now, events) {
            return log::debug!("[{jail}] {} not banned: so it was ordered", offence.prefix);
        }
        if self.pipeline.jail(&jail).is_some_and(|spec| !spec.rules.bans) {
            return self.tell(&jail, &offence, now, events);
        }
        if let Some(held) = self.held_already(&offence, &holder) {
            return self.prolong(held, &offence, now, plan, events);
        }
        let duration = self.duration(&jail, &offence, now);
        let until = end(&offence, duration, now);
        let mut claim = Claim {
            prefix: offence.prefix,
            holder,
            until,
            ports: offence.ports.clone(),
            derived: false,
        };
        if !self.admits(&jail, &claim, &offence, now) {
            return;
        }
        let mut change = self.claim(&claim, now, plan);
        if matches!(change, Change::Refused(_)) && offence.address != offence.prefix {
            // the network holds an address that must not be banned: the offender alone, then
            claim.prefix = offence.address;
            change = self.claim(&claim, now, plan);
        }
        if let Some(action) = Action::of(&change) {
            self.latency.banned(claim.prefix);
            if action == Action::Ban {
                self.pipeline.count_ban(&jail);
            }
            self.actions.tell_banned(&mut self.store, &claim, &change, Some(&offence), now);
            self.count_ban(&claim, &change, now);
            self.store.claim(&claim, Some(&offence), now);
            let mut event = Event::of(action, &claim, now);
            if let What::Ban(ban) = &mut event.what {
                ban.failures = Some(offence.failures);
            }
            events.push(event);
            self.watch_hits_of(&claim, now);
            return self.widen(claim, now, plan, events);
        }
        match change {
            Change::New | Change::Joined | Change::Extended | Change::Unchanged(_) => {}
            Change::Over => {
                log::debug!("[{jail}] {} would have been banned until before now", claim.prefix);
            }
            Change::Refused(refusal) => {
                log::warn!("[{jail}] {} not banned: {refusal}", claim.prefix);
                let reason = refusal.to_string();
                events.push(Event {
                    at: now.wall,
                    what: What::Refused { jail, prefix: claim.prefix, reason },
                });
            }
        }
    }

    /// Makes a jail's claim, unless it is on a network that is, or holds, one of this host: the
    /// jail may not have heard of that yet, or a line has named it.
    fn claim(&mut self, claim: &Claim, now: Now, plan: &mut Plan) -> Change {
        let is_network = claim.prefix.prefix_len() < claim.prefix.max_prefix_len();
        match self.pipeline.onlink().overlap(claim.prefix).filter(|_| is_network) {
            Some(own) => Change::Refused(Refusal::OnLink(own)),
            None => self.ledger.claim(claim, false, now.boot, plan),
        }
    }

    /// This jail is to ban no address, the operator says: its actions are told instead.
    fn tell(&mut self, jail: &Arc<str>, offence: &Offence, now: Now, events: &mut Vec<Event>) {
        let ticket = Ticket { bancount: 1, ..Ticket::of(offence) };
        if self.actions.tell_only(jail, Shown(offence.prefix).to_string(), ticket, now) {
            let (jail, prefix) = (Arc::clone(jail), offence.prefix);
            let reason = "this jail bans no address: only its actions run".to_owned();
            events.push(Event { at: now.wall, what: What::Refused { jail, prefix, reason } });
        }
    }

    /// Returns the claim of the jail on what an offence is about, if it has one already.
    fn held_already(&self, offence: &Offence, holder: &Holder) -> Option<Claim> {
        let mut ports = offence.ports.clone();
        ports.sort_unstable();
        ports.dedup();
        [offence.prefix, offence.address].into_iter().find_map(|prefix| {
            self.ledger
                .get(prefix)?
                .claims()
                .find(|claim| claim.holder == *holder && claim.ports == ports && !claim.derived)
        })
    }

    /// An address goes on that is banned already, behind a proxy, on other ports or in a dry run.
    /// As in fail2ban that is no further ban: nothing is put on record, nothing grows longer by it;
    /// only the end moves to one plain bantime after the last failure, if that is later.
    fn prolong(
        &mut self,
        held: Claim,
        offence: &Offence,
        now: Now,
        plan: &mut Plan,
        events: &mut Vec<Event>,
    ) {
        let claim = Claim { until: end(offence, offence.duration, now), ..held };
        log::debug!("[{}] {} already banned", claim.holder, claim.prefix);
        let change = self.ledger.claim(&claim, false, now.boot, plan);
        if change == Change::Extended {
            self.actions.tell_banned(&mut self.store, &claim, &change, Some(offence), now);
            self.store.claim(&claim, None, now);
            self.watch_hits_of(&claim, now);
            self.widen(claim, now, plan, events);
        }
    }

    /// Bans the networks that have enough banned members by now.
    pub(super) fn widen(
        &mut self,
        mut claim: Claim,
        now: Now,
        plan: &mut Plan,
        events: &mut Vec<Event>,
    ) {
        let Some(rule) = widening(&self.config.jails, &claim.holder) else { return };
        let onlink = self.pipeline.onlink();
        while let Some(wider) = self.ledger.widened(&claim, &rule, &onlink) {
            let change = self.ledger.claim(&wider, false, now.boot, plan);
            if !matches!(change, Change::New | Change::Joined | Change::Extended) {
                return;
            }
            self.actions.tell_banned(&mut self.store, &wider, &change, None, now);
            if change == Change::Extended {
                self.store.claim(&wider, None, now);
            } else {
                let reason = format!("{} or more of its members are banned", rule.members);
                self.store.manual(&wider, Some(&reason), now);
                events.push(Event::of(Action::Ban, &wider, now));
            }
            self.watch_hits_of(&wider, now);
            claim = wider;
        }
    }

    /// Takes back the wider claims of claims that were ended before their time.
    pub(super) fn narrow(&mut self, plan: &mut Plan, now: Now) {
        let jails = &self.config.jails;
        let rule = |holder: &Holder| widening(jails, holder);
        for shorter in self.ledger.narrow(rule, plan) {
            self.store.claim(&shorter, None, now);
        }
    }

    /// Learns the networks that this host is a member of; no jail bans one as a whole.
    pub(super) fn set_onlink(&mut self, networks: Vec<IpNet>, plan: &mut Plan) {
        self.pipeline.set_onlink(networks.into_iter().collect());
        self.free_onlink(plan);
    }

    /// Lets go of networks that this host has become a member of.
    pub(super) fn free_onlink(&mut self, plan: &mut Plan) {
        let mut found = Vec::new();
        for network in self.pipeline.onlink().iter() {
            for ban in self.ledger.covering(network).chain(self.ledger.within(network)) {
                let is_network = ban.prefix.prefix_len() < ban.prefix.max_prefix_len();
                let holders = ban.claims().map(|claim| claim.holder);
                let jails = holders.filter(|holder| is_network && *holder != Holder::Manual);
                found.extend(jails.map(|holder| (ban.prefix, holder)));
            }
        }
        for (prefix, holder) in found {
            log::warn!("[{holder}] releases {prefix}: it is, or contains, a network of this host");
            self.ledger.release(prefix, Some(&holder), plan);
        }
    }

    /// A jail banned what it had not banned already: the jails that count bans are told.
    pub(super) fn count_ban(&self, claim: &Claim, change: &Change, now: Now) {
        let Holder::Jail(jail) = &claim.holder else { return };
        if matches!(change, Change::New | Change::Joined) {
            let (at, jail) = (now.wall, Arc::clone(jail));
            self.pipeline.tell_bans(vec![OwnBan { at, jail, prefix: claim.prefix }]);
        }
    }

    /// Returns whether the jail's breaker lets one more ban pass.
    fn admits(&mut self, jail: &Arc<str>, claim: &Claim, offence: &Offence, now: Now) -> bool {
        let Some(limits) = self.pipeline.jail(jail).map(|spec| spec.rules.limits) else {
            return true;
        };
        if self.ledger.get(claim.prefix).is_some_and(|ban| ban.is_held_by(&claim.holder)) {
            return true;
        }
        let watcher = self.watcher.as_ref().filter(|_| limits.share.is_some());
        let connected = watcher.map(Watcher::connected).unwrap_or_default();
        let is_client = connected.contains(&offence.address.addr());
        let breaker = self.breakers.entry(Arc::clone(jail)).or_default();
        let was_tripped = breaker.tripped().is_some();
        match breaker.admit(limits, is_client, connected.len(), now.boot) {
            Ok(()) => true,
            Err(trip) => {
                if !was_tripped {
                    log::error!("[{jail}] stopped banning: {trip}; `ban-agent resume` ends it");
                    let stopped =
                        What::Stopped { jail: Arc::clone(jail), reason: trip.to_string() };
                    self.bus.publish(vec![Event::now(stopped)]);
                }
                false
            }
        }
    }

    /// `bantime`, longer for those who come again.
    fn duration(&mut self, jail: &str, offence: &Offence, now: Now) -> Option<Duration> {
        let Some(spec) = self.pipeline.jail(jail) else { return offence.duration };
        let Some(increment) = &spec.rules.increment else { return offence.duration };
        let former = self.store.former_bans(offence.prefix, jail, increment.overalljails, now);
        spec.rules.bantime_for(former, dice())
    }
}

/// As in fail2ban: a ban runs from the last failure, not from when we read of it.
fn end(offence: &Offence, duration: Option<Duration>, now: Now) -> Boot {
    duration.map_or(Boot::NEVER, |duration| {
        now.boot_of(offence.time.checked_add(duration).unwrap_or(Timestamp::MAX))
    })
}

/// Returns how a holder widens its bans.
fn widening(jails: &[Arc<jail::Spec>], holder: &Holder) -> Option<Widen> {
    let Holder::Jail(name) = holder else { return None };
    jails.iter().find(|jail| jail.rules.name == *name)?.rules.widen.clone()
}

/// From 0 to 1, for `bantime.rndtime`; not secret.
fn dice() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    let random = RandomState::new().hash_one(0) >> 11;
    random as f64 / (1_u64 << 53) as f64
}
