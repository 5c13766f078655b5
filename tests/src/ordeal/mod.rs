//! An ordeal: the real agent under a flood from those it banned, with programs that log, rotate
//! and log junk, an operator, and one who kills it at random instants; on demand with a disk that
//! fills up and a clock that is set. All of it seeded; the book says what was lost.

pub mod book;
mod flood;
mod herald;
mod operator;
pub mod trouble;
mod writer;

use std::{
    collections::HashSet,
    fmt, fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use jiff::SignedDuration;

use self::{
    book::{Shared, Tally},
    trouble::SmallDisk,
    writer::Writer,
};
use crate::{
    agent::{self, Agent, LIMIT},
    clock::{Clock, faketime},
    frame::Wire,
    process::eventually,
    random::Random,
    stage::{DEVICE, Stage},
};

/// Never dropped, whatever anybody writes about it.
const ALLOWED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const JAIL: &str = "app";
const MAXRETRY: u32 = 3;
/// The agent's report in fail2ban's format.
const REPORT: &str = "fail2ban.log";
/// How far the clock is set, in seconds, either way.
const STEP: u64 = 10;
/// What a jail's ban surely lasts: less than configured by the second that a log's time is cut to,
/// and by what the clock was set between line and ban.
const BANTIME: Duration = Duration::from_secs(CONFIGURED - 2 * STEP - 2);
const CONFIGURED: u64 = 240;
/// Longer than the agent may take to catch up after the last kill.
const CATCH_UP: Duration = Duration::from_secs(60);
/// The agent may not grow beyond this, in KiB, with what an ordeal gives it to remember.
const MEMORY_KIB: u64 = 200 << 10;
/// As many lifted addresses are tried again in the end.
const PROBED: usize = 500;

/// What an agent is put through.
#[derive(Clone, Debug)]
pub struct Ordeal {
    /// Everything random comes from it.
    pub seed: u64,
    /// How often the agent is killed, if nothing says until when.
    pub kills: u64,
    /// Goes on until then, instead of counting.
    pub time: Option<Duration>,
    /// Programs that log.
    pub writers: u32,
    /// Every other log is copied and cut, not renamed.
    pub copytruncate: bool,
    /// The disk of the state fills up now and then.
    pub full_disk: bool,
    /// The library that sets the agent's clock now and then.
    pub clock: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    seed: u64,
    time: Duration,
    tally: Tally,
    /// What went wrong; nothing, if all is well.
    pub faults: Vec<String>,
}

/// What all threads share.
#[derive(Debug)]
struct Scene<'a> {
    stage: &'a Stage,
    book: Shared,
    began: Instant,
    /// Nobody begins anything new.
    stop: AtomicBool,
    /// Nobody sends any more.
    silent: AtomicBool,
    /// Nothing is reported any more.
    deaf: AtomicBool,
    /// The agent cannot be started any more: nobody waits for an answer.
    dead: AtomicBool,
    /// What the clock is off by, in seconds.
    shift: AtomicI64,
    /// Whose packets came through.
    through: Mutex<HashSet<IpAddr>>,
}

impl Scene<'_> {
    fn shift(&self) -> SignedDuration {
        SignedDuration::from_secs(self.shift.load(Ordering::Acquire))
    }
}

impl Ordeal {
    /// Everything at once, for so long.
    ///
    /// # Errors
    /// If what sets the clock is missing.
    pub fn soak(seed: u64, time: Duration) -> Result<Self> {
        Ok(Self {
            seed,
            kills: 0,
            time: Some(time),
            writers: 4,
            copytruncate: true,
            full_disk: true,
            clock: Some(faketime().context("libfaketime is not installed")?),
        })
    }

    /// Puts it through all of that.
    ///
    /// # Errors
    /// If it cannot be carried through; what the agent did wrong is in the report.
    pub fn run(&self) -> Result<Report> {
        let stage = Stage::build()?;
        let scene = Scene {
            stage: &stage,
            book: Shared::default(),
            began: Instant::now(),
            stop: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            shift: AtomicI64::new(0),
            through: Mutex::default(),
        };
        let disk = self.full_disk.then(|| SmallDisk::mount(stage.file("disk"), 96)).transpose()?;
        let clock = self.clock.as_deref().map(|library| Clock::new(&stage, library)).transpose()?;
        configure(&scene, self.writers)?;
        let before = settled(&stage)?;
        let mut agent = Agent::idle(&stage);
        start(&mut agent, clock.as_ref())?;
        let done = self.perform(&scene, &mut agent, disk.as_ref(), clock.as_ref());
        let mut book = scene.book.open();
        if let Err(error) = done {
            book.fault(format!("{error:#}"));
        }
        let after = surroundings(&stage)?;
        if after != before {
            book.fault(format!("the host was changed, from\n{before}\nto\n{after}"));
        }
        if book.tally.peak_kib > MEMORY_KIB {
            let peak = book.tally.peak_kib;
            book.fault(format!("the agent took {peak} KiB"));
        }
        if !book.faults().is_empty() {
            let log = agent.log();
            let loud = |line: &&str| line.contains("WARN") || line.contains("ERROR");
            let tail: Vec<&str> = log.lines().filter(loud).rev().take(60).collect();
            eprintln!("what the agent complained of at last:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
            if let Ok(status) = agent::verb(&stage, &["-o", "json", "status"]) {
                eprintln!("its status: {}", String::from_utf8_lossy(&status.stdout));
            }
        }
        let (tally, faults) = (book.tally, book.faults().to_vec());
        Ok(Report { seed: self.seed, time: scene.began.elapsed(), tally, faults })
    }

    fn perform(
        &self,
        scene: &Scene<'_>,
        agent: &mut Agent<'_>,
        disk: Option<&SmallDisk>,
        clock: Option<&Clock>,
    ) -> Result<()> {
        let random = |stream| Random::new(self.seed, stream);
        let mut wire = Wire::open(&scene.stage.edge)?;
        wire.widen()?;
        thread::scope(|scope| {
            let receiver = scope.spawn(|| flood::receive(scene, &mut wire));
            let herald = scope.spawn(|| herald::listen(scene));
            let mut busy = vec![
                scope.spawn(move || flood::send(scene, random(1))),
                scope.spawn(move || operator::work(scene, random(2))),
            ];
            for number in 0..self.writers {
                let random = random(100 + u64::from(number));
                let copies = self.copytruncate && number.is_multiple_of(2);
                let writer = move || Writer::open(scene, number, copies, random)?.run(scene);
                busy.push(scope.spawn(writer));
            }
            if let Some(disk) = disk {
                busy.push(scope.spawn(move || trouble::fill(scene, disk, random(3))));
            }
            if let Some(clock) = clock {
                busy.push(scope.spawn(move || trouble::set_clock(scene, clock, random(4))));
            }
            let killed = self.kill(scene, agent, clock, random(5));
            scene.dead.store(killed.is_err(), Ordering::Release);
            scene.stop.store(true, Ordering::Release);
            let mut results = vec![killed];
            results.extend(busy.into_iter().map(joined));
            let ended = settle(scene);
            results.push(ended);
            scene.silent.store(true, Ordering::Release);
            scene.deaf.store(true, Ordering::Release);
            results.push(joined(receiver));
            results.push(joined(herald));
            results.into_iter().collect::<Result<()>>()
        })?;
        finally(scene)
    }

    /// Kills it at random instants, also while it starts, and looks at what the next one knows.
    fn kill(
        &self,
        scene: &Scene<'_>,
        agent: &mut Agent<'_>,
        clock: Option<&Clock>,
        mut random: Random,
    ) -> Result<()> {
        let mut kills = 0;
        while self.time.map_or(kills < self.kills, |time| scene.began.elapsed() < time) {
            trouble::wait(scene, random.time(Duration::from_millis(1500)));
            weigh(scene, agent);
            if let Some(status) = agent.ended()? {
                let words = agent.last_words();
                scene.book.open().fault(format!("the agent ended with {status}:\n{words}"));
            }
            agent.kill()?;
            kills += 1;
            if random.once_in(4) {
                launch(agent, clock)?;
                thread::sleep(random.time(Duration::from_millis(200)));
                agent.kill()?;
                kills += 1;
            }
            start(agent, clock)?;
            scene.book.open().tally.kills = kills;
            audit(scene)?;
            if !scene.book.open().faults().is_empty() {
                break;
            }
        }
        Ok(())
    }
}

fn start(agent: &mut Agent<'_>, clock: Option<&Clock>) -> Result<()> {
    launch(agent, clock)?;
    agent.await_answer()
}

fn launch(agent: &mut Agent<'_>, clock: Option<&Clock>) -> Result<()> {
    let mut command = agent.command()?;
    if let Some(clock) = clock {
        clock.dress(&mut command);
    }
    agent.launch(command)
}

fn configure(scene: &Scene<'_>, writers: u32) -> Result<()> {
    let stage = scene.stage;
    let logs: Vec<String> = (0..writers)
        .map(|number| format!("{:?}", writer::path(scene, number).display().to_string()))
        .collect();
    let state = if stage.file("disk").exists() { "disk/state.sqlite" } else { "state.sqlite" };
    let text = format!(
        "[agent]\ninterfaces = [\"{DEVICE}\"]\nstate = {:?}\npins = {:?}\nsocket = {:?}\n\
         fail2ban_log = {:?}\nallow = [\"{ALLOWED}\"]\nmax_bans = 65536\ndbpurgeage = \"6m\"\n\
         [filters.{JAIL}]\nfailregex = ['^\\s*app: bad login from <ADDR>$']\n\
         [jails.{JAIL}]\nlogpath = [{}]\nmaxretry = {MAXRETRY}\nfindtime = \"1h\"\n\
         bantime = \"{CONFIGURED}s\"\nprefix_v6 = 128\n",
        stage.file(state),
        stage.pins(),
        stage.file("control.sock"),
        stage.file(REPORT),
        logs.join(", "),
    );
    stage.write("config.toml", &text)?;
    Ok(())
}

/// Everything that belongs to others, as the tools show it.
fn surroundings(stage: &Stage) -> Result<String> {
    let mut text = String::new();
    for words in ["route show table all", "-6 route show table all", "rule", "-6 rule"] {
        text.push_str(&stage.edge.ip(words)?);
    }
    text.push_str(&crate::net::run(stage.edge.command("nft").args(["list", "ruleset"]))?);
    Ok(text)
}

/// The same once it has come to rest: a new link gets its link-local routes a moment later.
fn settled(stage: &Stage) -> Result<String> {
    let mut last = surroundings(stage)?;
    eventually("routes come to rest", LIMIT, || {
        thread::sleep(Duration::from_millis(500));
        let now = surroundings(stage)?;
        let same = now == last;
        last = now;
        Ok(same)
    })?;
    surroundings(stage)
}

fn joined(thread: thread::ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    thread.join().map_err(|_panic| anyhow!("a thread of the ordeal panicked"))?
}

/// The agent that has just come back knows what was acknowledged.
fn audit(scene: &Scene<'_>) -> Result<()> {
    let expected = scene.book.open().expect();
    let done = agent::verb(scene.stage, &["-o", "json", "list"])?;
    ensure!(done.status.success(), "list: {}", String::from_utf8_lossy(&done.stderr));
    let listed = addresses(&done.stdout)?;
    let mut book = scene.book.open();
    book.audit(&expected, &listed);
    // of very many that are restored the log tells only the number: the list names them all
    for address in listed {
        if book.is_due(address) {
            book.sentenced(address, BANTIME);
        }
    }
    Ok(())
}

fn addresses(document: &[u8]) -> Result<HashSet<IpAddr>> {
    let list: serde_json::Value = serde_json::from_slice(document).context("no list")?;
    let bans = list.get("bans").and_then(|bans| bans.as_array()).context("no bans in the list")?;
    let address = |ban: &serde_json::Value| ban.get("address")?.as_str()?.parse().ok();
    Ok(bans.iter().filter_map(address).collect())
}

/// Every offender is banned in the end.
fn settle(scene: &Scene<'_>) -> Result<()> {
    let since = Instant::now();
    loop {
        let missing = scene.book.open().missing();
        if missing.is_empty() || scene.dead.load(Ordering::Acquire) {
            return Ok(());
        }
        if since.elapsed() > CATCH_UP {
            let some: Vec<IpAddr> = missing.iter().take(8).copied().collect();
            let text = format!("{} offenders were never banned: {some:?}", missing.len());
            scene.book.open().fault(text);
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Who was let go comes through, and who is allowed always did.
fn finally(scene: &Scene<'_>) -> Result<()> {
    audit(scene)?;
    let mut free = scene.book.open().free();
    free.sort_unstable();
    free.truncate(PROBED);
    scene.through.lock().unwrap_or_else(PoisonError::into_inner).clear();
    scene.silent.store(false, Ordering::Release);
    let mut wire = Wire::open(&scene.stage.edge)?;
    wire.widen()?;
    flood::probe(scene, &free)?;
    scene.silent.store(true, Ordering::Release);
    flood::receive(scene, &mut wire)?;
    let through = scene.through.lock().unwrap_or_else(PoisonError::into_inner);
    let mut book = scene.book.open();
    for address in free.iter().filter(|address| !through.contains(address)) {
        book.fault(format!("{address} was let go, and its packet was dropped"));
    }
    let (sent, received) = book.tally.allowed;
    if sent != received {
        book.fault(format!("of {sent} packets of the allowed address {received} came through"));
    }
    Ok(())
}

/// Remembers the most memory that it was seen with.
fn weigh(scene: &Scene<'_>, agent: &Agent<'_>) {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    let mut book = scene.book.open();
    book.tally.peak_kib = book.tally.peak_kib.max(kib);
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { allowed: (sent, received), .. } = self.tally;
        let Tally { lines, junk, offenders, rotations, kills, .. } = self.tally;
        let Tally { offences, early, bans, unbans, unanswered, packets, .. } = self.tally;
        let Tally { full_disks, clock_steps, audits, peak_kib, faults, .. } = self.tally;
        let seconds = self.time.as_secs();
        writeln!(f, "seed {}, {seconds} s, {kills} kills, {audits} audits", self.seed)?;
        writeln!(f, "{lines} lines, {junk} of them junk, {rotations} rotations")?;
        writeln!(f, "{offenders} offenders, {offences} reported banned ({early} early)")?;
        writeln!(f, "{bans} bans and {unbans} unbans by hand, {unanswered} unanswered")?;
        writeln!(f, "{packets} packets of banned addresses")?;
        writeln!(f, "{received} of {sent} packets of the allowed address received")?;
        writeln!(f, "{full_disks} full disks, {clock_steps} clock steps")?;
        writeln!(f, "the agent took at most {peak_kib} KiB")?;
        writeln!(f, "faults: {faults}")?;
        self.faults.iter().try_for_each(|fault| writeln!(f, "  {fault}"))
    }
}
