//! The two clocks of the agent, and the only place that reads them.
//!
//! Decisions take a [`Now`] as an argument. Running bans live on [`Boot`] time, which no
//! administrator can step; wall time is for people, logs and the store.

use std::time::Duration;

use jiff::Timestamp;

/// Milliseconds on `CLOCK_BOOTTIME`: monotonic, and it goes on during suspend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boot(pub u64);

impl Boot {
    /// Later than every other instant: a permanent ban.
    pub const NEVER: Boot = Boot(u64::MAX);

    /// This instant plus `millis`; saturates below [`Boot::NEVER`].
    #[must_use]
    pub fn plus(self, millis: u64) -> Boot {
        Boot(self.0.saturating_add(millis).min(u64::MAX - 1))
    }

    /// This instant plus `duration`, to the millisecond; saturates below [`Boot::NEVER`].
    #[must_use]
    pub fn after(self, duration: Duration) -> Boot {
        self.plus(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(any(test, feature = "test-util"))]
thread_local! {
    static FAKE: std::cell::Cell<Option<Now>> = const { std::cell::Cell::new(None) };
}

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For deadlines.
    pub boot: Boot,
    /// For people, logs and the store.
    pub wall: Timestamp,
}

impl Now {
    /// Reads both clocks.
    #[must_use]
    pub fn read() -> Now {
        #[cfg(any(test, feature = "test-util"))]
        if let Some(now) = FAKE.get() {
            return now;
        }
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let millis = time.tv_sec.unsigned_abs() * 1000 + time.tv_nsec.unsigned_abs() / 1_000_000;
        Now { boot: Boot(millis), wall: Timestamp::now() }
    }

    /// What this thread reads from now on.
    #[cfg(any(test, feature = "test-util"))]
    pub fn fake(self) {
        FAKE.set(Some(self));
    }

    /// Returns the wall-clock instant of `boot` as the clocks stand now; `None` for
    /// [`Boot::NEVER`].
    #[must_use]
    pub fn wall_of(&self, boot: Boot) -> Option<Timestamp> {
        if boot == Boot::NEVER {
            return None;
        }
        let ahead = i128::from(boot.0) - i128::from(self.boot.0);
        let millis = i128::from(self.wall.as_millisecond()) + ahead;
        let millis = i64::try_from(millis).unwrap_or(i64::MAX);
        Some(Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX))
    }

    /// Returns the boot-clock instant of the wall-clock instant `wall`, as the clocks stand now.
    #[must_use]
    pub fn boot_of(&self, wall: Timestamp) -> Boot {
        let ahead = i128::from(wall.as_millisecond()) - i128::from(self.wall.as_millisecond());
        let millis = (i128::from(self.boot.0) + ahead).clamp(0, i128::from(u64::MAX - 1));
        Boot(u64::try_from(millis).unwrap_or(0))
    }
}
