//! The RPM, by `rpmbuild`, from the tree that the Debian package is made of.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{
    CONFFILES, DESCRIPTION, REPOSITORY, Release, SUMMARY, VERSION, cross, cross::Architecture,
    tree, tree::Tree,
};
use crate::command;

/// Where zsh looks for completions on the distributions that use RPM.
const ZSH: (&str, &str) = ("usr/share/zsh/vendor-completions", "usr/share/zsh/site-functions");

/// As the scripts of the Debian package; `$1` counts the versions that will be left.
const SCRIPTS: &str = "
%post
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    systemctl try-restart ban-agent.service || :
fi

%preun
if [ $1 -eq 0 ]; then
    if [ -d /run/systemd/system ]; then
        systemctl stop ban-agent.service || :
    fi
    ban-agent --quiet detach || echo 'still enforced: rm -r /sys/fs/bpf/ban-agent' >&2
fi

%postun
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
";

/// Packs a tree.
///
/// # Errors
/// If rpmbuild cannot.
pub(super) fn pack(release: &Release, tree: &Tree, arch: &Architecture) -> Result<PathBuf> {
    let work = release.folder.join(format!("rpm-{}", arch.rpm));
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let spec = work.join("ban-agent.spec");
    fs::write(&spec, text(tree)?).with_context(|| format!("cannot write {}", spec.display()))?;
    let mut build = Command::new("rpmbuild");
    build.args(["-bb", "--quiet", "--target", &format!("{}-linux", arch.rpm)]);
    let tree = tree.root.display().to_string();
    let folder = work.display().to_string();
    for (name, value) in [
        ("_topdir", folder.as_str()),
        ("_rpmdir", &folder),
        ("_rpmfilename", "ban-agent.rpm"),
        ("_tree", &tree),
        ("_buildhost", "localhost"),
        ("_build_id_links", "none"),
        ("use_source_date_epoch_as_buildtime", "1"),
        ("build_mtime_policy", "clamp_to_source_date_epoch"),
        ("clamp_mtime_to_source_date_epoch", "1"),
        ("_binary_payload", "w9.xzdio"),
        ("debug_package", "%{nil}"),
        ("__os_install_post", "%{nil}"),
    ] {
        build.arg("--define").arg(format!("{name} {value}"));
    }
    build.env("SOURCE_DATE_EPOCH", &release.epoch).env("HOME", &work);
    command::run(build.arg(&spec))?;
    let package = release.folder.join(format!("ban-agent-{VERSION}-1.{}.rpm", arch.rpm));
    let made = work.join("ban-agent.rpm");
    fs::rename(&made, &package).with_context(|| format!("cannot move {}", made.display()))?;
    super::remove(&work)?;
    Ok(package)
}

/// The spec. Every file and folder is ours by name: a pattern would take others' folders along.
fn text(tree: &Tree) -> Result<String> {
    let mut text = format!(
        "Name: ban-agent\nVersion: {VERSION}\nRelease: 1\nSummary: {SUMMARY}\n\
         License: (MIT OR Apache-2.0) AND (MIT OR GPL-2.0-only)\nURL: {REPOSITORY}\n\
         AutoReqProv: no\nRequires: glibc >= {3}\n\n%description\n{}\n\n%install\nmkdir -p %{{buildroot}}\n\
         cp -a %{{_tree}}/. %{{buildroot}}\nrm -rf %{{buildroot}}/DEBIAN\n\
         mkdir -p %{{buildroot}}/{2}\nmv %{{buildroot}}/{1}/* %{{buildroot}}/{2}/\n\
         {SCRIPTS}\n%files\n",
        DESCRIPTION.join("\n"),
        ZSH.0,
        ZSH.1,
        cross::GLIBC,
    );
    for file in below(&tree.root)? {
        let name = file.strip_prefix(&tree.root)?.display().to_string();
        let name = name.replace(ZSH.0, ZSH.1);
        if file.is_dir() {
            // the shells that complete own theirs as well, if they are there
            let shells = ["usr/share/fish", "usr/share/zsh"];
            if name.split('/').any(|part| part == "ban-agent")
                || shells.iter().any(|shell| name.starts_with(shell))
            {
                writeln!(text, "%dir %attr(0755,root,root) \"/{name}\"")?;
            }
            continue;
        }
        let mode = file.metadata().context("cannot read the tree")?.permissions().mode() & 0o777;
        let config = if CONFFILES.contains(&name.as_str()) { "%config(noreplace) " } else { "" };
        writeln!(text, "{config}%attr({mode:04o},root,root) \"/{name}\"")?;
    }
    Ok(text)
}

/// Files and folders, each folder before what is in it.
fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in tree::files(folder)? {
        if entry.is_dir() {
            let inside = below(&entry)?;
            all.push(entry);
            all.extend(inside);
        } else {
            all.push(entry);
        }
    }
    Ok(all)
}
