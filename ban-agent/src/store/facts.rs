//! What a list tells of many bans: when each began, and why. Cheaper than all the evidence.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use rusqlite::Connection;

use super::{Recall, row::holder_of};
use crate::{ledger::Holder, net::IpNet};

/// Why a holder banned a prefix last, without the lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// By whom.
    pub holder: Holder,
    /// When.
    pub at: Timestamp,
    /// How many failures led to it; 0 by hand.
    pub failures: u32,
    /// The operator's reason, as it was given.
    pub reason: Option<String>,
}

impl Recall {
    /// Why each of `prefixes` is banned; those that the store does not know are left out, and all are if
    /// the disk does not answer.
    pub async fn facts(&self, prefixes: Vec<IpNet>) -> HashMap<IpNet, Vec<Fact>> {
        let _turn = self.turn.lock().await;
        let reader = Arc::clone(&self.reader);
        let asked = tokio::task::spawn_blocking(move || {
            reader.ask(move |db| {
                let known =
                    prefixes.iter().filter_map(|prefix| Some((*prefix, of(db, *prefix).ok()?)));
                known.filter(|(_, facts)| !facts.is_empty()).collect()
            })
        });
        asked.await.ok().flatten().unwrap_or_default()
    }
}

fn of(db: &Connection, prefix: IpNet) -> rusqlite::Result<Vec<Fact>> {
    let facts = "SELECT holder, at, failures, reason FROM evidence WHERE prefix = ?1";
    let mut statement = db.prepare_cached(facts)?;
    let rows = statement.query_map([prefix.to_string()], |row| {
        Ok(Fact {
            holder: holder_of(row.get_ref(0)?.as_str()?).unwrap_or(Holder::Manual),
            at: Timestamp::from_millisecond(row.get(1)?).unwrap_or_default(),
            failures: row.get(2)?,
            reason: row.get(3)?,
        })
    })?;
    rows.collect()
}
