//! Unwraps the logs that container engines keep: Docker's `json-file` driver and the CRI format of
//! Kubernetes nodes. Both stamp what a container printed, and cut long lines into pieces. Pure.

use std::{borrow::Cow, path::Path};

use bytes::Bytes;
use serde::Deserialize;

/// How a file wraps its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::source) enum Format {
    /// Not at all.
    Plain,
    /// `{"log":"text\n","stream":"stdout","time":"RFC3339"}`.
    Docker,
    /// `RFC3339 stdout F text`; `P` for a piece that goes on in the next line.
    Cri,
}

impl Format {
    /// Told by the names that the engines give.
    pub(super) fn of(path: &Path) -> Format {
        let in_dir = |dir: &str| path.starts_with(dir);
        let name = path.to_string_lossy();
        if name.ends_with("-json.log") || name.contains("-json.log.") {
            Format::Docker
        } else if in_dir("/var/log/containers") || in_dir("/var/log/pods") {
            Format::Cri
        } else {
            Format::Plain
        }
    }
}

/// Unwraps one file.
#[derive(Debug)]
pub(in crate::source) struct Unwrap {
    pub(in crate::source) format: Format,
    /// The last piece of a stream (stdout, stderr) did not end its line.
    open: [bool; 2],
    pub(super) overlong: u64,
    pub(super) malformed: u64,
}

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

impl Unwrap {
    pub(in crate::source) fn new(path: &Path) -> Unwrap {
        Unwrap { format: Format::of(path), open: [false; 2], overlong: 0, malformed: 0 }
    }

    /// `RFC3339 text` for each wrapped line, and those lines as they were. A line that was cut into
    /// pieces is dropped and counted: it is longer than any filter's, and no piece may pass for a line.
    pub(in crate::source) fn unwrap(&mut self, lines: &Bytes) -> (Bytes, Bytes) {
        let mut out = Vec::with_capacity(lines.len());
        let mut raw = Vec::with_capacity(lines.len());
        for wrapped in lines.split_inclusive(|byte| *byte == b'\n') {
            let line = wrapped.strip_suffix(b"\n").unwrap_or(wrapped);
            let before = out.len();
            let known = match self.format {
                Format::Docker => self.docker(line, &mut out),
                Format::Cri => self.cri(line, &mut out),
                Format::Plain => None,
            };
            self.malformed += u64::from(known.is_none());
            if out.len() > before {
                raw.extend_from_slice(line);
                raw.push(b'\n');
            }
        }
        (out.into(), raw.into())
    }

    fn docker(&mut self, line: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let record: Record = serde_json::from_slice(line).ok()?;
        let whole = record.log.strip_suffix('\n');
        let text = whole.unwrap_or(&record.log);
        let stderr = record.stream == "stderr";
        self.piece(stderr, whole.is_some(), record.time.as_bytes(), text.as_bytes(), out);
        Some(())
    }

    fn cri(&mut self, line: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
        if stream != b"stdout" && stream != b"stderr" {
            return None;
        }
        let text = parts.next().unwrap_or_default();
        self.piece(stream == b"stderr", !tag.starts_with(b"P"), time, text, out);
        Some(())
    }

    fn piece(&mut self, stderr: bool, ends: bool, time: &[u8], text: &[u8], out: &mut Vec<u8>) {
        let [stdout_open, stderr_open] = &mut self.open;
        let open = if stderr { stderr_open } else { stdout_open };
        let goes_on = std::mem::replace(open, !ends);
        if ends && !goes_on {
            out.extend_from_slice(time);
            out.push(b' ');
            // One record is one line: what looks like a second one is an attacker's.
            out.extend(text.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }));
            out.push(b'\n');
        } else if ends {
            self.overlong += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unwrap(format: Format, text: &str) -> (String, u64, u64) {
        let mut unwrap = Unwrap { format, ..Unwrap::new(Path::new("")) };
        let mut out = Vec::new();
        for line in text.split_inclusive('\n') {
            let (lines, raw) = unwrap.unwrap(&Bytes::copy_from_slice(line.as_bytes()));
            assert_eq!(raw, if lines.is_empty() { "" } else { line });
            out.extend_from_slice(&lines);
        }
        (String::from_utf8(out).unwrap(), unwrap.overlong, unwrap.malformed)
    }

    #[test]
    fn docker() {
        let text = concat!(
            r#"{"log":"one \"x\"\n","stream":"stdout","time":"2026-11-20T12:00:00.1Z"}"#,
            "\n",
            r#"{"log":"a","stream":"stdout","time":"2026-11-20T12:00:01Z"}"#,
            "\n",
            r#"{"log":"two\n","stream":"stderr","time":"2026-11-20T12:00:01Z"}"#,
            "\n",
            r#"{"log":"b\n","stream":"stdout","time":"2026-11-20T12:00:01Z"}"#,
            "\n",
            r#"{"log":"x\ny\n","attrs":{"a":"b"},"time":"2026-11-20T12:00:02Z"}"#,
            "\n",
            "{\"log\":\n",
            "\n",
        );
        let lines = "2026-11-20T12:00:00.1Z one \"x\"\n2026-11-20T12:00:01Z two\n\
                     2026-11-20T12:00:02Z x y\n";
        assert_eq!(unwrap(Format::Docker, text), (lines.to_owned(), 1, 2));
    }

    #[test]
    fn cri() {
        let text = "2026-11-20T12:00:00.1Z stdout F one two\n2026-11-20T12:00:01Z stdout P a\n\
                    2026-11-20T12:00:01Z stdout F b\n2026-11-20T12:00:02Z stderr F \nodd\n";
        let lines = "2026-11-20T12:00:00.1Z one two\n2026-11-20T12:00:02Z \n";
        assert_eq!(unwrap(Format::Cri, text), (lines.to_owned(), 1, 1));
    }

    #[test]
    fn formats_by_name() {
        for (path, format) in [
            ("/var/lib/docker/containers/ab/ab-json.log", Format::Docker),
            ("/var/lib/docker/containers/ab/ab-json.log.1.gz", Format::Docker),
            ("/var/log/containers/web-1.log", Format::Cri),
            ("/var/log/pods/x/y/0.log", Format::Cri),
            ("/var/log/nginx/access.log", Format::Plain),
        ] {
            assert_eq!(Format::of(Path::new(path)), format, "{path}");
        }
    }
}
