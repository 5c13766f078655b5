//! How long a test waits for what has to happen: one figure for all tests of all rings. It is only
//! used up where a test fails, so it can be far more than anything takes; it is no measure of speed.
//!
//! Also compiled into the unit tests of the agent and into xtask, so it uses nothing.

use std::time::Duration;

/// More than any step takes, also on a busy machine that emulates another one: on Linux 5.15 there
/// the agent needed more than 30 s to start.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How long the engine may be held by one thing. The product holds it for two milliseconds; tests run
/// code that is not optimized, several at once on two cores. One request that is not cut up takes
/// seconds there.
const HOLD: Duration = Duration::from_millis(400);

/// The same on this machine.
#[must_use]
pub fn hold() -> Duration {
    HOLD.saturating_mul(times())
}

/// The deadline of a step that takes `least` where all is well. `BAN_TEST_PATIENCE` is how many times
/// slower this machine is than any that we know; without it, 1.
#[must_use]
pub fn at_least(least: Duration) -> Duration {
    least.max(PATIENCE).saturating_mul(times())
}

/// How many times slower this machine is than any that we know.
fn times() -> u32 {
    let times = std::env::var("BAN_TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    times.unwrap_or(1).max(1)
}

/// The deadline of any step.
#[must_use]
pub fn patience() -> Duration {
    at_least(PATIENCE)
}
