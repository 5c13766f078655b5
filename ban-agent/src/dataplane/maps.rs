//! Brings the maps in line with the ledger's ops, and reads them back.
//!
//! Order is what keeps law 1: a ban's entry is written before its gate bit, and the ban is
//! acknowledged after both; when it goes, the entry goes before the bit.

use std::collections::{HashMap, HashSet};

#[cfg(test)]
use ban_common::PORT_SETS;
use ban_common::{Ban, Count, GATE_WORDS, PortSet, ROWS, SITE_LENGTHS, SLOTS, Verdict};
use foldhash::HashMap as Map;

use super::{
    Held, Hits, Verdicts,
    batch::{Table, check_layout},
    bitmap::{GateBitmap, duplicate},
    clock::JiffyClock,
    error::Error,
    gates::{GateV4, GateV6},
    load::Loaded,
    ports::PortSets,
    raw::{Backend, Kernel, MapKey, Raw},
    settings::{Controls, PrefixCounts},
    tables::{AllowV4, Drift, Entries, Key, LpmV6, Sweep, Tables, Written},
};
use crate::{
    clock::{Boot, Now},
    ledger::{Enforced, Op},
    net::IpNet,
};

/// A gate: so many words of eight bytes.
const GATE: (usize, usize) = (8, GATE_WORDS);
/// Ops that are turned into entries at once: bounds the memory that takes.
const CHUNK: usize = 8_192;

/// The maps of the running program, and what we know to be in them.
pub(super) struct Maps<G: Backend = Kernel> {
    tables: Tables<G>,
    gate_v4: GateV4<G::Bitmap>,
    gate_v6: GateV6<G::Bitmap>,
    prefix_counts: PrefixCounts,
    sets: PortSets,
    /// Sets of entries of which not even the kernel says whether they were written: nobody else
    /// may use these before the next step for the same prefix.
    unsure: Map<Key, Vec<u32>>,
    port_sets: G::Table<u32, PortSet>,
    allow_v4: G::Table<AllowV4, u32>,
    allow_v6: G::Table<LpmV6, u32>,
    /// What the allow lists hold, as far as that is known.
    allowed_v4: Option<HashSet<AllowV4>>,
    allowed_v6: Option<HashSet<LpmV6>>,
    verdicts: G::Verdicts,
    /// The settings.
    pub(super) controls: Controls<G::Cells>,
    /// An earlier start only counted.
    pub(super) was_dry: bool,
    /// How deadlines are written.
    pub(super) clock: JiffyClock,
    /// Deadlines by another clock of which not all could be written yet.
    converted: Option<(JiffyClock, Entries)>,
}

/// The maps as such.
pub(super) struct Parts<G: Backend> {
    pub(super) tables: Tables<G>,
    pub(super) gate_v4: G::Bitmap,
    pub(super) gate_v6: G::Bitmap,
    pub(super) port_sets: G::Table<u32, PortSet>,
    pub(super) allow_v4: G::Table<AllowV4, u32>,
    pub(super) allow_v6: G::Table<LpmV6, u32>,
    pub(super) verdicts: G::Verdicts,
    pub(super) settings: Controls<G::Cells>,
}

impl PrefixCounts {
    /// A prefix has come.
    fn add(&mut self, key: &Key) {
        self.each(key, |count| *count += 1);
    }

    /// A prefix has gone.
    fn remove(&mut self, key: &Key) {
        self.each(key, |count| *count = count.saturating_sub(1));
    }

    fn each(&mut self, key: &Key, change: impl Fn(&mut u32)) {
        match key {
            Key::V4(_) | Key::V6(_) => {}
            Key::NetV4(_) => change(&mut self.nets_v4),
            Key::NetV6(net) => {
                change(&mut self.nets_v6);
                if net.is_wide() {
                    change(&mut self.wide_v6);
                }
            }
            Key::Site(site) => {
                let at = SITE_LENGTHS.iter().position(|length| *length == site.prefix);
                at.and_then(|at| self.sites.get_mut(at)).into_iter().for_each(change);
            }
        }
    }
}

impl Maps {
    /// Returns the maps that `loaded` uses; see [`Maps::over`].
    ///
    /// # Errors
    /// If a map cannot be used.
    pub(super) fn new(loaded: &Loaded, clock: JiffyClock) -> Result<Maps, Error> {
        let verdicts = loaded.map("verdicts")?;
        let rows = (ROWS * SLOTS) as usize;
        check_layout("verdicts", verdicts, (4, size_of::<Count>()), Some(rows))?;
        let verdicts = duplicate("verdicts", verdicts)?;
        let verdicts = aya::maps::PerCpuArray::try_from(aya::maps::Map::PerCpuArray(verdicts))
            .map_err(|e| map_error("verdicts", e))?;
        let parts = Parts {
            tables: Tables::new(loaded)?,
            gate_v4: GateBitmap::new("gate_v4", loaded.map("gate_v4")?, GATE)?,
            gate_v6: GateBitmap::new("gate_v6", loaded.map("gate_v6")?, GATE)?,
            port_sets: Table::new("port_sets", loaded.map("port_sets")?)?,
            allow_v4: Table::new("allow_v4", loaded.map("allow_v4")?)?,
            allow_v6: Table::new("allow_v6", loaded.map("allow_v6")?)?,
            verdicts,
            settings: Controls::new(loaded)?,
        };
        Maps::over(parts, clock)
    }

    /// Counters of the interfaces in `slots`, summed up; of all that ever were, if `None`.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub(super) fn verdicts(&self, slot: Option<u32>) -> Result<Verdicts, Error> {
        let sum = |row: u32| -> Result<Count, Error> {
            let mut total = Count::default();
            let slots = slot.map_or(0..SLOTS, |slot| slot..slot + 1);
            for slot in slots {
                let index = slot * ROWS + row;
                let counts = self.verdicts.get(&index, 0).map_err(|e| map_error("verdicts", e))?;
                for count in counts.iter() {
                    total.packets += count.packets;
                    total.bytes += count.bytes;
                }
            }
            Ok(total)
        };
        let mut counts = Vec::with_capacity(Verdict::ALL.len());
        for verdict in Verdict::ALL {
            counts.push((verdict, Hits::from(sum(verdict as u32)?)));
        }
        Ok(Verdicts { counts, events_lost: sum(Count::LOST_ROW)?.packets })
    }
}

impl<G: Backend> Maps<G> {
    /// Takes over what is in these maps: gates computed anew, deadlines converted if the machine
    /// slept since they were written.
    ///
    /// # Errors
    /// If a map cannot be used.
    pub(super) fn over(parts: Parts<G>, clock: JiffyClock) -> Result<Maps<G>, Error> {
        let mut maps = Maps {
            tables: parts.tables,
            gate_v4: GateV4::new(parts.gate_v4),
            gate_v6: GateV6::new(parts.gate_v6),
            prefix_counts: PrefixCounts::default(),
            sets: PortSets::default(),
            unsure: Map::default(),
            port_sets: parts.port_sets,
            allow_v4: parts.allow_v4,
            allow_v6: parts.allow_v6,
            allowed_v4: None,
            allowed_v6: None,
            verdicts: parts.verdicts,
            controls: parts.settings,
            was_dry: false,
            clock,
            converted: None,
        };
        maps.was_dry = maps.controls.is_dry_run();
        maps.adopt()?;
        Ok(maps)
    }

    /// Takes over what is in the maps.
    fn adopt(&mut self) -> Result<(), Error> {
        let (counts, gate_v4, gate_v6) =
            (&mut self.prefix_counts, &mut self.gate_v4, &mut self.gate_v6);
        let (sets, port_sets) = (&mut self.sets, &self.port_sets);
        let mut unread = None;
        self.tables.each(
            |_, _| {},
            |drift| {
                let Drift::Came(key, set) = drift else { return };
                match key.prefix() {
                    Some(IpNet::V4(net)) => gate_v4.note(net),
                    Some(IpNet::V6(net)) => _ = gate_v6.note(net),
                    None => {}
                }
                counts.add(&key);
                let set = u32::from(set);
                let adopted = sets.adopt(set, || port_sets.get(&set));
                unread = unread.take().or(adopted.err());
            },
        )?;
        unread.map_or(Ok(()), Err)?;
        self.show_counts();
        self.gate_v4.rewrite();
        self.gate_v6.rewrite();
        self.rest();
        let noted = self.controls.noted_clock(&self.clock);
        if let Some(noted) = noted
            && self.clock.differs(&noted)
        {
            let clock = std::mem::replace(&mut self.clock, noted);
            return self.set_clock(clock);
        }
        self.controls.clock(&self.clock);
        Ok(())
    }

    fn show_counts(&self) {
        self.controls.counts(&self.prefix_counts);
        self.controls.scoped(self.sets.users());
    }

    /// Moves to another measurement of the clocks: every deadline is written again.
    ///
    /// # Errors
    /// If a map cannot be written: then the old measurement counts, and the next call goes on with
    /// what this one has converted, for nothing may be converted twice.
    pub(super) fn set_clock(&mut self, clock: JiffyClock) -> Result<(), Error> {
        let (clock, entries) = match self.converted.take() {
            Some(converted) => converted,
            None => (clock, self.converted_to(&clock)?),
        };
        if let Err(error) = self.tables.set(&entries, |_, _, _| {}) {
            self.converted = Some((clock, entries));
            return Err(error);
        }
        self.clock = clock;
        self.controls.clock(&self.clock);
        Ok(())
    }

    /// Returns all bans, with their deadlines by another clock.
    fn converted_to(&mut self, clock: &JiffyClock) -> Result<Entries, Error> {
        let mut entries = Entries::default();
        let from = self.clock;
        let convert = |deadline| from.convert(deadline, clock);
        self.each_known(|_, key, ban| {
            let ends_jiffies = convert(ban.ends_jiffies);
            let ports_end_jiffies = convert(ban.ports_end_jiffies);
            entries.push(key, Ban { ends_jiffies, ports_end_jiffies, ..ban });
        })?;
        Ok(entries)
    }

    /// Shows `visit` every ban in the maps. What another process has put there or taken away since
    /// is known from then on.
    fn each_known(&mut self, mut visit: impl FnMut(&PortSets, Key, Ban)) -> Result<(), Error> {
        let mut drifted = Vec::new();
        let sets = &self.sets;
        self.tables.each(|key, ban| visit(sets, key, ban), |drift| drifted.push(drift))?;
        if drifted.is_empty() {
            return Ok(());
        }
        let mut unread = None;
        for drift in drifted {
            match drift {
                Drift::Came(key, set) => {
                    let set = u32::from(set);
                    let adopted = self.sets.adopt(set, || self.port_sets.get(&set));
                    unread = unread.or(adopted.err());
                    self.has_come(&key);
                }
                Drift::Went(key, set) => {
                    self.sets.release(set.into());
                    self.has_gone(&key);
                }
            }
        }
        self.show_counts();
        self.rest();
        unread.map_or(Ok(()), Err)
    }

    fn has_come(&mut self, key: &Key) {
        self.prefix_counts.add(key);
        match key.prefix() {
            Some(IpNet::V4(net)) => self.gate_v4.add(net),
            Some(IpNet::V6(net)) => self.gate_v6.add(net),
            None => {}
        }
    }

    fn has_gone(&mut self, key: &Key) {
        self.prefix_counts.remove(key);
        match key.prefix() {
            Some(IpNet::V4(net)) => self.gate_v4.remove(net),
            Some(IpNet::V6(net)) => self.gate_v6.remove(net),
            None => {}
        }
    }

    /// Applies `ops` in order.
    ///
    /// # Errors
    /// The first failure; earlier ops stay applied.
    pub(super) fn apply(&mut self, ops: &[Op], now: Now) -> Result<(), Error> {
        self.gate_v4.prepare(ops.len());
        self.gate_v6.prepare(ops.len());
        self.apply_all(ops, now)
    }

    /// Gives back what much work has taken: parts of it may follow each other for seconds.
    pub(super) fn rest(&mut self) {
        self.gate_v4.rest();
        self.gate_v6.rest();
    }

    fn apply_all(&mut self, ops: &[Op], now: Now) -> Result<(), Error> {
        for run in ops.chunk_by(|a, b| matches!(a, Op::Set(..)) == matches!(b, Op::Set(..))) {
            for part in run.chunks(CHUNK) {
                match part.first() {
                    Some(Op::Set(..)) => self.set(part, now)?,
                    _ => self.clear(part)?,
                }
            }
        }
        Ok(())
    }

    fn set(&mut self, ops: &[Op], now: Now) -> Result<(), Error> {
        let mut entries = Entries::default();
        for (prefix, enforced) in last_of_each(ops) {
            if let Err(error) = self.prepare(prefix, enforced, now, &mut entries) {
                entries.sets().into_iter().for_each(|set| self.sets.release(set));
                return Err(error);
            }
        }
        let (mut fresh, mut unused) = (Vec::new(), Vec::new());
        let unsure = &mut self.unsure;
        let result = self.tables.set(&entries, |key, ban, written| {
            match written {
                Written::Fresh => fresh.push(key),
                Written::Replaced(old) => unused.push(old.into()),
                Written::Not => unused.push(ban.port_set),
                Written::Unknown => unsure.entry(key).or_default().push(ban.port_set),
            }
            if matches!(written, Written::Fresh | Written::Replaced(_)) && !unsure.is_empty() {
                unused.extend(unsure.remove(&key).unwrap_or_default());
            }
        });
        fresh.iter().for_each(|key| self.prefix_counts.add(key));
        self.controls.counts(&self.prefix_counts);
        self.controls.scoped(self.sets.users());
        for key in fresh {
            match key.prefix() {
                Some(IpNet::V4(net)) => self.gate_v4.add(net),
                Some(IpNet::V6(net)) => self.gate_v6.add(net),
                None => {}
            }
        }
        // what was replaced is not used any more, what was not written never was
        unused.into_iter().for_each(|set| self.sets.release(set));
        self.controls.scoped(self.sets.users());
        result
    }

    /// Takes the port set of a ban and makes its entry, with what it has counted so far.
    fn prepare(
        &mut self,
        prefix: IpNet,
        enforced: &Enforced,
        now: Now,
        entries: &mut Entries,
    ) -> Result<(), Error> {
        let key = Key::of(prefix);
        let old = self.tables.get(&key)?.unwrap_or_default();
        let port_set = self.take_ports(enforced)?;
        entries.push(key, self.ban(prefix, enforced, port_set, old, now));
        Ok(())
    }

    fn clear(&mut self, ops: &[Op]) -> Result<(), Error> {
        let keys: Vec<Key> = ops.iter().map(|op| Key::of(op.prefix())).collect();
        let (mut gone, mut unused) = (Vec::new(), Vec::new());
        let unsure = &mut self.unsure;
        let result = self.tables.remove(&keys, |key, set| {
            if !unsure.is_empty() {
                unused.extend(unsure.remove(&key).unwrap_or_default());
            }
            if let Some(set) = set {
                unused.push(set.into());
                gone.push(key);
            }
        });
        gone.iter().for_each(|key| self.has_gone(key));
        unused.into_iter().for_each(|set| self.sets.release(set));
        self.show_counts();
        result
    }

    /// Returns the port set of a ban, one user more; 0: all ports.
    fn take_ports(&mut self, enforced: &Enforced) -> Result<u32, Error> {
        if enforced.scoped == Boot(0) || enforced.ports.is_empty() {
            return Ok(0);
        }
        let (number, entry) = self.sets.take(&enforced.ports)?;
        let written = entry.map_or(Ok(()), |set| self.port_sets.set_all(&[number], &[set]));
        if let Err(error) = written {
            self.sets.release(number);
            return Err(error);
        }
        Ok(number)
    }

    fn ban(&self, prefix: IpNet, enforced: &Enforced, port_set: u32, old: Ban, now: Now) -> Ban {
        let end = if port_set == 0 { enforced.all } else { enforced.all.max(enforced.scoped) };
        let seconds = now.wall_of(end).map_or(u64::MAX, |wall| {
            u64::try_from(wall.as_millisecond()).unwrap_or(0).div_ceil(1_000)
        });
        let scoped = if port_set == 0 { Boot(0) } else { enforced.scoped };
        Ban {
            ends_jiffies: self.clock.jiffies_of(enforced.all),
            ports_end_jiffies: self.clock.jiffies_of(scoped),
            packets: old.packets,
            bytes: old.bytes,
            ends_unix: seconds,
            port_set,
            prefix: prefix.prefix_len().into(),
        }
    }

    /// Adds to what a ban counts, if it is held.
    ///
    /// # Errors
    /// If a map cannot be read or written.
    pub(super) fn count(&mut self, key: Key, more: Hits) -> Result<(), Error> {
        let Some(mut ban) = self.tables.get(&key)? else { return Ok(()) };
        ban.packets = ban.packets.saturating_add(more.packets);
        ban.bytes = ban.bytes.saturating_add(more.bytes);
        let mut entries = Entries::default();
        entries.push(key, ban);
        self.tables.set(&entries, |_, _, _| {})
    }

    /// Counters of `prefixes`, in their order.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub(super) fn hits(&self, prefixes: &[IpNet]) -> Result<Vec<Hits>, Error> {
        let hits = |prefix: &IpNet| {
            let ban = self.tables.get(&Key::of(*prefix))?.unwrap_or_default();
            Ok(Hits { packets: ban.packets, bytes: ban.bytes })
        };
        prefixes.iter().map(hits).collect()
    }

    /// Returns what is enforced for each of `prefixes`; `None` where something was missing, its
    /// bits in the gate included, which are set then.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub(super) fn holds(&mut self, prefixes: &[IpNet]) -> Result<Vec<Option<Enforced>>, Error> {
        self.gate_v4.prepare(prefixes.len());
        self.gate_v6.prepare(prefixes.len());
        let held = prefixes.iter().map(|prefix| self.hold(*prefix)).collect();
        self.rest();
        held
    }

    fn hold(&mut self, prefix: IpNet) -> Result<Option<Enforced>, Error> {
        let shut = match prefix {
            IpNet::V4(net) => self.gate_v4.mend(net),
            IpNet::V6(net) => self.gate_v6.mend(net),
        };
        let Some(ban) = self.tables.get(&Key::of(prefix))? else { return Ok(None) };
        Ok((!shut).then(|| Enforced {
            all: self.clock.boot_of(ban.ends_jiffies),
            scoped: self.clock.boot_of(ban.ports_end_jiffies),
            ports: self.sets.ports(ban.port_set),
        }))
    }

    /// Returns the prefixes of `count` more entries, our own or not.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub(super) fn sweep(&self, sweep: &mut Sweep, count: usize) -> Result<Vec<IpNet>, Error> {
        let found = self.tables.sweep(sweep, count)?;
        if sweep.is_over() {
            self.show_counts();
        }
        Ok(found.into_iter().filter_map(Key::prefix).collect())
    }

    /// Returns whether the allow list is this one.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub(super) fn allows(&mut self, prefixes: &[IpNet]) -> Result<bool, Error> {
        let (v4, v6) = allow_keys(prefixes);
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let same = self.controls.known_allowed() == (number(v4.len()), number(v6.len()))
            && holds_only(&self.allow_v4, v4)?
            && holds_only(&self.allow_v6, v6)?;
        if !same {
            // what we knew is not so: it has to be read
            (self.allowed_v4, self.allowed_v6) = (None, None);
        }
        Ok(same)
    }

    /// Shows `visit` everything that is held.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub(super) fn each_held(&mut self, now: Now, visit: &mut dyn FnMut(Held)) -> Result<(), Error> {
        let clock = self.clock;
        self.each_known(|sets, key, ban| {
            let Some(prefix) = key.prefix() else { return };
            let enforced = Enforced {
                all: clock.boot_of(ban.ends_jiffies),
                scoped: clock.boot_of(ban.ports_end_jiffies),
                ports: sets.ports(ban.port_set),
            };
            visit(Held {
                prefix,
                until: now.wall_of(enforced.all.max(enforced.scoped)),
                enforced,
                hits: Hits { packets: ban.packets, bytes: ban.bytes },
            });
        })
    }

    /// Replaces the allow list: what is new comes before what is old goes. Only what differs is
    /// written: a list may be long, and changes with every SSH session.
    ///
    /// # Errors
    /// If a map cannot be written.
    pub(super) fn allow(&mut self, prefixes: &[IpNet]) -> Result<(), Error> {
        let (v4, v6) = allow_keys(prefixes);
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let (new_v4, new_v6) = (number(v4.len()), number(v6.len()));
        let (old_v4, old_v6) = self.controls.known_allowed();
        // whatever fails: the program looks for what may be there
        self.controls.allowed(old_v4.max(new_v4), old_v6.max(new_v6));
        let v4 = replace(&self.allow_v4, v4, &mut self.allowed_v4);
        let v6 = replace(&self.allow_v6, v6, &mut self.allowed_v6);
        v4.and(v6)?;
        self.controls.allowed(new_v4, new_v6);
        Ok(())
    }

    /// Panics unless every port set has as many users as there are bans that name it; `there`: those
    /// that the tables themselves name.
    #[cfg(test)]
    pub(super) fn check_sets(&self, there: &[u32]) {
        let mut users = vec![0; PORT_SETS as usize];
        let unsure = self.unsure.values().flatten().copied();
        let known = self.tables.sets().into_iter().map(u32::from);
        known.chain(unsure).for_each(|set| users[set as usize] += 1);
        let counted = self.sets.all_users();
        for (at, users) in users.iter().enumerate().skip(1) {
            let counted = counted.get(at - 1).copied().unwrap_or(0);
            assert_eq!(counted, *users, "users of port set {at}");
            let named = there.iter().any(|set| *set as usize == at);
            assert!(!named || counted > 0, "port set {at} is free, and a ban in the maps names it");
        }
    }

    /// Returns how many bans of a family fit.
    #[must_use]
    pub(super) fn capacity(&self) -> u32 {
        self.tables.capacity()
    }
}

/// Returns the keys of an allow list.
fn allow_keys(prefixes: &[IpNet]) -> (HashSet<AllowV4>, HashSet<LpmV6>) {
    let (mut v4, mut v6) = (HashSet::new(), HashSet::new());
    for prefix in prefixes {
        match prefix {
            IpNet::V4(net) => _ = v4.insert(AllowV4::new(*net)),
            IpNet::V6(net) => _ = v6.insert(LpmV6::new(*net)),
        }
    }
    (v4, v6)
}

fn holds_only<K: MapKey>(table: &impl Raw<K, u32>, mut wanted: HashSet<K>) -> Result<bool, Error> {
    let mut last = None;
    while let Some(key) = table.next_key(last.as_ref())? {
        if !wanted.remove(&key) {
            return Ok(false);
        }
        last = Some(key);
    }
    Ok(wanted.is_empty())
}

/// Returns the last op of each prefix: it says all.
fn last_of_each(ops: &[Op]) -> Vec<(IpNet, &Enforced)> {
    let sets = ops.iter().filter_map(|op| match op {
        Op::Set(prefix, enforced) => Some((*prefix, enforced)),
        Op::Clear(_) => None,
    });
    // as the parts of a list come
    if ops.is_sorted_by(|a, b| a.prefix() < b.prefix()) {
        return sets.collect();
    }
    let mut at = HashMap::with_capacity(ops.len());
    let mut last: Vec<(IpNet, &Enforced)> = Vec::with_capacity(ops.len());
    for (prefix, enforced) in sets {
        match at.get(&prefix).and_then(|at: &usize| last.get_mut(*at)) {
            Some(earlier) => earlier.1 = enforced,
            None => {
                at.insert(prefix, last.len());
                last.push((prefix, enforced));
            }
        }
    }
    last
}

/// Has `table` hold `wanted`; `known`: what it holds, if that is known.
fn replace<K: MapKey>(
    table: &impl Raw<K, u32>,
    wanted: HashSet<K>,
    known: &mut Option<HashSet<K>>,
) -> Result<(), Error> {
    // after a failure it has to be read
    let there = match known.take() {
        Some(there) => there,
        None => {
            let mut there = HashSet::new();
            table.each(&mut |key, _| _ = there.insert(key))?;
            there
        }
    };
    let new: Vec<K> = wanted.difference(&there).copied().collect();
    table.set_all(&new, &vec![1; new.len()])?;
    let old: Vec<K> = there.difference(&wanted).copied().collect();
    table.remove_all(&old)?;
    *known = Some(wanted);
    Ok(())
}

fn map_error(name: &'static str, source: aya::maps::MapError) -> Error {
    Error::Map { name, source: Box::new(source) }
}

impl<G: Backend> std::fmt::Debug for Maps<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maps").field("prefix_counts", &self.prefix_counts).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ban_common::Verdict;

    use super::super::{DataPlane as _, Double};
    use super::*;
    use crate::net::{parse_ports, parse_prefix};

    const HOUR: Boot = Boot(3_600_000);

    fn now() -> Now {
        Now { boot: Boot(1_000), wall: jiff::Timestamp::UNIX_EPOCH }
    }

    fn scoped(prefix: &str, ports: &str, until: u64) -> Op {
        let ports = parse_ports(ports).unwrap();
        let enforced = Enforced { all: Boot(0), scoped: Boot(until), ports };
        Op::Set(parse_prefix(prefix).unwrap(), enforced)
    }

    fn drops(double: &Double, source: &str, port: u16) -> bool {
        let to = Some((crate::net::Proto::Tcp, port));
        double.judge(0, source.parse().unwrap(), to, Boot(2_000)) == Verdict::Drop
    }

    fn double() -> Double {
        Double::new(1, 1_000, PathBuf::new())
    }

    #[test]
    fn a_prefix_that_is_written_twice_at_once_takes_no_ports_from_another() {
        let mut double = double();
        let both = [scoped("192.0.2.1", "tcp/22", HOUR.0), scoped("192.0.2.2", "tcp/22", HOUR.0)];
        double.apply(&both, now()).unwrap();
        let twice = [
            scoped("192.0.2.2", "tcp/22,80", HOUR.0),
            scoped("192.0.2.2", "tcp/22,80", HOUR.0 + 1_000),
        ];
        double.apply(&twice, now()).unwrap();
        double.check();
        double.apply(&[scoped("192.0.2.3", "tcp/25", HOUR.0)], now()).unwrap();
        double.check();
        assert!(drops(&double, "192.0.2.1", 22), "its ports are another's now");
        assert!(!drops(&double, "192.0.2.1", 25));
        assert!(drops(&double, "192.0.2.2", 80) && drops(&double, "192.0.2.3", 25));
    }

    #[test]
    fn steps_that_fail_leak_no_port_set() {
        let ops = [
            scoped("192.0.2.1", "tcp/22", HOUR.0),
            scoped("192.0.2.2", "tcp/25", HOUR.0),
            scoped("10.0.0.0/8", "tcp/25", HOUR.0),
            scoped("2001:db8::/64", "tcp/80", HOUR.0),
        ];
        let clear: Vec<Op> = ops.iter().map(|op| Op::Clear(op.prefix())).collect();
        for (after, times) in (0..24).flat_map(|after| (1..6).map(move |times| (after, times))) {
            let mut double = double();
            double.apply(&[scoped("192.0.2.1", "tcp/443", HOUR.0)], now()).unwrap();
            double.faults().set(after, times);
            let mut tries = 0;
            while double.apply(&ops, now()).is_err() {
                double.check();
                tries += 1;
            }
            double.check();
            assert!(tries <= times, "{after} {times}");
            assert!(drops(&double, "192.0.2.1", 22) && drops(&double, "2001:db8::9", 80));
            double.faults().set(after, times);
            while double.apply(&clear, now()).is_err() {
                double.check();
            }
            double.check();
            assert!(!drops(&double, "192.0.2.1", 22) && !drops(&double, "10.1.1.1", 25));
        }
    }

    #[test]
    fn too_many_port_lists_at_once_leak_none() {
        let mut double = double();
        let sets = |from: u32| (from..from + 90).map(|n| (format!("10.0.0.{n}"), 1_000 + n));
        let ops: Vec<Op> =
            sets(0).map(|(prefix, port)| scoped(&prefix, &format!("tcp/{port}"), HOUR.0)).collect();
        double.apply(&ops, now()).unwrap();
        let more: Vec<Op> = sets(100)
            .map(|(prefix, port)| scoped(&prefix, &format!("tcp/{port}"), HOUR.0))
            .collect();
        for _ in 0..3 {
            double.apply(&more, now()).unwrap_err();
            double.check();
        }
        assert!(drops(&double, "10.0.0.1", 1_001), "those before keep their ports");
    }

    #[test]
    fn a_clock_that_could_not_be_written_at_once_is_not_applied_twice() {
        let mut double = double();
        let ops: Vec<Op> =
            (0..9).map(|n| scoped(&format!("10.0.0.{n}"), "tcp/22", HOUR.0)).collect();
        double.apply(&ops, now()).unwrap();
        let before: Vec<_> = double.held().unwrap();
        assert!(double.sleeps(10_000, 5), "must fail at first");
        let mut after = double.held().unwrap();
        after.sort_by_key(|held| held.prefix);
        for (before, after) in before.iter().map(|held| held.enforced.scoped).zip(after) {
            assert!(after.enforced.scoped.0.abs_diff(before.0) < 20, "{before:?} {after:?}");
        }
    }

    #[test]
    fn what_somebody_took_away_or_put_there_is_counted_right() {
        let mut double = double();
        let ops = [
            scoped("10.0.0.0/8", "tcp/22", HOUR.0),
            scoped("192.0.2.0/25", "tcp/22", HOUR.0),
            scoped("2001:db8::/64", "tcp/22", HOUR.0),
        ];
        double.apply(&ops, now()).unwrap();
        let put = double.drift("192.0.2.0/25", "198.51.100.0/25");
        assert!(put, "there was an entry to move");
        double.held().unwrap();
        double.check();
        assert!(drops(&double, "198.51.100.1", 22), "it has no gate");
        double.apply(&[Op::Clear(parse_prefix("198.51.100.0/25").unwrap())], now()).unwrap();
        double.check();
        assert!(drops(&double, "10.1.1.1", 22), "the trie is not looked into any more");
        double.apply(&ops, now()).unwrap();
        double.check();
        assert!(drops(&double, "192.0.2.1", 22));
    }
}
