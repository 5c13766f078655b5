//! The process groups of the commands that run, so that whatever is cut off takes along what it has
//! started: by its limit of time, by the end of its task, or by the agent's end. Knows nothing of
//! what the commands are for.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::{
    process::Child,
    time::{self, Instant},
};

/// How long a command that was told to end may take.
const GRACE: Duration = Duration::from_secs(1);
/// How often it is looked whether all have ended.
const LOOK: Duration = Duration::from_millis(10);

/// The leaders of all groups that run.
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// The group of a command that was started as its leader. Dropping it kills all that is left of it,
/// unless it was left alone: it has to be dropped before its [`Child`], whose number is free for
/// others once it has been waited for.
#[derive(Debug)]
pub(crate) struct Group {
    leader: Option<Pid>,
}

impl Group {
    /// Returns the group that `child` leads.
    #[must_use]
    pub(crate) fn of(child: &Child) -> Group {
        let leader = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(leader) = leader {
            let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
            running.insert(leader.as_raw_nonzero().get());
        }
        Group { leader }
    }

    /// The command has ended: what it left in the background may stay.
    pub(crate) fn leave(mut self) {
        self.forget();
    }

    /// Ends all of it, kindly first.
    pub(crate) async fn end(self, child: &mut Child) {
        self.signal(Signal::TERM);
        let _ = time::timeout(GRACE, child.wait()).await;
        // by being dropped: whatever ignored the signal
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader {
            // it may be gone already
            let _ = kill_process_group(leader, signal);
        }
    }

    fn forget(&mut self) {
        if let Some(leader) = self.leader.take() {
            let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
            running.remove(&leader.as_raw_nonzero().get());
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        self.forget();
    }
}

/// Ends everything that runs, kindly first; to be called when nothing more is started.
pub(crate) async fn end_all() {
    let deadline = Instant::now() + GRACE;
    let mut groups: Vec<Pid> = {
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.iter().filter_map(|leader| Pid::from_raw(*leader)).collect()
    };
    signal_all(&groups, Signal::TERM);
    while Instant::now() < deadline && !groups.is_empty() {
        time::sleep(LOOK).await;
        // also of those whose leader is gone
        groups.retain(|group| test_kill_process_group(*group).is_ok());
    }
    signal_all(&groups, Signal::KILL);
}

fn signal_all(groups: &[Pid], signal: Signal) {
    for group in groups {
        // it may be gone already
        let _ = kill_process_group(*group, signal);
    }
}
