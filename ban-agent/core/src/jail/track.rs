//! The addresses and ids that a jail counts: at most so many, 72 bytes each beside the index.
//! Constant time per failure, even if an attacker chooses the addresses.
//!
//! When there is no room, the address that failed more often stays: one who came once yields to one
//! who came again, and those who are not tracked are estimated ([`Sketch`]). So no order of
//! failures has everybody forgotten before anybody is counted. IPv4 has half of the room if it
//! needs it, the rest the other half; and in place of a stranger, one of a crowd out of one network
//! goes.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hashbrown::HashTable;

use super::{
    count::Count,
    distinct::Distinct,
    evidence::{Lines, Mark},
    sketch::Sketch,
    users::Users,
};
use crate::net::IpNet;

/// No neighbour in the list.
const NONE: u32 = u32::MAX;
/// Bytes of evidence for each one who can be tracked, and at least so many.
const EVIDENCE: (usize, usize) = (48, 1 << 20);
/// The highest rank that an address which is not tracked can beat.
const HIGHEST: u32 = 253;
/// Networks that are told apart, by hash, when there is no room.
const NETWORKS: usize = 1 << 12;
/// A network is a crowd if it holds more than this part of the room.
const CROWD: usize = 64;
/// Tracked ones that are looked at for one of a crowd.
const SAMPLE: usize = 4;
/// What a table of this capacity takes is never given back.
const SMALL: usize = 1 << 10;

/// What failures are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who<'a> {
    /// An address or a prefix.
    Net(IpNet),
    /// What a filter names so (`<F-ID>`), as the attacker wrote it.
    Id(&'a str),
}

/// The same in 17 bytes: an address, and its length, for IPv6 beyond [`Key::V6`]; or 128 bits of
/// hash under a secret key, which no two ids share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    bytes: [u8; 16],
    length: u8,
}

impl std::hash::Hash for Key {
    /// In one piece, which costs half.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_be_bytes(self.bytes) ^ u128::from(self.length));
    }
}

impl Key {
    const V6: u8 = 64;
    const ID: u8 = u8::MAX;

    fn of_net(net: IpNet) -> Key {
        match net {
            IpNet::V4(net) => {
                let [a, b, c, d] = net.addr().octets();
                let bytes = [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                Key { bytes, length: net.prefix_len() }
            }
            IpNet::V6(net) => {
                Key { bytes: net.addr().octets(), length: Key::V6 + net.prefix_len() }
            }
        }
    }

    fn net(self) -> Option<IpNet> {
        let [a, b, c, d, ..] = self.bytes;
        let (address, length) = match self.length {
            Key::ID => return None,
            length if length < Key::V6 => (IpAddr::from(Ipv4Addr::new(a, b, c, d)), length),
            length => (IpAddr::from(Ipv6Addr::from(self.bytes)), length - Key::V6),
        };
        IpNet::new(address, length).ok()
    }

    fn is_v4(self) -> bool {
        self.length < Key::V6
    }

    /// Returns what one attacker may own more of than there is room to count: a /16, or a /32 of
    /// IPv6.
    fn network(self) -> [u8; 5] {
        let [a, b, c, d, ..] = self.bytes;
        if self.is_v4() { [0, a, b, 0, 0] } else { [1, a, b, c, d] }
    }
}

/// An address that failed, where failures are not counted by address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behind {
    pub(super) address: IpNet,
    /// What is banned of it.
    pub(super) prefix: IpNet,
    /// Its last failure, in milliseconds of log time.
    pub(super) last: i64,
}

/// What only some jails count.
#[derive(Debug, Default)]
pub(super) struct More {
    /// The values that it tried, for each field that is counted so; none before the first.
    pub(super) distinct: Vec<Distinct>,
    /// How often which user's password was wrong.
    pub(super) users: Users,
    /// Whose failures these are, where they are counted by something else.
    pub(super) behind: Vec<Behind>,
}

/// One who is tracked.
#[derive(Debug)]
pub(super) struct Suspect {
    first: i64,
    last: i64,
    evidence: Mark,
    more: Option<Box<More>>,
    /// The first user whose password was wrong, by hash, and how often.
    user: (u32, u32),
    failures: u32,
    quieter: u32,
    louder: u32,
    key: Key,
    /// How often it came before it was tracked, by estimate.
    before: u8,
    /// It came more than once: in which list of its family it is.
    again: bool,
    /// [`Suspects::take_changes`] has to tell of it.
    changed: bool,
}

impl Suspect {
    /// Returns its failures.
    pub(super) fn count(&self) -> Count {
        Count { failures: self.failures, first: self.first, last: self.last }
    }

    pub(super) fn set_count(&mut self, count: Count) {
        (self.failures, self.first, self.last) = (count.failures, count.first, count.last);
    }

    /// A failure of `user` (a hash), which weighs so much.
    pub(super) fn add_user(&mut self, user: u32, weight: u32) {
        if self.user.1 == 0 || self.user.0 == user {
            self.user = (user, self.user.1.saturating_add(weight));
        } else {
            self.more().users.add(user, weight);
        }
    }

    /// Returns what the failures of `user` count, from now on nothing.
    pub(super) fn take_user(&mut self, user: u32) -> u32 {
        let first = if self.user.0 == user { std::mem::take(&mut self.user.1) } else { 0 };
        first.saturating_add(self.any_more().map_or(0, |more| more.users.take(user)))
    }

    /// No user has a share in what was counted so far.
    pub(super) fn clear_users(&mut self) {
        self.user = (0, 0);
        self.any_more().into_iter().for_each(|more| more.users.clear());
    }

    pub(super) fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// Returns the same, if there is any.
    pub(super) fn any_more(&mut self) -> Option<&mut More> {
        self.more.as_deref_mut()
    }

    /// What was counted so far is over.
    fn restart(&mut self, count: Count) {
        self.set_count(count);
        (self.evidence, self.more, self.user, self.before) = (0, None, (0, 0), 0);
    }

    /// Returns the list that it is in: whether it is of IPv4, and came again.
    fn list(&self) -> (bool, bool) {
        (self.key.is_v4(), self.again)
    }

    /// Returns how often it came, as far as that is known.
    fn rank(&self) -> u32 {
        self.failures.saturating_add(self.before.into()).min(HIGHEST)
    }
}

/// Neighbours from the quietest to the one that failed last.
#[derive(Clone, Copy, Debug)]
struct List {
    quietest: u32,
    loudest: u32,
    len: usize,
}

/// Of a family: who came once, who came again.
#[derive(Clone, Copy, Debug)]
struct Family {
    once: List,
    again: List,
}

impl Family {
    fn len(&self) -> usize {
        self.once.len + self.again.len
    }

    /// Returns the one that is worth least.
    fn quietest(&self) -> Option<u32> {
        [self.once.quietest, self.again.quietest].into_iter().find(|at| *at != NONE)
    }
}

/// All lists.
#[derive(Debug)]
struct Lists {
    v4: Family,
    /// IPv6, and ids: what an attacker never runs out of.
    others: Family,
}

impl Lists {
    fn new() -> Lists {
        let list = List { quietest: NONE, loudest: NONE, len: 0 };
        let family = Family { once: list, again: list };
        Lists { v4: family, others: family }
    }

    fn of(&self, is_v4: bool) -> &Family {
        if is_v4 { &self.v4 } else { &self.others }
    }

    fn list(&mut self, (is_v4, again): (bool, bool)) -> &mut List {
        let family = if is_v4 { &mut self.v4 } else { &mut self.others };
        if again { &mut family.again } else { &mut family.once }
    }

    fn quietest(&self) -> [u32; 4] {
        let (v4, others) = (&self.v4, &self.others);
        [v4.once.quietest, v4.again.quietest, others.once.quietest, others.again.quietest]
    }
}

/// Where a suspect is, or would be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    key: Key,
    hash: u64,
    at: Option<u32>,
}

impl Spot {
    /// Returns its number, if it is tracked: until the next removal.
    pub(super) fn at(self) -> Option<u32> {
        self.at
    }
}

/// All suspects.
#[derive(Debug)]
pub(super) struct Suspects {
    index: HashTable<u32>,
    slots: Vec<Suspect>,
    lists: Lists,
    lines: Lines,
    /// The second one is of ids alone.
    secrets: (RandomState, RandomState),
    /// Who else came, once there is no room for all.
    crowded: Option<Box<Crowded>>,
    changes: Option<Changes>,
}

/// What helps to choose when there is no room.
#[derive(Debug)]
struct Crowded {
    /// How much room there is.
    most: usize,
    sketch: Sketch,
    /// How many are tracked of each network, by hash.
    networks: Vec<u32>,
    /// State of a generator (xorshift) of what an attacker cannot foresee.
    dice: u64,
}

/// What the record has to follow.
#[derive(Debug, Default)]
struct Changes {
    /// Numbers of those who were counted; some have moved.
    counted: Vec<u32>,
    gone: Vec<IpNet>,
}

impl Suspects {
    pub(super) fn new() -> Suspects {
        Suspects {
            index: HashTable::new(),
            slots: Vec::new(),
            lists: Lists::new(),
            lines: Lines::default(),
            secrets: (RandomState::new(), RandomState::new()),
            crowded: None,
            changes: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Looks for a suspect.
    pub(super) fn find(&self, who: Who) -> Spot {
        let key = match who {
            Who::Net(net) => Key::of_net(net),
            Who::Id(id) => {
                let (a, b) = (self.secrets.0.hash_one(id), self.secrets.1.hash_one(id));
                let bytes = (u128::from(a) << 64 | u128::from(b)).to_le_bytes();
                Key { bytes, length: Key::ID }
            }
        };
        let hash = self.hash(key);
        let same = |at: &u32| self.slot(*at).is_some_and(|suspect| suspect.key == key);
        Spot { key, hash, at: self.index.find(hash, same).copied() }
    }

    /// Returns whether there is no room within `most` for one more.
    pub(super) fn is_full(&self, most: usize) -> bool {
        self.slots.len() >= most
    }

    /// Finds room for one more where there is none: whether another was forgotten for it. If not,
    /// it is not worth it yet. `window`: how long a suspect is remembered at all, in milliseconds.
    pub(super) fn make_room(&mut self, spot: Spot, most: usize, now: i64, window: i64) -> bool {
        let known = self.crowded.take().filter(|crowded| crowded.most == most);
        let mut crowded = known.unwrap_or_else(|| self.crowd(most, now));
        crowded.sketch.age(now, window);
        let came = crowded.sketch.add(spot.hash, 1);
        let victim = self.victim(&mut crowded, spot, came);
        if let Some(gone) = victim.and_then(|at| self.slot(at)) {
            let rank = u8::try_from(gone.rank()).unwrap_or(u8::MAX);
            crowded.sketch.add(self.hash(gone.key), rank);
        }
        self.crowded = Some(crowded);
        victim.is_some_and(|at| self.remove(at))
    }

    /// From now on there is a choice to be made.
    fn crowd(&self, most: usize, now: i64) -> Box<Crowded> {
        let mut networks = vec![0; NETWORKS];
        for suspect in &self.slots {
            networks.get_mut(self.network(suspect.key)).into_iter().for_each(|held| *held += 1);
        }
        let dice = self.hash(most) | 1;
        Box::new(Crowded { most, sketch: Sketch::new(most, now), networks, dice })
    }

    fn victim(&self, crowded: &mut Crowded, spot: Spot, came: u8) -> Option<u32> {
        let (most, own) = (crowded.most, spot.key.is_v4());
        let (family, others) = (self.lists.of(own), self.lists.of(!own));
        if family.len() < most / 2 && others.len() > most / 2 {
            return others.quietest();
        }
        let alike = crowded.held(self.network(spot.key)).map_or(0, |held| *held);
        for _ in 0..SAMPLE {
            let at = crowded.roll(self.slots.len())?;
            let key = self.slot(at)?.key;
            let held = crowded.held(self.network(key)).map_or(0, |held| *held);
            let crowd = usize::try_from(held).is_ok_and(|held| held > most / CROWD);
            if key.is_v4() == own && crowd && held / 4 > alike {
                return Some(at);
            }
        }
        let at = family.quietest().or_else(|| others.quietest())?;
        let suspect = self.slot(at)?;
        // what the sketch says of one who is tracked is its error, here as there
        let error = crowded.sketch.estimate(self.hash(suspect.key));
        let rank = suspect.rank() + u32::from(suspect.again) + u32::from(error);
        (u32::from(came) > rank.min(HIGHEST + 1)).then_some(at)
    }

    /// Starts to track an address that is not tracked.
    pub(super) fn insert(&mut self, spot: Spot, count: Count) -> Option<u32> {
        let at = u32::try_from(self.slots.len()).ok()?;
        let mut before = 0;
        if let Some(mut crowded) = self.crowded.take() {
            before = crowded.sketch.estimate(spot.hash).saturating_sub(1);
            crowded.sketch.forget(spot.hash);
            crowded.held(self.network(spot.key)).into_iter().for_each(|held| *held += 1);
            self.crowded = Some(crowded);
        }
        let (slots, secret) = (&self.slots, &self.secrets.0);
        let hash = |at: &u32| {
            let slot = usize::try_from(*at).ok().and_then(|at| slots.get(at));
            slot.map_or(0, |slot| secret.hash_one(slot.key))
        };
        self.index.insert_unique(spot.hash, at, hash);
        self.slots.push(Suspect {
            first: count.first,
            last: count.last,
            evidence: 0,
            more: None,
            user: (0, 0),
            failures: count.failures,
            quieter: NONE,
            louder: NONE,
            key: spot.key,
            before,
            again: count.failures > 1 || before > 0,
            changed: false,
        });
        self.link(at);
        self.note(at);
        Some(at)
    }

    /// Notes that it failed again: from now on it is the loudest of those who came as often.
    /// `restart` says from what it starts if what was counted so far is over.
    pub(super) fn touch(&mut self, at: u32, restart: impl FnOnce(&Count) -> Option<Count>) {
        self.unlink(at);
        if let Some(suspect) = self.slot_mut(at) {
            if let Some(count) = restart(&suspect.count()) {
                suspect.restart(count);
            }
            suspect.again = suspect.rank() > 0;
        }
        self.link(at);
        self.note(at);
    }

    /// Keeps a line of the suspect's last failure, if any are to be kept.
    pub(super) fn keep(&mut self, at: u32, line: &[u8], now: i64, most: usize) {
        let bytes = most.saturating_mul(EVIDENCE.0).max(EVIDENCE.1);
        let Some(former) = self.slot(at).map(|suspect| suspect.evidence) else { return };
        let mark = self.lines.add(former, line, now, bytes);
        self.slot_mut(at).into_iter().for_each(|suspect| suspect.evidence = mark);
    }

    /// Returns its last lines, at most so many, oldest first.
    pub(super) fn evidence(&self, at: u32, limit: usize) -> Vec<Box<[u8]>> {
        self.slot(at).map(|suspect| self.lines.last(suspect.evidence, limit)).unwrap_or_default()
    }

    /// Forgets the one that is worth least, if there is one.
    pub(super) fn evict(&mut self) -> bool {
        let family = self.lists.of(self.lists.v4.len() >= self.lists.others.len());
        family.quietest().is_some_and(|at| self.remove(at))
    }

    /// Forgets at most so many of those whose last failure was by this time.
    pub(super) fn forget(&mut self, time: i64, limit: usize) {
        for _ in 0..limit {
            let over = |at: &u32| self.slot(*at).is_some_and(|suspect| suspect.last <= time);
            let Some(at) = self.lists.quietest().into_iter().find(over) else { return };
            self.remove(at);
        }
    }

    /// Gives back what those took who are gone, and lines that were added by this time.
    pub(super) fn shrink(&mut self, time: i64, most: usize) {
        self.lines.forget(time);
        if self.slots.len() < most / 2 {
            self.crowded = None;
        }
        let room = 2 * self.slots.len() + SMALL;
        if self.slots.capacity() > 2 * room {
            self.slots.shrink_to(room);
            let (slots, secret) = (&self.slots, &self.secrets.0);
            self.index.shrink_to(room, |at| {
                let slot = usize::try_from(*at).ok().and_then(|at| slots.get(at));
                slot.map_or(0, |slot| secret.hash_one(slot.key))
            });
        }
    }

    /// Forgets all suspects.
    pub(super) fn clear(&mut self) {
        while self.evict() {}
    }

    /// Forgets those inside `prefix`.
    pub(super) fn forget_within(&mut self, prefix: IpNet) {
        let inside = |key: Key| key.net().is_some_and(|net| prefix.contains(&net));
        // who moves to a place was behind it
        for at in (0..self.slots.len()).rev().filter_map(|at| u32::try_from(at).ok()) {
            if self.slot(at).is_some_and(|suspect| inside(suspect.key)) {
                self.remove(at);
            }
        }
    }

    /// Returns the suspect, as quiet as before.
    pub(super) fn get(&mut self, at: u32) -> Option<&mut Suspect> {
        self.slot_mut(at)
    }

    /// Returns what only some jails count, of all of them.
    pub(super) fn each_more(&mut self) -> impl Iterator<Item = &mut More> {
        self.slots.iter_mut().filter_map(Suspect::any_more)
    }

    /// Forgets a suspect; returns whether there was one.
    pub(super) fn remove(&mut self, at: u32) -> bool {
        let Some(key) = self.slot(at).map(|suspect| suspect.key) else { return false };
        self.unindex(key, at);
        self.unlink(at);
        self.gone(key);
        if let Some(mut crowded) = self.crowded.take() {
            crowded.held(self.network(key)).into_iter().for_each(|held| *held -= 1);
            self.crowded = Some(crowded);
        }
        if let Ok(place) = usize::try_from(at) {
            self.slots.swap_remove(place);
        }
        self.moved_to(at);
        true
    }

    /// From now on [`Suspects::take_changes`] is asked.
    pub(super) fn follow(&mut self) {
        self.changes.get_or_insert_default();
    }

    /// Returns who was counted, and how often by now, or forgotten (`None`) since this was last
    /// asked: of several for one prefix the last holds.
    pub(super) fn take_changes(&mut self) -> Vec<(IpNet, Option<Count>)> {
        let changes = self.changes.as_mut().map(std::mem::take).unwrap_or_default();
        let mut all: Vec<_> = changes.gone.into_iter().map(|net| (net, None)).collect();
        for at in changes.counted {
            if let Some(suspect) = self.slot_mut(at).filter(|suspect| suspect.changed) {
                suspect.changed = false;
                all.extend(suspect.key.net().map(|net| (net, Some(suspect.count()))));
            }
        }
        all
    }

    /// What counts is to be said again; what counts for an id is kept in memory alone.
    pub(super) fn note(&mut self, at: u32) {
        let Some(changes) = &mut self.changes else { return };
        let slot = usize::try_from(at).ok().and_then(|at| self.slots.get_mut(at));
        if let Some(suspect) = slot.filter(|suspect| !suspect.changed) {
            suspect.changed = true;
            changes.counted.push(at);
        }
    }

    /// Notes that this one counts no more.
    pub(super) fn note_gone(&mut self, net: IpNet) {
        self.changes.iter_mut().for_each(|changes| changes.gone.push(net));
    }

    fn gone(&mut self, key: Key) {
        key.net().into_iter().for_each(|net| self.note_gone(net));
    }

    fn unindex(&mut self, key: Key, at: u32) {
        let hash = self.hash(key);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == at) {
            entry.remove();
        }
    }

    /// The last slot was moved to `at`: its neighbours and the index have to follow.
    fn moved_to(&mut self, at: u32) {
        let Some(moved) = self.slot(at) else { return };
        let (key, changed) = (moved.key, moved.changed);
        let (quieter, louder, list) = (moved.quieter, moved.louder, moved.list());
        let hash = self.hash(key);
        let from = u32::try_from(self.slots.len()).unwrap_or(NONE);
        if let Some(place) = self.index.find_mut(hash, |place| *place == from) {
            *place = at;
        }
        self.join(list, quieter, at);
        self.join(list, at, louder);
        if let (true, Some(changes)) = (changed, &mut self.changes) {
            changes.counted.push(at);
        }
    }

    fn link(&mut self, at: u32) {
        let Some(list) = self.slot(at).map(Suspect::list) else { return };
        let kept = self.lists.list(list);
        kept.len += 1;
        let loudest = kept.loudest;
        self.join(list, loudest, at);
        self.join(list, at, NONE);
    }

    fn unlink(&mut self, at: u32) {
        let Some(suspect) = self.slot(at) else { return };
        let (quieter, louder, list) = (suspect.quieter, suspect.louder, suspect.list());
        self.lists.list(list).len -= 1;
        self.join(list, quieter, louder);
    }

    /// Makes two slots neighbours; [`NONE`] stands for the end of the list on its side.
    fn join(&mut self, list: (bool, bool), quieter: u32, louder: u32) {
        match self.slot_mut(quieter) {
            Some(suspect) => suspect.louder = louder,
            None => self.lists.list(list).quietest = louder,
        }
        match self.slot_mut(louder) {
            Some(suspect) => suspect.quieter = quieter,
            None => self.lists.list(list).loudest = quieter,
        }
    }

    fn hash(&self, value: impl std::hash::Hash) -> u64 {
        self.secrets.0.hash_one(value)
    }

    /// Returns the number of a network among [`NETWORKS`].
    fn network(&self, key: Key) -> usize {
        usize::try_from(self.hash(key.network())).unwrap_or(0) % NETWORKS
    }

    fn slot(&self, at: u32) -> Option<&Suspect> {
        self.slots.get(usize::try_from(at).ok()?)
    }

    fn slot_mut(&mut self, at: u32) -> Option<&mut Suspect> {
        self.slots.get_mut(usize::try_from(at).ok()?)
    }
}

impl Crowded {
    /// Returns a number below `end`, if there is one.
    fn roll(&mut self, end: usize) -> Option<u32> {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        u32::try_from(usize::try_from(self.dice).ok()?.checked_rem(end)?).ok()
    }

    /// Returns how many are tracked of a network, by its number.
    fn held(&mut self, network: usize) -> Option<&mut u32> {
        self.networks.get_mut(network)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const ROOM: usize = 8;

    fn net(is_v4: bool, host: u8) -> IpNet {
        let v6 = Ipv6Addr::from([0x20, 1, host, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        let v4 = Ipv4Addr::new(192, host, 2, 1);
        IpNet::from(if is_v4 { IpAddr::from(v4) } else { IpAddr::from(v6) })
    }

    /// Returns whether it is tracked after it failed at `now`.
    fn fail(suspects: &mut Suspects, who: Who, now: i64) -> bool {
        let spot = suspects.find(who);
        if let Some(at) = spot.at() {
            suspects.touch(at, |_| None);
        } else if suspects.is_full(ROOM) && !suspects.make_room(spot, ROOM, now, 1000) {
            return false;
        } else {
            suspects.insert(spot, Count::new(now)).unwrap();
        }
        let at = suspects.find(who).at().unwrap();
        let mut count = suspects.get(at).unwrap().count();
        count.add(now, 1, std::time::Duration::from_secs(60));
        suspects.get(at).unwrap().set_count(count);
        suspects.keep(at, &now.to_le_bytes(), now, ROOM);
        true
    }

    fn follow(record: &mut HashMap<IpNet, Count>, suspects: &mut Suspects) {
        for (net, count) in suspects.take_changes() {
            record.remove(&net);
            record.extend(count.map(|count| (net, count)));
        }
    }

    #[test]
    fn one_is_72_bytes() {
        assert_eq!(size_of::<Suspect>(), 72);
    }

    #[test]
    fn keys_are_what_they_were_made_of() {
        for text in ["192.0.2.1/32", "0.0.0.0/0", "10.0.0.0/8", "::/0", "2001:db8::/48", "::1/128"]
        {
            let net: IpNet = text.parse().unwrap();
            assert_eq!(Key::of_net(net).net(), Some(net));
        }
        let suspects = Suspects::new();
        let [a, b, c] = ["a", "a", "b"].map(|id| suspects.find(Who::Id(id)).key);
        assert!(a == b && a != c && a.net().is_none());
    }

    proptest! {
        /// Against plain tables of what was counted since when, and of what was told: whoever is
        /// tracked has exactly the failures and lines that it had since it was last forgotten, and
        /// the record follows.
        #[test]
        fn counts_are_exact(
            steps in prop::collection::vec((0u8..20, any::<bool>(), 0u8..12), 0..400),
        ) {
            let mut suspects = Suspects::new();
            suspects.follow();
            let (mut model, mut record) = (HashMap::<IpNet, Vec<i64>>::new(), HashMap::new());
            for (now, (host, is_v4, what)) in (0i64..).zip(steps) {
                let who = net(is_v4, host);
                let spot = suspects.find(Who::Net(who));
                match what {
                    0 => spot.at().into_iter().for_each(|at| assert!(suspects.remove(at))),
                    1 => suspects.forget_within(who),
                    2 => suspects.forget(now - 100, 2),
                    3 => suspects.shrink(-1, ROOM),
                    4 => follow(&mut record, &mut suspects),
                    _ => if fail(&mut suspects, Who::Net(who), now) {
                        model.entry(who).or_default().push(now);
                    },
                }
                model.retain(|who, _| suspects.find(Who::Net(*who)).at().is_some());
                prop_assert!(suspects.len() <= ROOM);
                prop_assert_eq!(suspects.len(), model.len());
                let (v4, others) = (&suspects.lists.v4, &suspects.lists.others);
                prop_assert_eq!(v4.len() + others.len(), model.len());
                prop_assert_eq!(v4.len(), model.keys().filter(|n| n.addr().is_ipv4()).count());
            }
            follow(&mut record, &mut suspects);
            prop_assert_eq!(record.len(), model.len());
            for (who, times) in model {
                let at = suspects.find(Who::Net(who)).at().unwrap();
                let count = suspects.get(at).unwrap().count();
                prop_assert_eq!(count.failures as usize, times.len());
                prop_assert_eq!((count.first, count.last), (times[0], *times.last().unwrap()));
                prop_assert_eq!(record[&who], count);
                let lines: Vec<_> = times.iter().map(|t| Box::from(t.to_le_bytes())).collect();
                prop_assert_eq!(suspects.evidence(at, usize::MAX), lines);
            }
            // in each list from the quietest to the loudest
            while let Some(at) = suspects.lists.quietest().into_iter().find(|at| *at != NONE) {
                let one = suspects.slot(at).unwrap();
                let louder = suspects.slot(one.louder);
                prop_assert!(louder.is_none_or(|other| other.last >= one.last));
                prop_assert!(suspects.remove(at));
            }
            prop_assert_eq!((suspects.len(), suspects.index.len()), (0, 0));
        }
    }

    #[test]
    fn who_came_again_beats_who_came_once() {
        let mut suspects = Suspects::new();
        (0..8).for_each(|host| assert!(fail(&mut suspects, Who::Net(net(true, host)), 0)));
        // who came once does not
        assert!((8..16).all(|host| !fail(&mut suspects, Who::Net(net(true, host)), 1)));
        assert!(fail(&mut suspects, Who::Net(net(true, 8)), 2));
        assert!(suspects.find(Who::Net(net(true, 0))).at().is_none(), "the quietest went");
        // and who comes often, those who came a little less often
        (1..9).for_each(|host| assert!(fail(&mut suspects, Who::Net(net(true, host)), 3)));
        let tries =
            (0..20).take_while(|_| !fail(&mut suspects, Who::Net(net(true, 77)), 4)).count();
        assert_eq!(tries, 3, "the fourth time beats two, and some");
    }

    #[test]
    fn families_have_a_half_each() {
        for flood_is_v4 in [false, true] {
            let mut suspects = Suspects::new();
            for _ in 0..3 {
                for host in 0..200 {
                    fail(&mut suspects, Who::Net(net(flood_is_v4, host)), 0);
                }
            }
            assert!((0..4).all(|host| fail(&mut suspects, Who::Net(net(!flood_is_v4, host)), 1)));
            assert!(!fail(&mut suspects, Who::Net(net(!flood_is_v4, 5)), 1), "as much as is fair");
            assert!((0..4).all(|host| fail(&mut suspects, Who::Net(net(!flood_is_v4, host)), 2)));
        }
    }

    #[test]
    fn a_crowd_out_of_one_network_yields_to_a_stranger() {
        let mut suspects = Suspects::new();
        let member = |n: u32| {
            let address = u128::from(n) << 64 | 0x2001_0db8 << 96;
            Who::Net(IpNet::from(IpAddr::from(address.to_be_bytes())))
        };
        for _ in 0..2 {
            for n in 0..1000 {
                fail(&mut suspects, member(n), 0);
            }
        }
        assert!(fail(&mut suspects, Who::Net(net(false, 9)), 1));
        assert!(fail(&mut suspects, Who::Net(net(false, 9)), 2), "it is tracked");
    }
}
