//! Where lines come from. A source delivers whole lines, each once, and knows its position; it
//! does not look into them.
//!
//! [`run`] is the one entry point. Several jails may read one source: one [`run`] per distinct
//! [`Spec`], and the daemon hands each [`Batch`] to all of them.

mod apart;
mod auto;
mod file;
mod journal;
mod lines;
mod stats;
mod stdin;
mod syslog;
mod whole;

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use self::{
    auto::{Found, find_now},
    journal::last_day,
    stats::{Counters, Stats},
    whole::{Engine, in_blocks, open},
};

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
        /// journalctl match words, after the options that choose a journal (`--directory=…`).
        matches: Vec<String>,
    },
    /// A socket that takes syslog datagrams (RFC 3164 or 5424).
    Syslog {
        /// `udp://127.0.0.1:5514` or `unix:///run/ban-agent/log`.
        listen: String,
    },
    /// Wherever a daemon logs on this host: the first of its usual files that is written, else the
    /// journal.
    Auto {
        /// The files, in the order in which they are looked for.
        files: Vec<PathBuf>,
        /// journalctl match words; empty: not in the journal.
        matches: Vec<String>,
    },
    /// Standard input.
    Stdin,
    /// This agent's own bans: the daemon tells of them, and nothing is read.
    Bans,
}

/// The one pattern that a jail of [`Spec::Bans`] may have. It matches what `show` prints of such a
/// ban, and is not asked: the bans themselves are counted.
pub const BAN_LINE: &str = r"^ ?\[<F-JAIL>\S+</F-JAIL>\] Ban <SUBNET>$";

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
    /// The files behind one path, oldest first: those rotated away that may still grow, and last
    /// the one that bears the name.
    File {
        /// One checkpoint each.
        files: Vec<Checkpoint>,
    },
    /// A journal cursor.
    Journal {
        /// `__CURSOR`.
        cursor: String,
    },
}

/// How far one file was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// `st_dev`; a hint only, as a reboot may renumber devices.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
    /// Offset of the first byte that was not delivered.
    pub offset: u64,
    /// FNV-1a of the first `head_len` bytes, against a reused inode and a truncated file.
    pub head: u64,
    /// Bytes that `head` covers.
    pub head_len: u64,
    /// FNV-1a of the last `last_len` bytes before `offset`: many files begin alike, with a banner
    /// or with NUL bytes.
    #[serde(default)]
    pub last: u64,
    /// Bytes that `last` covers.
    #[serde(default)]
    pub last_len: u64,
    /// What copytruncate left of a file: no daemon writes to it.
    #[serde(default)]
    pub copy: bool,
    /// It did not bear the path's name any more.
    #[serde(default)]
    pub rotated: bool,
}

/// Some whole lines from one source.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Stable name of the source: the file's path, `journal` and its matches, the syslog
    /// socket's address, `stdin`. Key of its stored position.
    pub origin: Arc<str>,
    /// Whole lines, each ended by `\n`, without any other promise: NULs and invalid UTF-8 occur.
    pub lines: Bytes,
    /// Each line begins with `RFC3339 SPACE`: the time was given by the source, not by the text.
    pub stamped: bool,
    /// The same lines, one for one, as a container engine wrapped them, where one did.
    pub raw: Option<Bytes>,
    /// They were in the log before the agent followed it: a line without a date may be of any time.
    pub backlog: bool,
    /// They were written after the source had come to the log's end: what they tell is of now,
    /// whatever a clock without a zone says. Means nothing of `stamped` lines.
    pub live: bool,
    /// Where the source stands once these lines were handled; `None` where it cannot resume.
    pub position: Option<Position>,
    /// The log is gone: once what came of it was handled, its position is of no use.
    pub gone: bool,
    /// It is the beginning of a line whose end never came: what the client wrote may stand last in it,
    /// where the daemon's own words should.
    pub torn: bool,
    /// When they were read; of the journal, when journald received the first of them, if that was
    /// lately.
    pub read: Instant,
}

/// What a source may cost, and how patient it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest line in bytes, without its `\n`. A longer one is skipped as a whole and counted:
    /// a cut one would let its writer choose where a pattern sees its end.
    pub line: usize,
    /// Bytes read at once. A batch is at most this and one line's rest, so that a source holds
    /// `batch` bytes, `line` bytes per file, and what waits in the channel.
    pub batch: usize,
    /// How long a file that was rotated away has to be quiet before its unfinished last line
    /// is delivered, and before it is let go if it was deleted.
    pub linger: Duration,
    /// How often a file is looked at where the kernel cannot tell of changes (network file
    /// systems, no inotify left). Nothing polls elsewhere.
    pub poll: Duration,
    /// How long a log that a glob found may be without a name before it is given up.
    pub forget: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            line: 1 << 20,
            batch: 256 << 10,
            linger: Duration::from_secs(5),
            poll: Duration::from_millis(250),
            forget: Duration::from_secs(3600),
        }
    }
}

/// Why a source cannot work at all. What may pass (a file that is missing, a child that died)
/// is no error: the source waits, and its [`Counters`] say so.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a path that can be followed.
    #[error("cannot follow '{path}': {reason}")]
    Path {
        /// As configured.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A socket that cannot be had.
    #[error("cannot listen on '{listen}'")]
    Listen {
        /// As configured.
        listen: String,
        /// Why.
        source: io::Error,
    },
    /// Not a match of the journal.
    #[error("'{word}' is not a journal match such as _SYSTEMD_UNIT=ssh.service")]
    Match {
        /// As configured.
        word: String,
    },
    /// A fault of ours.
    #[error("its task has failed; the log of the agent says where")]
    Died,
    /// The machine refuses what every source needs.
    #[error("cannot {operation}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Held by a source until it has looked at what is there: from then on it tells what comes from
/// what was. Who made it knows that all have once its receiver gives `None`.
pub type Looked = mpsc::Sender<Infallible>;

/// Where a source goes on, by origin: what an earlier run left, and then what was sent since.
/// Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Resume(Arc<Mutex<HashMap<Arc<str>, Position>>>);

impl Resume {
    /// What an earlier run left.
    #[must_use]
    pub fn new(positions: HashMap<Arc<str>, Position>) -> Resume {
        Resume(Arc::new(Mutex::new(positions)))
    }

    fn get(&self, origin: &str) -> Option<Position> {
        self.lock().get(origin).cloned()
    }

    fn origins(&self) -> Vec<Arc<str>> {
        self.lock().keys().cloned().collect()
    }

    /// Should the source be started again, it goes on behind this batch.
    fn sent(&self, batch: &Batch) {
        if batch.gone {
            self.lock().remove(&batch.origin);
        } else if let Some(position) = &batch.position {
            self.lock().insert(Arc::clone(&batch.origin), position.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Position>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keys of the positions that a source goes on from.
struct Keys {
    group: Option<String>,
    origin: String,
    former: Option<Former>,
}

impl Keys {
    /// Returns the origin of a position of its own.
    fn own<'k>(&self, key: &'k str) -> Option<&'k str> {
        key.strip_prefix(self.group.as_deref()?)
    }

    /// Returns whether it takes a position that others may take as well.
    fn shares(&self, key: &str) -> bool {
        *key == *self.origin || self.former.as_ref().is_some_and(|former| former.matches(key))
    }
}

/// Returns those of the stored positions from which none of `sources` goes on.
pub fn unclaimed<'s>(
    sources: impl Iterator<Item = &'s Spec>,
    stored: &HashMap<Arc<str>, Position>,
) -> Vec<Arc<str>> {
    let keys: Vec<Keys> = sources.map(Spec::keys).collect();
    let claimed = |key: &str| keys.iter().any(|keys| keys.own(key).is_some() || keys.shares(key));
    stored.keys().filter(|key| !claimed(key)).map(Arc::clone).collect()
}

/// Keys of positions that were not stored by source.
enum Former {
    Glob(glob::Pattern),
    Names(Vec<String>),
}

impl Former {
    fn matches(&self, key: &str) -> bool {
        match self {
            Former::Glob(pattern) => {
                let require_literal_separator = true;
                let options =
                    glob::MatchOptions { require_literal_separator, ..glob::MatchOptions::new() };
                pattern.matches_with(key, options)
            }
            Former::Names(names) => names.iter().any(|name| name == key),
        }
    }
}

/// Reads `spec` until `out` is closed; goes on where `resume` says. Dropping the future ends the
/// source at once and loses nothing: what `out` did not take is read again from the last position.
///
/// # Errors
/// If the source can never work as specified.
pub async fn run(
    spec: Spec,
    resume: Resume,
    limits: Limits,
    stats: Stats,
    out: mpsc::Sender<Batch>,
    looked: Looked,
) -> Result<(), Error> {
    let name: Arc<str> = spec.origin().into();
    match spec {
        Spec::File { path, start } => {
            let files = file::run(path, start, resume, limits, stats.clone(), out, looked);
            apart::run(name, stats, files).await
        }
        Spec::Syslog { listen } => syslog::run(listen, limits, stats, out, looked).await,
        Spec::Journal { matches } => {
            drop(looked);
            journal::run(matches, None, resume, limits, stats, out).await
        }
        Spec::Auto { files, matches } => {
            let auto = auto::run(files, matches, resume, limits, stats.clone(), out, looked);
            apart::run(name, stats, auto).await
        }
        Spec::Stdin => {
            drop(looked);
            stdin::run(limits, stats, out).await
        }
        Spec::Bans => Ok(()),
    }
}

impl Spec {
    /// Returns the unix socket that it makes.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        let Spec::Syslog { listen } = self else { return None };
        syslog::path(listen)
    }

    /// Returns what the source is called in the counters, as long as it has found nothing.
    #[must_use]
    pub fn origin(&self) -> String {
        match self {
            // without doubled slashes
            Spec::File { path, .. } => path.components().collect::<PathBuf>().display().to_string(),
            other => other.to_string().trim_end().to_owned(),
        }
    }

    /// Under which the position of an origin is stored: several sources may read one file, and
    /// each has come as far as it has.
    #[must_use]
    pub fn key(&self, origin: &str) -> Arc<str> {
        match self.group(origin) {
            Some(group) => format!("{group}{origin}").into(),
            None => origin.into(),
        }
    }

    /// Returns what of the stored positions this source goes on from, by origin.
    #[must_use]
    pub fn resume(&self, stored: &HashMap<Arc<str>, Position>) -> Resume {
        let keys = self.keys();
        let (mut found, mut older) = (HashMap::new(), HashMap::new());
        for (key, position) in stored {
            if let Some(own) = keys.own(key) {
                found.insert(Arc::from(own), position.clone());
            } else if keys.shares(key) {
                older.insert(Arc::clone(key), position.clone());
            }
        }
        for (origin, position) in older {
            found.entry(origin).or_insert(position);
        }
        Resume::new(found)
    }

    fn keys(&self) -> Keys {
        Keys { group: self.group(""), origin: self.origin(), former: self.former() }
    }

    /// Returns what stands before an origin in the key of its position; `None`: nothing.
    fn group(&self, origin: &str) -> Option<String> {
        match self {
            Spec::File { start: Start::Beginning, .. } if self.origin() == origin => None,
            Spec::File { start: Start::Beginning, .. } => Some(format!("{} > ", self.origin())),
            Spec::File { start: Start::End, .. } => Some(format!("{} tail > ", self.origin())),
            Spec::Auto { .. } => Some(format!("{} > ", self.origin())),
            _ => None,
        }
    }

    /// Returns the keys under which versions before this one stored the positions of a group.
    fn former(&self) -> Option<Former> {
        match self {
            Spec::File { .. } => glob::Pattern::new(&self.origin()).ok().map(Former::Glob),
            Spec::Auto { files, matches } => {
                let journal = Spec::Journal { matches: matches.clone() }.origin();
                let files = files.iter().map(|path| path.display().to_string());
                Some(Former::Names(files.chain([journal]).collect()))
            }
            _ => None,
        }
    }

    /// Whether it can work at all, as far as its words say: opens nothing.
    ///
    /// # Errors
    /// What is wrong with the path, the match or the address.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Spec::File { path, .. } => file::check(path),
            Spec::Journal { matches } => journal::check(matches),
            Spec::Syslog { listen } => syslog::check(listen),
            Spec::Auto { files, matches } => {
                files.iter().try_for_each(|path| file::check(path))?;
                journal::check(matches)
            }
            Spec::Stdin | Spec::Bans => Ok(()),
        }
    }

    /// Returns whether there is anything to read on this host now. Opens nothing.
    #[must_use]
    pub fn is_there(&self) -> bool {
        match self {
            Spec::File { path, .. } => file::is_there(path),
            Spec::Journal { .. } => journal::is_there(),
            Spec::Auto { files, matches } => {
                files.iter().any(|path| file::is_there(path))
                    || (!matches.is_empty() && journal::is_there())
            }
            Spec::Syslog { .. } | Spec::Stdin | Spec::Bans => true,
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Spec::File { path, .. } => write!(f, "{}", path.display()),
            Spec::Journal { matches } => write!(f, "journal {}", matches.join(" ")),
            Spec::Syslog { listen } => f.write_str(listen),
            Spec::Auto { files, matches } => f.write_str(&auto::name(files, matches)),
            Spec::Stdin => f.write_str("stdin"),
            Spec::Bans => f.write_str("own bans"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_positions_of_its_own() {
        let file = |path: &str, start| Spec::File { path: path.into(), start };
        let at = |cursor: &str| Position::Journal { cursor: cursor.to_owned() };
        let literal = file("/log//a.log", Start::Beginning);
        let tail = file("/log/a.log", Start::End);
        let all = file("/log/*.log", Start::Beginning);
        let files = vec!["/log/a.log".into(), "/log/b".into()];
        let auto = Spec::Auto { files, matches: vec!["_COMM=a".into()] };
        let specs = [&literal, &tail, &all, &auto];
        let keys = specs.map(|spec| spec.key("/log/a.log"));
        let others = keys.iter().filter(|key| **key == keys[0]).count();
        assert_eq!((&*keys[0], others), ("/log/a.log", 1), "{keys:?}");
        let mut stored: HashMap<Arc<str>, Position> = HashMap::new();
        // what an earlier version left is everybody's, until each has its own
        stored.insert("/log/a.log".into(), at("former"));
        for spec in specs {
            assert_eq!(spec.resume(&stored).get("/log/a.log"), Some(at("former")), "{spec}");
        }
        for (spec, key) in specs.iter().zip(&keys) {
            stored.insert(Arc::clone(key), at(&spec.origin()));
        }
        for (spec, key) in specs.iter().zip(&keys) {
            let resume = spec.resume(&stored);
            assert_eq!(resume.get("/log/a.log"), Some(at(&spec.origin())), "{key}");
            assert_eq!(resume.origins().len(), 1, "{key}: {resume:?}");
        }
        assert_eq!(unclaimed(specs.into_iter(), &stored), Vec::<Arc<str>>::new());
        let mut left = unclaimed([&literal, &auto].into_iter(), &stored);
        left.sort();
        assert_eq!(left, [all.key("/log/a.log"), tail.key("/log/a.log")]);
        let journal = Spec::Journal { matches: vec!["_COMM=a".into()] };
        stored.insert(auto.key("journal _COMM=a"), at("auto"));
        assert_eq!(journal.resume(&stored).origins().len(), 0);
        assert_eq!(auto.resume(&stored).get("journal _COMM=a"), Some(at("auto")));
    }

    #[test]
    fn what_cannot_work_is_said() {
        let matches = |word: &str| Spec::Journal { matches: vec![word.to_owned()] };
        let syslog = |listen: &str| Spec::Syslog { listen: listen.to_owned() };
        let file = |path: &str| Spec::File { path: path.into(), start: Start::End };
        for spec in [matches("-f"), syslog("udp://nowhere"), file("/var/log/[a"), file("log")] {
            assert!(spec.check().is_err(), "{spec}");
        }
        for spec in [matches("_COMM=a"), syslog("udp://192.0.2.1:514"), file("/var/log/[a]*")] {
            assert!(spec.check().is_ok(), "{spec}");
        }
    }
}
