//! Reads the counters that decide whether a ban is extended, many at once, and extends it.

use std::{sync::Arc, time::Duration};

use super::Engine;
use crate::{
    clock::{Boot, Now},
    config,
    event::{Action, Event},
    jail::Extend,
    ledger::{Claim, Holder, Plan, Watched},
};

impl Engine {
    /// Has every ban watched whose jail extends bans, and which is not watched yet.
    pub(super) fn watch_hits(&mut self) {
        if self.pipeline.jails().all(|(spec, _)| spec.rules.extend.is_none()) {
            return;
        }
        let now = Now::read();
        let Engine { ledger, pipeline, looks, .. } = self;
        for claim in ledger.iter().flat_map(|ban| ban.claims().collect::<Vec<_>>()) {
            let Holder::Jail(jail) = claim.holder else { continue };
            let Some(spec) = pipeline.jail(&jail) else { continue };
            let ban = (claim.prefix, jail);
            if let (Some(_), Some(bantime)) = (spec.rules.extend, spec.rules.bantime)
                && !looks.is_watched(&ban)
            {
                looks.watch(ban, claim.until, None, bantime, now.boot);
            }
        }
    }

    /// Has a ban watched that was just made or moved by its jail.
    pub(super) fn watch_hits_of(&mut self, claim: &Claim, now: Now) {
        let Holder::Jail(jail) = &claim.holder else { return };
        if let Some((_, bantime)) = self.extension(jail) {
            let ban = (claim.prefix, Arc::clone(jail));
            self.looks.watch(ban, claim.until, Some(now.wall), bantime, now.boot);
        }
    }

    /// Looks at the counters that are due, and extends what is still being hit.
    pub(super) fn look_at_hits(&mut self, now: Now) {
        let due = self.looks.due(now.boot);
        if due.is_empty() {
            return;
        }
        let prefixes: Vec<_> = due.iter().map(|(prefix, _)| *prefix).collect();
        let hits = match self.xdp.hits(&prefixes) {
            Ok(hits) => hits,
            Err(error) => {
                log::error!("cannot see whether bans are still being hit: {error:#}");
                return due.iter().for_each(|ban| self.looks.drop_ban(ban));
            }
        };
        let (mut plan, mut events) = (Plan::default(), Vec::new());
        for (ban, hits) in due.into_iter().zip(hits) {
            self.look_at(ban, hits.packets, now, &mut plan, &mut events);
        }
        self.commit(plan, events, None, now);
    }

    fn look_at(
        &mut self,
        ban: Watched,
        packets: u64,
        now: Now,
        plan: &mut Plan,
        events: &mut Vec<Event>,
    ) {
        let Some(rule) = self.extension(&ban.1) else {
            return self.looks.drop_ban(&ban);
        };
        let (prefix, jail) = ban.clone();
        let holder = Holder::Jail(Arc::clone(&jail));
        let claims =
            self.ledger.get(prefix).into_iter().flat_map(|ban| ban.claims().collect::<Vec<_>>());
        let claims: Vec<Claim> = claims.filter(|claim| claim.holder == holder).collect();
        let until = claims.iter().map(|claim| claim.until).max();
        let offenders = self.store.offenders();
        let began = || offenders.of(&jail, prefix).map(|record| record.last);
        let Some(new) = self.looks.seen(ban, packets, until, rule, began, now) else {
            return;
        };
        for claim in claims.into_iter().filter(|claim| Some(claim.until) == until) {
            let claim = Claim { until: new, ..claim };
            let change = self.ledger.claim(&claim, false, now.boot, plan);
            self.actions.tell_banned(&mut self.store, &claim, &change, None, now);
            self.store.claim(&claim, None, now);
            events.extend(Action::of(&change).map(|action| Event::of(action, &claim, now)));
            self.widen(claim, now, plan, events);
        }
        let left = Duration::from_millis(new.0.saturating_sub(until.unwrap_or(Boot(0)).0));
        let left = config::format_duration(left);
        log::info!("[{holder}] {prefix} is still being hit: banned for another {left}");
    }

    /// Returns the jail's rule, and its bantime.
    fn extension(&self, jail: &str) -> Option<(Extend, Duration)> {
        let spec = self.pipeline.jail(jail)?;
        Some((spec.rules.extend?, spec.rules.bantime?))
    }
}
