//! How long the core is held by one thing: everything else waits meanwhile (law 11).

use std::time::{Duration, Instant};

use super::Engine;
use crate::{control::Hold, metrics::Histogram};

/// What holds the core for longer than this is logged.
const LONG: Duration = Duration::from_millis(20);

/// What consists of parts goes on for so long, if nothing else is to be done.
const SLICE: Duration = Duration::from_millis(1);

/// Measures every hold.
#[derive(Debug)]
pub(super) struct Holds {
    histogram: Histogram,
    /// As long as a [`Slice`] is; in tests each is one part.
    pub(super) slice: Duration,
    longest: (Duration, &'static str),
    waits: Histogram,
    longest_wait: Duration,
}

impl Default for Holds {
    fn default() -> Holds {
        Holds {
            histogram: Histogram::default(),
            slice: SLICE,
            longest: Default::default(),
            waits: Histogram::default(),
            longest_wait: Duration::ZERO,
        }
    }
}

/// Time for parts of what is long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice(Instant);

impl Slice {
    /// Whether somebody else has his turn.
    pub(super) fn is_over(self) -> bool {
        Instant::now() >= self.0
    }
}

impl Holds {
    pub(super) fn histogram(&self) -> Histogram {
        self.histogram.clone()
    }

    /// A ban has its turn whose line was read then.
    pub(super) fn waited(&mut self, read: Instant) {
        let time = read.elapsed();
        self.waits.observe(time.as_secs_f64());
        self.longest_wait = self.longest_wait.max(time);
    }

    pub(super) fn waits(&self) -> Histogram {
        self.waits.clone()
    }

    /// Of a ban, since the start, in seconds.
    pub(super) fn longest_wait(&self) -> f64 {
        self.longest_wait.as_secs_f64()
    }

    /// The longest since the start, and what it was.
    pub(super) fn longest(&self) -> Hold {
        let (time, what) = self.longest;
        Hold { seconds: time.as_secs_f64(), by: what.to_owned() }
    }
}

impl Engine {
    /// Begins now.
    pub(super) fn slice(&self) -> Slice {
        Slice(Instant::now() + self.holds.slice)
    }

    /// Does `work`, and notes how long it has taken.
    pub(super) fn held(&mut self, what: &'static str, work: impl FnOnce(&mut Engine)) {
        let begun = Instant::now();
        work(self);
        let time = begun.elapsed();
        self.holds.histogram.observe(time.as_secs_f64());
        if time > self.holds.longest.0 {
            self.holds.longest = (time, what);
        }
        if time > LONG {
            log::debug!("{what} held everything else up for {time:.1?}");
        }
    }
}
