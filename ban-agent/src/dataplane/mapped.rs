//! Array maps in our own address space: `mmap(2)` on the map's file descriptor.
//!
//! Writes are seen by the program at once and need no system call. Knows nothing of bans.

use std::{
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::MapData;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::os::fd::AsFd as _;

use super::{batch::check_layout, error::Error};

/// An array map as a slice of words. The kernel lays elements out one after another, each
/// rounded up to eight bytes.
#[derive(Debug)]
pub(super) struct Mapped {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping is shared memory of atomics, valid from any thread until it is dropped.
unsafe impl Send for Mapped {}

impl Mapped {
    /// Maps `map`, an array with `BPF_F_MMAPABLE` of `entries` values of `value` bytes, writable.
    ///
    /// # Errors
    /// If it is another array, or the kernel refuses.
    pub(super) fn new(
        name: &'static str,
        map: &MapData,
        (value, entries): (usize, usize),
    ) -> Result<Mapped, Error> {
        check_layout(name, map, (4, value), Some(entries))?;
        let info = map.info().map_err(|source| Error::Map { name, source: Box::new(source) })?;
        let words = (info.value_size() as usize).div_ceil(8) * info.max_entries() as usize;
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing of ours;
        // the length is that of the map (the kernel checks it too).
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                words * 8,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map.fd().as_fd(),
                0,
            )
        }
        .map_err(|e| Error::call("mmap", name, e.into()))?;
        let start = NonNull::new(start.cast())
            .ok_or_else(|| Error::call("mmap", name, std::io::ErrorKind::InvalidData.into()))?;
        Ok(Mapped { start, words })
    }

    fn slice(&self) -> &[AtomicU64] {
        // SAFETY: `words` words are mapped from `start` until drop; all accesses, here and in
        // the program, are aligned word accesses.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }

    /// Returns the word at `index`; 0 behind the end.
    #[must_use]
    pub(super) fn get(&self, index: usize) -> u64 {
        self.slice().get(index).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Sets the word at `index`; the program sees earlier map writes before it.
    pub(super) fn set(&self, index: usize, value: u64) {
        if let Some(word) = self.slice().get(index) {
            word.store(value, Ordering::Release);
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `new` made; no reference outlives `self`. That a
        // munmap of a valid mapping fails is not to be expected, and nothing could be done.
        let _unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.words * 8) };
    }
}
