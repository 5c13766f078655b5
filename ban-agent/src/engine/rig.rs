//! What the tests of the whole core share: random numbers with a seed, an agent over a kernel side
//! that the test goes on holding, and its files.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::Connection;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::{Engine, Options, command::Command, trial::Trial};
use crate::{
    clock::Now, config::Config, dataplane::DataPlane, event::Bus, pipeline::Pipeline, store::Store,
};

/// xorshift64* (Vigna 2016).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % limit
    }

    pub(super) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

/// The running agent; its other ends are kept open.
pub(super) struct Agent {
    pub(super) core: Engine,
    _messages: mpsc::Receiver<Command>,
}

impl Agent {
    /// With no jail yet, and nothing taken over. To be called inside a runtime.
    pub(super) fn new(
        config: Config,
        path: PathBuf,
        card: Box<dyn DataPlane>,
        trial: Trial,
        bus: Bus,
        now: Now,
    ) -> Agent {
        let store = Store::open(&config.agent.state).unwrap();
        let agent = config.agent.clone();
        let options = Options { path, config, agent, replace: false, grace: None };
        let (sender, messages) = mpsc::channel(16);
        let pipeline = Pipeline::new(sender, store.positions().clone(), bus.clone());
        let core = Engine::new(options, card, store, trial, pipeline, bus, now);
        Agent { core, _messages: messages }
    }
}

/// Returns a folder that costs no disk's time: what a power cut leaves is SQLite's matter.
pub(super) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap()
}

/// What is committed by now, in another file: an agent that was killed may still write into the old
/// one. A file that is torn is tried with real processes.
pub(super) fn copy_state(from: &Path, to: &Path) {
    let disk = Connection::open(from).unwrap();
    disk.busy_timeout(Duration::from_secs(60)).unwrap();
    disk.execute("VACUUM INTO ?1", [to.to_str().unwrap()]).unwrap();
}
