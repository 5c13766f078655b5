//! Cuts a stream of bytes into whole lines within bounds. Pure: knows nothing of files.

use bytes::Bytes;

/// Splits one stream; keeps its unfinished last line.
#[derive(Debug)]
pub(super) struct Lines {
    max: usize,
    partial: Vec<u8>,
    /// The current line is over the limit: drop everything up to its end.
    skipping: bool,
    /// Bytes that were taken in since the last end of a line.
    pending: u64,
    overlong: u64,
    nuls: u64,
}

impl Lines {
    pub(super) fn new(max: usize) -> Lines {
        Lines { max, partial: Vec::new(), skipping: false, pending: 0, overlong: 0, nuls: 0 }
    }

    /// Takes in the next bytes; returns the lines that they complete, each with its `\n`.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Bytes {
        let Some(last) = memchr::memrchr(b'\n', chunk) else {
            self.keep(chunk);
            return Bytes::new();
        };
        let (whole, rest) = chunk.split_at(last + 1);
        let plain = whole.len() <= self.max && memchr::memchr(0, whole).is_none();
        let lines = if plain && self.pending == 0 && !self.skipping {
            Bytes::copy_from_slice(whole)
        } else {
            self.assemble(whole, plain)
        };
        self.pending = 0;
        self.keep(rest);
        lines
    }

    /// Ends the unfinished line as if its `\n` had come. Should the rest come after all, it is
    /// dropped: the end of a line must never pass for a line.
    pub(super) fn finish(&mut self) -> Bytes {
        if self.partial.is_empty() {
            return Bytes::new();
        }
        let line = self.push(b"\n");
        self.skip_rest();
        line
    }

    /// The stream goes on inside a line: drop what is left of it.
    pub(super) fn skip_rest(&mut self) {
        self.skipping = true;
    }

    /// Forgets the unfinished line.
    pub(super) fn clear(&mut self) {
        self.partial = Vec::new();
        self.skipping = false;
        self.pending = 0;
    }

    /// Bytes since the last end of a line: how far to step back to read the line again.
    pub(super) fn pending(&self) -> u64 {
        self.pending
    }

    /// There is the beginning of a line that [`Lines::finish`] would deliver.
    pub(super) fn unfinished(&self) -> bool {
        !self.partial.is_empty()
    }

    /// A run of NULs would be dropped here, so that it need not be read.
    pub(super) fn drops_nuls(&self) -> bool {
        self.partial.is_empty()
    }

    /// Takes in `count` NULs that were not read; only where [`Lines::drops_nuls`].
    pub(super) fn skip_nuls(&mut self, count: u64) {
        self.pending += count;
        if !self.skipping {
            self.nuls += count;
        }
    }

    /// Overlong lines and dropped NULs since the last call.
    pub(super) fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.overlong), std::mem::take(&mut self.nuls))
    }

    /// `plain`: only the first line can need care, as it may go on from `partial`.
    fn assemble(&mut self, whole: &[u8], plain: bool) -> Bytes {
        let mut lines = Vec::with_capacity(self.partial.len() + whole.len());
        let mut rest = whole;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end + 1);
            self.keep(line.strip_suffix(b"\n").unwrap_or(line));
            if self.skipping {
                self.skipping = false;
            } else {
                lines.append(&mut self.partial);
                lines.push(b'\n');
            }
            rest = after;
            if plain {
                lines.extend_from_slice(rest);
                break;
            }
        }
        // A long partial line must not stay allocated for a file that went quiet.
        self.partial = Vec::new();
        lines.into()
    }

    /// Adds bytes without an end of line to the current line.
    fn keep(&mut self, part: &[u8]) {
        self.pending += u64::try_from(part.len()).unwrap_or(u64::MAX);
        if self.skipping {
            return;
        }
        let mut part = part;
        if self.partial.is_empty() {
            // Only in front: a NUL inside a line may be an attacker's, and must end nothing.
            let text = part.iter().position(|byte| *byte != 0).unwrap_or(part.len());
            self.nuls += u64::try_from(text).unwrap_or(u64::MAX);
            part = part.get(text..).unwrap_or_default();
        }
        if self.partial.len() + part.len() > self.max {
            self.partial = Vec::new();
            self.skipping = true;
            self.overlong += 1;
        } else {
            self.partial.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(max: usize, chunks: &[&[u8]]) -> (String, u64, u64) {
        let mut lines = Lines::new(max);
        let mut out = Vec::new();
        for chunk in chunks {
            out.extend_from_slice(&lines.push(chunk));
        }
        out.extend_from_slice(&lines.finish());
        let (overlong, nuls) = lines.take_counts();
        (String::from_utf8_lossy(&out).into_owned(), overlong, nuls)
    }

    #[test]
    fn table() {
        let cases: &[(&[&[u8]], &str, u64, u64)] = &[
            (&[b"a\nb\n"], "a\nb\n", 0, 0),
            (&[b"a", b"b", b"\n", b"c"], "ab\nc\n", 0, 0),
            (&[b"\n\n"], "\n\n", 0, 0),
            (&[b"12345678\n"], "12345678\n", 0, 0),
            (&[b"123456789\nok\n"], "ok\n", 1, 0),
            (&[b"12345", b"6789", b"more", b"\nok\n"], "ok\n", 1, 0),
            (&[b"123456789"], "", 1, 0),
            (&[b"\0\0\0line\n"], "line\n", 0, 3),
            (&[b"\0\0", b"\0li\0ne\n\0\n"], "li\0ne\n\n", 0, 4),
            (&[b"\0\0\0\0\0\0\0\0\0\0\0\0x\n"], "x\n", 0, 12),
            (&[b"a\r\n\xff\n"], "a\r\n\u{fffd}\n", 0, 0),
        ];
        for (chunks, text, overlong, nuls) in cases {
            assert_eq!(split(8, chunks), ((*text).to_owned(), *overlong, *nuls), "{chunks:?}");
        }
    }

    #[test]
    fn the_rest_of_a_finished_line_is_dropped() {
        let mut lines = Lines::new(100);
        assert_eq!(lines.push(b"begun"), "");
        assert_eq!(lines.finish(), "begun\n");
        assert_eq!(lines.push(b" and"), "");
        assert_eq!(lines.push(b" ended\nnext\n"), "next\n");
        assert_eq!(lines.finish(), "");
        assert_eq!(lines.take_counts(), (0, 0));
    }

    #[test]
    fn pending_is_the_way_back_to_the_line() {
        let mut lines = Lines::new(4);
        let _ = lines.push(b"ab\n\0\0x");
        assert_eq!(lines.pending(), 3);
        let _ = lines.push(b"toolong");
        assert_eq!(lines.pending(), 10);
        let _ = lines.push(b"\n");
        assert_eq!(lines.pending(), 0);
    }

    /// Returns what the module promises, said without any cleverness.
    fn expected(max: usize, stream: &[u8]) -> (Vec<u8>, u64) {
        let mut out = Vec::new();
        let mut overlong = 0;
        let mut lines: Vec<&[u8]> = stream.split(|byte| *byte == b'\n').collect();
        let last = lines.pop().unwrap_or_default();
        let whole = lines.len();
        lines.push(last);
        for (index, line) in lines.into_iter().enumerate() {
            let nuls = line.iter().take_while(|byte| **byte == 0).count();
            let line = &line[nuls..];
            if line.len() > max {
                overlong += 1;
            } else if index < whole || !line.is_empty() {
                out.extend_from_slice(line);
                out.push(b'\n');
            }
        }
        (out, overlong)
    }

    proptest! {
        #[test]
        fn any_stream_in_any_pieces(
            stream in proptest::collection::vec(
                prop_oneof![3 => Just(b'\n'), 3 => Just(0u8), 6 => any::<u8>()], 0..300),
            cuts in proptest::collection::vec(1usize..40, 1..40),
            max in 1usize..30,
        ) {
            let mut lines = Lines::new(max);
            let (mut out, mut rest, mut cuts) = (Vec::new(), &stream[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                out.extend_from_slice(&lines.push(chunk));
                prop_assert!(lines.partial.len() <= max);
                rest = after;
                let done = stream.len() - rest.len();
                let line_start = stream[..done].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
                prop_assert_eq!(lines.pending(), u64::try_from(done - line_start).unwrap());
            }
            out.extend_from_slice(&lines.finish());
            let (text, overlong) = expected(max, &stream);
            prop_assert_eq!(out, text);
            prop_assert_eq!(lines.take_counts().0, overlong);
        }
    }
}
