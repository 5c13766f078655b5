//! `cargo xtask bench WHAT`: one module per figure that is compared with others. Only dispatches.

use anyhow::Result;

use crate::{bench_daemon, bench_kernel, bench_latency, bench_log};

/// What is measured.
#[derive(clap::Subcommand)]
pub(crate) enum What {
    /// A million bans given, listed and lifted, and what a log's bans wait meanwhile
    Bulk(bench_kernel::Bulk),
    /// How exact deadlines stay over an hour
    Clock(bench_kernel::Clock),
    /// A start with a million bans in the store: time and memory
    Cold(bench_kernel::Cold),
    /// The daemon from a log on disk to its counters, with one jail and with many
    Daemon(bench_daemon::Args),
    /// Nanoseconds per packet: ours, the floor, a plain hash, a plain trie, xdp-filter
    Datapath(bench_kernel::Datapath),
    /// A flood over veth: ours, the XDP floor, nftables, ipset, a blackhole route
    #[command(name = "e2e")]
    EndToEnd(bench_kernel::EndToEnd),
    /// A million bans into ours, nftables, ipset
    Load(bench_kernel::Load),
    /// From a line that is written to a packet that is dropped
    Latency(bench_latency::Args),
    /// Lines per second of the log engine
    Log(bench_log::Args),
}

pub(crate) fn verb(what: &What) -> Result<()> {
    match what {
        What::Bulk(args) => bench_kernel::bulk(args),
        What::Clock(args) => bench_kernel::clock(args),
        What::Cold(args) => bench_kernel::cold(args),
        What::Daemon(args) => bench_daemon::verb(args),
        What::Datapath(args) => bench_kernel::datapath(args),
        What::EndToEnd(args) => bench_kernel::end_to_end(args),
        What::Load(args) => bench_kernel::load(args),
        What::Latency(args) => bench_latency::verb(args),
        What::Log(args) => bench_log::verb(args),
    }
}
