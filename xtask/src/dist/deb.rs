//! The Debian package.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::{CONFFILES, DESCRIPTION, REPOSITORY, SUMMARY, VERSION, cross, tree::Tree};
use crate::command;

/// On an upgrade the running agent is replaced; its bans hold meanwhile, they are pinned.
const POSTINST: &str = "#!/bin/sh
set -e
if [ \"$1\" = configure ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl try-restart ban-agent.service
fi
";

/// A removed package leaves no program on an interface that nothing could take off any more.
const PRERM: &str = "#!/bin/sh
set -e
if [ \"$1\" = remove ]; then
    if [ -d /run/systemd/system ]; then
        systemctl stop ban-agent.service
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

/// Packs a tree. `libc`: the one that the program needs, if it is linked with one.
///
/// # Errors
/// If dpkg-deb cannot.
pub(super) fn pack(
    tree: &Tree,
    architecture: &str,
    libc: Option<&str>,
    folder: &Path,
) -> Result<PathBuf> {
    tree.text("DEBIAN/control", &control(architecture, libc), 0o644)?;
    let conffiles: String = CONFFILES.iter().map(|file| format!("/{file}\n")).collect();
    tree.text("DEBIAN/conffiles", &conffiles, 0o644)?;
    for (script, text) in [("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)] {
        tree.text(&format!("DEBIAN/{script}"), text, 0o755)?;
    }
    let package = folder.join(format!("ban-agent_{VERSION}_{architecture}.deb"));
    let mut pack = Command::new("dpkg-deb");
    pack.env("SOURCE_DATE_EPOCH", cross::epoch()?).args(["-Zxz", "--root-owner-group", "--build"]);
    command::run(pack.arg(&tree.root).arg(&package))?;
    Ok(package)
}

/// The libc of this machine: a program that is linked with it runs with it, and with later ones.
///
/// # Errors
/// If dpkg knows of none.
pub(super) fn libc() -> Result<String> {
    let libc =
        command::output(Command::new("dpkg-query").args(["-W", "-f", "${Version}", "libc6"]))?;
    Ok(libc.split('-').next().unwrap_or_default().to_owned())
}

fn control(architecture: &str, libc: Option<&str>) -> String {
    let depends =
        libc.map(|libc| format!("Depends: libc6 (>= {libc}), libgcc-s1\n")).unwrap_or_default();
    let description: String = DESCRIPTION.iter().map(|line| format!(" {line}\n")).collect();
    format!(
        "Package: ban-agent\nVersion: {VERSION}\nArchitecture: {architecture}\n\
         Maintainer: The ban-agent developers <ban-agent@localhost>\n\
         Section: net\nPriority: optional\n{depends}Suggests: bpftool\nHomepage: {REPOSITORY}\n\
         Description: {SUMMARY}\n{description}"
    )
}
