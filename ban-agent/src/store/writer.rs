//! The writing thread: takes whatever has come in and commits it as one group. When the disk
//! fails it keeps what is pending, says so, and tries again; it never holds anybody up.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
        mpsc::Sender,
    },
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{
    Error, State,
    pending::Pending,
    reader::Ask,
    schema::{self, Database},
};
use crate::clock::Now;

/// How long a failed commit waits for its next try, and how long positions may wait alone.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long changes gather that nobody waits for: many of them cost little more than one.
const GATHER: Duration = Duration::from_millis(50);
/// How often what is old is removed, if anything is written at all.
const PURGE_EVERY: Duration = Duration::from_secs(3600);

/// Where changes gather until the thread takes them: as much as [`Pending`] allows, and as much
/// again that is being written.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inbox: Mutex<Inbox>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Inbox {
    pending: Pending,
    /// When the oldest pending position came.
    lazy: Option<Instant>,
    /// When the oldest pending change came that is no position.
    eager: Option<Instant>,
    /// While degraded: when to try again.
    retry: Option<Instant>,
    /// The reader found the file corrupt.
    corrupt: bool,
    /// Nothing comes any more.
    closed: bool,
}

/// What the thread is to do.
enum Work {
    /// Put the file aside.
    Discard,
    /// Write this.
    Commit(Box<Pending>),
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records something; says whether too much waits, so that all claims have to be given again.
    pub(super) fn record(&self, change: impl FnOnce(&mut Pending)) -> bool {
        let mut inbox = self.lock();
        let (before, was_awaited) = (inbox.pending.is_overflowed(), inbox.pending.is_awaited());
        change(&mut inbox.pending);
        let is_eager = !inbox.pending.is_lazy();
        let first = (is_eager && inbox.eager.is_none())
            || (inbox.lazy.is_none() && !inbox.pending.is_empty());
        if first {
            let now = Instant::now();
            inbox.lazy.get_or_insert(now);
            inbox.eager = inbox.eager.or(is_eager.then_some(now));
        }
        // to wake somebody is a system call: once for all that gathers
        if first || (inbox.pending.is_awaited() && !was_awaited) {
            self.wake.notify_one();
        }
        inbox.pending.is_overflowed() && !before
    }

    /// Tells `done` once everything recorded so far is on disk; drops it if it cannot be now.
    pub(super) fn barrier(&self, done: oneshot::Sender<()>) {
        let mut inbox = self.lock();
        if inbox.retry.is_none() {
            inbox.pending.barrier(done);
            self.wake.notify_one();
        }
    }

    /// The file is corrupt.
    pub(super) fn discard(&self) {
        self.lock().corrupt = true;
        self.wake.notify_one();
    }

    /// Nothing comes any more: the thread writes what is left, and ends.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// What found no room.
    pub(super) fn lost(&self) -> u64 {
        self.lock().pending.lost()
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 5] {
        self.lock().pending.sizes()
    }

    /// Waits for something to do; `None`: to end.
    fn next(&self) -> Option<Work> {
        let mut inbox = self.lock();
        loop {
            if std::mem::take(&mut inbox.corrupt) {
                return Some(Work::Discard);
            }
            if inbox.closed {
                // tried once more: whether it works or not
                return (!inbox.pending.is_empty())
                    .then(|| Work::Commit(Box::new(inbox.pending.take())));
            }
            let now = Instant::now();
            inbox = match inbox.due(now) {
                None => self.wake.wait(inbox).unwrap_or_else(PoisonError::into_inner),
                Some(due) if due <= now => {
                    (inbox.lazy, inbox.eager) = (None, None);
                    return Some(Work::Commit(Box::new(inbox.pending.take())));
                }
                Some(due) => {
                    let waited = self.wake.wait_timeout(inbox, due.duration_since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// It was written, but some claims are still to come.
    fn again(&self) {
        self.lock().retry = Some(Instant::now() + PATIENCE);
    }

    /// Whether something waits that does not want to wait.
    fn waits(&self) -> bool {
        !self.lock().pending.is_lazy()
    }

    /// All is well.
    fn succeeded(&self) {
        self.lock().retry = None;
    }

    /// It could not be written: back to the rest, and tried again; unless it was the last try.
    fn failed(&self, mut pending: Pending) {
        let mut inbox = self.lock();
        if inbox.closed {
            return;
        }
        pending.absorb(inbox.pending.take());
        pending.failed();
        inbox.pending = pending;
        inbox.retry = Some(Instant::now() + PATIENCE);
    }
}

impl Inbox {
    /// When there is something to commit; `None`: not before something comes.
    fn due(&self, now: Instant) -> Option<Instant> {
        if self.retry.is_some() {
            self.retry
        } else if self.pending.is_awaited() {
            Some(now)
        } else {
            let eager = self.eager.map(|since| since + GATHER);
            eager.or(self.lazy.map(|since| since + PATIENCE))
        }
    }
}

/// Hears how the store is.
pub(super) type Watch = Box<dyn Fn(&State) + Send>;

/// What the thread and the handle both see.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Is told of every change of the state, before anybody else is.
    watch: Mutex<Option<Watch>>,
    /// The thread waits for the disk …
    busy: AtomicBool,
    /// … and somebody has given up waiting with it.
    stuck: AtomicBool,
    /// The claims have to be given again ([`super::Store::begin_gathering`]).
    pub(super) wants_snapshot: AtomicBool,
    /// Counts the files that were opened: a reader follows.
    pub(super) generation: AtomicU64,
    /// While a test holds it, the disk does not answer.
    #[cfg(test)]
    pub(super) hang: Mutex<()>,
    /// Rows that were handed to SQLite: a disk that takes some answers.
    pub(super) rows: AtomicU64,
    /// Transactions that reached the disk.
    pub(super) commits: AtomicU64,
    /// Age at which history and evidence without a claim go.
    pub(super) purge_age_ms: AtomicI64,
}

impl Shared {
    pub(super) fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells `watch` of every change from now on, and at once if all is not well.
    pub(super) fn watch(&self, watch: Watch) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.is_sound() {
            watch(&state);
        }
        *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch);
    }

    pub(super) fn set(&self, new: State) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.change(&mut state, new);
    }

    /// If `overflowed`, so much waits for the disk that all has to be given anew.
    pub(super) fn note(&self, overflowed: bool) {
        if overflowed {
            self.wants_snapshot.store(true, Ordering::Release);
            let why = "too many writes wait for the disk: all claims will be written again";
            self.set(State::Degraded(why.to_owned()));
        }
    }

    /// Whether the disk does not answer, as far as anybody has noticed.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Acquire)
    }

    /// Somebody has waited for long: the store is degraded, if that is the disk's fault.
    pub(super) fn give_up(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.busy.load(Ordering::Acquire) {
            return false;
        }
        self.stuck.store(true, Ordering::Release);
        self.change(&mut state, State::Degraded("the disk does not answer".to_owned()));
        true
    }

    /// The disk has answered.
    fn answered(&self) {
        self.busy.store(false, Ordering::Release);
        self.stuck.store(false, Ordering::Release);
    }

    fn change(&self, state: &mut State, new: State) {
        if *state == new {
            return;
        }
        match &new {
            State::Sound => log::warn!("the store works again: nothing was lost"),
            State::Degraded(why) => {
                log::error!("the store is degraded, bans are kept in memory and the kernel: {why}");
            }
        }
        if let Some(watch) = &*self.watch.lock().unwrap_or_else(PoisonError::into_inner) {
            watch(&new);
        }
        *state = new;
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

/// The thread's state.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    database: Option<Database>,
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    reader: Sender<Ask>,
    /// When it was purged, and with which age.
    purged: Option<(Instant, i64)>,
    /// What was decided while the disk failed is being written: until it is, all is not well.
    behind: bool,
}

impl Writer {
    pub(super) fn new(
        path: PathBuf,
        database: Option<Database>,
        queue: Arc<Queue>,
        shared: Arc<Shared>,
        reader: Sender<Ask>,
    ) -> Writer {
        queue.lock().retry = database.is_none().then(Instant::now);
        Writer { path, database, queue, shared, reader, purged: None, behind: false }
    }

    /// Takes what is recorded until the queue is closed, then writes what is left.
    pub(super) fn run(mut self) {
        while let Some(work) = self.queue.next() {
            match work {
                Work::Discard => self.discard(),
                Work::Commit(pending) => self.commit(*pending),
            }
        }
    }

    fn commit(&mut self, pending: Pending) {
        self.shared.busy.store(true, Ordering::Release);
        let result = self.try_commit(&pending);
        self.shared.answered();
        match result {
            Ok(()) if self.shared.wants_snapshot.load(Ordering::Acquire) => {
                self.queue.again();
                self.shared.set(State::Degraded("waiting to write all claims anew".to_owned()));
                pending.tell();
            }
            Ok(()) => {
                self.queue.succeeded();
                self.answered();
                pending.tell();
                self.purge_if_due();
            }
            Err(error) => {
                self.behind = false;
                // Those who are told that it failed can see why.
                self.shared.set(State::Degraded(chain(&error)));
                self.queue.failed(pending);
                // it has ended, if it is gone
                let _ = self.reader.send(Ask::LetGo);
            }
        }
    }

    fn purge_if_due(&mut self) {
        let age = self.shared.purge_age_ms.load(Ordering::Relaxed);
        let due = |(then, at): (Instant, i64)| at != age || then.elapsed() > PURGE_EVERY;
        if self.purged.is_none_or(due) {
            self.purged = Some((Instant::now(), age));
            self.shared.busy.store(true, Ordering::Release);
            self.purge_logged(Now::read().wall.as_millisecond().saturating_sub(age));
            self.shared.answered();
            self.answered();
        }
    }

    /// The disk has done what it was asked for. What came while it hung is told as not recorded: all
    /// is well once that is written too. An agent that ends before must not be taken for one that
    /// has recorded all.
    fn answered(&mut self) {
        let behind = std::mem::take(&mut self.behind);
        self.behind = !behind && !self.shared.state().is_sound() && self.queue.waits();
        self.shared.set(if self.behind {
            State::Degraded("writing what was decided meanwhile".to_owned())
        } else {
            State::Sound
        });
    }

    fn try_commit(&mut self, pending: &Pending) -> Result<(), Error> {
        #[cfg(test)]
        drop(self.shared.hang.lock());
        if self.database.as_ref().is_some_and(|database| !database.is_in_place(&self.path)) {
            log::error!("{} was removed or replaced under the agent", self.path.display());
            self.database = None;
        }
        let database = match self.database.take() {
            Some(database) => database,
            None => self.reopen(pending.is_whole())?,
        };
        let database = self.database.insert(database);
        let each = || _ = self.shared.rows.fetch_add(1, Ordering::Relaxed);
        match pending.write(&mut database.connection, database.boot, &each) {
            Ok(()) => {
                self.shared.commits.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(source) => {
                if schema::is_corrupt(&source) {
                    self.discard();
                } else if !schema::is_locked(&source) {
                    self.database = None;
                }
                Err(Error::Write { path: self.path.clone(), source })
            }
        }
    }

    fn reopen(&mut self, whole: bool) -> Result<Database, Error> {
        let database = match Database::open(&self.path) {
            Err(Error::Open { source, .. }) if schema::is_corrupt(&source) => {
                self.discard();
                Database::open(&self.path)?
            }
            other => other?,
        };
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
        if database.fresh && !whole {
            self.shared.wants_snapshot.store(true, Ordering::Release);
        }
        Ok(database)
    }

    /// Puts a corrupt file aside, for whoever wants to look into it.
    fn discard(&mut self) {
        self.database = None;
        match set_aside(&self.path) {
            Ok(()) => {}
            Err(error) => log::error!("{}", chain(&error)),
        }
    }

    fn purge_logged(&mut self, before: i64) {
        let Some(database) = &self.database else { return };
        if let Err(error) = purge(&database.connection, before) {
            log::warn!("old entries were not removed from {}: {error}", self.path.display());
        }
    }
}

/// Renames a corrupt file and says so.
pub(super) fn set_aside(path: &Path) -> Result<(), Error> {
    let suffix = format!(".corrupt-{}", Now::read().wall.as_second());
    let aside = schema::move_aside(path, &suffix)?;
    log::error!("{} is corrupt; it was kept as {}", path.display(), aside.display());
    Ok(())
}

/// Removes history and evidence from before `before` unless a claim still rests on it, and gives
/// their pages back to the file system.
fn purge(db: &Connection, before: i64) -> rusqlite::Result<()> {
    let unclaimed = "NOT EXISTS (SELECT 1 FROM claims c
         WHERE c.prefix = old.prefix AND c.holder = old.holder)
         AND NOT (old.holder = 'manual' AND EXISTS (SELECT 1 FROM lists))";
    db.execute(&format!("DELETE FROM history AS old WHERE last < ?1 AND {unclaimed}"), [before])?;
    db.execute(&format!("DELETE FROM evidence AS old WHERE at < ?1 AND {unclaimed}"), [before])?;
    db.execute("DELETE FROM deeds WHERE at < ?1", [before])?;
    db.execute("DELETE FROM counts WHERE last < ?1", [before])?;
    db.execute("DELETE FROM pardons WHERE at < ?1", [before])?;
    let mut shrink = db.prepare("PRAGMA incremental_vacuum")?;
    let mut pages = shrink.query([])?;
    while pages.next()?.is_some() {}
    Ok(())
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
