//! The Debian package.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::{CONFFILES, DESCRIPTION, REPOSITORY, SUMMARY, VERSION, tree, tree::Tree};
use crate::command;

/// On an upgrade the running agent is replaced; its bans hold meanwhile, they are pinned.
const POSTINST: &str = "#!/bin/sh
set -e
if [ \"$1\" = configure ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    deb-systemd-invoke try-restart ban-agent.service
fi
";

/// A removed package leaves no program on an interface that nothing could take off any more.
const PRERM: &str = "#!/bin/sh
set -e
if [ \"$1\" = remove ]; then
    if [ -d /run/systemd/system ]; then
        deb-systemd-invoke stop ban-agent.service
    fi
    # a removal must not fail half-way: say what is left to do by hand
    ban-agent --quiet detach || echo 'still enforced: rm -r /sys/fs/bpf/ban-agent' >&2
fi
";

const POSTRM: &str = "#!/bin/sh
set -e
if [ \"$1\" = purge ]; then
    rm -rf /var/lib/ban-agent
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
";

const MAINTAINER: &str = "The ban-agent developers <ban-agent@users.noreply.github.com>";

/// Packs a tree. `depends`: what the program needs; `epoch`: seconds since 1970 that its files are of.
///
/// # Errors
/// If dpkg-deb cannot.
pub(super) fn pack(
    tree: &Tree,
    architecture: &str,
    depends: &str,
    epoch: &str,
    folder: &Path,
) -> Result<PathBuf> {
    tree.text("DEBIAN/control", &control(architecture, depends), 0o644)?;
    let conffiles: String = CONFFILES.iter().map(|file| format!("/{file}\n")).collect();
    tree.text("DEBIAN/conffiles", &conffiles, 0o644)?;
    for (script, text) in [("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)] {
        tree.text(&format!("DEBIAN/{script}"), text, 0o755)?;
    }
    tree.text("usr/share/doc/ban-agent/changelog", &changelog(epoch)?, 0o644)?;
    tree::compress(&tree.path("usr/share/doc/ban-agent/changelog"))?;
    let package = folder.join(format!("ban-agent_{VERSION}_{architecture}.deb"));
    let mut pack = Command::new("dpkg-deb");
    pack.env("SOURCE_DATE_EPOCH", epoch).args(["-Zxz", "--root-owner-group", "--build"]);
    command::run(pack.arg(&tree.root).arg(&package))?;
    Ok(package)
}

/// What a program needs that was linked on this machine: its libc, or a later one.
///
/// # Errors
/// If dpkg knows of none.
pub(super) fn depends_here() -> Result<String> {
    let libc =
        command::output(Command::new("dpkg-query").args(["-W", "-f", "${Version}", "libc6"]))?;
    let libc = libc.split('-').next().unwrap_or_default();
    Ok(format!("libc6 (>= {libc}), libgcc-s1"))
}

/// What Debian wants by this name; it names the place of the real one.
fn changelog(epoch: &str) -> Result<String> {
    let seconds = format!("@{epoch}");
    let mut date = Command::new("date");
    let date = command::output(date.args(["--utc", "--rfc-email", "--date", &seconds]))?;
    Ok(format!(
        "ban-agent ({VERSION}) unstable; urgency=medium\n\n\
         \x20 * What changed is in CHANGELOG.md, beside this file.\n\n\
         \x20-- {MAINTAINER}  {}\n",
        date.trim()
    ))
}

fn control(architecture: &str, depends: &str) -> String {
    let description: String = DESCRIPTION.iter().map(|line| format!(" {line}\n")).collect();
    format!(
        "Package: ban-agent\nVersion: {VERSION}\nArchitecture: {architecture}\n\
         Maintainer: {MAINTAINER}\n\
         Section: net\nPriority: optional\nDepends: {depends}\nSuggests: bpftool\nHomepage: {REPOSITORY}\n\
         Description: {SUMMARY}\n{description}"
    )
}
