//! Clocks and boots of the agent alone: the wall clock by libfaketime, the boot clock by a time
//! namespace, the name of the boot by a file over the kernel's.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::{
    agent::LIMIT,
    process::{Process, eventually},
    stage::Stage,
};

/// Where the library is that shows a process another time; `None` if it is not installed.
pub fn faketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    let found = |folder: PathBuf| folder.join("faketime/libfaketime.so.1");
    folders.map(found).find(|path| path.exists())
}

/// A wall clock that can be set: libfaketime, and the file that tells it the time.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// One that is right.
    pub fn new(stage: &Stage, library: &Path) -> Result<Self> {
        let file = stage.write("clock", "+0\n")?;
        Ok(Self { library: library.to_owned(), file })
    }

    /// Has a process live by it.
    pub fn dress(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.file);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.env("NO_FAKE_STAT", "1");
    }

    /// Sets it to so many seconds from the true time.
    pub fn set(&self, seconds: i64) -> Result<()> {
        // libfaketime reads it again and again: it may not see half of it
        let aside = self.file.with_extension("new");
        fs::write(&aside, format!("{seconds:+}\n")).context("cannot write the clock's file")?;
        fs::rename(&aside, &self.file).context("cannot set the clock")
    }
}

/// Another boot of the machine, for the processes that are started in it.
#[derive(Debug)]
pub struct Boot {
    /// Keeps the time namespace.
    holder: Process,
    id: PathBuf,
}

impl Boot {
    /// One that began so many seconds ago.
    ///
    /// # Errors
    /// If the kernel makes no time namespace.
    pub fn new(stage: &Stage, seconds: i64) -> Result<Self> {
        let id = stage.write("boot_id", "0b0070b0-07b0-4070-b007-0b0070b0070b\n")?;
        let awake = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec;
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "unshare", "--time"]);
        command.arg("--monotonic").arg((seconds - awake).to_string());
        command.arg("--boottime").arg((seconds - boot).to_string());
        // says so once it is inside
        command.args(["sh", "-c", "echo in; exec cat"]);
        let said = stage.file("boot");
        command.stdin(Stdio::piped()).stdout(fs::File::create(&said)?);
        let holder = Process::spawn("the time namespace", &mut command)?;
        eventually("there is a time namespace", LIMIT, || {
            Ok(fs::read_to_string(&said)?.contains("in"))
        })?;
        Ok(Self { holder, id })
    }

    /// What goes before a program and its words, so that it is started in this boot.
    pub fn prefix(&self) -> Vec<Box<OsStr>> {
        let words = [
            "nsenter".into(),
            format!("--time=/proc/{}/ns/time_for_children", self.holder.id()),
            "unshare".into(),
            "--mount".into(),
            "sh".into(),
            "-c".into(),
            "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"".into(),
            self.id.display().to_string(),
        ];
        words.map(|word: String| Box::from(OsStr::new(&word))).into()
    }
}
