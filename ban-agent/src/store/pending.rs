//! What the database does not have yet. Later changes of one thing replace earlier ones, and what
//! nobody needs to go on is left out beyond a bound, and counted: a disk that hangs for a day costs
//! no more memory than what there is to remember.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
};

use ban_core::jail::Count;
use rusqlite::{Connection, TransactionBehavior, params};
use tokio::sync::oneshot;

use super::{
    Counted, Deed, Kind, Order, Past, Unbanned, deeds, lists, orders, read,
    row::{Key, Span, holder_text, ports_text},
};
use crate::{ledger::Holder, net::IpNet, source::Position};

/// Changed claims that may wait, unless [`Pending::set_max_bans`] says otherwise. Beyond it they are
/// given up, and all claims are asked for.
pub(super) const MIN_CLAIMS: usize = 1 << 16;
/// Grounds and history entries that may wait; further ones are lost, and counted.
pub(super) const MAX_GROUNDS: usize = 10_000;
/// What the lines of those grounds may take.
pub(super) const MAX_LINES: usize = 16 << 20;
const MAX_HISTORY: usize = 100_000;
/// Counts that may wait, likewise: those of all the addresses that some jails track.
const MAX_COUNTS: usize = 1 << 18;
/// Positions that may wait: of all logs that there are, and were since the disk hangs.
pub(super) const MAX_POSITIONS: usize = 1 << 16;
/// Those who may wait to be told; one more, and all are told that it is not on disk yet.
pub(super) const MAX_BARRIERS: usize = 1 << 14;

/// Why a prefix was banned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ground {
    pub(super) at: i64,
    pub(super) failures: u32,
    pub(super) reason: Option<String>,
    /// The lines, each ended by `\n`.
    pub(super) lines: Vec<u8>,
    /// How long, in ms; `None`: for ever.
    pub(super) bantime: Option<i64>,
    /// A JSON object.
    pub(super) fields: String,
}

impl Ground {
    /// What an attacker can make long.
    fn size(&self) -> usize {
        self.lines.len() + self.fields.len()
    }
}

/// Changes that wait to be written.
#[derive(Debug)]
pub(super) struct Pending {
    claims: BTreeMap<Key, Option<Span>>,
    grounds: HashMap<(IpNet, Holder), Ground>,
    /// What the lines of the grounds take.
    lines: usize,
    history: HashMap<(IpNet, Holder), (u32, i64)>,
    /// `None`: nobody goes on with it any more.
    positions: HashMap<Arc<str>, Option<Position>>,
    counts: HashMap<(Arc<str>, IpNet), Option<Count>>,
    unban_marks: HashMap<Unbanned, i64>,
    /// What was done, in order.
    deeds: Vec<Deed>,
    /// `None`: it is over.
    orders: HashMap<(Kind, String), Option<Order>>,
    /// Who is to be told why a prefix was banned before what waits here is written.
    asks: Vec<(IpNet, Past)>,
    barriers: Vec<oneshot::Sender<()>>,
    /// What is pending is all there is: rows that are not in it go. Then it is as large as the
    /// ledger, and has no other bound.
    whole: bool,
    /// All claims, as far as they were given since [`Pending::begin_gathering`], with what has changed
    /// since.
    gathering: Option<BTreeMap<Key, Option<Span>>>,
    /// Too much was pending: no claim is recorded until all of them are given again, and nobody is
    /// told that one is.
    overflowed: bool,
    /// Claims that may be pending.
    max_claims: usize,
    /// What found no room, since the start.
    lost: u64,
}

impl Default for Pending {
    fn default() -> Pending {
        Pending {
            claims: BTreeMap::new(),
            grounds: HashMap::new(),
            lines: 0,
            history: HashMap::new(),
            positions: HashMap::new(),
            counts: HashMap::new(),
            unban_marks: HashMap::new(),
            deeds: Vec::new(),
            orders: HashMap::new(),
            asks: Vec::new(),
            barriers: Vec::new(),
            whole: false,
            gathering: None,
            overflowed: false,
            max_claims: MIN_CLAIMS,
            lost: 0,
        }
    }
}

/// Keeps one more, if there is room for it or it was known; says how many were lost.
fn put<K: Eq + std::hash::Hash, V>(kept: &mut HashMap<K, V>, most: usize, key: K, value: V) -> u64 {
    if kept.len() < most || kept.contains_key(&key) {
        kept.insert(key, value);
        return 0;
    }
    1
}

impl Pending {
    /// As many bans fit per family: twice as many changes may wait.
    pub(super) fn set_max_bans(&mut self, max_bans: usize) {
        self.max_claims = max_bans.saturating_mul(4).max(MIN_CLAIMS);
    }

    pub(super) fn claim(&mut self, key: Key, span: Option<Span>) {
        match (&mut self.gathering, span) {
            (Some(all), Some(_)) => _ = all.insert(key.clone(), span),
            (Some(all), None) => _ = all.remove(&key),
            (None, _) => {}
        }
        if self.overflowed {
            return;
        }
        if self.whole && span.is_none() {
            // what is not in it is not recorded
            self.claims.remove(&key);
            return;
        }
        let room = self.whole || self.claims.len() < self.max_claims;
        if room || self.claims.contains_key(&key) {
            self.claims.insert(key, span);
        } else {
            self.overflow();
        }
    }

    /// Gives the claims up, and those who wait for them.
    fn overflow(&mut self) {
        self.claims = BTreeMap::new();
        self.barriers = Vec::new();
        (self.whole, self.overflowed) = (false, true);
    }

    pub(super) fn is_overflowed(&self) -> bool {
        self.overflowed
    }

    pub(super) fn banned(&mut self, who: (IpNet, Holder), more: u32, at: i64) {
        let room = self.history.len() < MAX_HISTORY;
        match self.history.entry(who) {
            Entry::Occupied(mut known) => {
                let (bans, last) = *known.get();
                known.insert((bans.saturating_add(more), at.max(last)));
            }
            Entry::Vacant(unknown) if room => {
                unknown.insert((more, at));
            }
            Entry::Vacant(_) => self.lost += 1,
        }
    }

    pub(super) fn ground(&mut self, who: (IpNet, Holder), ground: Ground) {
        let known = self.grounds.get(&who).map(Ground::size);
        let lines = self.lines - known.unwrap_or(0) + ground.size();
        if lines <= MAX_LINES && (known.is_some() || self.grounds.len() < MAX_GROUNDS) {
            self.lines = lines;
            self.grounds.insert(who, ground);
        } else {
            self.lost += 1;
        }
    }

    pub(super) fn handled(
        &mut self,
        positions: impl IntoIterator<Item = (Arc<str>, Option<Position>)>,
        counted: impl IntoIterator<Item = Counted>,
    ) {
        for (origin, position) in positions {
            self.lost += put(&mut self.positions, MAX_POSITIONS, origin, position);
        }
        for (who, count) in counted {
            self.lost += put(&mut self.counts, MAX_COUNTS, who, count);
        }
    }

    pub(super) fn mark_unban(&mut self, unbanned: Unbanned, at: i64) {
        self.lost += put(&mut self.unban_marks, MAX_GROUNDS, unbanned, at);
    }

    /// What was done.
    pub(super) fn deed(&mut self, deed: Deed) {
        if self.deeds.len() < MAX_GROUNDS {
            self.deeds.push(deed);
        } else {
            self.lost += 1;
        }
    }

    /// What was ordered.
    pub(super) fn order(&mut self, what: (Kind, String), order: Option<Order>) {
        self.lost += put(&mut self.orders, MAX_GROUNDS, what, order);
    }

    /// Has `past` told why `prefix` was banned by now.
    pub(super) fn ask(&mut self, prefix: IpNet, past: Past) {
        if self.asks.len() < MAX_GROUNDS {
            self.asks.push((prefix, past));
        } else {
            self.lost += 1;
        }
    }

    pub(super) fn barrier(&mut self, done: oneshot::Sender<()>) {
        if self.barriers.len() >= MAX_BARRIERS {
            self.barriers.retain(|done| !done.is_closed());
            if self.barriers.len() > MAX_BARRIERS / 2 {
                // so many wait for no disk that works: all of them are told that it is not there
                self.barriers = Vec::new();
            }
        }
        if !self.overflowed {
            self.barriers.push(done);
        }
    }

    /// All claims come next, some at a time.
    pub(super) fn begin_gathering(&mut self) {
        self.gathering = Some(BTreeMap::new());
    }

    /// Some of all claims.
    pub(super) fn gather(&mut self, claims: Vec<(Key, Span)>) {
        if let Some(all) = &mut self.gathering {
            all.extend(claims.into_iter().map(|(key, span)| (key, Some(span))));
        }
    }

    /// What was gathered is all claims that there are, and these are all positions.
    pub(super) fn replace(&mut self, positions: HashMap<Arc<str>, Option<Position>>) {
        if let Some(all) = self.gathering.take() {
            self.claims = all;
            self.positions = positions;
            (self.whole, self.overflowed) = (true, false);
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    pub(super) fn is_empty(&self) -> bool {
        self.is_lazy() && self.positions.is_empty() && self.counts.is_empty()
    }

    /// Whether nothing waits but positions and what was counted there: after a crash lines may be read again.
    pub(super) fn is_lazy(&self) -> bool {
        self.claims.is_empty()
            && self.grounds.is_empty()
            && self.history.is_empty()
            && self.unban_marks.is_empty()
            && self.deeds.is_empty()
            && self.orders.is_empty()
            && self.asks.is_empty()
            && self.barriers.is_empty()
            && !self.whole
    }

    /// Whether somebody waits for it to be written.
    pub(super) fn is_awaited(&self) -> bool {
        !self.barriers.is_empty() || !self.asks.is_empty() || self.whole
    }

    #[cfg(test)]
    pub(super) fn set_max_claims(&mut self, most: usize) {
        self.max_claims = most;
    }

    /// Claims, bytes of lines, positions, barriers, unban marks.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 5] {
        let Pending { claims, positions, barriers, unban_marks, .. } = self;
        [claims.len(), self.lines, positions.len(), barriers.len(), unban_marks.len()]
    }

    /// What found no room, since the start.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// The waiting are told that it did not work; the changes stay.
    pub(super) fn failed(&mut self) {
        self.barriers = Vec::new();
    }

    /// Everything, to be written; what comes from now on gathers here.
    pub(super) fn take(&mut self) -> Pending {
        let Pending { overflowed, max_claims, lost, .. } = *self;
        let gathering = self.gathering.take();
        let gathers = Pending { gathering, overflowed, max_claims, lost, ..Pending::default() };
        std::mem::replace(self, gathers)
    }

    /// This could not be written: it is as if what came meanwhile, `later`, had been gathered here.
    pub(super) fn absorb(&mut self, later: Pending) {
        let Pending { max_claims, lost, .. } = later;
        (self.max_claims, self.lost) = (max_claims, lost);
        let gathering = later.gathering;
        if later.overflowed {
            self.overflow();
            self.handled(later.positions, later.counts);
        } else if later.whole {
            (self.claims, self.positions) = (later.claims, later.positions);
            (self.whole, self.overflowed) = (true, false);
            self.handled([], later.counts);
        } else {
            for (key, span) in later.claims {
                self.claim(key, span);
            }
            self.handled(later.positions, later.counts);
        }
        for (who, (more, at)) in later.history {
            self.banned(who, more, at);
        }
        for (who, ground) in later.grounds {
            self.ground(who, ground);
        }
        for (unbanned, at) in later.unban_marks {
            self.mark_unban(unbanned, at);
        }
        for (what, order) in later.orders {
            self.order(what, order);
        }
        for deed in later.deeds {
            self.deed(deed);
        }
        for (prefix, past) in later.asks {
            self.ask(prefix, past);
        }
        for done in later.barriers {
            self.barrier(done);
        }
        // it has seen these changes already
        self.gathering = gathering;
    }

    /// Writes all of it in one transaction; `each` is called for each row.
    pub(super) fn write(
        &self,
        db: &mut Connection,
        boot: i64,
        each: &dyn Fn(),
    ) -> rusqlite::Result<()> {
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (prefix, past) in &self.asks {
            // what was told in an earlier try stays
            let _ = past.set(read::evidence(&transaction, *prefix)?);
        }
        if self.whole {
            transaction
                .execute_batch("DELETE FROM claims; DELETE FROM lists; DELETE FROM positions;")?;
        }
        self.write_claims(&transaction, boot, each)?;
        self.write_history(&transaction, each)?;
        self.write_grounds(&transaction, each)?;
        self.write_positions(&transaction)?;
        self.write_counts(&transaction)?;
        self.write_unban_marks(&transaction)?;
        deeds::write(&transaction, &self.deeds)?;
        orders::write(&transaction, self.orders.iter())?;
        transaction.commit()
    }

    /// It is written: those who wait are told.
    pub(super) fn tell(self) {
        for done in self.barriers {
            // who does not wait any more need not know
            let _ = done.send(());
        }
    }

    fn write_claims(&self, db: &Connection, boot: i64, each: &dyn Fn()) -> rusqlite::Result<()> {
        let mut put = db.prepare_cached(
            "INSERT INTO claims (prefix, holder, ports, since, until, boot, boot_until)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT DO UPDATE SET until = excluded.until, boot = excluded.boot,
             boot_until = excluded.boot_until",
        )?;
        let mut remove = db.prepare_cached(
            "DELETE FROM claims WHERE prefix = ?1 AND holder = ?2 AND ports = ?3",
        )?;
        let (by_hand, mut others): (Vec<_>, Vec<_>) =
            self.claims.iter().partition(|(key, _)| lists::may_hold(key));
        if !by_hand.is_empty() {
            others.extend(lists::write(db, by_hand, boot, each)?);
        }
        let mut claims: Vec<_> = others
            .into_iter()
            .map(|(Key { prefix, holder, ports, derived }, span)| {
                (prefix.to_string(), holder_text(holder), ports_text(ports, *derived), span)
            })
            .collect();
        // In the table's order: neighbours share a page.
        claims.sort_unstable_by(|a, b| (&a.0, &a.1, &a.2).cmp(&(&b.0, &b.1, &b.2)));
        for (prefix, holder, ports, span) in claims {
            each();
            match span {
                Some(Span { since, until, boot_until }) => {
                    put.execute(params![prefix, holder, ports, since, until, boot, boot_until])?
                }
                None => remove.execute(params![prefix, holder, ports])?,
            };
        }
        Ok(())
    }

    fn write_history(&self, db: &Connection, each: &dyn Fn()) -> rusqlite::Result<()> {
        let mut put = db.prepare_cached(
            "INSERT INTO history (prefix, holder, bans, last) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET bans = bans + excluded.bans, last = max(last, excluded.last)",
        )?;
        for ((prefix, holder), (bans, last)) in &self.history {
            each();
            put.execute(params![prefix.to_string(), holder_text(holder), bans, last])?;
        }
        Ok(())
    }

    fn write_grounds(&self, db: &Connection, each: &dyn Fn()) -> rusqlite::Result<()> {
        let mut put = db.prepare_cached(
            "INSERT OR REPLACE INTO evidence
             (prefix, holder, at, failures, reason, lines, bantime, fields)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        for ((prefix, holder), ground) in &self.grounds {
            each();
            let Ground { at, failures, reason, lines, bantime, fields } = ground;
            let (prefix, holder) = (prefix.to_string(), holder_text(holder));
            put.execute(params![prefix, holder, at, failures, reason, lines, bantime, fields])?;
        }
        Ok(())
    }

    fn write_positions(&self, db: &Connection) -> rusqlite::Result<()> {
        let mut put = db.prepare_cached("INSERT OR REPLACE INTO positions VALUES (?1, ?2)")?;
        let mut remove = db.prepare_cached("DELETE FROM positions WHERE origin = ?1")?;
        for (origin, position) in &self.positions {
            match position.as_ref().map(serde_json::to_string) {
                Some(Ok(text)) => put.execute(params![origin.as_ref(), text])?,
                None => remove.execute(params![origin.as_ref()])?,
                Some(Err(_)) => 0,
            };
        }
        Ok(())
    }

    fn write_counts(&self, db: &Connection) -> rusqlite::Result<()> {
        let mut put =
            db.prepare_cached("INSERT OR REPLACE INTO counts VALUES (?1, ?2, ?3, ?4, ?5)")?;
        let mut remove = db.prepare_cached("DELETE FROM counts WHERE jail = ?1 AND prefix = ?2")?;
        for ((jail, prefix), count) in &self.counts {
            let (jail, prefix) = (jail.as_ref(), prefix.to_string());
            match count {
                Some(Count { failures, first, last }) => {
                    put.execute(params![jail, prefix, failures, first, last])?
                }
                None => remove.execute(params![jail, prefix])?,
            };
        }
        Ok(())
    }

    fn write_unban_marks(&self, db: &Connection) -> rusqlite::Result<()> {
        let mut put = db.prepare_cached("INSERT OR REPLACE INTO pardons VALUES (?1, ?2, ?3)")?;
        for ((prefix, holder), at) in &self.unban_marks {
            let prefix = prefix.map(|prefix| prefix.to_string()).unwrap_or_default();
            let holder = holder.as_ref().map(holder_text).unwrap_or_default();
            put.execute(params![prefix, holder, at])?;
        }
        Ok(())
    }
}
