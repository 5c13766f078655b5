//! Property test of the file source: random writers, rotations and restarts on a real directory,
//! against a model that says which lines have to come, exactly once and in order.
//!
//! What may be lost is said in one word, `excuse`, and only there:
//! * a file deleted before the source ever saw it, or while the source was down;
//! * a file rotated away before the source saw it or any other file that still has a name;
//! * a late line to a file that is already deleted;
//! * copytruncate: a copy that was deleted before the source looked, and the copies after it.
//!
//! Nothing may ever come twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{files::Files, resolve::Target};
use crate::source::{Limits, Position, Start, Stats};

/// Rotated files that are kept, as logrotate's `rotate 3`.
const KEPT: usize = 3;
const LINGER: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
enum Op {
    Write(u8),
    Partial,
    /// The file before last's writer is slow to notice.
    Late,
    Rotate,
    Reopen,
    Delete,
    Scan,
    Pump(u8),
    Wait,
    Restart,
}

/// A line: the file generation that it was written to, and its number.
type Line = (usize, usize);

struct Writer {
    file: File,
    generation: usize,
    /// The line that was begun and not ended.
    begun: Option<Line>,
}

/// What is behind one name.
#[derive(Clone, Copy, PartialEq)]
enum Entry {
    Generation(usize),
    /// What `copytruncate` saved of a generation.
    Copy(usize),
}

struct World {
    dir: TempDir,
    copytruncate: bool,
    batch: usize,
    files: Files,
    position: Option<Position>,
    now: Instant,
    writer: Option<Writer>,
    late: Option<Writer>,
    generations: usize,
    lines: usize,
    /// `log`, `log.1`, …
    names: Vec<Option<Entry>>,
    /// Generations that the source has open or in its stored position.
    held: BTreeSet<usize>,
    /// The same, as of the last batch.
    stored: BTreeSet<usize>,
    /// Generations that the source can know nothing of.
    unseen: BTreeSet<usize>,
    /// Lines that must come, or may.
    owed: BTreeMap<Line, bool>,
    got: Vec<Line>,
}

impl World {
    fn new(copytruncate: bool, batch: usize) -> World {
        let dir = tempfile::tempdir().unwrap();
        let files = files(&dir, batch);
        let mut world = World {
            dir,
            copytruncate,
            batch,
            files,
            position: None,
            now: Instant::now(),
            writer: None,
            late: None,
            generations: 0,
            lines: 0,
            names: vec![None; KEPT + 1],
            held: BTreeSet::new(),
            stored: BTreeSet::new(),
            unseen: BTreeSet::new(),
            owed: BTreeMap::new(),
            got: Vec::new(),
        };
        world.apply(&Op::Scan);
        world.pump(usize::MAX);
        world
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Write(count) => self.write(*count),
            Op::Partial => self.partial(),
            Op::Late => self.write_late(),
            Op::Rotate if self.copytruncate => self.copy_and_cut(),
            Op::Rotate => self.rename(),
            Op::Reopen => self.reopen(),
            Op::Delete if self.copytruncate => {}
            Op::Delete => self.unlink(0),
            Op::Scan => self.scan(),
            Op::Pump(count) => self.pump(usize::from(*count)),
            Op::Wait => self.now += LINGER,
            Op::Restart => self.restart(),
        }
    }

    fn path(&self, index: usize) -> PathBuf {
        let name = if index == 0 { "log".to_owned() } else { format!("log.{index}") };
        self.dir.path().join(name)
    }

    fn write(&mut self, count: u8) {
        let mut writer = self.writer.take();
        if let Some(writer) = &mut writer {
            self.end(writer);
            for _ in 0..count {
                self.begin(writer, "x".repeat(usize::from(count)).as_str());
                self.end(writer);
            }
        }
        self.writer = writer;
    }

    fn partial(&mut self) {
        let mut writer = self.writer.take();
        if let Some(writer) = &mut writer
            && writer.begun.is_none()
        {
            self.begin(writer, "part");
        }
        self.writer = writer;
    }

    fn write_late(&mut self) {
        let mut late = self.late.take();
        if let Some(writer) = &mut late {
            self.end(writer);
            self.begin(writer, "late");
            self.end(writer);
        }
        self.late = late;
    }

    fn begin(&mut self, writer: &mut Writer, text: &str) {
        let line = (writer.generation, self.lines);
        self.lines += 1;
        writer.file.write_all(format!("{}-{}-{text}", line.0, line.1).as_bytes()).unwrap();
        writer.begun = Some(line);
        let linked = self.names.contains(&Some(Entry::Generation(writer.generation)));
        self.owed.insert(line, linked && !self.unseen.contains(&line.0));
    }

    fn end(&mut self, writer: &mut Writer) {
        if let Some(line) = writer.begun.take() {
            writer.file.write_all(format!(" end-{}-{}\n", line.0, line.1).as_bytes()).unwrap();
        }
    }

    fn reopen(&mut self) {
        let mut open = OpenOptions::new();
        let file = open.append(true).create(true).open(self.path(0)).unwrap();
        let generation = match self.names[0] {
            Some(Entry::Generation(generation)) => generation,
            _ => self.generations,
        };
        if self.writer.as_ref().is_some_and(|writer| writer.generation == generation) {
            return;
        }
        self.generations = self.generations.max(generation + 1);
        self.names[0] = Some(Entry::Generation(generation));
        self.late = self.writer.replace(Writer { file, generation, begun: None });
    }

    /// Makes `log.1` free.
    fn shift(&mut self) {
        self.unlink(KEPT);
        for index in (1..KEPT).rev() {
            if self.names[index].is_some() {
                fs::rename(self.path(index), self.path(index + 1)).unwrap();
                self.names[index + 1] = self.names[index].take();
            }
        }
    }

    fn rename(&mut self) {
        if self.names[0].is_some() {
            self.shift();
            fs::rename(self.path(0), self.path(1)).unwrap();
            self.names[1] = self.names[0].take();
        }
    }

    fn copy_and_cut(&mut self) {
        let Some(Entry::Generation(generation)) = self.names[0] else { return };
        self.shift();
        fs::copy(self.path(0), self.path(1)).unwrap();
        self.names[1] = Some(Entry::Copy(generation));
        File::options().write(true).open(self.path(0)).unwrap().set_len(0).unwrap();
        // What comes now is another file's content, though the inode is the same.
        let next = self.generations;
        self.generations += 1;
        self.names[0] = Some(Entry::Generation(next));
        if self.held.contains(&generation) {
            self.held.insert(next);
        }
        if let Some(writer) = &mut self.writer {
            writer.generation = next;
        }
    }

    fn unlink(&mut self, index: usize) {
        match self.names[index].take() {
            Some(Entry::Generation(generation)) if !self.held.contains(&generation) => {
                self.excuse(generation);
            }
            Some(Entry::Copy(generation)) => {
                self.excuse(generation);
                // the copies after it are recognized by it
                if !self.got.iter().any(|line| line.0 > generation) {
                    (generation..self.generations).for_each(|later| self.excuse(later));
                }
            }
            Some(Entry::Generation(_)) => {}
            None => return,
        }
        fs::remove_file(self.path(index)).unwrap();
    }

    fn excuse(&mut self, generation: usize) {
        for (line, must) in &mut self.owed {
            *must &= line.0 != generation || self.got.contains(line);
        }
    }

    fn scan(&mut self) {
        let found = self.files.resolve().files;
        let position = self.position.clone();
        self.files.update(&found, &|_| position.clone(), self.now);
        self.files.touch_all();
        if let Some(Entry::Generation(generation)) = self.names[0]
            && !self.held.contains(&generation)
        {
            self.hold_newer();
            self.held.insert(generation);
            for unseen in
                (0..generation).filter(|older| !self.held.contains(older)).collect::<Vec<_>>()
            {
                self.unseen.insert(unseen);
                self.excuse(unseen);
            }
        }
    }

    /// What was rotated away since the newest file that is held is found through its name.
    fn hold_newer(&mut self) {
        let Some(last) = self.held.last().copied() else { return };
        if let Some(at) = self.names.iter().position(|e| *e == Some(Entry::Generation(last))) {
            let newer = self.names[..at].iter().filter_map(|entry| match entry {
                Some(Entry::Generation(generation)) => Some(*generation),
                _ => None,
            });
            self.held.extend(newer.collect::<Vec<_>>());
        }
    }

    fn pump(&mut self, count: usize) {
        self.files.touch_due(self.now);
        for _ in 0..count {
            let Some(batch) = self.files.next(self.now) else { return };
            self.position = batch.position;
            self.stored = self.held.clone();
            for line in String::from_utf8(batch.lines.to_vec()).unwrap().lines() {
                self.take(line);
            }
        }
    }

    fn take(&mut self, text: &str) {
        if text.starts_with(' ') {
            assert!(self.copytruncate, "the end of a line came for a line: {text:?}");
            return;
        }
        let mut parts = text.splitn(3, '-').map(|part| part.parse::<usize>());
        let line = (parts.next().unwrap().unwrap(), parts.next().unwrap().unwrap());
        assert!(self.owed.contains_key(&line), "never written: {text:?}");
        assert!(!self.got.contains(&line), "twice: {text:?}");
        let before = self.got.iter().rfind(|other| other.0 == line.0);
        assert!(before.is_none_or(|other| other.1 < line.1), "out of order: {text:?}");
        self.got.push(line);
    }

    fn restart(&mut self) {
        self.files = files(&self.dir, self.batch);
        let linked =
            |generation: &usize| self.names.contains(&Some(Entry::Generation(*generation)));
        let gone: Vec<usize> =
            (0..self.generations).filter(|generation| !linked(generation)).collect();
        let copied = |generation: usize| self.names.contains(&Some(Entry::Copy(generation)));
        let held = self.stored.iter().copied().filter(linked).collect();
        let lost: Vec<usize> = gone.into_iter().filter(|g| !copied(*g)).collect();
        lost.into_iter().for_each(|generation| self.excuse(generation));
        self.held = held;
        if self.position.is_some() {
            self.hold_newer();
        }
        self.scan();
    }

    fn finish(mut self) -> Result<(), TestCaseError> {
        for writer in [self.late.take(), self.writer.take()].into_iter().flatten() {
            let mut writer = writer;
            self.end(&mut writer);
        }
        self.reopen();
        for _ in 0..3 {
            self.scan();
            self.pump(usize::MAX);
            self.now += LINGER;
        }
        let missing: Vec<_> = self
            .owed
            .iter()
            .filter(|(line, must)| **must && !self.got.contains(line))
            .map(|(line, _)| line)
            .collect();
        prop_assert!(missing.is_empty(), "missing: {missing:?}");
        Ok(())
    }
}

fn files(dir: &TempDir, batch: usize) -> Files {
    let target = Target::new(&dir.path().join("log")).unwrap();
    let limits = Limits { batch, linger: LINGER, ..Limits::default() };
    Files::new(target, Start::Beginning, limits, Stats::default())
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (1u8..6).prop_map(Op::Write),
        2 => Just(Op::Partial),
        2 => Just(Op::Late),
        2 => Just(Op::Rotate),
        4 => Just(Op::Reopen),
        1 => Just(Op::Delete),
        4 => Just(Op::Scan),
        5 => (1u8..10).prop_map(Op::Pump),
        1 => Just(Op::Wait),
        1 => Just(Op::Restart),
    ];
    proptest::collection::vec(op, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_line_comes_once(ops in ops(), copytruncate in any::<bool>(), batch in 1usize..100) {
        let mut world = World::new(copytruncate, batch);
        for op in &ops {
            world.apply(op);
        }
        world.finish()?;
    }
}
