//! `cargo xtask run`: with arguments the agent as root, without them the lab.

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{build, command, lab, layout, privilege};

/// Options of `run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The lab: leave it standing, and print what one can do with it
    #[arg(long, conflicts_with = "args")]
    keep: bool,
    /// The lab: remove what a kept one left
    #[arg(long, conflicts_with_all = ["args", "keep"])]
    clean: bool,
    /// The lab: draw what it told as a picture, an SVG, into this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["args", "clean"])]
    svg: Option<PathBuf>,
    /// Everything is built already: how we call ourselves through sudo
    #[arg(long, hide = true)]
    built: bool,
    /// Arguments for ban-agent, run as root; without any, the lab
    #[arg(last = true)]
    args: Vec<String>,
}

pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    if !args.built && !args.clean {
        build::agent(false)?;
    }
    if !args.args.is_empty() {
        let mut agent = privilege::as_root(layout::agent(false), &["RUST_LOG", "NO_COLOR"])?;
        return passed_on(agent.args(&args.args));
    }
    if privilege::is_root() {
        return if args.clean { lab::clean() } else { lab::play(args.keep, args.svg.as_deref()) };
    }
    let ourselves = std::env::current_exe().context("who am I?")?;
    let mut again = privilege::as_root(ourselves, &["CARGO_TARGET_DIR", "NO_COLOR"])?;
    again.args(["run", "--built"]);
    again.args(args.keep.then_some("--keep")).args(args.clean.then_some("--clean"));
    if let Some(path) = &args.svg {
        again.arg("--svg").arg(path);
    }
    passed_on(&mut again)
}

/// Runs it and hands on its exit code: the agent's are a contract.
fn passed_on(command: &mut Command) -> Result<ExitCode> {
    println!("  $ {}", command::shown(command));
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, Into::into))
}
