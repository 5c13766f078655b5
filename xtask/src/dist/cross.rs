//! Builds the agent for other machines than this one: against an old glibc, whose successors run it as
//! well, with Zig as the C compiler and linker, which has every glibc for every architecture.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{command, layout, setup};

/// What we build for, by the names that others have for it.
pub(super) struct Architecture {
    /// Rust's, and the kernel's.
    pub(super) rust: &'static str,
    pub(super) triple: &'static str,
    /// Debian's, and that of container images.
    pub(super) deb: &'static str,
    pub(super) rpm: &'static str,
}

pub(super) const ARCHITECTURES: [Architecture; 2] = [
    Architecture {
        rust: "x86_64",
        triple: "x86_64-unknown-linux-gnu",
        deb: "amd64",
        rpm: "x86_64",
    },
    Architecture {
        rust: "aarch64",
        triple: "aarch64-unknown-linux-gnu",
        deb: "arm64",
        rpm: "aarch64",
    },
];

/// The oldest libc that a program runs with: Debian 11's, and older than Ubuntu 22.04's.
pub(super) const GLIBC: &str = "2.31";

/// The C compiler and what joins it to cargo, pinned.
const REQUIREMENTS: &str = include_str!("requirements.txt");

/// Builds the agent for each architecture; where the programs are.
///
/// # Errors
/// If a tool is missing, or the build fails.
pub(super) fn build(wanted: &[&Architecture]) -> Result<Vec<PathBuf>> {
    setup::ensure()?;
    let tools = zig()?;
    let auditable = tool("cargo-auditable", "0.7.7")?;
    if command::find("rustup").is_some() {
        let mut add = Command::new("rustup");
        add.args(["target", "add"]).args(wanted.iter().map(|arch| arch.triple));
        command::run(add.current_dir(layout::root()))?;
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = [tools.join("bin")].into_iter().chain(auditable.parent().map(Path::to_owned));
    let path =
        env::join_paths(folders.chain(env::split_paths(&path))).context("cannot extend PATH")?;
    for arch in wanted {
        let mut cargo = command::cargo();
        // what was linked in is listed in the program itself, for scanners
        cargo.args(["auditable", "zigbuild", "--release", "--locked", "--package", "ban-agent"]);
        cargo.arg("--target").arg(format!("{}.{GLIBC}", arch.triple));
        cargo.env("PATH", &path).env("PYTHONPATH", &tools);
        cargo.env("RUSTFLAGS", remap()?).env("SOURCE_DATE_EPOCH", epoch()?);
        command::run(&mut cargo)?;
    }
    let place = |arch: &&Architecture| layout::target().join(arch.triple).join("release/ban-agent");
    Ok(wanted.iter().map(place).collect())
}

/// The one of them that runs here.
///
/// # Errors
/// If there is none.
pub(super) fn native(built: &[PathBuf]) -> Result<PathBuf> {
    let runs = |agent: &&PathBuf| command::output(Command::new(agent).arg("--version")).is_ok();
    match built.iter().find(runs) {
        Some(agent) => Ok(agent.clone()),
        None => {
            bail!("no program runs on this machine, to write its man pages\nhint: leave out --arch")
        }
    }
}

/// Seconds since the epoch of the last commit.
///
/// # Errors
/// If git does not know.
pub(super) fn epoch() -> Result<String> {
    let mut git = Command::new("git");
    git.current_dir(layout::root()).args(["log", "-1", "--format=%ct"]);
    let text = command::output(&mut git).context("hint: packages are built from a git checkout")?;
    Ok(text.trim().to_owned())
}

/// Options that take the places of this machine out of the program.
fn remap() -> Result<String> {
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo = env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let sysroot = command::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let places = [
        (layout::target(), "/ban-agent/target"),
        (layout::root().to_owned(), "/ban-agent"),
        (cargo, "/cargo"),
        (PathBuf::from(sysroot.trim()), "/rust"),
    ];
    let options = places.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    Ok(options.join(" "))
}

/// The folder in which Python's pip has put cargo-zigbuild and Zig.
fn zig() -> Result<PathBuf> {
    let folder = layout::target().join("tools/zig");
    let done = folder.join("requirements.txt");
    if fs::read_to_string(&done).is_ok_and(|text| text == REQUIREMENTS) {
        return Ok(folder);
    }
    println!("setup: Zig, the C compiler for other machines");
    if folder.exists() {
        super::remove(&folder)?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let wanted = folder.join("wanted.txt");
    fs::write(&wanted, REQUIREMENTS).context("cannot write what pip should fetch")?;
    let mut pip = Command::new("pip3");
    pip.args(["install", "--quiet", "--require-hashes", "--no-deps", "--requirement"]).arg(&wanted);
    command::run(pip.arg("--target").arg(&folder)).context("hint: these wheels are for x86-64")?;
    fs::rename(&wanted, &done).context("cannot finish the setup of Zig")?;
    Ok(folder)
}

/// A tool of cargo's, built once.
///
/// # Errors
/// If it cannot be built.
pub(super) fn tool(name: &str, version: &str) -> Result<PathBuf> {
    let folder = layout::target().join("tools").join(format!("{name}-{version}"));
    let program = folder.join("bin").join(name);
    if !program.exists() {
        println!("setup: {name} {version}");
        let mut install = command::cargo();
        install.args(["install", "--quiet", "--locked", name, "--version", version, "--root"]);
        command::run(install.arg(&folder).arg("--target-dir").arg(folder.join("build")))?;
        super::remove(&folder.join("build"))?;
    }
    Ok(program)
}
