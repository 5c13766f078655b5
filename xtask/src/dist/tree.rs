//! The files of a package before they are packed: the agent, its units, its sample configuration, the
//! texts of the shipped filters, documentation, man pages and completions.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{command, layout};

/// The agent; and its helper, which it wants started with it.
const UNITS: [&str; 3] =
    ["ban-agent.service", "ban-agent-sessions.socket", "ban-agent-sessions@.service"];

/// Puts everything that is installed into an empty tree. `agent` is packed; `native` is the same
/// program for this machine, which writes its man pages and completions.
///
/// # Errors
/// If a file of the source tree is missing.
pub(super) fn fill(tree: &Tree, agent: &Path, native: &Path) -> Result<()> {
    let source = layout::root();
    tree.copy(agent, "usr/bin/ban-agent", 0o755)?;
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
    for folder in ["cdn", "grafana", "kubernetes", "prometheus", "drop-in"] {
        for file in files(&source.join("dist").join(folder))? {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            tree.copy(&file, &format!("usr/share/ban-agent/{folder}/{name}"), 0o644)?;
        }
    }
    let man = tree.folder("usr/share/man/man1")?;
    command::run(Command::new(native).arg("man").arg(&man))?;
    for page in files(&man)? {
        compress(&page)?;
    }
    for (shell, place) in [
        ("bash", "usr/share/bash-completion/completions/ban-agent"),
        ("zsh", "usr/share/zsh/vendor-completions/_ban-agent"),
        ("fish", "usr/share/fish/vendor_completions.d/ban-agent.fish"),
    ] {
        let script = command::output(Command::new(native).args(["completions", shell]))?;
        tree.text(place, &script, 0o644)?;
    }
    for page in ["README.md", "CHANGELOG.md", "ARCHITECTURE.md"] {
        tree.copy(&source.join(page), &format!("usr/share/doc/ban-agent/{page}"), 0o644)?;
    }
    for page in files(&source.join("docs"))? {
        if page.is_file() {
            let name = page.file_name().unwrap_or_default().to_string_lossy().into_owned();
            tree.copy(&page, &format!("usr/share/doc/ban-agent/docs/{name}"), 0o644)?;
        }
    }
    tree.text("usr/share/doc/ban-agent/copyright", &copyright()?, 0o644)
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

pub(super) fn compress(file: &Path) -> Result<()> {
    command::run(Command::new("gzip").args(["-9", "--no-name", "--force"]).arg(file))
}

pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    Ok(files)
}

/// The package's files before they are packed.
pub(super) struct Tree {
    pub(super) root: PathBuf,
}

impl Tree {
    pub(super) fn empty(root: PathBuf) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(&root)
                .with_context(|| format!("cannot remove {}", root.display()))?;
        }
        let tree = Self { root };
        tree.folder("")?;
        Ok(tree)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes a folder, and those above it, readable for all whatever the umask.
    pub(super) fn folder(&self, name: &str) -> Result<PathBuf> {
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

    pub(super) fn copy(&self, from: &Path, name: &str, bits: u32) -> Result<()> {
        let to = self.place(name)?;
        fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        mode(&to, bits)
    }

    pub(super) fn text(&self, name: &str, text: &str, bits: u32) -> Result<()> {
        let to = self.place(name)?;
        fs::write(&to, text).with_context(|| format!("cannot write {}", to.display()))?;
        mode(&to, bits)
    }
}

fn mode(path: &Path, bits: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(bits))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}
