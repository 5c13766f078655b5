//! A log that is read once, from its beginning to its end, by the rules of the file source; packed
//! logs are unpacked by the programs that packed them. Blocks: for the CLI alone.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use bytes::Bytes;

use super::file::{Format, Unwrap};

/// Bytes read at once.
const BUFFER: usize = 1 << 16;
/// How packed files begin, and what unpacks them.
const PACKED: [(&[u8], &str); 3] =
    [(b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")];

/// A block is at least this long, but for the last one.
const BLOCK: u64 = 1 << 20;

/// Hands the whole lines of `input` to `handle`, many at a time; of a line that is longer than `limit`
/// no more than shows that.
///
/// # Errors
/// If it cannot be read.
pub fn in_blocks(
    input: &mut dyn BufRead,
    limit: usize,
    mut handle: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let kept = buffer.len();
        let count = input.take(BLOCK).read_to_end(&mut buffer)?;
        let whole = match memchr::memrchr(b'\n', buffer.get(kept..).unwrap_or_default()) {
            Some(newline) => kept + newline + 1,
            None if count == 0 => kept,
            None => {
                // room for its `\r`
                if buffer.len() > limit + 2 {
                    buffer.truncate(limit + 2);
                    input.skip_until(b'\n')?;
                    buffer.push(b'\n');
                }
                continue;
            }
        };
        let lines = buffer.get(..whole).unwrap_or_default();
        if !lines.is_empty() {
            handle(lines);
        }
        buffer.drain(..whole);
        if count == 0 {
            return Ok(());
        }
    }
}

/// Opens a log; a packed one reads as what was packed.
///
/// # Errors
/// If it cannot be read, or what unpacks it is not there.
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let mut file = BufReader::with_capacity(BUFFER, File::open(path)?);
    let begin = file.fill_buf()?;
    let packed = PACKED.iter().find(|(magic, _)| begin.starts_with(magic));
    let Some((_, program)) = packed else { return Ok(Box::new(file)) };
    let mut child = Command::new(program)
        .arg("-dc")
        .stdin(File::open(path)?)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::other(format!("it is packed, and {program}: {error}")))?;
    let out = child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
    Ok(Box::new(BufReader::with_capacity(BUFFER, Unpacked { program, child, out })))
}

/// What a program unpacks.
struct Unpacked {
    program: &'static str,
    child: Child,
    out: ChildStdout,
}

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.out.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            let status = self.child.wait()?;
            if !status.success() {
                return Err(io::Error::other(format!("{} ended: {status}", self.program)));
            }
        }
        Ok(count)
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        // it may have more to say than anybody hears; an end is an end
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What wrapped the lines of a log.
#[derive(Debug)]
pub struct Engine(Unwrap);

impl Engine {
    /// Returns the container engine that keeps a log of this name, if one does.
    #[must_use]
    pub fn of(path: &Path) -> Option<Engine> {
        let unwrap = Unwrap::new(path);
        (unwrap.format != Format::Plain).then_some(Engine(unwrap))
    }

    /// `RFC3339 SPACE text` of each line that is one, and those lines as they stand in the file.
    pub fn unwrap(&mut self, lines: &[u8]) -> (Bytes, Bytes) {
        self.0.unwrap(&Bytes::copy_from_slice(lines))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_logs_read_as_what_they_hold() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("log");
        let text = "a line\n".repeat(100_000);
        std::fs::write(&plain, &text).unwrap();
        for (program, end) in [("", ""), ("gzip", ".gz"), ("xz", ".xz"), ("zstd", ".zst")] {
            if !program.is_empty() {
                let packed = Command::new(program).args(["-q", "-k"]).arg(&plain).status();
                if !packed.is_ok_and(|status| status.success()) {
                    println!("SKIPPED: there is no {program}");
                    continue;
                }
            }
            let path = folder.path().join(format!("log{end}"));
            let mut read = String::new();
            open(&path).unwrap().read_to_string(&mut read).unwrap();
            assert!(read == text, "{program}");
            if !program.is_empty() {
                // a part of one is an error, and not the end of the log
                let bytes = std::fs::read(&path).unwrap();
                std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
                assert!(open(&path).unwrap().read_to_string(&mut read).is_err(), "{program}");
            }
        }
    }
}
