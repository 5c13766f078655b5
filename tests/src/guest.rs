//! The cards of the kernel ring's virtual machine: real drivers, all on one wire. Takes hold of
//! interfaces that are nobody's but the guest's, and so works nowhere else.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ban_agent::dataplane::{Mode, Options, Xdp};
use rustix::time::{ClockId, clock_gettime};

use crate::{
    host::within,
    net::{Namespace, run},
    privilege,
    process::eventually,
    stage::Stage,
};

/// Whether this machine is the guest: its loader says so on the kernel's command line.
#[must_use]
pub fn inside() -> bool {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    line.split_whitespace().any(|word| word == "ban_agent_guest")
}

/// Whether the test can run; prints `SKIPPED: <reason>` if it cannot.
///
/// # Panics
/// If it is in the guest and cannot run there though `CI=true`.
#[must_use]
pub fn ready(what: &str) -> bool {
    if inside() {
        return privilege::ready(what);
    }
    eprintln!("SKIPPED: {what}: runs in a virtual machine (cargo xtask test-kernels)");
    false
}

/// Moves the card of that number into the namespace, under that name, and has it up. It comes back
/// by itself when the namespace goes.
pub fn card(number: u8, namespace: &Namespace, name: &str) -> Result<()> {
    let device = format!("/sys/bus/virtio/devices/virtio{number}");
    let driver = fs::read_link(format!("{device}/driver")).context("there is no such card")?;
    ensure!(driver.ends_with("virtio_net"), "{device} is driven by {}", driver.display());
    let folder = Path::new(&device).join("net");
    let mut found = None;
    eventually("the card is back from the last test", Duration::from_secs(20), || {
        let mut names = fs::read_dir(&folder).into_iter().flatten().flatten();
        found = names.next().map(|entry| entry.file_name());
        Ok(found.is_some())
    })?;
    let found = found.context("the card has no name")?;
    // Under its own name it may meet another of that name.
    let words = ["netns", namespace.name(), "name", name];
    run(Command::new("ip").args(["link", "set", "dev"]).arg(found).args(words))?;
    // As large as it was before the last test, if that changed it.
    namespace.ip(&format!("link set {name} mtu 1500 up"))?;
    Ok(())
}

/// Suspends the machine to RAM and has its clock wake it after so many seconds. How long it slept.
pub fn sleep(seconds: u32) -> Result<Duration> {
    const ALARM: &str = "/sys/class/rtc/rtc0/wakealarm";
    let write = |path: &str, text: &str| {
        fs::write(path, text).with_context(|| format!("cannot write {text} to {path}"))
    };
    write("/sys/power/mem_sleep", "deep")?;
    // One that is set cannot be set again.
    write(ALARM, "0")?;
    write(ALARM, &format!("+{seconds}"))?;
    let before = slept();
    write("/sys/power/state", "mem")?;
    Ok(slept().saturating_sub(before))
}

/// What the machine has slept since it booted: the clock that goes on meanwhile minus the one that
/// does not.
fn slept() -> Duration {
    let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    let awake = read(ClockId::Monotonic);
    read(ClockId::Boottime).saturating_sub(awake)
}

/// How to protect these interfaces of a stage.
#[must_use]
pub fn options(stage: &Stage, interfaces: &[&str], mode: Mode) -> Options {
    Options {
        interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
        mode,
        pins: stage.pins().to_owned(),
        max_bans: 1_024,
        ..Options::default()
    }
}

/// Starts the program on the stage's edge.
pub fn start(stage: &Stage, options: Options) -> Result<Xdp> {
    within(&stage.edge, move || Ok(Xdp::start(options)?))
}
