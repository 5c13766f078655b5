//! The whole file source on a real directory, woken by the real kernel.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use crate::{
    patience::patience,
    source::{self, Batch, Limits, Position, Resume, Spec, Start, Stats},
};

type Positions = Arc<Mutex<HashMap<String, Position>>>;

/// A source at work, and the directory that it reads.
struct Bench {
    dir: TempDir,
    start: Start,
    pattern: PathBuf,
    positions: Positions,
    stats: Stats,
    limits: Limits,
    lines: mpsc::Receiver<Batch>,
    task: JoinHandle<()>,
    rest: Vec<String>,
    /// Lines that were there before, in the order of `rest`.
    backlog: Vec<bool>,
    /// Lines whose end never came.
    torn: Vec<String>,
    /// Logs that are gone.
    gone: Vec<String>,
}

impl Bench {
    async fn new(pattern: &str, prepare: impl FnOnce(&Path)) -> Bench {
        let limits = Limits { linger: Duration::from_millis(1), ..Limits::default() };
        Bench::with(pattern, limits, prepare).await
    }

    async fn with(pattern: &str, limits: Limits, prepare: impl FnOnce(&Path)) -> Bench {
        Bench::from(Start::End, pattern, limits, prepare).await
    }

    async fn from(
        start: Start,
        pattern: &str,
        limits: Limits,
        prepare: impl FnOnce(&Path),
    ) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let pattern = dir.path().join(pattern);
        let (positions, stats) = (Positions::default(), Stats::default());
        let (lines, task) = spawn(start, &pattern, &positions, &limits, &stats);
        let mut bench = Bench {
            dir,
            start,
            pattern,
            positions,
            stats,
            limits,
            lines,
            task,
            rest: Vec::new(),
            backlog: Vec::new(),
            torn: Vec::new(),
            gone: Vec::new(),
        };
        if !bench.pattern.to_string_lossy().contains('*') {
            // The first batch only says where the source begins: it watches from then on.
            bench.receive().await;
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str, text: &str) -> File {
        append(&self.path(name), text)
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    async fn receive(&mut self) {
        let batch = timeout(patience(), self.lines.recv()).await;
        let batch = batch.expect("no line came").expect("the source ended");
        if batch.gone {
            self.positions.lock().unwrap().remove(&*batch.origin);
            self.gone.push(batch.origin.to_string());
            return;
        }
        self.positions.lock().unwrap().insert(batch.origin.to_string(), batch.position.unwrap());
        let text = String::from_utf8_lossy(&batch.lines).into_owned();
        self.rest.extend(text.lines().map(str::to_owned));
        self.backlog.extend(text.lines().map(|_| batch.backlog));
        self.torn.extend(text.lines().filter(|_| batch.torn).map(str::to_owned));
    }

    async fn expect(&mut self, expected: &[&str]) {
        while self.rest.len() < expected.len() {
            self.receive().await;
        }
        assert_eq!(self.rest, expected);
        self.rest.clear();
        self.backlog.clear();
    }

    async fn restart(&mut self, meanwhile: impl FnOnce(&Bench)) {
        self.task.abort();
        assert!((&mut self.task).await.unwrap_err().is_cancelled());
        meanwhile(self);
        let (lines, task) =
            spawn(self.start, &self.pattern, &self.positions, &self.limits, &self.stats);
        (self.lines, self.task) = (lines, task);
    }
}

fn spawn(
    start: Start,
    pattern: &Path,
    positions: &Positions,
    limits: &Limits,
    stats: &Stats,
) -> (mpsc::Receiver<Batch>, JoinHandle<()>) {
    let (out, lines) = mpsc::channel(2);
    let spec = Spec::File { path: pattern.to_owned(), start };
    let known = positions.lock().unwrap().clone();
    let resume = Resume::new(known.into_iter().map(|(origin, at)| (origin.into(), at)).collect());
    let run = source::run(spec, resume, limits.clone(), stats.clone(), out, mpsc::channel(1).0);
    (lines, tokio::spawn(async move { run.await.unwrap() }))
}

fn append(path: &Path, text: &str) -> File {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[tokio::test]
async fn follows_from_the_end_and_through_a_rename() {
    let mut bench = Bench::new("log", |dir| drop(append(&dir.join("log"), "before\n"))).await;
    let mut writer = bench.append("log", "one\ntw");
    bench.expect(&["one"]).await;
    bench.rename("log", "log.1");
    writer.write_all(b"o\nafter the rename\n").unwrap();
    bench.append("log", "new\n");
    bench.expect(&["two", "after the rename", "new"]).await;
    writer.write_all(b"late").unwrap();
    bench.expect(&["late"]).await;
    let counters = bench.stats.snapshot()[&*bench.pattern.to_string_lossy()].clone();
    assert_eq!((counters.rotations, counters.lines, counters.waiting), (1, 5, false));
}

#[tokio::test]
async fn a_line_whose_end_never_came_is_marked() {
    let mut bench = Bench::new("log", |dir| drop(append(&dir.join("log"), ""))).await;
    drop(bench.append("log", "one\nuser=<x> rip=192.0.2.1"));
    bench.expect(&["one"]).await;
    bench.rename("log", "log.1");
    bench.append("log", "two\n");
    let mut lines = Vec::new();
    while lines.len() < 2 {
        bench.receive().await;
        lines.append(&mut bench.rest);
    }
    lines.sort();
    assert_eq!(lines, ["two", "user=<x> rip=192.0.2.1"]);
    assert_eq!(bench.torn, ["user=<x> rip=192.0.2.1"]);
}

#[tokio::test]
async fn what_was_there_before_is_told_apart() {
    let mut bench = Bench::from(Start::Beginning, "*.log", Limits::default(), |dir| {
        append(&dir.join("a.log"), "before\nbegun");
    })
    .await;
    while bench.rest.is_empty() {
        bench.receive().await;
    }
    bench.append("a.log", " and ended\nnow\n");
    bench.append("b.log", "later\n");
    while bench.rest.len() < 4 {
        bench.receive().await;
    }
    let told: Vec<_> = bench.rest.iter().zip(&bench.backlog).collect();
    let before = told.iter().filter(|(_, backlog)| **backlog).map(|(line, _)| line.as_str());
    assert_eq!(before.collect::<Vec<_>>(), ["before"], "{told:?}");
    bench.rest.clear();
    bench.backlog.clear();
    // a known file goes on where it was: what came meanwhile is of these days
    bench.restart(|bench| drop(bench.append("a.log", "meanwhile\n"))).await;
    while bench.rest.is_empty() {
        bench.receive().await;
    }
    assert_eq!((bench.rest[0].as_str(), bench.backlog[0]), ("meanwhile", false));
}

/// All that is there, each text with whether it is live, and the position behind it.
fn read(files: &mut super::Files, position: &mut Option<Position>) -> Vec<(String, bool)> {
    let (found, known, now) = (files.resolve().files, position.clone(), Instant::now());
    files.update(&found, &|_| known.clone(), now);
    files.touch_all();
    let mut all = Vec::new();
    while let Some(batch) = files.next(now) {
        let text = String::from_utf8(batch.lines.to_vec()).unwrap();
        all.extend((!text.is_empty()).then_some((text, batch.live)));
        *position = batch.position;
    }
    all
}

fn files(path: &Path) -> super::Files {
    let target = super::Target::new(path).unwrap();
    super::Files::new(target, Start::Beginning, Limits::default(), Stats::default())
}

#[test]
fn only_what_is_written_now_is_live() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut position) = (dir.path().join("log"), None);
    append(&log, "before\n");
    let mut source = files(&log);
    let expect = |told: Vec<(String, bool)>, text: &str, live: bool| {
        assert_eq!(told, [(text.to_owned(), live)]);
    };
    expect(read(&mut source, &mut position), "before\n", false);
    append(&log, "now\n");
    expect(read(&mut source, &mut position), "now\n", true);
    // whoever cuts a file may write old lines anew, as an editor does
    fs::write(&log, "an old one\n").unwrap();
    expect(read(&mut source, &mut position), "an old one\n", false);
    append(&log, "now again\n");
    expect(read(&mut source, &mut position), "now again\n", true);
    // so may one that takes its name
    fs::rename(&log, log.with_file_name("log.1")).unwrap();
    append(&log, "of another file\n");
    expect(read(&mut source, &mut position), "of another file\n", false);
    append(&log, "now once more\n");
    expect(read(&mut source, &mut position), "now once more\n", true);
    append(&log, "while nobody looked\n");
    let mut source = files(&log);
    expect(read(&mut source, &mut position), "while nobody looked\n", false);
    append(&log, "at last\n");
    expect(read(&mut source, &mut position), "at last\n", true);
}

#[tokio::test]
async fn logs_of_a_glob_are_forgotten_once_they_are_gone() {
    let limits = Limits {
        linger: Duration::from_millis(1),
        forget: Duration::from_millis(50),
        ..Limits::default()
    };
    let mut bench = Bench::from(Start::Beginning, "*.log", limits, |_| ()).await;
    for name in ["a.log", "b.log"] {
        bench.append(name, "one\n");
        bench.expect(&["one"]).await;
    }
    fs::remove_file(bench.path("a.log")).unwrap();
    // this one has a file, but no name that matters
    bench.rename("b.log", "b.old");
    while bench.gone.len() < 2 {
        bench.receive().await;
    }
    assert!(bench.positions.lock().unwrap().is_empty());
    assert!(bench.stats.snapshot().is_empty(), "{:?}", bench.stats.snapshot());
    // another one of that name is another one, and its position is none of an earlier run's
    bench.append("a.log", "two\nthree\n");
    bench.expect(&["two", "three"]).await;
    assert_eq!(bench.stats.snapshot().values().map(|counters| counters.lost).sum::<u64>(), 0);
    // one that does not come back after a restart
    bench.gone.clear();
    bench.restart(|bench| fs::remove_file(bench.path("a.log")).unwrap()).await;
    while bench.gone.is_empty() {
        bench.receive().await;
    }
    assert!(bench.positions.lock().unwrap().is_empty());
}

/// Root reads everything, so this is a thread that may not.
#[test]
fn a_log_that_cannot_be_opened_at_first_goes_on_where_it_was() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    append(&log, "one\n");
    let thread = std::thread::spawn(move || {
        let mut position = None;
        assert_eq!(read(&mut files(&log), &mut position).len(), 1);
        let mode = |mode| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs::set_permissions(&log, mode).unwrap();
        };
        append(&log, "two\n");
        mode(0);
        let mut sets = capabilities(None).unwrap();
        sets.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        set_capabilities(None, sets).unwrap();
        let mut second = files(&log);
        assert!(read(&mut second, &mut position).is_empty());
        assert!(second.retry && position.is_some());
        mode(0o600);
        assert_eq!(read(&mut second, &mut position)[0].0, "two\n", "read twice, or not at all");
    });
    thread.join().unwrap();
}

#[tokio::test]
async fn what_an_earlier_run_read_and_cannot_be_found_is_counted() {
    for to in ["log.1.gz", "old/log.1"] {
        let mut bench = Bench::new("log", |dir| fs::create_dir(dir.join("old")).unwrap()).await;
        bench.append("log", "one\n");
        bench.expect(&["one"]).await;
        bench
            .restart(|bench| {
                bench.append("log", "never seen\n");
                bench.rename("log", to);
                bench.append("log", "new\n");
            })
            .await;
        bench.expect(&["new"]).await;
        let counters = bench.stats.snapshot()[&*bench.pattern.to_string_lossy()].clone();
        assert_eq!(counters.lost, 1, "{to}");
    }
}

#[tokio::test]
async fn waits_for_a_file_and_its_directory() {
    let mut bench = Bench::new("a/b/log", |_| ()).await;
    assert!(bench.stats.snapshot().values().all(|counters| counters.waiting));
    fs::create_dir_all(bench.path("a/b")).unwrap();
    bench.append("a/b/log", "first\n");
    bench.expect(&["first"]).await;
    fs::rename(bench.path("a"), bench.path("old")).unwrap();
    fs::create_dir_all(bench.path("a/b")).unwrap();
    bench.append("a/b/log", "second\n");
    bench.expect(&["second"]).await;
}

#[tokio::test]
async fn truncation_and_recreation() {
    let mut bench = Bench::new("log", |_| ()).await;
    bench.append("log", "one\n");
    bench.expect(&["one"]).await;
    fs::write(bench.path("log"), "two\n").unwrap();
    bench.expect(&["two"]).await;
    fs::remove_file(bench.path("log")).unwrap();
    bench.append("log", "three\n");
    bench.expect(&["three"]).await;
}

#[tokio::test]
async fn a_link_that_is_switched() {
    let mut bench = Bench::new("current/log", |dir| {
        for version in ["v1", "v2"] {
            fs::create_dir(dir.join(version)).unwrap();
        }
        symlink("v1", dir.join("current")).unwrap();
    })
    .await;
    bench.append("v1/log", "one\n");
    bench.expect(&["one"]).await;
    bench.append("v2/log", "two\n");
    symlink("v2", bench.path("next")).unwrap();
    bench.rename("next", "current");
    bench.expect(&["two"]).await;
}

#[tokio::test]
async fn globs_see_what_appears_and_skip_rotations() {
    let mut bench = Bench::new("*/app*.log*", |dir| {
        fs::create_dir(dir.join("a")).unwrap();
        append(&dir.join("a/app.log"), "before\n");
    })
    .await;
    bench.receive().await;
    bench.append("a/app.log", "one\n");
    bench.expect(&["one"]).await;
    fs::create_dir(bench.path("b")).unwrap();
    bench.append("b/app.log", "two\n");
    bench.expect(&["two"]).await;
    bench.append("b/app.log.1", "not this\n");
    bench.rename("a/app.log", "a/app-old.log");
    bench.append("a/app-old.log", "three\n");
    bench.expect(&["three"]).await;
    bench.append("a/app.log", "four\n");
    bench.expect(&["four"]).await;
}

#[tokio::test]
async fn a_restart_misses_nothing() {
    let mut bench = Bench::new("log", |_| ()).await;
    bench.append("log", "one\npart");
    bench.expect(&["one"]).await;
    bench
        .restart(|bench| {
            bench.append("log", "ly\ntwo\n");
            bench.rename("log", "log.2");
            bench.append("log.1", "three\n");
            bench.append("log", "four\n");
        })
        .await;
    bench.expect(&["partly", "two", "three", "four"]).await;
    bench
        .restart(|bench| {
            bench.append("log", "five\n");
            fs::copy(bench.path("log"), bench.path("log-20261120")).unwrap();
            fs::write(bench.path("log"), "six\n").unwrap();
        })
        .await;
    bench.expect(&["five", "six"]).await;
    bench.restart(|_| ()).await;
    bench.append("log", "seven\n");
    bench.expect(&["seven"]).await;
}

#[tokio::test]
async fn a_directory_that_only_polling_sees() {
    let limits = Limits { poll: Duration::from_millis(1), ..Limits::default() };
    let dir = tempfile::tempdir().unwrap();
    let target = super::Target::new(&dir.path().join("log")).unwrap();
    let mut files = super::Files::new(target, Start::End, limits.clone(), Stats::default());
    let mut watch = super::Watch::without_inotify();
    watch.scan(&mut files, &|_| None);
    assert!(watch.polling);
    append(&dir.path().join("log"), "one\n");
    watch.scan(&mut files, &|_| None);
    files.touch_due(Instant::now());
    let lines = std::iter::from_fn(|| files.next(Instant::now()));
    assert_eq!(lines.map(|batch| batch.lines.len()).sum::<usize>(), 4);
}

#[tokio::test]
async fn copies_that_begin_alike_are_told_apart() {
    let nuls = "\0".repeat(300);
    let mut bench = Bench::new("log", |_| ()).await;
    let copy = |bench: &Bench| {
        fs::copy(bench.path("log"), bench.path("log.1")).unwrap();
        bench.append("log", "").set_len(0).unwrap();
    };
    bench.append("log", &format!("{nuls}one\n"));
    bench.expect(&["one"]).await;
    copy(&bench);
    bench.append("log", &format!("{nuls}two\n"));
    bench.expect(&["two"]).await;
    let after = |bench: &Bench| {
        bench.rename("log.1", "log.2");
        bench.append("log", "three\n");
        copy(bench);
        bench.append("log", &format!("{nuls}four and more\n"));
    };
    bench.restart(after).await;
    bench.expect(&["three", "four and more"]).await;
}

#[tokio::test]
async fn what_comes_after_the_first_look_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    append(&path, "old\n");
    let ((out, mut lines), (looked, mut looking)) = (mpsc::channel(2), mpsc::channel(1));
    let spec = Spec::File { path: path.clone(), start: Start::Beginning };
    let (limits, stats) = (Limits::default(), Stats::default());
    tokio::spawn(source::run(spec, Resume::default(), limits, stats, out, looked));
    assert_eq!(looking.recv().await, None);
    append(&path, "new\n");
    for (text, backlog) in [("old\n", true), ("new\n", false)] {
        let batch = timeout(patience(), lines.recv()).await.unwrap().unwrap();
        assert_eq!((&batch.lines[..], batch.backlog), (text.as_bytes(), backlog));
    }
}

#[tokio::test]
async fn an_empty_original_was_filled_and_copied_again_meanwhile() {
    let mut bench = Bench::new("log", |_| ()).await;
    bench.append("log", "one\n");
    bench.expect(&["one"]).await;
    fs::copy(bench.path("log"), bench.path("log.1")).unwrap();
    bench.append("log", "").set_len(0).unwrap();
    let is_empty = |bench: &Bench| {
        bench.positions.lock().unwrap().values().any(|position| match position {
            Position::File { files } => {
                files.last().is_some_and(|checkpoint| checkpoint.head_len == 0)
            }
            Position::Journal { .. } => false,
        })
    };
    while !is_empty(&bench) {
        bench.receive().await;
    }
    bench
        .restart(|bench| {
            bench.append("log", "two\n");
            bench.rename("log.1", "log.2");
            fs::copy(bench.path("log"), bench.path("log.1")).unwrap();
            bench.append("log", "").set_len(0).unwrap();
            bench.append("log", "three\n");
        })
        .await;
    bench.expect(&["two", "three"]).await;
}

/// A disk that was full leaves NULs at the head of each of them.
#[tokio::test]
async fn copies_that_begin_alike_are_all_read() {
    let mut bench = Bench::new("log", |dir| drop(append(&dir.join("log"), ""))).await;
    let (long, nuls) = ("x".repeat(2_000), "\0".repeat(1_000));
    let log = bench.append("log", &format!("{long}\n"));
    bench.expect(&[long.as_str()]).await;
    // nobody looks until all of it has happened
    bench.append("log", "one\n");
    fs::copy(bench.path("log"), bench.path("log.1")).unwrap();
    log.set_len(0).unwrap();
    bench.append("log", &format!("{nuls}two\n"));
    bench.rename("log.1", "log.2");
    fs::copy(bench.path("log"), bench.path("log.1")).unwrap();
    log.set_len(0).unwrap();
    bench.append("log", &format!("{nuls}three\n"));
    bench.expect(&["one", "two", "three"]).await;
}

/// A node with many containers. `BAN_TEST_MANY` files; what it takes is printed.
#[tokio::test]
async fn a_glob_over_very_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let many = std::env::var("BAN_TEST_MANY").ok().and_then(|text| text.parse().ok());
    let many: usize = many.unwrap_or(2_000);
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let memory = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let (before, begun) = (memory(), Instant::now());
    let mut bench = Bench::from(Start::Beginning, "*.log", Limits::default(), |dir| {
        for number in 0..many {
            append(&dir.join(format!("{number}.log")), &format!("line {number}\n"));
        }
    })
    .await;
    let made = begun.elapsed();
    while bench.rest.len() < many {
        bench.receive().await;
    }
    let read = begun.elapsed() - made;
    let begun = Instant::now();
    bench.rest.clear();
    bench.append("7.log", "one more\n");
    bench.expect(&["one more"]).await;
    let (line, begun) = (begun.elapsed(), Instant::now());
    bench.append("another.log", "of another\n");
    bench.expect(&["of another"]).await;
    let another = begun.elapsed();
    println!(
        "{many} files: read in {read:?}, {} KiB more; a line after {line:?}, a new file after {another:?}",
        memory() - before
    );
    // and they go as they came
    for number in 0..many {
        fs::remove_file(bench.path(&format!("{number}.log"))).unwrap();
    }
    bench.append("another.log", "still here\n");
    bench.expect(&["still here"]).await;
}
