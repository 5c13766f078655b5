//! What the database does not have yet. Later changes of one thing replace earlier ones, so that
//! a disk that is full for a day costs no more memory than what there is to remember.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use rusqlite::{Connection, TransactionBehavior, params};
use tokio::sync::oneshot;

use super::{
    Counted, Pardoned,
    row::{Key, Span, holder_text, ports_text},
};
use crate::{jail::Count, ledger::Holder, net::IpNet, source::Position};

/// Claims that may wait. Beyond it they are dropped, and asked for again once the disk works.
const MAX_CLAIMS: usize = 1 << 20;
/// Grounds and history entries that may wait; further ones are lost, and counted.
const MAX_GROUNDS: usize = 10_000;
const MAX_HISTORY: usize = 100_000;
/// Counts that may wait, likewise: those of all the addresses that some jails track.
const MAX_COUNTS: usize = 1 << 18;

/// Why a prefix was banned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ground {
    pub(super) at: i64,
    pub(super) failures: u32,
    pub(super) reason: Option<String>,
    /// The lines, each ended by `\n`.
    pub(super) lines: Vec<u8>,
}

/// Changes that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Pending {
    claims: HashMap<Key, Option<Span>>,
    grounds: HashMap<(IpNet, Holder), Ground>,
    history: HashMap<(IpNet, Holder), (u32, i64)>,
    positions: HashMap<Arc<str>, Position>,
    counts: HashMap<(Arc<str>, IpNet), Option<Count>>,
    pardons: HashMap<Pardoned, i64>,
    barriers: Vec<oneshot::Sender<()>>,
    /// What is pending is all there is: rows that are not in it go.
    whole: bool,
    /// Too much was pending: the claims have to be given again.
    pub(super) overflowed: bool,
    /// Evidence and history that found no room.
    pub(super) lost: u64,
}

impl Pending {
    pub(super) fn claim(&mut self, key: Key, span: Option<Span>) {
        if self.claims.len() >= MAX_CLAIMS && !self.claims.contains_key(&key) {
            self.claims = HashMap::new();
            self.overflowed = true;
        }
        self.claims.insert(key, span);
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
        if self.grounds.len() < MAX_GROUNDS || self.grounds.contains_key(&who) {
            self.grounds.insert(who, ground);
        } else {
            self.lost += 1;
        }
    }

    pub(super) fn handled(&mut self, positions: Vec<(Arc<str>, Position)>, counted: Vec<Counted>) {
        self.positions.extend(positions);
        for (who, count) in counted {
            if self.counts.len() < MAX_COUNTS || self.counts.contains_key(&who) {
                self.counts.insert(who, count);
            } else {
                self.lost += 1;
            }
        }
    }

    pub(super) fn pardon(&mut self, pardoned: Pardoned, at: i64) {
        if self.pardons.len() < MAX_GROUNDS {
            self.pardons.insert(pardoned, at);
        }
    }

    pub(super) fn barrier(&mut self, done: oneshot::Sender<()>) {
        self.barriers.push(done);
    }

    /// All claims and positions that there are.
    pub(super) fn replace(
        &mut self,
        claims: Vec<(Key, Span)>,
        positions: Vec<(Arc<str>, Position)>,
    ) {
        self.claims = claims.into_iter().map(|(key, span)| (key, Some(span))).collect();
        self.positions = positions.into_iter().collect();
        self.whole = true;
        self.overflowed = false;
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
            && self.pardons.is_empty()
            && self.barriers.is_empty()
            && !self.whole
    }

    /// The waiting are told that it did not work; the changes stay.
    pub(super) fn failed(&mut self) {
        self.barriers.clear();
    }

    /// Writes all of it in one transaction; on success nothing is pending any more. Returns those
    /// who wait to be told.
    pub(super) fn write(
        &mut self,
        db: &mut Connection,
        boot: i64,
    ) -> rusqlite::Result<Vec<oneshot::Sender<()>>> {
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if self.whole {
            transaction.execute_batch("DELETE FROM claims; DELETE FROM positions;")?;
        }
        self.write_claims(&transaction, boot)?;
        self.write_history(&transaction)?;
        self.write_grounds(&transaction)?;
        self.write_positions(&transaction)?;
        self.write_counts(&transaction)?;
        self.write_pardons(&transaction)?;
        transaction.commit()?;
        let Pending { barriers, overflowed, lost, .. } = std::mem::take(self);
        (self.overflowed, self.lost) = (overflowed, lost);
        Ok(barriers)
    }

    fn write_claims(&self, db: &Connection, boot: i64) -> rusqlite::Result<()> {
        let mut put = db.prepare_cached(
            "INSERT INTO claims (prefix, holder, ports, since, until, boot, boot_until)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT DO UPDATE SET until = excluded.until, boot = excluded.boot,
             boot_until = excluded.boot_until",
        )?;
        let mut remove = db.prepare_cached(
            "DELETE FROM claims WHERE prefix = ?1 AND holder = ?2 AND ports = ?3",
        )?;
        let mut claims: Vec<_> = self
            .claims
            .iter()
            .map(|(Key { prefix, holder, ports }, span)| {
                (prefix.to_string(), holder_text(holder), ports_text(ports), span)
            })
            .collect();
        // In the table's order: neighbours share a page.
        claims.sort_unstable_by(|a, b| (&a.0, &a.1, &a.2).cmp(&(&b.0, &b.1, &b.2)));
        for (prefix, holder, ports, span) in claims {
            match span {
                Some(Span { since, until, boot_until }) => {
                    put.execute(params![prefix, holder, ports, since, until, boot, boot_until])?
                }
                None => remove.execute(params![prefix, holder, ports])?,
            };
        }
        Ok(())
    }

    fn write_history(&self, db: &Connection) -> rusqlite::Result<()> {
        let mut put = db.prepare_cached(
            "INSERT INTO history (prefix, holder, bans, last) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET bans = bans + excluded.bans, last = max(last, excluded.last)",
        )?;
        for ((prefix, holder), (bans, last)) in &self.history {
            put.execute(params![prefix.to_string(), holder_text(holder), bans, last])?;
        }
        Ok(())
    }

    fn write_grounds(&self, db: &Connection) -> rusqlite::Result<()> {
        let mut put = db.prepare_cached(
            "INSERT OR REPLACE INTO evidence (prefix, holder, at, failures, reason, lines)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        for ((prefix, holder), ground) in &self.grounds {
            let Ground { at, failures, reason, lines } = ground;
            let (prefix, holder) = (prefix.to_string(), holder_text(holder));
            put.execute(params![prefix, holder, at, failures, reason, lines])?;
        }
        Ok(())
    }

    fn write_positions(&self, db: &Connection) -> rusqlite::Result<()> {
        let mut put = db.prepare_cached("INSERT OR REPLACE INTO positions VALUES (?1, ?2)")?;
        for (origin, position) in &self.positions {
            if let Ok(text) = serde_json::to_string(position) {
                put.execute(params![origin.as_ref(), text])?;
            }
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

    fn write_pardons(&self, db: &Connection) -> rusqlite::Result<()> {
        let mut put = db.prepare_cached("INSERT OR REPLACE INTO pardons VALUES (?1, ?2, ?3)")?;
        for ((prefix, holder), at) in &self.pardons {
            let prefix = prefix.map(|prefix| prefix.to_string()).unwrap_or_default();
            let holder = holder.as_ref().map(holder_text).unwrap_or_default();
            put.execute(params![prefix, holder, at])?;
        }
        Ok(())
    }
}
