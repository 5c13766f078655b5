//! The systemd journal, read by a `journalctl` of our own: the journal's files are no interface,
//! its export format is. Owns that child; [`export`] reads what it prints.

mod export;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStderr, Command},
    sync::mpsc,
    time,
};

use self::export::{Export, Taken};
use super::{Batch, Error, Limits, Position, Resume, Stats};

/// What reads the journal.
const PROGRAM: &str = "journalctl";
/// Pause before a journalctl that ended is started again; doubled each time up to the last.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// A child that lived this long did its work: what ended it is news.
const HEALTHY: Duration = Duration::from_secs(30);
/// An entry that is older was written while nobody read, or by another clock.
const LATELY: Duration = Duration::from_secs(30);
/// Names this host in its journal (machine-id(5)).
const MACHINE: &str = "/etc/machine-id";
/// How far back the first start reads. Jails ignore what is older than their findtime.
const FIRST: &str = "--since=-24h";

/// Reads the journal; without a position from `since` on, or of a day.
pub(super) async fn run(
    matches: Vec<String>,
    since: Option<SystemTime>,
    resume: Resume,
    limits: Limits,
    stats: Stats,
    out: mpsc::Sender<Batch>,
) -> Result<(), Error> {
    check(&matches)?;
    let origin: Arc<str> = format!("journal {}", matches.join(" ")).trim_end().into();
    let cursor = match resume.get(&origin) {
        Some(Position::Journal { cursor }) => Some(cursor),
        _ => None,
    };
    let machine = machine();
    let program = PROGRAM.into();
    let first = match since.and_then(|since| since.duration_since(UNIX_EPOCH).ok()) {
        Some(since) => format!("--since=@{}", since.as_secs()),
        None => FIRST.to_owned(),
    };
    let mut journal =
        Journal { program, machine, matches, first, cursor, origin, limits, stats, resume, out };
    // shown from the beginning: a quiet journal may stay so
    journal.stats.update(&journal.origin, |_| ());
    let mut pause = PAUSE.0;
    loop {
        let started = Instant::now();
        let Some(ended) = journal.follow().await else { return Ok(()) };
        if started.elapsed() >= HEALTHY {
            pause = PAUSE.0;
        }
        log::warn!("{}: {ended}; trying again in {pause:?}", journal.origin);
        journal.stats.update(&journal.origin, |counters| {
            counters.restarts += 1;
            counters.waiting = true;
            counters.error = Some(ended);
        });
        tokio::select! {
            () = journal.out.closed() => return Ok(()),
            () = time::sleep(pause) => pause = (pause * 2).min(PAUSE.1),
        }
    }
}

/// Returns when an entry was written by its own stamp; now, if that cannot have been lately.
fn written(received: Option<Timestamp>, wall: Timestamp) -> Instant {
    let now = Instant::now();
    let age = received.and_then(|time| Duration::try_from(wall.duration_since(time)).ok());
    age.filter(|age| *age < LATELY).and_then(|age| now.checked_sub(age)).unwrap_or(now)
}

/// This host's id.
fn machine() -> Option<String> {
    let id = std::fs::read_to_string(MACHINE).ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

/// Returns how journalctl is told what to print, and of which entries.
fn arguments(matches: &[String], machine: Option<&str>) -> Vec<String> {
    let mut words: Vec<String> = vec!["--no-pager".into(), "--quiet".into()];
    words.extend(["--output=export".into(), format!("--output-fields={}", export::FIELDS)]);
    let (options, matches): (Vec<String>, Vec<String>) =
        matches.iter().cloned().partition(|word| is_option(word));
    words.extend_from_slice(&options);
    match machine {
        // other journals than this host's own may be of other hosts
        _ if !options.is_empty() => {
            words.extend(["--merge".into(), "--".into()]);
            words.extend(matches);
        }
        // --follow alone reads the current boot only, and what was written before a reboot
        // would be lost; --merge takes other hosts' journals as well
        Some(machine) => {
            words.extend(["--merge".into(), "--".into()]);
            words.extend(of_machine(&matches, machine));
        }
        None => {
            words.push("--".into());
            words.extend(matches);
        }
    }
    words
}

/// Reads the last day of the journal once and hands each piece of whole lines, stamped as those of a
/// batch are, to `take`. Blocks: for the CLI alone.
///
/// # Errors
/// If journalctl cannot be started or read.
pub fn last_day(matches: &[String], mut take: impl FnMut(&[u8])) -> std::io::Result<()> {
    use std::io::Read as _;
    let mut command = std::process::Command::new(PROGRAM);
    command.arg(FIRST).args(arguments(matches, machine().as_deref())).env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let mut stdout = child.stdout.take().ok_or_else(|| std::io::Error::other("no output"))?;
    let mut export = Export::new(Limits::default().line, None);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = stdout.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        take(&export.push(buffer.get(..length).unwrap_or_default()).lines);
    }
    child.wait()?;
    Ok(())
}

/// Returns whether this host keeps a journal, and has what reads it.
pub(super) fn is_there() -> bool {
    let kept = ["/run/log/journal", "/var/log/journal"];
    let path = std::env::var_os("PATH").unwrap_or_default();
    kept.iter().any(|folder| Path::new(folder).is_dir())
        && std::env::split_paths(&path).any(|folder| folder.join(PROGRAM).is_file())
}

/// One journal source.
struct Journal {
    program: PathBuf,
    /// This host's id.
    machine: Option<String>,
    matches: Vec<String>,
    /// Where it begins without a cursor, as journalctl says it.
    first: String,
    /// Of the last entry that was delivered.
    cursor: Option<String>,
    origin: Arc<str>,
    limits: Limits,
    stats: Stats,
    resume: Resume,
    out: mpsc::Sender<Batch>,
}

impl Journal {
    /// Delivers until the child ends: why it did; `None` if the receiver is gone.
    async fn follow(&mut self) -> Option<String> {
        let mut child = match self.start() {
            Ok(child) => child,
            Err(error) => return Some(format!("cannot start {}: {error}", self.program.display())),
        };
        let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take())
        else {
            return Some("the child has no output".to_owned());
        };
        let mut export = Export::new(self.limits.line, self.cursor.clone());
        let mut buffer = vec![0; 64 << 10];
        let mut said = Said::default();
        loop {
            tokio::select! {
                () = self.out.closed() => return None,
                read = stdout.read(&mut buffer) => match read {
                    Ok(length) if length > 0 => {
                        let chunk = buffer.get(..length).unwrap_or_default();
                        self.deliver(export.push(chunk), &mut export).await?;
                    }
                    _ => break,
                },
                () = said.hear(&mut stderr), if !said.ended => {}
            }
        }
        while !said.ended {
            said.hear(&mut stderr).await;
        }
        Some(self.bury(child, said.text.trim()).await)
    }

    fn start(&self) -> std::io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(["--follow", "--no-tail"]);
        match &self.cursor {
            // not --after-cursor: if the entry was vacuumed, that leaves out the one behind it
            Some(cursor) => command.arg(format!("--cursor={cursor}")),
            None => command.arg(&self.first),
        };
        command.args(arguments(&self.matches, self.machine.as_deref()));
        command.env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true).spawn()
    }

    /// `None` if the receiver is gone.
    async fn deliver(&mut self, taken: Taken, export: &mut Export) -> Option<()> {
        let (overlong, malformed) = export.take_counts();
        let count = memchr::memchr_iter(b'\n', &taken.lines).count();
        self.stats.update(&self.origin, |counters| {
            counters.lines += u64::try_from(count).unwrap_or(0);
            counters.bytes += u64::try_from(taken.lines.len()).unwrap_or(0);
            counters.overlong += overlong;
            counters.malformed += malformed;
            counters.waiting = false;
            counters.error = None;
        });
        let Some(cursor) = taken.cursor else { return Some(()) };
        let batch = Batch {
            origin: Arc::clone(&self.origin),
            lines: Bytes::from(taken.lines),
            stamped: true,
            raw: None,
            backlog: false,
            live: true,
            position: Some(Position::Journal { cursor: cursor.clone() }),
            gone: false,
            torn: false,
            read: written(taken.received, Timestamp::now()),
        };
        self.resume.sent(&batch);
        self.out.send(batch).await.ok()?;
        self.cursor = Some(cursor);
        Some(())
    }

    /// Why the child ended. A cursor that the journal does not understand is given up: better
    /// some entries twice than none.
    async fn bury(&mut self, mut child: Child, said: &str) -> String {
        let status = match child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        if said.contains("cursor") && self.cursor.take().is_some() {
            self.stats.update(&self.origin, |counters| counters.lost += 1);
        }
        format!("{} ended ({status}): {said}", self.program.display())
    }
}

/// The child's last words.
#[derive(Default)]
struct Said {
    text: String,
    ended: bool,
}

impl Said {
    async fn hear(&mut self, stderr: &mut ChildStderr) {
        let mut words = [0; 512];
        let length = stderr.read(&mut words).await.unwrap_or(0);
        self.ended = length == 0;
        if length > 0 {
            let words = words.get(..length).unwrap_or_default();
            self.text = String::from_utf8_lossy(words).into_owned();
        }
    }
}

/// The same matches for one host's entries: in each of the terms that `+` joins.
fn of_machine(matches: &[String], machine: &str) -> Vec<String> {
    let own = format!("_MACHINE_ID={machine}");
    let mut words: Vec<String> = Vec::with_capacity(matches.len() + 2);
    for word in matches {
        if word == "+" {
            words.push(own.clone());
        }
        words.push(word.clone());
    }
    words.push(own);
    words
}

/// An option that chooses which journal is read.
fn is_option(word: &str) -> bool {
    let values = ["--directory=", "--file=", "--namespace="];
    matches!(word, "--system" | "--user")
        || values.iter().any(|option| word.len() > option.len() && word.starts_with(option))
}

/// journalctl takes options everywhere; only matches, and those that choose a journal, may reach it.
pub(super) fn check(matches: &[String]) -> Result<(), Error> {
    let is_match = |word: &str| {
        word == "+"
            || is_option(word)
            || word.split_once('=').is_some_and(|(field, _)| {
                let upper = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
                !field.is_empty() && field.bytes().all(|byte| upper(byte) || byte == b'_')
            })
    };
    match matches.iter().find(|word| !is_match(word)) {
        Some(word) => Err(Error::Match { word: word.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    /// Returns a journalctl that prints what a real one printed, and ends.
    fn journal(dir: &Path, script: &str) -> (Journal, mpsc::Receiver<Batch>) {
        let program = dir.join("journalctl");
        fs::write(&program, format!("#!/bin/sh\necho \"$@\" >> {}/args\n{script}", dir.display()))
            .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let (out, batches) = mpsc::channel(10);
        let journal = Journal {
            program,
            machine: None,
            matches: vec!["_COMM=sshd".to_owned()],
            first: FIRST.to_owned(),
            cursor: None,
            origin: "journal _COMM=sshd".into(),
            limits: Limits::default(),
            stats: Stats::default(),
            resume: Resume::default(),
            out,
        };
        (journal, batches)
    }

    #[tokio::test]
    async fn a_child_that_ends_is_resumed_behind_its_last_entry() {
        let dir = tempfile::tempdir().unwrap();
        let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/src/source/journal/recorded.export");
        let (mut journal, mut batches) =
            journal(dir.path(), &format!("cat {recorded}; echo out of order >&2; exit 3"));
        for _ in 0..2 {
            let ended = journal.follow().await.unwrap();
            assert!(ended.contains("exit status: 3"), "{ended}");
        }
        let batch = batches.recv().await.unwrap();
        assert!(
            batch.stamped
                && batch.lines.starts_with(b"2026-11-21T02:25:50.796052Z vm sshd[4711]: ")
        );
        let Some(Position::Journal { cursor }) = batch.position else { panic!("no position") };
        let args = fs::read_to_string(dir.path().join("args")).unwrap();
        let (first, second) = args.trim_end().split_once('\n').unwrap();
        let cursor = format!("--cursor={cursor}");
        for (args, from) in [(first, "--since=-24h"), (second, cursor.as_str())] {
            assert!(args.contains(from) && args.ends_with(" -- _COMM=sshd"), "{args}");
        }
    }

    #[test]
    fn an_entry_counts_from_its_own_stamp_if_it_is_of_now() {
        let wall = Timestamp::from_second(1_000_000).unwrap();
        let age = |micros: i64| {
            let received = Timestamp::from_microsecond(1_000_000_000_000 - micros).ok();
            let written = written(received, wall);
            Instant::now().saturating_duration_since(written).as_millis()
        };
        assert!((400..10_000).contains(&age(400_000)));
        // of a clock that was set back, and of a time at which nobody read
        for micros in [-400_000, 31_000_000] {
            assert!(age(micros) < 10_000, "{micros}");
        }
        assert!(written(None, wall) <= Instant::now());
    }

    #[tokio::test]
    async fn a_bad_cursor_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let said = "echo Failed to seek to cursor: Invalid argument >&2; exit 1";
        let (mut journal, _batches) = journal(dir.path(), said);
        journal.cursor = Some("bogus".to_owned());
        let ended = journal.follow().await.unwrap();
        assert!(ended.contains("Failed to seek"), "{ended}");
        assert_eq!(journal.cursor, None);
        assert_eq!(journal.stats.snapshot()["journal _COMM=sshd"].lost, 1);
    }

    #[tokio::test]
    async fn no_journalctl() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _batches) = journal(dir.path(), "");
        journal.program = dir.path().join("none");
        assert!(journal.follow().await.unwrap().starts_with("cannot start"));
    }

    #[test]
    fn each_term_is_of_this_host() {
        for (matches, expected) in [
            ("", "_MACHINE_ID=7"),
            ("_COMM=a _UID=0", "_COMM=a _UID=0 _MACHINE_ID=7"),
            ("_COMM=a + _COMM=b", "_COMM=a _MACHINE_ID=7 + _COMM=b _MACHINE_ID=7"),
        ] {
            let words: Vec<_> = matches.split_whitespace().map(str::to_owned).collect();
            assert_eq!(of_machine(&words, "7").join(" "), expected);
        }
    }

    #[test]
    fn only_matches() {
        let check = |word: &str| check(&[word.to_owned()]);
        for word in ["_SYSTEMD_UNIT=ssh.service", "SYSLOG_IDENTIFIER=a b", "+", "_PID="] {
            assert!(check(word).is_ok(), "{word}");
        }
        for word in ["--directory=/var/log/journal/remote", "--system", "--namespace=*"] {
            assert!(check(word).is_ok(), "{word}");
        }
        for word in ["--vacuum-size=1", "--file=", "-f", "", "=x", "/usr/bin/sshd", "lower=x"] {
            assert!(check(word).is_err(), "{word}");
        }
    }
}
