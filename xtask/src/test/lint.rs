//! The checks that read code without running it.

use std::process::Command;

use anyhow::Result;

use super::report::Counts;
use crate::{command, layout};

pub(super) fn fmt() -> Result<Counts> {
    command::run(command::cargo().args(["fmt", "--all", "--", "--check"]))?;
    Ok(Counts::passed())
}

pub(super) fn clippy_host() -> Result<Counts> {
    let mut cargo = command::cargo();
    cargo.args(["clippy", "--workspace", "--exclude", "ban-ebpf", "--all-targets", "--quiet"]);
    command::run(cargo.args(["--", "-D", "warnings"]))?;
    Ok(Counts::passed())
}

/// With the compiler that builds the XDP program, for the target it runs on.
pub(super) fn clippy_ebpf() -> Result<Counts> {
    let bin = layout::toolchain().join("bin");
    let driver = bin.join("clippy-driver");
    if !driver.exists() {
        return Ok(Counts::skipped(
            "the BPF toolchain has no clippy (rustup component add clippy, or Debian's rust-web-clippy; then remove target/bpf and run setup)",
        ));
    }
    let mut cargo = Command::new(bin.join("cargo"));
    cargo
        .current_dir(layout::root())
        .args(["check", "--package", "ban-ebpf", "--release", "--quiet"])
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(layout::target().join("clippy-ebpf"))
        .env("RUSTC_WORKSPACE_WRAPPER", &driver)
        .env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__")
        .env("RUSTFLAGS", format!("--cfg bpf_target_arch=\"{}\"", std::env::consts::ARCH));
    command::run(&mut cargo)?;
    Ok(Counts::passed())
}

/// Licences, duplicate versions and sources; where cargo-deny is installed. It is no part of a
/// Rust toolchain, so its absence is said but is no skipped test.
pub(super) fn deny() -> Result<Counts> {
    if command::find("cargo-deny").is_none() {
        println!("cargo-deny is not installed here (cargo install cargo-deny)");
        return Ok(Counts::default());
    }
    command::run(command::cargo().args(["deny", "check", "licenses", "bans", "sources"]))?;
    Ok(Counts::passed())
}
