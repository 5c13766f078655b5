//! In which order the bans of one family end, and which of them make room for another.
//!
//! A ban is the jails', or it is one by hand: if an operator claims it. Among the jails' bans
//! those of a crowd go first: of the network that holds most of them. Networks with one ban cost
//! nothing here; the rest a few bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    Holder,
    ban::{Claims, Names},
};
use crate::{
    clock::Boot,
    net::{IpNet, PrefixMap},
};

/// Bans looked at to find one in a network: what a claim costs must not depend on who lives there.
const LOOKS: usize = 64;

/// The bans of one family.
#[derive(Debug)]
pub(super) struct Order {
    /// Ends of claims that are not the last of their ban.
    earlier: BTreeSet<(Boot, IpNet)>,
    /// Ends of the jails' bans.
    jails: BTreeSet<(Boot, IpNet)>,
    /// Ends of the bans by hand.
    manual: BTreeSet<(Boot, IpNet)>,
    crowds: Crowds,
}

/// What the order has to know of a ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    last: Boot,
    /// The other ends of its claims.
    earlier: Vec<Boot>,
    manual: bool,
}

impl Ends {
    pub(super) fn of(claims: &Claims, names: &Names) -> Ends {
        let manual = names.number_of(&Holder::Manual);
        let last = claims.until();
        let mut earlier: Vec<Boot> =
            claims.iter().map(|claim| claim.until).filter(|until| *until != last).collect();
        earlier.sort_unstable();
        earlier.dedup();
        Ends { last, earlier, manual: claims.iter().any(|claim| Some(claim.holder) == manual) }
    }
}

impl Order {
    /// Of IPv4, and of IPv6.
    pub(super) fn both() -> [Order; 2] {
        // what an attacker may well own: a /24; a /32 of IPv6, and in it a /48
        [(true, 24, None), (false, 32, Some(48))].map(|(v4, wide, narrow)| Order {
            earlier: BTreeSet::new(),
            jails: BTreeSet::new(),
            manual: BTreeSet::new(),
            crowds: Crowds { v4, wide: Level::of(wide), narrow: narrow.map(Narrow::of) },
        })
    }

    /// A ban has changed from what it was before, if it was there, to what it is, if it is.
    /// `bans` may hold it or not.
    pub(super) fn change(
        &mut self,
        prefix: IpNet,
        before: Option<&Ends>,
        after: Option<&Ends>,
        bans: &PrefixMap<Claims>,
        names: &Names,
    ) {
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.class(before.manual).remove(&(before.last, prefix));
            for end in &before.earlier {
                self.earlier.remove(&(*end, prefix));
            }
        }
        if let Some(after) = after {
            self.class(after.manual).insert((after.last, prefix));
            self.earlier.extend(after.earlier.iter().map(|end| (*end, prefix)));
        }
        let crowded = |ends: Option<&Ends>| ends.is_some_and(|ends| !ends.manual);
        match (crowded(before), crowded(after)) {
            (true, false) => self.crowds.remove(prefix),
            (false, true) => self.crowds.add(prefix, bans, names),
            _ => {}
        }
    }

    fn class(&mut self, manual: bool) -> &mut BTreeSet<(Boot, IpNet)> {
        if manual { &mut self.manual } else { &mut self.jails }
    }

    /// Returns the claim that ends first, if one does: its end and its prefix.
    pub(super) fn first(&self) -> Option<(Boot, IpNet)> {
        let firsts = [&self.earlier, &self.jails, &self.manual].map(BTreeSet::first);
        firsts.into_iter().flatten().min().copied().filter(|(end, _)| *end != Boot::NEVER)
    }

    /// Returns how many bans are by hand.
    pub(super) fn by_hand(&self) -> usize {
        self.manual.len()
    }

    /// Returns the ban by hand that makes room first.
    pub(super) fn yielding_by_hand(&self) -> Option<IpNet> {
        self.manual.first().map(|(_, prefix)| *prefix)
    }

    /// Returns the jails' ban that makes room first: one that is over; else in the fullest network
    /// the one that ends soonest; else the one that ends soonest anywhere, if one does.
    pub(super) fn yielding(
        &self,
        now: Boot,
        bans: &PrefixMap<Claims>,
        names: &Names,
    ) -> Option<IpNet> {
        let soonest = self.jails.first().filter(|(end, _)| *end != Boot::NEVER);
        if let Some((end, prefix)) = soonest
            && *end <= now
        {
            return Some(*prefix);
        }
        let crowd = self.crowds.fullest().and_then(|network| {
            let there = jails_of(network, bans, names);
            there.min_by_key(|(_, claims)| claims.until()).map(|(prefix, _)| prefix)
        });
        crowd.or(soonest.map(|(_, prefix)| *prefix))
    }

    /// Returns how many of the jails' bans each network holds, if it is more than one.
    #[cfg(any(test, feature = "test-util"))]
    pub(super) fn weights(&self) -> BTreeMap<IpNet, u32> {
        self.crowds.weights()
    }
}

/// Returns the jails' bans in a network, as far as one looks.
fn jails_of<'a>(
    network: IpNet,
    bans: &'a PrefixMap<Claims>,
    names: &Names,
) -> impl Iterator<Item = (IpNet, &'a Claims)> {
    let manual = names.number_of(&Holder::Manual);
    bans.within(network)
        .take(LOOKS)
        .filter(move |(_, claims)| claims.iter().all(|claim| Some(claim.holder) != manual))
}

/// A network by the first bits of its addresses; the rest are 0. Its length goes without saying.
type Bits = u64;

/// Networks that hold more than one of the jails' bans.
#[derive(Debug)]
struct Crowds {
    /// The networks are of IPv4.
    v4: bool,
    wide: Level,
    narrow: Option<Narrow>,
}

#[derive(Debug)]
struct Level {
    length: u8,
    weights: BTreeMap<Bits, u32>,
    order: BTreeSet<(u32, Bits)>,
}

/// Networks inside those: ordered by the wider one first.
#[derive(Debug)]
struct Narrow {
    length: u8,
    weights: BTreeMap<Bits, u32>,
    order: BTreeSet<(Bits, u32, Bits)>,
}

impl Level {
    fn of(length: u8) -> Level {
        Level { length, weights: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl Narrow {
    fn of(length: u8) -> Narrow {
        Narrow { length, weights: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl Crowds {
    fn add(&mut self, prefix: IpNet, bans: &PrefixMap<Claims>, names: &Names) {
        let other = |length| {
            let there = network(prefix, length).into_iter();
            there.flat_map(|net| jails_of(net, bans, names)).any(|(ban, _)| ban != prefix)
        };
        let length = self.wide.length;
        let Some(wide) = bits(prefix, length) else { return };
        if let Some((old, new)) = heavier(&mut self.wide.weights, wide, || other(length)) {
            self.wide.order.remove(&(old, wide));
            self.wide.order.insert((new, wide));
        }
        let Some(level) = &mut self.narrow else { return };
        let length = level.length;
        let Some(net) = bits(prefix, length) else { return };
        if let Some((old, new)) = heavier(&mut level.weights, net, || other(length)) {
            level.order.remove(&(wide, old, net));
            level.order.insert((wide, new, net));
        }
    }

    fn remove(&mut self, prefix: IpNet) {
        let Some(wide) = bits(prefix, self.wide.length) else { return };
        if let Some((old, new)) = lighter(&mut self.wide.weights, wide) {
            self.wide.order.remove(&(old, wide));
            self.wide.order.extend(new.map(|new| (new, wide)));
        }
        let Some(level) = &mut self.narrow else { return };
        let Some(net) = bits(prefix, level.length) else { return };
        if let Some((old, new)) = lighter(&mut level.weights, net) {
            level.order.remove(&(wide, old, net));
            level.order.extend(new.map(|new| (wide, new, net)));
        }
    }

    fn fullest(&self) -> Option<IpNet> {
        let (_, wide) = *self.wide.order.last()?;
        let narrow = self.narrow.as_ref().and_then(|level| {
            let inside = level.order.range((wide, 0, 0)..=(wide, u32::MAX, Bits::MAX));
            inside.last().and_then(|(_, _, net)| self.named(*net, level.length))
        });
        narrow.or_else(|| self.named(wide, self.wide.length))
    }

    fn named(&self, net: Bits, length: u8) -> Option<IpNet> {
        let address = if self.v4 {
            IpAddr::from(u32::try_from(net >> 32).unwrap_or_default().to_be_bytes())
        } else {
            IpAddr::from((u128::from(net) << 64).to_be_bytes())
        };
        IpNet::new(address, length).ok()
    }

    /// Returns the networks with their weights.
    #[cfg(any(test, feature = "test-util"))]
    fn weights(&self) -> BTreeMap<IpNet, u32> {
        let levels = [Some((self.wide.length, &self.wide.weights))].into_iter();
        let narrow = self.narrow.as_ref().map(|level| (level.length, &level.weights));
        let all = levels.chain([narrow]).flatten().flat_map(|(length, weights)| {
            weights.iter().map(move |(net, weight)| (*net, length, *weight))
        });
        all.filter_map(|(net, length, weight)| Some((self.named(net, length)?, weight))).collect()
    }
}

/// One more in `network`; the weights before and after, if they are kept.
fn heavier(
    weights: &mut BTreeMap<Bits, u32>,
    network: Bits,
    other: impl FnOnce() -> bool,
) -> Option<(u32, u32)> {
    if let Some(weight) = weights.get_mut(&network) {
        let old = *weight;
        *weight += 1;
        return Some((old, *weight));
    }
    other().then(|| {
        weights.insert(network, 2);
        (1, 2)
    })
}

/// One less.
fn lighter(weights: &mut BTreeMap<Bits, u32>, network: Bits) -> Option<(u32, Option<u32>)> {
    let weight = weights.get_mut(&network)?;
    let old = *weight;
    *weight -= 1;
    let new = (*weight > 1).then_some(*weight);
    if new.is_none() {
        weights.remove(&network);
    }
    Some((old, new))
}

/// Returns the network of this length that `prefix` lies in.
fn network(prefix: IpNet, length: u8) -> Option<IpNet> {
    if prefix.prefix_len() < length {
        return None;
    }
    IpNet::new(prefix.addr(), length).ok().map(|net| net.trunc())
}

/// Returns its first bits.
fn bits(prefix: IpNet, length: u8) -> Option<Bits> {
    Some(match network(prefix, length)?.addr() {
        IpAddr::V4(address) => u64::from(u32::from(address)) << 32,
        IpAddr::V6(address) => u64::try_from(u128::from(address) >> 64).unwrap_or_default(),
    })
}
