//! Whole maps by `bpf(2)` batches, on real maps of both kinds: what goes in comes out, what is
//! missing is no error, what does not fit is one.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use aya::maps::MapData;
use ban_agent::{
    clock::Boot,
    dataplane::{Error, batch::Table, memory},
};
use ban_common::Ban;
use tests::{
    bench::{Bench, all, set},
    process::Pins,
    require_root,
};

const MAX: u32 = 40_000;

fn ban(n: u32) -> Ban {
    Ban { packets: u64::from(n), ..Ban::default() }
}

fn map(bench: &Bench, name: &str) -> MapData {
    MapData::from_pin(bench.pins.path().join("v1").join(name)).unwrap()
}

#[test]
fn hashes_in_batches() {
    require_root!("batches on a hash");
    // More buckets than bans: the kernel's own bound lies higher than the agent's.
    let bench = Bench::new("batch", MAX / 4);
    let table: Table<[u8; 4], Ban> = Table::new("ban_v4", &map(&bench, "ban_v4")).unwrap();
    assert!(table.all().unwrap().is_empty());
    assert_eq!(table.max_entries(), MAX);
    let keys: Vec<[u8; 4]> = (0..MAX).map(u32::to_be_bytes).collect();
    let values: Vec<Ban> = (0..MAX).map(ban).collect();
    table.set_all(&keys, &values).unwrap();
    let mut all = table.all().unwrap();
    all.sort_unstable_by_key(|(key, _)| *key);
    assert_eq!(all, keys.iter().copied().zip(values.iter().copied()).collect::<Vec<_>>());
    table.set_all(&keys[..10], &vec![ban(7); 10]).unwrap();
    assert_eq!(table.get(&keys[3]).unwrap(), Some(ban(7)), "written over");
    let one_more = table.set(&MAX.to_be_bytes(), &ban(0)).unwrap_err();
    assert!(matches!(one_more, Error::Call { .. }), "{one_more}");
    // Every other one is missing when all of them are to go.
    for key in keys.iter().step_by(2).take(50) {
        table.remove(key).unwrap();
    }
    table.remove_all(&keys).unwrap();
    assert!(table.all().unwrap().is_empty());
    assert_eq!(table.get(&keys[5]).unwrap(), None);
    table.remove(&keys[5]).unwrap();
}

#[test]
fn tries_in_batches_or_one_by_one() {
    require_root!("batches on a trie");
    let bench = Bench::new("batchtrie", MAX);
    let table: Table<[u8; 12], Ban> = Table::new("net_v4", &map(&bench, "net_v4")).unwrap();
    // Prefix length, address, padding.
    let key = |n: u32| {
        let mut key = [0; 12];
        key[..4].copy_from_slice(&24_u32.to_ne_bytes());
        key[4..8].copy_from_slice(&(n << 8).to_be_bytes());
        key
    };
    let keys: Vec<[u8; 12]> = (0..20_000).map(key).collect();
    let values: Vec<Ban> = (0..20_000).map(ban).collect();
    table.set_all(&keys, &values).unwrap();
    let mut all = table.all().unwrap();
    all.sort_unstable_by_key(|(_, ban)| ban.packets);
    assert_eq!(all, keys.iter().copied().zip(values).collect::<Vec<_>>());
    table.remove_all(&keys[1..]).unwrap();
    assert_eq!(table.all().unwrap().len(), 1);
}

#[test]
fn another_layout_is_refused() {
    require_root!("the check of a layout");
    let bench = Bench::new("batchlayout", 64);
    let wrong = Table::<[u8; 8], Ban>::new("ban_v4", &map(&bench, "ban_v4")).unwrap_err();
    assert!(matches!(wrong, Error::Layout { name: "ban_v4", key: 4, value: 48, .. }), "{wrong}");
}

#[test]
fn without_batches_one_by_one() {
    require_root!("a map without batches");
    let pins = Pins::new(&format!("ban-test-nobatch-{}", std::process::id()));
    std::fs::create_dir(pins.path()).unwrap();
    // No kernel up to now has batches for this type; its values are indices of interfaces.
    let pin = pins.path().join("devices");
    let made = std::process::Command::new("bpftool")
        .args(["map", "create", pin.to_str().unwrap(), "type", "devmap_hash", "key", "4"])
        .args(["value", "4", "entries", "64", "name", "devices"])
        .status();
    assert!(made.unwrap().success());
    let table: Table<u32, u32> = Table::new("devices", &MapData::from_pin(&pin).unwrap()).unwrap();
    assert!(table.all().unwrap().is_empty());
    let keys: Vec<u32> = (0..64).collect();
    table.set_all(&keys, &[1; 64]).unwrap();
    let mut all = table.all().unwrap();
    all.sort_unstable();
    assert_eq!(all, keys.iter().map(|key| (*key, 1)).collect::<Vec<_>>());
    assert_eq!(table.get(&63).unwrap(), Some(1));
    assert!(table.set(&64, &1).is_err(), "more than it holds");
    table.remove_all(&[1, 2, 3, 4, 5, 1_000]).unwrap();
    assert_eq!(table.all().unwrap().len(), 59);
    table.remove_all(&keys).unwrap();
    assert!(table.all().unwrap().is_empty());
}

#[test]
fn a_ban_costs_what_doctor_says() {
    require_root!("memory per ban");
    let mut bench = Bench::new("batchmemory", MAX);
    let used = |bench: &Bench, map: &str| {
        let maps = memory::footprints(bench.pins.path()).unwrap();
        usize::try_from(maps.iter().find(|found| found.name == map).unwrap().bytes).unwrap()
    };
    let empty = (used(&bench, "ban_v4"), used(&bench, "ban_v6"));
    assert!(empty.0 >= MAX as usize * 64, "the buckets: {empty:?}");
    let bans = |n: u32| {
        let v6 = std::net::Ipv6Addr::from(u128::from(n) << 64 | 0x2001_0db8_u128 << 96 | 1);
        [std::net::Ipv4Addr::from(n << 8 | 10 << 24).into(), v6.into()]
    };
    let ops =
        (1..=1_000).flat_map(bans).map(|a: std::net::IpAddr| set(&a.to_string(), all(Boot::NEVER)));
    bench.apply(&ops.collect::<Vec<_>>());
    let full = (used(&bench, "ban_v4"), used(&bench, "ban_v6"));
    if full == empty {
        // before Linux 6.4 the kernel accounts for full maps only
        return;
    }
    for (before, after, key) in [(empty.0, full.0, 4), (empty.1, full.1, 16)] {
        assert_eq!((after - before) / 1_000 + 64, memory::per_ban(key), "{before} {after}");
    }
}
