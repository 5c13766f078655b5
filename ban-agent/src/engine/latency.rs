//! Measures how long a line takes to become a ban: from when it was read, or received by journald,
//! until the kernel has the ban.

use std::{collections::BTreeSet, time::Instant};

use crate::{metrics::Histogram, net::IpNet};

/// Measures the bans of jails; waits for those that the kernel does not take yet.
#[derive(Debug, Default)]
pub(super) struct Latency {
    histogram: Histogram,
    /// Read when; the line whose offence is being carried out.
    read: Option<Instant>,
    /// Bans that are not known to be in the kernel.
    waiting: Vec<(IpNet, Instant)>,
}

impl Latency {
    /// The next ban follows from a line that was read then.
    pub(super) fn begin(&mut self, read: Instant) {
        self.read = Some(read);
    }

    /// It is a ban of this prefix.
    pub(super) fn banned(&mut self, prefix: IpNet) {
        self.waiting.extend(self.read.take().map(|read| (prefix, read)));
    }

    /// The kernel has every ban but those of `pending`.
    pub(super) fn settle(&mut self, pending: &BTreeSet<IpNet>) {
        if self.waiting.is_empty() {
            return;
        }
        let now = Instant::now();
        self.waiting.retain(|(prefix, read)| {
            let waits = pending.contains(prefix);
            if !waits {
                self.histogram.observe(now.saturating_duration_since(*read).as_secs_f64());
            }
            waits
        });
    }

    /// Returns what was measured so far.
    pub(super) fn histogram(&self) -> Histogram {
        self.histogram.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_ban_counts_once_the_kernel_has_it() {
        let ban = crate::net::parse_prefix("192.0.2.1").unwrap();
        let mut latency = Latency::default();
        latency.settle(&BTreeSet::new());
        assert_eq!(latency.histogram().count(), 0);

        let read = Instant::now().checked_sub(Duration::from_secs(3)).unwrap();
        latency.begin(read);
        latency.banned(ban);
        latency.settle(&BTreeSet::from([ban]));
        assert_eq!(latency.histogram().count(), 0, "the kernel does not have it yet");
        latency.settle(&BTreeSet::new());
        latency.settle(&BTreeSet::new());
        assert_eq!(latency.histogram().count(), 1);
        assert!(latency.histogram().sum() >= 3.0);
    }
}
