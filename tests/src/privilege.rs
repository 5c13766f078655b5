//! What a ring needs from the machine. A test that cannot run says so; where `CI=true` says that
//! it must run, it fails.

use std::path::Path;

/// Whether the test can run; prints `SKIPPED: <reason>` if it cannot.
///
/// # Panics
/// If it cannot and `CI=true`.
#[must_use]
pub fn ready(what: &str) -> bool {
    let Some(reason) = missing() else { return true };
    lack(what, &reason);
    false
}

/// Says that the test cannot run.
///
/// # Panics
/// If `CI=true`.
pub fn lack(what: &str, reason: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{what} must run in CI: {reason}");
    eprintln!("SKIPPED: {what}: {reason}");
}

/// The running kernel's version: its first two numbers.
#[must_use]
pub fn kernel() -> Option<(u32, u32)> {
    let release = ban_agent::dataplane::release();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().ok());
    numbers.next()?.zip(numbers.next()?)
}

fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    let pins = Path::new("/sys/fs/bpf");
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted = mounts.lines().any(|line| line.split(' ').nth(1) == pins.to_str());
    (!mounted)
        .then(|| "no BPF file system at /sys/fs/bpf (mount -t bpf bpf /sys/fs/bpf)".to_owned())
}

/// The test runs only if this machine lets it; otherwise it is reported as skipped.
#[macro_export]
macro_rules! require_root {
    ($what:expr) => {
        if !$crate::privilege::ready($what) {
            return;
        }
    };
}
