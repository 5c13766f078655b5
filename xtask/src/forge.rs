//! `cargo xtask forge`: forged lines against all shipped filters, as many as one likes. The test
//! itself is `ban-agent/tests/forge.rs`; this builds it with optimizations and says how much.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::command;

/// Options of `forge`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Lines for each filter
    #[arg(long, default_value_t = 1_000_000)]
    lines: u64,
    /// Everything random comes from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// These filters alone, separated by commas; all of them otherwise
    #[arg(long, default_value = "")]
    filters: String,
}

pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    let mut forge = command::cargo();
    forge.args(["test", "--profile", "proof", "-p", "ban-agent", "--test", "forge", "--"]);
    forge.arg("--nocapture");
    forge.env("FORGE_LINES", args.lines.to_string()).env("FORGE_SEED", args.seed.to_string());
    forge.env("FORGE_FILTERS", &args.filters);
    println!("  $ {}", command::shown(&forge));
    let status = forge.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
