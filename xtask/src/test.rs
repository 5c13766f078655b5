//! `cargo xtask test`: everything CI runs. Nothing hides: a step that cannot run is counted as
//! skipped, and with `CI=true` a skip is a failure.

pub(crate) mod kernels;
mod lint;
mod report;
mod ring;

use std::process::ExitCode;

use anyhow::Result;

use crate::{build, privilege, setup};
use report::{Counts, Report};
use ring::Ring;

/// Options of `test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this part: lint, unit, packets, system, package, kernels
    #[arg(value_parser = ["lint", "unit", "packets", "system", "package", "kernels"])]
    only: Option<String>,
    /// Only tests whose name contains this
    #[arg(long)]
    name: Option<String>,
}

pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    setup::ensure()?;
    let wanted = |part: &str| args.only.as_deref().is_none_or(|only| only == part);
    let mut report = Report::default();
    if wanted("lint") {
        report.step("fmt", lint::fmt);
        report.step("clippy: host crates", lint::clippy_host);
        report.step("clippy: XDP program", lint::clippy_ebpf);
        report.step("cargo-deny", lint::deny);
    }
    let name = args.name.as_deref();
    if privilege::is_root() && args.only.as_deref() != Some("lint") {
        report.step("system programs", || programs(wanted("package")));
    }
    if wanted("unit") {
        report.step("unit tests", || ring::unit(name));
    }
    if ["packets", "system", "package", "kernels"].into_iter().any(wanted) {
        report.step("build the agent", || {
            build::agent(false)?;
            Ok(Counts::passed())
        });
    }
    for ring in [Ring::Packets, Ring::System, Ring::Package] {
        if wanted(ring.prefix()) {
            report.step(ring.title(), || ring.run(name));
        }
    }
    if wanted("kernels") {
        kernels::ring(&mut report, name);
    }
    Ok(report.print())
}

/// What tests start and read: unit tests too read the filters of an installed fail2ban.
fn programs(package: bool) -> Result<Counts> {
    setup::system::install(&[setup::system::LAB, setup::system::TESTS])?;
    if package {
        setup::system::install(&[setup::system::PACKAGE])?;
    }
    Ok(Counts::passed())
}
