//! `cargo xtask`: the development loop, one file per verb. This file only dispatches.

mod bench;
mod bench_daemon;
mod bench_kernel;
mod bench_latency;
mod bench_log;
mod build;
mod command;
mod dist;
mod forge;
mod lab;
mod laws;
mod layout;
mod net_shared;
mod privilege;
mod run;
mod setup;
mod soak;
mod storm;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The development loop of ban-agent.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make this machine able to build the XDP program, without root; every verb does it if needed
    Setup(setup::Args),
    /// Build ban-agent, the XDP program inside it
    Build(build::Args),
    /// With arguments: build and run `ban-agent ARGS` as root. Without: the lab
    Run(run::Args),
    /// Ours beside the best alternatives, in one run
    #[command(subcommand)]
    Bench(bench::What),
    /// The agent under everything that can go wrong at once, for a while
    Soak(soak::Args),
    /// Random steps against a plain model of who is banned, millions of them
    Laws(laws::Args),
    /// Rotations as fast as they go against the file source, on every file system
    Storm(storm::Args),
    /// Forged lines against all shipped filters
    Forge(forge::Args),
    /// Everything CI runs
    Test(test::Args),
    /// Boot other kernels in QEMU and run tests inside them
    TestKernels(test::kernels::Args),
    /// A Debian package
    Dist(dist::Args),
    /// The stub API behind the lab's nginx
    #[command(hide = true)]
    LabApi {
        /// Where to listen on loopback
        port: u16,
    },
}

fn main() -> ExitCode {
    let verb = Cli::parse().verb;
    let done = command::with_system_programs().and_then(|()| perform(verb));
    done.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::from(2)
    })
}

fn perform(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Setup(args) => setup::verb(&args).map(|()| ExitCode::SUCCESS),
        Verb::Build(args) => build::verb(&args).map(|()| ExitCode::SUCCESS),
        Verb::Run(args) => run::verb(&args),
        Verb::Bench(what) => bench::verb(&what).map(|()| ExitCode::SUCCESS),
        Verb::Soak(args) => soak::verb(&args),
        Verb::Laws(args) => laws::verb(&args),
        Verb::Storm(args) => storm::verb(&args),
        Verb::Forge(args) => forge::verb(&args),
        Verb::Test(args) => test::verb(&args),
        Verb::TestKernels(args) => test::kernels::verb(&args),
        Verb::Dist(args) => dist::verb(&args).map(|()| ExitCode::SUCCESS),
        Verb::LabApi { port } => lab::api::serve(port).map(|()| ExitCode::SUCCESS),
    }
}
