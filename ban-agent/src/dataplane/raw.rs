//! What the bookkeeping of the maps stands on: tables, words and cells. They are the kernel's own,
//! or in tests memory that fails when it is told to. Knows nothing of bans.

use std::{fmt, hash::Hash};

use aya::Pod;

use super::{error::Error, gates::Bitmap};

/// What can be a key of a table.
pub(super) trait MapKey: Pod + Default + Eq + Hash + fmt::Debug + Send {}
impl<K: Pod + Default + Eq + Hash + fmt::Debug + Send> MapKey for K {}

/// One table.
pub(super) trait Raw<K, V> {
    /// Returns the value of `key`.
    ///
    /// # Errors
    /// If the table cannot be read.
    fn get(&self, key: &K) -> Result<Option<V>, Error>;

    /// Writes `keys` and their `values`.
    ///
    /// # Errors
    /// The first failure; any of them may have been written then.
    fn set_all(&self, keys: &[K], values: &[V]) -> Result<(), Error>;

    /// Removes `keys`; those that are not there are no error.
    ///
    /// # Errors
    /// The first failure; any of them may be gone then.
    fn remove_all(&self, keys: &[K]) -> Result<(), Error>;

    /// Returns the key behind `last`, or the first; `None` at the end.
    ///
    /// # Errors
    /// If the table cannot be read.
    fn next_key(&self, last: Option<&K>) -> Result<Option<K>, Error>;

    /// Shows `visit` every entry.
    ///
    /// # Errors
    /// If the table cannot be read.
    fn each(&self, visit: &mut dyn FnMut(K, V)) -> Result<(), Error>;
}

/// The settings, word by word.
pub(super) trait Cells {
    /// Returns the word at `index`.
    fn get(&self, index: usize) -> u64;
    /// Sets the word at `index`; the program sees earlier writes before it.
    fn set(&self, index: usize, value: u64);
}

/// Where all of it lies.
pub(super) trait Backend {
    /// Tables.
    type Table<K: MapKey, V: Pod + Default + Send>: Raw<K, V>;
    /// Gates.
    type Bitmap: Bitmap;
    /// Settings.
    type Cells: Cells;
    /// Counters of the verdicts.
    type Verdicts;
}

/// The kernel.
#[derive(Debug)]
pub(super) struct Kernel;

impl Backend for Kernel {
    type Table<K: MapKey, V: Pod + Default + Send> = super::batch::Table<K, V>;
    type Bitmap = super::bitmap::GateBitmap;
    type Cells = super::mapped::Mapped;
    type Verdicts = aya::maps::PerCpuArray<aya::maps::MapData, ban_common::Count>;
}

impl<K: MapKey, V: Pod + Default + Send> Raw<K, V> for super::batch::Table<K, V> {
    fn get(&self, key: &K) -> Result<Option<V>, Error> {
        self.get(key)
    }

    fn set_all(&self, keys: &[K], values: &[V]) -> Result<(), Error> {
        self.set_all(keys, values)
    }

    fn remove_all(&self, keys: &[K]) -> Result<(), Error> {
        self.remove_all(keys)
    }

    fn next_key(&self, last: Option<&K>) -> Result<Option<K>, Error> {
        self.next_key(last)
    }

    fn each(&self, visit: &mut dyn FnMut(K, V)) -> Result<(), Error> {
        self.each(visit)
    }
}

impl Cells for super::mapped::Mapped {
    fn get(&self, index: usize) -> u64 {
        self.get(index)
    }

    fn set(&self, index: usize, value: u64) {
        self.set(index, value);
    }
}
