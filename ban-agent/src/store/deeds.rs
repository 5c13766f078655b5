//! Who did what, when, why and by which verb: every ban and every end before its time, and every change
//! by an operator. A row each, kept as long as history is.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use super::{Recall, State, schema};
use crate::net::IpNet;

/// Rows that are told at once.
const MOST: usize = 100_000;

/// Who asks for a change. The user id is the kernel's word; the rest is what the asking process says of
/// itself, and is as good as the user is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asker {
    /// User id.
    pub user: u32,
    /// What it says of itself.
    #[serde(flatten)]
    pub origin: Origin,
    /// Whether it asks for so many that they are recorded together.
    #[serde(skip)]
    pub many: Many,
}

/// Whether a request is so long that it is one deed, and not one for each address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Many {
    /// It is short.
    #[default]
    No,
    /// It has so many targets, of which these are the first.
    First(usize),
    /// It was recorded with its first part.
    Rest,
}

/// Where somebody works, by his own word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// User id at login: another one where `sudo` made it root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<u32>,
    /// Terminal, as `pts/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<String>,
    /// Unit of systemd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// When.
    pub at: Timestamp,
    /// What: `ban`, `extend`, `unban`, `allowed`, `evicted`, or an operator's verb.
    pub what: String,
    /// To whom; `None`: it is about no address.
    pub prefix: Option<IpNet>,
    /// In whose name: a jail, or `manual`; empty: nobody's.
    pub holder: String,
    /// Until when; `None`: for ever, or it does not matter.
    pub until: Option<Timestamp>,
    /// Failures that led to it; 0: not by failures.
    pub failures: u32,
    /// Why, as it was given.
    pub reason: Option<String>,
    /// Who asked for it; `None`: a log line, or the agent itself.
    pub by: Option<Arc<Asker>>,
}

/// Which deeds are told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Search {
    /// About this address or network, what covers it and what lies inside it.
    pub about: Option<IpNet>,
    /// Not before then.
    pub since: Option<Timestamp>,
    /// The newest, at most so many.
    pub limit: usize,
}

/// By what bans are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Each address or network that was banned.
    Address,
    /// Each jail.
    Jail,
    /// Each user name that was tried last before a ban.
    User,
    /// Each path that was asked for last before a ban.
    Path,
}

/// How often something was banned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bans.
    pub bans: u64,
    /// Failures that led to them.
    pub failures: u64,
}

/// That the store cannot be asked now.
#[derive(Debug, thiserror::Error)]
#[error("the store cannot be asked: {0}")]
pub struct Unasked(String);

impl Recall {
    /// What was done, the newest last.
    ///
    /// # Errors
    /// If the store is degraded, or cannot be read.
    pub async fn deeds(&self, search: Search) -> Result<Vec<Deed>, Unasked> {
        self.survey(move |db| deeds(db, &search)).await
    }

    /// The newest of what was done to one address, and to what covers it; nothing, if the disk does not
    /// answer.
    pub async fn latest(&self, about: IpNet, limit: usize) -> Vec<Deed> {
        let _turn = self.turn.lock().await;
        let reader = Arc::clone(&self.reader);
        let search = Search { about: Some(about), since: None, limit };
        let asked =
            tokio::task::spawn_blocking(move || reader.ask(move |db| deeds(db, &search).ok()));
        asked.await.ok().flatten().flatten().unwrap_or_default()
    }

    /// How often each was banned since then, by name.
    ///
    /// # Errors
    /// If the store is degraded, or cannot be read.
    pub async fn tallies(
        &self,
        by: By,
        since: Timestamp,
    ) -> Result<BTreeMap<String, Tally>, Unasked> {
        self.survey(move |db| tallies(db, by, since)).await
    }

    /// Reads much, over a connection of its own, so that short questions do not wait for it; one at a
    /// time. Not while the store is degraded: then whoever has the file open may keep the writer out.
    async fn survey<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Unasked> {
        let _turn = self.surveys.lock().await;
        let state = self.shared.state();
        if let State::Degraded(_) = state {
            return Err(Unasked(state.to_string()));
        }
        let path = Arc::clone(&self.path);
        let asked = tokio::task::spawn_blocking(move || {
            let db = schema::open_to_read(&path).map_err(|error| Unasked(error.to_string()))?;
            read(&db).map_err(|error| Unasked(error.to_string()))
        });
        asked.await.map_err(|error| Unasked(error.to_string()))?
    }
}

/// What identifies a prefix in the table.
fn text(prefix: Option<IpNet>) -> String {
    prefix.map(|prefix| prefix.trunc().to_string()).unwrap_or_default()
}

pub(super) fn write(db: &Connection, deeds: &[Deed]) -> rusqlite::Result<()> {
    let mut put = db.prepare_cached(
        "INSERT INTO deeds (at, what, prefix, holder, until, failures, reason, by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for deed in deeds {
        let by = deed.by.as_ref().and_then(|by| serde_json::to_string(&**by).ok());
        put.execute(params![
            deed.at.as_millisecond(),
            deed.what,
            text(deed.prefix),
            deed.holder,
            deed.until.map(Timestamp::as_millisecond),
            deed.failures,
            deed.reason,
            by
        ])?;
    }
    Ok(())
}

fn deeds(db: &Connection, search: &Search) -> rusqlite::Result<Vec<Deed>> {
    let since = search.since.map_or(i64::MIN, Timestamp::as_millisecond);
    let limit = search.limit.min(MOST);
    let mut found = Vec::new();
    match search.about {
        // what covers one address can be named, and found by its name
        Some(about) if about.prefix_len() == about.max_prefix_len() => {
            let mut statement = db.prepare(
                "SELECT at, what, prefix, holder, until, failures, reason, by FROM deeds
                 WHERE prefix = ?1 AND at >= ?2 ORDER BY at DESC, rowid DESC LIMIT ?3",
            )?;
            let around =
                (0..=about.prefix_len()).filter_map(|length| IpNet::new(about.addr(), length).ok());
            for prefix in around {
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                let rows = statement.query_map(params![text(Some(prefix)), since, limit], deed)?;
                for row in rows {
                    found.push(row?);
                }
            }
            found.sort_by_key(|deed| std::cmp::Reverse(deed.at));
            found.truncate(limit);
        }
        about => {
            let mut statement = db.prepare(
                "SELECT at, what, prefix, holder, until, failures, reason, by FROM deeds
                 WHERE at >= ?1 ORDER BY at DESC, rowid DESC",
            )?;
            let mut rows = statement.query([since])?;
            while found.len() < limit
                && let Some(row) = rows.next()?
            {
                let about = about.is_none_or(|about| {
                    let prefix = row
                        .get_ref(2)
                        .ok()
                        .and_then(|value| value.as_str().ok()?.parse::<IpNet>().ok());
                    prefix.is_some_and(|prefix| about.contains(&prefix) || prefix.contains(&about))
                });
                if about {
                    found.push(deed(row)?);
                }
            }
        }
    }
    found.reverse();
    Ok(found)
}

fn deed(row: &Row<'_>) -> rusqlite::Result<Deed> {
    let time = |ms| Timestamp::from_millisecond(ms).unwrap_or_default();
    let by: Option<String> = row.get(7)?;
    Ok(Deed {
        at: time(row.get(0)?),
        what: row.get(1)?,
        prefix: row.get_ref(2)?.as_str()?.parse().ok(),
        holder: row.get(3)?,
        until: row.get::<_, Option<i64>>(4)?.map(time),
        failures: row.get(5)?,
        reason: row.get(6)?,
        by: by.and_then(|by| serde_json::from_str(&by).ok()).map(Arc::new),
    })
}

fn tallies(db: &Connection, by: By, since: Timestamp) -> rusqlite::Result<BTreeMap<String, Tally>> {
    // what was tried is known of the last ban of each alone
    let query = match by {
        By::Address => {
            "SELECT prefix, count(*), sum(failures) FROM deeds
             WHERE at >= ?1 AND what = 'ban' AND prefix <> '' GROUP BY prefix"
        }
        By::Jail => {
            "SELECT holder, count(*), sum(failures) FROM deeds
             WHERE at >= ?1 AND what = 'ban' AND prefix <> '' GROUP BY holder"
        }
        By::User => {
            "SELECT CASE WHEN json_valid(fields) THEN json_extract(fields, '$.user') END AS name,
             count(*), sum(failures) FROM evidence WHERE at >= ?1 AND name <> '' GROUP BY name"
        }
        By::Path => {
            "SELECT CASE WHEN json_valid(fields) THEN coalesce(json_extract(fields, '$.path'),
             json_extract(fields, '$.uri'), json_extract(fields, '$.url')) END AS name,
             count(*), sum(failures) FROM evidence WHERE at >= ?1 AND name <> '' GROUP BY name"
        }
    };
    let mut statement = db.prepare(query)?;
    let mut rows = statement.query([since.as_millisecond()])?;
    let mut tallies = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let name =
            String::from_utf8_lossy(row.get_ref(0)?.as_bytes().unwrap_or_default()).into_owned();
        let [bans, failures] =
            [row.get(1)?, row.get(2)?].map(|sum: i64| u64::try_from(sum).unwrap_or(0));
        tallies.insert(name, Tally { bans, failures });
    }
    Ok(tallies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    /// So many seconds after a time that is not purged yet.
    fn at(second: i64) -> Timestamp {
        static START: std::sync::LazyLock<i64> =
            std::sync::LazyLock::new(|| Timestamp::now().as_second() - 86_400);
        Timestamp::from_second(*START + second).unwrap()
    }

    fn deed(second: i64, what: &str, prefix: &str, by: Option<u32>) -> Deed {
        Deed {
            at: at(second),
            what: what.into(),
            prefix: prefix.parse().ok(),
            holder: "sshd".into(),
            until: None,
            failures: 5,
            reason: by.map(|_| "the office".into()),
            by: by.map(|user| {
                Arc::new(Asker {
                    user,
                    origin: Origin { login: Some(1000), ..Origin::default() },
                    many: Many::No,
                })
            }),
        }
    }

    #[tokio::test]
    async fn deeds_are_found_by_address_network_and_time() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("state.sqlite");
        let mut store = Store::open(&path).unwrap();
        let all = [
            deed(100, "ban", "192.0.2.7/32", None),
            deed(200, "ban", "192.0.2.0/24", None),
            deed(300, "reload", "", Some(0)),
            deed(400, "unban", "192.0.2.7/32", Some(0)),
            deed(500, "ban", "2001:db8::/64", None),
        ];
        all.iter().for_each(|deed| store.deed(deed.clone()));
        store.barrier().await.unwrap();
        let recall = store.recall();
        let search = async |about: Option<&str>, since: Option<i64>, limit| {
            let about = about.map(|about| about.parse().unwrap());
            let since = since.map(at);
            recall.deeds(Search { about, since, limit }).await.unwrap()
        };
        assert_eq!(search(None, None, 10).await, all);
        assert_eq!(search(None, Some(400), 10).await, all[3..]);
        assert_eq!(search(None, None, 2).await, all[3..]);
        let seven = [&all[0], &all[1], &all[3]].map(Clone::clone);
        assert_eq!(search(Some("192.0.2.7/32"), None, 10).await, seven);
        assert_eq!(search(Some("192.0.2.0/28"), None, 10).await, seven);
        assert_eq!(search(Some("2001:db8::1/128"), None, 10).await, all[4..]);
        let tallies = recall.tallies(By::Jail, Timestamp::UNIX_EPOCH).await.unwrap();
        assert_eq!(tallies["sshd"], Tally { bans: 3, failures: 15 });
        let tallies = recall.tallies(By::Address, at(150)).await.unwrap();
        assert_eq!(tallies.keys().collect::<Vec<_>>(), ["192.0.2.0/24", "2001:db8::/64"]);
        store.close();
    }
}
