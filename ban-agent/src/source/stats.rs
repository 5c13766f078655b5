//! Counters of the sources, per origin, for `status` and metrics. Written by the sources, read by
//! every holder of a clone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
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

    /// Of another source that reads the same.
    fn add(&mut self, other: Counters) {
        self.lines += other.lines;
        self.bytes += other.bytes;
        self.overlong += other.overlong;
        self.nuls += other.nuls;
        self.rotations += other.rotations;
        self.truncations += other.truncations;
        self.lost += other.lost;
        self.restarts += other.restarts;
        self.malformed += other.malformed;
        self.lag = self.lag.max(other.lag);
        self.waiting &= other.waiting;
        self.polling |= other.polling;
        self.seen |= other.seen;
        self.error = self.error.take().or(other.error);
    }

    /// Returns what an operator should know beyond lines and bytes.
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

/// A source that looks at files for longer than this has one on a file system that hangs.
const STALL: Duration = Duration::from_secs(10);

/// Counters by source and origin; clones share them.
#[derive(Clone, Debug)]
pub struct Stats {
    all: Arc<Mutex<All>>,
    /// The source that writes them.
    source: u64,
}

#[derive(Debug, Default)]
struct All {
    /// Sources so far.
    count: u64,
    sources: BTreeMap<u64, Source>,
}

/// What one source counts.
#[derive(Debug, Default)]
struct Source {
    counters: BTreeMap<Arc<str>, Counters>,
    /// What it is called, and since when it looks at files.
    at_work: Option<(Arc<str>, Instant)>,
}

impl Default for Stats {
    fn default() -> Stats {
        let all = All { count: 0, sources: BTreeMap::from([(0, Source::default())]) };
        Stats { all: Arc::new(Mutex::new(all)), source: 0 }
    }
}

impl Stats {
    /// Returns all origins as they stand. What two sources read is counted twice.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<Arc<str>, Counters> {
        let mut shown: BTreeMap<Arc<str>, Counters> = BTreeMap::new();
        for source in self.lock().sources.values() {
            for (origin, counters) in source.shown() {
                match shown.get_mut(&origin) {
                    Some(known) => known.add(counters),
                    None => drop(shown.insert(origin, counters)),
                }
            }
        }
        shown
    }

    /// Returns the same counters for one more source, which [`Stats::close`] takes away.
    #[must_use]
    pub(crate) fn of_source(&self) -> Stats {
        let mut all = self.lock();
        all.count += 1;
        let source = all.count;
        all.sources.insert(source, Source::default());
        Stats { all: Arc::clone(&self.all), source }
    }

    /// The source is gone: nothing of it is shown, whatever it still says.
    pub(crate) fn close(&self) {
        self.lock().sources.remove(&self.source);
    }

    pub(crate) fn update(&self, origin: &Arc<str>, change: impl FnOnce(&mut Counters)) {
        self.change(|source| {
            if let Some(counters) = source.counters.get_mut(origin) {
                change(counters);
            } else {
                change(source.counters.entry(Arc::clone(origin)).or_default());
            }
        });
    }

    pub(super) fn forget(&self, origin: &str) {
        self.change(|source| drop(source.counters.remove(origin)));
    }

    /// The source looks at files from now on, or (`None`) does not.
    pub(super) fn at_work(&self, name: Option<&Arc<str>>) {
        self.change(|source| source.at_work = name.map(|name| (Arc::clone(name), Instant::now())));
    }

    fn change(&self, change: impl FnOnce(&mut Source)) {
        if let Some(source) = self.lock().sources.get_mut(&self.source) {
            change(source);
        }
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        // Counters are whole after every statement, so a panic elsewhere spoils nothing.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    fn shown(&self) -> BTreeMap<Arc<str>, Counters> {
        let mut shown = self.counters.clone();
        if let Some((name, since)) = &self.at_work
            && since.elapsed() >= STALL
        {
            let counters = shown.entry(Arc::clone(name)).or_default();
            counters.waiting = true;
            let seconds = since.elapsed().as_secs();
            counters.error =
                Some(format!("its file system has not answered for {seconds} seconds"));
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_not_shown_whatever_it_says() {
        let all = Stats::default();
        let (one, other) = (all.of_source(), all.of_source());
        let log: Arc<str> = "/log".into();
        one.update(&log, |counters| (counters.lines, counters.waiting) = (2, true));
        other.update(&log, |counters| counters.lines = 3);
        let shown = all.snapshot();
        assert_eq!((shown["/log"].lines, shown["/log"].waiting), (5, false));
        one.close();
        one.update(&log, |counters| counters.lines += 1);
        assert_eq!(all.snapshot()["/log"].lines, 3);
        other.close();
        assert!(all.snapshot().is_empty());
    }

    #[test]
    fn a_file_system_that_hangs_is_said_to() {
        let stats = Stats::default();
        let name: Arc<str> = "/mnt/log".into();
        stats.at_work(Some(&name));
        assert!(stats.snapshot().is_empty(), "it has only begun");
        let long = Instant::now().checked_sub(STALL).unwrap();
        stats.change(|source| source.at_work = Some((Arc::clone(&name), long)));
        let counters = stats.snapshot()["/mnt/log"].clone();
        assert!(
            counters.waiting && counters.error.unwrap().contains("not answered for 10 seconds")
        );
        stats.at_work(None);
        assert!(stats.snapshot().is_empty());
    }
}
