//! The ban maps, side by side: which prefix lives where, and how it gets there in batches.

use std::hash::Hash;

use aya::Pod;
use ban_common::{Ban, NetV4, SITE_LENGTHS, Site};

use super::{
    batch::Table,
    error::Error,
    gates::GATE_LENGTH,
    hash::Set,
    load::{Loaded, entries},
};
use crate::net::IpNet;

/// Trie key for an IPv4 prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct LpmV4 {
    length: u32,
    address: [u8; 4],
    pad: [u8; 4],
}

/// Trie key for an IPv6 prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct LpmV6 {
    length: u32,
    address: [u8; 16],
}

/// Trie key for an IPv4 prefix of the allow list.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct AllowV4 {
    length: u32,
    address: [u8; 4],
}

// SAFETY: repr(C), integers only, 12 bytes without padding, every bit pattern is a value.
unsafe impl Pod for LpmV4 {}
// SAFETY: repr(C), integers only, 20 bytes without padding, every bit pattern is a value.
unsafe impl Pod for LpmV6 {}
// SAFETY: repr(C), integers only, 8 bytes without padding, every bit pattern is a value.
unsafe impl Pod for AllowV4 {}

const _: () = assert!(size_of::<LpmV4>() == size_of::<NetV4>() + 4);
const _: () = assert!(size_of::<LpmV6>() == 20 && size_of::<AllowV4>() == 8);

impl AllowV4 {
    /// The key of `net`.
    pub(super) fn new(net: ipnet::Ipv4Net) -> AllowV4 {
        AllowV4 { length: net.prefix_len().into(), address: net.network().octets() }
    }
}

impl LpmV6 {
    /// Whether the gate does not know it.
    pub(super) fn is_wide(&self) -> bool {
        self.length < GATE_LENGTH.into()
    }

    /// The key of `net`.
    pub(super) fn new(net: ipnet::Ipv6Net) -> LpmV6 {
        LpmV6 { length: net.prefix_len().into(), address: net.network().octets() }
    }
}

/// The key of one ban, in the map that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// In `ban_v4`.
    V4([u8; 4]),
    /// In `net_v4`.
    NetV4(LpmV4),
    /// In `ban_v6`.
    V6([u8; 16]),
    /// In `site_v6`.
    Site(Site),
    /// In `net_v6`.
    NetV6(LpmV6),
}

impl Key {
    /// The key of `prefix`.
    pub(super) fn of(prefix: IpNet) -> Key {
        match prefix {
            IpNet::V4(net) if net.prefix_len() == 32 => Key::V4(net.addr().octets()),
            IpNet::V4(net) => Key::NetV4(LpmV4 {
                length: net.prefix_len().into(),
                address: net.network().octets(),
                pad: [0; 4],
            }),
            IpNet::V6(net) if net.prefix_len() == 128 => Key::V6(net.addr().octets()),
            IpNet::V6(net) if SITE_LENGTHS.contains(&net.prefix_len().into()) => {
                let [network, _] = halves(net.network().octets());
                Key::Site(Site { network, prefix: net.prefix_len().into() })
            }
            IpNet::V6(net) => Key::NetV6(LpmV6::new(net)),
        }
    }

    /// The prefix of this key; `None` if the map holds what no agent writes.
    pub(super) fn prefix(self) -> Option<IpNet> {
        let length = |length: u32| u8::try_from(length).ok();
        match self {
            Key::V4(address) => Some(IpNet::new(address.into(), 32).ok()?),
            Key::NetV4(key) => IpNet::new(key.address.into(), length(key.length)?).ok(),
            Key::V6(address) => Some(IpNet::new(address.into(), 128).ok()?),
            Key::Site(site) => {
                let mut address = [0; 16];
                address.first_chunk_mut::<8>().map(|top| *top = site.network)?;
                IpNet::new(address.into(), length(site.prefix)?).ok()
            }
            Key::NetV6(key) => IpNet::new(key.address.into(), length(key.length)?).ok(),
        }
    }
}

fn halves(octets: [u8; 16]) -> [[u8; 8]; 2] {
    let mut out = [[0; 8]; 2];
    for (half, bytes) in out.iter_mut().zip(octets.chunks_exact(8)) {
        half.copy_from_slice(bytes);
    }
    out
}

/// One map, and which keys we know to be in it.
#[derive(Debug)]
struct Side<K> {
    name: &'static str,
    table: Table<K, Ban>,
    /// How many entries it may have.
    max: u32,
    held: Set<K>,
}

impl<K: Pod + Default + Eq + Hash> Side<K> {
    fn new(name: &'static str, loaded: &Loaded) -> Result<Side<K>, Error> {
        let table = Table::new(name, loaded.map(name)?)?;
        let max = table.max_entries() / entries(name, 1);
        Ok(Side { name, table, max, held: Set::default() })
    }

    fn get(&self, key: &K) -> Result<Option<Ban>, Error> {
        if self.held.contains(key) { self.table.get(key) } else { Ok(None) }
    }

    /// Writes `entries`; the keys that were not there before.
    fn set(&mut self, entries: &[(K, Ban)]) -> Result<Vec<K>, Error> {
        let max = self.max as usize;
        // Counting what is new is worth it only where it can matter.
        if self.held.len() + entries.len() > max {
            let fresh = entries.iter().filter(|(key, _)| !self.held.contains(key)).count();
            if self.held.len() + fresh > max {
                return Err(Error::Full { name: self.name, max: self.max });
            }
        }
        let (keys, values): (Vec<K>, Vec<Ban>) = entries.iter().copied().unzip();
        self.table.set_all(&keys, &values)?;
        Ok(keys.into_iter().filter(|key| self.held.insert(*key)).collect())
    }

    /// Removes `keys`; those that were there.
    fn remove(&mut self, keys: &[K]) -> Result<Vec<K>, Error> {
        self.table.remove_all(keys)?;
        Ok(keys.iter().copied().filter(|key| self.held.remove(key)).collect())
    }

    fn each(&mut self, mut visit: impl FnMut(K, Ban)) -> Result<(), Error> {
        let mut held = Set::with_capacity_and_hasher(self.held.len(), Default::default());
        self.table.each(|key, ban| {
            held.insert(key);
            visit(key, ban);
        })?;
        self.held = held;
        Ok(())
    }
}

/// Entries by map, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Entries {
    v4: Vec<([u8; 4], Ban)>,
    net_v4: Vec<(LpmV4, Ban)>,
    v6: Vec<([u8; 16], Ban)>,
    site: Vec<(Site, Ban)>,
    net_v6: Vec<(LpmV6, Ban)>,
}

impl Entries {
    /// Appends an entry.
    pub(super) fn push(&mut self, key: Key, ban: Ban) {
        match key {
            Key::V4(key) => self.v4.push((key, ban)),
            Key::NetV4(key) => self.net_v4.push((key, ban)),
            Key::V6(key) => self.v6.push((key, ban)),
            Key::Site(key) => self.site.push((key, ban)),
            Key::NetV6(key) => self.net_v6.push((key, ban)),
        }
    }
}

/// All ban maps.
#[derive(Debug)]
pub(super) struct Tables {
    v4: Side<[u8; 4]>,
    net_v4: Side<LpmV4>,
    v6: Side<[u8; 16]>,
    site: Side<Site>,
    net_v6: Side<LpmV6>,
}

impl Tables {
    /// The maps that `loaded` uses.
    ///
    /// # Errors
    /// If a map is missing or of another layout.
    pub(super) fn new(loaded: &Loaded) -> Result<Tables, Error> {
        Ok(Tables {
            v4: Side::new("ban_v4", loaded)?,
            net_v4: Side::new("net_v4", loaded)?,
            v6: Side::new("ban_v6", loaded)?,
            site: Side::new("site_v6", loaded)?,
            net_v6: Side::new("net_v6", loaded)?,
        })
    }

    /// The entry of `key`.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub(super) fn get(&self, key: &Key) -> Result<Option<Ban>, Error> {
        match key {
            Key::V4(key) => self.v4.get(key),
            Key::NetV4(key) => self.net_v4.get(key),
            Key::V6(key) => self.v6.get(key),
            Key::Site(key) => self.site.get(key),
            Key::NetV6(key) => self.net_v6.get(key),
        }
    }

    /// Writes `entries`, calls `fresh` for each that was not there before.
    ///
    /// # Errors
    /// The first failure; `fresh` has been called for all that were written before.
    pub(super) fn set(
        &mut self,
        entries: &Entries,
        mut fresh: impl FnMut(Key),
    ) -> Result<(), Error> {
        self.v4.set(&entries.v4)?.into_iter().for_each(|key| fresh(Key::V4(key)));
        self.net_v4.set(&entries.net_v4)?.into_iter().for_each(|key| fresh(Key::NetV4(key)));
        self.v6.set(&entries.v6)?.into_iter().for_each(|key| fresh(Key::V6(key)));
        self.site.set(&entries.site)?.into_iter().for_each(|key| fresh(Key::Site(key)));
        self.net_v6.set(&entries.net_v6)?.into_iter().for_each(|key| fresh(Key::NetV6(key)));
        Ok(())
    }

    /// Removes `keys`, calls `gone` for each that was there.
    ///
    /// # Errors
    /// The first failure; `gone` has been called for all that were removed before.
    pub(super) fn remove(&mut self, keys: &[Key], mut gone: impl FnMut(Key)) -> Result<(), Error> {
        let mut entries = Entries::default();
        keys.iter().for_each(|key| entries.push(*key, Ban::default()));
        fn only<K: Copy>(entries: &[(K, Ban)]) -> Vec<K> {
            entries.iter().map(|(key, _)| *key).collect()
        }
        self.v4.remove(&only(&entries.v4))?.into_iter().for_each(|key| gone(Key::V4(key)));
        let net_v4 = self.net_v4.remove(&only(&entries.net_v4))?;
        net_v4.into_iter().for_each(|key| gone(Key::NetV4(key)));
        self.v6.remove(&only(&entries.v6))?.into_iter().for_each(|key| gone(Key::V6(key)));
        self.site.remove(&only(&entries.site))?.into_iter().for_each(|key| gone(Key::Site(key)));
        let net_v6 = self.net_v6.remove(&only(&entries.net_v6))?;
        net_v6.into_iter().for_each(|key| gone(Key::NetV6(key)));
        Ok(())
    }

    /// Shows `visit` everything in the maps, in one pass; from now on that is what we know to be
    /// there.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub(super) fn each(&mut self, mut visit: impl FnMut(Key, Ban)) -> Result<(), Error> {
        self.v4.each(|key, ban| visit(Key::V4(key), ban))?;
        self.net_v4.each(|key, ban| visit(Key::NetV4(key), ban))?;
        self.v6.each(|key, ban| visit(Key::V6(key), ban))?;
        self.site.each(|key, ban| visit(Key::Site(key), ban))?;
        self.net_v6.each(|key, ban| visit(Key::NetV6(key), ban))
    }

    /// How many entries the fullest map holds.
    #[must_use]
    pub(super) fn largest(&self) -> usize {
        let v6 = self.v6.held.len().max(self.site.held.len()).max(self.net_v6.held.len());
        v6.max(self.v4.held.len()).max(self.net_v4.held.len())
    }

    /// How many entries a ban map can hold.
    #[must_use]
    pub(super) fn capacity(&self) -> u32 {
        self.v4.max
    }
}
