//! What tests and the lab need from the system: one table, installed with apt when root, asked
//! for with the exact command when not. Services do not start.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{command, privilege};

/// A program (or, by its path, a file), the Debian package it comes in, and why we want it.
pub(crate) struct Need {
    program: &'static str,
    package: &'static str,
    why: &'static str,
}

impl fmt::Display for Need {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:<16} ({}): {}", self.program, self.package, self.why)
    }
}

const fn need(program: &'static str, package: &'static str, why: &'static str) -> Need {
    Need { program, package, why }
}

/// What the lab needs, and the tests too.
pub(crate) const LAB: &[Need] = &[
    need("ip", "iproute2", "makes the namespaces and the link between them"),
    need("nsenter", "util-linux", "runs programs inside a namespace"),
    need("sysctl", "procps", "has addresses usable at once inside a namespace"),
    need("ping", "iputils-ping", "shows that packets die, or come through"),
    need("nginx", "nginx-light", "the server whose access log is read"),
    need("curl", "curl", "the attacker's and the client's requests"),
    need("bpftool", "bpftool", "looks into the maps from outside"),
];

const PROMETHEUS: &str = "/usr/lib/python3/dist-packages/prometheus_client/__init__.py";

/// What the tests need besides.
pub(crate) const TESTS: &[Need] = &[
    need("nft", "nftables", "shows that the firewall stays untouched"),
    need("iptables-save", "iptables", "shows that the firewall stays untouched"),
    need("faketime", "faketime", "sets the clock of the agent alone"),
    need("haproxy", "haproxy", "writes httplog lines over syslog"),
    need("sshd", "openssh-server", "writes the log of guessed passwords"),
    need("ssh", "openssh-client", "guesses them"),
    need("rsyslogd", "rsyslog", "writes what sshd says into a file"),
    need("openssl", "openssl", "makes the certificate of a server that hooks post to"),
    need("logrotate", "logrotate", "rotates the agent's own logs"),
    need(PROMETHEUS, "python3-prometheus-client", "reads the metrics as Prometheus does"),
    need("promtool", "prometheus", "checks the alerts that are shipped"),
    need("fail2ban-regex", "fail2ban", "its filters and sample logs are the measure of ours"),
];

/// What the package is tried out with.
pub(crate) const PACKAGE: &[Need] = &[
    need("debootstrap", "debootstrap", "makes a clean root to install the package on"),
    need("systemd-nspawn", "systemd-container", "boots it, with a systemd of its own"),
];

/// What releases are packed with, and tried out.
pub(crate) const DIST: &[Need] = &[
    need("pip3", "python3-pip", "fetches Zig"),
    need("dpkg-deb", "dpkg", "packs"),
    need("rpmbuild", "rpm", "packs"),
    need("x86_64-linux-gnu-objcopy", "binutils-x86-64-linux-gnu", "takes debug symbols apart"),
    need("aarch64-linux-gnu-objcopy", "binutils-aarch64-linux-gnu", "takes debug symbols apart"),
];

/// What finished packages are tried out with.
pub(crate) const DIST_CHECK: &[Need] = &[
    need("lintian", "lintian", "knows what Debian asks of a package"),
    need("debootstrap", "debootstrap", "makes a clean root to install on"),
    need("skopeo", "skopeo", "reads the image for containers"),
    need("qemu-aarch64-static", "qemu-user-static", "runs programs for arm64"),
];

/// What boots other kernels.
pub(crate) const KERNELS: &[Need] = &[
    need("qemu-system-x86_64", "qemu-system-x86", "the machine that other kernels run in"),
    need("busybox", "busybox", "the first program in it"),
    need("wg", "wireguard-tools", "the keys of a tunnel"),
    need("pppd", "ppp", "the ends of a PPP line"),
    need("depmod", "kmod", "finds what a module depends on"),
    need("strip", "binutils", "keeps its memory small"),
    need("xz", "xz-utils", "unpacks modules"),
    need("zstd", "zstd", "unpacks modules"),
];

/// What the datapath is measured against.
pub(crate) const DATAPATH: &[Need] = &[
    need("nft", "nftables", "drops in netfilter"),
    need("iptables", "iptables", "drops in netfilter, by ipset"),
    need("ipset", "ipset", "the set that iptables asks"),
    need("ethtool", "ethtool", "has veth take frames in as a card does"),
    need("xdp-filter", "xdp-tools", "another filter in XDP"),
];

/// What the storm of rotations makes its file systems with.
pub(crate) const STORM: &[Need] = &[
    need("mkfs.ext4", "e2fsprogs", "makes a file system"),
    need("mkfs.xfs", "xfsprogs", "makes a file system"),
    need("mkfs.btrfs", "btrfs-progs", "makes a file system"),
    need("taskset", "util-linux", "gives it one core, or two"),
];

/// What is timed beside the agent.
pub(crate) const LATENCY: &[Need] = &[
    need("fail2ban-server", "fail2ban", "the other one who bans"),
    need("nft", "nftables", "bans for it"),
];

/// Those of them that are not here.
pub(crate) fn missing(needs: &[&'static [Need]]) -> Vec<&'static Need> {
    let needs = needs.iter().copied().flatten();
    let here = |need: &&Need| command::find(need.program).is_some() || is_file(need.program);
    needs.filter(|need| !here(need)).collect()
}

fn is_file(path: &str) -> bool {
    path.starts_with('/') && Path::new(path).is_file()
}

/// The command that installs them.
pub(crate) fn command_line(missing: &[&Need]) -> String {
    format!("apt-get install --no-install-recommends {}", packages(missing).join(" "))
}

fn packages(missing: &[&Need]) -> Vec<&'static str> {
    let mut packages: Vec<_> = missing.iter().map(|need| need.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Installs what is missing when root; asks for it otherwise.
pub(crate) fn install(needs: &[&'static [Need]]) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    println!("setup: these programs are missing:");
    missing.iter().for_each(|need| println!("  {need}"));
    if !privilege::is_root() {
        bail!("programs are missing\nhint: as root: {}", command_line(&missing));
    }
    if command::find("apt-get").is_none() {
        bail!("programs are missing, and there is no apt-get here\nhint: install them by hand");
    }
    let _quiet = NoServices::guard()?;
    let mut install = apt_get();
    install.args(["install", "--yes", "--no-install-recommends"]).args(packages(&missing));
    if command::run(&mut install).is_err() {
        println!("setup: once more, with fresh package lists");
        command::run(apt_get().arg("update"))?;
        command::run(&mut install)?;
    }
    Ok(())
}

fn apt_get() -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

/// While it lives, packages that are installed start no service. A policy that is already there
/// is the owner's and stays as it is.
struct NoServices {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn guard() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(POLICY)
            .with_context(|| format!("cannot create {POLICY}"))?;
        file.write_all(b"#!/bin/sh\nexit 101\n")
            .with_context(|| format!("cannot write {POLICY}"))?;
        Ok(Self { ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("xtask: cannot remove {POLICY}: {error}; remove it, services start no more");
        }
    }
}
