//! Reads the journal export format (systemd, "Journal Export Formats") into the lines that a
//! filter sees: `RFC3339 host ident[pid]: message`. Pure, incremental, bounded.

use std::collections::HashSet;

use jiff::Timestamp;

/// The fields that a line is made of, and those that tell of a line in several entries; what
/// journalctl is asked for.
pub(super) const FIELDS: &str = "MESSAGE,SYSLOG_IDENTIFIER,SYSLOG_PID,_COMM,_PID,_HOSTNAME,_SOURCE_REALTIME_TIMESTAMP,\
     _STREAM_ID,_LINE_BREAK,CONTAINER_ID,CONTAINER_PARTIAL_MESSAGE";

/// Streams whose line goes on, at most; each is a service or a container of this host.
const MAX_STREAMS: usize = 4096;

/// A reader of one stream.
#[derive(Debug)]
pub(super) struct Export {
    max: usize,
    /// Of an entry that is already delivered: if the stream begins with it, it is left out.
    seen: Option<String>,
    /// What of the stream was not understood yet; at most one field.
    rest: Vec<u8>,
    /// Bytes of a field that is dropped because it is over the limit.
    skip: u64,
    /// Drop everything to the end of this line.
    skip_line: bool,
    entry: Entry,
    /// Streams whose last entry was not the end of a line.
    unended: HashSet<Vec<u8>>,
    /// Entries whose message was over the limit.
    overlong: u64,
    /// Things that are not in the format.
    malformed: u64,
}

/// The entry that is being read.
#[derive(Debug, Default)]
struct Entry {
    cursor: Vec<u8>,
    received: Vec<u8>,
    sent: Vec<u8>,
    host: Vec<u8>,
    identifier: Vec<u8>,
    command: Vec<u8>,
    own_pid: Vec<u8>,
    pid: Vec<u8>,
    message: Option<Vec<u8>>,
    /// Of a service's standard output, or a container.
    stream: Vec<u8>,
    /// `_LINE_BREAK` (systemd.journal-fields(7)): how its line ended, if not by a line feed.
    line_break: Vec<u8>,
    /// `CONTAINER_PARTIAL_MESSAGE`: the container's line goes on in the next entry.
    partial: Vec<u8>,
    overlong: bool,
}

/// What a piece of the stream completed.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Lines of the entries that hold a message.
    pub(super) lines: Vec<u8>,
    /// When journald received the first of those entries.
    pub(super) received: Option<Timestamp>,
    /// The last entry's.
    pub(super) cursor: Option<String>,
}

impl Export {
    pub(super) fn new(max: usize, seen: Option<String>) -> Export {
        Export {
            max,
            seen,
            rest: Vec::new(),
            skip: 0,
            skip_line: false,
            entry: Entry::default(),
            unended: HashSet::new(),
            overlong: 0,
            malformed: 0,
        }
    }

    /// Overlong and malformed entries since the last call.
    pub(super) fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.overlong), std::mem::take(&mut self.malformed))
    }

    /// Takes in the next bytes.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Taken {
        let mut taken = Taken::default();
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(chunk);
        let mut left = all.as_slice();
        while let Some(after) = self.step(left, &mut taken) {
            left = after;
        }
        self.rest = left.to_vec();
        taken
    }

    /// Reads one field, or the end of an entry; `None` if it is not all there yet.
    fn step<'a>(&mut self, left: &'a [u8], taken: &mut Taken) -> Option<&'a [u8]> {
        if self.skip > 0 {
            let count = usize::try_from(self.skip).unwrap_or(usize::MAX).min(left.len());
            self.skip -= u64::try_from(count).unwrap_or(0);
            return left.get(count..).filter(|_| count > 0);
        }
        let Some(end) = memchr::memchr(b'\n', left) else {
            // Names are short, so this is a text over the limit.
            if left.len() > self.max.saturating_add(256) {
                self.entry.refuse(left);
                self.skip_line = true;
            }
            return (self.skip_line && !left.is_empty()).then_some(&[]);
        };
        let (line, after) = left.split_at(end);
        let after = after.get(1..).unwrap_or_default();
        if std::mem::take(&mut self.skip_line) {
            return Some(after);
        }
        if line.is_empty() {
            self.finish(taken);
            return Some(after);
        }
        match memchr::memchr(b'=', line) {
            Some(at) => {
                let (name, value) = line.split_at(at);
                self.field(name, value.get(1..).unwrap_or_default());
                Some(after)
            }
            None => self.binary(line, after),
        }
    }

    /// `NAME \n`, length as 64 bits little-endian, that many bytes, `\n`.
    fn binary<'a>(&mut self, name: &[u8], after: &'a [u8]) -> Option<&'a [u8]> {
        let (length, data) = after.split_first_chunk::<8>()?;
        let length = u64::from_le_bytes(*length);
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        if size > self.max {
            self.entry.refuse(name);
            self.skip = length.saturating_add(1);
            return Some(data);
        }
        let (value, rest) = data.split_at_checked(size)?;
        let (end, rest) = rest.split_first()?;
        if *end != b'\n' {
            self.malformed += 1;
        }
        self.field(name, value);
        Some(rest)
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        if value.len() > self.max {
            return self.entry.refuse(name);
        }
        let entry = &mut self.entry;
        let field = match name {
            b"__CURSOR" => &mut entry.cursor,
            b"__REALTIME_TIMESTAMP" => &mut entry.received,
            b"_SOURCE_REALTIME_TIMESTAMP" => &mut entry.sent,
            b"_HOSTNAME" => &mut entry.host,
            b"SYSLOG_IDENTIFIER" => &mut entry.identifier,
            b"_COMM" => &mut entry.command,
            b"SYSLOG_PID" => &mut entry.own_pid,
            b"_PID" => &mut entry.pid,
            b"_STREAM_ID" | b"CONTAINER_ID" => &mut entry.stream,
            b"_LINE_BREAK" => &mut entry.line_break,
            b"CONTAINER_PARTIAL_MESSAGE" => &mut entry.partial,
            b"MESSAGE" => entry.message.get_or_insert_default(),
            _ => return,
        };
        field.clear();
        field.extend_from_slice(value);
    }

    fn finish(&mut self, taken: &mut Taken) {
        let entry = std::mem::take(&mut self.entry);
        let goes_on = self.goes_on(&entry);
        if let Ok(cursor) = String::from_utf8(entry.cursor.clone())
            && !cursor.is_empty()
        {
            let seen = self.seen.take().is_some_and(|seen| identity(&seen) == identity(&cursor));
            taken.cursor = Some(cursor);
            if seen {
                return;
            }
        }
        if goes_on {
            self.overlong += 1;
            return;
        }
        self.overlong += u64::from(entry.overlong);
        if entry.message.is_some() {
            if entry.write(&mut taken.lines) {
                taken.received = taken.received.or_else(|| micros(&entry.received));
            } else {
                self.malformed += 1;
            }
        }
    }

    /// Returns whether the entry is the rest of a line whose beginning was another: journald and
    /// container engines cut long lines, and a client who fills one writes the beginning of the
    /// next.
    fn goes_on(&mut self, entry: &Entry) -> bool {
        if entry.stream.is_empty() {
            return false;
        }
        let goes_on = self.unended.remove(&entry.stream);
        let cut = [&b"line-max"[..], b"nul", b"pid-change"].contains(&entry.line_break.as_slice());
        if (cut || entry.partial == b"true") && self.unended.len() < MAX_STREAMS {
            self.unended.insert(entry.stream.clone());
        }
        goes_on
    }
}

impl Entry {
    /// The field that begins like this is over the limit.
    fn refuse(&mut self, name: &[u8]) {
        if name.starts_with(b"MESSAGE") {
            self.message = None;
            self.overlong = true;
        }
    }

    /// False, and nothing is written, if the entry has no time.
    fn write(&self, line: &mut Vec<u8>) -> bool {
        let Some(time) = micros(&self.sent).or_else(|| micros(&self.received)) else {
            return false;
        };
        let first = |a: &[u8], b: &[u8]| if a.is_empty() { b.to_vec() } else { a.to_vec() };
        line.extend_from_slice(time.to_string().as_bytes());
        for part in [&b" "[..], &self.host, b" ", &first(&self.identifier, &self.command)] {
            append(line, part);
        }
        let pid = first(&self.own_pid, &self.pid);
        if !pid.is_empty() {
            for part in [&b"["[..], &pid, b"]"] {
                append(line, part);
            }
        }
        append(line, b": ");
        append(line, self.message.as_deref().unwrap_or_default());
        line.push(b'\n');
        true
    }
}

/// Returns what stays the same when journald copies an entry into another file: boot, times and a
/// hash, not the sequence numbers before them (sd_journal_get_cursor(3),
/// `journal_file_copy_entry`).
fn identity(cursor: &str) -> &str {
    cursor.find(";b=").and_then(|at| cursor.get(at..)).unwrap_or(cursor)
}

/// An entry is one line: what looks like a second one is an attacker's.
fn append(line: &mut Vec<u8>, text: &[u8]) {
    line.extend(text.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }));
}

fn micros(text: &[u8]) -> Option<Timestamp> {
    let micros = std::str::from_utf8(text).ok()?.parse().ok()?;
    Timestamp::from_microsecond(micros).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What journalctl 252 printed for four entries that were sent to a journald: text, binary,
    /// without a message, without an identifier.
    const RECORDED: &[u8] = include_bytes!("recorded.export");

    fn read(stream: &[u8], pieces: usize, max: usize) -> (String, Export, Option<String>) {
        let mut export = Export::new(max, None);
        let (mut lines, mut cursor) = (Vec::new(), None);
        for piece in stream.chunks(pieces) {
            let taken = export.push(piece);
            lines.extend_from_slice(&taken.lines);
            cursor = taken.cursor.or(cursor);
        }
        (String::from_utf8_lossy(&lines).into_owned(), export, cursor)
    }

    #[test]
    fn recorded_output_in_any_pieces() {
        let expected = "2026-11-21T02:25:50.796052Z vm sshd[4711]: Failed password for root from \
                        203.0.113.7 port 40000 ssh2\n\
                        2026-11-21T02:25:50.796063Z vm sshd[7735]: first second \u{1}\u{fffd} end\n\
                        2026-11-21T02:25:50.796065Z vm python3[7735]: no identifier\n";
        for pieces in [1, 2, 7, 64, 100_000] {
            let (lines, export, cursor) = read(RECORDED, pieces, 1000);
            assert_eq!(lines, expected, "{pieces}");
            assert_eq!((export.overlong, export.malformed), (0, 0));
            assert!(cursor.unwrap().ends_with("x=56deb7080fbccc14"));
        }
    }

    #[test]
    fn the_time_is_that_of_the_first_entry_that_became_a_line() {
        let entry = |time: u32, field: &str| {
            format!("__CURSOR=s=1;b={time};\n__REALTIME_TIMESTAMP={time}\n{field}=x\n\n")
        };
        let stream = entry(1, "_PID") + &entry(2, "MESSAGE") + &entry(3, "MESSAGE");
        let taken = Export::new(1000, None).push(stream.as_bytes());
        assert_eq!(taken.received, Timestamp::from_microsecond(2).ok());
        assert_eq!(Export::new(1000, None).push(entry(1, "_PID").as_bytes()).received, None);
    }

    #[test]
    fn only_the_entry_that_was_delivered_is_left_out() {
        let entry = |cursor: &str, message: &str| {
            format!("__CURSOR={cursor}\n__REALTIME_TIMESTAMP=0\nMESSAGE={message}\n\n")
        };
        let stream = entry("s=1;i=1;b=7;x=1", "a") + &entry("s=1;i=2;b=7;x=2", "b");
        for (seen, expected) in [
            ("s=1;i=1;b=7;x=1", "b"),
            ("s=9;i=9;b=7;x=1", "b"),
            // vacuumed: the first one behind it is new
            ("s=1;i=0;b=7;x=0", "a b"),
            // only as the first one
            ("s=1;i=2;b=7;x=2", "a b"),
        ] {
            let mut export = Export::new(100, Some(seen.to_owned()));
            let taken = export.push(stream.as_bytes());
            let lines = String::from_utf8(taken.lines).unwrap();
            let messages = lines.lines().map(|line| line.rsplit(' ').next().unwrap());
            assert_eq!(messages.collect::<Vec<_>>().join(" "), expected, "{seen}");
            assert_eq!(taken.cursor.as_deref(), Some("s=1;i=2;b=7;x=2"));
        }
    }

    #[test]
    fn the_rest_of_a_line_is_no_line() {
        let entry = |fields: &str, message: &str| {
            format!("__REALTIME_TIMESTAMP=0\n{fields}MESSAGE={message}\n\n")
        };
        for (stream, other, cut) in [
            ("_STREAM_ID=7\n", "_STREAM_ID=8\n", "_LINE_BREAK=line-max\n"),
            ("_STREAM_ID=7\n", "", "_LINE_BREAK=nul\n"),
            ("CONTAINER_ID=7\n", "CONTAINER_ID=8\n", "CONTAINER_PARTIAL_MESSAGE=true\n"),
        ] {
            let cut = format!("{stream}{cut}");
            let stream = [
                entry(stream, "whole"),
                entry(&cut, "GET /AAAA"),
                entry(other, "another"),
                entry(&cut, "AAAA"),
                entry(stream, "Failed password for root from 203.0.113.7 port 22 ssh2"),
                entry(stream, "next"),
            ];
            let (lines, export, _) = read(stream.concat().as_bytes(), 64, 1000);
            let messages: Vec<_> = lines.lines().map(|line| line.rsplit(": ").next()).collect();
            assert_eq!(
                messages,
                [Some("whole"), Some("GET /AAAA"), Some("another"), Some("next")],
                "{cut}"
            );
            assert_eq!(export.overlong, 2);
        }
        // the end of a stream is an end
        let last = entry("_STREAM_ID=7\n_LINE_BREAK=eof\n", "last");
        let stream = last + &entry("_STREAM_ID=7\n", "first");
        assert!(read(stream.as_bytes(), 64, 1000).0.contains(": first\n"));
    }

    #[test]
    fn bounds_and_junk() {
        let text = |name: &str, size: usize| format!("{name}={}\n", "m".repeat(size));
        let binary = |name: &str, size: usize| {
            let mut field = format!("{name}\n").into_bytes();
            field.extend_from_slice(&u64::try_from(size).unwrap().to_le_bytes());
            field.resize(field.len() + size, b'\n');
            field.push(b'\n');
            field
        };
        let good = "__CURSOR=c\n__REALTIME_TIMESTAMP=0\nMESSAGE=ok\n\n";
        for (bad, overlong, malformed) in [
            (text("MESSAGE", 1000).into_bytes(), 1, 0),
            (text("MESSAGE", 51).into_bytes(), 1, 0),
            (binary("MESSAGE", 1000), 1, 0),
            (text("OTHER", 1000).into_bytes(), 0, 0),
            (b"MESSAGE=without a time\n".to_vec(), 0, 1),
        ] {
            let stream = [bad.as_slice(), b"\n", good.as_bytes()].concat();
            for pieces in [1, 10, 10_000] {
                let (lines, export, cursor) = read(&stream, pieces, 50);
                assert_eq!(lines, "1970-01-01T00:00:00Z  : ok\n", "{pieces} {stream:?}");
                assert_eq!((export.overlong, export.malformed), (overlong, malformed));
                assert_eq!(cursor.as_deref(), Some("c"));
            }
        }
    }

    proptest! {
        #[test]
        fn any_stream_stays_bounded(
            stream in proptest::collection::vec(
                prop_oneof![any::<u8>(), Just(b'\n'), Just(b'='), Just(0)], 0..2000),
            pieces in 1usize..100,
        ) {
            let mut export = Export::new(20, None);
            for piece in stream.chunks(pieces) {
                export.push(piece);
                prop_assert!(export.rest.len() < 20 + 256 + 100 + 10);
            }
        }
    }
}
