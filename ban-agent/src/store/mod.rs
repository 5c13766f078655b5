//! Keeps claims, history and positions in SQLite, so that a ban survives kill -9 and a reboot.
//!
//! Changes are left for a thread of the store's own, which commits them in groups: recording waits
//! for no disk, and a disk that fails holds nobody up. What waits is one state of what is to be
//! written, bounded, in which the last change wins. Who has to know that something is durable waits
//! for a [`Store::barrier`].

mod deeds;
mod dry;
mod facts;
pub mod import;
mod lists;
mod orders;
mod pending;
mod positions;
mod read;
mod reader;
mod row;
mod schema;
#[cfg(test)]
mod tests;
pub mod trial;
mod unban_marks;
mod writer;

use std::{
    collections::{BTreeMap, HashMap},
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::Ordering,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use ban_core::jail::{self, Count, Offence, Offenders, Record};
use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use tokio::sync::oneshot;

#[cfg(test)]
pub(crate) use self::unban_marks::CORRECTION;
pub use self::{
    deeds::{Asker, By, Deed, Many, Origin, Search, Tally, Unasked},
    dry::separate,
    facts::Fact,
    orders::{Kind, Order},
};
use self::{
    import::Former,
    pending::Ground,
    reader::Reader,
    row::{Key, Span},
    schema::Database,
    writer::{Queue, Shared, Writer},
};
pub use self::{
    positions::Positions,
    unban_marks::{UnbanMarks, Unbanned},
};
use crate::{
    clock::Now,
    ledger::{Claim, Holder},
    net::IpNet,
};

/// Claims that are read while those before them are taken over.
const READ_AHEAD: usize = 4096;

/// How long a start waits for another process to let go of the file.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// How long a disk may take until the store is degraded.
const DISK_PATIENCE: Duration = Duration::from_secs(5);
/// How long the end waits for the disk, and for one that has not answered before.
const CLOSE_PATIENCE: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(1)];

/// Addresses whose history the disk is asked for at once: it answers within the reader's patience.
const ASKED_AT_ONCE: usize = 1000;

/// Age at which history and evidence go, unless the configuration says otherwise.
pub const PURGE_AGE: Duration = Duration::from_secs(30 * 86_400);

/// What can be wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite cannot open or read it.
    #[error("cannot open the state {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// SQLite cannot write it.
    #[error("cannot write the state {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// A file or directory cannot be handled.
    #[error("cannot {doing} {path}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It belongs to another program.
    #[error("{0} is a database of another program")]
    Foreign(PathBuf),
    /// There is something else.
    #[error("the state {0} is not a regular file")]
    NotAFile(PathBuf),
    /// It is not a database of fail2ban 0.11 or later.
    #[error("{0} is not a database of fail2ban 0.11 or later: it has no table 'bips'")]
    NotFail2ban(PathBuf),
    /// A later version has written it.
    #[error("{path} has schema {found}, this version knows up to {known}")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The writing thread could not be started.
    #[error("cannot start the store's thread")]
    Thread(#[source] io::Error),
}

/// How the store is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// What is acknowledged is on disk.
    #[default]
    Sound,
    /// Changes are kept in memory until the disk works again; why.
    Degraded(String),
}

impl State {
    /// Whether all is well.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        *self == State::Sound
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Sound => f.write_str("ok"),
            State::Degraded(why) => write!(f, "degraded: {why}"),
        }
    }
}

/// What a jail counts for a prefix by now; `None`: nothing any more.
pub type Counted = ((Arc<str>, IpNet), Option<Count>);

/// What each jail had counted.
pub type Counts = HashMap<Arc<str>, Vec<(IpNet, Count)>>;

/// What the store remembered, beside the claims.
#[derive(Debug, Default)]
pub struct Loaded {
    /// What the jails had counted at the positions.
    pub counts: Counts,
    /// What the operator let go.
    pub unban_marks: UnbanMarks,
    /// Whether it was everything: not if there was no file, or a corrupt one. Then bans that
    /// only the kernel still holds are not to be taken for lifted.
    pub complete: bool,
}

/// Why a holder banned a prefix last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What was banned.
    pub prefix: IpNet,
    /// By whom.
    pub holder: Holder,
    /// When: the time of the last failure, or of the operator's command.
    pub at: Timestamp,
    /// How many failures led to it; 0 by hand.
    pub failures: u32,
    /// The operator's reason.
    pub reason: Option<String>,
    /// The lines, as the attacker wrote them: escape to show.
    pub lines: Vec<Vec<u8>>,
    /// How long; `None`: for ever, or recorded by a version that did not keep it.
    pub bantime: Option<Duration>,
    /// Fields of the last failure, as the attacker wrote them.
    pub fields: BTreeMap<String, String>,
}

/// Why a prefix was banned before; empty until the store has looked ([`Store::past`]).
pub type Past = Arc<OnceLock<Vec<Evidence>>>;

/// Waits for [`Store::barrier`] as long as a disk may take.
#[derive(Clone, Debug)]
pub struct Patience(Arc<Shared>);

impl Patience {
    /// Whether what was recorded before the barrier is on disk. A disk that does not answer makes
    /// the store degraded: then nobody waits any more. One that has much to write is waited for.
    pub async fn durable(&self, mut barrier: oneshot::Receiver<()>) -> bool {
        let mut time = if self.0.is_stuck() { Duration::ZERO } else { DISK_PATIENCE };
        let rows = || self.0.rows.load(Ordering::Relaxed);
        let mut written = rows();
        loop {
            let answer = tokio::time::timeout(time, &mut barrier).await;
            let before = std::mem::replace(&mut written, rows());
            match answer {
                Ok(done) => return done.is_ok(),
                Err(_) if before == written && self.0.give_up() => return false,
                Err(_) => time = DISK_PATIENCE,
            }
        }
    }
}

/// Tells what is remembered of an address, beside the core: whoever asks waits for the disk himself.
#[derive(Clone, Debug)]
pub struct Recall {
    reader: Arc<Reader>,
    turn: Arc<tokio::sync::Mutex<()>>,
    importing: Arc<tokio::sync::Mutex<()>>,
    surveys: Arc<tokio::sync::Mutex<()>>,
    path: Arc<Path>,
    shared: Arc<Shared>,
}

impl Recall {
    /// Why each of `bans` was made, and how often `address` was banned; nothing, if the disk does
    /// not answer.
    pub async fn of(&self, address: IpNet, bans: Vec<IpNet>) -> (Vec<Evidence>, u32) {
        let _turn = self.turn.lock().await;
        let reader = Arc::clone(&self.reader);
        let asked = tokio::task::spawn_blocking(move || {
            reader.ask(move |db| {
                let evidence = bans.iter().filter_map(|prefix| read::evidence(db, *prefix).ok());
                (evidence.flatten().collect(), read::bans(db, address, None).unwrap_or(0))
            })
        });
        asked.await.ok().flatten().unwrap_or_default()
    }

    /// Leaves of the bans of each those that are not on record yet; `None`: the disk does not answer.
    pub async fn unknown(&self, mut formers: Vec<Former>) -> Option<Vec<Former>> {
        let _turn = self.turn.lock().await;
        let reader = Arc::clone(&self.reader);
        let asked = tokio::task::spawn_blocking(move || {
            for some in formers.chunks_mut(ASKED_AT_ONCE) {
                let who = some.iter().map(|former| (former.prefix, holder(former)));
                let who: Vec<(IpNet, Holder)> = who.collect();
                let known = reader.ask(move |db| {
                    let bans =
                        |(prefix, holder): &(IpNet, Holder)| read::bans(db, *prefix, Some(holder));
                    who.iter().map(bans).collect::<rusqlite::Result<Vec<u32>>>().ok()
                });
                for (former, known) in some.iter_mut().zip(known.flatten()?) {
                    former.bans = former.bans.saturating_sub(known);
                }
            }
            Some(formers)
        });
        asked.await.ok().flatten()
    }

    /// Held while something is taken over: what another one takes over meanwhile would count twice.
    pub async fn importing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.importing.lock().await
    }
}

/// The handle of the store: sends changes to its thread, and reads.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    recall: Recall,
    offenders: Offenders,
    positions: Positions,
    /// There was no file, or none that was of use.
    fresh: bool,
    /// Closed once the thread has ended.
    ended: mpsc::Receiver<()>,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Store {
    /// Opens or makes the file. One that is corrupt is put aside; where none can be made, the
    /// store starts degraded and goes on trying.
    ///
    /// # Errors
    /// If the file is not ours, is of a later version, or exists but cannot be read: to go on
    /// would forget bans.
    pub fn open(path: &Path) -> Result<Store, Error> {
        schema::check_kind(path)?;
        let shared = Arc::new(Shared::default());
        let database = match open_patiently(path) {
            Ok(database) => Some(database),
            Err(error @ (Error::Foreign(_) | Error::Newer { .. })) => return Err(error),
            Err(error) => {
                match schema::open_to_read(path) {
                    // without room SQLite may not see that its log mends the file
                    Err(Error::Open { source, .. }) if schema::is_corrupt(&source) => {}
                    Err(error) if path.exists() => return Err(error),
                    _ => {}
                }
                shared.set(State::Degraded(writer::chain(&error)));
                None
            }
        };
        let age = i64::try_from(PURGE_AGE.as_millis()).unwrap_or(i64::MAX);
        shared.purge_age_ms.store(age, Ordering::Relaxed);
        let fresh = database.as_ref().is_some_and(|database| database.fresh) || !path.exists();
        let queue = Arc::new(Queue::default());
        let reader = Reader::start(path.to_owned(), Arc::clone(&shared)).map_err(Error::Thread)?;
        let path = path.to_owned();
        let (own, its) = (Arc::clone(&queue), Arc::clone(&shared));
        let writer = Writer::new(path.clone(), database, own, its, reader.sender());
        let recall = Recall {
            reader: Arc::new(reader),
            turn: Arc::default(),
            importing: Arc::default(),
            surveys: Arc::default(),
            path: path.as_path().into(),
            shared: Arc::clone(&shared),
        };
        let (ends, ended) = mpsc::channel();
        let thread = thread::Builder::new().name("store".to_owned()).spawn(move || {
            // dropped last
            let _ends: mpsc::Sender<()> = ends;
            writer.run();
        });
        // joined by its channel: a disk that hangs must not hold the end up
        drop(thread.map_err(Error::Thread)?);
        let offenders = Offenders::default();
        let positions = Positions::new(Arc::clone(&queue), Arc::clone(&shared));
        Ok(Store { path, queue, shared, recall, offenders, positions, fresh, ended })
    }

    /// Reads everything, and hands each claim to `each`; some may be over. From a corrupt file it
    /// is what can be read, and a new one takes its place, which wants all claims
    /// ([`Store::begin_gathering`]).
    pub fn load(&mut self, now: Now, mut each: impl FnMut(Claim)) -> Loaded {
        let mut count = 0_u64;
        // not to be kept: see [`reader::Ask::LetGo`]
        let result = schema::open_to_read(&self.path).ok().map(|db| {
            let (db, read) = read_ahead(db, now, |claim| {
                count += 1;
                each(claim);
            });
            let (db, skipped) = (&db, read?);
            if skipped > 0 {
                log::error!("{skipped} invalid claims in the store were skipped");
            }
            self.offenders.forget_before(purged_before(&self.shared, now));
            read::former(db, jail::REMEMBERED, |jail, prefix, record| {
                self.offenders.add(jail, prefix, record);
            })?;
            Ok((read::positions(db)?, read::counts(db)?, read::unban_marks(db)?))
        });
        let complete = !self.fresh;
        match result {
            Some(Ok((positions, counts, unban_marks))) => {
                self.positions.restore(positions);
                return Loaded { counts, unban_marks, complete };
            }
            Some(Err(error)) if schema::is_corrupt(&error) => {
                log::error!("{count} claims were read before the corruption");
                self.shared.wants_snapshot.store(true, Ordering::Release);
                self.queue.discard();
            }
            Some(Err(error)) => log::error!("the store cannot be read: {error}"),
            None => {}
        }
        Loaded::default()
    }

    /// As many bans fit per family: so much may wait for the disk.
    pub fn set_max_bans(&mut self, max_bans: usize) {
        self.record(|pending| pending.set_max_bans(max_bans));
    }

    /// Records a claim, new or with a new end. `offence`: a jail's, with its evidence; it counts
    /// as one more ban of the prefix.
    pub fn claim(&mut self, claim: &Claim, offence: Option<&Offence>, now: Now) {
        if let Some(offence) = offence {
            self.remember(claim, 1, offence.time);
        }
        let (key, span) = (Key::of(claim), Some(Span::of(claim, now)));
        let who = || (claim.prefix, claim.holder.clone());
        let ground = offence.map(|offence| {
            let mut lines = Vec::new();
            for line in &offence.evidence {
                lines.extend_from_slice(line);
                lines.push(b'\n');
            }
            let at = offence.time.as_millisecond();
            let span = now.wall_of(claim.until).map(|until| until.duration_since(offence.time));
            let bantime = span.map(|time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
            let fields = serde_json::to_string(&offence.fields).unwrap_or_default();
            Ground { at, failures: offence.failures, reason: None, lines, bantime, fields }
        });
        self.record(|pending| {
            pending.claim(key, span);
            if let Some(ground) = ground {
                pending.banned(who(), 1, ground.at);
                pending.ground(who(), ground);
            }
        });
    }

    /// Records claims, and nothing else of them: neither evidence nor history.
    pub fn claims(&mut self, claims: &mut Vec<Claim>, now: Now) {
        if claims.is_empty() {
            return;
        }
        self.record(|pending| {
            for claim in claims.drain(..) {
                let span = Span::of(&claim, now);
                pending.claim(Key::from(claim), Some(span));
            }
        });
    }

    /// Records the operator's claim, and why.
    pub fn manual(&mut self, claim: &Claim, reason: Option<&str>, now: Now) {
        self.remember(claim, 1, now.wall);
        let (key, span) = (Key::of(claim), Some(Span::of(claim, now)));
        let who = (claim.prefix, claim.holder.clone());
        let at = now.wall.as_millisecond();
        let reason = reason.map(str::to_owned);
        self.record(|pending| {
            pending.claim(key, span);
            pending.banned(who.clone(), 1, at);
            pending.ground(who, Ground { at, reason, ..Ground::default() });
        });
    }

    /// Records what fail2ban remembered of an address, with the bans that were not known yet
    /// ([`Recall::unknown`]); its claim, if it is still banned, is recorded with [`Store::claim`].
    pub fn former(&mut self, former: &Former) {
        let more = former.bans;
        let record = Record { bans: more, last: former.at };
        if more > 0 {
            self.offenders.add(&former.jail, former.prefix, record);
        }
        let who = (former.prefix, holder(former));
        let at = former.at.as_millisecond();
        let lines = former.lines.iter().flat_map(|line| line.bytes().chain([b'\n'])).collect();
        let ground = Ground { at, failures: former.failures, lines, ..Ground::default() };
        self.record(|pending| {
            pending.banned(who.clone(), more, at);
            pending.ground(who, ground);
        });
    }

    fn remember(&self, claim: &Claim, bans: u32, last: Timestamp) {
        // bans by hand make no jail's ban longer, but they do with overalljails
        self.offenders.add(&claim.holder.to_string(), claim.prefix, Record { bans, last });
    }

    /// Records that a claim has ended.
    pub fn release(&mut self, claim: &Claim) {
        let key = Key::of(claim);
        self.record(|pending| pending.claim(key, None));
    }

    /// The same of many.
    pub fn release_all<'c>(&mut self, claims: impl Iterator<Item = &'c Claim>) {
        self.record(|pending| claims.for_each(|claim| pending.claim(Key::of(claim), None)));
    }

    /// How far each source was read and handled.
    #[must_use]
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Records that the operator let go of a prefix: what was logged before `at` bans it no more,
    /// also if it is read again.
    pub fn mark_unban(&mut self, unbanned: Unbanned, at: Timestamp) {
        self.record(|pending| pending.mark_unban(unbanned, at.as_millisecond()));
    }

    /// Records what was done, for those who ask later.
    pub fn deed(&mut self, deed: Deed) {
        self.record(|pending| pending.deed(deed));
    }

    /// Is sent once everything recorded so far is on disk; fails at once if it cannot be.
    pub fn barrier(&mut self) -> oneshot::Receiver<()> {
        let (done, durable) = oneshot::channel();
        self.queue.barrier(done);
        durable
    }

    /// Waits for barriers, but not for ever.
    #[must_use]
    pub fn patience(&self) -> Patience {
        Patience(Arc::clone(&self.shared))
    }

    /// Has `watch` told of every change of the state, on the store's own thread, before anybody can
    /// see it; at once, if the store is degraded now.
    pub fn watch(&mut self, watch: impl Fn(&State) + Send + 'static) {
        self.shared.watch(Box::new(watch));
    }

    /// What is recorded is not to be believed: the store is degraded until it has been given all
    /// claims anew ([`Store::begin_gathering`]).
    pub fn mistrust(&mut self) {
        self.shared.wants_snapshot.store(true, Ordering::Release);
        self.shared.set(State::Degraded("an earlier run could not record everything".to_owned()));
    }

    /// How often `prefix` was banned before, by this jail or, `overall`, by anybody; known
    /// in memory, of the [`jail::REMEMBERED`] that were banned last.
    pub fn former_bans(&self, prefix: IpNet, jail: &str, overall: bool, now: Now) -> u32 {
        self.offenders.forget_before(purged_before(&self.shared, now));
        let record = match overall {
            true => self.offenders.of_all(prefix),
            false => self.offenders.of(jail, prefix),
        };
        record.unwrap_or_default().bans
    }

    /// What is known of earlier bans, for those who ask for themselves.
    #[must_use]
    pub fn offenders(&self) -> Offenders {
        self.offenders.clone()
    }

    /// Why `prefix` was banned by now, one entry for each holder: told before what is recorded from now
    /// on is written, or never, if too much waits for the disk.
    pub fn past(&mut self, prefix: IpNet) -> Past {
        let past = Past::default();
        let told = Arc::clone(&past);
        self.record(|pending| pending.ask(prefix, told));
        past
    }

    /// For those who only want to know.
    #[must_use]
    pub fn recall(&self) -> Recall {
        self.recall.clone()
    }

    /// How often `prefix` was banned by anybody.
    #[cfg(test)]
    pub(crate) fn history(&self, prefix: IpNet) -> u32 {
        self.ask(move |db| read::bans(db, prefix, None)).and_then(Result::ok).unwrap_or(0)
    }

    /// Why `prefix` was banned, one entry for each holder.
    #[cfg(test)]
    pub(crate) fn evidence(&self, prefix: IpNet) -> Vec<Evidence> {
        let found = self.ask(move |db| read::evidence(db, prefix));
        found.and_then(Result::ok).unwrap_or_default()
    }

    /// How the store is.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.state()
    }

    /// What found no room while the disk did not answer: evidence, history and counts, never a ban.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.queue.lost()
    }

    /// Whether the file had to be made anew, and needs all claims ([`Store::begin_gathering`]).
    #[must_use]
    pub fn wants_snapshot(&self) -> bool {
        self.shared.wants_snapshot.load(Ordering::Acquire)
    }

    /// From now on all claims that there are come with [`Store::gather`], some at a time. What changes
    /// meanwhile is recorded as ever, and gathered with them.
    pub fn begin_gathering(&mut self) {
        self.record(pending::Pending::begin_gathering);
    }

    /// Some of all claims.
    pub fn gather(&mut self, claims: Vec<Claim>, now: Now) {
        let claims: Vec<(Key, Span)> =
            claims.iter().map(|claim| (Key::of(claim), Span::of(claim, now))).collect();
        self.record(|pending| pending.gather(claims));
    }

    /// That were all: they are recorded, and all positions, in place of what was recorded before.
    pub fn gathered(&mut self) {
        self.shared.wants_snapshot.store(false, Ordering::Release);
        self.positions.snapshot(pending::Pending::replace);
    }

    /// Records all claims and positions that there are, in place of what was recorded before.
    #[cfg(test)]
    pub(crate) fn snapshot(&mut self, claims: impl Iterator<Item = Claim>, now: Now) {
        self.begin_gathering();
        self.gather(claims.collect(), now);
        self.gathered();
    }

    /// From which age on history and evidence that no claim rests on go by themselves, once an
    /// hour; [`PURGE_AGE`] unless this is called.
    pub fn set_purge_age(&self, age: Duration) {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        self.shared.purge_age_ms.store(age, Ordering::Relaxed);
    }

    /// Writes what is left, and ends the thread; one that a disk holds up is left behind.
    pub fn close(self) {
        // SQLite tidies up when the last one closes the file: that is the writer
        self.recall.reader.finish();
        self.queue.close();
        let [patience, short] = CLOSE_PATIENCE;
        let patience = if self.shared.is_stuck() { short } else { patience };
        if self.ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            // noted among the pins, for the next start
            self.shared.give_up();
            log::error!(
                "the disk of {} does not answer: the latest decisions are in force, but not stored yet",
                self.path.display()
            );
        }
    }

    fn record(&mut self, change: impl FnOnce(&mut pending::Pending)) {
        self.shared.note(self.queue.record(change));
    }

    /// `None`: the disk does not answer.
    #[cfg(test)]
    fn ask<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> T + Send + 'static,
    ) -> Option<T> {
        self.recall.reader.ask(read)
    }
}

/// By whom something was banned that is taken over.
fn holder(former: &Former) -> Holder {
    Holder::Jail(former.jail.as_str().into())
}

/// What was given before then is purged unless a claim rests on it.
fn purged_before(shared: &Shared, now: Now) -> Timestamp {
    let age = SignedDuration::from_millis(shared.purge_age_ms.load(Ordering::Relaxed));
    now.wall.checked_sub(age).unwrap_or(Timestamp::MIN)
}

/// Hands every claim to `each`, as [`read::claims`] does: reading takes as long as taking over does,
/// so one thread reads while this one takes over.
fn read_ahead(
    db: Connection,
    now: Now,
    each: impl FnMut(Claim),
) -> (Connection, rusqlite::Result<u64>) {
    thread::scope(|scope| {
        let (sender, parts) = mpsc::sync_channel::<Vec<Claim>>(4);
        let reading = scope.spawn(move || {
            let mut part = Vec::with_capacity(READ_AHEAD);
            let read = read::claims(&db, now, |claim| {
                part.push(claim);
                if part.len() == READ_AHEAD {
                    let full = std::mem::replace(&mut part, Vec::with_capacity(READ_AHEAD));
                    // it waits for them as long as there are any
                    let _ = sender.send(full);
                }
            });
            let _ = sender.send(part);
            (db, read)
        });
        parts.into_iter().flatten().for_each(each);
        reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Opens the file; puts a corrupt one aside, and waits a while for a locked one.
fn open_patiently(path: &Path) -> Result<Database, Error> {
    let begun = Instant::now();
    loop {
        match Database::open(path) {
            Err(Error::Open { source, .. }) if schema::is_corrupt(&source) => {
                writer::set_aside(path)?;
            }
            Err(Error::Open { source, .. })
                if schema::is_locked(&source) && begun.elapsed() < START_PATIENCE => {}
            other => return other,
        }
    }
}
