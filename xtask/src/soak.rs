//! `cargo xtask soak`: the agent under a flood, with logs that rotate, junk, kill -9, a disk that
//! fills up and a clock that is set, all at once and for as long as one likes. This only starts it.

use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};

use crate::{build, command, layout, privilege, setup::system};

/// Options of `soak`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// For how long
    #[arg(long, default_value_t = 20)]
    minutes: u64,
    /// Everything random comes from it; without it, another one each time
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    ensure!(privilege::is_root(), "the soak needs root");
    system::install(&[system::LAB, system::TESTS])?;
    privilege::bpffs()?;
    build::agent(false)?;
    let mut soak = command::cargo();
    soak.args(["run", "-p", "tests", "--bin", "soak", "--", &args.minutes.to_string()]);
    soak.args(args.seed.map(|seed| seed.to_string())).env("BAN_AGENT", layout::agent(false));
    println!("  $ {}", command::shown(&soak));
    let status = soak.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
