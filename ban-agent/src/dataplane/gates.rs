//! Keeps the gates: the bits that let unbanned packets pass at once.
//!
//! A missing bit would let a banned packet pass, so bits are set after their ban is in the maps
//! and go only when no ban needs them. Pure bookkeeping over a [`Bitmap`]; the real one is the
//! program's own memory.

use ban_common::{GATE_WORDS, gate_v4, gate_v6};
use ipnet::{Ipv4Net, Ipv6Net};

use foldhash::{HashMap as Map, HashSet as Set};

/// Memory of 64-bit words.
pub(super) trait Bitmap {
    /// Returns the word at `index`.
    fn get(&mut self, index: usize) -> u64;
    /// Writes the word at `index`.
    fn set(&mut self, index: usize, value: u64);
    /// About so many words are looked at, or written, next.
    fn prepare(&mut self, _count: usize) {}
    /// Nothing is, for a while.
    fn rest(&mut self) {}
}

/// IPv4: one bit per /24, exact.
#[derive(Debug)]
pub(super) struct GateV4<W> {
    words: W,
    /// Bans inside each /24 (of /24 and longer).
    counts: Map<u32, u32>,
    /// Bans that cover several /24s.
    wide: Set<Ipv4Net>,
}

impl<W: Bitmap> GateV4<W> {
    /// Returns an empty gate over `words`, whose old content counts as garbage until
    /// [`Self::rewrite`].
    pub(super) fn new(words: W) -> GateV4<W> {
        GateV4 { words, counts: Map::default(), wide: Set::default() }
    }

    /// About so many bans come or go next.
    pub(super) fn prepare(&mut self, count: usize) {
        self.words.prepare(count);
    }

    /// None does, for a while.
    pub(super) fn rest(&mut self) {
        self.words.rest();
    }

    /// Notes a new ban, without touching the bits.
    pub(super) fn note(&mut self, net: Ipv4Net) {
        if net.prefix_len() >= 24 {
            *self.counts.entry(block(net)).or_default() += 1;
        } else {
            self.wide.insert(net);
        }
    }

    /// A new ban: sets its bits.
    pub(super) fn add(&mut self, net: Ipv4Net) {
        self.note(net);
        self.mend(net);
    }

    /// Sets bits of a ban that are missing though it was added. Whether any was.
    pub(super) fn mend(&mut self, net: Ipv4Net) -> bool {
        let (first, mut missing) = (block(net), false);
        self.words.prepare(word_range(net).len());
        for index in word_range(net) {
            let bits = mask(first, blocks(net), index);
            let old = self.words.get(index);
            if old & bits != bits {
                self.words.set(index, old | bits);
                missing = true;
            }
        }
        missing
    }

    /// A ban is gone: clears the bits that no other ban needs.
    pub(super) fn remove(&mut self, net: Ipv4Net) {
        if net.prefix_len() < 24 {
            self.wide.remove(&net);
            return self.refresh(net);
        }
        let block = block(net);
        if let Some(count) = self.counts.get_mut(&block) {
            *count -= 1;
            if *count > 0 {
                return;
            }
            self.counts.remove(&block);
        }
        if !self.covered(net) {
            let (index, bit) = gate_v4(block << 8);
            let old = self.words.get(index as usize);
            self.words.set(index as usize, old & !bit);
        }
    }

    /// Returns whether a ban of several /24s lies around `net`.
    fn covered(&self, net: Ipv4Net) -> bool {
        !self.wide.is_empty()
            && (0..24).any(|length| {
                let outer = Ipv4Net::new(net.network(), length).map(|outer| outer.trunc());
                outer.is_ok_and(|outer| self.wide.contains(&outer))
            })
    }

    /// Makes every word what the notes say.
    pub(super) fn rewrite(&mut self) {
        self.refresh(Ipv4Net::default());
    }

    /// Computes the words under `net` anew and writes those that differ.
    fn refresh(&mut self, net: Ipv4Net) {
        let words = word_range(net);
        let start = words.start;
        let mut fresh = vec![0_u64; words.len()];
        for wide in self.wide.iter().filter(|w| word_range(**w).start < words.end) {
            for index in word_range(*wide) {
                if let Some(word) = index.checked_sub(start).and_then(|at| fresh.get_mut(at)) {
                    *word |= mask(block(*wide), blocks(*wide), index);
                }
            }
        }
        let mut set = |block: u32| {
            let (word, bit) = gate_v4(block << 8);
            let at = (word as usize).checked_sub(start);
            if let Some(word) = at.and_then(|at| fresh.get_mut(at)) {
                *word |= bit;
            }
        };
        if words.len() * 64 < self.counts.len() {
            let first = u32::try_from(start * 64).unwrap_or(0);
            let count = u32::try_from(words.len() * 64).unwrap_or(0);
            (first..first + count).filter(|b| self.counts.contains_key(b)).for_each(&mut set);
        } else {
            self.counts.keys().copied().for_each(&mut set);
        }
        self.words.prepare(fresh.len());
        for (at, word) in fresh.into_iter().enumerate() {
            if self.words.get(start + at) != word {
                self.words.set(start + at, word);
            }
        }
    }
}

/// Number of the first /24 of `net`.
fn block(net: Ipv4Net) -> u32 {
    u32::from(net.network()) >> 8
}

/// Returns how many /24s `net` touches.
fn blocks(net: Ipv4Net) -> u64 {
    1 << 24_u8.saturating_sub(net.prefix_len())
}

fn word_range(net: Ipv4Net) -> std::ops::Range<usize> {
    let first = u64::from(block(net));
    let last = first + blocks(net) - 1;
    let index = |block: u64| usize::try_from(block / 64).unwrap_or(GATE_WORDS);
    index(first)..index(last) + 1
}

/// Returns the bits of word `index` that belong to `count` blocks from `first` on.
fn mask(first: u32, count: u64, index: usize) -> u64 {
    if count >= 64 {
        return u64::MAX;
    }
    let start = u64::from(first);
    if start / 64 != index as u64 {
        return 0;
    }
    ((1 << count) - 1) << (start % 64)
}

/// Shorter IPv6 prefixes are not in the gate: a flag sends every packet that it would let go to
/// the one trie that holds them.
pub(super) const GATE_LENGTH: u8 = 48;

/// IPv6: a blocked Bloom filter over the /48s, with the number of bans in each.
#[derive(Debug)]
pub(super) struct GateV6<W> {
    words: W,
    /// Bans inside each /48, by the upper half of the address.
    counts: Map<u64, u32>,
    /// Sites whose bits are still set though they have no ban any more.
    stale: usize,
}

/// Stale sites are worth a rebuild from here on.
const STALE: usize = 1_024;

impl<W: Bitmap> GateV6<W> {
    /// Returns an empty gate over `words`, whose old content counts as garbage until
    /// [`Self::rewrite`].
    pub(super) fn new(words: W) -> GateV6<W> {
        GateV6 { words, counts: Map::default(), stale: 0 }
    }

    /// About so many bans come or go next.
    pub(super) fn prepare(&mut self, count: usize) {
        self.words.prepare(count);
    }

    /// None does, for a while.
    pub(super) fn rest(&mut self) {
        self.words.rest();
    }

    /// Notes a new ban, without touching the bits. Whether it is the first in its /48.
    pub(super) fn note(&mut self, net: Ipv6Net) -> bool {
        if net.prefix_len() < GATE_LENGTH {
            return false;
        }
        let count = self.counts.entry(site(net)).or_default();
        *count += 1;
        *count == 1
    }

    /// A new ban: sets its bits.
    pub(super) fn add(&mut self, net: Ipv6Net) {
        if self.note(net) {
            self.mend(net);
        }
    }

    /// Sets bits of a ban that are missing though it was added. Whether any was.
    pub(super) fn mend(&mut self, net: Ipv6Net) -> bool {
        if net.prefix_len() < GATE_LENGTH {
            return false;
        }
        let (word, bits) = gate_v6(site(net).to_be());
        let old = self.words.get(word as usize);
        if old & bits != bits {
            self.words.set(word as usize, old | bits);
        }
        old & bits != bits
    }

    /// A ban is gone. Bits of a Bloom filter cannot be cleared one by one: enough of them
    /// together are worth computing the filter anew.
    pub(super) fn remove(&mut self, net: Ipv6Net) {
        if net.prefix_len() < GATE_LENGTH {
            return;
        }
        if let Some(count) = self.counts.get_mut(&site(net)) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&site(net));
                self.stale += 1;
            }
        }
        if self.stale >= STALE.max(self.counts.len() / 4) {
            self.rewrite();
        }
    }

    /// Makes every word what the notes say. Only bits that no ban needs are cleared, so there is
    /// no moment at which one is missing.
    pub(super) fn rewrite(&mut self) {
        let mut fresh = vec![0; GATE_WORDS];
        for site in self.counts.keys() {
            let (word, bits) = gate_v6(site.to_be());
            if let Some(word) = fresh.get_mut(word as usize) {
                *word |= bits;
            }
        }
        self.words.prepare(fresh.len());
        for (index, word) in fresh.into_iter().enumerate() {
            if self.words.get(index) != word {
                self.words.set(index, word);
            }
        }
        self.stale = 0;
    }
}

/// Returns the /48 of `net`: the upper half of its address as a number, the last 16 bits zero.
fn site(net: Ipv6Net) -> u64 {
    let [top, ..] = split(net);
    top & !0xffff
}

fn split(net: Ipv6Net) -> [u64; 2] {
    let bits = u128::from(net.network());
    [
        u64::try_from(bits >> 64).unwrap_or(0),
        u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Bitmap for Vec<u64> {
        fn get(&mut self, index: usize) -> u64 {
            self[index]
        }
        fn set(&mut self, index: usize, value: u64) {
            self[index] = value;
        }
    }

    fn open_v4(gate: &GateV4<Vec<u64>>, block: u32) -> bool {
        let (word, bit) = gate_v4(block << 8);
        gate.words[word as usize] & bit != 0
    }

    fn net_v4() -> impl Strategy<Value = Ipv4Net> {
        // Few different addresses, so that they overlap.
        (0_u32..64, 6_u8..=32).prop_map(|(address, length)| {
            Ipv4Net::new((address << 7 | 10 << 24).into(), length).unwrap().trunc()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn v4_bits_are_exact(steps in prop::collection::vec((net_v4(), any::<bool>()), 1..60)) {
            let mut gate = GateV4::new(vec![0_u64; GATE_WORDS]);
            let mut held: Vec<Ipv4Net> = Vec::new();
            for (net, ban) in steps {
                match held.iter().position(|other| *other == net) {
                    None if ban => {
                        held.push(net);
                        gate.add(net);
                    }
                    Some(at) if !ban => {
                        held.swap_remove(at);
                        gate.remove(net);
                    }
                    _ => {}
                }
                for block in (10 << 16)..(10 << 16) + 40 {
                    let range = Ipv4Net::new((block << 8).into(), 24).unwrap();
                    let needed =
                        held.iter().any(|net| net.contains(&range) || range.contains(net));
                    prop_assert_eq!(open_v4(&gate, block), needed, "{} {:?}", range, &held);
                }
            }
            for net in held {
                gate.remove(net);
            }
            prop_assert!(gate.words.iter().all(|word| *word == 0));
        }
    }

    #[test]
    fn v6_never_misses_and_decays() {
        let net = |n: u128| Ipv6Net::new((n << 80 | 0x2001 << 112).into(), 64).unwrap();
        let mut gate = GateV6::new(vec![0_u64; GATE_WORDS]);
        let open = |gate: &GateV6<Vec<u64>>, n| {
            let (word, bits) = gate_v6(site(net(n)).to_be());
            gate.words[word as usize] & bits == bits
        };
        (0..5_000).for_each(|n| gate.add(net(n)));
        assert!((0..5_000).all(|n| open(&gate, n)));
        let wrong = (5_000..105_000).filter(|n| open(&gate, *n)).count();
        assert!(wrong < 100, "{wrong} of 100000 unbanned sites pass the gate");
        gate.add(Ipv6Net::new([0x2a00, 0, 0, 0, 0, 0, 0, 0].into(), 24).unwrap());
        assert!(!open(&gate, 1 << 30), "behind the flag");
        (0..4_900).for_each(|n| gate.remove(net(n)));
        gate.remove(Ipv6Net::new([0x2a00, 0, 0, 0, 0, 0, 0, 0].into(), 24).unwrap());
        assert!((4_900..5_000).all(|n| open(&gate, n)));
        assert!(!open(&gate, 1 << 30));
        let left = (0..4_900).filter(|n| open(&gate, *n)).count();
        assert!(left < STALE + 100, "{left} sites without a ban still pass the gate");
    }
}
