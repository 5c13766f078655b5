//! How often those were seen who are not tracked: a count-min sketch with conservative update
//! (Estan, Varghese, "New Directions in Traffic Measurement and Accounting", 2002), all cells of
//! one in one cache line, halved as it fills (Einziger, Friedman, Manes, "TinyLFU", 2017). It may
//! say too much, therefore it decides on no ban: it says which address is worth a place.

/// Bytes of a block: a cache line.
const BLOCK: usize = 64;
/// Rows of a block.
const ROWS: usize = 4;
/// Bytes for each one who can be tracked.
const BYTES_EACH: usize = 16;

/// Estimated numbers, by hash.
#[derive(Debug)]
pub(super) struct Sketch {
    blocks: Vec<[u8; BLOCK]>,
    /// Since it was halved.
    added: usize,
    halved: i64,
}

impl Sketch {
    /// Returns an empty one, beside so many who are tracked; `now` in milliseconds.
    pub(super) fn new(tracked: usize, now: i64) -> Sketch {
        let blocks = (tracked * BYTES_EACH / BLOCK).max(64).next_power_of_two();
        Sketch { blocks: vec![[0; BLOCK]; blocks], added: 0, halved: now }
    }

    /// Returns how often, at least; up to 255.
    pub(super) fn estimate(&mut self, hash: u64) -> u8 {
        self.cells(hash).map(|cell| *cell).min().unwrap_or(0)
    }

    /// So many times more; says how often by now.
    pub(super) fn add(&mut self, hash: u64, times: u8) -> u8 {
        let estimate = self.estimate(hash).saturating_add(times);
        self.cells(hash).for_each(|cell| *cell = estimate.max(*cell));
        self.added += 1;
        estimate
    }

    /// What it says of this hash counts no more.
    pub(super) fn forget(&mut self, hash: u64) {
        let estimate = self.estimate(hash);
        self.cells(hash).for_each(|cell| *cell -= estimate);
    }

    /// Halves everything once so much was added that few cells are empty, and once in `window`
    /// milliseconds.
    pub(super) fn age(&mut self, now: i64, window: i64) {
        let full = self.added >= self.blocks.len() * BLOCK / ROWS / 2;
        if !full && now.saturating_sub(self.halved) < window {
            return;
        }
        self.blocks.as_flattened_mut().iter_mut().for_each(|cell| *cell /= 2);
        (self.added, self.halved) = (0, now);
    }

    fn cells(&mut self, hash: u64) -> impl Iterator<Item = &mut u8> {
        // the upper half finds the block, the lower one the cell of each row
        let at = usize::try_from(hash >> 32).unwrap_or(0) & (self.blocks.len() - 1);
        let rows =
            self.blocks.get_mut(at).into_iter().flat_map(|b| b.chunks_exact_mut(BLOCK / ROWS));
        rows.zip(hash.to_le_bytes()).filter_map(|(row, byte)| row.get_mut(usize::from(byte & 15)))
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher as _, RandomState};

    use super::*;

    #[test]
    fn never_too_little_and_seldom_too_much() {
        let (key, mut sketch) = (RandomState::new(), Sketch::new(10_000, 0));
        let hash = |number: u32| key.hash_one(number);
        for _ in 0..2 {
            (0..10_000).for_each(|number| assert!(sketch.add(hash(number), 1) > 0));
        }
        let too_much = (0..10_000).filter(|number| sketch.estimate(hash(*number)) > 2).count();
        assert!((0..10_000).all(|number| sketch.estimate(hash(number)) >= 2));
        assert!(too_much < 500, "{too_much}");
        let unseen = (10_000..20_000).filter(|number| sketch.estimate(hash(*number)) > 0).count();
        assert!(unseen < 500, "{unseen}");
    }

    #[test]
    fn forgets_one_and_ages_all() {
        let mut sketch = Sketch::new(1, 0);
        (0..300).for_each(|_| assert!(sketch.add(7, 1) > 0));
        sketch.add(9 << 32, 8);
        assert_eq!(sketch.estimate(7), 255);
        sketch.forget(7);
        sketch.age(999, 1000);
        assert_eq!((sketch.estimate(7), sketch.estimate(9 << 32)), (0, 8));
        sketch.age(1000, 1000);
        assert_eq!(sketch.estimate(9 << 32), 4);
        (0..5000).for_each(|number| assert!(sketch.add(number << 32, 1) > 0));
        sketch.age(1001, 1000);
        assert_eq!(sketch.added, 0, "full");
    }
}
