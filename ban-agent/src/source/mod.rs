//! Where lines come from. A source delivers whole lines, each once, and knows its position; it
//! does not look into them.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What a jail reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Spec {
    /// A file or a glob of files; each is followed through rotation.
    File {
        /// Path or glob.
        path: PathBuf,
        /// Where an unknown file starts.
        start: Start,
    },
    /// The systemd journal, limited by matches like `_SYSTEMD_UNIT=ssh.service`; an element `+`
    /// is an "or", as in journalctl.
    Journal {
        /// journalctl match words.
        matches: Vec<String>,
    },
    /// A socket that takes syslog datagrams (RFC 3164 or 5424).
    Syslog {
        /// `udp://127.0.0.1:5514` or `unix:///run/ban-agent/log`.
        listen: String,
    },
    /// Standard input.
    Stdin,
}

/// Where a file that has no recorded position starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Start {
    /// At the beginning: lines older than findtime do not count anyway.
    Beginning,
    /// At its end, as a follower does.
    #[default]
    End,
}

/// How far a source was read; stored, so that a restart goes on where it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Position {
    /// A byte offset in one file, recognized by device, inode and its first bytes.
    File {
        /// `st_dev`.
        dev: u64,
        /// `st_ino`.
        ino: u64,
        /// Offset of the first byte that was not delivered.
        offset: u64,
        /// Hash of the first bytes, against a reused inode; how many bytes is `head_len`.
        head: u64,
        /// Bytes that `head` covers.
        head_len: u64,
    },
    /// A journal cursor.
    Journal {
        /// `__CURSOR`.
        cursor: String,
    },
}

/// Some whole lines from one source.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Stable name of the source: the file's path, `journal`, `syslog`, `stdin`. Key of
    /// its stored position.
    pub origin: Arc<str>,
    /// Whole lines, each ended by `\n`, without any other promise: NULs and invalid UTF-8 occur.
    pub lines: Bytes,
    /// Each line begins with `RFC3339 SPACE`: the time was given by the source, not by the text.
    pub stamped: bool,
    /// Where the source stands once these lines were handled; `None` where it cannot resume.
    pub position: Option<Position>,
}
