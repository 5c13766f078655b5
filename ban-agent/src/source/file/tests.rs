//! The whole file source on a real directory, woken by the real kernel.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use crate::source::{self, Batch, Limits, Position, Spec, Start, Stats};

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
        let batch = timeout(Duration::from_secs(20), self.lines.recv()).await;
        let batch = batch.expect("no line came").expect("the source ended");
        self.positions.lock().unwrap().insert(batch.origin.to_string(), batch.position.unwrap());
        let text = String::from_utf8_lossy(&batch.lines).into_owned();
        self.rest.extend(text.lines().map(str::to_owned));
        self.backlog.extend(text.lines().map(|_| batch.backlog));
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
    let positions = Arc::clone(positions);
    let resume = move |origin: &str| positions.lock().unwrap().get(origin).cloned();
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
    assert!(watch.polling && super::timer(&files, &watch, std::time::Instant::now()).is_some());
    append(&dir.path().join("log"), "one\n");
    watch.scan(&mut files, &|_| None);
    files.touch_due(std::time::Instant::now());
    let lines = std::iter::from_fn(|| files.next(std::time::Instant::now()));
    assert_eq!(lines.map(|batch| batch.lines.len()).sum::<usize>(), 4);
}

/// A writer that rotates as fast as it can, while the source is stopped and started again and
/// again: events, scans and restarts fall between any two of its steps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_rotations() {
    const FILES: usize = 200;
    let mut bench = Bench::new("log", |_| ()).await;
    let path = bench.path("log");
    // Seen before the storm: where to look for what was rotated away unseen.
    bench.append("log", "line 0 ends\n");
    bench.receive().await;
    let writer = std::thread::spawn(move || {
        let mut number = 1;
        for rotation in 0..FILES {
            let mut file = append(&path, "");
            for _ in 0..=rotation % 7 * 20 {
                // In two writes, so that partial lines are seen.
                file.write_all(format!("line {number}").as_bytes()).unwrap();
                file.write_all(b" ends\n").unwrap();
                number += 1;
            }
            fs::rename(&path, path.with_file_name(format!("log-20261120-{rotation:04}"))).unwrap();
            // Writers notice late.
            file.write_all(format!("line {number} ends\n").as_bytes()).unwrap();
            number += 1;
        }
        append(&path, "end\n");
        number
    });
    let mut batches = 0;
    while bench.rest.last().is_none_or(|line| line != "end") {
        bench.receive().await;
        batches += 1;
        if batches % 50 == 0 {
            bench.restart(|_| ()).await;
        }
    }
    let written = writer.join().unwrap();
    bench.rest.retain(|line| line != "end");
    let numbers: Vec<usize> = bench
        .rest
        .iter()
        .map(|line| line.strip_prefix("line ").unwrap().strip_suffix(" ends").unwrap())
        .map(|number| number.parse().unwrap())
        .collect();
    let missing: Vec<_> = (0..written).filter(|number| !numbers.contains(number)).collect();
    assert_eq!((missing, numbers.len()), (Vec::new(), written));
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
    tokio::spawn(source::run(spec, |_| None, limits, stats, out, looked));
    assert_eq!(looking.recv().await, None);
    append(&path, "new\n");
    for (text, backlog) in [("old\n", true), ("new\n", false)] {
        let batch = timeout(Duration::from_secs(20), lines.recv()).await.unwrap().unwrap();
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
            Position::File { files } => files.last().is_some_and(|mark| mark.head_len == 0),
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
