//! Writes `target/bpf/toolchain/bin/{rustc,cargo,clippy-driver}`: scripts that make compiler,
//! sources and linker look like one toolchain to `rustup run` and to a PATH. They are written
//! last, so that their presence means that everything behind them is there.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{compiler::Compiler, linker::Linker};
use crate::{command, layout};

/// Whether the toolchain is there, runs, and was made for the compiler that it refers to.
pub(crate) fn ready() -> bool {
    let bin = layout::toolchain().join("bin");
    let runs = |name: &str| command::output(Command::new(bin.join(name)).arg("-vV"));
    let Ok(rustc) = runs("rustc") else { return false };
    let unchanged = fs::read_to_string(stamp()).map_or(true, |made_for| made_for == rustc);
    unchanged && runs("cargo").is_ok()
}

/// Holds the compiler's `-vV`: a toolchain updated in place gets a new linker if it needs one.
fn stamp() -> PathBuf {
    layout::toolchain().join("made-for")
}

pub(crate) fn write(compiler: &Compiler, linker: &Linker) -> Result<()> {
    let bin = layout::toolchain().join("bin");
    for folder in [&bin, &layout::toolchain().join("lib")] {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut libraries = compiler.libraries.clone();
    libraries.extend(linker.libraries.iter().cloned());
    let mut setting = String::from("#!/bin/sh\n# Written by `cargo xtask setup`.\n");
    if !libraries.is_empty() {
        let paths = std::env::join_paths(&libraries)?;
        setting += &format!("export LD_LIBRARY_PATH={}\n", quoted(Path::new(&paths)));
    }
    setting += &format!("export PATH={}:\"$PATH\" RUSTC_BOOTSTRAP=1\n", quoted(&linker.folder));
    let sysroot = compiler.sysroot.as_ref();
    let sysroot = sysroot.map(|path| format!(" --sysroot {}", quoted(path))).unwrap_or_default();
    let rustc = format!("{setting}exec {}{sysroot} \"$@\"\n", quoted(&compiler.rustc));
    script(&bin.join("rustc"), &rustc)?;
    if let Some(driver) = &compiler.clippy {
        // cargo calls it as `clippy-driver RUSTC ARGS…`, and itself to ask for the version.
        let text = format!("{setting}exec {} \"$@\"{sysroot}\n", quoted(driver));
        script(&bin.join("clippy-driver"), &text)?;
    }
    let cargo = format!(
        "#!/bin/sh\n# Written by `cargo xtask setup`.\n\
         export RUSTC={} RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=core\nexec {} \"$@\"\n",
        quoted(&bin.join("rustc")),
        quoted(&real_cargo()?)
    );
    let about = command::output(Command::new(bin.join("rustc")).arg("-vV"))
        .context("the toolchain does not run")?;
    fs::write(stamp(), about).with_context(|| format!("cannot write {}", stamp().display()))?;
    script(&bin.join("cargo"), &cargo)
}

/// The cargo that runs us. Never a rustup proxy: that would look for a toolchain again.
fn real_cargo() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").map(PathBuf::from).or_else(|| command::find("cargo"));
    cargo.context("there is no cargo on PATH")
}

/// Replaces the file in one step: another verb may be running it.
fn script(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text).with_context(|| format!("cannot write {}", new.display()))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("cannot write {}", path.display()))
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
