//! Port sets: bans that name ports share a few sets, each an entry of the map `port_sets`.
//!
//! Pure bookkeeping; the caller writes the entries.

use std::collections::HashMap;

use ban_common::{PORT_SETS, PORTS_PER_SET, PortSet};

use super::error::Error;
use crate::net::{PortRange, Proto};

const TCP: u32 = 6;
const UDP: u32 = 17;

/// Which set has which number, and how many bans use it. Number 0 is the empty set.
#[derive(Debug, Default)]
pub(super) struct PortSets {
    numbers: HashMap<PortSet, u32>,
    /// By number, from 1 on: the set and its users.
    used: Vec<(PortSet, u32)>,
}

impl PortSets {
    /// The number of `set`, one user more; `true` if the map entry has to be written first.
    ///
    /// # Errors
    /// If there are too many different sets.
    pub(super) fn take(&mut self, set: PortSet) -> Result<(u32, bool), Error> {
        if let Some(number) = self.numbers.get(&set) {
            if let Some((_, users)) = self.slot(*number) {
                *users += 1;
            }
            return Ok((self.numbers.get(&set).copied().unwrap_or(0), false));
        }
        let free = self.used.iter().position(|(_, users)| *users == 0);
        let index = free.unwrap_or(self.used.len());
        let number = u32::try_from(index + 1).unwrap_or(PORT_SETS);
        if number >= PORT_SETS {
            return Err(Error::PortSets { limit: PORT_SETS - 1 });
        }
        if let Some(slot) = self.used.get_mut(index) {
            self.numbers.remove(&slot.0);
            *slot = (set, 1);
        } else {
            self.used.push((set, 1));
        }
        self.numbers.insert(set, number);
        Ok((number, true))
    }

    /// One user less of set `number`.
    pub(super) fn release(&mut self, number: u32) {
        if let Some((_, users)) = self.slot(number) {
            *users = users.saturating_sub(1);
        }
    }

    /// Notes a user of a set that is in the map already.
    pub(super) fn adopt(&mut self, number: u32, set: PortSet) {
        let Some(index) = (number as usize).checked_sub(1) else { return };
        if self.used.len() <= index {
            self.used.resize(index + 1, (PortSet::default(), 0));
        }
        if let Some(slot) = self.used.get_mut(index) {
            slot.0 = set;
            slot.1 += 1;
            self.numbers.insert(set, number);
        }
    }

    /// Whether no set was ever used.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.used.is_empty()
    }

    /// The ranges of set `number`.
    #[must_use]
    pub(super) fn ranges(&self, number: u32) -> Vec<PortRange> {
        let index = (number as usize).checked_sub(1);
        index.and_then(|index| self.used.get(index)).map_or_else(Vec::new, |(set, _)| ranges(set))
    }

    fn slot(&mut self, number: u32) -> Option<&mut (PortSet, u32)> {
        self.used.get_mut((number as usize).checked_sub(1)?)
    }
}

/// The map entry of `ports`.
///
/// # Errors
/// If there are more ranges than an entry holds, even after those that touch are joined.
pub(super) fn set_of(ports: &[PortRange]) -> Result<PortSet, Error> {
    let mut sorted = ports.to_vec();
    sorted.sort_unstable();
    let mut joined: Vec<PortRange> = Vec::new();
    for range in sorted {
        match joined.last_mut() {
            Some(last) if last.proto == range.proto && range.low <= last.high.saturating_add(1) => {
                last.high = last.high.max(range.high);
            }
            _ => joined.push(range),
        }
    }
    if joined.len() > PORTS_PER_SET {
        return Err(Error::PortRanges { found: joined.len(), limit: PORTS_PER_SET });
    }
    let mut set = PortSet::default();
    for (slot, range) in set.ports.iter_mut().zip(joined) {
        let protocol = match range.proto {
            Proto::Tcp => TCP,
            Proto::Udp => UDP,
        };
        *slot = ban_common::Ports { low: range.low, high: range.high, protocol };
    }
    Ok(set)
}

fn ranges(set: &PortSet) -> Vec<PortRange> {
    let used = set.ports.iter().take_while(|ports| ports.protocol != 0);
    used.map(|ports| PortRange {
        proto: if ports.protocol == UDP { Proto::Udp } else { Proto::Tcp },
        low: ports.low,
        high: ports.high,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::parse_ports;

    #[test]
    fn ranges_that_touch_are_joined() {
        let set = set_of(&parse_ports("tcp/80,443,81-90").unwrap()).unwrap();
        let shown: Vec<_> = ranges(&set).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["tcp/80-90", "tcp/443"]);
        let many: Vec<_> = (0..17).map(|n| format!("tcp/{}", n * 2 + 1)).collect();
        let many: Vec<_> = many.iter().flat_map(|text| parse_ports(text).unwrap()).collect();
        assert!(matches!(set_of(&many), Err(Error::PortRanges { found: 17, limit: 16 })));
    }

    #[test]
    fn sets_are_shared_and_reused() {
        let mut sets = PortSets::default();
        let ssh = set_of(&parse_ports("tcp/22").unwrap()).unwrap();
        let web = set_of(&parse_ports("tcp/80,443").unwrap()).unwrap();
        let dns = set_of(&parse_ports("udp/53").unwrap()).unwrap();
        assert_eq!(sets.take(ssh).unwrap(), (1, true));
        assert_eq!(sets.take(web).unwrap(), (2, true));
        assert_eq!(sets.take(ssh).unwrap(), (1, false));
        sets.release(1);
        assert_eq!(sets.take(dns).unwrap(), (3, true), "set 1 still has a user");
        sets.release(1);
        assert_eq!(sets.take(ssh).unwrap(), (1, false), "unused, but not overwritten yet");
        sets.release(1);
        let ntp = set_of(&parse_ports("udp/123").unwrap()).unwrap();
        assert_eq!(sets.take(ntp).unwrap(), (1, true));
        assert_eq!(sets.take(ssh).unwrap(), (4, true));
    }
}
