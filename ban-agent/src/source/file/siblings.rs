//! The files beside a log that are rotations of it: where the rest of a file is found that was
//! renamed, or copied and cut, between two looks.

use std::{
    cell::RefCell,
    cmp::Ordering,
    collections::HashMap,
    ffi::OsString,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use super::{
    names::{self, Age},
    seam,
    tail::{self, FileId, Tail},
};
use crate::source::Checkpoint;

/// Looks until two find the same names on the same files: a rotation may be under way.
const MAX_LOOKS: usize = 8;

/// A log and its rotations in one directory as they stood together at one moment; all of them open.
#[derive(Debug)]
pub(super) struct Siblings {
    names: Vec<Name>,
    /// Those that were not taken yet.
    tails: Vec<Tail>,
    /// Why the log itself cannot be opened.
    refusal: Option<io::Error>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    path: PathBuf,
    id: FileId,
    /// `None`: the log itself.
    age: Option<Age>,
}

impl Siblings {
    /// Looks beside the log `path`; `None` if names change faster than they can be read. A
    /// directory is no snapshot: what is renamed while it is listed may be in the list twice, or
    /// not at all. But what two lists in a row say, and what the opened files are, was so between
    /// them.
    pub(super) fn open(
        path: &Path,
        shelf: &Shelf,
        max_line: usize,
        now: Instant,
    ) -> Option<Siblings> {
        let mut former: Option<Vec<Name>> = None;
        let mut open: Vec<Tail> = Vec::new();
        let mut refusal = None;
        for _ in 0..=MAX_LOOKS {
            let Some(names) = shelf.list(path) else {
                former = None;
                continue;
            };
            if former.as_ref() == Some(&names) {
                return Some(Siblings { names, tails: open, refusal });
            }
            open.retain(|tail| names.iter().any(|name| name.id == tail.id));
            let mut same = true;
            refusal = None;
            for name in &names {
                if open.iter().any(|tail| tail.id == name.id) {
                    continue;
                }
                match Tail::open(&name.path, max_line, now) {
                    Ok(tail) if tail.id == name.id => open.push(tail),
                    Ok(_) => same = false,
                    Err(error) if name.age.is_none() => refusal = Some(error),
                    // a rotation that cannot be opened is as good as none
                    Err(_) => {}
                }
            }
            former = same.then_some(names);
        }
        None
    }

    /// Returns the file that bears the log's name.
    pub(super) fn log(&self) -> Option<FileId> {
        self.names.iter().find(|name| name.age.is_none()).map(|name| name.id)
    }

    /// Returns why the log itself could not be opened, if it is there and could not.
    pub(super) fn take_refusal(&mut self) -> Option<io::Error> {
        self.refusal.take()
    }

    /// Returns the log itself, at its beginning; `None` if it cannot be opened.
    pub(super) fn take_log(&mut self) -> Option<Tail> {
        let log = self.log()?;
        let at = self.tails.iter().position(|tail| tail.id == log)?;
        Some(self.tails.swap_remove(at))
    }

    /// Leaves out files that are read already.
    pub(super) fn forget(&mut self, known: impl Fn(FileId) -> bool) {
        self.tails.retain(|tail| !known(tail.id));
    }

    /// Leaves out copies of what the log holds now: they matter once it is cut. So do those of what
    /// was `delivered` of it, even if it was cut already: that is found out when it is read.
    pub(super) fn forget_copies(&mut self, log: &Tail, delivered: bool) {
        let checkpoint = log.checkpoint();
        // by its head alone a file that begins with NULs is like any other
        let delivered = delivered && checkpoint.last_len > 0;
        // one that cannot be read is as good as none
        self.tails.retain_mut(|tail| {
            let was = delivered && tail.is(&checkpoint).unwrap_or(false);
            !was && !tail.is_copy_of(log).unwrap_or(false)
        });
    }

    /// Both found the same names on the same files.
    pub(super) fn agrees(&self, other: &Siblings) -> bool {
        self.names == other.names
    }

    /// The log itself, not a rotation of it.
    pub(super) fn is_log(&self, id: FileId) -> bool {
        self.names.iter().any(|name| name.id == id && name.age.is_none())
    }

    /// The log itself has this inode.
    pub(super) fn has_log(&self, ino: u64) -> bool {
        self.names.iter().any(|name| name.id.1 == ino && name.age.is_none())
    }

    /// Returns the file that `checkpoint` means, or a copy of it, at the checkpoint's offset.
    pub(super) fn take(&mut self, checkpoint: &Checkpoint) -> Option<Tail> {
        self.take_where(checkpoint, |id, _| id.1 == checkpoint.ino)
            .or_else(|| self.take_copy(checkpoint))
    }

    /// Returns a copy with more than `checkpoint` saw, made before the file itself was cut.
    pub(super) fn take_copy(&mut self, checkpoint: &Checkpoint) -> Option<Tail> {
        if checkpoint.head_len == 0 {
            return None;
        }
        let mut copy =
            self.take_where(checkpoint, |id, age| age.is_some() && id.1 != checkpoint.ino)?;
        copy.copy = true;
        Some(copy)
    }

    /// Rotations that came after the file `id`, oldest first.
    pub(super) fn newer_than(&mut self, id: FileId, copy: bool) -> Vec<Tail> {
        let Some(age) = self.age(id).cloned() else { return Vec::new() };
        self.rotations(copy, |other| other.compare(&age) == Some(Ordering::Greater))
    }

    /// Returns all rotations, oldest first.
    pub(super) fn all(&mut self, copy: bool) -> Vec<Tail> {
        self.rotations(copy, |_| true)
    }

    /// Returns the newest rotation, at its end.
    pub(super) fn newest(&mut self) -> Option<Tail> {
        let mut newest = self.all(true).pop()?;
        newest.skip().ok()?;
        Some(newest)
    }

    /// Returns the age that the name of `id` tells.
    pub(super) fn age(&self, id: FileId) -> Option<&Age> {
        self.names.iter().find(|name| name.id == id)?.age.as_ref()
    }

    /// Returns which of two came first, as their names tell; the log itself is the newest.
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
        checkpoint: &Checkpoint,
        wanted: impl Fn(FileId, Option<&Age>) -> bool,
    ) -> Option<Tail> {
        let Siblings { names, tails, .. } = self;
        let age = |tail: &Tail| names.iter().find(|name| name.id == tail.id)?.age.as_ref();
        let mut best: Option<usize> = None;
        for index in 0..tails.len() {
            let Some(tail) = tails.get_mut(index) else { break };
            if !wanted(tail.id, age(tail)) || !tail.is(checkpoint).unwrap_or(false) {
                continue;
            }
            let newer = match (age(tail), best.and_then(|best| age(tails.get(best)?))) {
                (Some(this), Some(best)) => this.order(best) == Ordering::Greater,
                _ => best.is_none(),
            };
            best = if newer { Some(index) } else { best };
        }
        let mut tail = tails.swap_remove(best?);
        if tail.resume(checkpoint).unwrap_or(false) {
            return Some(tail);
        }
        // Cut meanwhile; the log is still the log.
        tails.push(tail);
        None
    }
}

/// What directories hold, as long as it is certain that they still do: a start with ten thousand
/// logs in one directory must not read it ten thousand times.
#[derive(Debug, Default)]
pub(super) struct Shelf(RefCell<HashMap<PathBuf, Listing>>);

#[derive(Debug)]
struct Listing {
    stamp: Stamp,
    /// Sorted.
    names: Vec<OsString>,
}

/// Device, inode, and when it changed last.
type Stamp = (FileId, SystemTime);

/// A change that comes so soon after another may leave the time of the directory as it is: the
/// kernel's clock for files stands still for a tick of at most 10 ms, that of some file systems for
/// up to two seconds, of which they keep no fractions.
const SETTLED: Duration = Duration::from_millis(100);
const SETTLED_IN_SECONDS: Duration = Duration::from_secs(2);
/// Directories that are remembered.
const SHELVES: usize = 16;

impl Shelf {
    /// Returns the log `path` and its rotations, by name; `None` if a name went away meanwhile, for
    /// then its file has another, which may not be in the list.
    fn list(&self, path: &Path) -> Option<Vec<Name>> {
        let (Some(dir), Some(base)) = (path.parent(), path.file_name()) else {
            return Some(Vec::new());
        };
        let (bytes, base) = (base.as_bytes(), base.to_string_lossy());
        let dot = bytes.iter().rposition(|byte| *byte == b'.').unwrap_or(bytes.len());
        // as bytes: a name need not be text
        let stem = bytes.get(..dot).unwrap_or(bytes);
        seam();
        let stamp = stamp(dir);
        let mut known = self.0.borrow_mut();
        if known.get(dir).is_none_or(|known| stamp.is_none_or(|stamp| stamp != known.stamp)) {
            known.remove(dir);
            let names = read(dir);
            match stamp.filter(|stamp| is_settled(dir, *stamp)) {
                Some(stamp) if known.len() < SHELVES => {
                    known.insert(dir.to_owned(), Listing { stamp, names });
                }
                _ => return of_log(dir, &base, stem, &names),
            }
        }
        known.get(dir).map_or(Some(Vec::new()), |known| of_log(dir, &base, stem, &known.names))
    }
}

fn of_log(dir: &Path, base: &str, stem: &[u8], names: &[OsString]) -> Option<Vec<Name>> {
    let from = names.partition_point(|name| name.as_bytes() < stem);
    let names = names.get(from..).unwrap_or_default().iter();
    let alike = names.take_while(|name| name.as_bytes().starts_with(stem));
    let mut found = Vec::new();
    for name in alike {
        let age = names::age(base, &name.to_string_lossy());
        if age.is_none() && name.to_string_lossy() != base {
            continue;
        }
        seam();
        let path = dir.join(name);
        match fs::metadata(&path) {
            Ok(meta) if meta.is_file() => {
                found.push(Name { path, id: (meta.dev(), meta.ino()), age });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {
                return None;
            }
            _ => {}
        }
    }
    // a file with both names is not rotated away yet
    if let Some(log) = found.iter().find(|name| name.age.is_none()).map(|name| name.id) {
        found.retain(|name| name.age.is_none() || name.id != log);
    }
    Some(found)
}

fn read(dir: &Path) -> Vec<OsString> {
    seam();
    #[cfg(test)]
    tests::READ.set(tests::READ.get() + 1);
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<OsString> = entries.map(|entry| entry.file_name()).collect();
    names.sort_unstable();
    names
}

fn stamp(dir: &Path) -> Option<Stamp> {
    let meta = fs::metadata(dir).ok()?;
    Some(((meta.dev(), meta.ino()), meta.modified().ok()?))
}

/// A change since `then` would show; where other machines write, it may not.
fn is_settled(dir: &Path, then: Stamp) -> bool {
    let since = then.1.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let settled = if since.subsec_nanos() == 0 { SETTLED_IN_SECONDS } else { SETTLED };
    let quiet = SystemTime::now().duration_since(then.1).is_ok_and(|age| age > settled);
    quiet && stamp(dir) == Some(then) && !fs::File::open(dir).is_ok_and(tail::is_remote)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    thread_local! {
        /// How often a directory was read.
        pub(super) static READ: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    /// As after a deployment that has just made ten thousand of them.
    #[test]
    fn a_directory_with_many_logs_is_read_once_a_tick_after_its_last_change() {
        let dir = tempfile::tempdir().unwrap();
        let logs: Vec<PathBuf> = (0..100).map(|n| dir.path().join(format!("{n}.log"))).collect();
        logs.iter().for_each(|log| fs::write(log, "").unwrap());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let whole = Duration::from_secs(now.as_secs());
        let odd = Duration::from_nanos(1);
        let ago = |ms| now - Duration::from_millis(ms);
        for (changed, reads) in [
            (ago(200) + odd * u32::from(ago(200).subsec_nanos() == 0), 1),
            (ago(3000), 1),
            // of a file system that counts seconds
            (whole + Duration::from_secs(1), 100),
            // who knows what that clock does
            (whole + Duration::from_secs(100), 100),
        ] {
            let time = SystemTime::UNIX_EPOCH + changed;
            fs::File::open(dir.path()).unwrap().set_modified(time).unwrap();
            let (shelf, before) = (Shelf::default(), READ.get());
            for log in &logs {
                assert_eq!(shelf.list(log).unwrap().len(), 1);
            }
            assert_eq!(READ.get() - before, reads, "changed at {changed:?}, now {now:?}");
        }
    }

    #[test]
    fn a_name_need_not_be_text() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join(OsStr::from_bytes(b"door-\xff<b>.log"));
        for name in [&b"door-\xff<b>.log"[..], b"door-\xff<b>.log.1", b"door-x.log"] {
            fs::write(dir.path().join(OsStr::from_bytes(name)), "").unwrap();
        }
        let names = Shelf::default().list(&log).unwrap();
        let ages: Vec<bool> = names.iter().map(|name| name.age.is_some()).collect();
        assert_eq!(ages, [false, true], "{names:?}");
    }
}
