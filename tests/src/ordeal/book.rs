//! What must be so, whatever happens to the agent: a plain model that every thread of an ordeal
//! writes its part of, and that says what went wrong.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Faults that are written down; of more only the number is.
const FAULTS: usize = 50;

/// When an address is banned for certain.
#[derive(Clone, Copy, Debug)]
pub struct Sure {
    from: Instant,
    until: Instant,
}

/// The model.
#[derive(Debug, Default)]
pub struct Book {
    /// Banned for certain: somebody was told so.
    live: HashMap<IpAddr, Sure>,
    /// Everybody who ever was in `live`, to pick from.
    once: Vec<IpAddr>,
    /// Let go for certain, for good.
    lifted: HashSet<IpAddr>,
    /// Nobody knows: a question died with the agent.
    doubtful: HashSet<IpAddr>,
    /// Whose last line is written, and since when; nobody was told of a ban yet.
    due: HashMap<IpAddr, Instant>,
    /// Reported banned before we noted that their last line is written: the agent was quick, or
    /// has counted a line again after a crash, as it may.
    early: HashSet<IpAddr>,
    /// Who may be banned at all.
    guilty: HashSet<IpAddr>,
    faults: Vec<String>,
    /// What there was.
    pub tally: Tally,
}

/// Numbers for the report.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Lines written, junk included.
    pub lines: u64,
    /// Lines of junk among them.
    pub junk: u64,
    /// Addresses with as many failures as it takes.
    pub offenders: u64,
    /// Logs renamed or cut under their writer.
    pub rotations: u64,
    /// Times the agent was killed.
    pub kills: u64,
    /// Bans of a jail that were reported.
    pub offences: u64,
    /// Those of them that came before the last line was noted.
    pub early: u64,
    /// Bans by hand that were acknowledged.
    pub bans: u64,
    /// Unbans that were acknowledged.
    pub unbans: u64,
    /// Requests that died with the agent, or that it could not promise to keep.
    pub unanswered: u64,
    /// Packets sent from banned addresses.
    pub packets: u64,
    /// Packets sent from an allowed address, and received.
    pub allowed: (u64, u64),
    /// Times the disk was full.
    pub full_disks: u64,
    /// Times the clock was set.
    pub clock_steps: u64,
    /// Comparisons of the agent's list with this book.
    pub audits: u64,
    /// Most memory that the agent was seen with, in KiB.
    pub peak_kib: u64,
    /// Faults.
    pub faults: u64,
}

/// The book, for all threads.
#[derive(Debug, Default)]
pub struct Shared(Mutex<Book>);

impl Shared {
    /// Opens it.
    pub fn open(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// Something is wrong.
    pub fn fault(&mut self, what: String) {
        self.tally.faults += 1;
        if self.faults.len() < FAULTS {
            self.faults.push(what);
        }
    }

    /// What is wrong.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// From now on he may be banned.
    pub fn accuse(&mut self, address: IpAddr) {
        self.guilty.insert(address);
    }

    /// His last line is in the log.
    pub fn convict(&mut self, address: IpAddr) {
        self.tally.offenders += 1;
        if self.early.contains(&address) {
            self.tally.offences += 1;
        } else {
            self.due.insert(address, Instant::now());
        }
    }

    /// A jail's ban was reported. It lasts for `bantime` from the last line, give or take.
    pub fn sentenced(&mut self, address: IpAddr, bantime: Duration) {
        if !self.guilty.contains(&address) {
            self.fault(format!("{address} was banned, and had done nothing"));
        }
        let Some(written) = self.due.remove(&address) else {
            if !self.once_live(address) && self.early.insert(address) {
                self.tally.early += 1;
            }
            return;
        };
        self.tally.offences += 1;
        self.banned(address, written + bantime);
    }

    /// His last line is written, and nobody was told of a ban.
    pub fn is_due(&self, address: IpAddr) -> bool {
        self.due.contains_key(&address)
    }

    /// Whether his ban was noted before: it is only restored.
    fn once_live(&self, address: IpAddr) -> bool {
        self.live.contains_key(&address)
            || self.lifted.contains(&address)
            || self.doubtful.contains(&address)
    }

    /// A ban was acknowledged.
    pub fn banned(&mut self, address: IpAddr, until: Instant) {
        if self.lifted.contains(&address) || self.doubtful.contains(&address) {
            return;
        }
        self.live.insert(address, Sure { from: Instant::now(), until });
        self.once.push(address);
    }

    /// Somebody who is banned for certain.
    pub fn pick(&self, at: impl Fn(usize) -> usize) -> Option<IpAddr> {
        let address = *self.once.get(at(self.once.len()))?;
        self.is_banned(address).then_some(address)
    }

    /// Whether he is banned for certain.
    pub fn is_banned(&self, address: IpAddr) -> bool {
        let now = Instant::now();
        self.live.get(&address).is_some_and(|sure| sure.from <= now && now < sure.until)
    }

    /// His ban is about to be lifted: nothing is certain until that is acknowledged.
    pub fn lifting(&mut self, address: IpAddr) {
        self.live.remove(&address);
        self.doubtful.insert(address);
    }

    /// It is.
    pub fn lifted(&mut self, address: IpAddr) {
        self.doubtful.remove(&address);
        self.lifted.insert(address);
        self.tally.unbans += 1;
    }

    /// The address of a request whose answer died with the agent.
    pub fn unanswered(&mut self, address: IpAddr) {
        self.tally.unanswered += 1;
        self.doubtful.insert(address);
    }

    /// A packet came through.
    pub fn received(&mut self, address: IpAddr, sent: Instant) {
        let Some(sure) = self.live.get(&address) else { return };
        if sure.from <= sent && Instant::now() < sure.until {
            let age = sure.from.elapsed();
            self.fault(format!("a packet of {address} passed, banned since {age:?}"));
        }
    }

    /// Offenders whose ban nobody has reported.
    pub fn missing(&self) -> Vec<IpAddr> {
        self.due.keys().copied().collect()
    }

    /// How many they are.
    pub fn lag(&self) -> usize {
        self.due.len()
    }

    /// Those let go.
    pub fn free(&self) -> Vec<IpAddr> {
        self.lifted.iter().copied().collect()
    }

    /// What a list of the banned, asked for after `before`, has to agree with.
    pub fn expect(&self) -> Expected {
        let now = Instant::now();
        let live = self.live.iter().filter(|(_, sure)| sure.from <= now);
        Expected {
            live: live.map(|(address, sure)| (*address, sure.until)).collect(),
            lifted: self.lifted.clone(),
        }
    }

    /// Compares: `listed` came after `expected`.
    pub fn audit(&mut self, expected: &Expected, listed: &HashSet<IpAddr>) {
        self.tally.audits += 1;
        let now = Instant::now();
        for (address, until) in &expected.live {
            // lifted since, or over by now
            if self.live.contains_key(address) && now < *until && !listed.contains(address) {
                self.fault(format!("the ban of {address} was lost"));
            }
        }
        for address in expected.lifted.intersection(listed) {
            self.fault(format!("the ban of {address} was lifted, and came back"));
        }
        let unknown: Vec<IpAddr> = listed.difference(&self.guilty).copied().collect();
        for address in unknown {
            self.fault(format!("{address} is banned, and has done nothing"));
        }
    }
}

/// See [`Book::expect`].
#[derive(Debug)]
pub struct Expected {
    live: Vec<(IpAddr, Instant)>,
    lifted: HashSet<IpAddr>,
}
