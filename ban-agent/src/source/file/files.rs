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
    follow::{Begin, Follow},
    resolve::{Resolved, Target},
    tail::{FileId, Tail},
};
use crate::source::{Batch, Limits, Position, Start, Stats};

/// The files of one source.
#[derive(Debug)]
pub(super) struct Files {
    target: Target,
    start: Start,
    /// Nothing was looked at before: what is found was written before anybody followed it.
    first: bool,
    /// The glob has matched a file.
    matched: bool,
    limits: Limits,
    stats: Stats,
    follows: BTreeMap<PathBuf, Follow>,
    /// Paths whose files may have something to read, in the order in which they get their turn.
    ready: VecDeque<PathBuf>,
    buffer: Vec<u8>,
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
            follows: BTreeMap::new(),
            ready: VecDeque::new(),
            buffer,
            retry: false,
        }
    }

    /// What the path names now.
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
        // Before anything is opened: a file may have one follow's name now, and be another's.
        let moved = self
            .follows
            .iter()
            .filter(|(path, follow)| follow.current().is_some_and(|id| ids.get(path) != Some(&id)));
        for path in moved.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.leave(&path, now);
        }
        let mut taken = HashSet::new();
        for (shown, real) in found {
            match ids.get(shown) {
                // Two names of one file: the first one has it.
                Some(id) if taken.insert(*id) => {
                    let others = ids.values().copied().filter(|other| other != id).collect();
                    self.visit(shown, real, *id, &others, resume, now);
                }
                _ => {}
            }
        }
        if let Some(path) = self.target.literal()
            && !self.follows.contains_key(&path)
        {
            let begin = self.meet(&path, &path, &HashSet::new(), resume, now);
            self.note_rotations(&path, begin, now);
        }
        if self.target.literal().is_none() && !self.matched {
            self.report_unmatched(found.is_empty());
        }
        self.start = Start::Beginning;
        self.first = false;
    }

    /// The next lines of any file that is ready; `None` if all were read to their ends.
    pub(super) fn next(&mut self, now: Instant) -> Option<Batch> {
        while let Some(path) = self.ready.pop_front() {
            let Some(follow) = self.follows.get_mut(&path) else { continue };
            if let Some(batch) = follow.next(&mut self.buffer, &self.limits, &self.stats, now) {
                self.ready.push_back(path);
                return Some(batch);
            }
            if follow.is_over() && self.target.literal().is_none() {
                self.stats.forget(&follow.origin);
                self.follows.remove(&path);
            }
        }
        None
    }

    /// The file may have grown, or been cut.
    pub(super) fn touch(&mut self, path: &Path) {
        if !self.ready.iter().any(|ready| ready == path) {
            self.ready.push_back(path.to_owned());
        }
    }

    /// All files are worth a look.
    pub(super) fn touch_all(&mut self) {
        self.ready = self.follows.keys().cloned().collect();
    }

    /// Files whose time has come, or that have to be polled.
    pub(super) fn touch_due(&mut self, now: Instant) {
        let due = |follow: &Follow| {
            follow.deadline(&self.limits).is_some_and(|at| at <= now)
                || follow.tails.iter().any(|tail| tail.polled)
        };
        let paths: Vec<PathBuf> = self
            .follows
            .iter()
            .filter(|(_, follow)| due(follow))
            .map(|(path, _)| path.clone())
            .collect();
        paths.iter().for_each(|path| self.touch(path));
    }

    /// When [`Files::touch_due`] has to be called for files that went away.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.follows.values().filter_map(|follow| follow.deadline(&self.limits)).min()
    }

    /// All open files, with the path under which to [`Files::touch`] them.
    pub(super) fn tails(&mut self) -> impl Iterator<Item = (&PathBuf, &mut Tail)> {
        self.follows
            .iter_mut()
            .flat_map(|(path, follow)| follow.tails.iter_mut().map(move |tail| (path, tail)))
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Shows in the counters who is polled.
    pub(super) fn report_polling(&self) {
        for follow in self.follows.values() {
            let polling = follow.tails.iter().any(|tail| tail.polled);
            self.stats.update(&follow.origin, |counters| counters.polling = polling);
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
        if let Some(follow) = self.follows.get_mut(path) {
            follow.detach(now);
            self.stats.update(&follow.origin, |counters| counters.waiting = true);
            self.touch(path);
        }
    }

    /// The path names the file `id`.
    fn visit(
        &mut self,
        shown: &Path,
        real: &Path,
        id: FileId,
        others: &HashSet<FileId>,
        resume: &impl Fn(&str) -> Option<Position>,
        now: Instant,
    ) {
        if self.follows.get(shown).is_some_and(|follow| follow.current() == Some(id)) {
            return;
        }
        let held = self.holder(shown, id);
        let begin = match self.follows.contains_key(shown) {
            true => Begin::Seen,
            false => self.meet(shown, real, others, resume, now),
        };
        let opened = match held {
            Some(tail) => Ok(tail),
            None => Tail::open(real, self.limits.line, now),
        };
        let Some(follow) = self.follows.get_mut(shown) else { return };
        let rotated = follow.tails.back().is_some_and(|tail| tail.id != id);
        let attached = opened.and_then(|tail| follow.attach(tail, real, begin, &self.limits, now));
        self.retry |= attached.is_err();
        self.stats.update(&follow.origin, |counters| {
            counters.waiting = attached.is_err();
            counters.seen |= attached.is_ok();
            counters.rotations += u64::from(rotated && attached.is_ok());
            counters.error = attached.err().map(|error| error.to_string());
        });
        self.note_rotations(shown, begin, now);
        self.touch(shown);
    }

    /// What was rotated away before anybody followed the path is not read; what comes is.
    fn note_rotations(&mut self, path: &Path, begin: Begin, now: Instant) {
        if let (Begin::New(_) | Begin::Backlog, Some(follow)) = (begin, self.follows.get_mut(path))
        {
            follow.note_rotations(&self.limits, now);
        }
    }

    /// Begins to follow a path; says where an unknown file begins.
    fn meet(
        &mut self,
        shown: &Path,
        real: &Path,
        others: &HashSet<FileId>,
        resume: &impl Fn(&str) -> Option<Position>,
        now: Instant,
    ) -> Begin {
        let mut follow = Follow::new(shown);
        self.stats.update(&follow.origin, |counters| counters.waiting = true);
        let mut begin = match self.start {
            Start::Beginning if self.first => Begin::Backlog,
            start => Begin::New(start),
        };
        if let Some(Position::File { files }) = resume(&follow.origin) {
            follow.resume(&files, real, others, &self.limits, &self.stats, now);
            begin = Begin::Resumed;
            self.stats.update(&follow.origin, |counters| counters.seen = true);
        }
        self.follows.insert(shown.to_owned(), follow);
        self.touch(shown);
        begin
    }

    /// Takes the file `id` from a follow whose name it lost.
    fn holder(&mut self, shown: &Path, id: FileId) -> Option<Tail> {
        let others = self.follows.iter_mut().filter(|(path, _)| path.as_path() != shown);
        let mut others = others.map(|(_, follow)| follow);
        others.find_map(|follow| (follow.current() != Some(id)).then(|| follow.release(id))?)
    }
}

fn id_of(path: &Path) -> io::Result<FileId> {
    std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()))
}
