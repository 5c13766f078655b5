//! Another process may come between any two of our system calls. Here it does: at each [`seam`] of
//! the file source a writer takes steps of its own, on a real directory, by a seed. No thread and no
//! clock, so a seed that finds a fault finds it every time.
//!
//! Nothing is deleted here and nothing is lost by its writer: each line has to come, and once.
//! (What may be lost is the matter of `model`.)

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    fs::{self, File, OpenOptions},
    io::Write,
    path::PathBuf,
    rc::Rc,
    time::Instant,
};

use tempfile::TempDir;

use super::{files::Files, resolve::Target};
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

/// SplitMix64: <https://prng.di.unimi.it/splitmix64.c>.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// How the log is rotated.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scheme {
    /// `log.1` is the newest.
    Number,
    /// `log-20261120-0001`.
    Date,
    /// A hard link to the old file, and a new one renamed over the log.
    Link,
    /// copytruncate to `log.1`.
    CopyNumber,
    /// copytruncate to `log-20261120-0001`.
    CopyDate,
}

/// One system call of the writer or of whoever rotates.
#[derive(Clone, Debug)]
enum Step {
    Begin,
    End,
    Late,
    Shift(usize),
    Rename(String),
    Link(String),
    Replace,
    Reopen,
    CopyPart(String),
    CopyRest(String),
    Cut,
}

struct Disk {
    dir: PathBuf,
    scheme: Scheme,
    banner: bool,
    random: Random,
    steps: VecDeque<Step>,
    log: File,
    late: Option<File>,
    begun: bool,
    lines: usize,
    rotations: usize,
    trace: Told,
}

impl Disk {
    fn new(dir: PathBuf, scheme: Scheme, banner: bool, seed: u64, told: &Told) -> Disk {
        let log = append(&dir.join("log"));
        Disk {
            dir,
            scheme,
            banner,
            random: Random(seed),
            steps: VecDeque::new(),
            log,
            late: None,
            begun: false,
            lines: 0,
            rotations: 0,
            trace: Rc::clone(told),
        }
    }

    fn step(&mut self) {
        while self.steps.is_empty() {
            self.plan();
        }
        if let Some(step) = self.steps.pop_front() {
            self.trace.borrow_mut().push(format!("{step:?} ({})", self.lines));
            self.take(&step);
        }
    }

    fn plan(&mut self) {
        match self.random.below(6) {
            0 if self.rotations < 12 => self.rotate(),
            1 => self.steps.extend([Step::Late]),
            _ if self.begun => self.steps.extend([Step::End]),
            _ => self.steps.extend([Step::Begin]),
        }
    }

    fn rotate(&mut self) {
        self.rotations += 1;
        let number = matches!(self.scheme, Scheme::Number | Scheme::CopyNumber);
        if number {
            let count = (1..).take_while(|n| self.dir.join(format!("log.{n}")).exists()).count();
            self.steps.extend((1..=count).rev().map(Step::Shift));
        }
        let name = match number {
            true => "log.1".to_owned(),
            false => format!("log-20261120-{:04}", self.rotations),
        };
        match self.scheme {
            Scheme::Number | Scheme::Date => {
                self.steps.extend([Step::Rename(name), Step::Late, Step::Reopen]);
            }
            Scheme::Link => {
                self.steps.extend([Step::Link(name), Step::Replace, Step::Late, Step::Reopen]);
            }
            Scheme::CopyNumber | Scheme::CopyDate => {
                self.steps.push_back(Step::CopyPart(name.clone()));
                self.steps.extend([Step::CopyRest(name), Step::Cut]);
            }
        }
    }

    fn take(&mut self, step: &Step) {
        let dir = self.dir.clone();
        let at = |name: &str| dir.join(name);
        match step {
            Step::Begin => self.begin(),
            Step::End => self.end(),
            Step::Late => {
                if let Some(mut late) = self.late.take() {
                    late.write_all(format!("{} late\n", self.lines).as_bytes()).unwrap();
                    self.lines += 1;
                    self.late = Some(late);
                }
            }
            Step::Shift(n) => {
                fs::rename(at(&format!("log.{n}")), at(&format!("log.{}", n + 1))).unwrap();
            }
            Step::Rename(to) => fs::rename(at("log"), at(to)).unwrap(),
            Step::Link(to) => fs::hard_link(at("log"), at(to)).unwrap(),
            Step::Replace => {
                File::create(at("next")).unwrap();
                fs::rename(at("next"), at("log")).unwrap();
            }
            Step::Reopen => {
                self.end();
                self.late = Some(std::mem::replace(&mut self.log, append(&at("log"))));
                self.head();
            }
            Step::CopyPart(to) => {
                let text = fs::read(at("log")).unwrap();
                let part = &text[..text.len() / 2];
                append(&at(to)).write_all(part).unwrap();
            }
            Step::CopyRest(to) => {
                let text = fs::read(at("log")).unwrap();
                let mut copy = append(&at(to));
                let done = usize::try_from(copy.metadata().unwrap().len()).unwrap();
                copy.write_all(&text[done..]).unwrap();
            }
            Step::Cut => {
                self.log.set_len(0).unwrap();
                self.begun = false;
                self.head();
            }
        }
    }

    /// Files that begin alike.
    fn head(&mut self) {
        if self.banner {
            self.log.write_all(&[0; 300]).unwrap();
        }
    }

    fn begin(&mut self) {
        self.log.write_all(format!("{} ", self.lines).as_bytes()).unwrap();
        self.begun = true;
        self.lines += 1;
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.begun) {
            self.log.write_all(b"end\n").unwrap();
        }
    }
}

fn append(path: &std::path::Path) -> File {
    OpenOptions::new().append(true).create(true).read(true).open(path).unwrap()
}

type Told = Rc<RefCell<Vec<String>>>;

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
            let place = format!("{:?}", batch.position).replace("Mark ", "");
            self.told.borrow_mut().push(format!("  * {numbers:?} {place}"));
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
        told: Rc::clone(&told),
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
                told.borrow_mut().push("* restart".into());
                reader.restart();
            }
            1..4 => {
                told.borrow_mut().push("* scan".into());
                reader.scan();
            }
            4..6 => reader.acknowledge(),
            more => {
                told.borrow_mut().push(format!("* pump {more}"));
                reader.files.touch_all();
                reader.pump(usize::try_from(more).unwrap());
            }
        }
    }
    OTHERS.with(|others| *others.borrow_mut() = None);
    let mut disk = Rc::into_inner(disk).unwrap().into_inner();
    while let Some(step) = disk.steps.pop_front() {
        disk.take(&step);
    }
    disk.end();
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
        told.borrow().join("\n")
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
