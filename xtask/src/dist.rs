//! `cargo xtask dist`: a Debian package of the optimised agent, its units, its sample
//! configuration, the texts of the shipped filters, man pages and completions. Installing it
//! starts nothing: who has not yet said what to protect must not be locked out.
//!
//! `cargo xtask test package` installs it on a clean root and boots that.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{build, command, layout};

/// Options of `dist`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Not optimised, as the tests install it
    #[arg(long)]
    debug: bool,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The agent; and its helper, which it wants started with it.
const UNITS: [&str; 3] =
    ["ban-agent.service", "ban-agent-sessions.socket", "ban-agent-sessions@.service"];

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

pub(crate) fn verb(args: &Args) -> Result<()> {
    let package = package(!args.debug)?;
    println!("built {}", package.display());
    Ok(())
}

/// Builds the package; its place.
pub(crate) fn package(release: bool) -> Result<PathBuf> {
    if command::find("dpkg-deb").is_none() {
        bail!("there is no dpkg-deb here\nhint: packages are built on Debian or Ubuntu");
    }
    build::agent(release)?;
    let architecture = command::output(Command::new("dpkg").arg("--print-architecture"))?;
    let name = format!("ban-agent_{VERSION}_{}", architecture.trim());
    let folder = layout::target().join(if release { "dist" } else { "dist-debug" });
    let tree = Tree::empty(folder.join(&name))?;
    fill(&tree, &layout::agent(release))?;
    tree.text("DEBIAN/control", &control(architecture.trim())?, 0o644)?;
    let conffiles = "/etc/ban-agent/config.toml\n/etc/logrotate.d/ban-agent\n";
    tree.text("DEBIAN/conffiles", conffiles, 0o644)?;
    for (script, text) in [("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)] {
        tree.text(&format!("DEBIAN/{script}"), text, 0o755)?;
    }
    let package = folder.join(format!("{name}.deb"));
    let mut pack = Command::new("dpkg-deb");
    command::run(pack.args(["--root-owner-group", "--build"]).arg(&tree.root).arg(&package))?;
    Ok(package)
}

fn fill(tree: &Tree, agent: &Path) -> Result<()> {
    let source = layout::root();
    tree.copy(agent, "usr/bin/ban-agent", 0o755)?;
    command::run(Command::new("strip").arg("--strip-unneeded").arg(tree.path("usr/bin/ban-agent")))
        .context("hint: strip is in the package binutils")?;
    for unit in UNITS {
        tree.copy(
            &source.join("dist").join(unit),
            &format!("usr/lib/systemd/system/{unit}"),
            0o644,
        )?;
    }
    tree.copy(&source.join("dist/config.toml"), "etc/ban-agent/config.toml", 0o644)?;
    tree.folder("etc/ban-agent/conf.d")?;
    tree.copy(&source.join("dist/ban-agent.logrotate"), "etc/logrotate.d/ban-agent", 0o644)?;
    let shipped = source.join("dist/shipped");
    for kind in files(&shipped)? {
        for filter in files(&kind)? {
            let name = filter.strip_prefix(&shipped)?.display();
            tree.copy(&filter, &format!("usr/share/doc/ban-agent/shipped/{name}"), 0o644)?;
        }
    }
    for action in files(&source.join("dist/fail2ban"))? {
        let name = action.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tree.copy(&action, &format!("usr/share/ban-agent/fail2ban/{name}"), 0o644)?;
    }
    for folder in ["cdn", "grafana", "prometheus", "drop-in"] {
        for file in files(&source.join("dist").join(folder))? {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            tree.copy(&file, &format!("usr/share/ban-agent/{folder}/{name}"), 0o644)?;
        }
    }
    let man = tree.folder("usr/share/man/man1")?;
    command::run(Command::new(agent).arg("man").arg(&man))?;
    for page in files(&man)? {
        compress(&page)?;
    }
    for (shell, place) in [
        ("bash", "usr/share/bash-completion/completions/ban-agent"),
        ("zsh", "usr/share/zsh/vendor-completions/_ban-agent"),
        ("fish", "usr/share/fish/vendor_completions.d/ban-agent.fish"),
    ] {
        let script = command::output(Command::new(agent).args(["completions", shell]))?;
        tree.text(place, &script, 0o644)?;
    }
    tree.copy(&source.join("CHANGELOG.md"), "usr/share/doc/ban-agent/changelog", 0o644)?;
    compress(&tree.path("usr/share/doc/ban-agent/changelog"))?;
    tree.copy(&source.join("README.md"), "usr/share/doc/ban-agent/README.md", 0o644)?;
    tree.text("usr/share/doc/ban-agent/copyright", &copyright()?, 0o644)
}

fn control(architecture: &str) -> Result<String> {
    // The libc it was linked with is one it runs with; an older one may lack symbols.
    let libc =
        command::output(Command::new("dpkg-query").args(["-W", "-f", "${Version}", "libc6"]))?;
    let libc = libc.split('-').next().unwrap_or_default();
    Ok(format!(
        "Package: ban-agent\nVersion: {VERSION}\nArchitecture: {architecture}\n\
         Maintainer: The ban-agent developers <ban-agent@localhost>\n\
         Section: net\nPriority: optional\nDepends: libc6 (>= {libc}), libgcc-s1\n\
         Suggests: bpftool\nHomepage: {}\n\
         Description: bans the addresses that attack a host, in the network card's driver\n\
         \x20Reads logs as fail2ban does and drops the packets of attackers with XDP, before the\n\
         \x20kernel's network stack, without firewall rules or routes.\n",
        env!("CARGO_PKG_REPOSITORY")
    ))
}

fn copyright() -> Result<String> {
    let mut text = String::from(
        "ban-agent: MIT or Apache-2.0, at your choice. The XDP program embedded in it: MIT or\n\
         GPL-2.0. On Debian the latter two are in /usr/share/common-licenses.\n\n",
    );
    let mit = layout::root().join("LICENSE-MIT");
    text += &fs::read_to_string(&mit).with_context(|| format!("cannot read {}", mit.display()))?;
    Ok(text)
}

fn compress(file: &Path) -> Result<()> {
    command::run(Command::new("gzip").args(["-9", "--no-name", "--force"]).arg(file))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    Ok(files)
}

/// The package's files before they are packed.
struct Tree {
    root: PathBuf,
}

impl Tree {
    fn empty(root: PathBuf) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(&root)
                .with_context(|| format!("cannot remove {}", root.display()))?;
        }
        let tree = Self { root };
        tree.folder("")?;
        Ok(tree)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes a folder, and those above it, readable for all whatever the umask.
    fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.path(name);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let inside = |path: &&Path| path.starts_with(&self.root);
        for path in folder.ancestors().take_while(inside) {
            mode(path, 0o755)?;
        }
        Ok(folder)
    }

    fn place(&self, name: &str) -> Result<PathBuf> {
        self.folder(name.rsplit_once('/').map_or("", |(folder, _)| folder))?;
        Ok(self.path(name))
    }

    fn copy(&self, from: &Path, name: &str, bits: u32) -> Result<()> {
        let to = self.place(name)?;
        fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        mode(&to, bits)
    }

    fn text(&self, name: &str, text: &str, bits: u32) -> Result<()> {
        let to = self.place(name)?;
        fs::write(&to, text).with_context(|| format!("cannot write {}", to.display()))?;
        mode(&to, bits)
    }
}

fn mode(path: &Path, bits: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(bits))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}
