//! Laws 1 to 3 where good parts meet: batches of messages over a few addresses, jails with ports of
//! their own, networks that follow from their members, several unbans at once, allow lists, a full
//! table, kernel steps and resizes that fail anywhere, several interfaces. The whole core over the
//! real bookkeeping of the maps; a plain list of claims says what each address has to meet.
//!
//! `BAN_AGENT_SEED` names a case that failed, `BAN_AGENT_STEPS` how many steps there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use ban_common::Verdict;
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
    jail::{self, Sentence, Widen},
    kernel::{Ahead, Attached, Card, Double, Enforcer, Error, Held, Hits, Hold, To, Verdicts},
    ledger::{Holder, Op},
    net::{IpNet, Ports, Proto, parse_ports, parse_prefix},
    store::Store,
};

const HOSTS: [&str; 8] = [
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.3",
    "10.0.1.1",
    "2001:db8:0:1::1",
    "2001:db8:0:1::2",
    "2001:db8:0:2::1",
    "2001:db8:0:3::1",
];
const NETS: [&str; 8] = [
    "10.0.0.0/24",
    "10.0.0.0/30",
    "10.0.0.0/14",
    "2001:db8:0:1::/64",
    "2001:db8:0:2::/64",
    "2001:db8::/56",
    "2001:db8::/48",
    "2001:db8::/33",
];
const ALLOWED: [&str; 6] =
    ["10.0.0.2", "10.0.0.0/31", "10.0.0.0/24", "2001:db8:0:1::1", "2001:db8:0:2::/63", "10.0.1.1"];
const TO: [To; 4] = [Some((Proto::Tcp, 22)), Some((Proto::Tcp, 80)), Some((Proto::Udp, 53)), None];
/// As long as a tick of the double: no end lies within one.
const TICK: u64 = 4;
const SIZES: [u32; 4] = [64, 32, 9, 5];

/// What a claim is, beside its end.
type Who = (IpNet, Holder, Ports, bool);
type Claims = BTreeMap<Who, Boot>;

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

    fn prefix(&mut self) -> IpNet {
        let text = if self.below(4) == 0 { self.one(&NETS) } else { self.one(&HOSTS) };
        parse_prefix(text).unwrap()
    }

    fn jail(&mut self) -> usize {
        self.one(&[0, 1, 2])
    }

    fn time(&mut self) -> Option<u64> {
        let seconds = self.below(8);
        (seconds > 0).then(|| seconds * 10_000 + self.below(250) * TICK)
    }
}

/// A jail's name, and the ports of its bans.
fn jails() -> [(&'static str, Ports); 3] {
    let ports = |text| parse_ports(text).unwrap();
    [("sshd", ports("tcp/22")), ("web", ports("tcp/80,443")), ("slow", Ports::new())]
}

fn rule(holder: &Holder) -> Option<Widen> {
    let Holder::Jail(name) = holder else { return None };
    (&**name != "web").then(|| Widen {
        members: 3,
        v4: vec![24],
        v6: vec![64, 48],
        translators: Default::default(),
    })
}

#[derive(Clone, Debug)]
enum Word {
    Offence(IpNet, usize, Option<u64>),
    Ban(IpNet, Option<u64>, Ports),
    Unban(Vec<IpNet>, Option<usize>),
    UnbanAll(Option<usize>),
}

#[derive(Clone, Debug)]
enum Step {
    Batch(Vec<Word>),
    Wait(u64),
    Allow(Vec<IpNet>),
    Resize(u32),
    Restart,
}

fn word(random: &mut Random) -> Word {
    match random.below(32) {
        0..22 => Word::Offence(random.prefix(), random.jail(), random.time()),
        22..26 => {
            let ports = random.one(&["", "tcp/25", "tcp/22", "tcp/80,443", "udp/53"]);
            let ports = if ports.is_empty() { Ports::new() } else { parse_ports(ports).unwrap() };
            Word::Ban(random.prefix(), random.time(), ports)
        }
        26..31 => {
            let targets = (0..=random.below(5)).map(|_| random.prefix()).collect();
            Word::Unban(targets, (random.below(3) == 0).then(|| random.jail()))
        }
        _ => Word::UnbanAll((random.below(2) == 0).then(|| random.jail())),
    }
}

fn step(random: &mut Random, restarts: bool) -> Step {
    match random.below(32) {
        0..24 => {
            let most = random.one(&[1, 2, 4, 8, 32]);
            Step::Batch((0..=random.below(most)).map(|_| word(random)).collect())
        }
        24..28 => Step::Wait(random.below(5_000) * TICK),
        28..30 => {
            let nets = (0..random.below(3)).map(|_| parse_prefix(random.one(&ALLOWED)).unwrap());
            Step::Allow(nets.collect())
        }
        30 if restarts => Step::Restart,
        _ => Step::Resize(random.one(&SIZES)),
    }
}

/// The agent's way to the maps.
struct Wire(Arc<Mutex<Double>>, PathBuf);

impl Wire {
    fn double(&self) -> MutexGuard<'_, Double> {
        self.0.lock().unwrap()
    }
}

impl Enforcer for Wire {
    fn apply(&mut self, ops: &[Op], now: Now) -> anyhow::Result<()> {
        self.double().apply(ops, now)
    }

    fn hits(&mut self, prefixes: &[IpNet]) -> anyhow::Result<Vec<Hits>> {
        self.double().hits(prefixes)
    }

    fn each_held(&mut self, visit: &mut dyn FnMut(Held)) -> anyhow::Result<()> {
        self.double().each_held(visit)
    }

    fn allow(&mut self, prefixes: &[IpNet]) -> anyhow::Result<()> {
        self.double().allow(prefixes)
    }
}

impl Card for Wire {
    fn interfaces(&self) -> &[Attached] {
        &[]
    }

    fn check_interfaces(&mut self) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    fn hold(&mut self, _: Hold) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    fn resize(&mut self, max_bans: u32) -> Result<bool, Error> {
        self.double().resize(max_bans)
    }

    fn capacity(&self) -> u32 {
        self.double().capacity()
    }

    fn is_dry_run(&self) -> bool {
        false
    }

    fn set_sampling(&self, _: u32) {}

    fn verdicts(&self, _: Option<&Attached>) -> Result<Verdicts, Error> {
        Ok(Verdicts::default())
    }

    fn ahead(&self) -> Ahead {
        Ahead::at(&self.1)
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

/// A list of claims, and nothing clever.
#[derive(Default)]
struct Model {
    claims: Claims,
    allowed: Vec<IpNet>,
    /// Who was let go in this batch: of which holder, or of all.
    forgiven: Vec<(Option<IpNet>, Option<Holder>)>,
}

impl Model {
    fn put(&mut self, who: Who, until: Boot, now: Boot) -> bool {
        let (prefix, holder, ..) = &who;
        let manual = *holder == Holder::Manual;
        let refused = |net: &IpNet| net.contains(prefix) || (!manual && prefix.contains(net));
        if until <= now || self.allowed.iter().any(refused) {
            return false;
        }
        let old = self.claims.insert(who.clone(), until);
        if let Some(old) = old.filter(|old| *old >= until) {
            self.claims.insert(who, old);
            return false;
        }
        true
    }

    fn offence(&mut self, prefix: IpNet, holder: &Holder, ports: &Ports, until: Boot, now: Boot) {
        let forgives = |(net, of): &(Option<IpNet>, Option<Holder>)| {
            net.is_none_or(|net| net == prefix) && of.as_ref().is_none_or(|of| of == holder)
        };
        if self.forgiven.iter().any(forgives) {
            return;
        }
        if !self.put((prefix, holder.clone(), ports.clone(), false), until, now) {
            return;
        }
        let mut narrower = prefix;
        while let Some(wider) = wider(holder, narrower) {
            let Some(until) = self.third(wider, holder, ports) else { return };
            if !self.put((wider, holder.clone(), ports.clone(), true), until, now) {
                return;
            }
            narrower = wider;
        }
    }

    /// Until when a network has three banned members.
    fn third(&self, network: IpNet, holder: &Holder, ports: &Ports) -> Option<Boot> {
        let mut ends: BTreeMap<IpNet, Boot> = BTreeMap::new();
        for ((prefix, of, on, _), until) in &self.claims {
            let member = match network.prefix_len() {
                48 => prefix.prefix_len() <= 64,
                _ => true,
            };
            if member
                && network.contains(prefix)
                && *prefix != network
                && of == holder
                && on == ports
            {
                let end = ends.entry(*prefix).or_insert(*until);
                *end = (*until).max(*end);
            }
        }
        let mut ends: Vec<Boot> = ends.into_values().collect();
        ends.sort_unstable();
        ends.iter().rev().nth(2).copied()
    }

    /// Lets go of claims, and then of what followed from them.
    fn lift(&mut self, gone: impl Fn(&Who) -> bool) {
        let lifted: BTreeSet<Who> = self.claims.keys().filter(|who| gone(who)).cloned().collect();
        self.claims.retain(|who, _| !lifted.contains(who));
        let mut from: Vec<Who> = lifted.into_iter().collect();
        while let Some((prefix, holder, ports, _)) = from.pop() {
            let derived: Vec<Who> = self.claims.keys().filter(|who| who.3).cloned().collect();
            let mut around: Vec<Who> = derived
                .into_iter()
                .filter(|who| {
                    who.0.contains(&prefix) && who.0 != prefix && who.1 == holder && who.2 == ports
                })
                .collect();
            around.sort_by_key(|who| u8::MAX - who.0.prefix_len());
            for who in around {
                match self.third(who.0, &holder, &ports) {
                    Some(until) => {
                        let end = self.claims.get_mut(&who).unwrap();
                        *end = until.min(*end);
                    }
                    None => {
                        self.claims.remove(&who);
                        from.push(who);
                    }
                }
            }
        }
    }

    /// What a packet has to meet.
    fn drops(&self, source: IpAddr, to: To, now: Boot) -> bool {
        let on = |ports: &Ports| {
            ports.is_empty()
                || to.is_some_and(|(proto, port)| {
                    ports.iter().any(|range| {
                        range.proto == proto && range.low <= port && port <= range.high
                    })
                })
        };
        let mut claims = self.claims.iter();
        let banned = claims.any(|((prefix, _, ports, _), until)| {
            *until > now && prefix.contains(&source) && on(ports)
        });
        banned && !self.allowed.iter().any(|net| net.contains(&source))
    }
}

/// The network that a holder's ban of `prefix` counts for.
fn wider(holder: &Holder, prefix: IpNet) -> Option<IpNet> {
    let rule = rule(holder)?;
    let lengths = if matches!(prefix, IpNet::V4(_)) { rule.v4 } else { rule.v6 };
    let length = lengths.into_iter().find(|length| *length < prefix.prefix_len())?;
    Some(IpNet::new(prefix.addr(), length).unwrap().trunc())
}

struct World {
    folder: TempDir,
    config: Config,
    /// The number of the state file; `None`: there is no disk at all.
    state: Option<u32>,
    double: Arc<Mutex<Double>>,
    now: Now,
    runtime: Runtime,
    agent: Option<Agent>,
    model: Model,
    /// Of the last batch: nothing is done for a client that is gone.
    answers: Vec<oneshot::Receiver<Reply>>,
    /// Claims that had to make room, and those that found none.
    evicted: u64,
    refused: u64,
}

impl World {
    fn new(disk: bool) -> World {
        let wall = Timestamp::from_millisecond(1_790_000_000_000).unwrap();
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        let folder = folder.unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, "[agent]\ninterfaces = [\"lo\"]\n").unwrap();
        let mut config = config::load(&path).unwrap();
        config.agent.max_bans = SIZES[0];
        config.jails = jails()
            .into_iter()
            .map(|(name, ports)| jail::Rules {
                name: name.into(),
                ports,
                widen: rule(&Holder::Jail(name.into())),
                ..jail::rules(1, 600)
            })
            .map(|rules| jail::Spec { rules, sources: Vec::new(), actions: Vec::new() })
            .collect();
        // none runs, but all are known: an unban that names another jail is refused
        config.disabled = jails().map(|(name, _)| name.to_owned()).into();
        let double = Double::new(3, SIZES[0], folder.path().to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut world = World {
            folder,
            config,
            state: disk.then_some(0),
            double: Arc::new(Mutex::new(double)),
            now: Now { boot: Boot(1_000_000), wall },
            runtime,
            agent: None,
            model: Model::default(),
            answers: Vec::new(),
            evicted: 0,
            refused: 0,
        };
        world.start();
        world
    }

    fn state(&self) -> PathBuf {
        match self.state {
            Some(number) => self.folder.path().join(format!("state-{number}.sqlite")),
            // no file can be made there
            None => self.folder.path().join("config.toml/state.sqlite"),
        }
    }

    fn start(&mut self) {
        self.now.fake();
        let config = self.config.clone();
        let mut agent = config.agent.clone();
        agent.state = self.state();
        let path = self.folder.path().join("config.toml");
        let options = Options { path, config, agent, replace: false, grace: None };
        let wire = Wire(Arc::clone(&self.double), self.folder.path().to_owned());
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

    fn core(&mut self) -> &mut Core {
        &mut self.agent.as_mut().unwrap().core
    }

    fn take(&mut self, step: &Step, faults: Option<(u64, u64)>) {
        let waits = if let Step::Wait(time) = step { *time } else { 0 };
        self.now.boot = self.now.boot.plus(waits + TICK);
        self.now.wall += Duration::from_millis(waits + TICK);
        self.now.fake();
        let now = self.now;
        self.core().expire(now);
        self.model.claims.retain(|_, until| *until > now.boot);
        self.model.forgiven.clear();
        self.answers.clear();
        if let Some((after, times)) = faults {
            self.double.lock().unwrap().faults().set(after, times);
        }
        self.perform(step);
        if faults.is_some() {
            self.check(false);
            self.double.lock().unwrap().faults().set(0, 0);
            self.core().retry(now);
        }
        self.check(true);
    }

    fn perform(&mut self, step: &Step) {
        let now = self.now;
        match step {
            Step::Batch(words) => {
                let mut messages = Vec::new();
                for word in words {
                    self.expect(word);
                    messages.push(self.message(word));
                }
                let runtime = self.runtime.handle().clone();
                let _inside = runtime.enter();
                self.core().handle(messages.into_iter());
            }
            Step::Wait(_) => {}
            Step::Allow(nets) => {
                self.config.agent.allow.clone_from(nets);
                let core = self.core();
                core.config.agent.allow.clone_from(nets);
                core.take_allowed(now);
                self.model.allowed.clone_from(nets);
                let nets = nets.clone();
                self.model.lift(|(prefix, ..)| nets.iter().any(|net| net.contains(prefix)));
            }
            Step::Resize(size) => {
                self.config.agent.max_bans = *size;
                let core = self.core();
                core.config.agent.max_bans = *size;
                core.resize();
            }
            Step::Restart => self.restart(),
        }
    }

    fn expect(&mut self, word: &Word) {
        let now = self.now.boot;
        let end = |time: Option<u64>| time.map_or(Boot::NEVER, |time| now.plus(time));
        let named = |at: usize| Holder::Jail(jails()[at].0.into());
        match word {
            Word::Offence(prefix, jail, time) => {
                let ports = &jails()[*jail].1;
                self.model.offence(*prefix, &named(*jail), ports, end(*time), now);
            }
            Word::Ban(prefix, time, ports) => {
                self.model.put((*prefix, Holder::Manual, ports.clone(), false), end(*time), now);
            }
            Word::Unban(targets, jail) => {
                let holder = jail.map(named);
                let all = targets.iter().map(|target| (Some(*target), holder.clone()));
                self.model.forgiven.extend(all);
                self.model.lift(|(prefix, of, ..)| {
                    targets.contains(prefix) && holder.as_ref().is_none_or(|holder| of == holder)
                });
            }
            Word::UnbanAll(jail) => {
                let holder = jail.map(named);
                self.model.forgiven.push((None, holder.clone()));
                self.model.lift(|(_, of, ..)| holder.as_ref().is_none_or(|holder| of == holder));
            }
        }
    }

    fn message(&mut self, word: &Word) -> Message {
        let wall = self.now.wall;
        let answers = &mut self.answers;
        let mut call = |request| {
            let (reply, answer) = oneshot::channel();
            answers.push(answer);
            Message::Call(Call { request, reply, user: None })
        };
        let named = |jail: &Option<usize>| jail.map(|at| jails()[at].0.to_owned());
        match word {
            Word::Offence(prefix, jail, time) => {
                let (name, ports) = jails()[*jail].clone();
                let sentence = Sentence {
                    prefix: *prefix,
                    address: *prefix,
                    duration: time.map(Duration::from_millis),
                    ports,
                    evidence: Vec::new(),
                    fields: BTreeMap::new(),
                    time: wall,
                    failures: 1,
                };
                let read = std::time::Instant::now();
                Message::Sentence { jail: name.into(), sentence, read }
            }
            Word::Ban(prefix, time, ports) => call(Request::Ban {
                targets: vec![*prefix],
                duration: Some(time.map_or(Term::Forever, Term::Millis)),
                jail: None,
                ports: ports.iter().map(ToString::to_string).collect(),
                reason: None,
                // so wide a network is refused without
                force: prefix.addr().is_ipv4() && prefix.prefix_len() < 16,
            }),
            Word::Unban(targets, jail) => {
                call(Request::Unban { targets: targets.clone(), all: false, jail: named(jail) })
            }
            Word::UnbanAll(jail) => {
                call(Request::Unban { targets: Vec::new(), all: true, jail: named(jail) })
            }
        }
    }

    /// Another agent over the same maps and the same disk.
    fn restart(&mut self) {
        let Some(number) = self.state else { return };
        self.settle();
        let from = self.state();
        self.state = Some(number + 1);
        let disk = Connection::open(from).unwrap();
        disk.busy_timeout(Duration::from_secs(60)).unwrap();
        disk.execute("VACUUM INTO ?1", [self.state().to_str().unwrap()]).unwrap();
        drop(disk);
        self.agent = None;
        self.double.lock().unwrap().restart();
        (self.evicted, self.refused) = (0, 0);
        self.start();
    }

    /// Waits until everything is on disk and everybody was told.
    fn settle(&mut self) {
        let durable = self.core().store.barrier();
        let _told = self.runtime.block_on(durable);
        self.runtime.block_on(async {
            for _ in 0..64 {
                tokio::task::yield_now().await;
            }
        });
    }

    fn found(&self) -> Claims {
        let ledger = &self.agent.as_ref().unwrap().core.ledger;
        let claims = ledger.iter().flat_map(|ban| ban.claims().collect::<Vec<_>>());
        claims
            .map(|claim| ((claim.prefix, claim.holder, claim.ports, claim.derived), claim.until))
            .collect()
    }

    /// The ledger is the model's, and each packet meets what it has to; `whole`: everything has
    /// reached the maps.
    fn check(&mut self, whole: bool) {
        let found = self.found();
        let core = &self.agent.as_ref().unwrap().core;
        let made_room = core.ledger.evicted() != self.evicted;
        if made_room || core.ledger.refused() != self.refused {
            // who it was is the ledger's own tests' matter; here nobody is invented
            (self.evicted, self.refused) = (core.ledger.evicted(), core.ledger.refused());
            self.model.claims = found;
        } else {
            assert_eq!(found, self.model.claims, "law 3");
        }
        let mut weights: BTreeMap<IpNet, u32> = BTreeMap::new();
        for ban in core.ledger.iter().filter(|ban| !ban.is_held_by(&Holder::Manual)) {
            let levels: &[u8] = if matches!(ban.prefix, IpNet::V4(_)) { &[24] } else { &[32, 48] };
            for length in levels.iter().filter(|length| ban.prefix.prefix_len() >= **length) {
                let net = IpNet::new(ban.prefix.addr(), *length).unwrap().trunc();
                *weights.entry(net).or_default() += 1;
            }
        }
        weights.retain(|_, weight| *weight > 1);
        assert_eq!(core.ledger.weights(), weights, "law 6");
        let double = self.double.lock().unwrap();
        double.check();
        assert!(double.is_one(), "an interface reads other tables than those that are written");
        if whole {
            assert!(
                core.pending.is_empty() && !core.allow_due,
                "{:?} is not retried",
                core.pending
            );
        }
        for host in HOSTS {
            let source: IpAddr = host.parse().unwrap();
            if core.allow_due || core.pending.iter().any(|prefix| prefix.contains(&source)) {
                continue;
            }
            for to in TO {
                let verdict = double.judge(0, source, to, self.now.boot);
                let drops = self.model.drops(source, to, self.now.boot);
                assert_eq!(verdict == Verdict::Drop, drops, "{host} {to:?}: {verdict:?}");
            }
        }
    }
}

fn case(seed: u64, steps: u64, disk: bool) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut world = World::new(disk);
    let mut taken = Vec::new();
    for number in 0..steps {
        let faults = (random.below(6) == 0).then(|| (random.below(24), 1 + random.below(6)));
        let step = step(&mut random, disk);
        taken.push((step.clone(), faults));
        let done = catch_unwind(AssertUnwindSafe(|| world.take(&step, faults)));
        if let Err(panic) = done {
            eprintln!("BAN_AGENT_SEED={seed} BAN_AGENT_STEPS={steps}, at step {number}, after");
            let first = taken.len().saturating_sub(12);
            taken[first..].iter().for_each(|step| eprintln!("  {step:?}"));
            eprintln!("model: {:#?}", world.model.claims);
            resume_unwind(panic);
        }
        if number % 64 == 63 {
            world.settle();
        }
    }
}

/// Steps of one case: enough to fill the tables, few enough to read a failure.
const CASE: u64 = 2_000;

fn cases(steps: u64, disk: bool) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let steps = number("BAN_AGENT_STEPS").filter(|_| !disk).unwrap_or(steps);
    let clock = || Timestamp::now().as_second().unsigned_abs() * 1_000_000;
    let first = number("BAN_AGENT_SEED").unwrap_or_else(clock);
    println!("BAN_AGENT_SEED={first} BAN_AGENT_STEPS={steps}");
    let mut left = steps;
    for seed in first.. {
        case(seed, left.min(CASE), disk);
        left -= left.min(CASE);
        if left == 0 {
            break;
        }
    }
}

#[test]
fn parts_hold_together() {
    cases(4_000, false);
}

#[test]
fn parts_hold_together_over_restarts() {
    cases(400, true);
}
