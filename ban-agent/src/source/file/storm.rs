//! A storm: a writer in a thread of its own rotates as fast as it can, by every scheme, while the
//! source is stopped and started again and again. Events, looks and restarts fall between any two of
//! its steps as the kernel has them run; `seams` has them fall there by a seed.
//!
//! `cargo xtask storm` has it blow longer, on other file systems and under load.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use super::disk::{Disk, Random, Scheme, Told};
use crate::{
    patience::patience,
    source::{self, Batch, Limits, Position, Resume, Spec, Start, Stats},
};

/// Of each run.
const ROTATIONS: usize = 30;

/// A source that is stopped and started.
struct Reader {
    spec: Spec,
    positions: Arc<Mutex<HashMap<Arc<str>, Position>>>,
    lines: mpsc::Receiver<Batch>,
    task: JoinHandle<()>,
    /// How often each line came.
    got: HashMap<usize, usize>,
}

impl Reader {
    fn new(log: &Path) -> Reader {
        let spec = Spec::File { path: log.to_owned(), start: Start::Beginning };
        let positions = Arc::default();
        let (lines, task) = Reader::start(&spec, &positions);
        Reader { spec, positions, lines, task, got: HashMap::new() }
    }

    fn start(
        spec: &Spec,
        positions: &Arc<Mutex<HashMap<Arc<str>, Position>>>,
    ) -> (mpsc::Receiver<Batch>, JoinHandle<()>) {
        let (out, lines) = mpsc::channel(2);
        let known = positions.lock().unwrap().clone();
        let resume = Resume::new(known);
        let limits = Limits { batch: 512, ..Limits::default() };
        let run =
            source::run(spec.clone(), resume, limits, Stats::default(), out, mpsc::channel(1).0);
        (lines, tokio::spawn(async move { run.await.unwrap() }))
    }

    /// Returns the next lines; false if none came.
    async fn read(&mut self) -> bool {
        let Ok(batch) = timeout(patience(), self.lines.recv()).await else { return false };
        let batch = batch.expect("the source ended");
        for line in String::from_utf8_lossy(&batch.lines).lines() {
            // what was begun before a cut ends with the copy
            let number = line.split(' ').next().unwrap_or_default().parse();
            let number = number.unwrap_or_else(|_| panic!("no line: {line:?}"));
            *self.got.entry(number).or_default() += 1;
        }
        self.positions.lock().unwrap().insert(batch.origin, batch.position.unwrap());
        true
    }

    /// What was sent and not taken is read again.
    async fn restart(&mut self) {
        self.task.abort();
        assert!((&mut self.task).await.unwrap_err().is_cancelled());
        (self.lines, self.task) = Reader::start(&self.spec, &self.positions);
    }
}

/// Returns what of one storm went wrong.
async fn blow(scheme: Scheme, seed: u64) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(seed);
    let (banner, often) = (random.one_in(2), 4 + random.below(100));
    let told = Told::default();
    let disk = Disk::new(dir.path().to_owned(), scheme, banner, seed, &told);
    let mut reader = Reader::new(&dir.path().join("log"));
    // followed from before the first line
    reader.read().await;
    let mut disk = disk.storm(ROTATIONS, often);
    let writer = thread::spawn(move || {
        while disk.rotations < ROTATIONS {
            disk.step();
        }
        disk.finish();
        disk
    });
    while !writer.is_finished() {
        // it may have nothing to say any more, so nobody waits for long
        let _ = timeout(super::UNREST, reader.read()).await;
        if random.one_in(20) {
            reader.restart().await;
        }
    }
    let mut disk = writer.join().unwrap();
    while reader.got.len() < disk.lines && reader.read().await {}
    // what comes twice comes before what comes last
    disk.last();
    while !reader.got.contains_key(&(disk.lines - 1)) && reader.read().await {}
    let times = |line: &usize| reader.got.get(line).copied().unwrap_or(0);
    let wrong: Vec<(usize, usize)> =
        (0..disk.lines).map(|line| (line, times(&line))).filter(|(_, times)| *times != 1).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let told = told.lock().unwrap().join(", ");
    let lines = disk.lines;
    Err(format!("{scheme:?}, seed {seed}: of {lines} lines (line, times): {wrong:?}\n{told}"))
}

/// Returns how many storms of each kind.
fn rounds() -> u64 {
    std::env::var("BAN_TEST_STORMS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

async fn run(scheme: Scheme) {
    let mut faults = Vec::new();
    for seed in 0..rounds() {
        faults.extend(blow(scheme, seed).await.err());
    }
    println!("storm: {scheme:?}: {} runs, {} faults", rounds(), faults.len());
    let shown = faults.iter().min_by_key(|fault| fault.len());
    assert!(faults.is_empty(), "{}", shown.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renamed_by_number() {
    run(Scheme::Number).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renamed_by_date() {
    run(Scheme::Date).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn linked_and_replaced() {
    run(Scheme::Link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copied_by_number() {
    run(Scheme::CopyNumber).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copied_by_date() {
    run(Scheme::CopyDate).await;
}
