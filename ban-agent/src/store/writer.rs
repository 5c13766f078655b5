//! The writing thread: takes whatever has come in and commits it as one group. When the disk
//! fails it keeps what is pending, says so, and tries again; it never holds anybody up.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender},
    },
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{
    Counted, Error, Pardoned, State,
    pending::{Ground, Pending},
    reader::Ask,
    row::{Key, Span},
    schema::{self, Database},
};
use crate::{clock::Now, ledger::Holder, net::IpNet, source::Position};

/// Messages taken before a commit, so that a barrier is not starved by a flood behind it.
const GROUP: usize = 50_000;
/// How long a failed commit waits for its next try, and how long positions may wait alone.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often what is old is removed, if anything is written at all.
const PURGE_EVERY: Duration = Duration::from_secs(3600);

/// Everything that can happen to the database.
#[derive(Debug)]
pub(super) enum Message {
    Claim(Key, Span),
    Release(Key),
    /// So many more bans, and when the last one was.
    Banned((IpNet, Holder), u32, i64),
    Ground((IpNet, Holder), Ground),
    /// How far a source was read, and what was counted since.
    Handled(Vec<(Arc<str>, Position)>, Vec<Counted>),
    /// Who was let go by hand, and when.
    Pardon(Pardoned, i64),
    Barrier(oneshot::Sender<()>),
    /// All claims and positions that there are.
    Whole(Vec<(Key, Span)>, Vec<(Arc<str>, Position)>),
    /// The reader found the file corrupt.
    Corrupt,
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
    /// Messages that the thread has not taken yet.
    pub(super) queued: AtomicUsize,
    /// The claims have to be given again ([`Message::Whole`]).
    pub(super) wants_snapshot: AtomicBool,
    /// Counts the files that were opened: a reader follows.
    pub(super) generation: AtomicU64,
    /// Evidence and history that found no room.
    pub(super) lost: AtomicU64,
    /// Transactions that reached the disk.
    pub(super) commits: AtomicU64,
    /// Age at which history and evidence without a claim go.
    pub(super) purge_age_ms: AtomicI64,
    /// Evidence left out because too much was queued.
    pub(super) skipped: AtomicU64,
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
    shared: Arc<Shared>,
    reader: Sender<Ask>,
    pending: Pending,
    /// While degraded: when to try again.
    retry: Option<Instant>,
    /// When the oldest pending position came.
    lazy: Option<Instant>,
    /// When it was purged, and with which age.
    purged: Option<(Instant, i64)>,
}

impl Writer {
    pub(super) fn new(
        path: PathBuf,
        database: Option<Database>,
        shared: Arc<Shared>,
        reader: Sender<Ask>,
    ) -> Writer {
        let retry = database.is_none().then(Instant::now);
        let pending = Pending::default();
        Writer { path, database, shared, reader, pending, retry, lazy: None, purged: None }
    }

    /// Takes messages until their sender is gone, then writes what is left.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let first = match self.due() {
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => messages.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match first {
                Ok(message) => {
                    self.take(message);
                    for message in messages.try_iter().take(GROUP) {
                        self.take(message);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.due().is_some_and(|due| due <= Instant::now()) {
                self.commit();
            }
        }
        if !self.pending.is_empty() {
            self.commit();
        }
    }

    /// When there is something to commit; `None`: not before the next message.
    fn due(&self) -> Option<Instant> {
        if self.retry.is_some() {
            self.retry
        } else if !self.pending.is_lazy() {
            Some(Instant::now())
        } else {
            self.lazy.map(|since| since + PATIENCE)
        }
    }

    fn take(&mut self, message: Message) {
        self.shared.queued.fetch_sub(1, Ordering::Relaxed);
        match message {
            Message::Claim(key, span) => self.pending.claim(key, Some(span)),
            Message::Release(key) => self.pending.claim(key, None),
            Message::Banned(who, bans, at) => self.pending.banned(who, bans, at),
            Message::Ground(who, ground) => self.pending.ground(who, ground),
            Message::Handled(positions, counted) => {
                self.lazy.get_or_insert_with(Instant::now);
                self.pending.handled(positions, counted);
            }
            Message::Pardon(pardoned, at) => self.pending.pardon(pardoned, at),
            // Dropped while degraded: nobody is told that it is durable, and nobody waits.
            Message::Barrier(done) if self.retry.is_none() => self.pending.barrier(done),
            Message::Barrier(_) => {}
            Message::Whole(claims, positions) => self.pending.replace(claims, positions),
            Message::Corrupt => self.discard(),
        }
    }

    fn commit(&mut self) {
        self.shared.busy.store(true, Ordering::Release);
        let result = self.try_commit();
        self.shared.answered();
        self.shared.lost.store(self.pending.lost, Ordering::Relaxed);
        let mut waiting = Vec::new();
        match result {
            Ok(done) if self.shared.wants_snapshot.load(Ordering::Acquire) => {
                self.shared.set(State::Degraded("waiting to write all claims anew".to_owned()));
                self.retry = Some(Instant::now() + PATIENCE);
                waiting = done;
            }
            Ok(done) => {
                self.retry = None;
                self.shared.set(State::Sound);
                waiting = done;
            }
            Err(error) => {
                self.retry = Some(Instant::now() + PATIENCE);
                // Those who are told that it failed can see why.
                self.shared.set(State::Degraded(chain(&error)));
                self.pending.failed();
                // it has ended, if it is gone
                let _ = self.reader.send(Ask::LetGo);
            }
        }
        for done in waiting {
            // Who does not wait any more need not know.
            let _ = done.send(());
        }
        let age = self.shared.purge_age_ms.load(Ordering::Relaxed);
        let due = |(then, at): (Instant, i64)| at != age || then.elapsed() > PURGE_EVERY;
        if self.retry.is_none() && self.purged.is_none_or(due) {
            self.purged = Some((Instant::now(), age));
            self.shared.busy.store(true, Ordering::Release);
            self.purge_logged(Now::read().wall.as_millisecond().saturating_sub(age));
            self.shared.answered();
            self.shared.set(State::Sound);
        }
    }

    /// Returns those who wait to be told.
    fn try_commit(&mut self) -> Result<Vec<oneshot::Sender<()>>, Error> {
        if self.database.as_ref().is_some_and(|database| !database.is_in_place(&self.path)) {
            log::error!("{} was removed or replaced under the agent", self.path.display());
            self.database = None;
        }
        let database = match self.database.take() {
            Some(database) => database,
            None => self.reopen()?,
        };
        let database = self.database.insert(database);
        match self.pending.write(&mut database.connection, database.boot) {
            Ok(done) => {
                self.lazy = None;
                self.shared.commits.fetch_add(1, Ordering::Relaxed);
                if std::mem::take(&mut self.pending.overflowed) {
                    self.shared.wants_snapshot.store(true, Ordering::Release);
                }
                Ok(done)
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

    fn reopen(&mut self) -> Result<Database, Error> {
        let database = match Database::open(&self.path) {
            Err(Error::Open { source, .. }) if schema::is_corrupt(&source) => {
                self.discard();
                Database::open(&self.path)?
            }
            other => other?,
        };
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
        if database.fresh && !self.pending.is_whole() {
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
         WHERE c.prefix = old.prefix AND c.holder = old.holder)";
    db.execute(&format!("DELETE FROM history AS old WHERE last < ?1 AND {unclaimed}"), [before])?;
    db.execute(&format!("DELETE FROM evidence AS old WHERE at < ?1 AND {unclaimed}"), [before])?;
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
