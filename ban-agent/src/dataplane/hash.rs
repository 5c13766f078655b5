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
        self.state = fold(self.state ^ word, self.seed | 1) ^ self.seed.rotate_left(32);
    }
}

/// Both halves of the 128-bit product, together.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    // Both fit: one is masked, the other shifted.
    let half = |bits: u128| u64::try_from(bits).unwrap_or_default();
    half(product & u128::from(u64::MAX)) ^ half(product >> 64)
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

    /// Once more, by a constant without structure (the golden ratio's fraction): a short key
    /// has been multiplied only once.
    fn finish(&self) -> u64 {
        fold(self.state ^ self.seed, 0x9e37_79b9_7f4a_7c15)
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
