//! The guest's first file system: the tests, the agent, the few programs they run with the
//! libraries those need, and the kernel's modules with what those depend on; all in one cpio archive.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::origin::Kernel;
use crate::command;

const INIT: &str = include_str!("init");

/// What the tests run, besides the agent.
const PROGRAMS: [&str; 11] = [
    "busybox",
    "ip",
    "nsenter",
    "setpriv",
    "sysctl",
    "ping",
    "bpftool",
    "nft",
    "iptables-save",
    "wg",
    "pppd",
];

/// The card and its bus, and the kinds of interfaces that one protects.
const MODULES: [&str; 15] = [
    "virtio_pci",
    "virtio_net",
    "veth",
    "8021q",
    "bonding",
    "bridge",
    "dummy",
    "nf_tables",
    "vxlan",
    "ipip",
    "sit",
    "ip_gre",
    "ip6_tunnel",
    "ip6_gre",
    "wireguard",
];

/// What not every kernel has: without it, its test says so.
const OPTIONAL: [&str; 1] = ["ppp_async"];

/// What goes into the guest besides.
#[derive(Debug)]
pub(super) struct Load<'a> {
    pub(super) tests: &'a [PathBuf],
    pub(super) agent: &'a Path,
    /// Lines of shell: the tests' environment.
    pub(super) environment: &'a str,
}

/// Packs the archive for one kernel.
pub(super) fn pack(kernel: &Kernel, load: &Load<'_>, folder: &Path) -> Result<PathBuf> {
    let root = Root { path: folder.join("guest") };
    root.clear()?;
    root.text("init", INIT, 0o755)?;
    root.text("etc/ring", load.environment, 0o644)?;
    for program in PROGRAMS {
        let Some(path) = command::find(program) else { bail!("{program} is not installed") };
        root.program(&path, &Path::new("usr/bin").join(program))?;
    }
    for name in ["busybox", "sh"] {
        root.link("/usr/bin/busybox", &Path::new("bin").join(name))?;
    }
    root.program(load.agent, Path::new("usr/bin/ban-agent"))?;
    for path in load.tests {
        root.program(path, &Path::new("tests").join(test_name(path)))?;
    }
    root.modules(kernel)?;
    for empty in ["proc", "sys", "dev", "run", "tmp"] {
        root.folder(Path::new(empty))?;
    }
    let archive = folder.join("guest.cpio");
    root.archive(&archive)?;
    Ok(archive)
}

/// The folder that becomes the guest's `/`.
struct Root {
    path: PathBuf,
}

impl Root {
    fn clear(&self) -> Result<()> {
        if self.path.exists() {
            fs::remove_dir_all(&self.path)
                .with_context(|| format!("cannot remove {}", self.path.display()))?;
        }
        self.folder(Path::new(""))
    }

    fn folder(&self, inside: &Path) -> Result<()> {
        let path = self.path.join(inside);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))
    }

    /// Where that file goes; its folder exists.
    fn place(&self, inside: &Path) -> Result<PathBuf> {
        let inside = inside.strip_prefix("/").unwrap_or(inside);
        self.folder(inside.parent().unwrap_or(inside))?;
        Ok(self.path.join(inside))
    }

    fn text(&self, inside: &str, text: &str, mode: u32) -> Result<()> {
        let path = self.place(Path::new(inside))?;
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn link(&self, target: &str, inside: &Path) -> Result<()> {
        let path = self.place(inside)?;
        std::os::unix::fs::symlink(target, &path)
            .with_context(|| format!("cannot create {}", path.display()))
    }

    fn copy(&self, from: &Path, inside: &Path) -> Result<()> {
        let to = self.place(inside)?;
        fs::copy(from, &to)
            .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        Ok(())
    }

    /// A program without its symbols, and its libraries where the loader will look for them.
    fn program(&self, from: &Path, inside: &Path) -> Result<()> {
        let to = self.place(inside)?;
        command::output(Command::new("strip").arg("-o").arg(&to).arg(from))?;
        // A static program has none, and ldd then fails.
        let text = command::output(Command::new("ldd").arg(from)).unwrap_or_default();
        for library in text.lines().filter_map(library) {
            if !self.path.join(library.strip_prefix("/").unwrap_or(library)).exists() {
                self.copy(library, library)?;
            }
        }
        Ok(())
    }

    /// The modules that are not built in, and the order in which they load.
    fn modules(&self, kernel: &Kernel) -> Result<()> {
        let folder = kernel.modules()?;
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let (dependencies, builtin) = (read("modules.dep")?, read("modules.builtin")?);
        let order = order(&dependencies, &builtin)?;
        let mut names = String::new();
        for file in order {
            let name = format!("{}.ko", module_name(file));
            let to = self.place(&Path::new("modules").join(&name))?;
            unpack(&folder.join(file), &to)?;
            names.push_str(&name);
            names.push('\n');
        }
        self.text("modules/order", &names, 0o644)
    }

    /// The archive in the format that the kernel reads (its
    /// Documentation/driver-api/early-userspace/buffer-format.rst).
    fn archive(&self, to: &Path) -> Result<()> {
        let file = File::create(to).with_context(|| format!("cannot create {}", to.display()))?;
        let mut list = Command::new("find")
            .arg(".")
            .current_dir(&self.path)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start find")?;
        let names = list.stdout.take().context("find has no output")?;
        let mut pack = Command::new("busybox");
        pack.args(["cpio", "-o", "-H", "newc"]).current_dir(&self.path);
        let done = pack.stdin(names).stdout(file).stderr(Stdio::null()).status();
        let listed = list.wait().context("cannot wait for find")?;
        if !listed.success() || !done.context("cannot start busybox")?.success() {
            bail!("cannot pack {}", self.path.display());
        }
        Ok(())
    }
}

/// `packets` of `packets-dcedd3cccfffae7a`, as cargo calls it.
fn test_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.rsplit_once('-').map_or_else(|| name.to_string(), |(name, _)| name.to_owned())
}

/// The path in a line of ldd(1): `name => /path (address)`, or `/path (address)` for the loader.
fn library(line: &str) -> Option<&Path> {
    let path = line.split_once("=> ").map_or(line, |(_, path)| path).trim();
    path.starts_with('/').then(|| Path::new(path.split(" (").next().unwrap_or(path)))
}

/// The files of [`MODULES`] and of all they depend on, each after its own dependencies.
fn order<'a>(dependencies: &'a str, builtin: &str) -> Result<Vec<&'a str>> {
    let built: BTreeSet<String> = builtin.lines().map(module_name).collect();
    let mut order = Vec::new();
    for wanted in MODULES.into_iter().chain(OPTIONAL) {
        if built.contains(wanted) {
            continue;
        }
        let mut lines = dependencies.lines().filter_map(|line| line.split_once(':'));
        let Some((file, needs)) = lines.find(|(file, _)| module_name(file) == wanted) else {
            if OPTIONAL.contains(&wanted) {
                continue;
            }
            bail!("the kernel has no module {wanted}");
        };
        for file in needs.split_whitespace().rev().chain([file]) {
            if !order.contains(&file) {
                order.push(file);
            }
        }
    }
    Ok(order)
}

/// `virtio_net` of `kernel/drivers/net/virtio_net.ko.xz`.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

fn unpack(from: &Path, to: &Path) -> Result<()> {
    let program = match from.extension().and_then(|name| name.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => {
            fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
            return Ok(());
        }
    };
    let file = File::create(to).with_context(|| format!("cannot create {}", to.display()))?;
    let done = Command::new(program).arg("-dcq").arg(from).stdout(file).status();
    if !done.with_context(|| format!("cannot start {program}"))?.success() {
        bail!("{program} cannot unpack {}", from.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_both_kinds_of_lines() {
        let text = "\tlinux-vdso.so.1 (0x7ffd)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x7f00)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x7f01)\n\tlibgone.so => not found\n";
        let found: Vec<_> = text.lines().filter_map(library).collect();
        assert_eq!(
            found,
            [Path::new("/lib/x/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]
        );
    }

    #[test]
    fn a_module_loads_after_what_it_needs() {
        let dependencies = "kernel/a/virtio_pci.ko: kernel/a/modern.ko kernel/a/ring.ko\n\
            kernel/n/virtio_net.ko.xz: kernel/n/net-failover.ko.xz kernel/n/failover.ko.xz\n\
            kernel/n/veth.ko:\nkernel/n/8021q.ko: kernel/n/garp.ko\nkernel/n/dummy.ko:\n\
            kernel/n/bonding.ko:\nkernel/n/bridge.ko: kernel/n/garp.ko\n";
        let builtin = MODULES.map(|name| format!("kernel/net/{name}.ko\n"));
        let [.., nf_tables, _, _, _, _, _, _, _] = &builtin;
        let (_, tunnels) = builtin.split_at(8);
        let found = order(dependencies, &(nf_tables.clone() + &tunnels.concat())).unwrap();
        let names: Vec<_> = found.into_iter().map(module_name).collect();
        assert_eq!(
            names,
            [
                "ring",
                "modern",
                "virtio_pci",
                "failover",
                "net_failover",
                "virtio_net",
                "veth",
                "garp",
                "8021q",
                "bonding",
                "bridge",
                "dummy"
            ]
        );
        assert!(order(dependencies, "").is_err(), "nf_tables is nowhere");
    }
}
