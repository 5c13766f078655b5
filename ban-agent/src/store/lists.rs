//! Claims by hand that were made together, as of a block list, many in a row: a million rows would take
//! SQLite ten times as long as all the rest of the ban. A claim is in one such row, or in `claims`, never
//! in both. Decides nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rusqlite::{Connection, params};

use super::row::{Key, Span, holder_text};
use crate::{
    ledger::Holder,
    net::{IpNet, Ports, parse_prefix},
};

/// From so many on claims share rows: as many as the core makes at once.
const MANY: usize = 128;
/// Claims of one row: a change of one of them writes all of them again, about 20 KiB.
const PAGE: usize = 4096;
/// Before the length of an IPv6 prefix.
const V6: u8 = 64;

/// Returns whether a claim may be in a list.
pub(super) fn may_hold(key: &Key) -> bool {
    let Key { holder, ports, derived, .. } = key;
    *holder == Holder::Manual && ports.is_empty() && !derived
}

/// Returns the key of a listed claim.
pub(super) fn key(prefix: IpNet) -> Key {
    Key { prefix, holder: Holder::Manual, ports: Ports::new(), derived: false }
}

/// What becomes of a claim; `None`: it goes.
type Change<'c> = (&'c Key, &'c Option<Span>);

/// A row.
struct List {
    id: i64,
    first: IpNet,
    last: IpNet,
}

/// Writes changes of claims that may be in lists, in the order of their prefixes. Those that are left
/// over belong into `claims`, or out of there; `each` is called for each row.
pub(super) fn write<'c>(
    db: &Connection,
    changes: Vec<Change<'c>>,
    boot: i64,
    each: &dyn Fn(),
) -> rusqlite::Result<Vec<Change<'c>>> {
    let listed = take_out(db, &changes, each)?;
    let (come, gone): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(_, span)| span.is_some());
    let mut left = gone;
    left.retain(|(key, _)| listed.binary_search(&key.prefix).is_err());
    let mut put = db.prepare_cached(
        "INSERT INTO lists (first, last, prefixes, since, until, boot, boot_until)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let mut groups: Vec<(Span, Vec<Change<'_>>)> = Vec::new();
    for change in come {
        let Some(span) = change.1 else { continue };
        // of permanent ones it does not matter by how little one came before the other
        let same = |known: &Span| known == span || (known.until, span.until) == (None, None);
        match groups.iter_mut().rev().find(|(known, _)| same(known)) {
            Some((_, group)) => group.push(change),
            None => groups.push((*span, vec![change])),
        }
    }
    // of most there are no rows to remove
    let rows = "SELECT EXISTS (SELECT 1 FROM claims WHERE holder = 'manual' AND ports = '')";
    let mut has_rows = None;
    for (span, group) in groups {
        if group.len() < MANY {
            left.extend(group);
            continue;
        }
        for page in group.chunks(PAGE) {
            each();
            let prefixes: Vec<IpNet> = page.iter().map(|(key, _)| key.prefix).collect();
            let (Some(first), Some(last)) = (prefixes.first(), prefixes.last()) else { continue };
            let Span { since, until, boot_until } = span;
            let [first, last] = [first, last].map(ToString::to_string);
            put.execute(params![first, last, packed(&prefixes), since, until, boot, boot_until])?;
        }
        let has_rows = match has_rows {
            Some(known) => known,
            None => *has_rows.insert(db.query_row(rows, [], |row| row.get::<_, bool>(0))?),
        };
        if has_rows {
            remove_rows(db, &group)?;
        }
    }
    Ok(left)
}

fn remove_rows(db: &Connection, group: &[Change<'_>]) -> rusqlite::Result<()> {
    let mut remove = db.prepare_cached(
        "DELETE FROM claims WHERE prefix = ?1 AND holder = 'manual' AND ports = ''",
    )?;
    for (key, _) in group {
        remove.execute([key.prefix.to_string()])?;
    }
    Ok(())
}

/// Takes what changes out of the lists; what was in one, in order.
fn take_out(
    db: &Connection,
    changes: &[Change<'_>],
    each: &dyn Fn(),
) -> rusqlite::Result<Vec<IpNet>> {
    let mut found = Vec::new();
    for List { id, first, last } in directory(db)? {
        let from = changes.partition_point(|(key, _)| key.prefix < first);
        let to = changes.partition_point(|(key, _)| key.prefix <= last);
        let Some(inside) = changes.get(from..to).filter(|inside| !inside.is_empty()) else {
            continue;
        };
        let prefixes: Vec<u8> = db
            .prepare_cached("SELECT prefixes FROM lists WHERE id = ?1")?
            .query_row([id], |row| row.get(0))?;
        let changes =
            |prefix: &IpNet| inside.binary_search_by(|(key, _)| key.prefix.cmp(prefix)).is_ok();
        let (out, stay): (Vec<IpNet>, Vec<IpNet>) = unpacked(&prefixes).partition(changes);
        if out.is_empty() {
            continue;
        }
        each();
        if let (Some(first), Some(last)) = (stay.first(), stay.last()) {
            let [first, last] = [first, last].map(ToString::to_string);
            db.prepare_cached(
                "UPDATE lists SET first = ?2, last = ?3, prefixes = ?4 WHERE id = ?1",
            )?
            .execute(params![id, first, last, packed(&stay)])?;
        } else {
            db.prepare_cached("DELETE FROM lists WHERE id = ?1")?.execute([id])?;
        }
        found.extend(out);
    }
    found.sort_unstable();
    Ok(found)
}

/// Returns all rows; those that make no sense are as wide as can be.
fn directory(db: &Connection) -> rusqlite::Result<Vec<List>> {
    let mut statement = db.prepare_cached("SELECT id, first, last FROM lists")?;
    let mut rows = statement.query([])?;
    let mut lists = Vec::new();
    while let Some(row) = rows.next()? {
        let [first, last] =
            [row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?].map(parse_prefix);
        if let (Ok(first), Ok(last)) = (first, last) {
            lists.push(List { id: row.get(0)?, first, last });
        }
    }
    Ok(lists)
}

/// Shows `each` what is listed, with the boot in which it was written.
pub(super) fn read(
    db: &Connection,
    mut each: impl FnMut(IpNet, Span, i64),
) -> rusqlite::Result<()> {
    // a file of an earlier version on a full disk is read as it is
    let exists = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'lists')";
    if !db.query_row(exists, [], |row| row.get::<_, bool>(0))? {
        return Ok(());
    }
    let mut statement =
        db.prepare("SELECT prefixes, since, until, boot_until, boot FROM lists ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let span = Span { since: row.get(1)?, until: row.get(2)?, boot_until: row.get(3)? };
        let boot = row.get(4)?;
        unpacked(row.get_ref(0)?.as_blob()?).for_each(|prefix| each(prefix, span, boot));
    }
    Ok(())
}

/// Gives every claim a row of its own.
pub(super) fn unfold(db: &Connection) -> rusqlite::Result<()> {
    let mut all = Vec::new();
    read(db, |prefix, span, boot| all.push((prefix, span, boot)))?;
    let mut put = db.prepare(
        "INSERT OR REPLACE INTO claims (prefix, holder, ports, since, until, boot, boot_until)
         VALUES (?1, ?2, '', ?3, ?4, ?5, ?6)",
    )?;
    let holder = holder_text(&Holder::Manual);
    for (prefix, Span { since, until, boot_until }, boot) in all {
        put.execute(params![prefix.to_string(), holder, since, until, boot, boot_until])?;
    }
    db.execute_batch("DELETE FROM lists")
}

/// One behind the other: the length, of IPv6 with [`V6`] added, and the 4 or 16 bytes of the address.
fn packed(prefixes: &[IpNet]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(prefixes.len() * 5);
    for prefix in prefixes {
        match prefix.addr() {
            IpAddr::V4(address) => {
                bytes.push(prefix.prefix_len());
                bytes.extend_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                bytes.push(prefix.prefix_len() + V6);
                bytes.extend_from_slice(&address.octets());
            }
        }
    }
    bytes
}

/// Returns what [`packed`] has made; it ends where that makes no sense.
fn unpacked(bytes: &[u8]) -> impl Iterator<Item = IpNet> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (&length, behind) = rest.split_first()?;
        let (address, length, behind) = if length < V6 {
            let (address, behind) = behind.split_first_chunk::<4>()?;
            (IpAddr::from(Ipv4Addr::from(*address)), length, behind)
        } else {
            let (address, behind) = behind.split_first_chunk::<16>()?;
            (IpAddr::from(Ipv6Addr::from(*address)), length - V6, behind)
        };
        rest = behind;
        IpNet::new(address, length).ok()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        clock::Now,
        store::{pending::Pending, read, schema::Database},
    };

    #[test]
    fn what_is_packed_is_unpacked() {
        let prefixes: Vec<IpNet> = ["0.0.0.0/0", "203.0.113.7/32", "::/0", "2001:db8::1/128"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        assert_eq!(unpacked(&packed(&prefixes)).collect::<Vec<_>>(), prefixes);
        assert_eq!(unpacked(&packed(&prefixes)[..7]).count(), 1, "cut off");
    }

    #[test]
    fn a_file_of_an_earlier_version_has_none() {
        let folder = tempfile::TempDir::new().unwrap();
        let disk = Database::open(&folder.path().join("state.sqlite")).unwrap();
        let row = "INSERT INTO claims VALUES ('192.0.2.1/32', 'manual', '', 0, NULL, 1, NULL)";
        disk.connection.execute_batch(&format!("DROP TABLE lists; {row}")).unwrap();
        let mut claims = 0;
        read::claims(&disk.connection, Now::read(), |_| claims += 1).unwrap();
        assert_eq!(claims, 1);
    }

    /// Many and few that come, move and go, against a map.
    #[test]
    fn lists_and_rows_together_are_the_claims() {
        let folder = tempfile::TempDir::new().unwrap();
        let mut disk = Database::open(&folder.path().join("state.sqlite")).unwrap();
        let mut seed = 7_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        let mut known: BTreeMap<IpNet, Option<i64>> = BTreeMap::new();
        let (mut lists, mut folded) = (0, 0);
        for round in 0..40 {
            let mut pending = Pending::default();
            let (count, until) = match random(4) {
                0 => (random(3 * PAGE as u64), None),
                1 => (random(1000), Some(i64::try_from(random(100)).unwrap())),
                _ => (random(20), Some(i64::try_from(random(100)).unwrap())),
            };
            let (goes, spread) = (random(3) == 0, 1 + random(5));
            let start = random(20_000);
            for number in 0..count {
                let number = u32::try_from(start + number * spread).unwrap();
                let prefix = IpNet::from(IpAddr::from(Ipv4Addr::from(number)));
                let since = i64::try_from(random(3)).unwrap();
                let span = Span { since, until, boot_until: until };
                pending.claim(key(prefix), (!goes).then_some(span));
                if goes {
                    known.remove(&prefix);
                } else {
                    known.insert(prefix, until);
                }
            }
            pending.write(&mut disk.connection, disk.boot, &|| ()).unwrap();
            if round == 20 {
                unfold(&disk.connection).unwrap();
            }
            let mut found: Vec<(IpNet, Option<i64>)> = Vec::new();
            read(&disk.connection, |prefix, span, _| found.push((prefix, span.until))).unwrap();
            (lists, folded) =
                (lists.max(directory(&disk.connection).unwrap().len()), folded.max(found.len()));
            let mut rows = disk.connection.prepare("SELECT prefix, until FROM claims").unwrap();
            let rows =
                rows.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?))).unwrap();
            for (prefix, until) in rows.map(Result::unwrap) {
                found.push((prefix.parse().unwrap(), until));
            }
            found.sort_unstable();
            assert_eq!(found, known.clone().into_iter().collect::<Vec<_>>(), "round {round}");
        }
        assert!(lists > 3 && folded > 1000, "{lists} lists with {folded}");
    }
}
