//! Where things lie in the workspace. Only paths; creates nothing.

use std::path::{Path, PathBuf};

/// The workspace's root folder.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// What `setup` makes. At the root even if `CARGO_TARGET_DIR` points elsewhere: the agent's build
/// script looks for it there.
pub(crate) fn bpf() -> PathBuf {
    root().join("target/bpf")
}

/// What the kernel ring downloads and makes. At the root as well: apt wants whole paths.
pub(crate) fn kernels() -> PathBuf {
    root().join("target/kernels")
}

/// The folder with the shims `rustc` and `cargo`, in the shape of a rustup toolchain.
pub(crate) fn toolchain() -> PathBuf {
    bpf().join("toolchain")
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The built agent.
pub(crate) fn agent(release: bool) -> PathBuf {
    target().join(if release { "release" } else { "debug" }).join("ban-agent")
}
