//! Port sets: bans that name ports share a few sets, each an entry of the map `port_sets`.
//!
//! Pure bookkeeping; the caller writes the entries.

use ban_common::{PORT_SETS, PortSet};

use super::error::Error;
use crate::net::{PortRange, Ports, Proto};

/// Which set has which number, and how many bans use it. Number 0 is never used.
#[derive(Debug, Default)]
pub(super) struct PortSets {
    /// By number, from 1 on: the ports, joined, and their users.
    used: Vec<(Ports, u32)>,
}

impl PortSets {
    /// Returns the number of the set of `ports`, one user more; the entry, if it has to be written
    /// first.
    ///
    /// # Errors
    /// If there are too many different sets.
    pub(super) fn take(&mut self, ports: &[PortRange]) -> Result<(u32, Option<PortSet>), Error> {
        let ports = join(ports);
        let known = self.used.iter().position(|(set, users)| *users > 0 && *set == ports);
        let free = || self.used.iter().position(|(_, users)| *users == 0);
        let index = known.or_else(free).unwrap_or(self.used.len());
        let number = u32::try_from(index + 1).unwrap_or(PORT_SETS);
        if number >= PORT_SETS {
            return Err(Error::PortSets { limit: PORT_SETS - 1 });
        }
        let entry = known.is_none().then(|| encode(&ports));
        match self.used.get_mut(index) {
            Some(slot) if known.is_some() => slot.1 += 1,
            Some(slot) => *slot = (ports, 1),
            None => self.used.push((ports, 1)),
        }
        Ok((number, entry))
    }

    /// One user less of set `number`.
    pub(super) fn release(&mut self, number: u32) {
        let Some(index) = (number as usize).checked_sub(1) else { return };
        match self.used.get_mut(index) {
            Some((_, users)) if *users > 0 => *users -= 1,
            _ => log::error!("port set {number} was released, but has no users: a bug"),
        }
    }

    /// By number, from 1 on: how many use it.
    #[cfg(test)]
    pub(super) fn all_users(&self) -> Vec<u32> {
        self.used.iter().map(|(_, users)| *users).collect()
    }

    /// Notes a user of a set that is in the map already; `entry` reads it.
    ///
    /// # Errors
    /// Those of `entry`.
    pub(super) fn adopt(
        &mut self,
        number: u32,
        entry: impl FnOnce() -> Result<Option<PortSet>, Error>,
    ) -> Result<(), Error> {
        let Some(index) = (number as usize).checked_sub(1) else { return Ok(()) };
        if self.used.len() <= index {
            self.used.resize(index + 1, (Vec::new(), 0));
        }
        if let Some((ports, users)) = self.used.get_mut(index) {
            if *users == 0 {
                *ports = entry()?.map_or_else(Vec::new, |set| decode(&set));
            }
            *users += 1;
        }
        Ok(())
    }

    /// Returns the ports of set `number`.
    #[must_use]
    pub(super) fn ports(&self, number: u32) -> Ports {
        let index = (number as usize).checked_sub(1);
        index.and_then(|index| self.used.get(index)).map_or_else(Vec::new, |(set, _)| set.clone())
    }

    /// Returns how many bans use a set.
    #[must_use]
    pub(super) fn users(&self) -> u32 {
        self.used.iter().map(|(_, users)| users).sum()
    }
}

/// Sorts, and joins ranges that touch.
fn join(ports: &[PortRange]) -> Ports {
    let mut sorted = ports.to_vec();
    sorted.sort_unstable();
    let mut joined: Ports = Vec::new();
    for range in sorted {
        match joined.last_mut() {
            Some(last) if last.proto == range.proto && range.low <= last.high.saturating_add(1) => {
                last.high = last.high.max(range.high);
            }
            _ => joined.push(range),
        }
    }
    joined
}

fn encode(ports: &[PortRange]) -> PortSet {
    let mut set = PortSet::default();
    for range in ports {
        let words = match range.proto {
            Proto::Tcp => &mut set.tcp,
            Proto::Udp => &mut set.udp,
        };
        for port in range.low..=range.high {
            // As the port lies in a packet, read as a native number.
            let bit = port.to_be();
            if let Some(word) = words.get_mut(usize::from(bit >> 6)) {
                *word |= 1 << (bit & 63);
            }
        }
    }
    set
}

fn decode(set: &PortSet) -> Ports {
    let mut ports = Vec::new();
    for (proto, words) in [(Proto::Tcp, &set.tcp), (Proto::Udp, &set.udp)] {
        let all = (0..=u16::MAX).filter(|port| {
            let bit = port.to_be();
            words.get(usize::from(bit >> 6)).is_some_and(|word| word >> (bit & 63) & 1 != 0)
        });
        ports.extend(all.map(|port| PortRange { proto, low: port, high: port }));
    }
    join(&ports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::parse_ports;

    #[test]
    fn sets_survive_the_map() {
        for text in ["tcp/22", "tcp/80,443", "udp/1-65535", "tcp/1000-2000,1500-3000,3001"] {
            let ports = parse_ports(text).unwrap();
            assert_eq!(decode(&encode(&ports)), join(&ports), "{text}");
        }
        let joined = join(&parse_ports("tcp/80,443,81-90").unwrap());
        let shown: Vec<_> = joined.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["tcp/80-90", "tcp/443"]);
    }

    #[test]
    fn sets_are_shared_and_reused() {
        let mut sets = PortSets::default();
        let take = |text: &str, sets: &mut PortSets| {
            let (number, entry) = sets.take(&parse_ports(text).unwrap()).unwrap();
            (number, entry.is_some())
        };
        assert_eq!(take("tcp/22", &mut sets), (1, true));
        assert_eq!(take("tcp/80,443", &mut sets), (2, true));
        assert_eq!(take("tcp/22", &mut sets), (1, false));
        sets.release(1);
        assert_eq!(take("udp/53", &mut sets), (3, true), "set 1 still has a user");
        sets.release(1);
        assert_eq!(take("udp/123", &mut sets), (1, true), "set 1 is free");
        assert_eq!(take("tcp/22", &mut sets), (4, true));
        assert_eq!(sets.users(), 4);
        for port in 1..PORT_SETS - 4 {
            sets.take(&parse_ports(&format!("tcp/{}", port + 1_000)).unwrap()).unwrap();
        }
        let full = sets.take(&parse_ports("tcp/9").unwrap());
        assert!(matches!(full, Err(Error::PortSets { limit: 127 })));
    }
}
