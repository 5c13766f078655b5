//! A start on trial: enforcement ends by itself unless the operator confirms in time that nobody
//! is locked out. Decides, and does nothing else.
//!
//! While a trial runs the program is not pinned: the kernel takes it off if the agent dies. A
//! restart goes on with the same trial; once it has lapsed, nothing is enforced until it is
//! confirmed after all.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    clock::{Boot, Now},
    dataplane::Lifetime,
    store::trial::Record,
};

/// How a trial was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    /// How long the operator has to confirm.
    pub time: Duration,
    /// Also where an earlier trial was confirmed.
    pub again: bool,
}

/// Whether the agent enforces for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trial {
    /// It does.
    #[default]
    Over,
    /// Until then, unless it is confirmed.
    Running {
        /// Its end.
        until: Boot,
    },
    /// It does not: the operator did not confirm.
    Lapsed {
        /// Since then.
        at: Timestamp,
    },
}

impl Trial {
    /// Returns what a start begins with, after what an earlier one has recorded.
    pub(super) fn at_start(record: Option<Record>, grace: Option<Grace>, now: Now) -> Trial {
        let fresh = |grace: Grace| Trial::Running { until: now.boot.after(grace.time) };
        match (record, grace) {
            (Some(Record::Lapsed { at }), _) => Trial::Lapsed { at },
            (Some(Record::Running { from, until }), _) => {
                // a clock that was set back prolongs nothing
                let whole = Duration::try_from(until.duration_since(from)).unwrap_or_default();
                let until = now.boot_of(until).min(now.boot.after(whole));
                let asked = grace.map_or(until, |grace| now.boot.after(grace.time));
                Trial::Running { until: until.min(asked) }.at(now)
            }
            (Some(Record::Confirmed { .. }), Some(grace)) if grace.again => fresh(grace),
            (None, Some(grace)) => fresh(grace),
            (Some(Record::Confirmed { .. }) | None, _) => Trial::Over,
        }
    }

    /// Returns what it has become by `now`.
    pub(super) fn at(self, now: Now) -> Trial {
        match self {
            Trial::Running { until } if until <= now.boot => {
                Trial::Lapsed { at: now.wall_of(until).unwrap_or(now.wall) }
            }
            other => other,
        }
    }

    /// Returns when [`Trial::at`] has to be asked again.
    pub(super) fn deadline(self) -> Option<Boot> {
        match self {
            Trial::Running { until } => Some(until),
            Trial::Over | Trial::Lapsed { .. } => None,
        }
    }

    /// Returns how long the program may stay attached meanwhile.
    pub(crate) fn lifetime(self) -> Lifetime {
        match self {
            Trial::Over => Lifetime::Pinned,
            Trial::Running { .. } => Lifetime::Process,
            Trial::Lapsed { .. } => Lifetime::Detached,
        }
    }

    /// Returns what a later start has to know; `began`: when the trial did.
    pub(super) fn record(self, began: Timestamp, now: Now) -> Record {
        match self {
            Trial::Over => Record::Confirmed { at: now.wall },
            Trial::Running { until } => {
                Record::Running { from: began, until: now.wall_of(until).unwrap_or(now.wall) }
            }
            Trial::Lapsed { at } => Record::Lapsed { at },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both clocks at this second; the wall clock may have been set by `ahead` seconds.
    fn now(second: u64, ahead: i64) -> Now {
        let wall = 1_800_000_000 + i64::try_from(second).unwrap() + ahead;
        Now { boot: Boot(second * 1000), wall: Timestamp::from_second(wall).unwrap() }
    }

    fn grace(seconds: u64, again: bool) -> Option<Grace> {
        Some(Grace { time: Duration::from_secs(seconds), again })
    }

    fn running(second: u64) -> Trial {
        Trial::Running { until: Boot(second * 1000) }
    }

    #[test]
    fn it_lapses_at_its_end_and_not_before() {
        let trial = Trial::at_start(None, grace(300, false), now(100, 0));
        assert_eq!(trial, running(400));
        assert_eq!((trial.lifetime(), trial.deadline()), (Lifetime::Process, Some(Boot(400_000))));
        assert_eq!(trial.at(now(399, 0)), trial);
        let lapsed = Trial::Lapsed { at: now(400, 0).wall };
        assert_eq!(trial.at(now(400, 0)), lapsed);
        assert_eq!(trial.at(now(999, 0)), lapsed);
        assert_eq!((lapsed.lifetime(), lapsed.deadline()), (Lifetime::Detached, None));
        assert_eq!(lapsed.at(now(9999, 0)), lapsed, "until somebody says otherwise");
        assert_eq!(Trial::at_start(None, None, now(1, 0)), Trial::Over);
    }

    #[test]
    fn a_restart_goes_on_with_the_trial() {
        let begun = now(100, 0);
        let record = Some(Trial::at_start(None, grace(300, true), begun).record(begun.wall, begun));
        // asked for or not, it ends when it would have ended
        for asked in [None, grace(300, true), grace(300, false)] {
            assert_eq!(Trial::at_start(record, asked, now(250, 0)), running(400), "{asked:?}");
            let lapsed = Trial::Lapsed { at: now(400, 0).wall };
            assert_eq!(Trial::at_start(record, asked, now(500, 0)), lapsed, "{asked:?}");
        }
        // a shorter one is heard, a clock that was set back is not
        assert_eq!(Trial::at_start(record, grace(10, true), now(250, 0)), running(260));
        assert_eq!(Trial::at_start(record, None, now(250, -86_400)), running(550));
    }

    #[test]
    fn what_has_lapsed_stays_so_and_what_was_confirmed_too() {
        let lapsed = Some(Record::Lapsed { at: now(400, 0).wall });
        let confirmed = Some(Record::Confirmed { at: now(200, 0).wall });
        for asked in [None, grace(300, true), grace(300, false)] {
            let trial = Trial::at_start(lapsed, asked, now(900, 0));
            assert_eq!(trial, Trial::Lapsed { at: now(400, 0).wall }, "{asked:?}");
        }
        // the key of the configuration asks once, the command line each time
        assert_eq!(Trial::at_start(confirmed, grace(300, false), now(900, 0)), Trial::Over);
        assert_eq!(Trial::at_start(confirmed, grace(300, true), now(900, 0)), running(1200));
        assert_eq!(Trial::at_start(confirmed, None, now(900, 0)), Trial::Over);
    }
}
