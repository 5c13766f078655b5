//! Laws 1 to 4 of the whole core against a plain model: random bans by hand and by jails, unbans,
//! ends, reloads with another allow list, clock steps, a kernel that refuses, reboots, and crashes
//! in the middle of a kernel step, between kernel and disk, and before anybody was told.
//!
//! `BAN_AGENT_SEED` names a case that failed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
};

use super::{
    Options,
    core::Core,
    message::{Handled, Message},
    trial::Trial,
    wiring::Wiring,
};
use crate::{
    clock::{Boot, Now},
    config::{self, Config},
    control::{Call, Reply, Request, Term},
    event::Bus,
    jail::Sentence,
    kernel::{
        Ahead, Attached, Card, Enforcer, Error, Held, Hits, Hold, Memory, Options as KernelOptions,
        Sweep, Verdicts, Xdp, check_bpffs,
    },
    ledger::{Holder, Op},
    net::{IpNet, parse_prefix},
    store::{CORRECTION, Store},
};

/// What the model holds: who claims what, until when.
type Claims = BTreeMap<(IpNet, Holder), Boot>;

/// The kernel may end a ban by so much later: a tick, as it was measured.
const TICK_MS: u64 = 20;
/// How long a reboot takes, and how long the machine is up when the agent starts.
const DOWN_MS: u64 = 7_000;
const UP: Boot = Boot(5_000);
const BANNED: [&str; 8] = [
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.0/24",
    "10.0.1.1",
    "192.0.2.1",
    "2001:db8::1",
    "2001:db8::/64",
    "2001:db8::2",
];
const ALLOWED: [&str; 5] = ["10.0.0.2", "10.0.0.0/25", "192.0.2.0/24", "2001:db8::1", "10.0.1.1"];

/// xorshift64* (Vigna 2016).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % limit
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    fn prefix(&mut self, of: &[&str]) -> IpNet {
        parse_prefix(self.one(of)).unwrap()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Ban(IpNet, Option<u64>),
    Sentence(IpNet, &'static str, Option<u64>),
    Unban(IpNet),
    UnbanAll,
    Wait(u64),
    SetClock(i64),
    Allow(Vec<IpNet>),
    Refuse(bool),
}

/// How the agent comes through a step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Lives,
    /// Killed after so many changes to the maps, or before it could tell anybody.
    Dies(u64),
    /// The same, and the maps are gone.
    Reboots(u64),
}

fn step(random: &mut Random) -> Step {
    let time = |random: &mut Random| {
        let seconds = random.below(7);
        (seconds > 0).then(|| seconds * 10_000 + random.below(1000))
    };
    match random.below(20) {
        0..6 => Step::Ban(random.prefix(&BANNED), time(random)),
        6..11 => Step::Sentence(random.prefix(&BANNED), random.one(&["sshd", "web"]), time(random)),
        11..14 => Step::Unban(random.prefix(&BANNED)),
        14 => Step::UnbanAll,
        15..17 => Step::Wait(random.below(30_000)),
        17 => Step::SetClock(random.one(&[3_600_000, -3_600_000, 315_360_000_000, -1500])),
        18 => Step::Allow((0..random.below(3)).map(|_| random.prefix(&ALLOWED)).collect()),
        _ => Step::Refuse(random.below(2) == 0),
    }
}

fn fate(random: &mut Random) -> Fate {
    match random.below(8) {
        0 => Fate::Dies(random.below(4)),
        1 => Fate::Reboots(random.below(4)),
        _ => Fate::Lives,
    }
}

/// The agent was killed.
struct Killed;

/// What outlives the agent.
struct Machine {
    maps: Box<dyn Enforcer>,
    allowed: Vec<IpNet>,
    refuses: bool,
    /// Changes to the maps before the agent is killed.
    fuse: Option<u64>,
    /// What has to drop at any time, until then.
    must: BTreeMap<IpNet, Boot>,
}

impl Machine {
    fn look(machine: &Mutex<Machine>) -> MutexGuard<'_, Machine> {
        machine.lock().unwrap()
    }

    fn change(&mut self, op: &Op, now: Now) -> anyhow::Result<()> {
        let (prefix, end) = match op {
            Op::Set(prefix, enforced) => (prefix, enforced.all),
            Op::Clear(prefix) => (prefix, Boot(0)),
        };
        let must = self.must.get(prefix).copied().unwrap_or_default();
        assert!(end >= must || must <= now.boot, "law 1: {op:?}, but it must drop until {must:?}");
        self.maps.apply(std::slice::from_ref(op), now)
    }

    fn held(&mut self) -> BTreeMap<IpNet, Boot> {
        let held = self.maps.held().unwrap().into_iter();
        held.map(|held| (held.prefix, held.enforced.all)).collect()
    }
}

/// The agent's way to it.
struct Wire {
    machine: Arc<Mutex<Machine>>,
    folder: PathBuf,
}

impl Enforcer for Wire {
    fn apply(&mut self, ops: &[Op], now: Now) -> anyhow::Result<()> {
        for op in ops {
            let mut machine = Machine::look(&self.machine);
            anyhow::ensure!(!machine.refuses, "not now");
            if machine.fuse == Some(0) {
                drop(machine);
                resume_unwind(Box::new(Killed));
            }
            machine.fuse = machine.fuse.map(|left| left - 1);
            machine.change(op, now)?;
        }
        Ok(())
    }

    fn hits(&mut self, prefixes: &[IpNet]) -> anyhow::Result<Vec<Hits>> {
        Machine::look(&self.machine).maps.hits(prefixes)
    }

    fn each_held(&mut self, visit: &mut dyn FnMut(Held)) -> anyhow::Result<()> {
        Machine::look(&self.machine).maps.each_held(visit)
    }

    fn sweep(&mut self, sweep: &mut Sweep, count: usize) -> anyhow::Result<Vec<IpNet>> {
        Machine::look(&self.machine).maps.sweep(sweep, count)
    }

    fn allows(&mut self, prefixes: &[IpNet]) -> anyhow::Result<bool> {
        Machine::look(&self.machine).maps.allows(prefixes)
    }

    fn allow(&mut self, prefixes: &[IpNet]) -> anyhow::Result<()> {
        let mut machine = Machine::look(&self.machine);
        anyhow::ensure!(!machine.refuses, "not now");
        machine.allowed = prefixes.to_vec();
        machine.maps.allow(prefixes)
    }
}

impl Card for Wire {
    fn interfaces(&self) -> &[Attached] {
        &[]
    }

    fn check_interfaces(&mut self) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    fn look(&mut self) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    fn pin_trouble(&self) -> Option<&str> {
        None
    }

    fn uncovered(&self) -> &[String] {
        &[]
    }

    fn hold(&mut self, _: Hold) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    fn resize(&mut self, _: u32) -> Result<bool, Error> {
        Ok(false)
    }

    fn capacity(&self) -> u32 {
        1024
    }

    fn is_dry_run(&self) -> bool {
        false
    }

    fn set_sampling(&self, _: u32) {}

    fn verdicts(&self, _: Option<&Attached>) -> Result<Verdicts, Error> {
        Ok(Verdicts::default())
    }

    fn ahead(&self) -> Ahead {
        Ahead::at(&self.folder)
    }

    fn detach(self: Box<Self>) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }
}

/// The running agent; its other ends are kept open.
struct Agent {
    core: Core,
    _messages: mpsc::Receiver<Message>,
    _handled: mpsc::UnboundedReceiver<Handled>,
}

struct World {
    folder: TempDir,
    path: PathBuf,
    /// What stands there: to read it takes longer than all the rest.
    config: Config,
    /// Number of the state file, another one after each crash.
    state: u32,
    machine: Arc<Mutex<Machine>>,
    now: Now,
    runtime: Runtime,
    agent: Option<Agent>,
    claims: Claims,
    allowed: Vec<IpNet>,
    /// Until when, by the wall clock, an unban may forgive what is done.
    forgiven: Timestamp,
}

impl World {
    fn new(maps: Box<dyn Enforcer>) -> World {
        // to the millisecond, as everything that is recorded
        let wall = Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap();
        let machine = Machine {
            maps,
            allowed: Vec::new(),
            refuses: false,
            fuse: None,
            must: BTreeMap::new(),
        };
        // nothing is worth a disk's time: what a power cut leaves is SQLite's matter
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let folder = folder.unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, configuration(&[])).unwrap();
        let mut world = World {
            config: config::load(&path).unwrap(),
            path,
            folder,
            state: 0,
            machine: Arc::new(Mutex::new(machine)),
            now: Now { boot: Boot(Now::read().boot.0 + 100_000), wall },
            runtime,
            agent: None,
            claims: Claims::new(),
            allowed: Vec::new(),
            forgiven: wall,
        };
        world.start();
        world
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join(format!("state-{}.sqlite", self.state))
    }

    fn start(&mut self) {
        self.now.fake();
        let config = self.config.clone();
        let mut agent = config.agent.clone();
        agent.state = self.state();
        let options =
            Options { path: self.path.clone(), config, agent, replace: false, grace: None };
        let wire =
            Wire { machine: Arc::clone(&self.machine), folder: self.folder.path().to_owned() };
        let store = Store::open(&self.state()).unwrap();
        let bus = Bus::default();
        let (sender, messages) = mpsc::channel(16);
        let (acks, handled) = mpsc::unbounded_channel();
        let wiring = Wiring::new(sender, acks, bus.clone());
        let _inside = self.runtime.enter();
        let mut core =
            Core::new(options, Box::new(wire), store, Trial::Over, wiring, bus, self.now);
        core.restore(self.now);
        self.agent = Some(Agent { core, _messages: messages, _handled: handled });
    }

    /// For how many milliseconds more an earlier unban may forgive what is done now.
    fn forgiving(&self) -> u64 {
        let left = self.forgiven.duration_since(self.now.wall).as_millis();
        u64::try_from(left).map_or(0, |left| left + 1)
    }

    /// The law of the model: what a step does to the claims.
    fn expected(&self, step: &Step) -> Claims {
        let mut claims = self.claims.clone();
        let end = |time: Option<u64>| time.map_or(Boot::NEVER, |time| self.now.boot.plus(time));
        let mut claim = |prefix: IpNet, holder: Holder, until: Boot| {
            let old = claims.entry((prefix, holder)).or_insert(until);
            *old = until.max(*old);
        };
        match step {
            Step::Ban(prefix, time) => {
                if !self.allowed.iter().any(|net| net.contains(prefix)) {
                    claim(*prefix, Holder::Manual, end(*time));
                }
            }
            Step::Sentence(prefix, jail, time) => {
                let meets = |net: &IpNet| net.contains(prefix) || prefix.contains(net);
                if !self.allowed.iter().any(meets) {
                    claim(*prefix, Holder::Jail((*jail).into()), end(*time));
                }
            }
            Step::Unban(prefix) => claims.retain(|(banned, _), _| banned != prefix),
            Step::UnbanAll => claims.clear(),
            Step::Allow(allowed) => {
                claims.retain(|(banned, _), _| !allowed.iter().any(|net| net.contains(banned)));
            }
            Step::Wait(_) | Step::SetClock(_) | Step::Refuse(_) => {}
        }
        claims
    }

    fn take(&mut self, step: &Step, fate: Fate) {
        let forgiving = self.forgiving();
        if matches!(step, Step::Sentence(..)) && forgiving > 0 {
            self.take(&Step::Wait(forgiving), Fate::Lives);
        }
        // no two steps in the same millisecond: an unban forgives all of it
        let waits = if let Step::Wait(time) = step { *time } else { 0 };
        self.now.boot = self.now.boot.plus(waits + 1);
        self.now.wall += Duration::from_millis(waits + 1);
        if let Step::SetClock(by) = step {
            self.now.wall += jiff::SignedDuration::from_millis(*by);
            self.forgiven = self.forgiven.min(self.now.wall + CORRECTION);
        }
        if matches!(step, Step::Unban(_) | Step::UnbanAll) {
            self.forgiven = self.forgiven.max(self.now.wall);
        }
        self.now.fake();
        let before = self.live(&self.claims);
        let after = self.live(&self.expected(step));
        if let Step::Allow(allowed) = step {
            self.allowed.clone_from(allowed);
            self.config.agent.allow.clone_from(allowed);
            fs::write(&self.path, configuration(allowed)).unwrap();
        }
        let certain: Claims = before
            .iter()
            .filter_map(|(who, end)| Some((who.clone(), *after.get(who)?.min(end))))
            .collect();
        let fuse = match fate {
            // until it is recorded that the clock was set, a reboot goes by the clock as it was
            _ if matches!(step, Step::SetClock(_)) => None,
            Fate::Lives => None,
            Fate::Dies(fuse) | Fate::Reboots(fuse) => Some(fuse),
        };
        {
            let mut machine = Machine::look(&self.machine);
            machine.must = ends(&certain);
            machine.fuse = fuse;
            if let Step::Refuse(on) = step {
                machine.refuses = *on;
            }
        }
        let done = catch_unwind(AssertUnwindSafe(|| self.perform(step)));
        Machine::look(&self.machine).fuse = None;
        let receipt = match done {
            Ok(receipt) => receipt,
            Err(panic) if panic.is::<Killed>() => None,
            Err(panic) => resume_unwind(panic),
        };
        if fate == Fate::Lives || matches!(step, Step::SetClock(_)) {
            self.settle(receipt);
            self.claims = after.clone();
            self.check();
        }
        if fate == Fate::Lives {
            return;
        }
        let died = self.now;
        self.crash(matches!(fate, Fate::Reboots(_)));
        // what was reported stays; what was not may have happened or not
        let (before, after) = (self.carried(&before, died), self.carried(&after, died));
        let found = self.found();
        let all: BTreeSet<_> =
            before.keys().chain(after.keys()).chain(found.keys()).cloned().collect();
        for who in all {
            let (was, wanted, is) = (before.get(&who), after.get(&who), found.get(&who));
            assert!(
                is == was || is == wanted,
                "law 4: {who:?} is held until {is:?}; before the crash {was:?}, wanted {wanted:?}"
            );
        }
        self.claims = found;
        self.settle(None);
        self.check();
    }

    fn perform(&mut self, step: &Step) -> Option<oneshot::Receiver<Reply>> {
        let now = self.now;
        let _inside = self.runtime.enter();
        let core = &mut self.agent.as_mut().unwrap().core;
        let call = |core: &mut Core, request| {
            let (reply, answer) = oneshot::channel();
            core.handle(std::iter::once(Message::Call(Call { request, reply, user: None })));
            Some(answer)
        };
        let unban = |targets: Vec<IpNet>, all| Request::Unban { targets, all, jail: None };
        match step {
            Step::Ban(prefix, time) => {
                let request = Request::Ban {
                    targets: vec![*prefix],
                    duration: Some(time.map_or(Term::Forever, Term::Millis)),
                    jail: None,
                    ports: Vec::new(),
                    reason: None,
                    force: false,
                };
                call(core, request)
            }
            Step::Sentence(prefix, jail, time) => {
                let sentence = Sentence {
                    prefix: *prefix,
                    address: *prefix,
                    duration: time.map(Duration::from_millis),
                    ports: Vec::new(),
                    evidence: vec![Box::from(&b"line"[..])],
                    fields: BTreeMap::new(),
                    time: now.wall,
                    failures: 1,
                };
                let (jail, read) = ((*jail).into(), std::time::Instant::now());
                core.handle(std::iter::once(Message::Sentence { jail, sentence, read }));
                None
            }
            Step::Unban(prefix) => call(core, unban(vec![*prefix], false)),
            Step::UnbanAll => call(core, unban(Vec::new(), true)),
            Step::Wait(_) => {
                core.expire(now);
                None
            }
            Step::SetClock(_) => {
                core.clocks_changed(now);
                None
            }
            Step::Allow(_) => call(core, Request::Reload),
            Step::Refuse(_) => {
                core.retry(now);
                None
            }
        }
    }

    /// Waits until everybody was told.
    fn settle(&mut self, receipt: Option<oneshot::Receiver<Reply>>) {
        let core = &mut self.agent.as_mut().unwrap().core;
        let durable = core.store.barrier();
        self.runtime.block_on(async {
            if let Some(receipt) = receipt {
                let reply = receipt.await.unwrap();
                let refused = matches!(reply, Reply::Error(_));
                assert!(!refused || Machine::look(&self.machine).refuses, "{reply:?}");
            }
            durable.await.unwrap();
        });
    }

    /// Kills the agent and starts another over what is on disk; the maps go with a reboot.
    fn crash(&mut self, reboot: bool) {
        let from = self.state();
        self.state += 1;
        // what was committed by now; a file that is torn is tried with real processes
        let disk = Connection::open(from).unwrap();
        disk.busy_timeout(Duration::from_secs(60)).unwrap();
        disk.execute("VACUUM INTO ?1", [self.state().to_str().unwrap()]).unwrap();
        drop(disk);
        // it may still write into the old file: nobody reads that any more
        self.agent = None;
        let mut machine = Machine::look(&self.machine);
        machine.refuses = false;
        if reboot {
            machine.must.clear();
            let gone: Vec<Op> = machine.held().into_keys().map(Op::Clear).collect();
            machine.maps.apply(&gone, self.now).unwrap();
            machine.maps.allow(&[]).unwrap();
            let disk = Connection::open(self.state()).unwrap();
            disk.execute("UPDATE boots SET boot_id = 'earlier ' || id", []).unwrap();
            self.now.wall += Duration::from_millis(DOWN_MS);
            self.now.boot = UP;
        }
        drop(machine);
        self.start();
    }

    fn live(&self, claims: &Claims) -> Claims {
        let live = claims.iter().filter(|(_, until)| **until > self.now.boot);
        live.map(|(who, until)| (who.clone(), *until)).collect()
    }

    /// What a crash then leaves of claims. After a reboot it is the rest of their time by the wall
    /// clock.
    fn carried(&self, claims: &Claims, died: Now) -> Claims {
        let rebooted = self.now.boot == UP;
        let carried = |until: Boot| {
            if !rebooted || until == Boot::NEVER {
                return until;
            }
            Boot((UP.0 + until.0).saturating_sub(died.boot.0 + DOWN_MS))
        };
        let claims = claims.iter().map(|(who, until)| (who.clone(), carried(*until)));
        self.live(&claims.collect())
    }

    /// What the ledger holds.
    fn found(&self) -> Claims {
        let ledger = &self.agent.as_ref().unwrap().core.ledger;
        let claims = ledger.iter().flat_map(|ban| ban.claims().collect::<Vec<_>>());
        claims.map(|claim| ((claim.prefix, claim.holder), claim.until)).collect()
    }

    /// The ledger is the model's, and the kernel enforces it, or it is known what it does not.
    fn check(&self) {
        assert_eq!(self.found(), self.claims, "law 3");
        let pending = &self.agent.as_ref().unwrap().core.pending;
        let mut machine = Machine::look(&self.machine);
        let (held, wanted) = (machine.held(), ends(&self.claims));
        let all: BTreeSet<_> = held.keys().chain(wanted.keys()).collect();
        for prefix in all {
            let (is, wanted) = (held.get(prefix), wanted.get(prefix));
            let same = match (is, wanted) {
                (Some(Boot(is)), Some(Boot(wanted))) => is.abs_diff(*wanted) <= TICK_MS,
                (is, wanted) => is == wanted,
            };
            let waits = machine.refuses && pending.contains(prefix);
            assert!(same || waits, "law 1: {prefix} is {is:?} in the kernel, not {wanted:?}");
        }
        if !machine.refuses {
            assert!(pending.is_empty(), "{pending:?} are not retried");
            let missing = self.allowed.iter().find(|net| !machine.allowed.contains(net));
            assert_eq!(missing, None, "law 2");
        }
    }
}

fn configuration(allowed: &[IpNet]) -> String {
    let allowed: Vec<String> = allowed.iter().map(|net| format!("\"{net}\"")).collect();
    format!("[agent]\ninterfaces = [\"lo\"]\nallow = [{}]\n", allowed.join(", "))
}

/// The end of a prefix is the latest end of its claims.
fn ends(claims: &Claims) -> BTreeMap<IpNet, Boot> {
    let mut ends = BTreeMap::new();
    for ((prefix, _), until) in claims {
        let end = ends.entry(*prefix).or_insert(*until);
        *end = (*until).max(*end);
    }
    ends
}

fn case(seed: u64, steps: u32, maps: Box<dyn Enforcer>) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut world = World::new(maps);
    let mut taken = Vec::new();
    for _ in 0..steps {
        let (step, fate) = (step(&mut random), fate(&mut random));
        taken.push((step.clone(), fate));
        let done = catch_unwind(AssertUnwindSafe(|| world.take(&step, fate)));
        if let Err(panic) = done {
            eprintln!("BAN_AGENT_SEED={seed}, after");
            taken.iter().for_each(|step| eprintln!("  {step:?}"));
            resume_unwind(panic);
        }
    }
}

fn cases(count: u64, steps: u32, maps: impl Fn() -> Box<dyn Enforcer>) {
    let named = std::env::var("BAN_AGENT_SEED").ok().map(|seed| seed.parse().unwrap());
    let first = named.unwrap_or_else(|| Timestamp::now().as_second().unsigned_abs() * 1000);
    for seed in first..first + named.map_or(count, |_| 1) {
        case(seed, steps, maps());
    }
}

#[test]
fn the_core_keeps_the_laws_in_memory() {
    cases(60, 40, || Box::new(Memory::default()));
}

#[test]
fn the_core_keeps_the_laws_with_real_maps() {
    let pins = PathBuf::from(format!("/sys/fs/bpf/ban-agent-laws-{}", std::process::id()));
    let options = KernelOptions { pins: pins.clone(), max_bans: 1024, ..KernelOptions::default() };
    if !rustix::process::geteuid().is_root() || check_bpffs(&pins).is_err() {
        println!(
            "SKIPPED the_core_keeps_the_laws_with_real_maps: needs root and a BPF file system"
        );
        return;
    }
    let done = catch_unwind(|| {
        cases(4, 40, || {
            let mut maps = Xdp::load(options.clone()).unwrap();
            let held = maps.held().unwrap().into_iter();
            let clear: Vec<Op> = held.map(|held| Op::Clear(held.prefix)).collect();
            maps.apply(&clear, Now::read()).unwrap();
            Box::new(maps)
        });
    });
    fs::remove_dir_all(&pins).unwrap();
    done.unwrap_or_else(|panic| resume_unwind(panic));
}
