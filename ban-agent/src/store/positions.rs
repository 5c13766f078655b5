//! How far each source was read and handled: the one place that knows. The pipeline tells it, next
//! to the engine; nothing else keeps a copy.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Counted,
    pending::Pending,
    writer::{Queue, Shared},
};
use crate::source::Position;

/// A handle on the positions; its copies share them.
#[derive(Clone, Debug)]
pub struct Positions {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    positions: HashMap<Arc<str>, Position>,
    closed: bool,
}

impl Positions {
    pub(super) fn new(queue: Arc<Queue>, shared: Arc<Shared>) -> Positions {
        Positions { queue, shared, known: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records how far sources were read, everything before it being recorded, and what its jails
    /// count since: both together. `None`: the log, or the count, is gone. May reach the disk a
    /// second later: after a crash lines are read again, and counted as if for the first time.
    pub fn handled(
        &self,
        positions: impl IntoIterator<Item = (Arc<str>, Option<Position>)>,
        counted: impl IntoIterator<Item = Counted>,
    ) {
        let mut known = self.lock();
        if known.closed {
            return;
        }
        let positions: Vec<_> = positions.into_iter().collect();
        for (origin, position) in positions.iter().cloned() {
            match position {
                Some(position) => drop(known.positions.insert(origin, position)),
                None => drop(known.positions.remove(&origin)),
            }
        }
        // under the lock: a snapshot comes before all of it, or after
        self.record(|pending| pending.handled(positions, counted));
    }

    /// Returns what is known now.
    #[must_use]
    pub fn known(&self) -> HashMap<Arc<str>, Position> {
        self.lock().positions.clone()
    }

    /// Nothing counts as handled from when what is returned is dropped: what is left then was
    /// not decided, and is read again.
    #[must_use]
    pub fn closing(&self) -> impl Drop + use<> {
        Closing(self.clone())
    }

    /// What an earlier run has recorded.
    pub(super) fn restore(&self, positions: HashMap<Arc<str>, Position>) {
        self.lock().positions = positions;
    }

    /// Has `change` recorded with all positions that there are.
    pub(super) fn snapshot(
        &self,
        change: impl FnOnce(&mut Pending, HashMap<Arc<str>, Option<Position>>),
    ) {
        let known = self.lock();
        let all = known.positions.iter().map(|(origin, at)| (Arc::clone(origin), Some(at.clone())));
        let all = all.collect();
        self.record(|pending| change(pending, all));
    }

    fn record(&self, change: impl FnOnce(&mut Pending)) {
        self.shared.note(self.queue.record(change));
    }
}

/// See [`Positions::closing`].
struct Closing(Positions);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.lock().closed = true;
    }
}
