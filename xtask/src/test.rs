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
    let name = args.name.as_deref();
    if wanted("lint") {
        report.step("fmt", lint::fmt);
    }
    if privilege::is_root() && args.only.as_deref() != Some("lint") {
        report.step("system programs", || programs(wanted("package")));
    }
    if ["packets", "system", "package", "kernels"].into_iter().any(wanted) {
        report.step("build the agent", || {
            build::agent(false)?;
            Ok(Counts::passed())
        });
    }
    let run = |ring: Ring, report: &mut Report| {
        if wanted(ring.prefix()) {
            report.step(ring.title(), || ring.run(name));
        }
    };
    // measures the program: while all is quiet
    run(Ring::Packets, &mut report);
    let beside = wanted("kernels").then(|| kernels::Beside::begin(&mut report, name)).flatten();
    if wanted("lint") {
        report.step("clippy: host crates", lint::clippy_host);
        report.step("clippy: XDP program", lint::clippy_ebpf);
        report.step("cargo-deny", lint::deny);
    }
    if wanted("unit") {
        report.step("unit tests", || ring::unit(name));
    }
    if let Some(beside) = beside {
        beside.end(&mut report);
    }
    run(Ring::System, &mut report);
    run(Ring::Package, &mut report);
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
