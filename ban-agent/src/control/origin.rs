//! Where the asking process works: told to the agent with every change, for the record.

use std::{fs, os::unix::fs::MetadataExt as _};

use crate::store::Origin;

/// The kernel's word for "nobody has logged in".
const UNSET: u32 = u32::MAX;
/// What is kept of a name.
const LENGTH: usize = 64;

/// Of this process.
pub(super) fn own() -> Origin {
    let login = fs::read_to_string("/proc/self/loginuid").ok();
    let login = login.and_then(|uid| uid.trim().parse().ok()).filter(|uid| *uid != UNSET);
    // without the audit system of the kernel, sudo's word
    let sudo = || std::env::var("SUDO_UID").ok()?.parse().ok();
    let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    Origin { login: login.or_else(sudo), tty: tty(&stat), unit: unit(&cgroup) }.bounded()
}

/// The innermost unit of systemd that a process is in: `ssh.service`, `session-3.scope`.
fn unit(cgroup: &str) -> Option<String> {
    let mut parts = cgroup.lines().flat_map(|line| line.split('/'));
    let is_unit = |part: &&str| part.ends_with(".service") || part.ends_with(".scope");
    parts.rfind(is_unit).map(ToOwned::to_owned)
}

/// The controlling terminal, by its number in /proc/PID/stat (proc_pid_stat(5)), found in /dev/pts.
fn tty(stat: &str) -> Option<String> {
    // the name of the program may hold anything, but ends before the last bracket
    let (_, rest) = stat.rsplit_once(')')?;
    let number: u64 = rest.split_whitespace().nth(4)?.parse().ok().filter(|number| *number != 0)?;
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xfff00));
    match major {
        136..=143 => Some(format!("pts/{}", (major - 136) * 256 + minor)),
        4 if minor < 64 => Some(format!("tty{minor}")),
        _ => {
            let console = fs::metadata("/dev/console").ok()?.rdev();
            (console == number).then(|| "console".to_owned())
        }
    }
}

impl Origin {
    /// Names no longer than they have to be.
    pub(super) fn bounded(self) -> Origin {
        let short = |text: String| text.chars().take(LENGTH).collect();
        Origin { login: self.login, tty: self.tty.map(short), unit: self.unit.map(short) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_and_units_have_names() {
        assert_eq!(tty("7 (a) b) S 1 2 3 34819 7").as_deref(), Some("pts/3"));
        assert_eq!(tty("7 (bash) S 1 2 3 1025 7").as_deref(), Some("tty1"));
        assert_eq!(tty("7 (cron) S 1 2 3 0 7"), None);
        let cgroup = "0::/user.slice/user-1000.slice/session-3.scope\n";
        assert_eq!(unit(cgroup).as_deref(), Some("session-3.scope"));
        assert_eq!(unit("0::/system.slice/cron.service\n").as_deref(), Some("cron.service"));
        assert_eq!(unit("0::/\n"), None);
        let long = Origin { unit: Some("x".repeat(1000)), ..Origin::default() };
        assert_eq!(long.bounded().unit.map(|unit| unit.len()), Some(LENGTH));
    }
}
