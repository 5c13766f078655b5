//! fail2ban's way to count failures within `findtime`, in constant memory per address.
//!
//! fail2ban does not keep the time of each failure. Once the span of what it counted exceeds
//! findtime, it scales the count down by the rate seen so far; a jail that was tuned under it
//! bans at the same line here. Times are milliseconds of log time.

use std::time::Duration;

/// The failures of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// How many count.
    pub failures: u32,
    /// Since when, in milliseconds of log time since 1970.
    pub first: i64,
    /// The last one, likewise.
    pub last: i64,
}

impl Count {
    /// Nothing yet; the first failure will be at `time`.
    pub(super) fn new(time: i64) -> Count {
        Count { failures: 0, first: time, last: time }
    }

    /// A failure at `time`, which weighs as much as so many; returns how many count now.
    pub(super) fn add(&mut self, time: i64, weight: u32, findtime: Duration) -> u32 {
        let findtime = millis(findtime);
        if time > self.last {
            let begin = time.saturating_sub(findtime);
            if self.first < begin {
                let rate = f64::from(self.failures) / as_f64(time.saturating_sub(self.first));
                self.failures = whole(rate * as_f64(findtime));
                self.first = begin;
            }
            self.last = time;
        }
        self.failures = self.failures.saturating_add(weight);
        self.failures
    }

    /// Returns whether its last failure is `findtime` ago.
    pub(super) fn is_over(&self, now: i64, findtime: Duration) -> bool {
        self.last <= now.saturating_sub(millis(findtime))
    }
}

/// Returns a duration in whole milliseconds; what does not fit is as good as for ever.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "millisecond spans are far below 2^53")]
fn as_f64(millis: i64) -> f64 {
    millis as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates at the ends of u32, which is what a count should do"
)]
fn whole(count: f64) -> u32 {
    count.round_ties_even() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts after failures at these seconds.
    fn counts(findtime: u64, seconds: &[i64]) -> Vec<u32> {
        let findtime = Duration::from_secs(findtime);
        let mut count = Count::new(seconds[0] * 1000);
        seconds.iter().map(|second| count.add(second * 1000, 1, findtime)).collect()
    }

    #[test]
    fn within_findtime_every_failure_counts() {
        assert_eq!(counts(180, &[0, 1, 1, 90, 180]), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn beyond_findtime_the_rate_decides() {
        // 2 failures in 200 s are 1.8 in 180 s.
        assert_eq!(counts(180, &[0, 100, 200]), [1, 2, 3]);
        // 2 in 400 s are 0.9 in 180 s; 3 in 1000 s are 0.54.
        assert_eq!(counts(180, &[0, 100, 400]), [1, 2, 2]);
        assert_eq!(counts(180, &[0, 10, 20, 1000]), [1, 2, 3, 2]);
        // A tie goes to the even neighbour, as in Python: 1 in 200 s is 0.5 in 100 s.
        assert_eq!(counts(100, &[0, 200]), [1, 1]);
        assert_eq!(counts(100, &[0, 0, 0, 200]), [1, 2, 3, 3]);
    }

    #[test]
    fn failures_out_of_order_count() {
        assert_eq!(counts(180, &[100, 50, 200]), [1, 2, 3]);
    }
}
