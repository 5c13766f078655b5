//! The files behind one path: the one that bears the name, and those rotated away before it that
//! may still grow. Delivers them oldest first.

use std::{
    cmp::Ordering,
    collections::VecDeque,
    io, mem,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;

use super::{
    container::{Format, Unwrap},
    siblings::{Shelf, Siblings},
    tail::{FileId, Read, Tail},
};
use crate::source::{Batch, Checkpoint, Limits, Position, Start, Stats};

/// What a follow needs besides what it knows.
pub(super) struct Around<'a> {
    pub(super) limits: &'a Limits,
    pub(super) stats: &'a Stats,
    pub(super) shelf: &'a Shelf,
    pub(super) now: Instant,
}

/// What an earlier run's checkpoints lead to.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// There was nothing to be recognized.
    nothing: bool,
    /// Some of it is in a copy now.
    copied: bool,
    /// The log is still the same file.
    copies: bool,
    /// Files that were not found.
    missing: u64,
}

/// What a look beside the log shows.
enum Beside {
    Nothing,
    /// Lines that come before the log's.
    Older,
    Unsettled,
}

/// What a rotation is of which nothing was read.
enum Copying {
    /// Lines of its own.
    No,
    /// It is being filled with what the log holds, or was, and the log was not cut yet: its lines
    /// are read there.
    UnderWay,
    /// The log was cut, and has not been looked at since.
    Over,
}

/// Goes to where an unknown file begins.
fn enter(tail: &mut Tail, begin: &Begin, around: &Around<'_>) -> io::Result<()> {
    match begin {
        Begin::New(Start::End) => tail.seek_end(around.limits.line),
        Begin::Backlog => tail.mark_backlog(),
        _ => Ok(()),
    }
}

/// Files rotated away from one path that are kept open at once.
const MAX_OLD: usize = 4;

/// Where a file begins that is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// It is new to us.
    New(Start),
    /// The same, and what it holds was written before the agent followed it.
    Backlog,
    /// An earlier run followed its path, up to here.
    Resumed(Vec<Checkpoint>),
    /// This run did.
    Seen,
}

/// One path that is followed.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) origin: Arc<str>,
    /// Where the file was when it was last seen.
    real: PathBuf,
    /// Oldest first.
    pub(super) tails: VecDeque<Tail>,
    /// The last tail bears the name.
    pub(super) attached: bool,
    /// How the first look that is one goes on.
    begin: Begin,
    /// Names changed too fast for [`Follower::look`].
    pub(super) due: bool,
    /// The log is there, and could not be opened.
    refused: bool,
    /// The same for a look beside the log.
    unsettled: bool,
    /// The position says something new, even if no line comes.
    dirty: bool,
    /// It was read to its end, and nothing that may be older has taken its name since.
    live: bool,
    unwrap: Unwrap,
}

impl Follower {
    pub(super) fn new(path: &Path, begin: Begin) -> Follower {
        Follower {
            origin: path.to_string_lossy().into(),
            real: path.to_owned(),
            tails: VecDeque::new(),
            attached: false,
            begin,
            due: false,
            refused: false,
            unsettled: false,
            dirty: false,
            live: false,
            unwrap: Unwrap::new(path),
        }
    }

    /// Returns the file that bears the name.
    pub(super) fn current(&self) -> Option<FileId> {
        self.tails.back().filter(|_| self.attached).map(|tail| tail.id)
    }

    /// Looks at the path and beside it, and takes over what is there: the log, what was rotated
    /// away before it and not read, and at the first look what an earlier run left. `held` gives
    /// the log if another path had it; `others` are the files that have a name which is followed by
    /// itself. False, and nothing changes, while names change too fast.
    pub(super) fn look(
        &mut self,
        real: &Path,
        held: impl FnOnce(FileId) -> Option<Tail>,
        others: impl Fn(FileId) -> bool,
        around: &Around<'_>,
    ) -> io::Result<bool> {
        self.real = real.to_owned();
        let found = self.siblings(around);
        self.due = found.is_none();
        let Some(mut siblings) = found else { return Ok(false) };
        let log = siblings.log();
        let refusal = siblings.take_refusal();
        let refusal = refusal.filter(|_| log.is_none_or(|log| !holds(&self.tails, log)));
        self.refused = refusal.is_some();
        if let Some(error) = refusal {
            // what is not read now is read once it can be: nothing of what is known is given up
            self.detach(around.now);
            return Err(error);
        }
        siblings.forget(|id| others(id) && Some(id) != log);
        let was_empty = self.tails.is_empty();
        let begin = mem::replace(&mut self.begin, Begin::Seen);
        self.detach(around.now);
        let known = match &begin {
            Begin::Resumed(checkpoints) => self.resume(checkpoints, &mut siblings),
            _ => Known::default(),
        };
        if known.missing > 0 {
            // It may have been copied and cut after the look.
            if !self.siblings(around).is_some_and(|again| again.agrees(&siblings)) {
                (self.begin, self.due) = (begin, true);
                self.tails.clear();
                return Ok(false);
            }
            self.report_missing(known.missing, around.stats);
        }
        let mut result = Ok(true);
        if let Some(id) = log {
            let at = self.tails.iter().position(|tail| tail.id == id);
            let new = || held(id).or_else(|| siblings.take_log());
            match at.and_then(|at| self.tails.remove(at)) {
                Some(known) => self.attach(known),
                None => match new() {
                    Some(mut tail) => {
                        self.live = false;
                        result = enter(&mut tail, &begin, around).map(|()| true);
                        self.attach(tail);
                    }
                    None => result = Err(io::Error::other("cannot be opened")),
                },
            }
        }
        siblings.forget(|id| holds(&self.tails, id));
        if known.copies {
            self.leave_out_copies(&mut siblings, true);
        }
        if known.nothing || was_empty && begin == Begin::Seen {
            // there was no rotation at the look before
            self.insert(0, siblings.all(known.copies));
            self.tails.make_contiguous().sort_by(|a, b| siblings.order(a.id, b.id));
        } else if matches!(begin, Begin::Resumed(_) | Begin::Seen) {
            if known.copied {
                self.are_copies(&siblings);
            }
            self.take_newer(&mut siblings, known.copies);
        }
        self.note_rotations(&mut siblings);
        self.dirty = true;
        result
    }

    fn report_missing(&self, missing: u64, stats: &Stats) {
        log::warn!(
            "{}: {missing} files that an earlier run read have been removed, compressed or moved to \
             another folder: their unread lines, if any, are lost",
            self.origin
        );
        stats.update(&self.origin, |counters| counters.lost += missing);
    }

    /// Finds the files that `checkpoints` name, under whatever name they have now.
    fn resume(&mut self, checkpoints: &[Checkpoint], siblings: &mut Siblings) -> Known {
        // An empty file has nothing but its inode to be recognized by, and the kernel gives that
        // to the next file: what the other checkpoints lead to goes first.
        let (known, empty): (Vec<_>, Vec<_>) =
            checkpoints.iter().partition(|checkpoint| checkpoint.head_len > 0);
        let nothing = known.is_empty() && !checkpoints.iter().any(|checkpoint| checkpoint.rotated);
        let (mut copied, mut missing) = (false, 0);
        // A copy of which nothing was read may be where the log's checkpoint leads to now.
        let (unread, read): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|checkpoint| checkpoint.offset == 0);
        for checkpoint in read.into_iter().chain(unread) {
            match siblings.take(checkpoint) {
                Some(tail) => {
                    copied |= tail.copy && !checkpoint.copy;
                    self.tails.push_back(tail);
                }
                None if checkpoint.offset == 0
                    && self.tails.iter().any(|tail| tail.id.1 == checkpoint.ino) => {}
                None => missing += 1,
            }
        }
        self.tails.extend(empty.into_iter().filter_map(|checkpoint| siblings.take(checkpoint)));
        self.tails.make_contiguous().sort_by(|a, b| siblings.order(a.id, b.id));
        // The same file still bears the name: what was rotated away since are copies.
        let copies = checkpoints.last().is_some_and(|checkpoint| siblings.has_log(checkpoint.ino));
        Known { nothing, copied, copies, missing }
    }

    /// The path names this file now.
    fn attach(&mut self, tail: Tail) {
        self.tails.push_back(tail);
        self.attached = true;
    }

    /// Returns what is beside the log now; `None` while names change too fast.
    fn siblings(&mut self, around: &Around<'_>) -> Option<Siblings> {
        let found = Siblings::open(&self.real, around.shelf, around.limits.line, around.now);
        self.unsettled = found.is_none();
        found
    }

    /// If nothing is there to go on from but a log of which nothing was read, or none, remembers
    /// the newest rotation: those that come after it were not read.
    fn note_rotations(&mut self, siblings: &mut Siblings) {
        if self.tails.len() > usize::from(self.attached) {
            return;
        }
        siblings.forget(|id| holds(&self.tails, id));
        if self.tails.back().is_none_or(Tail::is_fresh) {
            self.leave_out_copies(siblings, false);
            let newest = siblings.newest();
            self.insert(0, newest);
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

    /// Returns the next lines, if any are there.
    pub(super) fn next(&mut self, buffer: &mut [u8], around: &Around<'_>) -> Option<Batch> {
        let stats = around.stats;
        let mut index = 0;
        loop {
            let is_log = self.attached && index + 1 == self.tails.len();
            let Some(tail) = self.tails.get_mut(index) else {
                self.live |= !self.tails.is_empty();
                break;
            };
            let fresh = is_log && tail.is_fresh();
            if !is_log && tail.is_fresh() {
                match self.copying(index) {
                    Copying::No => {}
                    Copying::UnderWay => {
                        index += 1;
                        continue;
                    }
                    Copying::Over if self.cut(self.tails.len() - 1, around) => {
                        index = 0;
                        continue;
                    }
                    Copying::Over => break,
                }
            }
            let Some(tail) = self.tails.get_mut(index) else { break };
            let read = tail.read(buffer, around.now).unwrap_or_else(|error| {
                stats.update(&self.origin, |counters| counters.error = Some(error.to_string()));
                Read::End
            });
            if fresh && read != Read::Cut {
                match self.look_beside(around) {
                    Beside::Nothing => {}
                    Beside::Older => {
                        index = 0;
                        continue;
                    }
                    // what has come is read again at the next look
                    Beside::Unsettled => {
                        self.tails.back_mut().into_iter().for_each(Tail::rewind);
                        break;
                    }
                }
            }
            match read {
                Read::Lines(lines) => return Some(self.batch(index, lines, stats)),
                Read::Some => {}
                Read::Cut => {
                    if !self.cut(index, around) {
                        break;
                    }
                    index = 0;
                }
                Read::End if self.is_done(index, around.limits, around.now) => {
                    let (last, gone) = self.retire(index, around);
                    index += usize::from(!gone);
                    if !last.is_empty() {
                        let origin = &self.origin;
                        log::warn!(
                            "{origin}: the last line before a rotation is torn: no evidence"
                        );
                        return Some(Batch { torn: true, ..self.batch(index, last, stats) });
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

    /// A rotation may have been found before a byte was in it: as the log that it was, or as a copy
    /// of the log that is about to be made.
    fn copying(&mut self, index: usize) -> Copying {
        let (true, Some(at)) = (self.attached, self.tails.len().checked_sub(1)) else {
            return Copying::No;
        };
        let (old, log) = self.tails.make_contiguous().split_at_mut(at);
        let (Some(tail), Some(log)) = (old.get_mut(index), log.first_mut()) else {
            return Copying::No;
        };
        // one that cannot be read is as good as none
        match tail.compare(log).unwrap_or(Some(false)) {
            Some(false) if log.is_fresh() || tail.lag() == 0 => {
                tail.shadow = false;
                Copying::No
            }
            // it was no copy of the log as that is; was it one of the log before?
            Some(false) if log.was_cut(true).unwrap_or(false) => Copying::Over,
            Some(false) => {
                tail.shadow = false;
                Copying::No
            }
            Some(true) => {
                tail.shadow = true;
                Copying::UnderWay
            }
            None => {
                self.unsettled = true;
                Copying::UnderWay
            }
        }
    }

    /// Of the rotations of which nothing was read, the one that holds what was read of the log
    /// before it was cut, at the place where that ended.
    fn take_shadow(&mut self, checkpoint: &Checkpoint) -> Option<Tail> {
        if checkpoint.head_len == 0 {
            return None;
        }
        let mut found = None;
        let old = self.tails.len() - usize::from(self.attached);
        for (at, tail) in
            self.tails.iter_mut().enumerate().take(old).filter(|(_, tail)| tail.is_fresh())
        {
            if tail.resume(checkpoint).unwrap_or(false) {
                found = Some(at);
            } else if tail.shadow {
                // all of it was read in the log
                let _unread = tail.skip();
            } else {
                continue;
            }
            (tail.copy, tail.shadow) = (true, false);
        }
        self.tails.remove(found?)
    }

    /// Gives up a file that bears another followed name now.
    pub(super) fn release(&mut self, id: FileId) -> Option<Tail> {
        let at = self.tails.iter().position(|tail| tail.id == id)?;
        self.attached &= at + 1 != self.tails.len();
        self.dirty = true;
        self.tails.remove(at)
    }

    /// Returns when a file that is at its end has to be looked at again, though nothing happened to
    /// it.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<Instant> {
        let old = self.tails.len() - usize::from(self.attached);
        let waiting =
            self.tails.iter().take(old).filter(|t| t.lines.unfinished() || t.is_deleted());
        waiting.map(|tail| tail.active + limits.linger).min()
    }

    /// Names changed too fast for a look: it is due soon.
    pub(super) fn is_unsettled(&self) -> bool {
        self.due || self.unsettled
    }

    /// There is nothing that could still grow, or that has since it lost its name long ago.
    pub(super) fn is_over(&self, limits: &Limits, now: Instant) -> bool {
        let over = |tail: &Tail| tail.copy || tail.active + limits.forget <= now;
        !self.attached && !self.due && !self.refused && self.tails.iter().all(over)
    }

    /// Returns when that will be so, if it ever will.
    pub(super) fn ends(&self, limits: &Limits) -> Option<Instant> {
        let last = self.tails.iter().filter(|tail| !tail.copy).map(|tail| tail.active).max();
        let ends = last.filter(|_| !self.attached && !self.refused);
        ends.map(|last| last + limits.forget)
    }

    /// The last word of it: its position is of no use any more.
    pub(super) fn farewell(origin: Arc<str>) -> Batch {
        Batch {
            origin,
            lines: Bytes::new(),
            stamped: false,
            raw: None,
            backlog: false,
            live: false,
            position: None,
            gone: true,
            torn: false,
            read: Instant::now(),
        }
    }

    /// The first bytes of a log count if a look after them shows nothing older that was not read:
    /// the log may have been filled, copied and cut since the last look, even more than once.
    fn look_beside(&mut self, around: &Around<'_>) -> Beside {
        let Some(mut siblings) = self.siblings(around) else { return Beside::Unsettled };
        let (count, Some(log)) = (self.tails.len(), self.tails.back()) else {
            return Beside::Nothing;
        };
        if !siblings.is_log(log.id) {
            return Beside::Nothing;
        }
        siblings.forget(|id| holds(&self.tails, id));
        self.leave_out_copies(&mut siblings, false);
        if count > 1 {
            self.take_newer(&mut siblings, true);
            if self.tails.len() > count {
                // What is older is a copy, and was read unless it was empty when it was found.
                let newer = self.tails.split_off(count - 1);
                self.tails.retain(has_more);
                self.tails.extend(newer);
                self.rewind_log();
                return Beside::Older;
            }
        } else {
            self.insert(0, siblings.all(true));
        }
        if self.tails.len() == count {
            return Beside::Nothing;
        }
        self.rewind_log();
        Beside::Older
    }

    /// What was read of the log last did not count.
    fn rewind_log(&mut self) {
        if let Some(log) = self.tails.back_mut() {
            log.restart();
        }
    }

    /// Copies of what the log holds now are not older than it.
    fn leave_out_copies(&self, siblings: &mut Siblings, delivered: bool) {
        if let Some(log) = self.tails.back().filter(|_| self.attached) {
            siblings.forget_copies(log, delivered);
        }
    }

    /// Rotations that came after those that are held, in their place.
    fn take_newer(&mut self, siblings: &mut Siblings, copies: bool) {
        let last = self.tails.iter().rposition(|tail| siblings.age(tail.id).is_some());
        let Some((at, last)) = last.and_then(|at| Some((at, self.tails.get(at)?))) else { return };
        let id = last.id;
        siblings.forget(|id| holds(&self.tails, id));
        let newer = siblings.newer_than(id, copies);
        let later = self.tails.split_off(at + 1);
        if copies && !newer.is_empty() {
            self.are_copies(siblings);
        }
        self.tails.extend(newer);
        self.tails.extend(later);
    }

    /// The log is rotated by copy and cut: no program writes to what was rotated away.
    fn are_copies(&mut self, siblings: &Siblings) {
        let copies = self.tails.iter_mut().filter(|tail| !siblings.is_log(tail.id));
        copies.for_each(|tail| tail.copy = true);
    }

    fn at(&self, id: FileId) -> Option<usize> {
        self.tails.iter().position(|tail| tail.id == id)
    }

    fn insert(&mut self, at: usize, tails: impl IntoIterator<Item = Tail>) {
        let later = self.tails.split_off(at.min(self.tails.len()));
        self.tails.extend(tails);
        self.tails.extend(later);
    }

    /// A file at its end that no program will write to, or whose last line will not be finished.
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
        let empty = log.is_none_or(Tail::is_fresh);
        let read = self.tails.get(index).is_some_and(|tail| !tail.lines.unfinished());
        last && empty && read
    }

    /// Ends a file's last line, and lets the file go unless it may still grow; true if it did.
    fn retire(&mut self, index: usize, around: &Around<'_>) -> (Bytes, bool) {
        let old = self.tails.len() - usize::from(self.attached);
        let Some(tail) = self.tails.get_mut(index) else { return (Bytes::new(), false) };
        let quiet = around.now.saturating_duration_since(tail.active) >= around.limits.linger;
        let deleted = quiet && tail.is_deleted();
        // The last that tells where to go on is kept for that, unless it holds disk space.
        let fresh = !self.attached || self.tails.back().is_some_and(Tail::is_fresh);
        let last = index + 1 == old && fresh;
        let done = self.tails.get(index).is_some_and(|tail| tail.copy) && !last;
        if !(done || deleted || index == 0 && old > MAX_OLD) {
            let last = self.tails.get_mut(index).map(Tail::finish);
            return (last.unwrap_or_default(), false);
        }
        let last = last && old == 1;
        let siblings = if last { self.siblings(around) } else { None };
        if last && siblings.is_none() {
            return (Bytes::new(), false);
        }
        let last = self.tails.remove(index).map(|mut tail| tail.finish());
        if let Some(mut siblings) = siblings {
            self.note_rotations(&mut siblings);
        }
        self.dirty = true;
        (last.unwrap_or_default(), true)
    }

    /// The file was cut. What was not read of it may be in a copy that was made before. False, and
    /// nothing changes, while names change too fast.
    fn cut(&mut self, index: usize, around: &Around<'_>) -> bool {
        let Some(tail) = self.tails.get(index) else { return true };
        let (id, checkpoint, unread) = (tail.id, tail.checkpoint(), tail.is_fresh());
        let is_log = self.attached && index + 1 == self.tails.len();
        let Some(mut siblings) = self.siblings(around) else { return false };
        siblings.forget(|id| holds(&self.tails, id));
        // Of a log of which nothing was read, the look at its next bytes finds all copies.
        if !(unread && is_log) {
            let shadow = if is_log { self.take_shadow(&checkpoint) } else { None };
            if let Some(copy) = shadow.or_else(|| siblings.take_copy(&checkpoint)) {
                let log = self.tails.split_off(self.at(id).unwrap_or(index));
                // What is older was read; what was empty when it was found may be newer.
                let (newer, older): (Vec<_>, Vec<_>) =
                    mem::take(&mut self.tails).into_iter().partition(|tail| {
                        let known = siblings.age(tail.id).is_some();
                        known && siblings.order(copy.id, tail.id) == Ordering::Less
                    });
                self.tails = older.into_iter().filter(has_more).collect();
                self.are_copies(&siblings);
                self.tails.extend([copy].into_iter().chain(newer).chain(log));
            } else {
                if let Some(tail) = self.at(id).and_then(|at| self.tails.get_mut(at)) {
                    tail.restart();
                }
                self.note_rotations(&mut siblings);
            }
        }
        let cut = self.tails.iter_mut().find(|tail| tail.id == (checkpoint.dev, checkpoint.ino));
        cut.into_iter().for_each(Tail::restart);
        // what cuts a file may write old lines anew, as an editor does
        self.live = false;
        around.stats.update(&self.origin, |counters| counters.truncations += 1);
        self.dirty = true;
        true
    }

    fn batch(&mut self, index: usize, lines: Bytes, stats: &Stats) -> Batch {
        self.tally(index, stats);
        self.dirty = false;
        let stamped = self.unwrap.format != Format::Plain;
        let (lines, raw) = if stamped {
            let (lines, raw) = self.unwrap(&lines, stats);
            (lines, Some(raw))
        } else {
            (lines, None)
        };
        let lag = self.tails.iter().filter(|tail| !tail.shadow).map(Tail::lag).sum();
        stats.update(&self.origin, |counters| {
            counters.lines += count(memchr::memchr_iter(b'\n', &lines).count());
            counters.bytes += count(lines.len());
            counters.lag = lag;
        });
        let old = self.tails.len() - usize::from(self.attached);
        let checkpoints = self.tails.iter().enumerate();
        let checkpoints = checkpoints.map(|(at, tail)| {
            let checkpoint = Checkpoint { rotated: at < old, ..tail.checkpoint() };
            // By its first bytes a copy of the log would be found, and what was copied between the
            // rotations that are held and that one be passed over.
            if at >= old && tail.is_fresh() { checkpoint.of_nothing() } else { checkpoint }
        });
        let position = Position::File { files: checkpoints.collect() };
        let origin = Arc::clone(&self.origin);
        let backlog = self.tails.get(index).is_some_and(Tail::in_backlog);
        let (live, read) = (self.live, Instant::now());
        let position = Some(position);
        Batch {
            origin,
            lines,
            stamped,
            raw,
            backlog,
            live,
            position,
            gone: false,
            torn: false,
            read,
        }
    }

    fn unwrap(&mut self, lines: &Bytes, stats: &Stats) -> (Bytes, Bytes) {
        let lines = self.unwrap.unwrap(lines);
        let overlong = mem::take(&mut self.unwrap.overlong);
        let malformed = mem::take(&mut self.unwrap.malformed);
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

/// Its last line is not whole, or was empty when it was found and is not any more.
fn has_more(tail: &Tail) -> bool {
    tail.lines.unfinished() || tail.is_fresh() && tail.lag() > 0
}

fn holds(tails: &VecDeque<Tail>, id: FileId) -> bool {
    tails.iter().any(|tail| tail.id == id)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
