//! The ban maps, side by side: which prefix lives where, and how it gets there in batches.

use aya::Pod;
use ban_common::{Ban, NetV4, PORT_SETS, SITE_LENGTHS, Site};
use foldhash::HashMap as Map;

use super::{
    batch::Table,
    error::Error,
    gates::GATE_LENGTH,
    load::{Loaded, entries},
    raw::{Backend, Kernel, MapKey, Raw as _},
};
use crate::net::IpNet;

const _: () = assert!(PORT_SETS <= 256, "numbers of port sets are kept in a byte");

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
    /// Returns the key of `net`.
    pub(super) fn new(net: ipnet::Ipv4Net) -> AllowV4 {
        AllowV4 { length: net.prefix_len().into(), address: net.network().octets() }
    }

    /// Returns its prefix.
    #[cfg(test)]
    pub(super) fn prefix(self) -> IpNet {
        IpNet::new(self.address.into(), u8::try_from(self.length).unwrap()).unwrap()
    }
}

impl LpmV6 {
    /// Returns whether the gate does not know it.
    pub(super) fn is_wide(&self) -> bool {
        self.length < GATE_LENGTH.into()
    }

    /// Returns the key of `net`.
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
    /// Returns the key of `prefix`.
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

    /// Returns the prefix of this key; `None` if the map holds what no agent writes.
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

/// One map, and what we know to be in it.
struct TrackedMap<G: Backend, K: MapKey> {
    name: &'static str,
    table: G::Table<K, Ban>,
    /// How many entries it may have.
    max: u32,
    /// Its keys, each with the port set of its ban; 0: none.
    held: Map<K, u8>,
}

/// What became of an entry that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It was not there before.
    Fresh,
    /// It took the place of one with this port set.
    Replaced(u8),
    /// It is not there; what was there before still is.
    Not,
    /// It may be there, or what was there before: the map cannot even be read.
    Unknown,
}

/// What the map holds otherwise than we knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drift {
    /// A ban with this port set is there.
    Came(Key, u8),
    /// A ban with this port set is not there any more.
    Went(Key, u8),
}

/// Returns a port set's number as it is kept; one that no agent writes is none.
fn set_of(ban: &Ban) -> u8 {
    u8::try_from(ban.port_set).ok().filter(|number| u32::from(*number) < PORT_SETS).unwrap_or(0)
}

impl<G: Backend, K: MapKey> TrackedMap<G, K> {
    fn new(name: &'static str, table: G::Table<K, Ban>, max: u32) -> TrackedMap<G, K> {
        TrackedMap { name, table, max, held: Map::default() }
    }

    fn get(&self, key: &K) -> Result<Option<Ban>, Error> {
        if self.held.contains_key(key) { self.table.get(key) } else { Ok(None) }
    }

    /// Writes `entries`, no key twice; tells `done` what became of each.
    fn set(
        &mut self,
        entries: &[(K, Ban)],
        mut done: impl FnMut(K, &Ban, Written),
    ) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        let max = self.max as usize;
        // Counting what is new is worth it only where it can matter.
        if self.held.len() + entries.len() > max {
            let fresh = entries.iter().filter(|(key, _)| !self.held.contains_key(key)).count();
            if fresh > 0 && self.held.len() + fresh > max {
                entries.iter().for_each(|(key, ban)| done(*key, ban, Written::Not));
                return Err(Error::Full { name: self.name, max: self.max });
            }
        }
        let (keys, values): (Vec<K>, Vec<Ban>) = entries.iter().copied().unzip();
        let result = self.table.set_all(&keys, &values);
        for (key, ban) in entries {
            if result.is_err() {
                // it stopped somewhere: only the map knows where
                match self.table.get(key) {
                    Ok(Some(there)) if is_written(&there, ban) => {}
                    Ok(_) => {
                        done(*key, ban, Written::Not);
                        continue;
                    }
                    Err(_) => {
                        done(*key, ban, Written::Unknown);
                        continue;
                    }
                }
            }
            match self.held.insert(*key, set_of(ban)) {
                None => done(*key, ban, Written::Fresh),
                Some(old) => done(*key, ban, Written::Replaced(old)),
            }
        }
        result
    }

    /// Removes `keys`; tells `gone` of each that is not there any more, and its port set if it was
    /// there before.
    fn remove(&mut self, keys: &[K], mut gone: impl FnMut(K, Option<u8>)) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        let result = self.table.remove_all(keys);
        for key in keys {
            if result.is_ok() || matches!(self.table.get(key), Ok(None)) {
                gone(*key, self.held.remove(key));
            }
        }
        result
    }

    /// `count` keys of the map itself behind `last`; fewer at its end.
    fn sweep(&self, mut last: Option<K>, count: usize) -> Result<Vec<K>, Error> {
        let mut found = Vec::new();
        while found.len() < count
            && let Some(key) = self.table.next_key(last.as_ref())?
        {
            found.push(key);
            last = Some(key);
        }
        Ok(found)
    }

    fn each(
        &mut self,
        of: impl Fn(K) -> Key,
        visit: &mut dyn FnMut(Key, Ban),
        drift: &mut dyn FnMut(Drift),
    ) -> Result<(), Error> {
        let mut held = Map::with_capacity_and_hasher(self.held.len(), Default::default());
        let known = &self.held;
        self.table.each(&mut |key, ban| {
            let set = set_of(&ban);
            // a key that is shown twice has come once
            if held.insert(key, set).is_none() && known.get(&key) != Some(&set) {
                if let Some(other) = known.get(&key) {
                    drift(Drift::Went(of(key), *other));
                }
                drift(Drift::Came(of(key), set));
            }
            visit(of(key), ban);
        })?;
        for (key, set) in &self.held {
            if !held.contains_key(key) {
                drift(Drift::Went(of(*key), *set));
            }
        }
        self.held = held;
        Ok(())
    }
}

/// Returns whether the entry that is there is the one that was to be written; it may have counted
/// since.
fn is_written(there: &Ban, ban: &Ban) -> bool {
    Ban { packets: ban.packets, bytes: ban.bytes, ..*there } == *ban
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
    /// Returns the port set of each.
    pub(super) fn sets(&self) -> Vec<u32> {
        fn of<K>(entries: &[(K, Ban)]) -> impl Iterator<Item = u32> {
            entries.iter().map(|(_, ban)| ban.port_set)
        }
        let v6 = of(&self.v6).chain(of(&self.site)).chain(of(&self.net_v6));
        of(&self.v4).chain(of(&self.net_v4)).chain(v6).collect()
    }

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

/// How far a sweep through all maps has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sweep {
    at: Option<Key>,
    map: SweepMap,
}

impl Sweep {
    /// Returns whether it has seen all maps.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.map == SweepMap::Over
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SweepMap {
    #[default]
    V4,
    NetV4,
    V6,
    Site,
    NetV6,
    Over,
}

fn wrap<K>(keys: Vec<K>, key: impl Fn(K) -> Key) -> Vec<Key> {
    keys.into_iter().map(key).collect()
}

/// All ban maps.
pub(super) struct Tables<G: Backend = Kernel> {
    v4: TrackedMap<G, [u8; 4]>,
    net_v4: TrackedMap<G, LpmV4>,
    v6: TrackedMap<G, [u8; 16]>,
    site: TrackedMap<G, Site>,
    net_v6: TrackedMap<G, LpmV6>,
}

/// The ban maps as such.
#[cfg(test)]
pub(super) struct Sheets<G: Backend> {
    pub(super) v4: G::Table<[u8; 4], Ban>,
    pub(super) net_v4: G::Table<LpmV4, Ban>,
    pub(super) v6: G::Table<[u8; 16], Ban>,
    pub(super) site: G::Table<Site, Ban>,
    pub(super) net_v6: G::Table<LpmV6, Ban>,
}

impl Tables {
    /// Returns the maps that `loaded` uses.
    ///
    /// # Errors
    /// If a map is missing or of another layout.
    pub(super) fn new(loaded: &Loaded) -> Result<Tables, Error> {
        fn tracked<K: MapKey>(
            name: &'static str,
            on: &Loaded,
        ) -> Result<TrackedMap<Kernel, K>, Error> {
            let table = Table::new(name, on.map(name)?)?;
            let max = table.max_entries() / entries(name, 1);
            Ok(TrackedMap::new(name, table, max))
        }
        Ok(Tables {
            v4: tracked("ban_v4", loaded)?,
            net_v4: tracked("net_v4", loaded)?,
            v6: tracked("ban_v6", loaded)?,
            site: tracked("site_v6", loaded)?,
            net_v6: tracked("net_v6", loaded)?,
        })
    }
}

impl<G: Backend> Tables<G> {
    /// These maps, for `max` bans each.
    #[cfg(test)]
    pub(super) fn over(sheets: Sheets<G>, max: u32) -> Tables<G> {
        Tables {
            v4: TrackedMap::new("ban_v4", sheets.v4, max),
            net_v4: TrackedMap::new("net_v4", sheets.net_v4, max),
            v6: TrackedMap::new("ban_v6", sheets.v6, max),
            site: TrackedMap::new("site_v6", sheets.site, max),
            net_v6: TrackedMap::new("net_v6", sheets.net_v6, max),
        }
    }

    /// Returns the entry of `key`.
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

    /// Writes `entries`, no key twice; tells `done` what became of each.
    ///
    /// # Errors
    /// The first failure; the other maps were written all the same.
    pub(super) fn set(
        &mut self,
        entries: &Entries,
        mut done: impl FnMut(Key, &Ban, Written),
    ) -> Result<(), Error> {
        let v4 = self.v4.set(&entries.v4, |key, ban, what| done(Key::V4(key), ban, what));
        let net_v4 =
            self.net_v4.set(&entries.net_v4, |key, ban, what| done(Key::NetV4(key), ban, what));
        let v6 = self.v6.set(&entries.v6, |key, ban, what| done(Key::V6(key), ban, what));
        let site = self.site.set(&entries.site, |key, ban, what| done(Key::Site(key), ban, what));
        let net_v6 =
            self.net_v6.set(&entries.net_v6, |key, ban, what| done(Key::NetV6(key), ban, what));
        v4.and(net_v4).and(v6).and(site).and(net_v6)
    }

    /// Removes `keys`; tells `gone` of each that is not there any more, and its port set if it was
    /// there before.
    ///
    /// # Errors
    /// The first failure; the other maps were written all the same.
    pub(super) fn remove(
        &mut self,
        keys: &[Key],
        mut gone: impl FnMut(Key, Option<u8>),
    ) -> Result<(), Error> {
        let mut entries = Entries::default();
        keys.iter().for_each(|key| entries.push(*key, Ban::default()));
        fn only<K: Copy>(entries: &[(K, Ban)]) -> Vec<K> {
            entries.iter().map(|(key, _)| *key).collect()
        }
        let v4 = self.v4.remove(&only(&entries.v4), |key, set| gone(Key::V4(key), set));
        let net_v4 =
            self.net_v4.remove(&only(&entries.net_v4), |key, set| gone(Key::NetV4(key), set));
        let v6 = self.v6.remove(&only(&entries.v6), |key, set| gone(Key::V6(key), set));
        let site = self.site.remove(&only(&entries.site), |key, set| gone(Key::Site(key), set));
        let net_v6 =
            self.net_v6.remove(&only(&entries.net_v6), |key, set| gone(Key::NetV6(key), set));
        v4.and(net_v4).and(v6).and(site).and(net_v6)
    }

    /// Shows `visit` everything in the maps, in one pass, and `drift` what is not as we knew it;
    /// from now on that is what we know to be there.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub(super) fn each(
        &mut self,
        mut visit: impl FnMut(Key, Ban),
        mut drift: impl FnMut(Drift),
    ) -> Result<(), Error> {
        self.v4.each(Key::V4, &mut visit, &mut drift)?;
        self.net_v4.each(Key::NetV4, &mut visit, &mut drift)?;
        self.v6.each(Key::V6, &mut visit, &mut drift)?;
        self.site.each(Key::Site, &mut visit, &mut drift)?;
        self.net_v6.each(Key::NetV6, &mut visit, &mut drift)
    }

    /// Returns the port set of every ban that we know to be there.
    #[cfg(test)]
    pub(super) fn sets(&self) -> Vec<u8> {
        let v4 = self.v4.held.values().chain(self.net_v4.held.values());
        let v6 = self.v6.held.values().chain(self.site.held.values());
        v4.chain(v6).chain(self.net_v6.held.values()).copied().collect()
    }

    /// Returns `count` more keys that are in the maps, our own or not.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub(super) fn sweep(&self, sweep: &mut Sweep, count: usize) -> Result<Vec<Key>, Error> {
        let (found, next) = match (sweep.map, sweep.at) {
            (SweepMap::V4, Some(Key::V4(last))) => {
                (wrap(self.v4.sweep(Some(last), count)?, Key::V4), SweepMap::NetV4)
            }
            (SweepMap::V4, _) => (wrap(self.v4.sweep(None, count)?, Key::V4), SweepMap::NetV4),
            (SweepMap::NetV4, Some(Key::NetV4(last))) => {
                (wrap(self.net_v4.sweep(Some(last), count)?, Key::NetV4), SweepMap::V6)
            }
            (SweepMap::NetV4, _) => {
                (wrap(self.net_v4.sweep(None, count)?, Key::NetV4), SweepMap::V6)
            }
            (SweepMap::V6, Some(Key::V6(last))) => {
                (wrap(self.v6.sweep(Some(last), count)?, Key::V6), SweepMap::Site)
            }
            (SweepMap::V6, _) => (wrap(self.v6.sweep(None, count)?, Key::V6), SweepMap::Site),
            (SweepMap::Site, Some(Key::Site(last))) => {
                (wrap(self.site.sweep(Some(last), count)?, Key::Site), SweepMap::NetV6)
            }
            (SweepMap::Site, _) => {
                (wrap(self.site.sweep(None, count)?, Key::Site), SweepMap::NetV6)
            }
            (SweepMap::NetV6, Some(Key::NetV6(last))) => {
                (wrap(self.net_v6.sweep(Some(last), count)?, Key::NetV6), SweepMap::Over)
            }
            (SweepMap::NetV6, _) => {
                (wrap(self.net_v6.sweep(None, count)?, Key::NetV6), SweepMap::Over)
            }
            (SweepMap::Over, _) => return Ok(Vec::new()),
        };
        sweep.at = found.last().copied();
        if found.len() < count {
            *sweep = Sweep { at: None, map: next };
        }
        Ok(found)
    }

    /// Returns how many bans there are of the family that has more. Any of them may move to one
    /// map: the bound of a family is that of each of its maps.
    #[must_use]
    pub(super) fn largest(&self) -> usize {
        let v4 = self.v4.held.len() + self.net_v4.held.len();
        v4.max(self.v6.held.len() + self.site.held.len() + self.net_v6.held.len())
    }

    /// Returns how many entries a ban map can hold.
    #[must_use]
    pub(super) fn capacity(&self) -> u32 {
        self.v4.max
    }
}
