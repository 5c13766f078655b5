//! `cargo xtask bench datapath`: nanoseconds per packet by `BPF_PROG_TEST_RUN`. The measuring is
//! done by the binary `bench_datapath` of the tests crate, which can load the programs.

use anyhow::{Result, ensure};

use crate::{command, privilege, setup::system};

/// Options of `bench datapath`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Bans in the maps
    #[arg(long, default_value_t = 1_000_000)]
    bans: u32,
    /// Runs of each, interleaved; the median counts
    #[arg(long, default_value_t = 9)]
    rounds: u32,
}

pub(crate) fn verb(args: &Args) -> Result<()> {
    ensure!(privilege::is_root(), "the bench needs root");
    system::install(&[system::LAB])?;
    privilege::bpffs()?;
    let mut bench = command::cargo();
    bench.args(["run", "-p", "tests", "--features", "bench", "--bin", "bench_datapath", "--"]);
    command::run(bench.args([args.bans.to_string(), args.rounds.to_string()]))
}
