//! The other process of the tests: writes a log and rotates it, one system call at a time, by a
//! seed and by every scheme that is in use. Each line bears its number, and is in the log once.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex},
};

/// Records what happened, to understand a fault by.
pub(super) type Told = Arc<Mutex<Vec<String>>>;

/// SplitMix64: <https://prng.di.unimi.it/splitmix64.c>.
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// How the log is rotated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scheme {
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

/// One system call of the writer, or of what rotates.
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

pub(super) struct Disk {
    dir: PathBuf,
    scheme: Scheme,
    banner: bool,
    random: Random,
    steps: VecDeque<Step>,
    log: File,
    late: Option<File>,
    begun: bool,
    pub(super) lines: usize,
    pub(super) rotations: usize,
    /// There are no more than this.
    limit: usize,
    /// One in so many steps.
    often: u64,
    trace: Told,
}

impl Disk {
    pub(super) fn new(dir: PathBuf, scheme: Scheme, banner: bool, seed: u64, told: &Told) -> Disk {
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
            limit: 12,
            often: 6,
            trace: Arc::clone(told),
        }
    }

    /// The same with so many rotations, one in `often` steps.
    pub(super) fn storm(self, limit: usize, often: u64) -> Disk {
        Disk { limit, often, ..self }
    }

    /// What was begun is ended.
    pub(super) fn finish(&mut self) {
        while let Some(step) = self.steps.pop_front() {
            self.take(&step);
        }
        self.end();
    }

    /// One more line.
    pub(super) fn last(&mut self) {
        self.begin();
        self.end();
    }

    pub(super) fn step(&mut self) {
        while self.steps.is_empty() {
            self.plan();
        }
        if let Some(step) = self.steps.pop_front() {
            let told = format!("{step:?} ({})", self.lines);
            self.trace.lock().unwrap().push(told);
            self.take(&step);
        }
    }

    fn plan(&mut self) {
        match self.random.below(self.often) {
            0 if self.rotations < self.limit => self.rotate(),
            1 => self.steps.extend([Step::Late]),
            _ if self.begun => self.steps.extend([Step::End]),
            _ => self.steps.extend([Step::Begin]),
        }
    }

    fn rotate(&mut self) {
        self.rotations += 1;
        let number = !matches!(self.scheme, Scheme::Date | Scheme::CopyDate);
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
