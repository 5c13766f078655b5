//! `cargo xtask setup`: makes a fresh machine able to build the XDP program. Idempotent, without
//! root; everything lands in `target/bpf`, nothing that the user installed is changed.
//!
//! The XDP program needs two things that a stable Rust does not bring: the sources of `core`
//! (there is no compiled one for the BPF target) and bpf-linker, built against the same LLVM as
//! the compiler. `compiler` and `linker` find or fetch them; `shims` writes the two small scripts
//! that make them look like one toolchain to the agent's build script.

pub(crate) mod apt;
mod compiler;
pub(crate) mod debian;
mod linker;
mod shims;
pub(crate) mod system;

use std::fs::{self, File};

use anyhow::{Context as _, Result, bail};

use crate::{command, layout};

/// Options of `setup`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also install what tests and the lab need from the system (nginx, haproxy, …), as root
    #[arg(long)]
    system: bool,
}

const EVERYTHING: &[&[system::Need]] = &[system::LAB, system::TESTS];

pub(crate) fn verb(args: &Args) -> Result<()> {
    ensure()?;
    println!("BPF toolchain: {}", layout::toolchain().display());
    if args.system {
        return system::install(EVERYTHING);
    }
    let missing = system::missing(EVERYTHING);
    if missing.is_empty() {
        println!("system programs for tests and the lab: all here");
    } else {
        println!("tests and the lab also need these; they are installed when run as root:");
        missing.iter().for_each(|need| println!("  {need}"));
        println!("or now, with: {}", system::command_line(&missing));
    }
    Ok(())
}

/// Makes the BPF toolchain unless it is there and works.
pub(crate) fn ensure() -> Result<()> {
    if shims::ready() {
        return Ok(());
    }
    fs::create_dir_all(layout::bpf())
        .with_context(|| format!("cannot create {}", layout::bpf().display()))?;
    // Two verbs at once must not unpack over each other.
    let path = layout::bpf().join("lock");
    let lock = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    if shims::ready() {
        return Ok(());
    }
    make()
}

fn make() -> Result<()> {
    println!("setup: the XDP program needs a BPF toolchain; making one in target/bpf");
    if command::find("cc").is_none() {
        bail!(
            "there is no C compiler, which cargo needs to link\nhint: as root: apt-get install gcc libc6-dev"
        );
    }
    for candidate in compiler::CANDIDATES {
        match candidate.find().and_then(|compiler| {
            let linker = linker::fitting(&compiler)?;
            shims::write(&compiler, &linker)
        }) {
            Ok(()) => {
                println!("setup: done");
                return Ok(());
            }
            Err(error) => println!("setup: {candidate} will not do: {error:#}"),
        }
    }
    bail!(
        "no way to a BPF toolchain; the reasons stand above\nhint: `rustup component add rust-src` with a network, or a \
         Debian/Ubuntu whose package sources have rustc and rust-src of {} or newer (Debian 12: \
         rustc-web, from bookworm-security) and llvm-N-dev of the same LLVM",
        compiler::OLDEST
    );
}
