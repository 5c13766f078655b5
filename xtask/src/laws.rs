//! `cargo xtask laws`: the whole core against a plain list of claims, for as many steps as one likes,
//! optimized. This only starts the test of the same name in `ban-agent/src/engine/laws.rs`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::{command, setup};

/// The test.
const TEST: &str = "engine::laws::parts_hold_together";

/// Options of `laws`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many steps: batches of messages, reloads, resizes
    #[arg(long, default_value_t = 10_000_000)]
    steps: u64,
    /// Everything random comes from it; without it, another one each time
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    setup::ensure()?;
    let mut laws = command::cargo();
    laws.args(["test", "-p", "ban-agent", "--lib", "--profile", "proof", TEST, "--"]);
    laws.args(["--exact", "--nocapture"]).env("BAN_AGENT_STEPS", args.steps.to_string());
    if let Some(seed) = args.seed {
        laws.env("BAN_AGENT_SEED", seed.to_string());
    }
    println!("  $ {}", command::shown(&laws));
    let status = laws.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
