//! Laws 1 to 3 where good parts meet: batches of messages over a few addresses, jails with ports of
//! their own, networks that follow from their members, several unbans at once, parts of an unban of all with
//! offences between them, allow lists, what must not be banned and networks of this host that come and go, a full table, kernel steps and resizes
//! that fail anywhere, several interfaces. The whole core over the real bookkeeping of the maps; a
//! plain list of claims says what each address has to meet, and the program has to say the same.
//!
//! `BAN_AGENT_SEED` names a case that failed, `BAN_AGENT_STEPS` how many steps there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use ban_common::Verdict;
use jiff::Timestamp;
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
    control::{Call, Refusal, Release, Released, Reply, Request, Term},
    dataplane::{DataPlane, Double, Options, To, Wire, Xdp, check_bpffs},
    event::Bus,
    jail::{self, Offence, Widen},
    ledger::{Holder, Plan, Protected},
    net::{IpNet, Ports, Proto, parse_ports, parse_prefix},
    protect::HostNetwork,
};

/// Several in each of several networks that may be the fullest: /24, /32, and /48 in it.
const HOSTS: [&str; 14] = [
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.3",
    "10.0.0.4",
    "10.0.1.1",
    "10.0.1.2",
    "192.0.2.1",
    "2001:db8:0:1::1",
    "2001:db8:0:1::2",
    "2001:db8:0:2::1",
    "2001:db8:0:3::1",
    "2001:db8:1::1",
    "2001:db8:1::2",
    "2001:db9::1",
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
/// What must not be banned; the others are networks of this host.
const GUARDED: [&str; 4] = ["10.0.0.3", "10.0.1.1", "2001:db8:0:3::1", "2001:db8:0:1::2"];
const ONLINK: [&str; 4] = ["10.0.0.0/29", "10.0.1.0/24", "2001:db8:0:1::/64", "2001:db8:0:2::/63"];
const TO: [To; 4] = [Some((Proto::Tcp, 22)), Some((Proto::Tcp, 80)), Some((Proto::Udp, 53)), None];
/// As long as a tick of the double: no end lies within one.
const TICK: u64 = 4;
const SIZES: [u32; 4] = [64, 32, 9, 5];

/// What a claim is, beside its end.
type Who = (IpNet, Holder, Ports, bool);
type Claims = BTreeMap<Who, Boot>;

fn prefix(random: &mut Random) -> IpNet {
    let text = if random.below(4) == 0 { random.one(&NETS) } else { random.one(&HOSTS) };
    parse_prefix(text).unwrap()
}

fn some(random: &mut Random, of: &[&str]) -> Vec<IpNet> {
    (0..random.below(3)).map(|_| parse_prefix(random.one(of)).unwrap()).collect()
}

fn jail(random: &mut Random) -> usize {
    random.one(&[0, 1, 2])
}

fn time(random: &mut Random) -> Option<u64> {
    let seconds = random.below(8);
    (seconds > 0).then(|| seconds * 10_000 + random.below(250) * TICK)
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
    /// By hand; the last one: by force.
    Ban(IpNet, Option<u64>, Ports, bool),
    /// What must not be banned, and networks of this host, from now on.
    Around(Vec<IpNet>, Vec<IpNet>),
    Unban(Vec<IpNet>, Option<usize>),
    /// All, or as a later part of letting go of all: those behind this place, after whatever came
    /// between the parts.
    UnbanAll(Option<usize>, Option<IpNet>),
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
        0..21 => Word::Offence(prefix(random), jail(random), time(random)),
        21 => Word::Around(some(random, &GUARDED), some(random, &ONLINK)),
        22..26 => {
            let ports = random.one(&["", "tcp/25", "tcp/22", "tcp/80,443", "udp/53"]);
            let ports = if ports.is_empty() { Ports::new() } else { parse_ports(ports).unwrap() };
            Word::Ban(prefix(random), time(random), ports, random.below(2) == 0)
        }
        26..31 => {
            let targets = (0..=random.below(5)).map(|_| prefix(random)).collect();
            Word::Unban(targets, (random.below(3) == 0).then(|| jail(random)))
        }
        _ => {
            let jail = (random.below(2) == 0).then(|| jail(random));
            Word::UnbanAll(jail, (random.below(2) == 0).then(|| prefix(random)))
        }
    }
}

fn step(random: &mut Random, restarts: bool) -> Step {
    if restarts && random.below(12) == 0 {
        return Step::Restart;
    }
    match random.below(32) {
        0..24 => {
            let most = random.one(&[1, 1, 2, 4, 8, 32]);
            let mut words: Vec<Word> = (0..=random.below(most)).map(|_| word(random)).collect();
            // what followed from what these lift is looked at when the batch is done, by what is left
            // then; the list of claims does it at once
            words.sort_by_key(|word| matches!(word, Word::Around(..)));
            Step::Batch(words)
        }
        24..28 => Step::Wait(random.below(5_000) * TICK),
        28..30 => Step::Allow(some(random, &ALLOWED)),
        _ => Step::Resize(random.one(&SIZES)),
    }
}

/// A kernel side, and what its program says.
trait Side: DataPlane + Sized + 'static {
    /// The verdict on a packet.
    fn verdict(&mut self, source: IpAddr, to: To, now: Boot) -> Verdict;

    /// From so many steps on, so many fail.
    fn fail(&self, _after: u64, _times: u64) {}

    /// Panics if the bookkeeping contradicts itself.
    fn check(&self) {}

    /// What the agent knew is forgotten.
    fn restart(&mut self) {}
}

impl Side for Double {
    fn verdict(&mut self, source: IpAddr, to: To, now: Boot) -> Verdict {
        self.judge(0, source, to, now)
    }

    fn fail(&self, after: u64, times: u64) {
        self.faults().set(after, times);
    }

    fn check(&self) {
        Double::check(self);
        assert!(self.is_one(), "an interface reads other tables than those that are written");
    }

    fn restart(&mut self) {
        Double::restart(self);
    }
}

/// The clock of the test is ahead of the kernel's: what ended by it must be out of the maps.
impl Side for Xdp {
    fn verdict(&mut self, source: IpAddr, to: To, _: Boot) -> Verdict {
        self.judge(&frame(source, to), 1).unwrap().0
    }
}

/// Ethernet, IP without options, and TCP, UDP or ICMP.
fn frame(source: IpAddr, to: To) -> Vec<u8> {
    let mut frame = vec![0; 12];
    let next = match (to, source) {
        (Some((Proto::Tcp, _)), _) => 6,
        (Some((Proto::Udp, _)), _) => 17,
        (None, IpAddr::V4(_)) => 1,
        (None, IpAddr::V6(_)) => 58,
    };
    match source {
        IpAddr::V4(source) => {
            frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, next, 0, 0]);
            frame.extend(source.octets());
            frame.extend([192, 0, 2, 1]);
        }
        IpAddr::V6(source) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, next, 64]);
            frame.extend(source.octets());
            frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        }
    }
    let port = to.map_or(0, |(_, port)| port).to_be_bytes();
    frame.extend([0xc0, 0, port[0], port[1]]);
    frame.extend([0; 16]);
    frame
}

/// A list of claims, and nothing clever.
#[derive(Default)]
struct Model {
    claims: Claims,
    allowed: Vec<IpNet>,
    protected: Vec<IpNet>,
    onlink: Vec<IpNet>,
    /// Who was let go in this batch: of which holder, or of all.
    forgiven: Vec<(Option<IpNet>, Option<Holder>)>,
}

impl Model {
    fn refuses(&self, prefix: IpNet, holder: &Holder, force: bool) -> bool {
        let manual = *holder == Holder::Manual;
        let refused = |net: &IpNet| net.contains(&prefix) || (!manual && prefix.contains(net));
        self.allowed.iter().any(refused)
            || (!force && self.protected.iter().any(|net| meets(*net, prefix)))
            || (!manual && is_network(prefix) && self.onlink.iter().any(|net| meets(*net, prefix)))
    }

    fn put(&mut self, who: Who, until: Boot, now: Boot, force: bool) -> bool {
        if until <= now || self.refuses(who.0, &who.1, force) {
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
        if !self.put((prefix, holder.clone(), ports.clone(), false), until, now, false) {
            return;
        }
        let mut narrower = prefix;
        while let Some(wider) = wider(holder, narrower) {
            let Some(until) = self.third(wider, holder, ports) else { return };
            if !self.put((wider, holder.clone(), ports.clone(), true), until, now, false) {
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

    /// Who has to make room for a jail's ban of `prefix`, if there may be no more than `most`: one of
    /// these; if there is none, it is refused. `None`: there is room.
    fn yielding(&self, prefix: IpNet, most: usize) -> Option<BTreeSet<IpNet>> {
        let mut bans: BTreeMap<IpNet, (Boot, bool)> = BTreeMap::new();
        let same = |net: &IpNet| net.max_prefix_len() == prefix.max_prefix_len();
        for ((net, holder, ..), until) in self.claims.iter().filter(|((net, ..), _)| same(net)) {
            let (end, by_hand) = bans.entry(*net).or_default();
            *end = (*end).max(*until);
            *by_hand |= *holder == Holder::Manual;
        }
        if bans.contains_key(&prefix) || bans.len() < most {
            return None;
        }
        let soonest = |bans: &BTreeMap<IpNet, Boot>| -> BTreeSet<IpNet> {
            let first = bans.values().min().copied();
            bans.iter().filter(|(_, end)| Some(**end) == first).map(|(net, _)| *net).collect()
        };
        let (manual, jails): (Vec<_>, Vec<_>) =
            bans.into_iter().partition(|(_, (_, by_hand))| *by_hand);
        let [manual, mut jails] = [manual, jails].map(|bans| {
            bans.into_iter().map(|(net, (end, _))| (net, end)).collect::<BTreeMap<_, _>>()
        });
        if manual.len() > most / 2 {
            return Some(soonest(&manual));
        }
        // the fullest networks, and in them the fullest narrower ones
        let mut fullest: Vec<BTreeMap<IpNet, Boot>> = Vec::new();
        for length in crowds(prefix) {
            let mut networks: BTreeMap<IpNet, BTreeMap<IpNet, Boot>> = BTreeMap::new();
            let wider = if fullest.is_empty() { vec![jails.clone()] } else { fullest.clone() };
            for (net, end) in wider.into_iter().flatten() {
                if net.prefix_len() >= *length {
                    networks.entry(network(net, *length)).or_default().insert(net, end);
                }
            }
            let most = networks.values().map(BTreeMap::len).max().unwrap_or_default();
            if most > 1 {
                fullest = networks.into_values().filter(|bans| bans.len() == most).collect();
            }
        }
        if fullest.is_empty() {
            // nobody who stays for ever
            jails.retain(|_, end| *end != Boot::NEVER);
            fullest = vec![jails];
        }
        Some(fullest.iter().flat_map(soonest).collect())
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
        let forced = |net: IpNet| {
            self.claims.keys().any(|(prefix, of, ..)| *of == Holder::Manual && meets(net, *prefix))
        };
        let mut exempt = self.protected.iter().filter(|net| !forced(**net)).chain(&self.allowed);
        banned && !exempt.any(|net| net.contains(&source))
    }
}

fn own(nets: &[IpNet]) -> Vec<(IpNet, Protected)> {
    nets.iter().map(|net| (*net, Protected::Own)).collect()
}

fn meets(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn network(prefix: IpNet, length: u8) -> IpNet {
    IpNet::new(prefix.addr(), length).unwrap().trunc()
}

/// Lengths of the networks of which the fullest makes room, the widest first.
fn crowds(prefix: IpNet) -> &'static [u8] {
    if matches!(prefix, IpNet::V4(_)) { &[24] } else { &[32, 48] }
}

fn is_network(prefix: IpNet) -> bool {
    prefix.prefix_len() < prefix.max_prefix_len()
}

/// The network that a holder's ban of `prefix` counts for.
fn wider(holder: &Holder, prefix: IpNet) -> Option<IpNet> {
    let rule = rule(holder)?;
    let lengths = if matches!(prefix, IpNet::V4(_)) { rule.v4 } else { rule.v6 };
    let length = lengths.into_iter().find(|length| *length < prefix.prefix_len())?;
    Some(network(prefix, length))
}

struct World<K> {
    folder: TempDir,
    config: Config,
    /// The number of the state file; `None`: there is no disk at all.
    state: Option<u32>,
    side: Arc<Mutex<K>>,
    now: Now,
    runtime: Runtime,
    agent: Option<Agent>,
    model: Model,
    /// Of the last batch: nothing is done for a client that is gone.
    answers: Vec<oneshot::Receiver<Reply>>,
    releases: Vec<oneshot::Receiver<Result<Released, Refusal>>>,
    /// Claims that had to make room, and those that found none.
    evicted: u64,
    refused: u64,
}

impl<K: Side> World<K> {
    fn new(side: impl FnOnce(PathBuf) -> K, now: Now, disk: bool) -> World<K> {
        let folder = rig::folder();
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
            .map(|rules| jail::Spec {
                rules,
                sources: Vec::new(),
                raw_log: false,
                actions: Vec::new(),
            })
            .map(Arc::new)
            .collect();
        // none runs, but all are known: an unban that names another jail is refused
        config.disabled = jails().map(|(name, _)| name.to_owned()).into();
        let side = side(folder.path().to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut world = World {
            folder,
            config,
            state: disk.then_some(0),
            side: Arc::new(Mutex::new(side)),
            now,
            runtime,
            agent: None,
            model: Model::default(),
            answers: Vec::new(),
            releases: Vec::new(),
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
        let mut config = self.config.clone();
        config.agent.state = self.state();
        let path = self.folder.path().join("config.toml");
        let _inside = self.runtime.enter();
        let card = Box::new(Wire::to(&self.side));
        let mut agent = Agent::new(config, path, card, Trial::Over, Bus::default(), self.now);
        // as the daemon looks around before it goes on
        let mut plan = Plan::default();
        agent.core.ledger.set_protected(&own(&self.model.protected), &mut plan);
        agent.core.set_onlink(self.model.onlink.clone(), &mut plan);
        agent.core.restore(self.now);
        self.agent = Some(agent);
    }

    fn core(&mut self) -> &mut Engine {
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
        self.releases.clear();
        if let Some((after, times)) = faults {
            self.side.lock().unwrap().fail(after, times);
        }
        let yielding = self.yielding(step);
        self.perform(step);
        if let Some(yielding) = yielding {
            self.check_room(&yielding);
        }
        if faults.is_some() {
            self.check(false);
            self.side.lock().unwrap().fail(0, 0);
            self.core().retry(now);
            self.core().finish_chores(now);
        }
        self.check(true);
    }

    /// Who has to make room for the one ban that this step is about, if somebody has to.
    fn yielding(&self, step: &Step) -> Option<BTreeSet<IpNet>> {
        let Step::Batch(words) = step else { return None };
        let [Word::Offence(prefix, jail, _)] = words.as_slice() else { return None };
        let holder = Holder::Jail(jails()[*jail].0.into());
        let most = self.agent.as_ref().unwrap().core.ledger.max_bans();
        let admitted = !self.model.refuses(*prefix, &holder, false);
        admitted.then(|| self.model.yielding(*prefix, most)).flatten()
    }

    /// Networks that follow may have pushed out more.
    fn check_room(&self, yielding: &BTreeSet<IpNet>) {
        let ledger = &self.agent.as_ref().unwrap().core.ledger;
        if yielding.is_empty() {
            assert!(ledger.refused() > self.refused, "law 6: somebody made room who must not");
        } else {
            let gone = yielding.iter().any(|prefix| {
                ledger.get(*prefix).is_none_or(|ban| ban.claims().all(|claim| claim.derived))
            });
            assert!(gone && ledger.evicted() > self.evicted, "law 6: none of {yielding:?} yields");
        }
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
            Word::Ban(prefix, _, _, false)
                if prefix.addr().is_ipv4() && prefix.prefix_len() < 16 =>
            {
                // so wide a network is refused without force
            }
            Word::Ban(prefix, time, ports, force) => {
                let who = (*prefix, Holder::Manual, ports.clone(), false);
                self.model.put(who, end(*time), now, *force);
            }
            Word::Around(protected, onlink) => {
                self.model.protected.clone_from(protected);
                self.model.onlink.clone_from(onlink);
                self.model.lift(|(prefix, holder, ..)| {
                    let own = is_network(*prefix) && onlink.iter().any(|net| meets(*net, *prefix));
                    let guarded = protected.iter().any(|net| net.contains(prefix));
                    *holder != Holder::Manual && (own || guarded)
                });
            }
            Word::Unban(targets, jail) => {
                let holder = jail.map(named);
                let all = targets.iter().map(|target| (Some(*target), holder.clone()));
                self.model.forgiven.extend(all);
                self.model.lift(|(prefix, of, ..)| {
                    targets.contains(prefix) && holder.as_ref().is_none_or(|holder| of == holder)
                });
            }
            Word::UnbanAll(jail, after) => {
                let holder = jail.map(named);
                if after.is_none() {
                    self.model.forgiven.push((None, holder.clone()));
                }
                self.model.lift(|(prefix, of, ..)| {
                    after.is_none_or(|after| *prefix > after)
                        && holder.as_ref().is_none_or(|holder| of == holder)
                });
            }
        }
    }

    fn message(&mut self, word: &Word) -> Command {
        let wall = self.now.wall;
        let answers = &mut self.answers;
        let mut call = |request| {
            let (reply, answer) = oneshot::channel();
            answers.push(answer);
            Command::Call(Call { request, reply, user: None, more: false, quiet: false })
        };
        let named = |jail: &Option<usize>| jail.map(|at| jails()[at].0.to_owned());
        match word {
            Word::Offence(prefix, jail, time) => {
                let (name, ports) = jails()[*jail].clone();
                let offence = Offence {
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
                Command::Offence { jail: name.into(), offence, read, ack: None }
            }
            Word::Around(protected, onlink) => Command::HostNetwork(HostNetwork {
                protected: own(protected),
                onlink: onlink.clone(),
                groups: Vec::new(),
            }),
            Word::Ban(prefix, time, ports, force) => call(Request::Ban {
                targets: vec![*prefix],
                duration: Some(
                    time.map_or(Term::Forever, |ms| Term::For(Duration::from_millis(ms))),
                ),
                jail: None,
                ports: ports.clone(),
                reason: None,
                force: *force,
            }),
            Word::Unban(targets, jail) => call(Request::Unban {
                targets: targets.clone(),
                all: false,
                jail: named(jail),
                reason: None,
            }),
            Word::UnbanAll(jail, after) => {
                // as long as few are banned, one part is all that is left
                let (reply, answer) = oneshot::channel();
                self.releases.push(answer);
                let (jail, after) = (named(jail), *after);
                let (user, reason) = (None, None);
                Command::Release(Release { jail, after, reply, user, reason, quiet: false })
            }
        }
    }

    /// Another agent over the same maps and the same disk.
    fn restart(&mut self) {
        let Some(number) = self.state else { return };
        self.settle();
        let from = self.state();
        self.state = Some(number + 1);
        rig::copy_state(&from, &self.state());
        self.agent = None;
        {
            // as a start does it
            let mut side = self.side.lock().unwrap();
            side.restart();
            side.resize(self.config.agent.max_bans).unwrap();
        }
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
            let levels = crowds(ban.prefix).iter();
            for length in levels.filter(|length| ban.prefix.prefix_len() >= **length) {
                *weights.entry(network(ban.prefix, *length)).or_default() += 1;
            }
        }
        weights.retain(|_, weight| *weight > 1);
        assert_eq!(core.ledger.weights(), weights, "law 6");
        let mut held: BTreeMap<Holder, [usize; 2]> = BTreeMap::new();
        for (prefix, holder, ..) in self.model.claims.keys() {
            let family = usize::from(matches!(prefix, IpNet::V6(_)));
            held.entry(holder.clone()).or_default()[family] += 1;
        }
        let counted = core.ledger.held().filter(|(_, counts)| *counts != [0, 0]);
        let counted: BTreeMap<_, _> =
            counted.map(|(holder, counts)| (holder.clone(), counts)).collect();
        assert_eq!(counted, held, "claims of each holder");
        let mut side = self.side.lock().unwrap();
        side.check();
        if whole {
            assert!(
                core.pending.is_empty() && !core.allow_due,
                "{:?} is not retried: {:?}",
                core.pending,
                core.kernel_error
            );
        }
        for host in HOSTS {
            let source: IpAddr = host.parse().unwrap();
            if core.allow_due || core.pending.iter().any(|prefix| prefix.contains(&source)) {
                continue;
            }
            for to in TO {
                let verdict = side.verdict(source, to, self.now.boot);
                let drops = self.model.drops(source, to, self.now.boot);
                assert_eq!(verdict == Verdict::Drop, drops, "{host} {to:?}: {verdict:?}");
            }
        }
    }
}

fn case<K: Side>(seed: u64, steps: u64, mut world: World<K>) {
    let mut random = Random::new(seed);
    let disk = world.state.is_some();
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

fn start() -> Now {
    Now { boot: Boot(1_000_000), wall: Timestamp::from_millisecond(1_790_000_000_000).unwrap() }
}

fn cases<K: Side>(steps: u64, world: impl Fn() -> World<K>) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let clock = || Timestamp::now().as_second().unsigned_abs() * 1_000_000;
    let first = number("BAN_AGENT_SEED").unwrap_or_else(clock);
    println!("BAN_AGENT_SEED={first} BAN_AGENT_STEPS={steps}");
    let mut left = steps;
    for seed in first.. {
        case(seed, left.min(CASE), world());
        left -= left.min(CASE);
        if left == 0 {
            break;
        }
    }
}

#[test]
fn parts_hold_together() {
    let steps = std::env::var("BAN_AGENT_STEPS").map_or(4_000, |steps| steps.parse().unwrap());
    cases(steps, || World::new(|folder| Double::new(3, SIZES[0], folder), start(), false));
}

#[test]
fn parts_hold_together_over_restarts() {
    cases(400, || World::new(|folder| Double::new(3, SIZES[0], folder), start(), true));
}

/// Who is let go of shortens the ban of his network, also for the next start.
#[test]
fn a_shortened_end_outlives_a_restart() {
    let side = |folder| Double::new(1, SIZES[0], folder);
    let mut world = World::new(side, start(), true);
    let host = |at: usize| parse_prefix(HOSTS[at]).unwrap();
    let times = [100_000, 200_000, 300_000, 400_000];
    let members = times.iter().enumerate();
    let offences = members.map(|(at, time)| Word::Offence(host(at), 0, Some(*time))).collect();
    world.take(&Step::Batch(offences), None);
    let network = || (parse_prefix("10.0.0.0/24").unwrap(), Holder::Jail("sshd".into()));
    let end = |world: &World<Double>| {
        let (prefix, holder) = network();
        world.model.claims[&(prefix, holder, jails()[0].1.clone(), true)]
    };
    let before = end(&world);
    world.take(&Step::Batch(vec![Word::Unban(vec![host(3)], None)]), None);
    assert_eq!(end(&world).plus(100_000), before);
    world.take(&Step::Restart, None);
}

/// The jails' ban in the fullest network makes room, not the one that ends first.
#[test]
fn the_fullest_network_makes_room() {
    let times = |from: u64| (0..).map(move |at| Some((from + at) * 10_000));
    for (hosts, rest) in [(0..4, vec![4, 6]), (7..11, vec![11, 13])] {
        let side = |folder| Double::new(1, SIZES[0], folder);
        let mut world = World::new(side, start(), false);
        world.take(&Step::Resize(5), None);
        let soonest = rest[0];
        let order = std::iter::once(soonest).chain(hosts).chain([rest[1]]);
        for (at, time) in order.zip(times(1)) {
            // web widens no ban
            let offence = Word::Offence(parse_prefix(HOSTS[at]).unwrap(), 1, time);
            world.take(&Step::Batch(vec![offence]), None);
        }
        let kept = parse_prefix(HOSTS[soonest]).unwrap();
        assert!(world.model.claims.keys().any(|(prefix, ..)| *prefix == kept));
        assert_eq!(world.evicted, 1);
    }
}

/// One batch may push out a ban, and make it anew.
#[test]
fn who_made_room_and_comes_back_is_recorded() {
    let side = |folder| Double::new(1, SIZES[0], folder);
    let mut world = World::new(side, start(), true);
    world.take(&Step::Resize(5), None);
    let offence = |at: usize, time| Word::Offence(parse_prefix(HOSTS[at]).unwrap(), 1, Some(time));
    for (at, time) in (0..5).zip([10_000, 20_000, 30_000, 40_000, 50_000]) {
        world.take(&Step::Batch(vec![offence(at, time)]), None);
    }
    world.take(&Step::Batch(vec![offence(5, 60_000), offence(0, 70_000)]), None);
    assert_eq!(world.evicted, 2);
    world.take(&Step::Restart, None);
}

/// Bans of a family lie in several maps, and those that come may all lie in one.
#[test]
fn a_lower_bound_overfills_no_map() {
    let side = |folder| Double::new(2, SIZES[0], folder);
    let mut world = World::new(side, start(), false);
    let prefixes = ["2001:db8:0:1::/64", "2001:db8:0:2::/64", "2001:db8::/56"];
    for prefix in HOSTS[7..11].iter().chain(&prefixes) {
        let offence = Word::Offence(parse_prefix(prefix).unwrap(), 1, None);
        world.take(&Step::Batch(vec![offence]), None);
    }
    world.take(&Step::Resize(5), None);
    for host in &HOSTS[11..14] {
        let offence = Word::Offence(parse_prefix(host).unwrap(), 1, None);
        world.take(&Step::Batch(vec![offence]), None);
    }
}

/// The same over maps of the kernel, with the verdicts of the real program.
#[test]
fn parts_hold_together_over_real_maps() {
    let pins = PathBuf::from(format!("/sys/fs/bpf/ban-agent-laws-{}", std::process::id()));
    let options = Options { pins: pins.clone(), max_bans: SIZES[0], ..Options::default() };
    if !rustix::process::geteuid().is_root() || check_bpffs(&pins).is_err() {
        println!("SKIPPED parts_hold_together_over_real_maps: needs root and a BPF file system");
        return;
    }
    let now = Now { boot: Now::read().boot.plus(100_000), ..start() };
    let done = catch_unwind(AssertUnwindSafe(|| {
        cases(100, || World::new(|_| Xdp::load(options.clone()).unwrap(), now, false));
    }));
    std::fs::remove_dir_all(&pins).unwrap();
    done.unwrap_or_else(|panic| resume_unwind(panic));
}
