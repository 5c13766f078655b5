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

/// Looks until two find the same names on the same files: a rotation may be under way.
const MAX_LOOKS: usize = 4;

/// A log and its rotations in one directory, at one moment; all of them open.
#[derive(Debug)]
pub(super) struct Siblings {
    names: Vec<Name>,
    /// Those that nobody has taken yet.
    tails: Vec<Tail>,
}

#[derive(Debug, PartialEq, Eq)]
struct Name {
    path: PathBuf,
    id: FileId,
    /// `None`: the log itself.
    age: Option<Age>,
}

impl Siblings {
    /// Looks beside the log `path`.
    pub(super) fn open(path: &Path, max_line: usize, now: Instant) -> Siblings {
        let mut names = list(path);
        let mut tails = Vec::new();
        for _ in 0..MAX_LOOKS {
            let open = |name: &Name| Tail::open(&name.path, max_line, now).ok();
            tails = names.iter().filter_map(open).collect();
            let former = std::mem::replace(&mut names, list(path));
            if former == names {
                break;
            }
        }
        tails.retain(|tail| names.iter().any(|name| name.id == tail.id));
        Siblings { names, tails }
    }

    /// Leaves out files that are read already.
    pub(super) fn forget(&mut self, known: impl Fn(FileId) -> bool) {
        self.tails.retain(|tail| !known(tail.id));
    }

    /// Leaves out copies of what the log holds now: they matter once it is cut.
    pub(super) fn forget_copies(&mut self, log: &mut Tail) {
        // one that cannot be read is as good as none
        let _ = log.learn_head();
        let mark = log.mark();
        self.tails.retain_mut(|tail| {
            // by its head alone a file that begins with NULs is like any other
            let whole = mark.last_len > 0 && tail.is(&mark).unwrap_or(false);
            // it may be a copy that is not whole yet
            let part = tail.end().and_then(|end| Ok(end.head_len > 0 && log.is(&end)?));
            !whole && !part.unwrap_or(false)
        });
    }

    /// The log itself, not a rotation of it.
    pub(super) fn is_log(&self, id: FileId) -> bool {
        self.names.iter().any(|name| name.id == id && name.age.is_none())
    }

    /// The log itself has this inode.
    pub(super) fn has_log(&self, ino: u64) -> bool {
        self.names.iter().any(|name| name.id.1 == ino && name.age.is_none())
    }

    /// The file that `mark` means, or a copy of it, at the mark's offset.
    pub(super) fn take(&mut self, mark: &Mark) -> Option<Tail> {
        self.take_where(mark, |id, _| id.1 == mark.ino).or_else(|| self.take_copy(mark))
    }

    /// A copy with more than `mark` saw, made before the file itself was cut.
    pub(super) fn take_copy(&mut self, mark: &Mark) -> Option<Tail> {
        if mark.head_len == 0 {
            return None;
        }
        let mut copy = self.take_where(mark, |id, age| age.is_some() && id.1 != mark.ino)?;
        copy.copy = true;
        Some(copy)
    }

    /// Rotations that came after the file `id`, oldest first.
    pub(super) fn newer_than(&mut self, id: FileId, copy: bool) -> Vec<Tail> {
        let Some(age) = self.age(id).cloned() else { return Vec::new() };
        self.rotations(copy, |other| other.compare(&age) == Some(Ordering::Greater))
    }

    /// All rotations, oldest first.
    pub(super) fn all(&mut self, copy: bool) -> Vec<Tail> {
        self.rotations(copy, |_| true)
    }

    /// The newest rotation, at its end.
    pub(super) fn newest(&mut self) -> Option<Tail> {
        let mut newest = self.all(true).pop()?;
        newest.skip().ok()?;
        Some(newest)
    }

    /// The age that the name of `id` tells.
    pub(super) fn age(&self, id: FileId) -> Option<&Age> {
        self.names.iter().find(|name| name.id == id)?.age.as_ref()
    }

    /// Which of two came first, as their names tell; the log itself is the newest.
    pub(super) fn order(&self, a: FileId, b: FileId) -> Ordering {
        match (self.age(a), self.age(b)) {
            (Some(a), Some(b)) => a.order(b),
            (a, b) => a.is_none().cmp(&b.is_none()),
        }
    }

    /// `copy`: where one rotation was a copy, all are.
    fn rotations(&mut self, copy: bool, wanted: impl Fn(&Age) -> bool) -> Vec<Tail> {
        let (mut found, mut rest) = (Vec::new(), Vec::new());
        for mut tail in std::mem::take(&mut self.tails) {
            match self.age(tail.id).filter(|age| wanted(age)).cloned() {
                Some(age) => {
                    tail.copy = copy;
                    found.push((age, tail));
                }
                None => rest.push(tail),
            }
        }
        self.tails = rest;
        found.sort_by(|(a, _), (b, _)| a.order(b));
        found.into_iter().map(|(_, tail)| tail).collect()
    }

    /// Of several that look alike the newest.
    fn take_where(
        &mut self,
        mark: &Mark,
        wanted: impl Fn(FileId, Option<&Age>) -> bool,
    ) -> Option<Tail> {
        let Siblings { names, tails } = self;
        let age = |tail: &Tail| names.iter().find(|name| name.id == tail.id)?.age.as_ref();
        let mut best: Option<usize> = None;
        for index in 0..tails.len() {
            let Some(tail) = tails.get_mut(index) else { break };
            if !wanted(tail.id, age(tail)) || !tail.is(mark).unwrap_or(false) {
                continue;
            }
            let newer = match (age(tail), best.and_then(|best| age(tails.get(best)?))) {
                (Some(this), Some(best)) => this.order(best) == Ordering::Greater,
                _ => best.is_none(),
            };
            best = if newer { Some(index) } else { best };
        }
        let mut tail = tails.swap_remove(best?);
        tail.resume(mark).ok()?.then_some(tail)
    }
}

/// The log `path` and its rotations, by name.
fn list(path: &Path) -> Vec<Name> {
    let (Some(dir), Some(base)) = (path.parent(), path.file_name()) else { return Vec::new() };
    let base = base.to_string_lossy();
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<Name> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let age = names::age(&base, &name.to_string_lossy());
            if age.is_none() && name.to_string_lossy() != base {
                return None;
            }
            let meta = fs::metadata(entry.path()).ok().filter(fs::Metadata::is_file)?;
            Some(Name { path: entry.path(), id: (meta.dev(), meta.ino()), age })
        })
        .collect();
    names.sort_by(|a, b| a.path.cmp(&b.path));
    names
}
