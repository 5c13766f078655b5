//! `cargo xtask dist`: what a release consists of. One program for each architecture, packed
//! as a Debian package, an RPM, an archive and an image for containers, with its debug symbols, a bill
//! of materials and checksums. Two builds of one commit are the same bytes, wherever the source lies.
//! Installing starts nothing: an operator who has not yet said what to protect must not be locked out.
//!
//! `cargo xtask test package` installs an unoptimised package on a clean root and boots that;
//! `cargo xtask dist --check` tries out what this makes.

mod check;
mod cross;
mod deb;
mod image;
mod rpm;
mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use self::{
    cross::{ARCHITECTURES, Architecture},
    tree::Tree,
};
use crate::{build, command, layout, setup::system};

/// Options of `dist`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A Debian package alone, not optimised, for this machine: as the tests install it
    #[arg(long, conflicts_with_all = ["check", "arch"])]
    debug: bool,
    /// Try the packages out afterwards: lintian, rpm and dpkg in clean roots, skopeo, arm64 by emulation
    #[arg(long)]
    check: bool,
    /// Only for these architectures
    #[arg(long, value_delimiter = ',', value_parser = ["amd64", "arm64"])]
    arch: Vec<String>,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");
/// What packages say of the program.
const SUMMARY: &str = "Ban the addresses that attack a host, in the network card's driver";
const DESCRIPTION: [&str; 3] = [
    "ban-agent reads logs as fail2ban does and drops the packets of attackers with",
    "XDP, before the kernel's network stack, without firewall rules or routes. Bans",
    "hold, and end on time, also while the agent is restarted, upgraded or dead.",
];
/// Files that an operator changes, and an upgrade must not.
const CONFFILES: [&str; 2] = ["etc/ban-agent/config.toml", "etc/logrotate.d/ban-agent"];

pub(crate) fn verb(args: &Args) -> Result<()> {
    if args.debug {
        println!("built {}", package()?.display());
        return Ok(());
    }
    system::install(&[system::DIST])?;
    let wanted =
        |arch: &&Architecture| args.arch.is_empty() || args.arch.iter().any(|a| a == arch.deb);
    let wanted: Vec<&Architecture> = ARCHITECTURES.iter().filter(wanted).collect();
    let release = Release::new()?;
    let built = cross::build(&wanted)?;
    let native = cross::native(&built)?;
    let mut trees = Vec::new();
    for (arch, agent) in wanted.iter().zip(&built) {
        trees.push(release.pack(arch, agent, &native)?);
    }
    image::write(&release, &wanted, &trees)?;
    release.bill_of_materials()?;
    trees.iter().try_for_each(|tree| remove(&tree.root))?;
    release.sums()?;
    if args.check {
        check::all(&release, &wanted)?;
    }
    println!("\n{}:", release.folder.display());
    for file in tree::files(&release.folder)? {
        let size = file.metadata().map_or(0, |meta| meta.len());
        println!("{:>12} {}", size, file.file_name().unwrap_or_default().to_string_lossy());
    }
    Ok(())
}

/// Builds the package that the tests install; its place.
///
/// # Errors
/// If it cannot be built here.
pub(crate) fn package() -> Result<PathBuf> {
    if command::find("dpkg-deb").is_none() {
        bail!("there is no dpkg-deb here\nhint: packages are built on Debian or Ubuntu");
    }
    build::agent(false)?;
    let architecture = command::output(Command::new("dpkg").arg("--print-architecture"))?;
    let folder = layout::target().join("dist-debug");
    let agent = layout::agent(false);
    let tree = Tree::empty(folder.join("tree"))?;
    tree::fill(&tree, &agent, &agent)?;
    let packed = tree.path("usr/bin/ban-agent");
    command::run(Command::new("strip").arg("--strip-unneeded").arg(packed))
        .context("hint: strip is in the package binutils")?;
    deb::pack(&tree, architecture.trim(), &deb::depends_here()?, &cross::epoch()?, &folder)
}

/// What is made of one commit.
struct Release {
    folder: PathBuf,
    /// Seconds since the epoch that every file is said to be of: the commit's.
    epoch: String,
}

impl Release {
    fn new() -> Result<Self> {
        let folder = layout::target().join("dist");
        if folder.exists() {
            remove(&folder)?;
        }
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self { folder, epoch: cross::epoch()? })
    }

    /// Everything for one architecture; the tree that it was packed from.
    fn pack(&self, arch: &Architecture, agent: &Path, native: &Path) -> Result<Tree> {
        let tree = Tree::empty(self.folder.join(format!("tree-{}", arch.deb)))?;
        tree::fill(&tree, agent, native)?;
        let packed = tree.path("usr/bin/ban-agent");
        let symbols = self.folder.join(format!("ban-agent-{VERSION}-{}.debug", arch.rust));
        let objcopy = || Command::new(format!("{}-linux-gnu-objcopy", arch.rust));
        let debug = ["--only-keep-debug", "--compress-debug-sections"];
        command::run(objcopy().args(debug).arg(&packed).arg(&symbols))?;
        command::run(objcopy().arg("--strip-all").arg(&packed))?;
        let mut link = std::ffi::OsString::from("--add-gnu-debuglink=");
        link.push(&symbols);
        command::run(objcopy().arg(link).arg(&packed))?;
        self.archive(&tree, arch)?;
        rpm::pack(self, &tree, arch)?;
        let depends = format!("libc6 (>= {})", cross::GLIBC);
        deb::pack(&tree, arch.deb, &depends, &self.epoch, &self.folder)?;
        Ok(tree)
    }

    /// Its files under one folder, to be copied to `/`.
    fn archive(&self, tree: &Tree, arch: &Architecture) -> Result<()> {
        let name = format!("ban-agent-{VERSION}-{}", arch.triple);
        let to = self.folder.join(format!("{name}.tar.gz"));
        let rename = format!("--transform=s,^\\.,{name},");
        self.tar(&tree.root, &[&rename, "--use-compress-program=gzip --best --no-name"], &to)
    }

    /// Packs a folder, with nothing of this machine in it.
    fn tar(&self, folder: &Path, options: &[&str], to: &Path) -> Result<()> {
        let mut tar = Command::new("tar");
        tar.args(["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
        tar.args(["--format=gnu", &format!("--mtime=@{}", self.epoch)]).args(options);
        command::run(tar.arg("--file").arg(to).arg("--directory").arg(folder).arg("."))
    }

    /// The commit's time, as RFC 3339 has it.
    fn created(&self) -> Result<String> {
        let seconds = format!("@{}", self.epoch);
        let format = "+%Y-%m-%dT%H:%M:%SZ";
        let mut date = Command::new("date");
        Ok(command::output(date.args(["--utc", "--date", &seconds, format]))?.trim().to_owned())
    }

    /// A CycloneDX list of everything that is linked in.
    fn bill_of_materials(&self) -> Result<()> {
        let tool = cross::tool("cargo-cyclonedx", "0.5.9")?;
        let mut list = Command::new(tool);
        list.current_dir(layout::root()).env("SOURCE_DATE_EPOCH", &self.epoch);
        list.args(["cyclonedx", "--manifest-path", "ban-agent/Cargo.toml", "--format", "json"]);
        list.args(["--target", "all", "--override-filename", "ban-agent.cdx"]);
        command::run(&mut list)?;
        let made = layout::root().join("ban-agent/ban-agent.cdx.json");
        let to = self.folder.join(format!("ban-agent-{VERSION}.cdx.json"));
        fs::rename(&made, &to).with_context(|| format!("cannot move {}", made.display()))
    }

    fn sums(&self) -> Result<()> {
        let names: Vec<_> = tree::files(&self.folder)?
            .iter()
            .filter_map(|file| Some(file.file_name()?.to_owned()))
            .collect();
        let text =
            command::output(Command::new("sha256sum").args(names).current_dir(&self.folder))?;
        let to = self.folder.join("SHA256SUMS");
        fs::write(&to, text).with_context(|| format!("cannot write {}", to.display()))
    }
}

fn remove(folder: &Path) -> Result<()> {
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}
