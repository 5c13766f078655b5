//! The lines of the last failures, of all suspects of a jail in one bounded log: a new line costs no
//! allocation, and what an attacker writes takes no more memory than that. The oldest lines go first,
//! whosever they are; no count depends on them.

use std::collections::VecDeque;

/// Bytes kept of a line: enough to recognise it, whatever an attacker sends.
const LINE: usize = 512;
/// Bytes that are kept and let go together.
const CHUNK: usize = 1 << 16;
/// Before each line: the mark of the line before it, and its length.
const HEAD: usize = 8 + 2;

/// The newest line of a suspect; the lines before it follow from it. 0: none.
pub(super) type Mark = u64;

/// All lines that are kept.
#[derive(Debug, Default)]
pub(super) struct Lines {
    chunks: VecDeque<Chunk>,
    /// Chunks that were let go.
    gone: u64,
}

#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    /// When its newest line was added, in milliseconds of wall time.
    newest: i64,
}

impl Lines {
    /// Keeps a line, cut to [`LINE`] bytes, after those of `former`, within about `most` bytes.
    pub(super) fn add(&mut self, former: Mark, line: &[u8], now: i64, most: usize) -> Mark {
        let line = line.get(..LINE).unwrap_or(line);
        let fits = |chunk: &Chunk| chunk.bytes.len() + HEAD + line.len() <= CHUNK;
        if !self.chunks.back().is_some_and(fits) {
            while self.chunks.len() >= (most / CHUNK).max(1) {
                self.let_go();
            }
            self.chunks.push_back(Chunk { bytes: Vec::new(), newest: now });
        }
        let number = self.gone + self.chunks.len() as u64 - 1;
        let Some(chunk) = self.chunks.back_mut() else { return 0 };
        let mark = number * CHUNK as u64 + chunk.bytes.len() as u64 + 1;
        let length = u16::try_from(line.len()).unwrap_or(u16::MAX);
        if chunk.bytes.capacity() - chunk.bytes.len() < HEAD + line.len() {
            let more = (2 * chunk.bytes.len()).clamp(2 * LINE, CHUNK) - chunk.bytes.len();
            chunk.bytes.reserve_exact(more);
        }
        chunk.bytes.extend_from_slice(&former.to_le_bytes());
        chunk.bytes.extend_from_slice(&length.to_le_bytes());
        chunk.bytes.extend_from_slice(line);
        chunk.newest = now;
        mark
    }

    /// Returns the last lines up to `mark`, at most `limit` of those that are still there, oldest
    /// first.
    pub(super) fn last(&self, mut mark: Mark, limit: usize) -> Vec<Box<[u8]>> {
        let mut lines = Vec::new();
        while lines.len() < limit
            && let Some((former, line)) = self.line(mark)
        {
            lines.push(line.into());
            mark = former;
        }
        lines.reverse();
        lines
    }

    fn line(&self, mark: Mark) -> Option<(Mark, &[u8])> {
        let at = mark.checked_sub(1)?;
        let number = (at / CHUNK as u64).checked_sub(self.gone)?;
        let chunk = self.chunks.get(usize::try_from(number).ok()?)?;
        let rest = chunk.bytes.get(usize::try_from(at % CHUNK as u64).ok()?..)?;
        let (former, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let line = rest.get(..u16::from_le_bytes(*length).into())?;
        Some((u64::from_le_bytes(*former), line))
    }

    /// Lets go what was added by this time.
    pub(super) fn forget(&mut self, time: i64) {
        while self.chunks.front().is_some_and(|chunk| chunk.newest <= time) {
            self.let_go();
        }
    }

    fn let_go(&mut self) {
        self.gone += u64::from(self.chunks.pop_front().is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: &[Box<[u8]>]) -> Vec<&str> {
        lines.iter().map(|line| std::str::from_utf8(line).unwrap()).collect()
    }

    #[test]
    fn lines_of_each_suspect_are_told_apart() {
        let mut lines = Lines::default();
        let mut marks = [0; 3];
        for number in 0..30 {
            let mark = &mut marks[number % 3];
            *mark = lines.add(*mark, number.to_string().as_bytes(), 0, CHUNK);
        }
        assert_eq!(text(&lines.last(marks[1], 4)), ["19", "22", "25", "28"]);
        assert_eq!(lines.last(marks[0], 100).len(), 10);
        assert!(lines.last(0, 4).is_empty());
    }

    #[test]
    fn the_oldest_go_first_and_memory_is_bounded() {
        let (mut lines, mut mark) = (Lines::default(), 0);
        let first = lines.add(0, b"first", 0, 4 * CHUNK);
        for number in 0..100_000 {
            mark = lines.add(mark, &[b'x'; 600], number, 4 * CHUNK);
        }
        let kept: usize = lines.chunks.iter().map(|chunk| chunk.bytes.capacity()).sum();
        assert!(kept <= 4 * CHUNK, "{kept}");
        assert!(lines.last(first, 1).is_empty());
        let last = lines.last(mark, usize::MAX);
        assert!(last.len() > 3 * CHUNK / (LINE + HEAD) && last.iter().all(|l| l.len() == LINE));
        lines.forget(99_999);
        assert!(lines.chunks.is_empty() && lines.last(mark, 1).is_empty());
        mark = lines.add(mark, b"new", 100_000, CHUNK);
        assert_eq!(text(&lines.last(mark, 5)), ["new"]);
    }
}
