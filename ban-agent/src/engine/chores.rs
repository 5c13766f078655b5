//! What is about all bans, or may be about very many, and that nobody asked for: it is done in parts
//! of about a millisecond, between which jails' offences and requests have their turn.

use super::Engine;
use crate::{
    clock::Now,
    ledger::{Op, Plan},
    net::IpNet,
};

/// Bans that one part is about.
pub(super) const PART: usize = 256;

/// What is under way; each field begins anew when it is asked for again.
#[derive(Debug, Default)]
pub(super) struct Chores {
    /// Some bans are over.
    pub(super) expire: bool,
    /// Entries of the maps are written again, behind this ban.
    pub(super) rewrite: Option<Option<IpNet>>,
    /// The store is given all claims, of the bans behind this one.
    pub(super) gather: Option<Option<IpNet>>,
    /// Steps that the kernel did not take are tried again.
    pub(super) retry: bool,
}

impl Chores {
    fn any(&self) -> bool {
        self.expire || self.rewrite.is_some() || self.gather.is_some() || self.retry
    }
}

impl Engine {
    /// Returns whether something is to be done when nothing else is.
    pub(super) fn has_chores(&self) -> bool {
        self.chores.any() || self.ledger.is_reviewing()
    }

    /// One part of what is to be done, whatever is most urgent.
    pub(super) fn chore(&mut self, now: Now) {
        if self.ledger.is_reviewing() {
            let mut plan = Plan::default();
            self.ledger.review(PART, &mut plan);
            self.commit(plan, Vec::new(), None, now);
        } else if self.chores.expire {
            self.expire_part(now);
        } else if self.chores.retry {
            self.retry(now);
        } else if let Some(after) = self.chores.rewrite {
            self.rewrite_part(after, now);
        } else if let Some(after) = self.chores.gather {
            self.gather_part(after, now);
        }
    }

    /// Does all of it.
    pub(super) fn finish_chores(&mut self, now: Now) {
        while self.has_chores() {
            self.chore(now);
        }
    }

    /// Ends some of what is due.
    pub(super) fn expire_part(&mut self, now: Now) {
        let mut plan = Plan::default();
        self.chores.expire = self.ledger.expire_some(now.boot, PART, &mut plan);
        self.commit(plan, Vec::new(), None, now);
    }

    fn rewrite_part(&mut self, after: Option<IpNet>, now: Now) {
        let ops: Vec<Op> = self
            .ledger
            .after(after)
            .take(PART)
            .map(|ban| Op::Set(ban.prefix, ban.enforced()))
            .collect();
        self.chores.rewrite = ops.last().map(|op| Some(op.prefix()));
        self.enforce(&ops, now);
    }

    fn gather_part(&mut self, after: Option<IpNet>, now: Now) {
        let bans = self.ledger.after(after).take(PART);
        let claims: Vec<_> = bans.flat_map(|ban| ban.claims().collect::<Vec<_>>()).collect();
        let last = claims.last().map(|claim| claim.prefix);
        self.store.gather(claims, now);
        if last.is_none() {
            self.store.gathered();
        }
        self.chores.gather = last.map(Some);
    }

    /// Has the store write everything anew.
    pub(super) fn rewrite_store(&mut self) {
        self.store.begin_gathering();
        self.chores.gather = Some(None);
    }
}
