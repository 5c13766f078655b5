//! `cargo xtask run -- ARGS…`: the agent as root.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::{build, command, layout, privilege};

/// Options of `run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Arguments for ban-agent
    #[arg(last = true)]
    args: Vec<String>,
}

pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    if args.args.is_empty() {
        bail!("name a verb of the agent, such as `cargo xtask run -- status`");
    }
    build::agent(false)?;
    let mut agent = privilege::as_root(layout::agent(false), &["RUST_LOG", "NO_COLOR"])?;
    agent.args(&args.args);
    println!("  $ {}", command::shown(&agent));
    let status = agent.status().context("cannot start the agent")?;
    // The agent's exit codes are a contract: hand them on.
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, Into::into))
}
