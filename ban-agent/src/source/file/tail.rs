//! One open file, read forward. Knows its own position and whether it was cut; nothing of names.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::AsFd,
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
    time::Instant,
};

use bytes::Bytes;
use rustix::fs::SeekFrom;

use super::seam;
use crate::source::{Checkpoint, lines::Lines};

/// Bytes that recognize a file: its first ones, and those before our place in it. Longer than a
/// time stamp with the words before it.
const PRINT: usize = 256;

/// Device and inode: what a file is, whatever its name.
pub(super) type FileId = (u64, u64);

/// What one look at the file gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Whole lines.
    Lines(Bytes),
    /// Bytes, but no end of a line yet.
    Some,
    /// There is nothing more now.
    End,
    /// What was read is not in the file any more; it has to be read from the beginning.
    Cut,
}

impl Checkpoint {
    /// Returns the same file, of which nothing is known.
    pub(super) fn of_nothing(self) -> Checkpoint {
        Checkpoint {
            offset: 0,
            head: fnv1a(&[]),
            head_len: 0,
            last: fnv1a(&[]),
            last_len: 0,
            ..self
        }
    }
}

/// A file that is being read.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) file: File,
    pub(super) id: FileId,
    pub(super) lines: Lines,
    /// The next byte to read.
    offset: u64,
    /// Up to here its lines were written before the agent followed it.
    backlog: u64,
    /// The file's first bytes, as far as they are known.
    head: Vec<u8>,
    /// The last bytes up to `offset`.
    recent: Vec<u8>,
    /// The last bytes up to the end of the last whole line.
    last: Vec<u8>,
    /// When it last grew, or lost its name.
    pub(super) active: Instant,
    /// A copy that was made before the file itself was cut: no program writes to it.
    pub(super) copy: bool,
    /// Nothing was read of it, and it held what the log held when it was looked at last.
    pub(super) shadow: bool,
    /// The kernel does not tell when this one changes.
    pub(super) polled: bool,
}

impl Tail {
    /// Opens a regular file at its beginning.
    pub(super) fn open(path: &Path, max_line: usize, now: Instant) -> io::Result<Tail> {
        // Should it be a pipe after all, opening it must not wait for a writer.
        let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
        seam();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let polled = is_remote(&file);
        let mut tail = Tail {
            file,
            id: (meta.dev(), meta.ino()),
            lines: Lines::new(max_line),
            offset: 0,
            backlog: 0,
            head: Vec::new(),
            recent: Vec::new(),
            last: Vec::new(),
            active: now,
            copy: false,
            shadow: false,
            polled,
        };
        tail.learn_head()?;
        Ok(tail)
    }

    /// Goes to where `checkpoint` says; false, and nothing changes, if this is not the file it
    /// means.
    pub(super) fn resume(&mut self, checkpoint: &Checkpoint) -> io::Result<bool> {
        if !self.is(checkpoint)? {
            return Ok(false);
        }
        self.go_to(checkpoint.offset)?;
        // it may have been cut meanwhile
        let seen = usize::try_from(checkpoint.last_len).unwrap_or(usize::MAX).min(PRINT);
        let last = self.last.get(self.last.len().saturating_sub(seen)..).unwrap_or_default();
        if seen > 0 && fnv1a(last) != checkpoint.last {
            self.rewind();
            return Ok(false);
        }
        self.copy = checkpoint.copy;
        Ok(true)
    }

    /// Returns whether it holds what `checkpoint` saw.
    pub(super) fn is(&mut self, checkpoint: &Checkpoint) -> io::Result<bool> {
        seam();
        let size = self.file.metadata()?.len();
        Ok(size >= checkpoint.offset
            && self.begins_like(checkpoint)?
            && self.goes_on_like(checkpoint)?)
    }

    /// Goes to its end as it is now; nothing of it is of interest.
    pub(super) fn skip(&mut self) -> io::Result<()> {
        self.learn_head()?;
        self.go_to(self.file.metadata()?.len())
    }

    /// The file's first bytes are those that `checkpoint` saw.
    fn begins_like(&mut self, checkpoint: &Checkpoint) -> io::Result<bool> {
        self.learn_head()?;
        let seen = usize::try_from(checkpoint.head_len).unwrap_or(usize::MAX);
        Ok(self.head.get(..seen).is_some_and(|head| fnv1a(head) == checkpoint.head))
    }

    /// The bytes before the checkpoint's place are those that it saw.
    fn goes_on_like(&self, checkpoint: &Checkpoint) -> io::Result<bool> {
        let seen = usize::try_from(checkpoint.last_len).unwrap_or(usize::MAX).min(PRINT);
        Ok(fnv1a(&self.before(checkpoint.offset, seen)?) == checkpoint.last || seen == 0)
    }

    /// At most `length` bytes before `offset`.
    fn before(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let length = usize::try_from(offset).unwrap_or(usize::MAX).min(length);
        let mut bytes = vec![0; length];
        let from = offset - u64::try_from(length).unwrap_or(offset);
        seam();
        let read = self.file.read_at(&mut bytes, from)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Goes behind the last whole line; what follows is the beginning of a line to come.
    pub(super) fn seek_end(&mut self, max_line: usize) -> io::Result<()> {
        self.learn_head()?;
        seam();
        let size = self.file.metadata()?.len();
        let mut block = vec![0; 64 << 10];
        let mut end = size;
        while end > 0 && size - end <= u64::try_from(max_line).unwrap_or(u64::MAX) {
            let start = end.saturating_sub(u64::try_from(block.len()).unwrap_or(u64::MAX));
            let wanted = usize::try_from(end - start).unwrap_or(usize::MAX).min(block.len());
            let part = block.get_mut(..wanted).unwrap_or_default();
            seam();
            let read = self.file.read_at(part, start)?;
            let part = part.get(..read).unwrap_or_default();
            if let Some(at) = memchr::memrchr(b'\n', part) {
                return self.go_to(start + u64::try_from(at).unwrap_or(0) + 1);
            }
            end = start;
        }
        self.go_to(if end == 0 { 0 } else { size })
    }

    /// Goes to an offset; if that is inside a line, its rest will not pass for one.
    fn go_to(&mut self, offset: u64) -> io::Result<()> {
        self.last = self.before(offset, PRINT)?;
        self.recent.clone_from(&self.last);
        if self.last.last().is_some_and(|byte| *byte != b'\n') {
            self.lines.skip_rest();
        }
        self.offset = offset;
        Ok(())
    }

    /// Marks what is in the file now as written before the agent followed it.
    pub(super) fn mark_backlog(&mut self) -> io::Result<()> {
        self.backlog = self.file.metadata()?.len();
        Ok(())
    }

    /// Returns whether the lines read last were.
    pub(super) fn in_backlog(&self) -> bool {
        self.backlog > 0 && self.offset <= self.backlog
    }

    /// Reads on, at most `buffer`'s length, and not over the end of the backlog.
    pub(super) fn read(&mut self, buffer: &mut [u8], now: Instant) -> io::Result<Read> {
        let left = match self.backlog.saturating_sub(self.offset) {
            0 => usize::MAX,
            left => usize::try_from(left).unwrap_or(usize::MAX),
        };
        let room = left.min(buffer.len());
        let buffer = buffer.get_mut(..room).unwrap_or_default();
        seam();
        let read = self.file.read_at(buffer, self.offset)?;
        let chunk = buffer.get(..read).unwrap_or_default();
        // After the read: had the file been cut before it, these bytes would not be what they
        // seem.
        if self.was_cut(chunk.is_empty())? {
            return Ok(Read::Cut);
        }
        if chunk.is_empty() {
            return Ok(Read::End);
        }
        self.active = now;
        self.offset += u64::try_from(read).unwrap_or(0);
        if let Some(end) = memchr::memrchr(b'\n', chunk) {
            self.last = print(&self.recent, chunk.get(..=end).unwrap_or_default());
        }
        self.recent = print(&self.recent, chunk);
        if self.lines.drops_nuls() && chunk.iter().all(|byte| *byte == 0) {
            self.lines.skip_nuls(u64::try_from(read).unwrap_or(0));
            self.skip_hole();
            return Ok(Read::Some);
        }
        let lines = self.lines.push(chunk);
        Ok(if lines.is_empty() { Read::Some } else { Read::Lines(lines) })
    }

    /// Starts anew after [`Read::Cut`]; nothing of what it knew is true any more.
    pub(super) fn restart(&mut self) {
        self.rewind();
        self.backlog = 0;
        self.head = Vec::new();
    }

    /// Goes back to its beginning.
    pub(super) fn rewind(&mut self) {
        self.offset = 0;
        self.recent = Vec::new();
        self.last = Vec::new();
        self.lines.clear();
    }

    /// Ends its last line as if its `\n` had come.
    pub(super) fn finish(&mut self) -> Bytes {
        let line = self.lines.finish();
        if self.lines.pending() == 0 {
            self.last.clone_from(&self.recent);
        }
        line
    }

    /// Returns whether `log` holds now what this file holds: it is a copy, whole or not yet, and
    /// the log was not cut since. What we have read of the log does not count, for that may have
    /// been cut.
    pub(super) fn is_copy_of(&mut self, log: &Tail) -> io::Result<bool> {
        Ok(self.compare(log)? == Some(true))
    }

    /// The same; `None` if it went on meanwhile: it may be whole by now, and the log be cut.
    pub(super) fn compare(&mut self, log: &Tail) -> io::Result<Option<bool>> {
        let end = self.end()?;
        let copy = end.head_len > 0 && log.holds(&end)?;
        Ok((self.end()? == end).then_some(copy))
    }

    /// Returns whether these bytes are in the file now, whatever was known of it.
    fn holds(&self, checkpoint: &Checkpoint) -> io::Result<bool> {
        let length = usize::try_from(checkpoint.head_len).unwrap_or(usize::MAX).min(PRINT);
        let head = self.before(checkpoint.head_len, length)?;
        seam();
        let size = self.file.metadata()?.len();
        Ok(size >= checkpoint.offset
            && fnv1a(&head) == checkpoint.head
            && self.goes_on_like(checkpoint)?)
    }

    /// Returns the checkpoint of its end as it is now.
    fn end(&mut self) -> io::Result<Checkpoint> {
        self.learn_head()?;
        seam();
        let offset = self.file.metadata()?.len();
        let last = self.before(offset, PRINT)?;
        let last_len = u64::try_from(last.len()).unwrap_or(0);
        Ok(Checkpoint { offset, last: fnv1a(&last), last_len, ..self.checkpoint() })
    }

    /// Returns what a restart needs to go on behind the last line that was delivered.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            dev: self.id.0,
            ino: self.id.1,
            offset: self.place(),
            head: fnv1a(&self.head),
            head_len: u64::try_from(self.head.len()).unwrap_or(0),
            last: fnv1a(&self.last),
            last_len: u64::try_from(self.last.len()).unwrap_or(0),
            copy: self.copy,
            rotated: false,
        }
    }

    /// Behind the last whole line.
    fn place(&self) -> u64 {
        self.offset.saturating_sub(self.lines.pending())
    }

    /// No line of it was delivered or passed over yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.place() == 0
    }

    /// No name leads to the file any more.
    pub(super) fn is_deleted(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| meta.nlink() == 0)
    }

    /// Bytes that were not read yet.
    pub(super) fn lag(&self) -> u64 {
        self.file.metadata().map_or(0, |meta| meta.len().saturating_sub(self.offset))
    }

    /// The file is shorter than what was read of it, begins otherwise, or does not hold our last
    /// line any more. `at_end`: nothing was left to read, so its size is worth a look.
    pub(super) fn was_cut(&mut self, at_end: bool) -> io::Result<bool> {
        seam();
        if at_end && self.file.metadata()?.len() < self.offset {
            return Ok(true);
        }
        let same = self.learn_head()? && self.before(self.place(), self.last.len())? == self.last;
        Ok(!same)
    }

    /// Compares the first bytes with those that are known, and gets to know those that are new.
    pub(super) fn learn_head(&mut self) -> io::Result<bool> {
        let mut now = [0; PRINT];
        seam();
        let read = self.file.read_at(&mut now, 0)?;
        let now = now.get(..read).unwrap_or_default();
        let same = now.starts_with(&self.head);
        if same && now.len() > self.head.len() {
            self.head = now.to_vec();
        }
        Ok(same)
    }

    /// A writer that goes on at its old offset after a truncation leaves a hole: jump over it.
    fn skip_hole(&mut self) {
        let Ok(size) = self.file.metadata().map(|meta| meta.len()) else { return };
        let data = match rustix::fs::seek(&self.file, SeekFrom::Data(self.offset)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => size,
            Err(_) => return,
        };
        if data > self.offset {
            self.lines.skip_nuls(data - self.offset);
            self.offset = data;
            self.recent = Vec::new();
        }
    }
}

/// Returns the last bytes of `before` and `chunk`, which follow each other.
fn print(before: &[u8], chunk: &[u8]) -> Vec<u8> {
    let kept = before.len().min(PRINT.saturating_sub(chunk.len()));
    let mut bytes = before.get(before.len() - kept..).unwrap_or_default().to_vec();
    bytes.extend_from_slice(chunk.get(chunk.len().saturating_sub(PRINT)..).unwrap_or_default());
    bytes
}

/// FNV-1a, 64 bit: <https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>. Stored, so it
/// must never change.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// On a file system where other machines write unseen by this kernel.
pub(super) fn is_remote(file: impl AsFd) -> bool {
    // include/uapi/linux/magic.h: NFS, SMB, CIFS, SMB2, 9P, FUSE, Ceph, AFS, Coda, Lustre, GPFS.
    const REMOTE: [u64; 11] = [
        0x6969,
        0x517b,
        0xff53_4d42,
        0xfe53_4d42,
        0x0102_1997,
        0x6573_5546,
        0x00c3_6400,
        0x5346_414f,
        0x7375_7245,
        0x0bd0_0bd0,
        0x4750_4653,
    ];
    rustix::fs::fstatfs(file)
        .is_ok_and(|stat| u64::try_from(stat.f_type).is_ok_and(|kind| REMOTE.contains(&kind)))
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;

    fn all(tail: &mut Tail) -> (String, u32) {
        let (mut text, mut cuts) = (Vec::new(), 0);
        let mut buffer = vec![0; 64];
        loop {
            match tail.read(&mut buffer, Instant::now()).unwrap() {
                Read::Lines(lines) => text.extend_from_slice(&lines),
                Read::Some => {}
                Read::End => return (String::from_utf8(text).unwrap(), cuts),
                Read::Cut => {
                    cuts += 1;
                    tail.restart();
                }
            }
        }
    }

    fn append(path: &Path, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn grows_is_cut_and_grows_beyond() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "one\ntw");
        let mut tail = Tail::open(&path, 100, Instant::now()).unwrap();
        assert_eq!(all(&mut tail), ("one\n".into(), 0));
        append(&path, "o\n");
        assert_eq!(all(&mut tail), ("two\n".into(), 0));
        fs::write(&path, "new\n").unwrap();
        assert_eq!(all(&mut tail), ("new\n".into(), 1));
        fs::write(&path, "already longer than before\n").unwrap();
        assert_eq!(all(&mut tail), ("already longer than before\n".into(), 1));
    }

    #[test]
    fn a_hole_of_a_terabyte_is_no_work() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "before\n");
        let mut tail = Tail::open(&path, 100, Instant::now()).unwrap();
        assert_eq!(all(&mut tail), ("before\n".into(), 0));
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(0).unwrap();
        file.write_at(b"after\n", 1 << 40).unwrap();
        assert_eq!(all(&mut tail), ("after\n".into(), 1));
        assert_eq!(tail.lines.take_counts(), (0, 1 << 40));
    }

    #[test]
    fn resumes_only_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "one\ntwo\npart");
        let open = || Tail::open(&path, 100, Instant::now()).unwrap();
        let mut tail = open();
        assert_eq!(all(&mut tail).0, "one\ntwo\n");
        let checkpoint = tail.checkpoint();
        assert_eq!(checkpoint.offset, 8);
        append(&path, "ial\nthree\n");
        let mut tail = open();
        assert!(tail.resume(&checkpoint).unwrap());
        assert_eq!(all(&mut tail).0, "partial\nthree\n");
        fs::write(&path, "entirely different text\n").unwrap();
        let mut tail = open();
        assert!(!tail.resume(&checkpoint).unwrap());
        assert_eq!(all(&mut tail).0, "entirely different text\n");
    }

    #[test]
    fn the_end_is_a_line_start() {
        let dir = tempfile::tempdir().unwrap();
        for (before, after, expected) in [
            ("", "a\n", "a\n"),
            ("old\n", "a\n", "a\n"),
            ("old\nbegun", " ended\n", "begun ended\n"),
            ("begun", " ended\n", "begun ended\n"),
        ] {
            let path = dir.path().join("log");
            fs::write(&path, before).unwrap();
            let mut tail = Tail::open(&path, 100, Instant::now()).unwrap();
            tail.seek_end(100).unwrap();
            append(&path, after);
            assert_eq!(all(&mut tail), (expected.into(), 0), "{before:?}");
        }
    }

    #[test]
    fn only_regular_files() {
        assert!(Tail::open(Path::new("/dev/null"), 100, Instant::now()).is_err());
    }
}
