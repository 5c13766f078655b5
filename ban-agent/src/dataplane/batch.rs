//! `bpf(2)` for whole maps: batched update, delete and lookup, which aya does not have.
//!
//! Falls back to single calls where the kernel has no batch operation for a map type. Knows
//! nothing of bans.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya::Pod;

use super::{error::Error, sys::bpf};

// Commands of bpf(2), include/uapi/linux/bpf.h.
const MAP_LOOKUP_ELEM: i32 = 1;
const MAP_UPDATE_ELEM: i32 = 2;
const MAP_DELETE_ELEM: i32 = 3;
const MAP_GET_NEXT_KEY: i32 = 4;
const MAP_LOOKUP_BATCH: i32 = 24;
const MAP_UPDATE_BATCH: i32 = 26;
const MAP_DELETE_BATCH: i32 = 27;

/// `ENOTSUPP`: the kernel's own number, which libc does not know.
const ENOTSUPP: i32 = 524;
/// Entries per system call.
const CHUNK: usize = 16_384;

/// `union bpf_attr`, the part for single elements.
#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value_or_next: u64,
    flags: u64,
}

/// `union bpf_attr`, the part for batches.
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

fn address<T>(slice: &[T]) -> u64 {
    slice.as_ptr().expose_provenance() as u64
}

/// Whether a map, perhaps pinned by another agent, is what this one means by its name. Its size.
///
/// # Errors
/// [`Error::Layout`] if it is not.
pub(super) fn check_layout(
    name: &'static str,
    map: &aya::maps::MapData,
    (key, value): (usize, usize),
    entries: Option<usize>,
) -> Result<u32, Error> {
    let info = map.info().map_err(|source| Error::Map { name, source: Box::new(source) })?;
    let found = (info.key_size() as usize, info.value_size() as usize);
    let size = info.max_entries();
    if found != (key, value) || entries.is_some_and(|entries| entries != size as usize) {
        return Err(Error::Layout { name, key: found.0, value: found.1, entries: size });
    }
    Ok(size)
}

/// A map with keys `K` and values `V`, whose sizes were checked against the kernel's.
#[derive(Debug)]
pub struct Table<K, V> {
    fd: OwnedFd,
    name: &'static str,
    max_entries: u32,
    types: PhantomData<(K, V)>,
}

impl<K: Pod + Default, V: Pod + Default> Table<K, V> {
    /// Returns the map behind `map`.
    ///
    /// # Errors
    /// If key or value have another size than the kernel says.
    pub fn new(name: &'static str, map: &aya::maps::MapData) -> Result<Table<K, V>, Error> {
        let max_entries = check_layout(name, map, (size_of::<K>(), size_of::<V>()), None)?;
        let fd = map.fd().as_fd().try_clone_to_owned().map_err(|e| Error::call("dup", name, e))?;
        Ok(Table { fd, name, max_entries, types: PhantomData })
    }

    /// Returns how many entries it can hold.
    #[must_use]
    pub fn max_entries(&self) -> u32 {
        self.max_entries
    }

    fn fd(&self) -> u32 {
        self.fd.as_raw_fd().unsigned_abs()
    }

    fn failed(&self, call: &'static str) -> impl FnOnce(io::Error) -> Error {
        let name = self.name;
        move |source| Error::call(call, name, source)
    }

    /// Returns the value of `key`.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn get(&self, key: &K) -> Result<Option<V>, Error> {
        let mut value = V::default();
        let mut attr = ElementAttr {
            map_fd: self.fd(),
            key: std::ptr::from_ref(key).expose_provenance() as u64,
            value_or_next: std::ptr::from_mut(&mut value).expose_provenance() as u64,
            ..ElementAttr::default()
        };
        // SAFETY: the sizes of K and V are the map's (checked in `new`).
        match unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr) } {
            Ok(_) => Ok(Some(value)),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(self.failed("BPF_MAP_LOOKUP_ELEM")(e)),
        }
    }

    /// Writes one entry.
    ///
    /// # Errors
    /// If the map is full or cannot be written.
    pub fn set(&self, key: &K, value: &V) -> Result<(), Error> {
        let mut attr = ElementAttr {
            map_fd: self.fd(),
            key: std::ptr::from_ref(key).expose_provenance() as u64,
            value_or_next: std::ptr::from_ref(value).expose_provenance() as u64,
            ..ElementAttr::default()
        };
        // SAFETY: the sizes of K and V are the map's; the kernel only reads them.
        unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }
            .map(|_| ())
            .map_err(self.failed("BPF_MAP_UPDATE_ELEM"))
    }

    /// Removes one entry; no error if there is none.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn remove(&self, key: &K) -> Result<(), Error> {
        let mut attr = ElementAttr {
            map_fd: self.fd(),
            key: std::ptr::from_ref(key).expose_provenance() as u64,
            ..ElementAttr::default()
        };
        // SAFETY: the size of K is the map's; the kernel only reads it.
        match unsafe { bpf(MAP_DELETE_ELEM, &mut attr) } {
            Err(e) if e.raw_os_error() != Some(libc::ENOENT) => {
                Err(self.failed("BPF_MAP_DELETE_ELEM")(e))
            }
            _ => Ok(()),
        }
    }

    /// Writes `keys` and their `values`, in as few calls as the kernel allows.
    ///
    /// # Errors
    /// The first failure; what was written before it stays.
    pub fn set_all(&self, keys: &[K], values: &[V]) -> Result<(), Error> {
        for (keys, values) in keys.chunks(CHUNK).zip(values.chunks(CHUNK)) {
            if keys.len() < 4 || !self.batch(MAP_UPDATE_BATCH, keys, values)? {
                for (key, value) in keys.iter().zip(values) {
                    self.set(key, value)?;
                }
            }
        }
        Ok(())
    }

    /// Removes `keys`; those that are not there are no error.
    ///
    /// # Errors
    /// The first failure; what was removed before it is gone.
    pub fn remove_all(&self, keys: &[K]) -> Result<(), Error> {
        for keys in keys.chunks(CHUNK) {
            // A batch stops at the first key that is missing: the singles go on from there.
            if keys.len() < 4 || !self.batch(MAP_DELETE_BATCH, keys, &[])? {
                for key in keys {
                    self.remove(key)?;
                }
            }
        }
        Ok(())
    }

    /// One batch call; `false` if singles have to do it.
    fn batch(&self, command: i32, keys: &[K], values: &[V]) -> Result<bool, Error> {
        let mut attr = BatchAttr {
            keys: address(keys),
            values: address(values),
            count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
            map_fd: self.fd(),
            ..BatchAttr::default()
        };
        // SAFETY: `keys` (and, for updates, `values`) hold `count` elements of the map's sizes,
        // and the kernel only reads them; `count` is the attribute's own field.
        match unsafe { bpf(command, &mut attr) } {
            Ok(_) => Ok(true),
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::EINVAL | libc::ENOENT | libc::EOPNOTSUPP | ENOTSUPP)
                ) =>
            {
                Ok(false)
            }
            Err(e) => Err(self.failed("BPF_MAP_*_BATCH")(e)),
        }
    }

    /// Every entry, in no order.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn all(&self) -> Result<Vec<(K, V)>, Error> {
        let mut found = Vec::new();
        self.each(|key, value| found.push((key, value)))?;
        Ok(found)
    }

    /// Shows `visit` every entry, in no order, and keeps none: there may be millions. Entries
    /// written meanwhile may be missing or there twice.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn each(&self, mut visit: impl FnMut(K, V)) -> Result<(), Error> {
        match self.each_by_batch(&mut visit) {
            Ok(()) => Ok(()),
            // It says so at the first call, before anything was seen.
            Err(e)
                if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | ENOTSUPP)) =>
            {
                self.each_by_key(visit)
            }
            Err(e) => Err(self.failed("BPF_MAP_LOOKUP_BATCH")(e)),
        }
    }

    fn each_by_batch(&self, visit: &mut impl FnMut(K, V)) -> io::Result<()> {
        // A cursor is as large as the kernel wants it: a bucket number or a key.
        let mut cursor = vec![0_u8; size_of::<K>().max(8)];
        let mut first = true;
        let mut room = CHUNK;
        let mut keys = vec![K::default(); room];
        let mut values = vec![V::default(); room];
        loop {
            let mut attr = BatchAttr {
                in_batch: if first { 0 } else { address(&cursor) },
                out_batch: cursor.as_mut_ptr().expose_provenance() as u64,
                keys: keys.as_mut_ptr().expose_provenance() as u64,
                values: values.as_mut_ptr().expose_provenance() as u64,
                count: u32::try_from(room).unwrap_or(u32::MAX),
                map_fd: self.fd(),
                ..BatchAttr::default()
            };
            // SAFETY: `keys` and `values` have room for `count` elements of the map's sizes;
            // the cursor holds at least a key. All of them outlive the call.
            let result = unsafe { bpf(MAP_LOOKUP_BATCH, &mut attr) };
            let end = match result {
                Ok(_) => false,
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => true,
                Err(e) if e.raw_os_error() == Some(libc::ENOSPC) && room < 1 << 24 => {
                    // One bucket holds more than the room: more room.
                    room *= 2;
                    keys.resize(room, K::default());
                    values.resize(room, V::default());
                    continue;
                }
                Err(e) => return Err(e),
            };
            let count = attr.count as usize;
            let entries = keys.iter().copied().zip(values.iter().copied());
            entries.take(count).for_each(|(key, value)| visit(key, value));
            if end {
                return Ok(());
            }
            first = false;
        }
    }

    /// Returns the key behind `last`, in no order, or the first; `None` at the end. Where `last` is
    /// gone, the first again.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn next_key(&self, last: Option<&K>) -> Result<Option<K>, Error> {
        let mut next = K::default();
        let mut attr = ElementAttr {
            map_fd: self.fd(),
            key: last.map_or(0, |key| std::ptr::from_ref(key).expose_provenance() as u64),
            value_or_next: std::ptr::from_mut(&mut next).expose_provenance() as u64,
            ..ElementAttr::default()
        };
        // SAFETY: both addresses hold a K (or null for the first key), as the map's keys are.
        match unsafe { bpf(MAP_GET_NEXT_KEY, &mut attr) } {
            Ok(_) => Ok(Some(next)),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(self.failed("BPF_MAP_GET_NEXT_KEY")(e)),
        }
    }

    fn each_by_key(&self, mut visit: impl FnMut(K, V)) -> Result<(), Error> {
        let mut last: Option<K> = None;
        // A key that vanishes under us starts the walk anew; the bound ends a pathological one.
        for _ in 0..=u64::from(self.max_entries) * 2 {
            let Some(next) = self.next_key(last.as_ref())? else { break };
            if let Some(value) = self.get(&next)? {
                visit(next, value);
            }
            last = Some(next);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    /// `union bpf_attr`, include/uapi/linux/bpf.h.
    #[test]
    fn attributes_lie_where_the_kernel_reads_them() {
        let element = [
            offset_of!(ElementAttr, map_fd),
            offset_of!(ElementAttr, key),
            offset_of!(ElementAttr, value_or_next),
            offset_of!(ElementAttr, flags),
        ];
        assert_eq!((element, size_of::<ElementAttr>()), ([0, 8, 16, 24], 32));
        let batch = [
            offset_of!(BatchAttr, in_batch),
            offset_of!(BatchAttr, out_batch),
            offset_of!(BatchAttr, keys),
            offset_of!(BatchAttr, values),
            offset_of!(BatchAttr, count),
            offset_of!(BatchAttr, map_fd),
            offset_of!(BatchAttr, elem_flags),
            offset_of!(BatchAttr, flags),
        ];
        assert_eq!((batch, size_of::<BatchAttr>()), ([0, 8, 16, 24, 32, 36, 40, 48], 56));
    }
}
