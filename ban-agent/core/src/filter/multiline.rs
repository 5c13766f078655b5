//! The last lines of a log, for patterns that span several (`maxlines`).

use std::{collections::VecDeque, ops::Range};

/// The last lines, each without its time stamp and with its newline.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    lines: VecDeque<String>,
}

impl Buffer {
    /// Adds a line, keeps the last `max`, and returns all of them.
    pub(super) fn push(&mut self, line: &str, max: usize) -> String {
        self.lines.push_back(line.to_owned());
        while self.lines.len() > max {
            self.lines.pop_front();
        }
        self.text()
    }

    /// Returns the kept lines, joined.
    pub(super) fn text(&self) -> String {
        self.lines.iter().map(String::as_str).collect()
    }

    /// Forgets all but `line`.
    pub(super) fn reset(&mut self, line: &str) {
        self.lines.clear();
        self.lines.push_back(line.to_owned());
    }

    /// Forgets the lines that a match used: those it spans, without those it only skipped.
    pub(super) fn consume(&mut self, matched: &Range<usize>, skipped: &[Range<usize>]) {
        let mut start = 0;
        self.lines.retain(|line| {
            let span = start..start + line.len();
            start = span.end;
            let used = span.start < matched.end.max(matched.start + 1) && span.end > matched.start;
            let skip = |skip: &Range<usize>| skip.start <= span.start && span.end <= skip.end;
            !used || skipped.iter().any(skip)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_lines_go_and_skipped_ones_stay() {
        let mut buffer = Buffer::default();
        for line in ["a\n", "b\n", "c\n", "d\n"] {
            buffer.push(line, 3);
        }
        assert_eq!(buffer.text(), "b\nc\nd\n");
        buffer.consume(&(0..6), std::slice::from_ref(&(2..4)));
        assert_eq!(buffer.text(), "c\n");
        buffer.consume(&(0..2), &[]);
        assert_eq!(buffer.text(), "");
    }
}
