//! The virtual machine: one run of QEMU from boot to power-off, within a limit of time. It
//! emulates (no KVM needed), and its cards are joined to each other only, never to the host.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::tally::Tally;
use crate::command;

/// Cards of the guest, all on one wire.
const CARDS: u8 = 3;
/// Lines of the kernel's console that are shown when the guest does not get to its end.
const CONSOLE: usize = 25;
/// How long a machine that runs may keep silent: its first program says every 10 s that it lives.
const SILENCE: Duration = Duration::from_secs(150);
/// What the kernel says of a card that takes no more frames; none of ours sends any in the driver.
const DEAD_CARD: &str = "NETDEV WATCHDOG";

/// What to boot.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) kernel: PathBuf,
    pub(super) archive: PathBuf,
    /// Where the kernel's console goes.
    pub(super) console: PathBuf,
    /// How long all of it may take.
    pub(super) limit: Duration,
}

impl Guest {
    /// Boots it, shows and counts what the tests say. Returns `None` if the emulated machine itself stood
    /// still, which is no word on the tests.
    pub(super) fn run(&self, show: &mut dyn FnMut(&str)) -> Result<Option<Tally>> {
        let mut qemu = self.command();
        // What an earlier machine said is no word on this one; there may be none.
        let _ = fs::remove_file(&self.console);
        show(&format!("  $ {}", command::shown(&qemu)));
        let mut child = Running(qemu.spawn().context("cannot start QEMU")?);
        let output = child.0.stdout.take().context("QEMU has no output")?;
        let (lines, said) = mpsc::channel();
        // Ends with QEMU's output.
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        let mut tally = Tally::default();
        let start = Instant::now();
        let (mut heard, mut console) = (start, 0);
        let stuck = loop {
            match said.recv_timeout(Duration::from_secs(1)) {
                Ok(line) => {
                    let line = String::from_utf8_lossy(&line);
                    let line = line.trim_end_matches('\r');
                    show(line);
                    tally.read(line);
                    heard = Instant::now();
                    // Not all get from there to the power's end: some not after a suspend.
                    if tally.ended() {
                        break false;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break false,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let size = fs::metadata(&self.console).map_or(0, |file| file.len());
            if size != console {
                (heard, console) = (Instant::now(), size);
                if self.console_text().contains(DEAD_CARD) {
                    break true;
                }
            }
            if start.elapsed() > self.limit {
                tally.fail(format!("not done after {} s, killed", self.limit.as_secs()));
                break false;
            }
            if heard.elapsed() > SILENCE {
                break true;
            }
        };
        drop(child);
        if !tally.ended() {
            let console = self.console_tail();
            show(&format!("the guest did not get to its end; its console:\n{console}"));
        }
        Ok((!stuck).then_some(tally))
    }

    fn command(&self) -> Command {
        let mut qemu = Command::new("qemu-system-x86_64");
        // One processor, so that none runs the breakpoint of a kernel that has just patched its
        // code, of which the kernel then does not know; but a place for two: without that QEMU leaves
        // out the guest's memory barriers, and the cards, on another thread, miss its word.
        qemu.args(["-accel", "tcg,thread=multi", "-smp", "1,maxcpus=2"]);
        qemu.args(["-machine", "q35", "-m", "1024"]);
        // QEMU 7.2 now and then loses the flags behind the guest's cmpxchg16b, which kernels use
        // in their allocator; without it they do otherwise.
        qemu.args(["-cpu", "max,-cx16"]);
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        qemu.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.archive);
        qemu.args(["-append", "console=ttyS0 loglevel=5 panic=-1 ban_agent_guest"]);
        qemu.arg("-serial").arg(format!("file:{}", self.console.display()));
        qemu.args(["-serial", "stdio"]);
        // Without a filter of VLANs of its own, so that it is not the card that drops tagged frames.
        for card in 0..CARDS {
            qemu.arg("-netdev").arg(format!("hubport,id=port{card},hubid=0"));
            qemu.arg("-device").arg(format!(
                "virtio-net-pci,netdev=port{card},mac=52:54:00:00:00:0{card},ctrl_vlan=off,romfile="
            ));
        }
        qemu.stdin(Stdio::null()).stdout(Stdio::piped());
        qemu
    }

    fn console_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    fn console_tail(&self) -> String {
        let text = self.console_text();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("alive ")).collect();
        lines.get(lines.len().saturating_sub(CONSOLE)..).unwrap_or_default().join("\n")
    }
}

/// QEMU, which never outlives us.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended by itself unless its time was over.
        let _ended = self.0.kill();
        if let Err(error) = self.0.wait() {
            eprintln!("xtask: cannot wait for QEMU: {error}");
        }
    }
}
