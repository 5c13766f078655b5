//! Takes over what an earlier run left, from the store and from the kernel.

use std::sync::Arc;

use jiff::Timestamp;

use super::Engine;
use crate::{
    clock::Now,
    event::{Action, Event},
    ledger::{self, Cause, Change, Claim, Ended, Enforced, Holder, Op, Plan},
    net::{IpNet, Ports},
};

/// Restored bans that are reported one by one; of more, only the number is.
const RESTORED_SHOWN: usize = 10_000;

/// Bans that are brought into the kernel at once: as many as make its calls cheap.
const PART: usize = 1 << 13;

/// Who holds the bans that only the kernel remembers.
const ADOPTED: &str = "recovered";

impl Engine {
    /// Takes over what an earlier run left: the store says what is banned, and the kernel is
    /// brought in line with it, in large batches.
    pub(crate) fn restore(&mut self, now: Now) {
        let mut plan = Plan::default();
        self.actions.apply(&self.config.jails);
        self.restore_orders(now);
        self.set_guard(&mut plan);
        let (mut events, mut gone, mut restored) = (Vec::new(), Vec::new(), Vec::new());
        let mut guarded = Plan::default();
        let Engine { store, ledger, .. } = self;
        let loaded = store.load(now, |claim| {
            match ledger.restore(&claim, now.boot, &mut plan) {
                Change::New | Change::Joined | Change::Extended => {
                    if events.len() < RESTORED_SHOWN {
                        events.push(Event::of(Action::Restore, &claim, now));
                        restored.push(claim);
                    }
                }
                Change::Unchanged(_) => {}
                Change::Over => gone.push(claim),
                Change::Refused(refusal) => {
                    log::warn!("{} is not banned any more: {refusal}", claim.prefix);
                    let ended = Ended { claim: claim.clone(), cause: Cause::Allowed, last: true };
                    guarded.ended.push(ended);
                    gone.push(claim);
                }
            }
            // what the kernel lacks is seen by comparison
            plan.ops.clear();
        });
        for claim in &gone {
            self.store.release(claim);
            self.actions.tell_unbanned(&mut self.store, claim, false, now);
        }
        // their networks with them
        let known = guarded.ended.len();
        self.narrow(&mut guarded, now);
        plan.ended.extend(guarded.ended.drain(known..));
        restored.iter().for_each(|claim| self.actions.tell_restored(&mut self.store, claim, now));
        self.unban_marks = loaded.unban_marks;
        self.cap_unban_marks(now);
        let mut counts = loaded.counts;
        for (jail, counted) in &mut counts {
            let holder = Holder::Jail(Arc::clone(jail));
            counted.retain(|(prefix, count)| {
                let last = Timestamp::from_millisecond(count.last).unwrap_or(Timestamp::MAX);
                !self.unban_marks.forgive(*prefix, &holder, last, None)
            });
        }
        self.pipeline.resume(counts);
        self.pipeline.remember(self.store.offenders());
        let ahead = self.xdp.ahead();
        if !loaded.complete {
            // what a dry run banned does not become real because its file is lost
            if self.xdp.is_dry_run() || !self.xdp.was_dry_run() {
                self.adopt(now, &mut plan);
            }
        } else if ahead.is_noted() {
            self.store.mistrust();
            self.believe_kernel(now, &mut plan);
        }
        if !self.ledger.is_empty() {
            log::info!("{} bans of an earlier run go on", self.ledger.len());
        }
        self.free_onlink(&mut plan);
        self.allow();
        let mut differing = self.differing().unwrap_or_else(|error| {
            log::error!("cannot see what the kernel holds: {error:#}");
            self.ledger.iter().map(|ban| ban.prefix).collect()
        });
        // what ended goes to the store first; what goes on is told once the kernel has it
        plan.ops.clear();
        self.commit(plan, Vec::new(), None, now);
        while !differing.is_empty() {
            let part = differing.split_off(differing.len().saturating_sub(PART));
            // what we know of the maps grows as fast
            differing.shrink_to_fit();
            let op = |prefix: &IpNet| match self.ledger.get(*prefix) {
                Some(ban) => Op::Set(*prefix, ban.enforced()),
                None => Op::Clear(*prefix),
            };
            let ops: Vec<Op> = part.iter().map(op).collect();
            self.enforce(&ops, now);
        }
        self.commit(Plan::default(), events, None, now);
        // a crash while the disk fails must not undo what was reported
        self.store.watch(move |state| {
            if let Err(error) = ahead.note(!state.is_sound()) {
                log::error!("{error}");
            }
        });
        if self.store.wants_snapshot() {
            self.rewrite_store();
            self.finish_chores(now);
        }
    }

    /// An earlier run died while it could record nothing: what the kernel does not hold any more
    /// was lifted, and what it holds longer or beside the store was banned.
    fn believe_kernel(&mut self, now: Now, plan: &mut Plan) {
        let held = match self.held_prefixes() {
            Ok(held) => held,
            Err(error) => return log::error!("cannot see what the kernel holds: {error:#}"),
        };
        let lifted = |ban: &ledger::Ban<'_>| !held.contains(&ban.prefix);
        let lifted: Vec<IpNet> = self.ledger.iter().filter(lifted).map(|ban| ban.prefix).collect();
        for prefix in lifted {
            self.ledger.release(prefix, None, plan);
        }
        self.adopt(now, plan);
        log::warn!("the last run could not record everything: the kernel's bans go on");
    }

    /// Claims what the kernel still holds and the store has lost: a lost file lifts no ban.
    fn adopt(&mut self, now: Now, plan: &mut Plan) {
        let Engine { xdp, ledger, store, .. } = self;
        let seen = xdp.each_held(&mut |ban| {
            let known = ledger.get(ban.prefix).map(|known| known.enforced());
            if known.is_some_and(|known| !ban.enforced.outlasts(&known)) {
                return;
            }
            let Enforced { all, scoped, ports } = ban.enforced;
            for (until, ports) in [(all, Ports::new()), (scoped, ports)] {
                let holder = Holder::Jail(ADOPTED.into());
                let claim = Claim { prefix: ban.prefix, holder, until, ports, derived: false };
                let change = ledger.claim(&claim, false, now.boot, plan);
                if matches!(change, Change::New | Change::Joined) {
                    store.manual(&claim, Some("held by the kernel, lost by the store"), now);
                }
            }
        });
        if let Err(error) = seen {
            log::error!("cannot see what the kernel holds: {error:#}");
        }
    }
}
