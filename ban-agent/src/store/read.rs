//! Reads the database: everything at start, single prefixes later. Writes nothing.

use std::{collections::HashMap, sync::Arc, time::Duration};

use ban_core::jail::{Count, Record};
use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::{
    Counts, Evidence, UnbanMarks, lists,
    row::{Key, Span, holder_of, holder_text, key_of},
    schema::boot_id,
};
use crate::{
    clock::Now,
    ledger::{Claim, Holder},
    net::{IpNet, parse_prefix},
    source::Position,
};

/// Hands every claim to `each`; those that make no sense are skipped and counted. Claims that
/// came before an error were handed over.
pub(super) fn claims(
    db: &Connection,
    now: Now,
    mut each: impl FnMut(Claim),
) -> rusqlite::Result<u64> {
    let this_boot = this_boot(db)?;
    lists::read(db, |prefix, span, boot| {
        let Key { prefix, holder, ports, derived } = lists::key(prefix);
        each(Claim { prefix, holder, until: span.end(boot == this_boot, now), ports, derived });
    })?;
    let mut statement =
        db.prepare("SELECT prefix, holder, ports, since, until, boot_until, boot FROM claims")?;
    let mut rows = statement.query([])?;
    let mut skipped = 0;
    // Rows of one holder share its name.
    let mut holders: Vec<(String, Holder)> = Vec::new();
    while let Some(row) = rows.next()? {
        let text = |column| row.get_ref(column).ok().and_then(|value| value.as_str().ok());
        let holder = text(1).and_then(|text| interned(&mut holders, text));
        let key = holder.and_then(|holder| key_of(text(0)?, holder, text(2)?));
        let span = Span { since: row.get(3)?, until: row.get(4)?, boot_until: row.get(5)? };
        let Some(key) = key else {
            skipped += 1;
            continue;
        };
        let until = span.end(row.get::<_, i64>(6)? == this_boot, now);
        let Key { prefix, holder, ports, derived } = key;
        each(Claim { prefix, holder, until, ports, derived });
    }
    Ok(skipped)
}

/// Returns all positions; those of a later version's making are skipped.
pub(super) fn positions(db: &Connection) -> rusqlite::Result<HashMap<Arc<str>, Position>> {
    let mut statement = db.prepare("SELECT origin, position FROM positions")?;
    let rows =
        statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let mut positions = HashMap::new();
    for row in rows {
        let (origin, text) = row?;
        if let Ok(position) = serde_json::from_str(&text) {
            positions.insert(origin.into(), position);
        }
    }
    Ok(positions)
}

/// Returns what the jails had counted; what makes no sense is left out.
pub(super) fn counts(db: &Connection) -> rusqlite::Result<Counts> {
    let mut statement =
        db.prepare("SELECT jail, prefix, failures, first, last FROM counts ORDER BY jail")?;
    let mut rows = statement.query([])?;
    let mut counts = Counts::new();
    while let Some(row) = rows.next()? {
        let Ok(prefix) = parse_prefix(row.get_ref(1)?.as_str()?) else { continue };
        let count = Count { failures: row.get(2)?, first: row.get(3)?, last: row.get(4)? };
        let jail = row.get_ref(0)?.as_str()?;
        match counts.get_mut(jail) {
            Some(known) => known.push((prefix, count)),
            None => _ = counts.insert(jail.into(), vec![(prefix, count)]),
        }
    }
    Ok(counts)
}

/// Returns what was let go by hand.
pub(super) fn unban_marks(db: &Connection) -> rusqlite::Result<UnbanMarks> {
    let mut statement = db.prepare("SELECT prefix, holder, at FROM pardons ORDER BY at")?;
    let mut rows = statement.query([])?;
    let mut unban_marks = UnbanMarks::default();
    while let Some(row) = rows.next()? {
        let (prefix, holder) = (row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?);
        let prefix = (!prefix.is_empty()).then(|| parse_prefix(prefix).ok());
        let holder = (!holder.is_empty()).then(|| holder_of(holder));
        let at = Timestamp::from_millisecond(row.get(2)?).unwrap_or_default();
        // unreadable ones are left out: half of one would let all go
        if !matches!(prefix, Some(None)) && !matches!(holder, Some(None)) {
            unban_marks.insert((prefix.flatten(), holder.flatten()), at, None);
        }
    }
    Ok(unban_marks)
}

/// Returns how often `prefix` was banned: by one holder, or by all.
pub(super) fn bans(
    db: &Connection,
    prefix: IpNet,
    holder: Option<&Holder>,
) -> rusqlite::Result<u32> {
    let sum = "SELECT coalesce(sum(bans), 0) FROM history
               WHERE prefix = ?1 AND (?2 IS NULL OR holder = ?2)";
    let holder = holder.map(holder_text);
    db.prepare_cached(sum)?.query_row(params![prefix.to_string(), holder], |row| row.get(0))
}

/// Hands the bans of the prefixes that were banned last to `each`, at most so many.
pub(super) fn former(
    db: &Connection,
    limit: usize,
    mut each: impl FnMut(&str, IpNet, Record),
) -> rusqlite::Result<()> {
    let mut statement =
        db.prepare("SELECT prefix, holder, bans, last FROM history ORDER BY last DESC LIMIT ?1")?;
    let mut rows = statement.query([i64::try_from(limit).unwrap_or(i64::MAX)])?;
    while let Some(row) = rows.next()? {
        let Ok(prefix) = parse_prefix(row.get_ref(0)?.as_str()?) else { continue };
        let holder = row.get_ref(1)?.as_str()?;
        let last = Timestamp::from_millisecond(row.get(3)?).unwrap_or_default();
        let record = Record { bans: row.get(2)?, last };
        each(holder.strip_prefix("jail:").unwrap_or(holder), prefix, record);
    }
    Ok(())
}

/// Returns why each holder banned `prefix` last.
pub(super) fn evidence(db: &Connection, prefix: IpNet) -> rusqlite::Result<Vec<Evidence>> {
    let mut statement = db.prepare_cached(
        "SELECT holder, at, failures, reason, lines, bantime, fields FROM evidence
         WHERE prefix = ?1 ORDER BY at",
    )?;
    let rows = statement.query_map([prefix.to_string()], |row| {
        let lines: Vec<u8> = row.get(4)?;
        let bantime: Option<i64> = row.get(5)?;
        let fields: String = row.get(6)?;
        Ok(Evidence {
            prefix,
            holder: holder_of(&row.get::<_, String>(0)?).unwrap_or(Holder::Manual),
            at: Timestamp::from_millisecond(row.get(1)?).unwrap_or_default(),
            failures: row.get(2)?,
            reason: row.get(3)?,
            lines: lines
                .split_inclusive(|byte| *byte == b'\n')
                .map(|line| line.strip_suffix(b"\n").unwrap_or(line).to_vec())
                .collect(),
            bantime: bantime.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0))),
            fields: serde_json::from_str(&fields).unwrap_or_default(),
        })
    })?;
    rows.collect()
}

fn this_boot(db: &Connection) -> rusqlite::Result<i64> {
    let known = "SELECT id FROM boots WHERE boot_id = ?1";
    match db.query_row(known, [boot_id()], |row| row.get(0)) {
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(-1),
        other => other,
    }
}

fn interned(known: &mut Vec<(String, Holder)>, text: &str) -> Option<Holder> {
    if let Some((_, holder)) = known.iter().find(|(name, _)| name == text) {
        return Some(holder.clone());
    }
    let holder = holder_of(text)?;
    known.push((text.to_owned(), holder.clone()));
    Some(holder)
}
