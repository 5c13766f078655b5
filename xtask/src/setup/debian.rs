//! A clean root of the distribution that we run on, to install the package on. Made once, under
//! `target`; whoever uses it copies it. Nothing of this machine is changed.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::{command, layout, privilege};

/// What a host has that runs the agent as a service; the rest is `debootstrap`'s minimum.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,libgcc-s1,logrotate";

/// The root; about a minute and 300 MB if there is none yet.
pub(crate) fn root() -> Result<PathBuf> {
    let suite = suite()?;
    let folder = layout::target().join("debian");
    let root = folder.join(&suite);
    if root.exists() {
        return Ok(root);
    }
    let new = folder.join(format!("{suite}.new"));
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    command::run(privilege::as_root("rm", &[])?.args(["-rf", "--one-file-system"]).arg(&new))?;
    println!("setup: a clean {suite}, for the package");
    let mut make = privilege::as_root("debootstrap", &[])?;
    make.args(["--variant=minbase", &format!("--include={PACKAGES}"), &suite]).arg(&new);
    command::run_logged(&mut make, &folder.join("debootstrap.log"))?;
    // its boot makes one of its own
    command::run(privilege::as_root("rm", &[])?.arg("-f").arg(new.join("etc/machine-id")))?;
    command::run(privilege::as_root("touch", &[])?.arg(new.join("etc/machine-id")))?;
    command::run(privilege::as_root("mv", &[])?.arg(&new).arg(&root))?;
    Ok(root)
}

/// The suite whose libc the package was linked with.
fn suite() -> Result<String> {
    let text = std::fs::read_to_string("/etc/os-release").context("cannot read os-release")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    match name {
        Some(name) if !name.is_empty() => Ok(name.trim_matches('"').to_owned()),
        _ => bail!("this is no release of Debian or Ubuntu: /etc/os-release names none"),
    }
}
