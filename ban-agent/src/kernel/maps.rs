//! Brings the maps in line with the ledger's ops, and reads them back.
//!
//! Order is what keeps law 1: a ban's entry is written before its gate bit, and the ban is
//! acknowledged after both; when it goes, the entry goes before the bit.

use ban_common::{Ban, Count, GATE_WORDS, PortSet, ROWS, SITE_LENGTHS, SLOTS, Verdict};

use super::{
    Held, Hits, Verdicts,
    batch::{Table, check_layout},
    clock::JiffyClock,
    error::Error,
    gates::{GateV4, GateV6},
    load::Loaded,
    ports::PortSets,
    settings::{Controls, Known},
    tables::{AllowV4, Entries, Key, LpmV6, Tables},
    words::{GateWords, duplicate},
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
pub(super) struct Maps {
    tables: Tables,
    gate_v4: GateV4<GateWords>,
    gate_v6: GateV6<GateWords>,
    known: Known,
    sets: PortSets,
    port_sets: Table<u32, PortSet>,
    allow_v4: Table<AllowV4, u32>,
    allow_v6: Table<LpmV6, u32>,
    verdicts: aya::maps::PerCpuArray<aya::maps::MapData, Count>,
    /// The settings.
    pub(super) controls: Controls,
    /// How deadlines are written.
    pub(super) clock: JiffyClock,
}

impl Known {
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
    /// The maps that `loaded` uses, with everything that is in them already: gates computed
    /// anew, deadlines converted if the machine slept since they were written.
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
        let mut maps = Maps {
            tables: Tables::new(loaded)?,
            gate_v4: GateV4::new(GateWords::new("gate_v4", loaded.map("gate_v4")?, GATE)?),
            gate_v6: GateV6::new(GateWords::new("gate_v6", loaded.map("gate_v6")?, GATE)?),
            known: Known::default(),
            sets: PortSets::default(),
            port_sets: Table::new("port_sets", loaded.map("port_sets")?)?,
            allow_v4: Table::new("allow_v4", loaded.map("allow_v4")?)?,
            allow_v6: Table::new("allow_v6", loaded.map("allow_v6")?)?,
            verdicts,
            controls: Controls::new(loaded)?,
            clock,
        };
        maps.adopt()?;
        Ok(maps)
    }

    /// Takes over what is in the maps.
    fn adopt(&mut self) -> Result<(), Error> {
        let (known, gate_v4, gate_v6) = (&mut self.known, &mut self.gate_v4, &mut self.gate_v6);
        let mut unread = None;
        self.tables.each(|key, ban| {
            match key.prefix() {
                Some(IpNet::V4(net)) => gate_v4.note(net),
                Some(IpNet::V6(net)) => _ = gate_v6.note(net),
                None => {}
            }
            known.add(&key);
            let set = self.sets.adopt(ban.port_set, || self.port_sets.get(&ban.port_set));
            unread = unread.take().or(set.err());
        })?;
        unread.map_or(Ok(()), Err)?;
        self.show_counts();
        self.gate_v4.rewrite();
        self.gate_v6.rewrite();
        self.rest();
        let noted = self.controls.noted_clock(&self.clock);
        if let Some(noted) = noted
            && self.clock.differs(&noted)
        {
            self.rewrite_deadlines(&noted)?;
        }
        self.controls.clock(&self.clock);
        Ok(())
    }

    fn show_counts(&self) {
        self.controls.counts(&self.known);
        self.controls.scoped(self.sets.users());
    }

    /// Moves to another measurement of the clocks: every deadline is written again.
    ///
    /// # Errors
    /// If a map cannot be written.
    pub(super) fn set_clock(&mut self, clock: JiffyClock) -> Result<(), Error> {
        let old = std::mem::replace(&mut self.clock, clock);
        self.rewrite_deadlines(&old)?;
        self.controls.clock(&self.clock);
        Ok(())
    }

    fn rewrite_deadlines(&mut self, old: &JiffyClock) -> Result<(), Error> {
        let mut entries = Entries::default();
        let convert = |deadline| old.convert(deadline, &self.clock);
        self.tables.each(|key, ban| {
            let ends_jiffies = convert(ban.ends_jiffies);
            let ports_end_jiffies = convert(ban.ports_end_jiffies);
            entries.push(key, Ban { ends_jiffies, ports_end_jiffies, ..ban });
        })?;
        self.tables.set(&entries, |_| {})
    }

    /// Applies `ops` in order.
    ///
    /// # Errors
    /// The first failure; earlier ops stay applied.
    pub(super) fn apply(&mut self, ops: &[Op], now: Now) -> Result<(), Error> {
        self.gate_v4.prepare(ops.len());
        self.gate_v6.prepare(ops.len());
        let applied = self.apply_all(ops, now);
        self.rest();
        applied
    }

    fn rest(&mut self) {
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
        let mut released = Vec::new();
        let mut taken = Vec::new();
        for op in ops {
            let Op::Set(prefix, enforced) = op else { continue };
            let key = Key::of(*prefix);
            let old = self.tables.get(&key)?.unwrap_or_default();
            released.push(old.port_set);
            let port_set = self.take_ports(enforced)?;
            taken.push(port_set);
            entries.push(key, self.ban(*prefix, enforced, port_set, old, now));
        }
        let (known, gate_v4, gate_v6) = (&mut self.known, &mut self.gate_v4, &mut self.gate_v6);
        let mut fresh = Vec::new();
        let written = self.tables.set(&entries, |key| fresh.push(key));
        fresh.iter().for_each(|key| known.add(key));
        self.controls.counts(known);
        self.controls.scoped(self.sets.users());
        for key in fresh {
            match key.prefix() {
                Some(IpNet::V4(net)) => gate_v4.add(net),
                Some(IpNet::V6(net)) => gate_v6.add(net),
                None => {}
            }
        }
        let unused = if written.is_ok() { released } else { taken };
        unused.into_iter().for_each(|number| self.sets.release(number));
        written
    }

    fn clear(&mut self, ops: &[Op]) -> Result<(), Error> {
        let mut keys = Vec::with_capacity(ops.len());
        for op in ops {
            let Op::Clear(prefix) = op else { continue };
            let key = Key::of(*prefix);
            if self.sets.users() > 0
                && let Some(ban) = self.tables.get(&key)?
            {
                self.sets.release(ban.port_set);
            }
            keys.push(key);
        }
        let (known, gate_v4, gate_v6) = (&mut self.known, &mut self.gate_v4, &mut self.gate_v6);
        let result = self.tables.remove(&keys, |key| {
            known.remove(&key);
            match key.prefix() {
                Some(IpNet::V4(net)) => gate_v4.remove(net),
                Some(IpNet::V6(net)) => gate_v6.remove(net),
                None => {}
            }
        });
        self.show_counts();
        result
    }

    fn take_ports(&mut self, enforced: &Enforced) -> Result<u32, Error> {
        if enforced.scoped == Boot(0) || enforced.ports.is_empty() {
            return Ok(0);
        }
        let (number, entry) = self.sets.take(&enforced.ports)?;
        if let Some(set) = entry {
            self.port_sets.set(&number, &set)?;
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
        self.tables.set(&entries, |_| {})
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

    /// Shows `visit` everything that is held.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub(super) fn each_held(&mut self, now: Now, visit: &mut dyn FnMut(Held)) -> Result<(), Error> {
        self.tables.each(|key, ban| {
            let Some(prefix) = key.prefix() else { return };
            let enforced = Enforced {
                all: self.clock.boot_of(ban.ends_jiffies),
                scoped: self.clock.boot_of(ban.ports_end_jiffies),
                ports: self.sets.ports(ban.port_set),
            };
            visit(Held {
                prefix,
                until: now.wall_of(enforced.all.max(enforced.scoped)),
                enforced,
                hits: Hits { packets: ban.packets, bytes: ban.bytes },
            });
        })
    }

    /// Replaces the allow list: what is new comes before what is old goes.
    ///
    /// # Errors
    /// If a map cannot be written.
    pub(super) fn allow(&mut self, prefixes: &[IpNet]) -> Result<(), Error> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            match prefix {
                IpNet::V4(net) => v4.push(AllowV4::new(*net)),
                IpNet::V6(net) => v6.push(LpmV6::new(*net)),
            }
        }
        replace(&self.allow_v4, &v4)?;
        replace(&self.allow_v6, &v6)?;
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        self.controls.allowed(number(v4.len()), number(v6.len()));
        Ok(())
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

    /// How many bans of a family fit.
    #[must_use]
    pub(super) fn capacity(&self) -> u32 {
        self.tables.capacity()
    }
}

fn replace<K: aya::Pod + Default + Eq + std::hash::Hash>(
    table: &Table<K, u32>,
    keys: &[K],
) -> Result<(), Error> {
    table.set_all(keys, &vec![1; keys.len()])?;
    let wanted: std::collections::HashSet<&K> = keys.iter().collect();
    let there = table.all()?;
    let old: Vec<K> =
        there.into_iter().map(|(key, _)| key).filter(|key| !wanted.contains(key)).collect();
    table.remove_all(&old)
}

fn map_error(name: &'static str, source: aya::maps::MapError) -> Error {
    Error::Map { name, source: Box::new(source) }
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maps").field("known", &self.known).finish_non_exhaustive()
    }
}
