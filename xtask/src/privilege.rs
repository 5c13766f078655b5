//! Who we are, and how to become root. Never asks for a password on its own account: `sudo` does.

use std::{
    ffi::OsStr,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::command::{find, output, run};

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// Whether privileged steps can run without anyone typing a password.
pub(crate) fn root_at_hand() -> bool {
    is_root()
        || find("sudo").is_some_and(|sudo| {
            let mut probe = Command::new(sudo);
            probe.args(["-n", "true"]).stdin(Stdio::null());
            probe.stdout(Stdio::null()).stderr(Stdio::null());
            probe.status().is_ok_and(|status| status.success())
        })
}

/// The program as root: directly, or through sudo, which keeps the variables named in `keep`.
pub(crate) fn as_root(program: impl AsRef<OsStr>, keep: &[&str]) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let Some(sudo) = find("sudo") else {
        bail!("this needs root, and there is no sudo; run the same command as root");
    };
    let mut command = Command::new(sudo);
    if !keep.is_empty() {
        command.arg(format!("--preserve-env={}", keep.join(",")));
    }
    command.arg("--").arg(program);
    Ok(command)
}

/// Mounts the BPF file system where it belongs, if the machine has not.
pub(crate) fn bpffs() -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some("/sys/fs/bpf")) {
        return Ok(());
    }
    let mut mount = as_root("mount", &[])?;
    run(mount.args(["-t", "bpf", "bpf", "/sys/fs/bpf"]))
        .context("hint: the kernel needs CONFIG_BPF_SYSCALL")
}
