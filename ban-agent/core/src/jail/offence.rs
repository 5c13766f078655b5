//! A jail at work: takes failures, says who has reached `maxretry`.

use std::{collections::BTreeMap, hash::RandomState, net::IpAddr, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    Rules,
    count::{Count, millis},
    distinct,
    escalate::weight,
    offenders::Offenders,
    track::{Behind, More, Suspects, Who},
};
use crate::{
    clock::Now,
    filter::Failure,
    net::{self, IpNet, Ports, PrefixSet},
};

/// Bytes of an id that tell it from others.
const ID_BYTES: usize = 512;
/// The field that holds the id of a failure, as actions know it.
const ID: &str = "fid";
/// The field that says of what there were too many different ones.
const DISTINCT: &str = "distinct";
/// Names the address among the fields of `distinct`.
pub const ADDRESS: &str = "address";
/// Addresses that are banned together, at most.
const MAX_BEHIND: usize = 256;
/// The field of the user.
const USER: &str = "user";
/// Idle suspects forgotten per failure: twice what a failure can add.
const FORGET_PER_FAILURE: usize = 2;
/// The widest prefix that a log line may name (`<CIDR>`): nothing it says bans a continent.
const WIDEST_NAMED: (u8, u8) = (16, 32);

/// What a failure led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is of an address that this jail ignores, or of none that can be banned.
    Ignored,
    /// It is older than `findtime`.
    Old,
    /// A user came in: so many failures count no more.
    Forgiven {
        /// What they counted; 0 if there were none of that user.
        count: u32,
    },
    /// It counts; this many do now.
    Counted {
        /// Failures of this prefix within `findtime`.
        count: u32,
    },
    /// It was the one too many.
    Ban(Offence),
    /// It was the one too many of those that several addresses share: they are banned, each for
    /// itself.
    Group(Vec<Offence>),
    /// So it was, of an id: no packet bears that, so that nothing can be dropped.
    Named(Named),
}

impl Decision {
    /// Returns who is to be banned.
    #[must_use]
    pub fn offences(self) -> Vec<Offence> {
        match self {
            Decision::Ban(offence) => vec![offence],
            Decision::Group(offences) => offences,
            _ => Vec::new(),
        }
    }
}

/// What is no address has failed too often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The id, as the attacker wrote it, cut to [`ID_BYTES`].
    pub id: Arc<str>,
    /// `bantime`; `None`: permanent.
    pub duration: Option<Duration>,
    /// The last failures' lines, oldest first, as the attacker wrote them.
    pub evidence: Vec<Box<[u8]>>,
    /// Fields of the last failure, as the attacker wrote them; `fid` is the id.
    pub fields: BTreeMap<String, String>,
    /// Time of the last failure.
    pub time: Timestamp,
    /// How many failures led to it.
    pub failures: u32,
}

/// Who is to be banned, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offence {
    /// What is to be banned.
    pub prefix: IpNet,
    /// The address of the last failure; differs from `prefix` where the jail bans networks.
    pub address: IpNet,
    /// `bantime` without increments ([`Rules::bantime_for`]); `None`: permanent.
    pub duration: Option<Duration>,
    /// Ports of the ban; empty: all traffic.
    pub ports: Ports,
    /// The last failures' lines, oldest first, as the attacker wrote them: escape to show.
    pub evidence: Vec<Box<[u8]>>,
    /// Fields of the last failure, as the attacker wrote them.
    pub fields: BTreeMap<String, String>,
    /// Time of the last failure, by its line, never in the future.
    pub time: Timestamp,
    /// How many failures led to it.
    pub failures: u32,
}

/// What a jail has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Prefixes with failures that still count.
    pub failing: usize,
    /// Failures counted since start.
    pub failed: u64,
    /// Failures of ignored addresses.
    pub ignored: u64,
    /// Failures that came too late to count.
    pub old: u64,
    /// Failures whose address was not remembered because `max_tracked` was reached.
    pub evicted: u64,
    /// What was forgiven because a user came in.
    pub forgiven: u64,
    /// Offences since start.
    pub banned: u64,
}

/// A jail and what it remembers.
#[derive(Debug)]
pub struct Jail {
    rules: Rules,
    ignored: PrefixSet,
    neighbours: Arc<PrefixSet>,
    suspects: Suspects,
    /// Of the hashes of values.
    key: RandomState,
    /// Its filter knows who came in.
    forgives: bool,
    offenders: Offenders,
    stats: Stats,
}

impl Jail {
    /// Returns a jail that has seen nothing yet.
    #[must_use]
    pub fn new(rules: &Rules) -> Jail {
        Jail {
            ignored: ignored(rules, &[]),
            neighbours: Arc::default(),
            rules: rules.clone(),
            suspects: Suspects::new(),
            key: RandomState::new(),
            forgives: !rules.filter.successregex.is_empty(),
            offenders: Offenders::default(),
            stats: Stats::default(),
        }
    }

    /// The same jail under a changed specification: what it counted so far stays.
    pub fn set_rules(&mut self, rules: &Rules) {
        self.ignored = ignored(rules, &[]);
        if self.rules.count_by != rules.count_by {
            self.forgive(None);
        }
        if self.rules.distinct != rules.distinct {
            self.suspects.each_more().for_each(|more| more.distinct.clear());
        }
        self.forgives = !rules.filter.successregex.is_empty();
        self.rules = rules.clone();
        while self.suspects.len() > self.rules.max_tracked && self.suspects.evict() {
            self.stats.evicted += 1;
        }
    }

    /// Whom it banned before, as it is known from now on.
    pub fn remember(&mut self, offenders: Offenders) {
        self.offenders = offenders;
    }

    /// Networks that this host is a member of: who lives there is counted by himself.
    pub fn set_neighbours(&mut self, networks: Arc<PrefixSet>) {
        self.neighbours = networks;
    }

    /// Whom it ignores besides `ignoreip`, as was looked up.
    pub fn ignore(&mut self, nets: &[IpNet]) {
        self.ignored = ignored(&self.rules, nets);
    }

    /// Goes on with what an earlier run counted, and from now on says what changes
    /// ([`Jail::take_changes`]).
    pub fn resume(&mut self, counts: &[(IpNet, Count)]) {
        self.suspects.follow();
        let mut counts: Vec<_> = counts.iter().collect();
        // who failed last is forgotten last
        counts.sort_unstable_by_key(|(_, count)| count.last);
        let newest = counts.split_off(counts.len().saturating_sub(self.rules.max_tracked));
        // the others count no more
        counts.iter().for_each(|(prefix, _)| self.suspects.note_gone(*prefix));
        for (prefix, count) in newest {
            let spot = self.suspects.find(Who::Net(*prefix));
            if spot.at().is_none() {
                self.suspects.insert(spot, *count);
            }
        }
    }

    /// Returns what counts now for each prefix for which that has changed since this was last
    /// asked, for a later [`Jail::resume`]; `None`: nothing.
    pub fn take_changes(&mut self) -> Vec<(IpNet, Option<Count>)> {
        self.suspects.take_changes()
    }

    /// Returns what it was made of.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Returns its counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { failing: self.suspects.len(), ..self.stats }
    }

    /// Returns whether a failure names no address that is counted.
    #[must_use]
    pub fn ignores(&self, failure: &Failure) -> bool {
        self.offender(failure).is_none()
    }

    /// A failure does not count: `ignorecommand` says so.
    pub fn excuse(&mut self) {
        self.stats.ignored += 1;
    }

    /// One failure, and the line that it was found in.
    pub fn offence(&mut self, failure: &Failure, line: &[u8], now: Now) -> Decision {
        let Some(Offender { nets, id }) = self.offender(failure) else {
            self.stats.ignored += 1;
            return Decision::Ignored;
        };
        let group = self.rules.count_by.as_ref().map(|field| field_of(failure, field));
        let who = match (group, id, nets) {
            (Some(Some(value)), _, Some(_)) if !value.is_empty() => Who::Id(cut(value)),
            // nothing says to whom this belongs
            (Some(_), ..) => {
                self.stats.ignored += 1;
                return Decision::Ignored;
            }
            (None, Some(id), _) => Who::Id(id),
            (None, None, Some((_, prefix))) => Who::Net(prefix),
            (None, None, None) => return Decision::Ignored,
        };
        if failure.success {
            return self.succeed(who, nets, failure);
        }
        let time = failure.time.unwrap_or(now.wall).min(now.wall);
        let (time_ms, now_ms) = (time.as_millisecond(), now.wall.as_millisecond());
        if time_ms < now_ms.saturating_sub(millis(self.rules.findtime)) {
            self.stats.old += 1;
            return Decision::Old;
        }
        let findtime = self.rules.findtime;
        self.suspects.forget(now_ms.saturating_sub(millis(findtime)), FORGET_PER_FAILURE);
        self.stats.failed += 1;
        let weight = nets.map_or(1, |(_, prefix)| self.weight(prefix, time));
        let at = self.track(who, weight, time_ms, now_ms);
        let Some((at, suspect)) = at.and_then(|at| Some((at, self.suspects.get(at)?))) else {
            return Decision::Counted { count: weight };
        };
        let mut counted = suspect.count();
        let since = counted.first;
        let count = counted.add(time_ms, weight, findtime);
        suspect.set_count(counted);
        if counted.first != since {
            // the count is an average now, in which no user has a share
            suspect.clear_users();
        }
        let user = failure.fields.get(USER).filter(|user| !user.is_empty());
        if let (true, Some(user)) = (self.forgives, user) {
            suspect.add_user(distinct::hash(&self.key, user), weight);
        }
        let mut tried = Tried { rules: &self.rules, key: &self.key, failure, time_ms, now_ms };
        let varied = tried.count(|| suspect.more());
        if let (Some(_), Some((address, prefix))) = (group, nets) {
            stand_behind(&mut suspect.more().behind, Behind { address, prefix, last: time_ms });
        }
        if self.rules.maxmatches > 0 {
            self.suspects.keep(at, line, now_ms, self.rules.max_tracked);
        }
        if varied.is_none() && self.rules.maxretry.is_none_or(|maxretry| count < maxretry) {
            return Decision::Counted { count };
        }
        self.stats.banned += 1;
        let evidence = self.suspects.evidence(at, self.rules.maxmatches);
        let more = self.suspects.get(at).and_then(|suspect| suspect.any_more());
        let behind = more.map(|more| std::mem::take(&mut more.behind)).unwrap_or_default();
        self.suspects.remove(at);
        let (duration, failures) = (self.rules.bantime, count);
        let mut fields = failure.fields.clone();
        fields.extend(id.map(|id| (ID.to_owned(), id.to_owned())));
        fields.extend(varied.map(|field| (DISTINCT.to_owned(), field.to_string())));
        if group.is_some() {
            let since = now_ms.saturating_sub(millis(findtime));
            let recent = behind.iter().filter(|one| one.last >= since);
            let banned = recent.filter(|one| self.ignored.overlap(one.address).is_none());
            let offences = banned.map(|one| Offence {
                prefix: one.prefix,
                address: one.address,
                duration,
                ports: self.rules.ports.clone(),
                evidence: evidence.clone(),
                fields: fields.clone(),
                time,
                failures,
            });
            return Decision::Group(offences.collect());
        }
        match (nets, id) {
            (None, Some(id)) => {
                let id = id.into();
                Decision::Named(Named { id, duration, evidence, fields, time, failures })
            }
            (None, None) => Decision::Ignored,
            (Some((address, prefix)), _) => {
                let ports = self.rules.ports.clone();
                Decision::Ban(Offence {
                    prefix,
                    address,
                    duration,
                    ports,
                    evidence,
                    fields,
                    time,
                    failures,
                })
            }
        }
    }

    /// Notes that a user came in from an address: only this user's failures from there count no
    /// more.
    fn succeed(&mut self, who: Who, nets: Option<(IpNet, IpNet)>, failure: &Failure) -> Decision {
        let user = failure.fields.get(USER).filter(|user| !user.is_empty());
        let at = self.suspects.find(who).at();
        let found = at.and_then(|at| Some((at, self.suspects.get(at)?)));
        let Some((user, (at, suspect))) = user.zip(found) else {
            return Decision::Forgiven { count: 0 };
        };
        let hash = distinct::hash(&self.key, user);
        if let (true, Some((_, prefix))) = (self.rules.count_by.is_some(), nets) {
            suspect.more().behind.retain(|one| one.prefix != prefix);
            return Decision::Forgiven { count: 0 };
        }
        let mut counted = suspect.count();
        let count = suspect.take_user(hash).min(counted.failures);
        if count == 0 {
            return Decision::Forgiven { count };
        }
        counted.failures -= count;
        suspect.set_count(counted);
        let distinct = suspect.any_more().map(|more| &mut more.distinct).into_iter().flatten();
        for (field, values) in self.rules.distinct.keys().zip(distinct) {
            if **field == *USER {
                values.forget(hash);
            }
        }
        self.suspects.note(at);
        if counted.failures == 0 {
            self.suspects.remove(at);
        }
        self.stats.forgiven += u64::from(count);
        Decision::Forgiven { count }
    }

    /// Forgets what this jail counted for everything inside `prefix`, or for all, as an unban does.
    pub fn forgive(&mut self, prefix: Option<IpNet>) {
        let Some(prefix) = prefix else { return self.suspects.clear() };
        if self.rules.count_by.is_some() {
            let inside = |one: &Behind| prefix.contains(&one.prefix);
            self.suspects.each_more().for_each(|more| more.behind.retain(|one| !inside(one)));
        }
        // most are single addresses: no need to look at all
        if let Some(at) = self.suspects.find(Who::Net(prefix)).at() {
            self.suspects.remove(at);
        }
        if prefix.prefix_len() < prefix.max_prefix_len() {
            self.suspects.forget_within(prefix);
        }
    }

    /// Forgets suspects whose failures no longer count; a few are forgotten with every failure.
    pub fn forget_idle(&mut self, now: Now) {
        let over = now.wall.as_millisecond().saturating_sub(millis(self.rules.findtime));
        self.suspects.forget(over, usize::MAX);
        self.suspects.shrink(over, self.rules.max_tracked);
    }

    /// Returns who failed, unless it is ignored.
    fn offender<'f>(&self, failure: &'f Failure) -> Option<Offender<'f>> {
        let id = failure.id.as_deref().filter(|id| !id.is_empty());
        let Some(address) = failure.address else {
            let id = id?;
            return match net::parse_prefix(id) {
                Ok(prefix) => Some(Offender { nets: Some(self.nets(named(prefix)?)?), id: None }),
                Err(_) => Some(Offender { nets: None, id: Some(cut(id)) }),
            };
        };
        Some(Offender { nets: Some(self.nets(net::host(address))?), id: id.map(cut) })
    }

    /// Returns an address and the prefix that it is counted by, unless it is ignored.
    fn nets(&self, address: IpNet) -> Option<(IpNet, IpNet)> {
        if address.prefix_len() < address.max_prefix_len() && self.rules.translators.mixes(address)
        {
            return None;
        }
        if self.ignored.overlap(address).is_some() {
            return None;
        }
        let prefix = self.widen(address);
        // A network that holds an ignored address, or this host, is not banned as a whole.
        let mixed =
            [&self.ignored, &*self.neighbours].iter().any(|set| set.overlap(prefix).is_some());
        Some((address, if mixed { address } else { prefix }))
    }

    /// Returns what a failure counts: more if the prefix was banned before, as in fail2ban. What is
    /// from before that ban counts once: it led to it.
    fn weight(&self, prefix: IpNet, time: Timestamp) -> u32 {
        if self.rules.increment.is_none() {
            return 1;
        }
        let record = self.offenders.of(&self.rules.name, prefix).unwrap_or_default();
        let maxretry = self.rules.maxretry.unwrap_or(1);
        if time <= record.last { 1 } else { weight(record.bans, maxretry) }
    }

    fn widen(&self, address: IpNet) -> IpNet {
        let wider =
            self.rules.translators.unit(address.addr(), self.rules.prefix_v4).or_else(|| {
                let length = match address.addr() {
                    IpAddr::V4(_) => self.rules.prefix_v4,
                    IpAddr::V6(_) => self.rules.prefix_v6,
                };
                let wider = IpNet::new(address.addr(), length).ok()?.trunc();
                (!self.rules.translators.mixes(wider)).then_some(wider)
            });
        wider.filter(|wider| wider.prefix_len() < address.prefix_len()).unwrap_or(address)
    }

    /// The number of a suspect, from now on the loudest of those who came as often; none if others
    /// are worth its place more.
    fn track(&mut self, who: Who, weight: u32, time_ms: i64, now_ms: i64) -> Option<u32> {
        let (most, findtime) = (self.rules.max_tracked, self.rules.findtime);
        let spot = self.suspects.find(who);
        if let Some(at) = spot.at() {
            self.suspects.touch(at, |count| {
                let over = count.is_over(now_ms, findtime);
                over.then(|| Count::new(time_ms))
            });
            return Some(at);
        }
        // one who is banned at once needs no place
        let at_once = self.rules.maxretry.is_some_and(|maxretry| weight >= maxretry);
        if !at_once && self.suspects.is_full(most) {
            self.stats.evicted += 1;
            if !self.suspects.make_room(spot, most, now_ms, millis(findtime)) {
                return None;
            }
        }
        self.suspects.insert(spot, Count::new(time_ms))
    }
}

/// Returns whom a jail ignores: `ignoreip`, and what was looked up.
fn ignored(rules: &Rules, nets: &[IpNet]) -> PrefixSet {
    rules.translators.expand(rules.ignoreip.iter().chain(nets)).into_iter().collect()
}

/// A failure whose values are counted.
struct Tried<'f> {
    rules: &'f Rules,
    key: &'f RandomState,
    failure: &'f Failure,
    time_ms: i64,
    now_ms: i64,
}

/// Returns a field by the name of its tag: `<F-PORT>` is kept as fail2ban keeps it.
fn field_of<'f>(failure: &'f Failure, field: &str) -> Option<&'f String> {
    failure.fields.get(if field == "port" { "fport" } else { field })
}

impl Tried<'_> {
    /// Counts them; the first field of which there are too many.
    fn count<'m>(&mut self, more: impl FnOnce() -> &'m mut More) -> Option<Arc<str>> {
        if self.rules.distinct.is_empty() {
            return None;
        }
        let distinct = &mut more().distinct;
        distinct.resize_with(self.rules.distinct.len(), Default::default);
        let mut varied = None;
        for ((field, wanted), values) in self.rules.distinct.iter().zip(distinct) {
            let address = self.failure.address.filter(|_| **field == *ADDRESS);
            let value = match address {
                Some(address) => address.to_string(),
                None => field_of(self.failure, field).cloned().unwrap_or_default(),
            };
            if value.is_empty() {
                continue;
            }
            let hash = distinct::hash(self.key, &value);
            let findtime = self.rules.findtime;
            if values.add(hash, self.time_ms, self.now_ms, findtime, *wanted) {
                varied.get_or_insert(Arc::clone(field));
            }
        }
        varied
    }
}

/// Notes who failed; of too many, those that were quiet longest are forgotten.
fn stand_behind(behind: &mut Vec<Behind>, one: Behind) {
    if let Some(known) = behind.iter_mut().find(|known| known.prefix == one.prefix) {
        known.last = known.last.max(one.last);
        return;
    }
    if behind.len() >= MAX_BEHIND
        && let Some((quietest, _)) = behind.iter().enumerate().min_by_key(|(_, one)| one.last)
    {
        behind.swap_remove(quietest);
    }
    behind.push(one);
}

/// Whom a failure is of.
struct Offender<'f> {
    /// The address, and the prefix that it is counted and banned by.
    nets: Option<(IpNet, IpNet)>,
    /// What it is counted by instead.
    id: Option<&'f str>,
}

/// As much of an id as is kept.
fn cut(id: &str) -> &str {
    let end = (0..=ID_BYTES.min(id.len())).rev().find(|end| id.is_char_boundary(*end));
    id.get(..end.unwrap_or_default()).unwrap_or_default()
}

/// Returns the prefix that a line names where it names no address; not if it is too wide.
fn named(prefix: IpNet) -> Option<IpNet> {
    let widest = match prefix {
        IpNet::V4(_) => WIDEST_NAMED.0,
        IpNet::V6(_) => WIDEST_NAMED.1,
    };
    (prefix.prefix_len() >= widest).then_some(prefix)
}
