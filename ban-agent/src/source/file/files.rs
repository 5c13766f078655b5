//! All files that one path or glob names: finds them, follows them, delivers their lines in turn.
//! Synchronous and without a clock, so that its tests need neither; `watch` says when to look.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use super::{
    follow::{Around, Begin, Follower},
    resolve::{Resolved, Target},
    siblings::Shelf,
    tail::{FileId, Tail},
};
use crate::source::{Batch, Limits, Position, Start, Stats};

/// The files of one source.
#[derive(Debug)]
pub(super) struct Files {
    target: Target,
    start: Start,
    /// Nothing was looked at before: what is found was written before the agent followed it.
    first: bool,
    /// The glob has matched a file.
    matched: bool,
    limits: Limits,
    stats: Stats,
    followers: BTreeMap<PathBuf, Follower>,
    /// Paths whose files may have something to read, in the order in which they get their turn.
    ready: VecDeque<PathBuf>,
    /// The same.
    queued: HashSet<PathBuf>,
    shelf: Shelf,
    buffer: Vec<u8>,
    /// Logs that an earlier run followed, until they are met, and since when they are missed.
    missed: HashSet<Arc<str>>,
    missed_since: Instant,
    /// Logs that are gone, which is not yet told.
    gone: VecDeque<Arc<str>>,
    /// Something could not be opened: worth another try without an event.
    pub(super) retry: bool,
}

impl Files {
    pub(super) fn new(target: Target, start: Start, limits: Limits, stats: Stats) -> Files {
        let buffer = vec![0; limits.batch.max(1)];
        Files {
            target,
            start,
            first: true,
            matched: false,
            limits,
            stats,
            followers: BTreeMap::new(),
            ready: VecDeque::new(),
            queued: HashSet::new(),
            shelf: Shelf::default(),
            buffer,
            missed: HashSet::new(),
            missed_since: Instant::now(),
            gone: VecDeque::new(),
            retry: false,
        }
    }

    /// What an earlier run followed: logs of a glob that do not come back are forgotten after a
    /// time.
    pub(super) fn expect(&mut self, origins: Vec<Arc<str>>, now: Instant) {
        if self.is_glob() {
            (self.missed, self.missed_since) = (origins.into_iter().collect(), now);
        }
    }

    fn is_glob(&self) -> bool {
        self.target.literal().is_none()
    }

    /// Returns what the path names now.
    pub(super) fn resolve(&self) -> Resolved {
        self.target.resolve()
    }

    /// Takes over what the path names now.
    pub(super) fn update(
        &mut self,
        found: &BTreeMap<PathBuf, PathBuf>,
        resume: &impl Fn(&str) -> Option<Position>,
        now: Instant,
    ) {
        self.retry = false;
        let ids: HashMap<&PathBuf, FileId> =
            found.iter().filter_map(|(shown, real)| Some((shown, id_of(real).ok()?))).collect();
        // Before anything is opened: a file may have one follower's name now, and be another's.
        let moved = self.followers.iter().filter(|(path, follower)| {
            follower.current().is_some_and(|id| ids.get(path) != Some(&id))
        });
        for path in moved.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.leave(&path, now);
        }
        let all: HashSet<FileId> = ids.values().copied().collect();
        // asked for each file that is new, of which there may be thousands
        let tails = self.followers.values().flat_map(|follower| &follower.tails);
        let mut held: HashSet<FileId> = tails.map(|tail| tail.id).collect();
        let mut taken = HashSet::new();
        for (shown, real) in found {
            match ids.get(shown) {
                // Two names of one file: the first one has it.
                Some(id) if taken.insert(*id) => {
                    self.visit(shown, real, Some(*id), (&all, &mut held), resume, now)
                }
                _ => {}
            }
        }
        if let Some(path) = self.target.literal()
            && self.followers.get(&path).is_none_or(|follower| follower.due)
            && !found.contains_key(&path)
        {
            self.visit(&path, &path, None, (&all, &mut held), resume, now);
        }
        if self.target.literal().is_none() && !self.matched {
            self.report_unmatched(found.is_empty());
        }
        self.start = Start::Beginning;
        self.first = false;
    }

    /// Returns the next lines of any file that is ready; `None` if all were read to their ends.
    pub(super) fn next(&mut self, now: Instant) -> Option<Batch> {
        if let Some(origin) = self.gone.pop_front() {
            return Some(Follower::farewell(origin));
        }
        let is_glob = self.is_glob();
        while let Some(path) = self.ready.pop_front() {
            self.queued.remove(&path);
            let Some(follower) = self.followers.get_mut(&path) else { continue };
            let Files { limits, stats, shelf, .. } = self;
            let around = Around { limits, stats, shelf, now };
            if let Some(batch) = follower.next(&mut self.buffer, &around) {
                self.touch(&path);
                return Some(batch);
            }
            if is_glob
                && follower.is_over(&self.limits, now)
                && let Some(follower) = self.followers.remove(&path)
            {
                self.stats.forget(&follower.origin);
                return Some(Follower::farewell(follower.origin));
            }
        }
        None
    }

    /// The file may have grown, or been cut.
    pub(super) fn touch(&mut self, path: &Path) {
        if self.queued.insert(path.to_owned()) {
            self.ready.push_back(path.to_owned());
        }
    }

    /// All files are worth a look.
    pub(super) fn touch_all(&mut self) {
        self.ready = self.followers.keys().cloned().collect();
        self.queued = self.ready.iter().cloned().collect();
    }

    /// Files whose time has come, or that have to be polled.
    pub(super) fn touch_due(&mut self, now: Instant) {
        if !self.missed.is_empty() && self.missed_since + self.limits.forget <= now {
            self.gone.extend(std::mem::take(&mut self.missed));
        }
        let is_glob = self.is_glob();
        let due = |follower: &Follower| {
            follower.is_unsettled()
                || is_glob && follower.ends(&self.limits).is_some_and(|at| at <= now)
                || follower.deadline(&self.limits).is_some_and(|at| at <= now)
                || follower.tails.iter().any(|tail| tail.polled)
        };
        let paths: Vec<PathBuf> = self
            .followers
            .iter()
            .filter(|(_, follower)| due(follower))
            .map(|(path, _)| path.clone())
            .collect();
        paths.iter().for_each(|path| self.touch(path));
    }

    /// Returns when [`Files::touch_due`] has to be called for files that went away.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let is_glob = self.is_glob();
        let ends = |follower: &Follower| follower.ends(&self.limits).filter(|_| is_glob);
        let followers = self.followers.values();
        let times =
            followers.flat_map(|follower| [follower.deadline(&self.limits), ends(follower)]);
        let missed = (!self.missed.is_empty()).then(|| self.missed_since + self.limits.forget);
        times.chain([missed]).flatten().min()
    }

    /// Returns all open files, with the path under which to [`Files::touch`] them.
    pub(super) fn tails(&mut self) -> impl Iterator<Item = (&PathBuf, &mut Tail)> {
        self.followers
            .iter_mut()
            .flat_map(|(path, follower)| follower.tails.iter_mut().map(move |tail| (path, tail)))
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Some names changed too fast for a look: it is due soon.
    pub(super) fn unsettled(&self) -> bool {
        self.followers.values().any(Follower::is_unsettled)
    }

    /// Shows in the counters who is polled.
    pub(super) fn report_polling(&self) {
        for follower in self.followers.values() {
            let polling = follower.tails.iter().any(|tail| tail.polled);
            self.stats.update(&follower.origin, |counters| counters.polling = polling);
        }
    }

    /// A glob that matches nothing stands in the counters by itself, until it first does.
    fn report_unmatched(&mut self, unmatched: bool) {
        let origin: Arc<str> = self.target.to_string().into();
        self.matched = !unmatched;
        if unmatched {
            self.stats.update(&origin, |counters| counters.waiting = true);
        } else {
            self.stats.forget(&origin);
        }
    }

    /// The path names nothing any more.
    fn leave(&mut self, path: &Path, now: Instant) {
        if let Some(follower) = self.followers.get_mut(path) {
            follower.detach(now);
            self.stats.update(&follower.origin, |counters| counters.waiting = true);
            self.touch(path);
        }
    }

    /// The path names the file `id`, or nothing. `all`: what paths name; `held`: what followers have open,
    /// to be kept current.
    fn visit(
        &mut self,
        shown: &Path,
        real: &Path,
        id: Option<FileId>,
        (all, held): (&HashSet<FileId>, &mut HashSet<FileId>),
        resume: &impl Fn(&str) -> Option<Position>,
        now: Instant,
    ) {
        let known = self.followers.get(shown);
        if known.is_some_and(|follower| id.is_some() && follower.current() == id) {
            return;
        }
        let mut follower = self.followers.remove(shown).unwrap_or_else(|| self.meet(shown, resume));
        let before = follower.tails.back().map(|tail| tail.id);
        let Files { followers, limits, stats, shelf, .. } = self;
        let around = Around { limits, stats, shelf, now };
        let others = |other| all.contains(&other) && Some(other) != id;
        let from = |id| if held.contains(&id) { holder(followers, id) } else { None };
        let looked = follower.look(real, from, others, &around);
        held.extend(follower.tails.iter().map(|tail| tail.id));
        let attached = follower.current();
        let rotated = before.is_some() && attached.is_some() && attached != before;
        self.retry |= looked.is_err() || id.is_some() && attached.is_none();
        stats.update(&follower.origin, |counters| {
            counters.waiting = attached.is_none();
            counters.seen |= attached.is_some();
            counters.rotations += u64::from(rotated);
            counters.error = looked.err().map(|error| error.to_string());
        });
        self.followers.insert(shown.to_owned(), follower);
        self.touch(shown);
    }

    /// Begins to follow a path.
    fn meet(&mut self, shown: &Path, resume: &impl Fn(&str) -> Option<Position>) -> Follower {
        let begin = match resume(&shown.to_string_lossy()) {
            Some(Position::File { files }) => Begin::Resumed(files),
            _ if self.first && self.start == Start::Beginning => Begin::Backlog,
            _ => Begin::New(self.start),
        };
        let follower = Follower::new(shown, begin.clone());
        self.missed.remove(&follower.origin);
        let seen = matches!(begin, Begin::Resumed(_));
        self.stats.update(&follower.origin, |counters| counters.seen |= seen);
        follower
    }
}

/// Takes the file `id` from a follower whose name it lost.
fn holder(followers: &mut BTreeMap<PathBuf, Follower>, id: FileId) -> Option<Tail> {
    let lost = |follower: &&mut Follower| follower.current() != Some(id);
    followers.values_mut().filter(lost).find_map(|follower| follower.release(id))
}

fn id_of(path: &Path) -> io::Result<FileId> {
    super::seam();
    std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()))
}
