//! Takes over what an earlier run left, from the store and from the kernel.

use super::{core::Core, listeners::event};
use crate::{
    clock::Now,
    event::Action,
    kernel::Enforcer as _,
    ledger::{Change, Claim, Enforced, Holder, Op, Plan},
    net::Ports,
};

/// Restored bans that are reported one by one; of more, only the number is.
const RESTORED_SHOWN: usize = 10_000;

/// Who holds the bans that only the kernel remembers.
const ADOPTED: &str = "recovered";

impl Core {
    /// Takes over what an earlier run left: the store says what is banned, and the kernel is
    /// brought in line with it, in one batch.
    pub(super) fn restore(&mut self, now: Now) {
        let mut plan = Plan::default();
        self.actions.apply(&self.config.jails);
        self.ledger.set_allowed(&self.config.agent.allow, &mut plan);
        let (mut events, mut gone, mut restored) = (Vec::new(), Vec::new(), Vec::new());
        let Core { store, ledger, .. } = self;
        let loaded = store.load(now, |claim| {
            match ledger.claim(&claim, true, now.boot, &mut plan) {
                Change::New | Change::Joined | Change::Extended => {
                    if events.len() < RESTORED_SHOWN {
                        events.push(event(Action::Restore, &claim, now));
                        restored.push(claim);
                    }
                }
                Change::Unchanged(_) => {}
                Change::Over => gone.push(claim),
                Change::Refused(refusal) => {
                    log::warn!("{} is not banned any more: {refusal}", claim.prefix);
                    gone.push(claim);
                }
            }
            // what the kernel lacks is seen by comparison
            plan.ops.clear();
        });
        for claim in &gone {
            self.store.release(claim);
            self.tell_unbanned(claim, now);
        }
        restored.iter().for_each(|claim| self.tell_restored(claim, now));
        self.positions = loaded.positions;
        if !loaded.complete {
            self.adopt(now, &mut plan);
        }
        if !self.ledger.is_empty() {
            log::info!("{} bans of an earlier run go on", self.ledger.len());
        }
        self.free_onlink(&mut plan);
        self.allow();
        plan.ops = self.differences(now).unwrap_or_else(|error| {
            log::error!("cannot see what the kernel holds: {error:#}");
            self.ledger.iter().map(|ban| Op::Set(ban.prefix, ban.enforced())).collect()
        });
        self.commit(plan, events, None, now);
    }

    /// Claims what the kernel still holds and the store has lost: a lost file lifts no ban.
    fn adopt(&mut self, now: Now, plan: &mut Plan) {
        let held = match self.xdp.held() {
            Ok(held) => held,
            Err(error) => return log::error!("cannot see what the kernel holds: {error:#}"),
        };
        for ban in held {
            if self.ledger.get(ban.prefix).is_some() {
                continue;
            }
            let Enforced { all, scoped, ports } = ban.enforced;
            for (until, ports) in [(all, Ports::new()), (scoped, ports)] {
                let holder = Holder::Jail(ADOPTED.into());
                let claim = Claim { prefix: ban.prefix, holder, until, ports };
                let change = self.ledger.claim(&claim, false, now.boot, plan);
                if matches!(change, Change::New | Change::Joined) {
                    self.store.manual(&claim, Some("held by the kernel, lost by the store"), now);
                }
            }
        }
    }
}
