//! Keeps the bans of a dry run apart: when one begins it is remembered which claims were enforced,
//! and when enforcement begins again, what is not among them goes. Runs before the store is opened,
//! and touches no row otherwise.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};

use super::{
    Error, lists,
    schema::{Database, is_corrupt},
};

/// Claims that were enforced, and bans that were on record, when the dry run began.
const REMEMBER: &str = "
    BEGIN IMMEDIATE;
    CREATE TABLE enforced AS SELECT prefix, holder, ports, until FROM claims;
    CREATE TABLE IF NOT EXISTS history_before AS SELECT prefix, holder, bans, last FROM history;
    COMMIT;
";
const KNOWN: &str = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'enforced'";
/// Rows of the dry run go; an end that it moved is where it was. A former version kept no history
/// apart: then it stays.
const FORGET: &str = "
    DELETE FROM claims WHERE NOT EXISTS (
        SELECT 1 FROM enforced AS old
        WHERE old.prefix = claims.prefix AND old.holder = claims.holder AND old.ports = claims.ports);
    UPDATE claims SET boot = 0, boot_until = NULL, until = (
        SELECT old.until FROM enforced AS old
        WHERE old.prefix = claims.prefix AND old.holder = claims.holder AND old.ports = claims.ports)
    WHERE until IS NOT (
        SELECT old.until FROM enforced AS old
        WHERE old.prefix = claims.prefix AND old.holder = claims.holder AND old.ports = claims.ports);
    DROP TABLE enforced;
    CREATE TABLE IF NOT EXISTS history_before AS SELECT prefix, holder, bans, last FROM history;
    DELETE FROM history;
    INSERT INTO history (prefix, holder, bans, last)
        SELECT prefix, holder, bans, last FROM history_before;
    DROP TABLE history_before;
";

/// Prepares the state at `path` for a run that is `dry` or not. Whether the last run was dry.
///
/// # Errors
/// If the file cannot be used; one that is corrupt is left to [`super::Store::open`].
pub fn separate(path: &Path, dry: bool) -> Result<bool, Error> {
    if !dry && !path.exists() {
        return Ok(false);
    }
    let database = match Database::open(path) {
        Ok(database) => database,
        Err(error @ (Error::Foreign(_) | Error::Newer { .. })) => return Err(error),
        // the store says what is wrong, and what it does about it
        Err(_) => return Ok(false),
    };
    match change(&database.connection, dry) {
        Ok(was) => Ok(was),
        Err(source) if is_corrupt(&source) => Ok(false),
        // to go on would make bans real, or lose real ones
        Err(source) => Err(Error::Write { path: path.to_owned(), source }),
    }
}

fn change(db: &Connection, dry: bool) -> rusqlite::Result<bool> {
    let was = db.query_row(KNOWN, [], |_| Ok(())).optional()?.is_some();
    match (was, dry) {
        (false, true) => {
            unfold(db)?;
            db.execute_batch(REMEMBER)?;
        }
        (true, false) => {
            unfold(db)?;
            let count = |db: &Connection| {
                db.query_row("SELECT count(*) FROM claims", [], |row| row.get::<_, i64>(0))
            };
            let before = count(db)?;
            db.execute_batch(&format!("BEGIN IMMEDIATE; {FORGET} COMMIT;"))?;
            let gone = before - count(db)?;
            log::warn!("the last run was a dry run: its {gone} bans are discarded");
        }
        _ => {}
    }
    Ok(was)
}

/// What is compared by row has one.
fn unfold(db: &Connection) -> rusqlite::Result<()> {
    let transaction = db.unchecked_transaction()?;
    lists::unfold(&transaction)?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{Boot, Now},
        ledger::{Claim, Holder},
        net::Ports,
        store::Store,
    };

    fn claim(prefix: &str, until: u64) -> Claim {
        let prefix = prefix.parse().unwrap();
        Claim {
            prefix,
            holder: Holder::Manual,
            until: Boot(until),
            ports: Ports::new(),
            derived: false,
        }
    }

    fn loaded(path: &Path, now: Now) -> Vec<(String, u64)> {
        let mut store = Store::open(path).unwrap();
        let mut claims = Vec::new();
        store.load(now, |claim| claims.push((claim.prefix.to_string(), claim.until.0)));
        store.close();
        claims.sort();
        claims
    }

    #[test]
    fn what_a_dry_run_bans_does_not_become_real() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.sqlite");
        let now = Now::read();
        let hour = now.boot.0 + 3_600_000;
        let record = |claims: &[Claim], gone: &[Claim]| {
            let mut store = Store::open(&path).unwrap();
            claims.iter().for_each(|claim| store.claim(claim, None, now));
            gone.iter().for_each(|claim| store.release(claim));
            store.close();
        };
        assert!(!separate(&path, false).unwrap());
        let (real, lifted) = (claim("192.0.2.1/32", hour), claim("192.0.2.2/32", hour));
        record(&[real.clone(), lifted.clone()], &[]);

        assert!(!separate(&path, true).unwrap());
        record(&[claim("203.0.113.9/32", hour), claim("192.0.2.1/32", 2 * hour)], &[lifted]);
        assert_eq!(loaded(&path, now).len(), 2, "it sees its own");
        assert!(separate(&path, true).unwrap(), "a restart of it changes nothing");
        assert_eq!(loaded(&path, now).len(), 2);

        assert!(separate(&path, false).unwrap());
        let left = loaded(&path, now);
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(left[0].0, "192.0.2.1/32");
        // by the wall clock, in milliseconds
        assert!(left[0].1.abs_diff(hour) <= 1, "{left:?}, not {hour}");
        assert!(!separate(&path, false).unwrap(), "once");
    }

    #[test]
    fn a_list_of_a_dry_run_does_not_become_real() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.sqlite");
        let now = Now::read();
        let list = |net: &str| -> Vec<Claim> {
            (0..200).map(|host| claim(&format!("{net}.{host}/32"), u64::MAX)).collect()
        };
        let record = |claims: &[Claim], gone: &[Claim]| {
            let mut store = Store::open(&path).unwrap();
            store.claims(&mut claims.to_vec(), now);
            store.release_all(gone.iter());
            store.close();
        };
        let prefixes = |claims: &[Claim]| {
            let mut prefixes: Vec<String> =
                claims.iter().map(|claim| claim.prefix.to_string()).collect();
            prefixes.sort();
            prefixes
        };
        let left = || loaded(&path, now).into_iter().map(|(prefix, _)| prefix).collect::<Vec<_>>();
        let (real, lifted, dry) = (list("192.0.2"), list("198.51.100"), list("203.0.113"));
        record(&[real.clone(), lifted.clone()].concat(), &[]);
        assert_eq!(left().len(), 400);
        separate(&path, true).unwrap();
        record(&dry, &lifted);
        assert_eq!(left(), prefixes(&[real.clone(), dry].concat()));
        separate(&path, false).unwrap();
        assert_eq!(left(), prefixes(&real));
    }

    /// A ban that nobody was meant to enforce makes no later one longer.
    #[test]
    fn what_a_dry_run_counts_is_not_on_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.sqlite");
        let now = Now::read();
        let ban = |prefix: &str| {
            let mut store = Store::open(&path).unwrap();
            store.manual(&claim(prefix, now.boot.0 + 1000), None, now);
            store.close();
        };
        let on_record = || {
            let mut store = Store::open(&path).unwrap();
            store.load(now, |_| {});
            let bans = ["192.0.2.1/32", "192.0.2.2/32"].map(|prefix| {
                let prefix = prefix.parse().unwrap();
                let known = store.former_bans(prefix, "manual", false, now);
                assert_eq!(store.history(prefix), known);
                known
            });
            store.close();
            bans
        };
        assert!(!separate(&path, false).unwrap());
        ban("192.0.2.1/32");
        for _ in 0..2 {
            separate(&path, true).unwrap();
            ban("192.0.2.1/32");
            ban("192.0.2.2/32");
        }
        assert_eq!(on_record(), [3, 2], "it counts for itself");
        assert!(separate(&path, false).unwrap());
        assert_eq!(on_record(), [1, 0]);
        ban("192.0.2.2/32");
        assert_eq!(on_record(), [1, 1]);
    }

    #[test]
    fn a_first_run_that_is_dry_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.sqlite");
        assert!(!separate(&path, true).unwrap());
        let now = Now::read();
        let mut store = Store::open(&path).unwrap();
        store.claim(&claim("203.0.113.9/32", now.boot.0 + 1000), None, now);
        store.close();
        assert!(separate(&path, false).unwrap());
        assert!(loaded(&path, now).is_empty());
    }
}
