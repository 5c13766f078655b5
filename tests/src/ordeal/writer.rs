//! Programs that log: failures of many addresses, interleaved; noise, junk and forgeries between
//! them; and the log taken away from under the writer now and then.

use std::{
    fs::{self, File},
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::atomic::Ordering,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;

use super::{MAXRETRY, Scene};
use crate::random::Random;

/// Addresses that have begun to fail and have not failed often enough yet, per writer.
const SUSPECTS: usize = 12;
/// Rotated logs that are kept.
const KEPT: u64 = 20;
/// Lines between two rotations, on average.
const ROTATE: u64 = 400;
/// Offenders that may wait for their ban on a machine that is too slow: fewer than the logs that
/// are kept hold.
const LAG: usize = 1500;
const PAUSE: Duration = Duration::from_millis(6);

/// One program and its log.
#[derive(Debug)]
pub(super) struct Writer {
    number: u32,
    copies: bool,
    path: PathBuf,
    file: File,
    random: Random,
    suspects: Vec<(IpAddr, u32)>,
    next: u32,
    rotations: u64,
}

/// The log of writer `number`.
pub(super) fn path(scene: &Scene<'_>, number: u32) -> PathBuf {
    scene.stage.file(&format!("app{number}.log"))
}

impl Writer {
    pub(super) fn open(
        scene: &Scene<'_>,
        number: u32,
        copies: bool,
        random: Random,
    ) -> Result<Self> {
        let path = path(scene, number);
        let file = append(&path)?;
        let suspects = Vec::new();
        Ok(Self { number, copies, path, file, random, suspects, next: 0, rotations: 0 })
    }

    /// Writes until told to stop, then lets everybody who began fail often enough.
    pub(super) fn run(mut self, scene: &Scene<'_>) -> Result<()> {
        while !scene.stop.load(Ordering::Acquire) {
            self.line(scene)?;
            if self.random.once_in(ROTATE) {
                self.rotate(scene)?;
            }
            thread::sleep(self.random.time(PAUSE));
            // a log that is removed before anybody could read it is nobody's fault
            while scene.book.open().lag() > LAG && !scene.stop.load(Ordering::Acquire) {
                thread::sleep(PAUSE);
            }
        }
        while !self.suspects.is_empty() {
            self.failure(scene)?;
        }
        Ok(())
    }

    fn line(&mut self, scene: &Scene<'_>) -> Result<()> {
        scene.book.open().tally.lines += 1;
        match self.random.below(10) {
            0..5 => self.failure(scene),
            5..8 => self.stamped(scene, b"app: request served in 3 ms"),
            _ => self.junk(scene),
        }
    }

    fn failure(&mut self, scene: &Scene<'_>) -> Result<()> {
        if self.suspects.len() < SUSPECTS && !scene.stop.load(Ordering::Acquire) {
            let address = self.offender();
            scene.book.open().accuse(address);
            self.suspects.push((address, 0));
        }
        let at = self.random.index(self.suspects.len());
        let Some((address, failures)) = self.suspects.get_mut(at) else { return Ok(()) };
        let address = *address;
        *failures += 1;
        let last = *failures == MAXRETRY;
        self.stamped(scene, format!("app: bad login from {address}").as_bytes())?;
        if last {
            self.suspects.swap_remove(at);
            scene.book.open().convict(address);
        }
        Ok(())
    }

    /// Nobody comes twice: what happens to his ban is what happened to it.
    fn offender(&mut self) -> IpAddr {
        self.next += 1;
        // room for hours
        let host = self.number << 20 | self.next;
        if self.next.is_multiple_of(3) {
            let site = 0x2001_0db8_0066_u128 << 80;
            Ipv6Addr::from(site | u128::from(host)).into()
        } else {
            Ipv4Addr::from(0x6440_0000 + host).into()
        }
    }

    fn stamped(&mut self, scene: &Scene<'_>, text: &[u8]) -> Result<()> {
        let time = Timestamp::now() + scene.shift();
        let mut line = format!("{time:.3} ").into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        self.write(&line)
    }

    /// What nobody may be banned for: somebody's name stands in it, at the wrong place.
    fn junk(&mut self, scene: &Scene<'_>) -> Result<()> {
        scene.book.open().tally.junk += 1;
        let victim = Ipv4Addr::from(0x0a63_0000 | u32::try_from(self.random.below(1 << 16))?);
        let forged = format!("app: bad login from {victim}");
        match self.random.below(6) {
            0 => self.stamped(scene, format!("app: user \"{forged}\" is unknown").as_bytes()),
            1 => self.stamped(scene, format!("app: user {forged}").as_bytes()),
            2 => self.stamped(scene, format!("{forged} not really").as_bytes()),
            3 => {
                let mut bytes = vec![0_u8; 1 + self.random.index(4096)];
                bytes.push(b'\n');
                self.write(&bytes)
            }
            4 => {
                let mut bytes: Vec<u8> =
                    (0..200).map(|_| self.random.below(256).to_le_bytes()[0]).collect();
                bytes.retain(|byte| *byte != b'\n');
                bytes.extend_from_slice(format!(" {forged}\n").as_bytes());
                self.write(&bytes)
            }
            _ => {
                let mut line = "x".repeat(100_000);
                line.push_str(&forged);
                self.stamped(scene, line.as_bytes())
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// By copy and cut, or by rename and a new file, each log in its way, named as logrotate does
    /// with `dateext`.
    fn rotate(&mut self, scene: &Scene<'_>) -> Result<()> {
        self.rotations += 1;
        scene.book.open().tally.rotations += 1;
        let old = |number: u64| format!("{}-20261121-{number:06}", self.path.display());
        let aside = old(self.rotations);
        if self.copies {
            fs::copy(&self.path, aside).context("cannot copy a log")?;
            self.file.set_len(0).context("cannot cut a log")?;
        } else {
            fs::rename(&self.path, aside).context("cannot rename a log")?;
            self.file = append(&self.path)?;
        }
        if let Some(gone) = self.rotations.checked_sub(KEPT).filter(|number| *number > 0) {
            fs::remove_file(old(gone)).context("cannot remove a log")?;
        }
        Ok(())
    }
}

fn append(path: &std::path::Path) -> Result<File> {
    let file = File::options().create(true).append(true).open(path);
    file.with_context(|| format!("cannot open {}", path.display()))
}
