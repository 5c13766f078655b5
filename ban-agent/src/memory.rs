//! How many addresses a jail tracks unless it is told: what 2 % of the memory hold, which this machine,
//! container or unit has.

use std::{fs, path::Path, sync::OnceLock};

/// Bytes of memory for each one: it takes at most 160 of them.
const EACH: u64 = 8 << 10;
const FEWEST: usize = 1 << 16;
const MOST: usize = 1 << 20;

/// Returns the default of `max_tracked`.
pub(crate) fn max_tracked() -> usize {
    static DEFAULT: OnceLock<usize> = OnceLock::new();
    *DEFAULT.get_or_init(|| suspects(memory()))
}

fn suspects(memory: u64) -> usize {
    usize::try_from(memory / EACH).unwrap_or(MOST).clamp(FEWEST, MOST)
}

/// Bytes: what the machine has, or less if a control group (version 2) of this process says so.
fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    #[expect(clippy::useless_conversion, reason = "a machine's word has 32 bits elsewhere")]
    let machine = u64::from(info.totalram).saturating_mul(info.mem_unit.into());
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let own = Path::new("/sys/fs/cgroup").join(own);
    let folders = own.ancestors().take_while(|folder| folder.starts_with("/sys/fs/cgroup"));
    let limits = folders.filter_map(|folder| {
        fs::read_to_string(folder.join("memory.max")).ok()?.trim().parse().ok()
    });
    limits.fold(machine, u64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_memory_within_bounds() {
        let gib = |number: u64| suspects(number << 30);
        assert_eq!([0, 1, 4, 8, 512].map(gib), [65_536, 131_072, 524_288, 1 << 20, 1 << 20]);
        assert!(memory() > 1 << 20);
    }
}
