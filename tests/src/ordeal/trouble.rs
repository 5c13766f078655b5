//! What else goes wrong on a host: the disk of the state fills up, and somebody sets the clock.

use std::{
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
    process::Command,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::Scene;
use crate::{clock::Clock, net::run, random::Random};

/// A disk of its own for the state, small enough to fill in a moment.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of so many MiB in this folder, which it makes.
    pub fn mount(folder: PathBuf, size: u32) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {folder:?}"))?;
        let options = format!("size={size}m");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&folder))?;
        Ok(Self(folder))
    }

    /// Lets nobody write any more, or lets them again.
    pub fn read_only(&self, on: bool) -> Result<()> {
        let options = if on { "remount,ro" } else { "remount,rw" };
        run(Command::new("mount").args(["-o", options]).arg(&self.0)).map(|_| ())
    }

    /// Fills it to the last byte.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::options().create(true).append(true).open(self.filler())?;
        let block = vec![1; 1 << 16];
        for size in [1 << 16, 4096, 1] {
            while file.write_all(block.get(..size).unwrap_or_default()).is_ok() {}
        }
        Ok(())
    }

    /// Gives the room back.
    pub fn clear(&self) -> Result<()> {
        match fs::remove_file(self.filler()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("cannot empty the disk")
            }
            _ => Ok(()),
        }
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg("-l").arg(&self.0)) {
            eprintln!("{error:#}");
        }
    }
}

/// Full for a while, now and then; empty in the end.
pub(super) fn fill(scene: &Scene<'_>, disk: &SmallDisk, mut random: Random) -> Result<()> {
    while wait(scene, Duration::from_secs(3) + random.time(Duration::from_secs(12))) {
        scene.book.open().tally.full_disks += 1;
        disk.fill()?;
        wait(scene, random.time(Duration::from_secs(5)));
        disk.clear()?;
    }
    disk.clear()
}

/// Sets the agent's clock, and that of the programs that log, by up to so many seconds either way.
pub(super) fn set_clock(scene: &Scene<'_>, clock: &Clock, mut random: Random) -> Result<()> {
    while wait(scene, Duration::from_secs(2) + random.time(Duration::from_secs(8))) {
        let seconds = i64::try_from(random.below(2 * super::STEP + 1))?;
        let seconds = seconds - i64::try_from(super::STEP)?;
        scene.book.open().tally.clock_steps += 1;
        clock.set(seconds)?;
        scene.shift.store(seconds, Ordering::Release);
    }
    Ok(())
}

/// Waits; false if it is time to stop.
pub(super) fn wait(scene: &Scene<'_>, time: Duration) -> bool {
    let since = Instant::now();
    while since.elapsed() < time {
        if scene.stop.load(Ordering::Acquire) {
            return false;
        }
        thread::sleep(Duration::from_millis(20).min(time));
    }
    true
}
