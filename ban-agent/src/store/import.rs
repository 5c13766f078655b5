//! Reads fail2ban's own database (`dbfile`), so that its bans and its memory of who came before
//! can be taken over. Changes nothing in it, and works while fail2ban runs.

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, types::ValueRef};
use serde::{Deserialize, Serialize};

use super::Error;
use crate::net::{self, IpNet};

/// How long fail2ban may keep its file locked.
const BUSY: Duration = Duration::from_secs(5);
/// Bans of one address by one jail whose times are kept: more than a jail that counts bans waits
/// for.
const TIMES: usize = 64;

/// What fail2ban knows of an address in one of its jails: the last ban, and how many there were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// Who.
    pub prefix: IpNet,
    /// fail2ban's jail.
    pub jail: String,
    /// When it was banned last.
    pub at: Timestamp,
    /// When that ban ends or has ended; `None`: never.
    pub until: Option<Timestamp>,
    /// How often it was banned, the last time included.
    pub bans: u32,
    /// When it was banned, oldest first, as far as fail2ban still knows; at most 64.
    #[serde(default)]
    pub times: Vec<Timestamp>,
    /// How many failures led to the last ban.
    pub failures: u32,
    /// Their lines, as the attacker wrote them: escape to show.
    pub lines: Vec<String>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// In the order of their last bans.
    pub formers: Vec<Former>,
    /// Rows that are not of an address: jails can ban anything.
    pub skipped: usize,
}

/// The JSON that fail2ban keeps with a ban.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Data {
    failures: u32,
    matches: Vec<Match>,
}

/// A line, or the parts that a line was cut into around its time stamp.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Match {
    Line(String),
    Parts(Vec<String>),
    Other(serde::de::IgnoredAny),
}

/// Reads everything that the file remembers.
///
/// # Errors
/// If it cannot be read, or is not fail2ban's, of version 0.11 or later.
pub fn fail2ban(path: &Path) -> Result<Imported, Error> {
    let error = |source| Error::Open { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(error)?;
    db.busy_timeout(BUSY).map_err(error)?;
    let known = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'bips'";
    let known = db.query_row(known, [], |_| Ok(())).optional().map_err(error)?;
    known.ok_or_else(|| Error::NotFail2ban(path.to_owned()))?;
    read(&db).map_err(error)
}

fn read(db: &Connection) -> rusqlite::Result<Imported> {
    let mut imported = Imported::default();
    let mut times = times(db)?;
    let mut statement = db.prepare(
        "SELECT ip, jail, timeofban, bantime, bancount, data FROM bips ORDER BY timeofban",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let address: String = row.get(0)?;
        let at = Timestamp::from_second(whole(row, 2)?).ok();
        let (Ok(prefix), Some(at)) = (net::parse_prefix(&address), at) else {
            imported.skipped += 1;
            continue;
        };
        let bantime = whole(row, 3)?;
        // fail2ban writes it as bytes
        let data = row.get_ref(5)?.as_bytes_or_null()?;
        let data = data.and_then(|text| serde_json::from_slice(text).ok());
        let Data { failures, matches } = data.unwrap_or_default();
        let who = (address, row.get(1)?);
        let (events, times) = times.remove(&who).unwrap_or_default();
        // counted only where bantime.increment is on
        let bancount: u32 = whole(row, 4)?.try_into().unwrap_or(u32::MAX);
        imported.formers.push(Former {
            prefix,
            jail: who.1,
            at,
            until: (bantime >= 0)
                .then(|| Timestamp::from_second(at.as_second().saturating_add(bantime)))
                .map(|end| end.unwrap_or(Timestamp::MAX)),
            bans: bancount.max(events).max(1),
            times: times.into(),
            failures,
            lines: matches.into_iter().filter_map(Match::line).collect(),
        });
    }
    Ok(imported)
}

/// How often, and when last, each address was banned by each jail.
type Times = HashMap<(String, String), (u32, VecDeque<Timestamp>)>;

/// The bans themselves; the other table has the last one of each.
fn times(db: &Connection) -> rusqlite::Result<Times> {
    let mut statement = db.prepare("SELECT ip, jail, timeofban FROM bans ORDER BY timeofban")?;
    let mut rows = statement.query([])?;
    let mut times = Times::new();
    while let Some(row) = rows.next()? {
        let Ok(at) = Timestamp::from_second(whole(row, 2)?) else { continue };
        let (events, times) = times.entry((row.get(0)?, row.get(1)?)).or_default();
        *events = events.saturating_add(1);
        if times.len() == TIMES {
            times.pop_front();
        }
        times.push_back(at);
    }
    Ok(times)
}

/// Returns a number; fail2ban's may have a fraction, which is cut off.
#[expect(clippy::cast_possible_truncation, reason = "saturates, and no time is as long")]
fn whole(row: &Row<'_>, column: usize) -> rusqlite::Result<i64> {
    match row.get_ref(column)? {
        ValueRef::Real(number) => Ok(number as i64),
        _ => row.get(column),
    }
}

impl Match {
    fn line(self) -> Option<String> {
        match self {
            Match::Line(line) => Some(line),
            Match::Parts(parts) => Some(parts.concat()),
            Match::Other(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::params;
    use tempfile::TempDir;

    use super::*;

    /// Address, jail, time and length of the ban, bans so far, data.
    type Known<'a> = (&'a str, &'a str, i64, i64, i64, Option<&'a str>);

    /// Returns a file with the columns that fail2ban 0.11 and 1.x write.
    fn database(directory: &TempDir, rows: &[Known<'_>]) -> Connection {
        let db = Connection::open(directory.path().join("fail2ban.sqlite3")).unwrap();
        db.execute_batch(
            "CREATE TABLE bips (ip TEXT, jail TEXT, timeofban INTEGER, bantime INTEGER,
             bancount INTEGER, data JSON, PRIMARY KEY (ip, jail));
             CREATE TABLE bans (jail TEXT, ip TEXT, timeofban INTEGER, bantime INTEGER,
             bancount INTEGER, data JSON)",
        )
        .unwrap();
        for (ip, jail, at, bantime, count, data) in rows {
            db.execute(
                "INSERT INTO bips VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![ip, jail, at, bantime, count, data.map(str::as_bytes)],
            )
            .unwrap();
        }
        db
    }

    fn imported(directory: &TempDir) -> Imported {
        fail2ban(&directory.path().join("fail2ban.sqlite3")).unwrap()
    }

    #[test]
    fn bans_come_over_with_their_ends_and_lines() {
        let directory = TempDir::new().unwrap();
        let data = r#"{"failures": 3, "matches": ["one", ["t", "w", "o"], null], "user": "x"}"#;
        let _running = database(
            &directory,
            &[
                ("192.0.2.1", "sshd", 1_800_000_000, 600, 2, Some(data)),
                ("2001:db8::1", "sshd", 1_700_000_000, -1, 1, Some("not json")),
                ("192.0.2.1", "recidive", 1_800_000_100, 86400, 1, None),
                ("user:root", "sshd", 1_800_000_000, 600, 1, None),
            ],
        );
        let Imported { formers, skipped } = imported(&directory);
        assert_eq!((formers.len(), skipped), (3, 1));
        assert_eq!((formers[0].until, formers[0].bans, formers[0].failures), (None, 1, 0));
        let sshd = &formers[1];
        assert_eq!((sshd.prefix.to_string(), sshd.jail.as_str()), ("192.0.2.1/32".into(), "sshd"));
        assert_eq!((sshd.at.as_second(), sshd.bans, sshd.failures), (1_800_000_000, 2, 3));
        assert_eq!(sshd.until.unwrap().as_second(), 1_800_000_600);
        assert_eq!(sshd.lines, ["one", "two"]);
        assert_eq!(formers[2].jail, "recidive");
    }

    #[test]
    fn each_ban_of_the_past_is_known_with_its_time() {
        let directory = TempDir::new().unwrap();
        let db = database(
            &directory,
            &[("192.0.2.1", "sshd", 1300, 600, 1, None), ("192.0.2.2", "sshd", 1000, 600, 7, None)],
        );
        let ban = |ip: &str, jail: &str, at: i64| {
            let put = "INSERT INTO bans VALUES (?1, ?2, ?3, 600, 1, NULL)";
            db.execute(put, params![jail, ip, at]).unwrap();
        };
        for (ip, jail, at) in [
            ("192.0.2.1", "sshd", 1300),
            ("192.0.2.1", "sshd", 1100),
            ("192.0.2.1", "other", 1200),
            ("192.0.2.2", "sshd", 1000),
        ] {
            ban(ip, jail, at);
        }
        let formers = imported(&directory).formers;
        let seconds = |former: &Former| former.times.iter().map(|at| at.as_second()).collect();
        let found: Vec<(u32, Vec<i64>)> =
            formers.iter().map(|former| (former.bans, seconds(former))).collect();
        assert_eq!(found, [(7, vec![1000]), (2, vec![1100, 1300])]);
        for at in 0..100 {
            ban("192.0.2.2", "sshd", at);
        }
        let former = &imported(&directory).formers[0];
        assert_eq!((former.bans, former.times.len()), (101, TIMES));
        assert_eq!(former.times.last().unwrap().as_second(), 1000);
    }

    #[test]
    fn another_file_is_refused() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("state.sqlite");
        Connection::open(&path).unwrap().execute("CREATE TABLE t (x)", []).unwrap();
        assert!(matches!(fail2ban(&path), Err(Error::NotFail2ban(_))));
        assert!(matches!(fail2ban(&directory.path().join("none")), Err(Error::Open { .. })));
    }
}
