//! A plain histogram: its owner counts, all others get a copy.

/// Upper bounds of the buckets in seconds: around the promise of 1 ms at the median and 5 ms at
/// the 99th percentile, up to what a struggling host shows.
pub const BOUNDS: [f64; 14] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Durations in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// One for each of [`BOUNDS`], not cumulated; what is longer is only in `count`.
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&mut self, seconds: f64) {
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound);
        if let Some(count) = bucket.and_then(|at| self.buckets.get_mut(at)) {
            *count += 1;
        }
        self.count += 1;
        self.sum += seconds;
    }

    /// Returns how many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns what so many of all do not exceed, `share` being from 0 to 1: the bound of a bucket,
    /// in seconds. `None`: nothing was counted, or it is beyond the last bound.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = share * self.count as f64;
        let mut sum = 0;
        let mut cumulated = BOUNDS.iter().zip(self.buckets).map(|(bound, count)| {
            sum += count;
            (*bound, sum)
        });
        cumulated.find(|(_, sum)| *sum > 0 && *sum as f64 >= wanted).map(|(bound, _)| bound)
    }

    /// Returns all of them together, in seconds.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Upper bound and count of each bucket, not cumulated; the last bound is infinite.
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        let beyond = self.count - self.buckets.iter().sum::<u64>();
        let bounded = BOUNDS.iter().copied().zip(self.buckets);
        bounded.chain([(f64::INFINITY, beyond)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_has_one_bucket() {
        let mut histogram = Histogram::default();
        for seconds in [0.0, 0.001, 0.001_1, 60.0] {
            histogram.observe(seconds);
        }
        let filled: Vec<_> =
            histogram.buckets().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.000_1, 1), (0.001, 1), (0.002, 1), (f64::INFINITY, 1)]);
        assert_eq!(histogram.count(), 4);
    }

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for _ in 0..98 {
            histogram.observe(0.000_7);
        }
        assert_eq!((histogram.quantile(0.0), histogram.quantile(1.0)), (Some(0.001), Some(0.001)));
        histogram.observe(0.004);
        histogram.observe(31.0);
        assert_eq!(histogram.quantile(0.5), Some(0.001));
        assert_eq!(histogram.quantile(0.99), Some(0.005));
        assert_eq!(histogram.quantile(1.0), None);
    }
}
