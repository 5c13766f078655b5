//! What became of what was sent to one receiver, a hook's or an action's.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Deliveries {
    done: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    /// The last one found no room.
    full: AtomicBool,
    error: Mutex<Option<String>>,
}

impl Deliveries {
    /// Returns those that succeeded.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Returns those that failed, or took too long.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Returns those that were not tried, because too many waited.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Returns why the last one failed, if it did.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One was tried. Whether that it fails, or does not any more, is news.
    pub(super) fn count(&self, result: Result<(), String>) -> bool {
        let counter = if result.is_ok() { &self.done } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        let news = error.is_some() != result.is_err();
        *error = result.err();
        news
    }

    /// One was to wait. Whether that there is no room is news.
    pub(super) fn queued(&self, dropped: bool) -> bool {
        self.dropped.fetch_add(dropped.into(), Ordering::Relaxed);
        let was_full = self.full.swap(dropped, Ordering::Relaxed);
        dropped && !was_full
    }
}
