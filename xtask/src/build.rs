//! `cargo xtask build [--release]`: the agent, after `setup`.

use anyhow::Result;

use crate::{command, layout, setup};

/// Options of `build`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Optimised, for packaging and benchmarks
    #[arg(long)]
    release: bool,
}

pub(crate) fn verb(args: &Args) -> Result<()> {
    agent(args.release)?;
    println!("built {}", layout::agent(args.release).display());
    Ok(())
}

/// Builds the agent, which compiles and embeds the XDP program.
pub(crate) fn agent(release: bool) -> Result<()> {
    setup::ensure()?;
    let mut cargo = command::cargo();
    cargo.args(["build", "--package", "ban-agent"]);
    if release {
        cargo.arg("--release");
    }
    command::run(&mut cargo)
}
