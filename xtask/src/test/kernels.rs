//! The kernel ring: boots other kernels in QEMU, and runs the tests inside on a real driver of a
//! network card. `cargo xtask test-kernels` runs all of them, `cargo xtask test` the oldest of Debian.

mod guest;
mod image;
mod origin;
mod tally;

use std::{
    process::ExitCode,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{
    report::{Counts, Report},
    ring,
};
use crate::{build, layout, privilege, setup::system};
use guest::Guest;
use image::Load;
use origin::{ORIGINS, Origin};

/// The one that CI runs.
const CI: &str = "6.1";
/// More than a run takes on a busy machine, with the system ring's files and without.
const LIMIT: Duration = Duration::from_secs(3_600);
const LIMIT_BRIEF: Duration = Duration::from_secs(1_800);

/// Options of `test-kernels`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this kernel: 5.15, 6.1, 6.12, newest
    #[arg(long, value_parser = ORIGINS.map(|origin| origin.name))]
    kernel: Option<String>,
    /// Only tests whose name contains this
    #[arg(long)]
    name: Option<String>,
    /// Only test files whose name begins with this
    #[arg(long, default_value = "")]
    file: String,
    /// As in `test`: without the system ring's files
    #[arg(long)]
    brief: bool,
    /// Download the kernels again: the newest of today
    #[arg(long)]
    fresh: bool,
}

pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    let mut report = Report::default();
    report.step("build the agent", || {
        build::agent(false)?;
        Ok(Counts::passed())
    });
    let wanted = |origin: &&Origin| args.kernel.as_deref().is_none_or(|name| name == origin.name);
    for origin in ORIGINS.iter().filter(wanted) {
        report.step(origin.title, || run(origin, args));
    }
    Ok(report.print())
}

/// The ring as a part of `test`: a machine that is emulated on one processor while other steps
/// build on both. Its output waits for [`Beside::end`].
pub(super) struct Beside {
    title: &'static str,
    /// What it said, how long it took, and what came of it.
    machine: JoinHandle<(Vec<String>, Duration, Result<Counts>)>,
}

impl Beside {
    /// Boots the machine. Returns `None` if it cannot be: then `report` says so.
    pub(super) fn begin(report: &mut Report, name: Option<&str>) -> Option<Beside> {
        let name = name.map(str::to_owned);
        let args = Args { kernel: None, name, file: String::new(), brief: true, fresh: false };
        let origin = ORIGINS.iter().find(|origin| origin.name == CI)?;
        let mut machine = None;
        report.step("emulated machine", || {
            if let Some(skipped) = skipped() {
                return Ok(skipped);
            }
            machine = Some(Machine::new(origin, &args)?);
            Ok(Counts::passed())
        });
        let (title, machine) = (origin.title, machine?);
        let machine = thread::spawn(move || {
            let (mut said, begun) = (Vec::new(), Instant::now());
            let counts = machine.run(&mut |line| said.push(line.to_owned()));
            (said, begun.elapsed(), counts)
        });
        Some(Beside { title, machine })
    }

    /// Waits for its end, and shows what it said.
    pub(super) fn end(self, report: &mut Report) {
        report.step(self.title, || {
            let (said, took, counts) =
                self.machine.join().map_err(|_| anyhow!("the machine's thread has panicked"))?;
            said.iter().for_each(|line| println!("{line}"));
            let mut counts = counts?;
            counts.notes.push(format!("ran for {} s beside other steps", took.as_secs()));
            Ok(counts)
        });
    }
}

/// Why there can be no machine.
fn skipped() -> Option<Counts> {
    if std::env::consts::ARCH != "x86_64" {
        return Some(Counts::skipped(
            "the kernel ring boots x86-64 kernels, with our own programs",
        ));
    }
    if !privilege::is_root() && !system::missing(NEEDS).is_empty() {
        let line = system::command_line(&system::missing(NEEDS));
        return Some(Counts::skipped(format!("the kernel ring needs programs; as root: {line}")));
    }
    None
}

fn run(origin: &Origin, args: &Args) -> Result<Counts> {
    match skipped() {
        Some(skipped) => Ok(skipped),
        None => Machine::new(origin, args)?.run(&mut |line| println!("{line}")),
    }
}

/// A machine with the tests inside, ready to boot.
struct Machine {
    release: String,
    guest: Guest,
}

impl Machine {
    fn new(origin: &Origin, args: &Args) -> Result<Machine> {
        system::install(NEEDS)?;
        let names = ring::targets(|file| wanted(file, args))?;
        if names.is_empty() {
            bail!("tests/tests has no {}*.rs for this ring", args.file);
        }
        let tests = ring::built(&names)?;
        let kernel = origin.fetch(args.fresh)?;
        let folder = layout::kernels().join(origin.name);
        let environment = environment(args);
        let load = Load { tests: &tests, agent: &layout::agent(false), environment: &environment };
        let archive = image::pack(&kernel, &load, &folder)?;
        let console = folder.join("console.log");
        let limit = if args.brief { LIMIT_BRIEF } else { LIMIT };
        let guest = Guest { kernel: kernel.image, archive, console, limit };
        Ok(Machine { release: kernel.release, guest })
    }

    fn run(&self, show: &mut dyn FnMut(&str)) -> Result<Counts> {
        show(&format!("booting Linux {}", self.release));
        if let Some(tally) = self.guest.run(show)? {
            return Ok(tally.finish(&self.release));
        }
        // An emulator may lose a processor. Tests that hang are ended by the guest and have failed.
        show("\nthe emulated machine stood still; booting it once more");
        let tally = self.guest.run(show)?.context("the emulated machine stood still, twice")?;
        let mut counts = tally.finish(&self.release);
        counts.notes.push("booted twice: the emulated machine stood still".to_owned());
        Ok(counts)
    }
}

const NEEDS: &[&[system::Need]] = &[system::LAB, system::TESTS, system::KERNELS];

/// The tests of the system ring that need neither daemons nor a log, and so run in the guest as well;
/// not in CI, where they run on the machine's own kernel already, and emulation is slow.
const CARD: &str = "system_card";

fn wanted(file: &str, args: &Args) -> bool {
    let ours = file.starts_with("kernel_") || file.starts_with("packets");
    file.starts_with(&args.file) && (ours || !args.brief && file == CARD)
}

/// What the guest's shell reads before it runs the tests.
fn environment(args: &Args) -> String {
    // A file that hangs is ended, so that the others have their turn.
    let seconds = if args.brief { 600 } else { 1_200 };
    let ci = std::env::var("CI").unwrap_or_default();
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    format!(
        "export CI={} BAN_AGENT=/usr/bin/ban-agent RUST_BACKTRACE=1\n\
         RING_SECONDS={seconds} RING_ARGUMENTS={}\n",
        quoted(&ci),
        quoted(&format!(
            "--test-threads=1 --show-output {}",
            args.name.as_deref().unwrap_or_default()
        ))
    )
}
