//! Counters of the sources, per origin, for `status` and metrics. Written by the sources, read by
//! whoever holds a clone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

/// What happened to one origin since the agent started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Lines delivered.
    pub lines: u64,
    /// Bytes delivered, `\n` included.
    pub bytes: u64,
    /// Lines skipped because they were longer than the limit.
    pub overlong: u64,
    /// NUL bytes skipped at the beginning of lines.
    pub nuls: u64,
    /// Files that replaced another one under the same name.
    pub rotations: u64,
    /// Files that were cut to nothing and written anew.
    pub truncations: u64,
    /// Times that unread lines were in a file that cannot be found any more.
    pub lost: u64,
    /// Restarts of the program that delivers the lines.
    pub restarts: u64,
    /// Datagrams or records that could not be understood.
    pub malformed: u64,
    /// Bytes that wait in the file.
    pub lag: u64,
    /// There is nothing to read: no such file yet, or the program behind it is down.
    pub waiting: bool,
    /// Looked at on a timer, because the kernel does not tell of changes.
    pub polling: bool,
    /// There was something to read at some time, be it before the agent started.
    #[serde(default)]
    pub seen: bool,
    /// What keeps the source from reading.
    pub error: Option<String>,
}

impl Counters {
    /// Nothing was ever there to be read, and nothing says why not.
    #[must_use]
    pub fn is_unseen(&self) -> bool {
        self.waiting && !self.seen && self.error.is_none() && self.restarts == 0
    }

    /// What an operator should know beyond lines and bytes.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let counts = [
            (self.rotations, "rotated"),
            (self.truncations, "cut"),
            (self.overlong, "lines too long, skipped"),
            (self.nuls, "NUL bytes skipped"),
            (self.lost, "times the rest of a file was not found"),
            (self.malformed, "not understood"),
            (self.restarts, "times started again"),
        ];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        let states = [(self.waiting, "waiting"), (self.polling, "polled")];
        states
            .into_iter()
            .filter(|(is, _)| *is)
            .map(|(_, state)| state.to_owned())
            .chain(counts.map(|(count, what)| format!("{count} {what}")))
            .collect()
    }
}

/// Counters by origin; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Stats(Arc<Mutex<BTreeMap<Arc<str>, Counters>>>);

impl Stats {
    /// All origins as they stand.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<Arc<str>, Counters> {
        self.lock().clone()
    }

    pub(crate) fn update(&self, origin: &Arc<str>, change: impl FnOnce(&mut Counters)) {
        let mut all = self.lock();
        if let Some(counters) = all.get_mut(origin) {
            change(counters);
        } else {
            change(all.entry(Arc::clone(origin)).or_default());
        }
    }

    pub(super) fn forget(&self, origin: &str) {
        self.lock().remove(origin);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Counters>> {
        // Counters are whole after every statement, so a panic elsewhere spoils nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
