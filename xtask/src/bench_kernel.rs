//! `cargo xtask bench bulk|clock|cold|datapath|e2e|load`: figures of the XDP program and its maps. The measuring is
//! done by binaries of the tests crate, which can load the programs; this only starts them.

use anyhow::{Result, ensure};

use crate::{build, command, privilege, setup::system};

/// Options of `bench datapath`.
#[derive(clap::Args)]
pub(crate) struct Datapath {
    /// Bans in the maps
    #[arg(long, default_value_t = 1_000_000)]
    bans: u32,
    /// Runs of each, interleaved; the median counts
    #[arg(long, default_value_t = 9)]
    rounds: u32,
}

/// Options of `bench e2e`.
#[derive(clap::Args)]
pub(crate) struct EndToEnd {
    /// Floods of a million packets for each; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: u32,
}

/// Options of `bench load`.
#[derive(clap::Args)]
pub(crate) struct Load {
    /// How many bans
    #[arg(long, default_value_t = 1_000_000)]
    bans: u32,
}

/// Options of `bench bulk`.
#[derive(clap::Args)]
pub(crate) struct Bulk {
    /// How many bans
    #[arg(long, default_value_t = 1_000_000)]
    bans: u32,
}

/// Options of `bench cold`.
#[derive(clap::Args)]
pub(crate) struct Cold {
    /// How many bans
    #[arg(long, default_value_t = 1_000_000)]
    bans: u32,
    /// Starts of each kind; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

/// Options of `bench clock`.
#[derive(clap::Args)]
pub(crate) struct Clock {
    /// How long deadlines are compared with the clock
    #[arg(long, default_value_t = 60)]
    minutes: u32,
}

pub(crate) fn bulk(args: &Bulk) -> Result<()> {
    build::agent(true)?;
    run("bench_bulk", &[args.bans])
}

pub(crate) fn clock(args: &Clock) -> Result<()> {
    run("bench_clock", &[args.minutes])
}

pub(crate) fn cold(args: &Cold) -> Result<()> {
    build::agent(true)?;
    run("bench_cold", &[args.bans, args.rounds])
}

pub(crate) fn datapath(args: &Datapath) -> Result<()> {
    run("bench_datapath", &[args.bans, args.rounds])
}

pub(crate) fn end_to_end(args: &EndToEnd) -> Result<()> {
    run("bench_e2e", &[args.rounds])
}

pub(crate) fn load(args: &Load) -> Result<()> {
    run("bench_load", &[args.bans])
}

fn run(binary: &str, numbers: &[u32]) -> Result<()> {
    ensure!(privilege::is_root(), "the bench needs root");
    system::install(&[system::LAB, system::DATAPATH])?;
    privilege::bpffs()?;
    let mut bench = command::cargo();
    bench.args(["run", "--release", "-p", "tests", "--features", "bench", "--bin", binary, "--"]);
    command::run(bench.args(numbers.iter().map(ToString::to_string)))
}
