//! Processes, pin folders and waiting, for tests and the lab; all of it ends when dropped.
//!
//! Also compiled into xtask for the lab, so it uses nothing of the agent's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::patience::at_least;

/// How long a process has to end by itself, also on an emulated machine.
const GRACE: Duration = Duration::from_secs(30);

/// A process of ours. Dropping it ends it, gently first.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Option<Child>,
}

impl Process {
    /// Starts it.
    pub fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { name: name.to_owned(), child: Some(child) })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Its pipes, if it was started with any.
    pub fn child(&mut self) -> Option<&mut Child> {
        self.child.as_mut()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        child.try_wait().with_context(|| format!("cannot ask for {}", self.name))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let Some(child) = &self.child else { return Ok(()) };
        kill_process(Pid::from_child(child), signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// Asks it to end and waits; kills it when it does not.
    pub fn end(mut self) -> Result<ExitStatus> {
        self.finish()
    }

    /// Leaves it running.
    pub fn keep(mut self) {
        self.child = None;
    }

    fn finish(&mut self) -> Result<ExitStatus> {
        let Some(mut child) = self.child.take() else { bail!("{} is not ours", self.name) };
        // It may have ended already: then there is nobody to tell.
        let _gone = kill_process(Pid::from_child(&child), Signal::TERM);
        let since = Instant::now();
        while since.elapsed() < GRACE {
            if let Some(status) = child.try_wait().context("cannot wait")? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
        child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        child.wait().with_context(|| format!("cannot wait for {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.is_some()
            && let Err(error) = self.finish()
        {
            eprintln!("{error:#}");
        }
    }
}

/// A folder of pins of our own under the BPF file system. Dropping it removes what is pinned.
#[derive(Debug)]
pub struct Pins {
    path: PathBuf,
}

impl Pins {
    /// Names `/sys/fs/bpf/NAME`; the agent makes it.
    pub fn new(name: &str) -> Self {
        Self { path: Path::new("/sys/fs/bpf").join(name) }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if self.path.exists()
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            eprintln!("cannot remove the pins in {}: {error}", self.path.display());
        }
    }
}

/// Asks again and again until it is so; an error that names `what` after `limit`, or after a test's
/// patience if that is more.
pub fn eventually(what: &str, limit: Duration, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let (since, limit) = (Instant::now(), at_least(limit));
    loop {
        if so()? {
            return Ok(());
        }
        if since.elapsed() > limit {
            bail!("not within {limit:?}: {what}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}
