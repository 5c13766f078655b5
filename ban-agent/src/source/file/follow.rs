//! The files behind one path: the one that bears the name, and those rotated away before it that
//! may still grow. Delivers them oldest first.

use std::{
    collections::{HashSet, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;

use super::{
    container::{Format, Unwrap},
    siblings::Siblings,
    tail::{FileId, Read, Tail},
};
use crate::source::{Batch, Limits, Mark, Position, Start, Stats};

/// Files rotated away from one path that are kept open at once.
const MAX_OLD: usize = 4;

/// Where a file begins that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// It is new to us.
    New(Start),
    /// The same, and what it holds was written before anybody followed it.
    Backlog,
    /// An earlier run followed its path.
    Resumed,
    /// This run did.
    Seen,
}

/// One path that is followed.
#[derive(Debug)]
pub(super) struct Follow {
    pub(super) origin: Arc<str>,
    /// Where the file was when it was last seen.
    real: PathBuf,
    /// Oldest first.
    pub(super) tails: VecDeque<Tail>,
    /// The last tail bears the name.
    pub(super) attached: bool,
    /// The position says something new, even if no line comes.
    dirty: bool,
    unwrap: Unwrap,
}

impl Follow {
    pub(super) fn new(path: &Path) -> Follow {
        Follow {
            origin: path.to_string_lossy().into(),
            real: path.to_owned(),
            tails: VecDeque::new(),
            attached: false,
            dirty: true,
            unwrap: Unwrap::new(path),
        }
    }

    /// The file that bears the name.
    pub(super) fn current(&self) -> Option<FileId> {
        self.tails.back().filter(|_| self.attached).map(|tail| tail.id)
    }

    /// Goes on where an earlier run stopped: the files that `marks` name, under whatever name
    /// they have now, and those that were written and rotated away since. Not `others`: those
    /// bear a name that is followed by itself.
    pub(super) fn resume(
        &mut self,
        marks: &[Mark],
        real: &Path,
        others: &HashSet<FileId>,
        limits: &Limits,
        stats: &Stats,
        now: Instant,
    ) {
        let mut siblings = Siblings::open(real, limits.line, now);
        siblings.forget(|id| others.contains(&id));
        // An empty file has nothing but its inode to be recognized by, and the kernel gives that
        // to the next file: what the other marks lead to goes first.
        let (known, empty): (Vec<_>, Vec<_>) = marks.iter().partition(|mark| mark.head_len > 0);
        let nothing_known = known.is_empty() && !marks.iter().any(|mark| mark.rotated);
        let mut copied = false;
        for mark in known {
            match siblings.take(mark) {
                Some(tail) => {
                    copied |= tail.copy && !mark.copy;
                    self.tails.push_back(tail);
                }
                None => {
                    log::warn!(
                        "{}: a file that an earlier run read has been removed, compressed or moved \
                         to another folder: its unread lines, if any, are lost",
                        self.origin
                    );
                    stats.update(&self.origin, |counters| counters.lost += 1);
                }
            }
        }
        self.tails.extend(empty.into_iter().filter_map(|mark| siblings.take(mark)));
        // The same file still bears the name: what was rotated away since are copies.
        let copies = marks.last().is_some_and(|mark| siblings.has_log(mark.ino));
        if nothing_known {
            // there was no rotation then
            self.tails.extend(siblings.all(copies));
        }
        self.tails.make_contiguous().sort_by(|a, b| siblings.order(a.id, b.id));
        if copied {
            self.are_copies(&siblings);
        }
        self.take_newer(&mut siblings, copies);
        if !nothing_known {
            self.note_rotations(limits, now);
        }
    }

    /// The path names this file now. `begin`: where to begin if it is an unknown one.
    pub(super) fn attach(
        &mut self,
        mut tail: Tail,
        real: &Path,
        begin: Begin,
        limits: &Limits,
        now: Instant,
    ) -> io::Result<()> {
        self.real = real.to_owned();
        self.detach(now);
        if let Some(at) = self.tails.iter().position(|old| old.id == tail.id) {
            if let Some(known) = self.tails.remove(at) {
                tail = known;
            }
        } else if !self.tails.is_empty() || begin == Begin::Seen {
            // Several rotations may have happened since the last look.
            let mut siblings = Siblings::open(real, limits.line, now);
            siblings.forget(|id| id == tail.id || holds(&self.tails, id));
            if self.tails.is_empty() {
                self.tails.extend(siblings.all(false));
            } else {
                self.take_newer(&mut siblings, false);
            }
        } else if begin == Begin::New(Start::End) {
            tail.seek_end(limits.line)?;
        } else if begin == Begin::Backlog {
            tail.mark_backlog()?;
        }
        self.tails.push_back(tail);
        self.attached = true;
        self.dirty = true;
        Ok(())
    }

    /// If nothing is there to go on from but an empty log, or none, remembers the newest rotation:
    /// those that come after it were not read.
    pub(super) fn note_rotations(&mut self, limits: &Limits, now: Instant) {
        if self.tails.len() > usize::from(self.attached) {
            return;
        }
        let mut siblings = Siblings::open(&self.real, limits.line, now);
        siblings.forget(|id| holds(&self.tails, id));
        // After the look: what the log held before it may be in a rotation already.
        let is_empty = |log: &mut Tail| log.learn_head().is_ok() && log.is_blank();
        if self.tails.back_mut().is_none_or(is_empty) {
            self.insert(0, siblings.newest());
            self.dirty = true;
        }
    }

    /// The path names nothing now.
    pub(super) fn detach(&mut self, now: Instant) {
        if self.attached
            && let Some(tail) = self.tails.back_mut()
        {
            tail.active = now;
        }
        self.attached = false;
    }

    /// The next lines, if any are there.
    pub(super) fn next(
        &mut self,
        buffer: &mut [u8],
        limits: &Limits,
        stats: &Stats,
        now: Instant,
    ) -> Option<Batch> {
        let mut index = 0;
        while let Some(tail) = self.tails.get(index) {
            let is_log = self.attached && index + 1 == self.tails.len();
            if is_log && tail.is_blank() && self.look_beside(limits, now) {
                index = 0;
                continue;
            }
            let Some(tail) = self.tails.get_mut(index) else { break };
            let read = match is_log && tail.is_blank() {
                // What has come since is read at the next look, after one beside it.
                true => Ok(Read::End),
                false => tail.read(buffer, now),
            };
            let read = read.unwrap_or_else(|error| {
                stats.update(&self.origin, |counters| counters.error = Some(error.to_string()));
                Read::End
            });
            match read {
                Read::Lines(lines) => return Some(self.batch(index, lines, stats)),
                Read::Some => {}
                Read::Cut => {
                    self.cut(index, limits, stats, now);
                    index = 0;
                }
                Read::End if self.is_done(index, limits, now) => {
                    let last = self.retire(index, limits, now);
                    if !last.is_empty() {
                        return Some(self.batch(index, last, stats));
                    }
                }
                Read::End => {
                    self.tally(index, stats);
                    index += 1;
                }
            }
        }
        self.dirty.then(|| self.batch(index, Bytes::new(), stats))
    }

    /// Gives up a file that bears another followed name now.
    pub(super) fn release(&mut self, id: FileId) -> Option<Tail> {
        let at = self.tails.iter().position(|tail| tail.id == id)?;
        self.attached &= at + 1 != self.tails.len();
        self.dirty = true;
        self.tails.remove(at)
    }

    /// When a file that is at its end has to be looked at again, though nothing happened to it.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<Instant> {
        let old = self.tails.len() - usize::from(self.attached);
        let waiting =
            self.tails.iter().take(old).filter(|t| t.lines.unfinished() || t.is_deleted());
        waiting.map(|tail| tail.active + limits.linger).min()
    }

    /// There is nothing that could still grow.
    pub(super) fn is_over(&self) -> bool {
        !self.attached && self.tails.iter().all(|tail| tail.copy)
    }

    /// The log was empty: it may have been filled, copied and cut since, even more than once. True
    /// if there is something to read before it.
    fn look_beside(&mut self, limits: &Limits, now: Instant) -> bool {
        let (count, Some(log)) = (self.tails.len(), self.tails.back_mut()) else { return false };
        // Before the look: a copy of what it holds now is found when that is cut.
        let _ = log.learn_head();
        let mut siblings = Siblings::open(&self.real, limits.line, now);
        if !siblings.is_log(log.id) {
            return false;
        }
        if count > 1 {
            self.take_newer(&mut siblings, true);
            if self.tails.len() > count {
                // What is older was read, and is a copy.
                let newer = self.tails.split_off(count - 1);
                self.tails.retain(|tail| tail.lines.unfinished());
                self.tails.extend(newer);
                return true;
            }
        } else {
            siblings.forget(|id| id == log.id);
            siblings.forget_copies(log);
            self.insert(0, siblings.all(true));
        }
        self.tails.len() > count
    }

    /// Rotations that came after those that are held, in their place.
    fn take_newer(&mut self, siblings: &mut Siblings, copies: bool) {
        let last = self.tails.iter().rposition(|tail| siblings.age(tail.id).is_some());
        let Some((at, last)) = last.and_then(|at| Some((at, self.tails.get(at)?))) else { return };
        let id = last.id;
        if let Some(log) = self.tails.get_mut(at + 1) {
            siblings.forget_copies(log);
        }
        siblings.forget(|id| holds(&self.tails, id));
        let newer = siblings.newer_than(id, copies);
        let later = self.tails.split_off(at + 1);
        if copies && !newer.is_empty() {
            self.are_copies(siblings);
        }
        self.tails.extend(newer);
        self.tails.extend(later);
    }

    /// The log is rotated by copy and cut: nobody writes to what was rotated away.
    fn are_copies(&mut self, siblings: &Siblings) {
        let copies = self.tails.iter_mut().filter(|tail| !siblings.is_log(tail.id));
        copies.for_each(|tail| tail.copy = true);
    }

    fn insert(&mut self, at: usize, tails: impl IntoIterator<Item = Tail>) {
        let later = self.tails.split_off(at.min(self.tails.len()));
        self.tails.extend(tails);
        self.tails.extend(later);
    }

    /// A file at its end that nobody will write to, or whose last line will not be finished.
    fn is_done(&self, index: usize, limits: &Limits, now: Instant) -> bool {
        let old = self.tails.len() - usize::from(self.attached);
        let Some(tail) = self.tails.get(index).filter(|_| index < old) else { return false };
        let quiet = now.saturating_duration_since(tail.active) >= limits.linger;
        tail.copy && !self.is_landmark(index)
            || index == 0 && old > MAX_OLD
            || quiet && (tail.lines.unfinished() || tail.is_deleted())
    }

    /// A copy that was read, and whose original is still empty: should we die now, and it be filled
    /// and copied again before we are back, nothing else tells where to go on.
    fn is_landmark(&self, index: usize) -> bool {
        let last = index + 1 + usize::from(self.attached) == self.tails.len();
        let log = self.tails.back().filter(|_| self.attached);
        let empty = log.is_none_or(Tail::is_blank);
        let read = self.tails.get(index).is_some_and(|tail| !tail.lines.unfinished());
        last && empty && read
    }

    /// Ends a file's last line, and lets the file go unless it may still grow.
    fn retire(&mut self, index: usize, limits: &Limits, now: Instant) -> Bytes {
        let old = self.tails.len() - usize::from(self.attached);
        let Some(tail) = self.tails.get_mut(index) else { return Bytes::new() };
        let last = tail.finish();
        let quiet = now.saturating_duration_since(tail.active) >= limits.linger;
        let deleted = quiet && tail.is_deleted();
        let done = tail.copy && !self.is_landmark(index);
        if done || deleted || index == 0 && old > MAX_OLD {
            self.tails.remove(index);
            self.note_rotations(limits, now);
        }
        last
    }

    /// The file was cut. What was not read of it may be in a copy that was made before.
    fn cut(&mut self, index: usize, limits: &Limits, stats: &Stats, now: Instant) {
        let Some(tail) = self.tails.get_mut(index) else { return };
        let mark = tail.mark();
        tail.restart();
        // Before the look: a copy of what it holds now is found when that is cut.
        let _ = tail.learn_head();
        stats.update(&self.origin, |counters| counters.truncations += 1);
        self.dirty = true;
        let mut siblings = Siblings::open(&self.real, limits.line, now);
        siblings.forget(|id| holds(&self.tails, id));
        if let Some(copy) = siblings.take_copy(&mark) {
            if let Some(log) = self.tails.get_mut(index) {
                siblings.forget_copies(log);
            }
            // It may have been filled, copied and cut again since.
            let newer = siblings.newer_than(copy.id, true);
            let log = self.tails.split_off(index);
            // What is older was read.
            self.tails.retain(|tail| tail.lines.unfinished());
            self.are_copies(&siblings);
            self.tails.extend([copy].into_iter().chain(newer).chain(log));
        }
        self.note_rotations(limits, now);
    }

    fn batch(&mut self, index: usize, lines: Bytes, stats: &Stats) -> Batch {
        self.tally(index, stats);
        self.dirty = false;
        let stamped = self.unwrap.format != Format::Plain;
        let lines = if stamped { self.unwrap(&lines, stats) } else { lines };
        let lag = self.tails.iter().map(Tail::lag).sum();
        stats.update(&self.origin, |counters| {
            counters.lines += count(memchr::memchr_iter(b'\n', &lines).count());
            counters.bytes += count(lines.len());
            counters.lag = lag;
        });
        let old = self.tails.len() - usize::from(self.attached);
        let marks = self.tails.iter().enumerate();
        let marks = marks.map(|(at, tail)| Mark { rotated: at < old, ..tail.mark() });
        let position = Position::File { files: marks.collect() };
        let origin = Arc::clone(&self.origin);
        let backlog = self.tails.get(index).is_some_and(Tail::in_backlog);
        Batch { origin, lines, stamped, backlog, position: Some(position), read: Instant::now() }
    }

    fn unwrap(&mut self, lines: &Bytes, stats: &Stats) -> Bytes {
        let lines = self.unwrap.unwrap(lines);
        let overlong = std::mem::take(&mut self.unwrap.overlong);
        let malformed = std::mem::take(&mut self.unwrap.malformed);
        stats.update(&self.origin, |counters| {
            counters.overlong += overlong;
            counters.malformed += malformed;
        });
        lines
    }

    fn tally(&mut self, index: usize, stats: &Stats) {
        let Some(tail) = self.tails.get_mut(index) else { return };
        let (overlong, nuls) = tail.lines.take_counts();
        if overlong > 0 || nuls > 0 {
            stats.update(&self.origin, |counters| {
                counters.overlong += overlong;
                counters.nuls += nuls;
            });
        }
    }
}

fn holds(tails: &VecDeque<Tail>, id: FileId) -> bool {
    tails.iter().any(|tail| tail.id == id)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
