//! Law 4 of the whole core against a plain model: random bans by hand and by jails, unbans, ends,
//! reloads with another allow list, clock steps, a kernel that refuses, reboots, and crashes in the
//! middle of a kernel step, between kernel and disk, and before anybody was told.
//!
//! `BAN_AGENT_SEED` names a case that failed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::oneshot};

use super::{
    Engine,
    command::Command,
    rig::{self, Agent, Random},
    trial::Trial,
};
use crate::{
    clock::{Boot, Now},
    config::{self, Config},
    control::{Call, Release, Reply, Request, Term},
    dataplane::{DataPlane as _, Double, Step as KernelStep, Wire},
    event::Bus,
    jail::Offence,
    ledger::{Holder, Op},
    net::{IpNet, parse_prefix},
    store::CORRECTION,
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

fn prefix(random: &mut Random, of: &[&str]) -> IpNet {
    parse_prefix(random.one(of)).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Ban(IpNet, Option<u64>),
    Offence(IpNet, &'static str, Option<u64>),
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
        0..6 => Step::Ban(prefix(random, &BANNED), time(random)),
        6..11 => Step::Offence(prefix(random, &BANNED), random.one(&["sshd", "web"]), time(random)),
        11..14 => Step::Unban(prefix(random, &BANNED)),
        14 => Step::UnbanAll,
        15..17 => Step::Wait(random.below(30_000)),
        17 => Step::SetClock(random.one(&[3_600_000, -3_600_000, 315_360_000_000, -1500])),
        18 => Step::Allow((0..random.below(3)).map(|_| prefix(random, &ALLOWED)).collect()),
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

/// Watches what the agent does to the maps.
#[derive(Default)]
struct Watch {
    refuses: bool,
    /// Changes to the maps before the agent is killed.
    fuse: Option<u64>,
    /// What has to drop at any time, until then.
    must: BTreeMap<IpNet, Boot>,
}

impl Watch {
    fn before(&mut self, step: KernelStep<'_>, now: Now) -> anyhow::Result<()> {
        anyhow::ensure!(!self.refuses, "not now");
        let KernelStep::Apply(op) = step else { return Ok(()) };
        if self.fuse == Some(0) {
            resume_unwind(Box::new(Killed));
        }
        self.fuse = self.fuse.map(|left| left - 1);
        let (prefix, end) = match op {
            Op::Set(prefix, enforced) => (prefix, enforced.all),
            Op::Clear(prefix) => (prefix, Boot(0)),
        };
        let must = self.must.get(prefix).copied().unwrap_or_default();
        assert!(end >= must || must <= now.boot, "law 1: {op:?}, but it must drop until {must:?}");
        Ok(())
    }
}

/// An agent that is killed may hold it.
fn look<T>(at: &Mutex<T>) -> MutexGuard<'_, T> {
    at.lock().unwrap_or_else(PoisonError::into_inner)
}

struct World {
    folder: TempDir,
    path: PathBuf,
    /// What stands there: to read it takes longer than all the rest.
    config: Config,
    /// Number of the state file, another one after each crash.
    state: u32,
    machine: Arc<Mutex<Double>>,
    watch: Arc<Mutex<Watch>>,
    now: Now,
    runtime: Runtime,
    agent: Option<Agent>,
    claims: Claims,
    allowed: Vec<IpNet>,
    /// Until when, by the wall clock, an unban may forgive what is done.
    forgiven: Timestamp,
}

impl World {
    fn new() -> World {
        // to the millisecond, as everything that is recorded
        let wall = Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap();
        let folder = rig::folder();
        let watch = Arc::new(Mutex::new(Watch::default()));
        let mut machine = Double::new(1, 1024, folder.path().to_owned());
        let its = Arc::clone(&watch);
        machine.before =
            Some(Box::new(move |step: KernelStep<'_>, now| look(&its).before(step, now)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, configuration(&[])).unwrap();
        let mut world = World {
            config: config::load(&path).unwrap(),
            path,
            folder,
            state: 0,
            machine: Arc::new(Mutex::new(machine)),
            watch,
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
        let mut config = self.config.clone();
        config.agent.state = self.state();
        let _inside = self.runtime.enter();
        let card = Box::new(Wire::to(&self.machine));
        let (path, bus) = (self.path.clone(), Bus::default());
        let mut agent = Agent::new(config, path, card, Trial::Over, bus, self.now);
        agent.core.restore(self.now);
        self.agent = Some(agent);
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
            Step::Offence(prefix, jail, time) => {
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
        if matches!(step, Step::Offence(..)) && forgiving > 0 {
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
            let mut watch = look(&self.watch);
            watch.must = ends(&certain);
            watch.fuse = fuse;
            if let Step::Refuse(on) = step {
                watch.refuses = *on;
            }
        }
        let done = catch_unwind(AssertUnwindSafe(|| self.perform(step)));
        look(&self.watch).fuse = None;
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
        let call = |core: &mut Engine, request| {
            let (reply, answer) = oneshot::channel();
            core.handle(std::iter::once(Command::Call(Call {
                request,
                reply,
                user: None,
                more: false,
                quiet: false,
            })));
            Some(answer)
        };
        let unban =
            |targets: Vec<IpNet>, all| Request::Unban { targets, all, jail: None, reason: None };
        // its timer fires for what ends by now
        core.expire(now);
        match step {
            Step::Ban(prefix, time) => {
                let request = Request::Ban {
                    targets: vec![*prefix],
                    duration: Some(
                        time.map_or(Term::Forever, |ms| Term::For(Duration::from_millis(ms))),
                    ),
                    jail: None,
                    ports: Vec::new(),
                    reason: None,
                    force: false,
                };
                call(core, request)
            }
            Step::Offence(prefix, jail, time) => {
                let offence = Offence {
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
                core.handle(std::iter::once(Command::Offence { jail, offence, read, ack: None }));
                None
            }
            Step::Unban(prefix) => call(core, unban(vec![*prefix], false)),
            Step::UnbanAll => {
                let (reply, answer) = oneshot::channel();
                let (jail, after, user, reason) = (None, None, None, None);
                let release = Release { jail, after, reply, user, reason, quiet: false };
                core.handle(std::iter::once(Command::Release(release)));
                drop(answer);
                call(core, unban(Vec::new(), false))
            }
            Step::Wait(_) => None,
            Step::SetClock(_) => {
                core.clocks_changed(now);
                core.finish_chores(now);
                None
            }
            Step::Allow(_) => call(core, Request::Reload),
            Step::Refuse(_) => {
                core.retry(now);
                core.finish_chores(now);
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
                assert!(!refused || look(&self.watch).refuses, "{reply:?}");
            }
            durable.await.unwrap();
        });
    }

    /// Kills the agent and starts another over what is on disk; the maps go with a reboot.
    fn crash(&mut self, reboot: bool) {
        let from = self.state();
        self.state += 1;
        rig::copy_state(&from, &self.state());
        self.agent = None;
        let mut machine = look(&self.machine);
        {
            let mut watch = look(&self.watch);
            (watch.refuses, watch.fuse) = (false, None);
            if reboot {
                watch.must.clear();
            }
        }
        machine.restart();
        if reboot {
            machine.reboot();
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
        let core = &self.agent.as_ref().unwrap().core;
        let refuses = look(&self.watch).refuses;
        let mut machine = look(&self.machine);
        let held = machine.held().unwrap().into_iter();
        let held: BTreeMap<IpNet, Boot> =
            held.map(|held| (held.prefix, held.enforced.all)).collect();
        let wanted = ends(&self.claims);
        let all: BTreeSet<_> = held.keys().chain(wanted.keys()).collect();
        for prefix in all {
            let (is, wanted) = (held.get(prefix), wanted.get(prefix));
            let same = match (is, wanted) {
                (Some(Boot(is)), Some(Boot(wanted))) => is.abs_diff(*wanted) <= TICK_MS,
                (is, wanted) => is == wanted,
            };
            let waits = refuses && core.pending.contains(prefix);
            assert!(same || waits, "law 1: {prefix} is {is:?} in the kernel, not {wanted:?}");
        }
        if !refuses {
            assert!(core.pending.is_empty(), "{:?} are not retried", core.pending);
            let allowed = machine.allows(&core.ledger.never_dropped()).unwrap();
            let known = self.allowed.iter().all(|net| core.ledger.never_dropped().contains(net));
            assert!(allowed && known, "law 2");
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

fn case(seed: u64, steps: u32) {
    let mut random = Random::new(seed);
    let mut world = World::new();
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

#[test]
fn the_core_keeps_the_laws_over_crashes() {
    let named = std::env::var("BAN_AGENT_SEED").ok().map(|seed| seed.parse().unwrap());
    let first = named.unwrap_or_else(|| Timestamp::now().as_second().unsigned_abs() * 1000);
    for seed in first..first + named.map_or(60, |_| 1) {
        case(seed, 40);
    }
}
