//! What the pinned maps cost, as the kernel accounts for it. Only reads.

use std::{fs, os::fd::AsRawFd as _, path::Path};

use aya::maps::MapData;

use super::{error::Error, load::PINNED};

/// One map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Its name.
    pub name: &'static str,
    /// Bytes of kernel memory: `memlock` in `/proc/self/fdinfo`. From Linux 6.4 on what is in use;
    /// before that, what a full map would take.
    pub bytes: u64,
}

/// Returns the maps that are pinned in `pins`; none if the agent never ran there.
///
/// # Errors
/// If a pin cannot be opened, as without CAP_BPF.
pub fn footprints(pins: &Path) -> Result<Vec<Footprint>, Error> {
    let folder = pins.join(format!("v{}", ban_common::ABI));
    let there = PINNED.into_iter().filter(|name| folder.join(name).exists());
    there.map(|name| Ok(Footprint { name, bytes: bytes(&folder, name)? })).collect()
}

fn bytes(folder: &Path, name: &'static str) -> Result<u64, Error> {
    let map = MapData::from_pin(folder.join(name))
        .map_err(|source| Error::Map { name, source: Box::new(source) })?;
    let path = format!("/proc/self/fdinfo/{}", std::os::fd::AsFd::as_fd(map.fd()).as_raw_fd());
    let text = fs::read_to_string(&path).map_err(|e| Error::call("read", path, e))?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(line.and_then(|number| number.trim().parse().ok()).unwrap_or(0))
}

/// Bytes that one more ban takes in a hash whose keys have `key` bytes: the entry (`struct
/// htab_elem` in kernel/bpf/hashtab.c: 48 bytes before the key, which is padded to eight, and 8
/// before itself) and its
/// share of the buckets, 16 bytes each.
#[must_use]
pub fn per_ban(key: usize) -> usize {
    56 + key.next_multiple_of(8) + size_of::<ban_common::Ban>() + super::load::BUCKETS as usize * 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_costs_entry_and_buckets() {
        assert_eq!(per_ban(4), 56 + 8 + 48 + 64);
        assert_eq!(per_ban(16), 56 + 16 + 48 + 64);
    }
}
