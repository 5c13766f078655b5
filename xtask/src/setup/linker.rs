//! Finds or builds a bpf-linker for a given LLVM: bitcode is only read by the LLVM major that
//! wrote it, or a newer one of the same line.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{
    apt::Apt,
    compiler::{Compiler, filled, system_libraries},
};
use crate::{command, layout};

/// The release that was proven with the LLVMs named in `FEATURES`.
const VERSION: &str = "0.13.0";
/// The LLVM majors that this release can be built for.
const MAJORS: [u32; 3] = [21, 22, 23];

pub(crate) struct Linker {
    /// The folder that holds `bpf-linker`.
    pub(crate) folder: PathBuf,
    /// Folders of shared libraries that the loader would not find.
    pub(crate) libraries: Vec<PathBuf>,
}

pub(crate) fn fitting(compiler: &Compiler) -> Result<Linker> {
    let llvm = compiler.llvm;
    if let Some(path) = command::find("bpf-linker") {
        let fits = match linked_llvm(&path) {
            Some(major) => major == llvm,
            // It holds its LLVM inside and does not tell which: see whether it can read ours.
            None => links(&path, compiler).is_ok(),
        };
        if fits {
            println!("setup: {} fits the compiler's LLVM {llvm}", path.display());
            let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
            return Ok(Linker { folder, libraries: Vec::new() });
        }
        println!("setup: {} is for another LLVM than the compiler's {llvm}", path.display());
    }
    build(llvm)
}

/// Compiles an empty crate and has the linker link it.
fn links(linker: &Path, compiler: &Compiler) -> Result<()> {
    let folder = layout::bpf().join("probe");
    std::fs::create_dir_all(&folder)?;
    let (source, bitcode) = (folder.join("probe.rs"), folder.join("probe.bc"));
    std::fs::write(&source, "#![feature(no_core)]\n#![no_core]\n")?;
    let mut rustc = Command::new(&compiler.rustc);
    rustc.args([
        "--target",
        "bpfel-unknown-none",
        "--crate-type",
        "lib",
        "--emit",
        "llvm-bc",
        "-o",
    ]);
    rustc.arg(&bitcode).arg(&source).env("RUSTC_BOOTSTRAP", "1");
    rustc.env("LD_LIBRARY_PATH", std::env::join_paths(&compiler.libraries)?);
    command::output(&mut rustc)?;
    let mut link = Command::new(linker);
    link.args(["--target", "bpfel-unknown-none", "--emit", "obj", "-o"]);
    command::output(link.arg(folder.join("probe.o")).arg(&bitcode))?;
    Ok(())
}

/// The LLVM major that a bpf-linker loads, if it loads one.
fn linked_llvm(path: &Path) -> Option<u32> {
    let loaded = command::output(Command::new("ldd").arg(path)).ok()?;
    let name = loaded.lines().find_map(|line| line.trim().strip_prefix("libLLVM"))?;
    let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn build(llvm: u32) -> Result<Linker> {
    if !MAJORS.contains(&llvm) {
        bail!("bpf-linker {VERSION} can be built for LLVM {MAJORS:?}, not {llvm}");
    }
    let root = layout::bpf().join("llvm");
    let prefix = root.join(format!("usr/lib/llvm-{llvm}"));
    if !prefix.join("bin/llvm-config").exists() || !filled(&prefix.join("include/llvm-c")) {
        unpack(llvm, &root)?;
    }
    let libraries = vec![system_libraries(&root)];
    let install = layout::bpf().join("linker");
    if !works(&install, &libraries, llvm) {
        println!("setup: building bpf-linker {VERSION} for LLVM {llvm} (a minute or two, once)");
        let mut cargo = command::cargo();
        cargo
            .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"])
            .args(["--no-default-features", "--features", &format!("llvm-{llvm}")])
            .arg("--root")
            .arg(&install)
            .arg("--target-dir")
            .arg(layout::bpf().join("linker-build"))
            .env(format!("LLVM_SYS_{llvm}1_PREFIX"), &prefix)
            .env("LLVM_PREFIX", &prefix)
            .env("LD_LIBRARY_PATH", std::env::join_paths(&libraries)?)
            .env_remove("CARGO_TARGET_DIR");
        command::run_logged(&mut cargo, &layout::bpf().join("linker.log"))?;
        let scratch = layout::bpf().join("linker-build");
        std::fs::remove_dir_all(&scratch)
            .with_context(|| format!("cannot remove {}", scratch.display()))?;
    }
    Ok(Linker { folder: install.join("bin"), libraries })
}

fn unpack(llvm: u32, root: &Path) -> Result<()> {
    let apt = Apt::open()?;
    let library = format!("libllvm{llvm}");
    if apt.version(&format!("llvm-{llvm}-dev"))?.is_none() {
        bail!("the package sources have no llvm-{llvm}-dev to build bpf-linker with");
    }
    println!("setup: fetching LLVM {llvm}, against which bpf-linker is built");
    let mut packages: Vec<String> = ["dev", "tools", "linker-tools", "runtime"]
        .iter()
        .map(|part| format!("llvm-{llvm}-{part}"))
        .chain([format!("llvm-{llvm}"), library.clone(), format!("libpolly-{llvm}-dev")])
        .collect();
    packages.extend(apt.absent_libraries(&library)?);
    packages.sort();
    packages.dedup();
    apt.unpack(&packages, root)
}

fn works(install: &Path, libraries: &[PathBuf], llvm: u32) -> bool {
    let linker = install.join("bin/bpf-linker");
    let Ok(libraries) = std::env::join_paths(libraries) else { return false };
    linked_llvm(&linker) == Some(llvm)
        && command::output(Command::new(linker).arg("--version").env("LD_LIBRARY_PATH", libraries))
            .is_ok_and(|version| version.contains(VERSION))
}
