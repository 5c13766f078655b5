//! The ledger itself: every live claim, and who makes room when there are too many.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Cause, Change, Claim, Ended, Enforced, Holder, Op, Plan, Protected, Refusal,
    allow::Guard,
    ban::{Claims, Names, Packed},
    order::{Ends, Order},
};
use crate::{
    clock::Boot,
    net::{IpNet, Ports, PrefixMap},
};

/// Bans that are looked through at once when the guard changes.
const REVIEWED: usize = 1024;

/// All live claims.
#[derive(Debug)]
pub struct Ledger {
    bans: PrefixMap<Claims>,
    /// IPv4, IPv6.
    orders: [Order; 2],
    names: Names,
    guard: Guard,
    /// Claims by number of the holder: IPv4, IPv6.
    held: BTreeMap<u32, [usize; 2]>,
    /// Claims that follow from others.
    derived: usize,
    max_bans: usize,
    evicted: u64,
    refused: u64,
    review: Review,
}

/// What the guard covers and has not been looked through since it changed.
#[derive(Debug, Default)]
struct Review {
    /// The last one is looked through first.
    guarded: Vec<IpNet>,
    /// How far that was looked through.
    after: Option<IpNet>,
}

/// A banned prefix.
#[derive(Clone, Copy, Debug)]
pub struct Ban<'a> {
    /// The prefix.
    pub prefix: IpNet,
    claims: &'a Claims,
    names: &'a Names,
}

impl Ban<'_> {
    /// Latest end of its claims.
    #[must_use]
    pub fn until(&self) -> Boot {
        self.claims.until()
    }

    /// Returns its claims, in the order in which they were made.
    pub fn claims(&self) -> impl Iterator<Item = Claim> {
        self.claims.iter().map(|claim| self.names.unpack(self.prefix, claim))
    }

    /// Returns whether `holder` has a claim.
    #[must_use]
    pub fn is_held_by(&self, holder: &Holder) -> bool {
        let number = self.names.number_of(holder);
        self.claims.iter().any(|claim| Some(claim.holder) == number)
    }

    /// End of the claims of `holder` on exactly these ports, if it has one.
    #[must_use]
    pub fn end_of(&self, holder: &Holder, ports: &Ports) -> Option<Boot> {
        let wanted = self.names.find(holder, ports)?;
        let ends = self.claims.iter().filter(|claim| claim.derived(false).is(&wanted));
        ends.map(|claim| claim.until).max()
    }

    /// Returns its claims that follow from others.
    pub fn derived(&self) -> impl Iterator<Item = Claim> {
        let derived = self.claims.iter().filter(|claim| claim.is_derived());
        derived.map(|claim| self.names.unpack(self.prefix, claim))
    }

    /// Returns what the kernel has to hold for it.
    #[must_use]
    pub fn enforced(&self) -> Enforced {
        self.claims.enforced(self.names)
    }
}

impl Ledger {
    /// Returns an empty ledger for at most `max_bans` prefixes of each family.
    #[must_use]
    pub fn new(max_bans: usize) -> Ledger {
        Ledger {
            bans: PrefixMap::default(),
            orders: Order::both(),
            names: Names::default(),
            guard: Guard::default(),
            held: BTreeMap::new(),
            derived: 0,
            max_bans,
            evicted: 0,
            refused: 0,
            review: Review::default(),
        }
    }

    /// Another bound for each family. Bans beyond a lower one stay until they end.
    pub fn set_max_bans(&mut self, max_bans: usize) {
        self.max_bans = max_bans;
    }

    /// Claims a prefix. `force` is the operator's: it overrides [`Refusal::Protected`].
    ///
    /// A claim that is there already never ends earlier than it did.
    pub fn claim(&mut self, claim: &Claim, force: bool, now: Boot, plan: &mut Plan) -> Change {
        if claim.until <= now {
            return Change::Over;
        }
        if let Some(refusal) = self.refusal(claim.prefix, &claim.holder, force) {
            return Change::Refused(refusal);
        }
        self.put(claim, now, plan)
    }

    /// Claims what was claimed in an earlier run. It goes on unless it would have ended in this
    /// one: what became guarded since then inside a banned network ends no ban of that.
    pub fn restore(&mut self, claim: &Claim, now: Boot, plan: &mut Plan) -> Change {
        if claim.until <= now {
            return Change::Over;
        }
        if self.guard.ends(claim.prefix.trunc(), &claim.holder)
            && let Some(refusal) = self.refusal(claim.prefix, &claim.holder, true)
        {
            return Change::Refused(refusal);
        }
        self.put(claim, now, plan)
    }

    fn put(&mut self, claim: &Claim, now: Boot, plan: &mut Plan) -> Change {
        let prefix = claim.prefix.trunc();
        let packed = self.names.pack(claim);
        let Some(claims) = self.bans.get_mut(prefix) else {
            return self.first_claim(prefix, packed, now, plan);
        };
        let (ends, before) = (Ends::of(claims, &self.names), claims.enforced(&self.names));
        let change = match claims.find(&packed) {
            Some(same) if same.until >= packed.until => return Change::Unchanged(same.until),
            Some(same) => {
                same.until = packed.until;
                Change::Extended
            }
            None => {
                claims.push(packed);
                Change::Joined
            }
        };
        let after = claims.enforced(&self.names);
        self.reorder(prefix, Some(&ends));
        if change == Change::Joined {
            self.count(prefix, &packed);
        }
        if before != after {
            plan.ops.push(Op::Set(prefix, after));
        }
        change
    }

    /// Lets go of a prefix: the claims of one holder, or all. Says how many claims ended.
    pub fn release(&mut self, prefix: IpNet, holder: Option<&Holder>, plan: &mut Plan) -> usize {
        let holder = match holder.map(|holder| self.names.number_of(holder)) {
            None => None,
            Some(Some(number)) => Some(number),
            Some(None) => return 0,
        };
        let gone = |claim: &Packed| holder.is_none_or(|number| claim.holder == number);
        self.end(prefix.trunc(), Cause::Released, gone, plan)
    }

    /// Lets go of what one holder claims, or of everything, on the next `most` prefixes behind
    /// `after`. Returns the last one that was looked at; `None`: there are no more.
    pub fn release_some(
        &mut self,
        holder: Option<&Holder>,
        after: Option<IpNet>,
        most: usize,
        plan: &mut Plan,
    ) -> Option<IpNet> {
        let prefixes: Vec<IpNet> =
            self.bans.after(after).take(most).map(|(prefix, _)| prefix).collect();
        for prefix in &prefixes {
            self.release(*prefix, holder, plan);
        }
        prefixes.last().copied().filter(|_| prefixes.len() == most)
    }

    /// Lets go of exactly this claim, whatever its end.
    pub(super) fn release_claim(&mut self, claim: &Claim, plan: &mut Plan) {
        if let Some(wanted) = self.names.find(&claim.holder, &claim.ports) {
            let wanted = wanted.derived(claim.derived);
            self.end(claim.prefix.trunc(), Cause::Released, |other| other.is(&wanted), plan);
        }
    }

    /// Has exactly this claim end at `until`, which is earlier than it does.
    pub(super) fn shorten(&mut self, claim: &Claim, until: Boot, plan: &mut Plan) {
        let prefix = claim.prefix.trunc();
        let Some(wanted) = self.names.find(&claim.holder, &claim.ports) else { return };
        let Some(claims) = self.bans.get_mut(prefix) else { return };
        let (ends, before) = (Ends::of(claims, &self.names), claims.enforced(&self.names));
        let Some(same) = claims.find(&wanted.derived(claim.derived)) else { return };
        same.until = until;
        let after = claims.enforced(&self.names);
        self.reorder(prefix, Some(&ends));
        if before != after {
            plan.ops.push(Op::Set(prefix, after));
        }
    }

    /// Ends the claims whose time is up.
    pub fn expire(&mut self, now: Boot, plan: &mut Plan) {
        self.expire_some(now, usize::MAX, plan);
    }

    /// The same for at most so many prefixes, those first that end first. Whether there are more.
    pub fn expire_some(&mut self, now: Boot, most: usize, plan: &mut Plan) -> bool {
        let due = |ledger: &Ledger| ledger.first_end().filter(|(end, _)| *end <= now);
        for _ in 0..most {
            let Some((_, prefix)) = due(self) else { return false };
            self.end(prefix, Cause::Expired, |claim| claim.until <= now, plan);
        }
        due(self).is_some()
    }

    /// Returns when [`Ledger::expire`] has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Boot> {
        self.first_end().map(|(deadline, _)| deadline)
    }

    fn first_end(&self) -> Option<(Boot, IpNet)> {
        self.orders.iter().filter_map(Order::first).min()
    }

    /// Returns whether a claim follows from others.
    pub(super) fn has_derived(&self) -> bool {
        self.derived > 0
    }

    /// Replaces the allow list; claims inside it end: the first of them at once, the others as
    /// [`Ledger::review`] comes to them.
    pub fn set_allowed(&mut self, prefixes: &[IpNet], plan: &mut Plan) {
        self.guard.set_allowed(prefixes);
        self.end_refused(plan);
    }

    /// Replaces the never-ban set; what jails claim inside it ends likewise, what the operator
    /// forced stays.
    pub fn set_protected(&mut self, prefixes: &[(IpNet, Protected)], plan: &mut Plan) {
        self.guard.set_protected(prefixes);
        self.end_refused(plan);
    }

    /// Replaces whom each jail trusts to bring others' requests; what the jail claims inside it
    /// ends likewise.
    pub fn set_proxies(&mut self, of_jails: &[(Arc<str>, Vec<IpNet>)], plan: &mut Plan) {
        self.guard.set_proxies(of_jails);
        self.end_refused(plan);
    }

    /// Returns the jails that may not ban `prefix` because they trust it to bring others' requests.
    pub fn trusting(&self, prefix: IpNet) -> impl Iterator<Item = &Arc<str>> {
        self.guard.trusting(prefix.trunc())
    }

    /// Returns why `holder` may not ban `prefix`, if so.
    #[must_use]
    pub fn refusal(&self, prefix: IpNet, holder: &Holder, force: bool) -> Option<Refusal> {
        self.guard.refusal(prefix.trunc(), holder, force)
    }

    /// Returns what the kernel must never drop: the allow list, and the never-ban set as far as the
    /// operator has not banned it by force.
    #[must_use]
    pub fn never_dropped(&self) -> Vec<IpNet> {
        let forced = |prefix| {
            let mut around = self.covering(prefix).chain(self.within(prefix));
            around.any(|ban| ban.is_held_by(&Holder::Manual))
        };
        let protected = self.guard.protected().map(|(prefix, _)| prefix);
        self.guard.allowed().chain(protected.filter(|prefix| !forced(*prefix))).collect()
    }

    /// Returns whether what must not be banned lies in or around `prefix`.
    #[must_use]
    pub fn is_protected(&self, prefix: IpNet) -> bool {
        self.guard.is_protected(prefix)
    }

    /// Returns the ban of exactly this prefix.
    #[must_use]
    pub fn get(&self, prefix: IpNet) -> Option<Ban<'_>> {
        let prefix = prefix.trunc();
        self.bans.get(prefix).map(|claims| self.ban(prefix, claims))
    }

    /// Returns the bans that cover all of `prefix`, itself included, the widest first.
    pub fn covering(&self, prefix: IpNet) -> impl Iterator<Item = Ban<'_>> {
        self.bans.covering(prefix).map(|(prefix, claims)| self.ban(prefix, claims))
    }

    /// Returns the bans inside `prefix`, itself included.
    pub fn within(&self, prefix: IpNet) -> impl Iterator<Item = Ban<'_>> {
        self.bans.within(prefix).map(|(prefix, claims)| self.ban(prefix, claims))
    }

    /// Returns all bans: IPv4 before IPv6, by address.
    pub fn iter(&self) -> impl Iterator<Item = Ban<'_>> {
        self.bans.iter().map(|(prefix, claims)| self.ban(prefix, claims))
    }

    /// Returns the bans behind `last` in the order of [`Ledger::iter`]; all, if it is `None`.
    pub fn after(&self, last: Option<IpNet>) -> impl Iterator<Item = Ban<'_>> {
        self.bans.after(last).map(|(prefix, claims)| self.ban(prefix, claims))
    }

    /// Returns how many prefixes are banned.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bans.len()
    }

    /// Returns how many prefixes of IPv4, and of IPv6, are banned.
    #[must_use]
    pub fn families(&self) -> [usize; 2] {
        self.bans.families()
    }

    /// Returns every holder that ever had a claim, with the number of live ones on IPv4 and on
    /// IPv6. Counted along the way: it costs the same however much is banned.
    pub fn held(&self) -> impl Iterator<Item = (&Holder, [usize; 2])> {
        self.held.iter().map(|(number, counts)| (self.names.holder(*number), *counts))
    }

    /// Returns whether nothing is banned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bans.is_empty()
    }

    /// Returns how many bans had to make room for others since start.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Returns how many bans fit, per family.
    #[must_use]
    pub fn max_bans(&self) -> usize {
        self.max_bans
    }

    /// Returns how many bans were not made since start, because none could make room.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn ban<'a>(&'a self, prefix: IpNet, claims: &'a Claims) -> Ban<'a> {
        Ban { prefix, claims, names: &self.names }
    }

    fn first_claim(&mut self, prefix: IpNet, packed: Packed, now: Boot, plan: &mut Plan) -> Change {
        let full = self.bans.len_of_family(prefix) >= self.max_bans;
        if full && !self.evict(prefix, &packed, now, plan) {
            self.refused += 1;
            return Change::Refused(Refusal::Full(self.max_bans));
        }
        let claims = Claims::new(packed);
        plan.ops.push(Op::Set(prefix, claims.enforced(&self.names)));
        self.bans.insert(prefix, claims);
        self.reorder(prefix, None);
        self.count(prefix, &packed);
        Change::New
    }

    /// Ends a ban of the family of `prefix` to make room for one. Half of the room belongs to the
    /// jails, half to the operator: who holds more than his half yields to the other. A ban by hand
    /// never pushes out another one, whatever the jails do.
    fn evict(&mut self, prefix: IpNet, claim: &Packed, now: Boot, plan: &mut Plan) -> bool {
        let [v4, v6] = &self.orders;
        let order = if matches!(prefix, IpNet::V4(_)) { v4 } else { v6 };
        let by_hand = Some(claim.holder) == self.names.number_of(&Holder::Manual);
        let victim = match (order.by_hand() > self.max_bans / 2, by_hand) {
            (true, true) => None,
            (true, false) => order.yielding_by_hand(),
            (false, _) => order.yielding(now, &self.bans, &self.names),
        };
        let Some(victim) = victim else { return false };
        self.evicted += 1;
        self.end(victim, Cause::Evicted, |_| true, plan) > 0
    }

    fn end_refused(&mut self, plan: &mut Plan) {
        let protected = self.guard.protected().map(|(prefix, _)| prefix);
        let guarded = self.guard.allowed().chain(protected).chain(self.guard.proxies());
        let mut guarded: Vec<IpNet> = guarded.collect();
        guarded.sort_unstable_by(|a, b| b.cmp(a));
        guarded.dedup();
        self.review = Review { guarded, after: None };
        self.review(REVIEWED, plan);
    }

    /// Returns whether something may be claimed that the guard has come to cover.
    #[must_use]
    pub fn is_reviewing(&self) -> bool {
        !self.review.guarded.is_empty()
    }

    /// Ends what may not be claimed any more since the guard changed, among the next `most` bans
    /// that it covers.
    pub fn review(&mut self, most: usize, plan: &mut Plan) {
        let mut left = most;
        while left > 0
            && let Some(guarded) = self.review.guarded.last().copied()
        {
            let inside = self.bans.within_after(guarded, self.review.after).take(left);
            let inside: Vec<IpNet> = inside.map(|(prefix, _)| prefix).collect();
            inside.iter().for_each(|prefix| self.end_guarded(*prefix, plan));
            if inside.len() < left {
                self.review.guarded.pop();
                self.review.after = None;
            } else {
                self.review.after = inside.last().copied();
            }
            left -= inside.len();
        }
    }

    /// Ends those claims on exactly this prefix that the guard forbids.
    fn end_guarded(&mut self, prefix: IpNet, plan: &mut Plan) {
        let Some(ban) = self.get(prefix) else { return };
        let holders = ban.claims.iter().map(|claim| claim.holder);
        let refused: Vec<u32> =
            holders.filter(|holder| self.guard.ends(prefix, self.names.holder(*holder))).collect();
        self.end(prefix, Cause::Allowed, |claim| refused.contains(&claim.holder), plan);
    }

    /// Ends the claims of `prefix` for which `gone` says so; says how many.
    fn end(
        &mut self,
        prefix: IpNet,
        cause: Cause,
        gone: impl Fn(&Packed) -> bool,
        plan: &mut Plan,
    ) -> usize {
        let Some(claims) = self.bans.get(prefix) else { return 0 };
        let (ended, kept) = claims.split(gone);
        if ended.is_empty() {
            return 0;
        }
        let (ends, before) = (Ends::of(claims, &self.names), claims.enforced(&self.names));
        for claim in &ended {
            self.derived -= usize::from(claim.is_derived());
            *self.tally(prefix, claim.holder) -= 1;
            let claim = self.names.unpack(prefix, claim);
            plan.ended.push(Ended { claim, cause, last: kept.is_none() });
        }
        let Some(kept) = kept else {
            self.bans.remove(prefix);
            self.reorder(prefix, Some(&ends));
            plan.ops.push(Op::Clear(prefix));
            return ended.len();
        };
        let after = kept.enforced(&self.names);
        if before != after {
            plan.ops.push(Op::Set(prefix, after));
        }
        self.bans.insert(prefix, kept);
        self.reorder(prefix, Some(&ends));
        ended.len()
    }

    /// A ban is not any more as it was `before`.
    fn reorder(&mut self, prefix: IpNet, before: Option<&Ends>) {
        let after = self.bans.get(prefix).map(|claims| Ends::of(claims, &self.names));
        let [v4, v6] = &mut self.orders;
        let order = if matches!(prefix, IpNet::V4(_)) { v4 } else { v6 };
        order.change(prefix, before, after.as_ref(), &self.bans, &self.names);
    }

    /// A claim was made.
    fn count(&mut self, prefix: IpNet, claim: &Packed) {
        self.derived += usize::from(claim.is_derived());
        *self.tally(prefix, claim.holder) += 1;
    }

    fn tally(&mut self, prefix: IpNet, holder: u32) -> &mut usize {
        let [v4, v6] = self.held.entry(holder).or_default();
        if matches!(prefix, IpNet::V4(_)) { v4 } else { v6 }
    }

    /// Returns how many of the jails' bans each network holds, if it is more than one.
    #[cfg(any(test, feature = "test-util"))]
    pub fn weights(&self) -> BTreeMap<IpNet, u32> {
        self.orders.iter().flat_map(Order::weights).collect()
    }
}
