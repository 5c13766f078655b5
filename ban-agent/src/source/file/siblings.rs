//! The files beside a log that are rotations of it: where the rest of a file is found that was
//! renamed, or copied and cut, while nobody looked.

use std::{
    cmp::Ordering,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    names::{self, Age},
    tail::{FileId, Tail},
};
use crate::source::Mark;

/// A log and its rotations in one directory, at one moment.
#[derive(Debug)]
pub(super) struct Siblings {
    entries: Vec<Entry>,
    max_line: usize,
    now: Instant,
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    id: FileId,
    /// `None`: the log itself.
    age: Option<Age>,
}

impl Siblings {
    /// Looks beside the log `path`.
    pub(super) fn open(path: &Path, max_line: usize, now: Instant) -> Siblings {
        let mut entries = Vec::new();
        if let (Some(dir), Some(base)) = (path.parent(), path.file_name()) {
            let base = base.to_string_lossy();
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                let age = names::age(&base, &name);
                if age.is_some() || name == base {
                    entries.extend(Entry::new(entry.path(), age));
                }
            }
        }
        Siblings { entries, max_line, now }
    }

    /// Leaves out files that are read already.
    pub(super) fn forget(&mut self, known: impl Fn(FileId) -> bool) {
        self.entries.retain(|entry| !known(entry.id));
    }

    /// The log itself, not a rotation of it.
    pub(super) fn is_log(&self, id: FileId) -> bool {
        self.entries.iter().any(|entry| entry.id == id && entry.age.is_none())
    }

    /// The file that `mark` means, or a copy of it, at the mark's offset.
    pub(super) fn take(&self, mark: &Mark) -> Option<Tail> {
        let same = |entry: &Entry| entry.id.1 == mark.ino;
        self.take_where(mark, same).or_else(|| self.take_copy(mark))
    }

    /// A copy with more than `mark` saw, made before the file itself was cut.
    pub(super) fn take_copy(&self, mark: &Mark) -> Option<Tail> {
        if mark.head_len == 0 {
            return None;
        }
        let other = |entry: &Entry| entry.age.is_some() && entry.id.1 != mark.ino;
        let mut copy = self.take_where(mark, other)?;
        copy.copy = true;
        Some(copy)
    }

    /// Rotations that came after the file of `tail` and are not `known`, oldest first.
    pub(super) fn newer_than(&self, tail: &Tail, known: impl Fn(FileId) -> bool) -> Vec<Tail> {
        let (id, copy) = (tail.id, tail.copy);
        let Some(age) = self.entries.iter().find(|e| e.id == id).and_then(|e| e.age.as_ref())
        else {
            return Vec::new();
        };
        let newer = |entry: &&Entry| {
            entry.age.as_ref().and_then(|other| other.compare(age)) == Some(Ordering::Greater)
        };
        let mut found: Vec<&Entry> = self.entries.iter().filter(newer).collect();
        found.sort_by(|a, b| match (&a.age, &b.age) {
            (Some(a), Some(b)) => a.compare(b).unwrap_or(Ordering::Equal),
            _ => Ordering::Equal,
        });
        let open = |entry: &Entry| {
            let mut tail = Tail::open(&entry.path, self.max_line, self.now).ok()?;
            // Where one rotation was a copy, all are.
            tail.copy = copy;
            Some(tail)
        };
        found.into_iter().filter_map(open).filter(|tail| !known(tail.id)).collect()
    }

    fn take_where(&self, mark: &Mark, wanted: impl Fn(&Entry) -> bool) -> Option<Tail> {
        self.entries.iter().filter(|entry| wanted(entry)).find_map(|entry| {
            let mut tail = Tail::open(&entry.path, self.max_line, self.now).ok()?;
            (tail.id == entry.id && tail.resume(mark).ok()?).then_some(tail)
        })
    }
}

impl Entry {
    fn new(path: PathBuf, age: Option<Age>) -> Option<Entry> {
        let meta = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
        Some(Entry { path, id: (meta.dev(), meta.ino()), age })
    }
}
