//! The maps, by the names under which they are pinned. Sizes are what the loader starts from.

use aya_ebpf::{
    Global,
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf},
    macros::btf_map,
};
use ban_common::{
    Ban, Count, Event, GATE_WORDS, NetV4, PORT_SETS, PortSet, ROWS, SLOTS, Settings, Site,
};

const BANS: usize = ban_common::DEFAULT_BANS as usize;
const NETS: usize = 65_536;
const ALLOWED: usize = ban_common::ALLOWED as usize;
/// `BPF_F_MMAPABLE`.
const MMAP: usize = 1 << 10;
/// `BPF_F_NO_PREALLOC`: costs no memory until it is used, and an entry lies in memory that the
/// kernel maps by large pages, where a lookup does not wait for the page table as well.
const NO_PREALLOC: usize = 1;

/// Banned IPv4 addresses.
#[btf_map(name = "ban_v4")]
pub(crate) static BAN_V4: HashMap<[u8; 4], Ban, BANS, NO_PREALLOC> = HashMap::new();
/// Banned IPv6 addresses.
#[btf_map(name = "ban_v6")]
pub(crate) static BAN_V6: HashMap<[u8; 16], Ban, BANS, NO_PREALLOC> = HashMap::new();
/// Banned IPv6 /64, /56 and /48.
#[btf_map(name = "site_v6")]
pub(crate) static SITE_V6: HashMap<Site, Ban, BANS, NO_PREALLOC> = HashMap::new();
/// Banned IPv4 prefixes.
#[btf_map(name = "net_v4")]
pub(crate) static NET_V4: LpmTrie<NetV4, Ban, NETS> = LpmTrie::new();
/// Banned IPv6 prefixes that are no sites.
#[btf_map(name = "net_v6")]
pub(crate) static NET_V6: LpmTrie<[u8; 16], Ban, NETS> = LpmTrie::new();
/// IPv4 prefixes that are never dropped.
#[btf_map(name = "allow_v4")]
pub(crate) static ALLOW_V4: LpmTrie<[u8; 4], u32, ALLOWED> = LpmTrie::new();
/// IPv6 prefixes that are never dropped.
#[btf_map(name = "allow_v6")]
pub(crate) static ALLOW_V6: LpmTrie<[u8; 16], u32, ALLOWED> = LpmTrie::new();
/// Port sets that bans refer to.
#[btf_map(name = "port_sets")]
pub(crate) static PORT_SETS_MAP: Array<PortSet, { PORT_SETS as usize }> = Array::new();
/// One bit per IPv4 /24.
#[btf_map(name = "gate_v4")]
pub(crate) static GATE_V4: Array<u64, GATE_WORDS, MMAP> = Array::new();
/// Blocked Bloom filter over IPv6 /48s.
#[btf_map(name = "gate_v6")]
pub(crate) static GATE_V6: Array<u64, GATE_WORDS, MMAP> = Array::new();
/// What the agent tells the program.
#[btf_map(name = "settings")]
pub(crate) static SETTINGS: Array<Settings, 1, MMAP> = Array::new();
/// [`ROWS`] counters for each interface.
#[btf_map(name = "verdicts")]
pub(crate) static VERDICTS: PerCpuArray<Count, { (ROWS * SLOTS) as usize }> = PerCpuArray::new();
/// Sampled drops.
#[btf_map(name = "events")]
pub(crate) static EVENTS: RingBuf<Event, 262_144> = RingBuf::new();

/// Which rows of [`VERDICTS`] this copy of the program counts in; the loader sets it, and the
/// verifier folds it.
#[unsafe(no_mangle)]
pub(crate) static SLOT: Global<u32> = Global::new(0);
