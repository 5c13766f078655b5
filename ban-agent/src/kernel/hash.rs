//! Hash tables of addresses: a million of them are looked up while bans are restored.
//!
//! Keyed, so that nobody can choose addresses that collide; a folded multiplication instead of
//! the standard library's SipHash, which is made for long keys.

use std::{
    collections::{HashMap, HashSet, hash_map::RandomState},
    hash::{BuildHasher, Hasher},
    sync::LazyLock,
};

/// A map keyed by addresses.
pub(super) type Map<K, V> = HashMap<K, V, Keyed>;
/// A set of addresses.
pub(super) type Set<K> = HashSet<K, Keyed>;

/// The key of all tables of this process.
static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));

/// Makes [`Fold`]s.
#[derive(Clone, Debug)]
pub(super) struct Keyed(u64);

impl Default for Keyed {
    fn default() -> Keyed {
        Keyed(*SEED)
    }
}

impl BuildHasher for Keyed {
    type Hasher = Fold;

    fn build_hasher(&self) -> Fold {
        Fold { state: self.0, seed: self.0 }
    }
}

/// Multiplies each word into 128 bits and folds the halves (wyhash, Wang Yi).
#[derive(Debug)]
pub(super) struct Fold {
    state: u64,
    seed: u64,
}

impl Fold {
    fn word(&mut self, word: u64) {
        let wide = u128::from(self.state ^ word) * u128::from(self.seed | 1);
        let [low, high] = [wide & u128::from(u64::MAX), wide >> 64];
        // Both fit: one is masked, the other shifted.
        self.state = u64::try_from(low ^ high).unwrap_or_default() ^ self.seed.rotate_left(32);
    }
}

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            self.word(u64::from_ne_bytes(word));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.word(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.word(number);
    }

    /// Lengths of arrays: constant for each of our keys.
    fn write_usize(&mut self, _number: usize) {}

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_spread() {
        let keyed = Keyed::default();
        let low: HashSet<u64> =
            (0..4_096_u32).map(|n| keyed.hash_one(n.to_be_bytes()) & 0xfff).collect();
        let high: HashSet<u64> =
            (0..4_096_u32).map(|n| keyed.hash_one(n.to_be_bytes()) >> 52).collect();
        // 4096 random draws of 4096 hit about 2589 different values.
        assert!(low.len() > 2_300 && high.len() > 2_300, "{} {}", low.len(), high.len());
    }
}
