//! The claims on one prefix, packed: most bans have one, and there may be a million bans.

use std::collections::HashMap;

use super::{Claim, Enforced, Holder};
use crate::{
    clock::Boot,
    net::{IpNet, Ports},
};

/// A claim without its prefix; holder and ports by number ([`Names`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) until: Boot,
    pub(super) holder: u32,
    /// The number of the ports, and whether the claim is derived.
    ports: u32,
}

/// The bit of [`Packed::ports`] that says that the claim is derived.
const DERIVED: u32 = 1 << 31;

impl Packed {
    /// Returns whether both are the same claim, whenever they end.
    pub(super) fn is(&self, other: &Packed) -> bool {
        self.holder == other.holder && self.ports == other.ports
    }

    /// Returns whether it follows from claims on members of its prefix.
    pub(super) fn is_derived(&self) -> bool {
        self.ports & DERIVED != 0
    }

    /// Returns the number of its ports.
    fn list(&self) -> u32 {
        self.ports & !DERIVED
    }

    /// Returns the same claim, derived or not.
    pub(super) fn derived(self, derived: bool) -> Packed {
        Packed { ports: self.list() | if derived { DERIVED } else { 0 }, ..self }
    }
}

/// All claims on one prefix; there is always at least one.
#[derive(Clone, Debug)]
pub(super) struct Claims {
    first: Packed,
    #[expect(clippy::box_collection, reason = "8 bytes instead of 24, and it is rarely there")]
    more: Option<Box<Vec<Packed>>>,
}

impl Claims {
    pub(super) fn new(first: Packed) -> Claims {
        Claims { first, more: None }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Packed> {
        std::iter::once(&self.first).chain(self.more.iter().flat_map(|more| more.iter()))
    }

    pub(super) fn find(&mut self, claim: &Packed) -> Option<&mut Packed> {
        let more = self.more.iter_mut().flat_map(|more| more.iter_mut());
        std::iter::once(&mut self.first).chain(more).find(|other| other.is(claim))
    }

    pub(super) fn push(&mut self, claim: Packed) {
        self.more.get_or_insert_default().push(claim);
    }

    /// Takes the claims out for which `gone` says so; what stays, if anything does.
    pub(super) fn split(&self, gone: impl Fn(&Packed) -> bool) -> (Vec<Packed>, Option<Claims>) {
        let (out, stay): (Vec<Packed>, Vec<Packed>) = self.iter().partition(|claim| gone(claim));
        let mut stay = stay.into_iter();
        let kept = stay.next().map(|first| {
            let more: Vec<Packed> = stay.collect();
            Claims { first, more: (!more.is_empty()).then(|| Box::new(more)) }
        });
        (out, kept)
    }

    /// Law 3: the latest end of all claims.
    pub(super) fn until(&self) -> Boot {
        self.iter().map(|claim| claim.until).max().unwrap_or_default()
    }

    pub(super) fn enforced(&self, names: &Names) -> Enforced {
        let mut enforced = Enforced { all: Boot(0), scoped: Boot(0), ports: Vec::new() };
        for claim in self.iter() {
            let ports = names.ports(claim.list());
            if ports.is_empty() {
                enforced.all = enforced.all.max(claim.until);
            } else {
                enforced.scoped = enforced.scoped.max(claim.until);
                enforced.ports.extend_from_slice(ports);
            }
        }
        enforced.ports.sort_unstable();
        enforced.ports.dedup();
        enforced
    }
}

/// Holders and port lists by number. They come from the configuration and the operator, so there
/// are few, and none is ever forgotten.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    holders: Vec<Holder>,
    holder_numbers: HashMap<Holder, u32>,
    ports: Vec<Ports>,
    port_numbers: HashMap<Ports, u32>,
}

impl Names {
    pub(super) fn holder(&self, number: u32) -> &Holder {
        usize::try_from(number).ok().and_then(|at| self.holders.get(at)).unwrap_or(&Holder::Manual)
    }

    pub(super) fn ports(&self, number: u32) -> &[crate::net::PortRange] {
        usize::try_from(number).ok().and_then(|at| self.ports.get(at)).map_or(&[], Vec::as_slice)
    }

    pub(super) fn number_of(&self, holder: &Holder) -> Option<u32> {
        self.holder_numbers.get(holder).copied()
    }

    /// Returns a claim of these that is not derived, if there ever was one.
    pub(super) fn find(&self, holder: &Holder, ports: &Ports) -> Option<Packed> {
        let holder = self.number_of(holder)?;
        let ports = match self.port_numbers.get(ports) {
            Some(&number) => number,
            None => *self.port_numbers.get(&sorted(ports))?,
        };
        Some(Packed { until: Boot::default(), holder, ports })
    }

    pub(super) fn pack(&mut self, claim: &Claim) -> Packed {
        let Claim { holder, ports, until, derived, .. } = claim;
        let holder = number(&mut self.holders, &mut self.holder_numbers, holder);
        let ports = match self.port_numbers.get(ports) {
            Some(&number) => number,
            None => number(&mut self.ports, &mut self.port_numbers, &sorted(ports)),
        };
        Packed { until: *until, holder, ports }.derived(*derived)
    }

    pub(super) fn unpack(&self, prefix: IpNet, claim: &Packed) -> Claim {
        Claim {
            prefix,
            holder: self.holder(claim.holder).clone(),
            until: claim.until,
            ports: self.ports(claim.list()).to_vec(),
            derived: claim.is_derived(),
        }
    }
}

fn sorted(ports: &Ports) -> Ports {
    let mut ports = ports.clone();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn number<T: Clone + Eq + std::hash::Hash>(
    values: &mut Vec<T>,
    numbers: &mut HashMap<T, u32>,
    value: &T,
) -> u32 {
    if let Some(&number) = numbers.get(value) {
        return number;
    }
    let number = u32::try_from(values.len()).unwrap_or(u32::MAX);
    values.push(value.clone());
    numbers.insert(value.clone(), number);
    number
}
