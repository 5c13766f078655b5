//! Compiles the XDP program with the toolchain that `cargo xtask setup` prepared, so that the
//! agent can embed it; everything it needs lies under `target/bpf` of the workspace. Lists the
//! files of `dist/shipped/` for `config::shipped`.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use aya_build::{Package, Toolchain, build_ebpf};

fn main() -> Result<()> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("no manifest dir")?);
    let workspace = manifest.parent().context("the manifest has no parent folder")?;
    list_shipped(&workspace.join("dist/shipped"))?;
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

/// Writes `shipped.rs`: name (`KIND/SERVICE.toml`) and text of each file, by name.
fn list_shipped(folder: &Path) -> Result<()> {
    println!("cargo:rerun-if-changed={}", folder.display());
    let mut list = String::from("&[\n");
    for kind in entries(folder)? {
        for file in entries(&kind)? {
            let name = file.strip_prefix(folder)?.to_str().context("a name is not UTF-8")?;
            writeln!(list, "    ({name:?}, include_str!({:?})),", file.display().to_string())?;
        }
    }
    list.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").context("no output dir")?);
    fs::write(out.join("shipped.rs"), list).context("cannot write shipped.rs")
}

/// What lies in a folder, by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = read.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
