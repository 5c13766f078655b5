//! A small seeded generator (xorshift64*, Vigna 2016): a failure names its seed.

use std::time::Duration;

/// The state; never zero.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// One stream for each `(seed, stream)`.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mixed = seed.wrapping_add(stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut random = Self(mixed | 1);
        for _ in 0..8 {
            random.below(1);
        }
        random
    }

    /// From 0 to below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16;
        value.checked_rem(limit).unwrap_or(0)
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// An index into something of this length.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// From nothing to below `limit`, by the microsecond.
    pub fn time(&mut self, limit: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(limit.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// The seed that `BAN_AGENT_SEED` names, else one of the clock's.
pub fn seed() -> u64 {
    let named = std::env::var("BAN_AGENT_SEED").ok().and_then(|text| text.parse().ok());
    named.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(1) % 1_000_000
    })
}
