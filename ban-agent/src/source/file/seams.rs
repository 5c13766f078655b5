//! Another process may come between any two of our system calls. Here it does: at each [`seam`] of
//! the file source a writer takes steps of its own, on a real directory, by a seed. No thread and no
//! clock, so a seed that finds a fault finds it every time.
//!
//! Nothing is deleted here and nothing is lost by its writer: each line has to come, and once.
//! (What may be lost is the matter of `model`.)

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use tempfile::TempDir;

use super::{
    disk::{Disk, Random, Scheme, Told},
    files::Files,
    resolve::Target,
};
use crate::source::{Limits, Position, Start, Stats};

thread_local! {
    static OTHERS: RefCell<Option<Box<dyn FnMut()>>> = const { RefCell::new(None) };
}

/// Lets the writer take its steps.
pub(super) fn seam() {
    let others = OTHERS.with(|others| others.borrow_mut().take());
    if let Some(mut step) = others {
        step();
        OTHERS.with(|others| *others.borrow_mut() = Some(step));
    }
}

/// The reader, and what of its lines is acknowledged.
struct Reader {
    dir: TempDir,
    files: Files,
    position: Option<Position>,
    waiting: VecDeque<(Vec<usize>, Option<Position>)>,
    got: BTreeMap<usize, usize>,
    told: Told,
    now: Instant,
}

impl Reader {
    fn files(dir: &TempDir) -> Files {
        let target = Target::new(&dir.path().join("log")).unwrap();
        let limits = Limits { batch: 64, ..Limits::default() };
        Files::new(target, Start::Beginning, limits, Stats::default())
    }

    fn scan(&mut self) {
        let found = self.files.resolve().files;
        let position = self.position.clone();
        self.files.update(&found, &|_| position.clone(), self.now);
        self.files.touch_all();
    }

    fn pump(&mut self, count: usize) {
        for _ in 0..count {
            let Some(batch) = self.files.next(self.now) else { return };
            let text = String::from_utf8(batch.lines.to_vec()).unwrap();
            let numbers = text.lines().map(|line| {
                // what was begun before a cut ends with the copy
                let number = line.split(' ').next().unwrap_or_default();
                number.parse().unwrap_or_else(|_| panic!("no line: {line:?}"))
            });
            let numbers: Vec<usize> = numbers.collect();
            let place = format!("{:?}", batch.position).replace("Checkpoint ", "");
            self.told.lock().unwrap().push(format!("  * {numbers:?} {place}"));
            self.waiting.push_back((numbers, batch.position));
        }
    }

    fn acknowledge(&mut self) {
        if let Some((numbers, position)) = self.waiting.pop_front() {
            numbers.into_iter().for_each(|number| *self.got.entry(number).or_default() += 1);
            self.position = position;
        }
    }

    /// What was not acknowledged is read again.
    fn restart(&mut self) {
        self.waiting.clear();
        self.files = Reader::files(&self.dir);
        self.scan();
    }
}

fn play(scheme: Scheme, seed: u64) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(seed.wrapping_mul(31));
    let banner = random.one_in(2);
    let told = Told::default();
    let disk = Disk::new(dir.path().to_owned(), scheme, banner, seed, &told);
    let disk = Rc::new(RefCell::new(disk));
    let files = Reader::files(&dir);
    let mut reader = Reader {
        dir,
        files,
        position: None,
        waiting: VecDeque::new(),
        got: BTreeMap::new(),
        told: Arc::clone(&told),
        now: Instant::now(),
    };
    // followed from before the first line
    reader.scan();
    reader.pump(usize::MAX);
    while !reader.waiting.is_empty() {
        reader.acknowledge();
    }
    let (often, burst) = (1 + random.below(6), 1 + random.below(8));
    let (writer, mut chance) = (Rc::clone(&disk), Random(seed.wrapping_mul(77)));
    // a writer that is faster than the reader for ever is no matter of law 5
    let budget = Rc::new(Cell::new(0));
    let left = Rc::clone(&budget);
    let step = move || {
        if left.get() > 0 && chance.one_in(often) {
            left.set(left.get() - 1);
            (0..=chance.below(burst)).for_each(|_| writer.borrow_mut().step());
        }
    };
    OTHERS.with(|others| *others.borrow_mut() = Some(Box::new(step)));
    for _ in 0..30 {
        budget.set(1 + random.below(60));
        match random.below(10) {
            0 => {
                told.lock().unwrap().push("* restart".into());
                reader.restart();
            }
            1..4 => {
                told.lock().unwrap().push("* scan".into());
                reader.scan();
            }
            4..6 => reader.acknowledge(),
            more => {
                told.lock().unwrap().push(format!("* pump {more}"));
                reader.files.touch_all();
                reader.pump(usize::try_from(more).unwrap());
            }
        }
    }
    OTHERS.with(|others| *others.borrow_mut() = None);
    let mut disk = Rc::into_inner(disk).unwrap().into_inner();
    disk.finish();
    for _ in 0..3 {
        reader.scan();
        reader.pump(usize::MAX);
    }
    while !reader.waiting.is_empty() {
        reader.acknowledge();
    }
    let wrong: Vec<(usize, usize)> = (0..disk.lines)
        .map(|line| (line, reader.got.get(&line).copied().unwrap_or(0)))
        .filter(|(_, times)| *times != 1)
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{scheme:?}, seed {seed}, banner {banner}: of {} lines (line, times): {wrong:?}\n{}",
        disk.lines,
        told.lock().unwrap().join("\n")
    ))
}

fn rounds() -> u64 {
    std::env::var("BAN_TEST_SEAMS").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

fn run(scheme: Scheme) {
    let mut faults = Vec::new();
    for seed in 0..rounds() {
        faults.extend(play(scheme, seed).err());
    }
    let shown = faults.iter().min_by_key(|fault| fault.len());
    assert!(faults.is_empty(), "{} of {}; {}", faults.len(), rounds(), shown.unwrap());
}

#[test]
fn renamed_by_number() {
    run(Scheme::Number);
}

#[test]
fn renamed_by_date() {
    run(Scheme::Date);
}

#[test]
fn linked_and_replaced() {
    run(Scheme::Link);
}

#[test]
fn copied_by_number() {
    run(Scheme::CopyNumber);
}

#[test]
fn copied_by_date() {
    run(Scheme::CopyDate);
}
