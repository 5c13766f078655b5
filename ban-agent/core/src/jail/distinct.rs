//! How many different values an address tried within `findtime`: user names, paths, ports.
//!
//! Eight bytes a value. Up to [`KEPT`] the count is exact; beyond, the values with the smallest hashes
//! stand for all (a theta sketch: Dasgupta, Lang, Rhodes, Thaler, "A Framework for Estimating Stream
//! Expression Cardinalities", ICDT 2016), at 1/16 of a standard deviation. Hashes are keyed: nobody
//! can choose values that fall together.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

/// Values that are kept.
const KEPT: usize = 256;

/// Hash of a value, as it is kept.
pub(super) fn hash(key: &RandomState, value: &str) -> u32 {
    let [a, b, c, d, ..] = key.hash_one(value).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The values of one address and one field.
#[derive(Clone, Debug)]
pub(super) struct Distinct {
    /// Hash, and second of log time since 1970 at which it was seen last; by hash.
    values: Vec<(u32, u32)>,
    /// Values with a larger hash are not kept.
    ceiling: u32,
}

impl Default for Distinct {
    fn default() -> Distinct {
        Distinct { values: Vec::new(), ceiling: u32::MAX }
    }
}

impl Distinct {
    /// A value at `time` (milliseconds); whether at least `wanted` different ones are of the
    /// `findtime` that ends at `latest`.
    pub(super) fn add(
        &mut self,
        hash: u32,
        time: i64,
        latest: i64,
        findtime: Duration,
        wanted: u32,
    ) -> bool {
        let time = second(time);
        if hash <= self.ceiling {
            match self.values.binary_search_by_key(&hash, |value| value.0) {
                Ok(at) => {
                    if let Some(value) = self.values.get_mut(at) {
                        value.1 = value.1.max(time);
                    }
                }
                Err(at) => self.values.insert(at, (hash, time)),
            }
        }
        if self.values.len() <= KEPT && self.estimate() < u64::from(wanted) {
            return false;
        }
        let findtime = u32::try_from(findtime.as_secs()).unwrap_or(u32::MAX);
        let since = second(latest).saturating_sub(findtime);
        self.values.retain(|value| value.1 >= since);
        if self.values.is_empty() {
            self.ceiling = u32::MAX;
        }
        while self.values.len() > KEPT {
            self.values.pop();
            // the largest that is kept is the last that would be
            self.ceiling = self.values.last().map_or(u32::MAX, |value| value.0);
        }
        self.estimate() >= u64::from(wanted)
    }

    /// One value less.
    pub(super) fn forget(&mut self, hash: u32) {
        self.values.retain(|value| value.0 != hash);
    }

    /// Returns how many there are, those that are out of date included.
    fn estimate(&self) -> u64 {
        let kept = u64::try_from(self.values.len()).unwrap_or(u64::MAX);
        (kept << 32) / (u64::from(self.ceiling) + 1)
    }
}

fn second(millis: i64) -> u32 {
    u32::try_from(millis.div_euclid(1000).max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const FINDTIME: Duration = Duration::from_secs(60);

    proptest! {
        /// Against a plain table of values and times: up to what is kept, every answer is exact.
        #[test]
        fn small_numbers_are_exact(
            wanted in 1u32..12,
            steps in prop::collection::vec((0u32..16, 0i64..30, any::<bool>()), 0..120),
        ) {
            let key = RandomState::new();
            let (mut distinct, mut model) = (Distinct::default(), HashMap::new());
            let mut latest = 1_800_000_000_000;
            for (value, passed, late) in steps {
                latest += passed * 1000;
                // lines come out of order
                let time = if late { latest - 20_000 } else { latest };
                let seen = model.entry(value).or_insert(time);
                *seen = time.max(*seen);
                let expected = model.values().filter(|seen| **seen >= latest - 60_000).count();
                let hash = hash(&key, &value.to_string());
                let reached = distinct.add(hash, time, latest, FINDTIME, wanted);
                prop_assert_eq!(reached, expected >= wanted as usize);
            }
        }
    }

    #[test]
    fn large_numbers_are_estimated_in_bounded_memory() {
        for wanted in [300, 1000, 20_000] {
            let (key, mut distinct) = (RandomState::new(), Distinct::default());
            let mut reached = None;
            for number in 0..3 * wanted {
                // each twice: a value that comes again is the same
                for _ in 0..2 {
                    let hash = hash(&key, &number.to_string());
                    if distinct.add(hash, 0, 0, FINDTIME, wanted) {
                        reached.get_or_insert(number);
                    }
                }
                assert!(distinct.values.capacity() <= 2 * KEPT + 2);
            }
            // five standard deviations
            let ratio = f64::from(reached.unwrap()) / f64::from(wanted);
            assert!((0.69..=1.31).contains(&ratio), "{wanted}: {ratio}");
        }
    }

    #[test]
    fn what_is_out_of_date_makes_room() {
        let (key, mut distinct) = (RandomState::new(), Distinct::default());
        let mut add = |value: u32, second: i64| {
            let hash = hash(&key, &value.to_string());
            distinct.add(hash, second * 1000, second * 1000, FINDTIME, 400)
        };
        // never more than 360 within a minute, over hours
        assert!((0..20_000).all(|number| !add(number, i64::from(number) / 5)));
    }
}
