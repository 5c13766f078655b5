//! The kernel side in memory, for tests: the real bookkeeping over raw tables that fail when they are
//! told to, several interfaces that may stand on different tables, and what the program makes of
//! a packet by what they hold, written down plainly from `ban-ebpf`.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use ban_common::{
    Ban, GATE_WORDS, PORT_SETS, PortSet, SITE_LENGTHS, Settings, Site, Verdict, gate_v4, gate_v6,
};

use super::{
    Ahead, Attached, DataPlane, Error, Held, Hits, Lifetime, Verdicts,
    clock::JiffyClock,
    gates::Bitmap,
    maps::{Maps, Parts},
    raw::{Backend, Cells, MapKey, Raw},
    resize::all_or_none,
    settings::Controls,
    tables::{AllowV4, Key, LpmV4, LpmV6, Sheets, Sweep, Tables},
};
use crate::{
    clock::{Boot, Now},
    ledger::{Enforced, Op},
    net::{IpNet, Proto},
};

/// When the tables refuse: from so many steps on, so many times.
#[derive(Clone, Debug)]
pub(crate) struct Faults(Arc<[AtomicU64; 2]>);

impl Faults {
    fn none() -> Faults {
        Faults(Arc::new([AtomicU64::new(0), AtomicU64::new(0)]))
    }

    /// After so many steps, so many refuse.
    pub(crate) fn set(&self, after: u64, times: u64) {
        let [steps, left] = &*self.0;
        steps.store(after, Ordering::Relaxed);
        left.store(times, Ordering::Relaxed);
    }

    /// A step that writes. Every other one that fails has written all the same.
    fn write(&self, name: &'static str, write: impl FnOnce()) -> Result<(), Error> {
        let [_, left] = &*self.0;
        let written = left.load(Ordering::Relaxed).is_multiple_of(2);
        let step = self.step(name);
        if step.is_ok() || written {
            write();
        }
        step
    }

    fn step(&self, name: &'static str) -> Result<(), Error> {
        let [steps, left] = &*self.0;
        let failures = left.load(Ordering::Relaxed);
        if failures == 0 {
            return Ok(());
        }
        match steps.load(Ordering::Relaxed) {
            0 => {
                left.store(failures - 1, Ordering::Relaxed);
                Err(Error::call("a step of a test", name, std::io::ErrorKind::OutOfMemory.into()))
            }
            some => {
                steps.store(some - 1, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}

/// One table; copies are the same one.
pub(super) struct SharedTable<K, V> {
    entries: Arc<Mutex<HashMap<K, V>>>,
    faults: Faults,
}

impl<K, V> Clone for SharedTable<K, V> {
    fn clone(&self) -> SharedTable<K, V> {
        SharedTable { entries: Arc::clone(&self.entries), faults: self.faults.clone() }
    }
}

impl<K: Eq + Hash + Copy, V: Clone> SharedTable<K, V> {
    fn new(faults: &Faults) -> SharedTable<K, V> {
        SharedTable { entries: Arc::default(), faults: faults.clone() }
    }

    fn look(&self) -> MutexGuard<'_, HashMap<K, V>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: K) -> Option<V> {
        self.look().get(&key).cloned()
    }

    fn copy_to(&self, other: &SharedTable<K, V>) {
        let all = self.look().clone();
        *other.look() = all;
    }
}

impl<K: MapKey, V: Clone> Raw<K, V> for SharedTable<K, V> {
    /// In the order of the hash map, which stays while nothing changes.
    fn next_key(&self, last: Option<&K>) -> Result<Option<K>, Error> {
        let entries = self.look();
        let mut keys = entries.keys().copied();
        if let Some(last) = last {
            keys.by_ref().find(|key| key == last);
        }
        Ok(keys.next())
    }

    fn get(&self, key: &K) -> Result<Option<V>, Error> {
        self.faults.step("get")?;
        Ok(self.find(*key))
    }

    fn set_all(&self, keys: &[K], values: &[V]) -> Result<(), Error> {
        for (key, value) in keys.iter().zip(values) {
            self.faults.write("set", || _ = self.look().insert(*key, value.clone()))?;
        }
        Ok(())
    }

    fn remove_all(&self, keys: &[K]) -> Result<(), Error> {
        for key in keys {
            self.faults.write("remove", || _ = self.look().remove(key))?;
        }
        Ok(())
    }

    fn each(&self, visit: &mut dyn FnMut(K, V)) -> Result<(), Error> {
        self.faults.step("each")?;
        let all: Vec<(K, V)> =
            self.look().iter().map(|(key, value)| (*key, value.clone())).collect();
        all.into_iter().for_each(|(key, value)| visit(key, value));
        Ok(())
    }
}

/// Words of a gate or of the settings; copies are the same ones.
#[derive(Clone)]
pub(super) struct SharedWords(Arc<[AtomicU64]>);

impl SharedWords {
    fn new(words: usize) -> SharedWords {
        SharedWords((0..words).map(|_| AtomicU64::new(0)).collect())
    }

    fn word(&self, index: usize) -> u64 {
        self.0[index].load(Ordering::Relaxed)
    }
}

impl Bitmap for SharedWords {
    fn get(&mut self, index: usize) -> u64 {
        self.word(index)
    }

    fn set(&mut self, index: usize, value: u64) {
        self.0[index].store(value, Ordering::Relaxed);
    }
}

impl Cells for SharedWords {
    fn get(&self, index: usize) -> u64 {
        self.word(index)
    }

    fn set(&self, index: usize, value: u64) {
        self.0[index].store(value, Ordering::Relaxed);
    }
}

/// Memory in place of the kernel.
pub(super) struct Paper;

impl Backend for Paper {
    type Table<K: MapKey, V: aya::Pod + Default + Send> = SharedTable<K, V>;
    type Bitmap = SharedWords;
    type Cells = SharedWords;
    type Verdicts = ();
}

/// What one program reads.
#[derive(Clone)]
struct Raws {
    v4: SharedTable<[u8; 4], Ban>,
    net_v4: SharedTable<LpmV4, Ban>,
    v6: SharedTable<[u8; 16], Ban>,
    site: SharedTable<Site, Ban>,
    net_v6: SharedTable<LpmV6, Ban>,
    allow_v4: SharedTable<AllowV4, u32>,
    allow_v6: SharedTable<LpmV6, u32>,
    port_sets: SharedTable<u32, PortSet>,
    gate_v4: SharedWords,
    gate_v6: SharedWords,
    settings: SharedWords,
    max_bans: u32,
}

/// Where a packet goes, if it has a port.
pub(crate) type To = Option<(Proto, u16)>;

impl Raws {
    fn new(max_bans: u32, faults: &Faults) -> Raws {
        Raws {
            v4: SharedTable::new(faults),
            net_v4: SharedTable::new(faults),
            v6: SharedTable::new(faults),
            site: SharedTable::new(faults),
            net_v6: SharedTable::new(faults),
            allow_v4: SharedTable::new(faults),
            allow_v6: SharedTable::new(faults),
            port_sets: SharedTable::new(faults),
            gate_v4: SharedWords::new(GATE_WORDS),
            gate_v6: SharedWords::new(GATE_WORDS),
            settings: SharedWords::new(size_of::<Settings>() / 8),
            max_bans,
        }
    }

    /// Of another size: those that have one are new.
    fn resized(&self, max_bans: u32, faults: &Faults) -> Raws {
        let new = Raws {
            v4: SharedTable::new(faults),
            net_v4: SharedTable::new(faults),
            v6: SharedTable::new(faults),
            site: SharedTable::new(faults),
            net_v6: SharedTable::new(faults),
            allow_v4: SharedTable::new(faults),
            allow_v6: SharedTable::new(faults),
            max_bans,
            ..self.clone()
        };
        self.v4.copy_to(&new.v4);
        self.net_v4.copy_to(&new.net_v4);
        self.v6.copy_to(&new.v6);
        self.site.copy_to(&new.site);
        self.net_v6.copy_to(&new.net_v6);
        self.allow_v4.copy_to(&new.allow_v4);
        self.allow_v6.copy_to(&new.allow_v6);
        new
    }

    fn maps(&self, clock: JiffyClock) -> Result<Maps<Paper>, Error> {
        let all = self.clone();
        let sheets = Sheets {
            v4: all.v4,
            net_v4: all.net_v4,
            v6: all.v6,
            site: all.site,
            net_v6: all.net_v6,
        };
        let parts = Parts {
            tables: Tables::over(sheets, self.max_bans),
            gate_v4: all.gate_v4,
            gate_v6: all.gate_v6,
            port_sets: all.port_sets,
            allow_v4: all.allow_v4,
            allow_v6: all.allow_v6,
            verdicts: (),
            settings: Controls(all.settings),
        };
        Maps::over(parts, clock)
    }

    /// Returns the port set of each ban that is in the tables.
    fn sets(&self) -> Vec<u32> {
        fn of<K>(sheet: &SharedTable<K, Ban>, sets: &mut Vec<u32>) {
            let entries = sheet.entries.lock().unwrap_or_else(PoisonError::into_inner);
            sets.extend(entries.values().map(|ban| ban.port_set));
        }
        let mut sets = Vec::new();
        of(&self.v4, &mut sets);
        of(&self.net_v4, &mut sets);
        of(&self.v6, &mut sets);
        of(&self.site, &mut sets);
        of(&self.net_v6, &mut sets);
        sets
    }

    fn setting(&self, offset: usize) -> u32 {
        let word = self.settings.word(offset / 8).to_ne_bytes();
        let at = offset % 8;
        u32::from_ne_bytes(word[at..at + 4].try_into().unwrap())
    }

    /// Returns the program's verdict on a packet from `source`, as `gate.rs` and `bans.rs` reach
    /// it.
    fn judge(&self, source: IpAddr, to: To, now: u64) -> Verdict {
        match source {
            IpAddr::V4(source) => {
                let (word, bit) = gate_v4(source.into());
                if self.gate_v4.word(word as usize) & bit == 0 {
                    return Verdict::Clear;
                }
            }
            IpAddr::V6(source) => {
                let top = u64::from_ne_bytes(source.octets()[..8].try_into().unwrap());
                let (word, bits) = gate_v6(top);
                let open = self.gate_v6.word(word as usize) & bits == bits;
                if !open && self.setting(std::mem::offset_of!(Settings, wide_v6)) == 0 {
                    return Verdict::Clear;
                }
            }
        }
        let mut reason = Verdict::Unbanned;
        let held = self.around(source).into_iter().any(|ban| {
            let scoped = self.setting(std::mem::offset_of!(Settings, scoped)) != 0;
            match self.holds(&ban, to.filter(|_| scoped), now) {
                Ok(()) => true,
                Err(why) => {
                    reason = why;
                    false
                }
            }
        });
        if !held {
            return reason;
        }
        if self.is_allowed(source) { Verdict::Allowed } else { Verdict::Drop }
    }

    fn holds(&self, ban: &Ban, to: To, now: u64) -> Result<(), Verdict> {
        if now < ban.ends_jiffies {
            return Ok(());
        }
        if now >= ban.ports_end_jiffies {
            return Err(Verdict::Expired);
        }
        let Some((proto, port)) = to else { return Err(Verdict::OtherPort) };
        if ban.port_set == 0 || ban.port_set >= PORT_SETS {
            return Err(Verdict::OtherPort);
        }
        let set = self.port_sets.find(ban.port_set).unwrap_or_default();
        let words = match proto {
            Proto::Tcp => set.tcp,
            Proto::Udp => set.udp,
        };
        let bit = port.to_be();
        let within = words[usize::from(bit >> 6)] >> (bit & 63) & 1 == 1;
        if within { Ok(()) } else { Err(Verdict::OtherPort) }
    }

    /// Returns the bans around a source in the order in which they are asked.
    fn around(&self, source: IpAddr) -> Vec<Ban> {
        let mut found = Vec::new();
        match source {
            IpAddr::V4(address) => {
                found.extend(self.v4.find(address.octets()));
                if self.setting(std::mem::offset_of!(Settings, nets_v4)) != 0 {
                    found.extend(nets(&self.net_v4, Key::NetV4, source));
                }
            }
            IpAddr::V6(address) => {
                found.extend(self.v6.find(address.octets()));
                for (at, length) in SITE_LENGTHS.iter().enumerate() {
                    let count = std::mem::offset_of!(Settings, sites) + at * 4;
                    let wider = IpNet::new(source, u8::try_from(*length).unwrap()).unwrap();
                    if let Key::Site(key) = Key::of(wider.trunc())
                        && self.setting(count) != 0
                    {
                        found.extend(self.site.find(key));
                    }
                }
                if self.setting(std::mem::offset_of!(Settings, nets_v6)) != 0 {
                    found.extend(nets(&self.net_v6, Key::NetV6, source));
                }
            }
        }
        found
    }

    fn is_allowed(&self, source: IpAddr) -> bool {
        let contains = |net: IpNet| net.contains(&source);
        match source {
            IpAddr::V4(_) => {
                self.setting(std::mem::offset_of!(Settings, allow_v4)) != 0
                    && self.allow_v4.look().keys().any(|key| contains(key.prefix()))
            }
            IpAddr::V6(_) => {
                self.setting(std::mem::offset_of!(Settings, allow_v6)) != 0
                    && self
                        .allow_v6
                        .look()
                        .keys()
                        .any(|key| Key::NetV6(*key).prefix().is_some_and(contains))
            }
        }
    }
}

/// Returns what a trie holds around a source, the longest first.
fn nets<K: Copy + Eq + Hash>(
    trie: &SharedTable<K, Ban>,
    of: fn(K) -> Key,
    source: IpAddr,
) -> Vec<Ban> {
    let entries = trie.look();
    let around = entries.iter().filter_map(|(key, ban)| Some((of(*key).prefix()?, *ban)));
    let mut around: Vec<(IpNet, Ban)> = around.filter(|(net, _)| net.contains(&source)).collect();
    around.sort_by_key(|(net, _)| u8::MAX - net.prefix_len());
    around.into_iter().map(|(_, ban)| ban).collect()
}

/// What happens before a step; it may fail.
pub(crate) type Before = Box<dyn FnMut(Step<'_>, Now) -> anyhow::Result<()> + Send>;

/// A step of the agent.
pub(crate) enum Step<'o> {
    /// One change of the bans.
    Apply(&'o Op),
    /// Another allow list.
    Allow,
}

/// The whole kernel side. What is public the test changes behind the agent's back.
pub(crate) struct Double {
    maps: Maps<Paper>,
    /// What each interface's program reads; the first is what the pins lead to.
    programs: Vec<Raws>,
    faults: Faults,
    folder: PathBuf,
    /// Is asked before each step.
    pub(crate) before: Option<Before>,
    pub(crate) attached: Vec<Attached>,
    pub(crate) uncovered: Vec<String>,
    pub(crate) pin_trouble: Option<String>,
    pub(crate) dry_run: bool,
}

impl fmt::Debug for Double {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Double").finish_non_exhaustive()
    }
}

/// As of most kernels.
const CLOCK: JiffyClock =
    JiffyClock { tick_ns: 4_000_000, jiffies: 4_294_000_000, boot_ns: 0, slept_ns: 0 };

impl Double {
    /// On so many interfaces, for so many bans. Notes about the state file go to `folder`.
    pub(crate) fn new(interfaces: usize, max_bans: u32, folder: PathBuf) -> Double {
        let faults = Faults::none();
        let raws = Raws::new(max_bans, &faults);
        let maps = raws.maps(CLOCK).unwrap();
        let programs = vec![raws; interfaces.max(1)];
        Double {
            maps,
            programs,
            faults,
            folder,
            before: None,
            attached: Vec::new(),
            uncovered: Vec::new(),
            pin_trouble: None,
            dry_run: false,
        }
    }

    /// Returns when it fails.
    pub(crate) fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// What the agent knew is forgotten, and found out again from the tables.
    pub(crate) fn restart(&mut self) {
        self.faults.set(0, 0);
        self.maps = self.programs[0].maps(CLOCK).unwrap();
    }

    /// Returns whether all interfaces' programs read the tables that are written.
    pub(crate) fn is_one(&self) -> bool {
        let same = |raws: &Raws| Arc::ptr_eq(&raws.v4.entries, &self.programs[0].v4.entries);
        self.programs.iter().all(same)
    }

    /// Returns the verdict on a packet that comes in by `interface`.
    pub(crate) fn judge(&self, interface: usize, source: IpAddr, to: To, now: Boot) -> Verdict {
        let ms = i128::from(now.0) * 1_000_000 - i128::from(CLOCK.boot_ns);
        let ticks = ms.div_euclid(i128::from(CLOCK.tick_ns));
        let jiffies = u64::try_from(i128::from(CLOCK.jiffies) + ticks).unwrap();
        self.programs[interface].judge(source, to, jiffies)
    }

    /// The machine sleeps for so long, of which the ticks know nothing; not all deadlines can be
    /// written again at once. Whether that was so.
    pub(crate) fn sleeps(&mut self, ms: u64, after: u64) -> bool {
        let slept = JiffyClock { boot_ns: CLOCK.boot_ns + ms * 1_000_000, ..CLOCK };
        self.faults.set(after, 1);
        let failed = self.maps.set_clock(slept).is_err();
        self.maps.set_clock(slept).unwrap();
        failed
    }

    /// Moves an entry behind the agent's back.
    pub(crate) fn drift(&mut self, from: &str, to: &str) -> bool {
        let key = |text: &str| Key::of(crate::net::parse_prefix(text).unwrap());
        let (Key::NetV4(from), Key::NetV4(to)) = (key(from), key(to)) else { return false };
        let moved = self.programs[0].net_v4.look().remove(&from);
        moved.is_some_and(|ban| self.programs[0].net_v4.look().insert(to, ban).is_none())
    }

    /// From now on no step is taken, for this reason.
    pub(crate) fn refuse(&mut self, why: &'static str) {
        self.before = Some(Box::new(move |_: Step<'_>, _| anyhow::bail!(why)));
    }

    /// Takes all bans out of the tables, as another process may.
    pub(crate) fn plunder(&mut self) {
        let Raws { v4, net_v4, v6, site, net_v6, .. } = &self.programs[0];
        v4.look().clear();
        net_v4.look().clear();
        v6.look().clear();
        site.look().clear();
        net_v6.look().clear();
    }

    /// The machine starts anew, with empty tables.
    pub(crate) fn reboot(&mut self) {
        let raws = Raws::new(self.programs[0].max_bans, &self.faults);
        self.programs = vec![raws; self.programs.len()];
        self.restart();
    }

    /// Panics if the bookkeeping contradicts itself.
    pub(crate) fn check(&self) {
        self.maps.check_sets(&self.programs[0].sets());
    }
}

impl DataPlane for Double {
    fn apply(&mut self, ops: &[Op], now: Now) -> anyhow::Result<()> {
        let Some(before) = &mut self.before else { return Ok(self.maps.apply(ops, now)?) };
        for op in ops {
            before(Step::Apply(op), now)?;
            self.maps.apply(std::slice::from_ref(op), now)?;
        }
        Ok(())
    }

    fn hits(&mut self, prefixes: &[IpNet]) -> anyhow::Result<Vec<Hits>> {
        Ok(self.maps.hits(prefixes)?)
    }

    fn each_held(&mut self, visit: &mut dyn FnMut(Held)) -> anyhow::Result<()> {
        Ok(self.maps.each_held(Now::read(), visit)?)
    }

    fn holds(&mut self, prefixes: &[IpNet]) -> anyhow::Result<Vec<Option<Enforced>>> {
        Ok(self.maps.holds(prefixes)?)
    }

    fn sweep(&mut self, sweep: &mut Sweep, count: usize) -> anyhow::Result<Vec<IpNet>> {
        Ok(self.maps.sweep(sweep, count)?)
    }

    fn allows(&mut self, prefixes: &[IpNet]) -> anyhow::Result<bool> {
        Ok(self.maps.allows(prefixes)?)
    }

    fn allow(&mut self, prefixes: &[IpNet]) -> anyhow::Result<()> {
        if let Some(before) = &mut self.before {
            before(Step::Allow, Now::read())?;
        }
        Ok(self.maps.allow(prefixes)?)
    }

    fn interfaces(&self) -> Vec<&Attached> {
        self.attached.iter().collect()
    }

    fn check_interfaces(&mut self) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    fn pin_trouble(&self) -> Option<&str> {
        self.pin_trouble.as_deref()
    }

    fn uncovered(&self) -> &[String] {
        &self.uncovered
    }

    fn set_lifetime(&mut self, _: Lifetime) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    /// As the real one goes about it, and swaps by the real `all_or_none`.
    fn resize(&mut self, max_bans: u32) -> Result<bool, Error> {
        let old = self.programs[0].clone();
        if old.max_bans == max_bans {
            return Ok(false);
        }
        let v4 = old.v4.look().len() + old.net_v4.look().len();
        let v6 = old.v6.look().len() + old.site.look().len() + old.net_v6.look().len();
        if v4.max(v6) > max_bans as usize {
            return Ok(false);
        }
        let new = old.resized(max_bans, &self.faults);
        let maps = new.maps(CLOCK)?;
        let faults = &self.faults;
        all_or_none(
            &mut self.programs,
            |program| {
                faults.step("swap")?;
                *program = new.clone();
                Ok(())
            },
            |program| {
                *program = old.clone();
                Ok(())
            },
        )?;
        self.maps = maps;
        Ok(true)
    }

    fn capacity(&self) -> u32 {
        self.programs[0].max_bans
    }

    fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    fn set_sampling(&self, _: u32) {}

    fn verdicts(&self, _: Option<&Attached>) -> Result<Verdicts, Error> {
        Ok(Verdicts::default())
    }

    fn ahead(&self) -> Ahead {
        Ahead::at(&self.folder)
    }

    fn detach(self: Box<Self>) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }
}

/// The agent's way to a kernel side that the test goes on holding.
pub(crate) struct Wire<K> {
    side: Arc<Mutex<K>>,
    /// As of the last look, for who asks by reference.
    attached: Vec<Attached>,
    uncovered: Vec<String>,
    pin_trouble: Option<String>,
}

impl<K: DataPlane> Wire<K> {
    pub(crate) fn to(side: &Arc<Mutex<K>>) -> Wire<K> {
        let mut wire = Wire {
            side: Arc::clone(side),
            attached: Vec::new(),
            uncovered: Vec::new(),
            pin_trouble: None,
        };
        wire.read();
        wire
    }

    fn side(&self) -> MutexGuard<'_, K> {
        self.side.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&mut self) {
        let side = self.side.lock().unwrap_or_else(PoisonError::into_inner);
        self.attached = side.interfaces().into_iter().cloned().collect();
        self.uncovered = side.uncovered().to_vec();
        self.pin_trouble = side.pin_trouble().map(str::to_owned);
    }
}

impl<K: DataPlane> DataPlane for Wire<K> {
    fn apply(&mut self, ops: &[Op], now: Now) -> anyhow::Result<()> {
        self.side().apply(ops, now)
    }

    fn hits(&mut self, prefixes: &[IpNet]) -> anyhow::Result<Vec<Hits>> {
        self.side().hits(prefixes)
    }

    fn each_held(&mut self, visit: &mut dyn FnMut(Held)) -> anyhow::Result<()> {
        self.side().each_held(visit)
    }

    fn holds(&mut self, prefixes: &[IpNet]) -> anyhow::Result<Vec<Option<Enforced>>> {
        self.side().holds(prefixes)
    }

    fn sweep(&mut self, sweep: &mut Sweep, count: usize) -> anyhow::Result<Vec<IpNet>> {
        self.side().sweep(sweep, count)
    }

    fn allows(&mut self, prefixes: &[IpNet]) -> anyhow::Result<bool> {
        self.side().allows(prefixes)
    }

    fn allow(&mut self, prefixes: &[IpNet]) -> anyhow::Result<()> {
        self.side().allow(prefixes)
    }

    fn interfaces(&self) -> Vec<&Attached> {
        self.attached.iter().collect()
    }

    fn check_interfaces(&mut self) -> Result<Vec<String>, Error> {
        let changes = self.side().check_interfaces();
        self.read();
        changes
    }

    fn look(&mut self) -> Result<Vec<String>, Error> {
        let changes = self.side().look();
        self.read();
        changes
    }

    fn pin_trouble(&self) -> Option<&str> {
        self.pin_trouble.as_deref()
    }

    fn uncovered(&self) -> &[String] {
        &self.uncovered
    }

    fn set_lifetime(&mut self, wanted: Lifetime) -> Result<Vec<String>, Error> {
        self.side().set_lifetime(wanted)
    }

    fn resize(&mut self, max_bans: u32) -> Result<bool, Error> {
        self.side().resize(max_bans)
    }

    fn capacity(&self) -> u32 {
        self.side().capacity()
    }

    fn is_dry_run(&self) -> bool {
        self.side().is_dry_run()
    }

    fn set_sampling(&self, every: u32) {
        self.side().set_sampling(every);
    }

    fn verdicts(&self, _: Option<&Attached>) -> Result<Verdicts, Error> {
        Ok(Verdicts::default())
    }

    fn ahead(&self) -> Ahead {
        self.side().ahead()
    }

    fn detach(self: Box<Self>) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }
}
