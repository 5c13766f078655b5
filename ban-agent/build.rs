//! Compiles the XDP program with the toolchain that `cargo xtask setup` prepared, so that the
//! agent can embed it. Everything it needs lies under `target/bpf` of the workspace.

use std::{env, path::PathBuf};

use anyhow::{Context as _, Result, anyhow};
use aya_build::{Package, Toolchain, build_ebpf};

fn main() -> Result<()> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("no manifest dir")?);
    let workspace = manifest.parent().context("the manifest has no parent folder")?;
    let toolchain = workspace.join("target/bpf/toolchain");
    println!("cargo:rerun-if-changed={}", workspace.join("ban-common").display());
    println!("cargo:rerun-if-changed={}", toolchain.join("bin/rustc").display());
    if !toolchain.join("bin/rustc").exists() {
        return Err(anyhow!(
            "no BPF toolchain at {}; run `cargo xtask setup` once",
            toolchain.display()
        ));
    }
    // Without rustup, aya-build takes the cargo that comes first on PATH.
    let path = env::var_os("PATH").unwrap_or_default();
    let shims = [toolchain.join("bin")].into_iter();
    let path = env::join_paths(shims.chain(env::split_paths(&path)))?;
    // SAFETY: a build script is one thread, and nothing else has been started yet.
    unsafe { env::set_var("PATH", path) };
    let toolchain = toolchain.to_str().context("the workspace path is not UTF-8")?;
    let ebpf = workspace.join("ban-ebpf");
    let ebpf = ebpf.to_str().context("the workspace path is not UTF-8")?;
    let features: &[&str] = if cfg!(feature = "bench") { &["bench"] } else { &[] };
    let package = Package { name: "ban-ebpf", root_dir: ebpf, features, ..Package::default() };
    build_ebpf([package], Toolchain::Custom(toolchain))
}
