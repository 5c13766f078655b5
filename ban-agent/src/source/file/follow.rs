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
        for mark in known {
            match siblings.take(mark) {
                Some(tail) => self.tails.push_back(tail),
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
        if self.tails.is_empty() {
            self.tails.extend(empty.iter().filter_map(|mark| siblings.take(mark)));
        }
        if let Some(last) = self.tails.back() {
            let newer = siblings.newer_than(last, |id| self.holds(id));
            self.tails.extend(newer);
        }
        for tail in empty.iter().rev().filter_map(|mark| siblings.take(mark)) {
            if !self.holds(tail.id) && !siblings.is_log(tail.id) {
                self.tails.push_front(tail);
            }
        }
    }

    /// The path names this file now. `start`: where to begin if it is an unknown one.
    /// `backlog`: what an unknown one holds was written before anybody followed it.
    pub(super) fn attach(
        &mut self,
        mut tail: Tail,
        real: &Path,
        (start, backlog): (Start, bool),
        limits: &Limits,
        now: Instant,
    ) -> io::Result<()> {
        self.real = real.to_owned();
        self.detach(now);
        if let Some(at) = self.tails.iter().position(|old| old.id == tail.id) {
            if let Some(known) = self.tails.remove(at) {
                tail = known;
            }
        } else if let Some(previous) = self.tails.back() {
            // Several rotations may have happened since the last look.
            let known = |id| id == tail.id || self.holds(id);
            let newer = Siblings::open(real, limits.line, now).newer_than(previous, known);
            self.tails.extend(newer);
        } else if start == Start::End {
            tail.seek_end(limits.line)?;
        } else if backlog {
            tail.mark_backlog()?;
        }
        self.tails.push_back(tail);
        self.attached = true;
        self.dirty = true;
        Ok(())
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
        while let Some(tail) = self.tails.get_mut(index) {
            let read = tail.read(buffer, now).unwrap_or_else(|error| {
                stats.update(&self.origin, |counters| counters.error = Some(error.to_string()));
                Read::End
            });
            match read {
                Read::Lines(lines) => return Some(self.batch(index, lines, stats)),
                Read::Some => {}
                Read::Cut => self.cut(index, limits, stats, now),
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

    fn holds(&self, id: FileId) -> bool {
        self.tails.iter().any(|tail| tail.id == id)
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
        let last = self.attached && index + 2 == self.tails.len();
        let empty = self.tails.back().is_some_and(|tail| tail.mark().head_len == 0);
        let read = self.tails.get(index).is_some_and(|tail| !tail.lines.unfinished());
        last && empty && read
    }

    /// Ends a file's last line, and lets the file go unless it may still grow.
    fn retire(&mut self, index: usize, limits: &Limits, now: Instant) -> Bytes {
        let old = self.tails.len() - usize::from(self.attached);
        let Some(tail) = self.tails.get_mut(index) else { return Bytes::new() };
        let last = tail.lines.finish();
        let quiet = now.saturating_duration_since(tail.active) >= limits.linger;
        if tail.copy || index == 0 && old > MAX_OLD || quiet && tail.is_deleted() {
            self.tails.remove(index);
        }
        last
    }

    /// The file was cut. What was not read of it may be in a copy that was made before.
    fn cut(&mut self, index: usize, limits: &Limits, stats: &Stats, now: Instant) {
        let Some(tail) = self.tails.get_mut(index) else { return };
        let mark = tail.mark();
        tail.restart();
        stats.update(&self.origin, |counters| counters.truncations += 1);
        self.dirty = true;
        let mut siblings = Siblings::open(&self.real, limits.line, now);
        siblings.forget(|id| self.holds(id));
        if let Some(copy) = siblings.take_copy(&mark) {
            // It may have been filled, copied and cut again since.
            let known = |id| id == copy.id || self.holds(id);
            let newer = siblings.newer_than(&copy, known);
            for tail in newer.into_iter().rev().chain([copy]) {
                self.tails.insert(index, tail);
            }
        }
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
        let position = Position::File { files: self.tails.iter().map(Tail::mark).collect() };
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

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
