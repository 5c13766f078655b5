//! Boot time to `jiffies64`, the clock of the deadlines in the maps.
//!
//! A tick of `jiffies` is exactly the resolution of `CLOCK_MONOTONIC_COARSE`
//! (kernel/time/posix-timers.c: `KTIME_LOW_RES`, one tick). The offset is measured at a tick's
//! edge by a program that reads both clocks. Jiffies stand still in suspend, boot time does not:
//! [`JiffyClock::shifted`] notices. Programs know nothing of time namespaces, the agent may live in
//! one: time_namespaces(7).

use aya::programs::{TestRun as _, TestRunOptions, Xdp as Program};
use rustix::time::{ClockId, clock_getres, clock_gettime};

use super::error::Error;
use crate::clock::Boot;

/// Deadline of a ban that never ends.
const NEVER: u64 = u64::MAX;
/// Edges of ticks that are looked at.
const EDGES: u32 = 4;
/// A shift of the clocks against each other that is worth rewriting deadlines for.
const SHIFT_NS: u64 = 5_000_000;

/// Both clocks at one instant, and the length of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JiffyClock {
    /// Nanoseconds per jiffy.
    pub tick_ns: u64,
    /// `jiffies64` at the instant …
    pub jiffies: u64,
    /// … at which `CLOCK_BOOTTIME` showed this, in nanoseconds.
    pub boot_ns: u64,
    /// Boot time minus monotonic time: what the machine slept.
    pub(super) slept_ns: u64,
}

impl JiffyClock {
    /// Measures, with the program `ban_clock`. Takes at most a tick more than [`EDGES`].
    ///
    /// # Errors
    /// If the program cannot be run.
    pub fn measure(program: &Program) -> Result<JiffyClock, Error> {
        let resolution = clock_getres(ClockId::MonotonicCoarse);
        let tick_ns = nanoseconds(resolution.tv_sec, resolution.tv_nsec).max(1);
        let (slept_ns, shift_ns) = (slept(), namespace_ns());
        let (mut last, _) = sample(program)?;
        let (mut edges, mut best) = (0, None);
        // An edge comes within a tick; a hypervisor may sit on us for longer.
        for _ in 0..10_000_000 {
            let (jiffies, boot_ns) = sample(program)?;
            if jiffies == last {
                continue;
            }
            last = jiffies;
            let boot_ns = boot_ns.saturating_add_signed(shift_ns);
            let edge = JiffyClock { tick_ns, jiffies, boot_ns, slept_ns };
            let best = best.insert(best.map_or(edge, |other: JiffyClock| other.earlier(edge)));
            edges += 1;
            if edges == EDGES {
                return Ok(*best);
            }
        }
        Err(Error::call("BPF_PROG_TEST_RUN", "ban_clock", std::io::ErrorKind::TimedOut.into()))
    }

    /// Of two measurements the one whose ticks begin earlier: an edge can be seen late, on a
    /// machine whose host is busy by milliseconds, but never early. A late one would end bans early.
    fn earlier(self, other: JiffyClock) -> JiffyClock {
        let begin = |clock: &JiffyClock| {
            i128::from(clock.boot_ns) - i128::from(clock.jiffies) * i128::from(clock.tick_ns)
        };
        if begin(&other) < begin(&self) { other } else { self }
    }

    /// Returns the deadline as the program compares it: the first jiffy that begins at or after
    /// `end`.
    #[must_use]
    pub fn jiffies_of(&self, end: Boot) -> u64 {
        match end {
            Boot(0) => 0,
            Boot::NEVER => NEVER,
            Boot(millis) => {
                let ahead = i128::from(millis) * 1_000_000 - i128::from(self.boot_ns);
                let tick = i128::from(self.tick_ns);
                // Rounds up: a ban may end a tick late, never early.
                let ticks = ahead.div_euclid(tick) + i128::from(ahead.rem_euclid(tick) != 0);
                let deadline = i128::from(self.jiffies) + ticks;
                u64::try_from(deadline.clamp(1, i128::from(NEVER - 1))).unwrap_or(NEVER)
            }
        }
    }

    /// Returns the boot time at which `deadline` is over.
    #[must_use]
    pub fn boot_of(&self, deadline: u64) -> Boot {
        match deadline {
            0 => Boot(0),
            NEVER => Boot::NEVER,
            _ => {
                let ticks = i128::from(deadline) - i128::from(self.jiffies);
                let ns = i128::from(self.boot_ns) + ticks * i128::from(self.tick_ns);
                let millis = (ns / 1_000_000).clamp(1, i128::from(u64::MAX - 1));
                Boot(u64::try_from(millis).unwrap_or(u64::MAX - 1))
            }
        }
    }

    /// Returns whether the machine slept since the measurement: deadlines must be written again.
    #[must_use]
    pub fn shifted(&self) -> bool {
        slept().abs_diff(self.slept_ns) > SHIFT_NS
    }

    /// Returns whether `other` reads a deadline differently, beyond the noise of a measurement.
    #[must_use]
    pub fn differs(&self, other: &JiffyClock) -> bool {
        let here = self.boot_of(other.jiffies).0;
        here.abs_diff(other.boot_ns / 1_000_000) > SHIFT_NS / 1_000_000
    }

    /// Returns the same deadline under another measurement.
    #[must_use]
    pub fn convert(&self, deadline: u64, to: &JiffyClock) -> u64 {
        to.jiffies_of(self.boot_of(deadline))
    }
}

/// Boot time minus monotonic time: constant while the machine is awake.
fn slept() -> u64 {
    let boot = clock_gettime(ClockId::Boottime);
    let awake = clock_gettime(ClockId::Monotonic);
    nanoseconds(boot.tv_sec, boot.tv_nsec).saturating_sub(nanoseconds(awake.tv_sec, awake.tv_nsec))
}

/// Returns what this process's time namespace adds to the boot clock.
fn namespace_ns() -> i64 {
    let offsets = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    offset_in(&offsets).unwrap_or(0)
}

fn offset_in(offsets: &str) -> Option<i64> {
    let mut words =
        offsets.lines().find_map(|line| line.strip_prefix("boottime"))?.split_whitespace();
    let mut number = || words.next()?.parse::<i64>().ok();
    number()?.checked_mul(1_000_000_000)?.checked_add(number()?)
}

fn nanoseconds(seconds: i64, nanos: i64) -> u64 {
    seconds.unsigned_abs().saturating_mul(1_000_000_000).saturating_add(nanos.unsigned_abs())
}

fn sample(program: &Program) -> Result<(u64, u64), Error> {
    let input = [0_u8; 64];
    let mut output = [0_u8; 64];
    program
        .test_run(TestRunOptions {
            data_in: Some(&input),
            data_out: Some(&mut output),
            ..TestRunOptions::new()
        })
        .map_err(|source| Error::Program { what: "read the clocks", source: Box::new(source) })?;
    let word = |at: usize| {
        output.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |b| u64::from_ne_bytes(*b))
    };
    Ok((word(0), word(8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: JiffyClock =
        JiffyClock { tick_ns: 4_000_000, jiffies: 1_000, boot_ns: 50_000_000_000, slept_ns: 0 };

    #[test]
    fn a_tick_that_was_seen_late_does_not_count() {
        let edge =
            |jiffies, boot_ns| JiffyClock { tick_ns: 4_000_000, jiffies, boot_ns, slept_ns: 0 };
        let (late, exact) = (edge(100, 402_000_000), edge(101, 404_000_000));
        assert_eq!(late.earlier(exact), exact);
        assert_eq!(exact.earlier(late), exact);
    }

    #[test]
    fn a_time_namespace_shifts_the_boot_clock() {
        let offsets = "monotonic           1         2\nboottime       -24000  5000000\n";
        assert_eq!(offset_in(offsets), Some(-23_999_995_000_000));
        assert_eq!(offset_in(""), None, "a kernel without time namespaces");
    }

    #[test]
    fn deadlines_round_up_to_a_tick() {
        for (millis, jiffies) in
            [(50_000, 1_000), (50_001, 1_001), (50_004, 1_001), (50_005, 1_002), (49_996, 999)]
        {
            assert_eq!(CLOCK.jiffies_of(Boot(millis)), jiffies, "{millis}");
        }
        assert_eq!(CLOCK.jiffies_of(Boot::NEVER), u64::MAX);
        assert_eq!(CLOCK.jiffies_of(Boot(0)), 0);
        assert_eq!(CLOCK.jiffies_of(Boot(1)), 1, "long over, but not 'none'");
    }

    #[test]
    fn and_back_within_a_tick() {
        for millis in [50_000, 50_001, 3_650_003, 1 << 40] {
            let back = CLOCK.boot_of(CLOCK.jiffies_of(Boot(millis))).0;
            assert!(back >= millis && back - millis < 4, "{millis} {back}");
        }
        assert_eq!(CLOCK.boot_of(u64::MAX), Boot::NEVER);
    }

    #[test]
    fn sleep_moves_deadlines() {
        // Ten seconds asleep: boot time is ahead by that much at the same jiffy.
        let after = JiffyClock { boot_ns: CLOCK.boot_ns + 10_000_000_000, ..CLOCK };
        let deadline = CLOCK.jiffies_of(Boot(100_000));
        assert_eq!(CLOCK.convert(deadline, &after), deadline - 2_500);
    }
}
