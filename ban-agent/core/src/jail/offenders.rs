//! Who was banned before, how often, and when last: what longer bans and heavier failures rest on.
//! Kept in memory, so that no ban waits for a disk; at most so many, those that were banned last.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;

use crate::net::IpNet;

/// So many are remembered.
pub const REMEMBERED: usize = 1 << 17;

/// A jail's bans of one prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// How many.
    pub bans: u32,
    /// When the last one was given: the time of its last failure.
    pub last: Timestamp,
}

/// What is on record, shared by the jails, who ask, and the store, which knows.
#[derive(Clone, Debug, Default)]
pub struct Offenders(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    /// By prefix and number of the jail.
    records: HashMap<(IpNet, u32), Record>,
    /// Who was banned longest ago goes first.
    order: BTreeSet<(Timestamp, IpNet, u32)>,
    numbers: HashMap<Arc<str>, u32>,
    /// As of which time there are records at all: older ones were purged.
    since: Timestamp,
}

impl Offenders {
    /// So many more bans of `prefix` by `jail`, the last one at this time.
    pub fn add(&self, jail: &str, prefix: IpNet, more: Record) {
        self.book().add(jail, prefix, more);
    }

    /// Returns what a jail has on record of exactly this prefix.
    #[must_use]
    pub fn of(&self, jail: &str, prefix: IpNet) -> Option<Record> {
        let book = self.book();
        let number = *book.numbers.get(jail)?;
        book.record(prefix, number)
    }

    /// Returns what all jails together have.
    #[must_use]
    pub fn of_all(&self, prefix: IpNet) -> Option<Record> {
        let book = self.book();
        let records = book.numbers.values().filter_map(|number| book.record(prefix, *number));
        records
            .reduce(|a, b| Record { bans: a.bans.saturating_add(b.bans), last: a.last.max(b.last) })
    }

    /// What ended before this time is not on record any more.
    pub fn forget_before(&self, time: Timestamp) {
        self.book().since = time;
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn record(&self, prefix: IpNet, number: u32) -> Option<Record> {
        self.records.get(&(prefix, number)).filter(|record| record.last >= self.since).copied()
    }

    fn add(&mut self, jail: &str, prefix: IpNet, more: Record) {
        let number = match self.numbers.get(jail) {
            Some(number) => *number,
            None => {
                let number = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
                self.numbers.insert(jail.into(), number);
                number
            }
        };
        let known = self.record(prefix, number);
        let key = (prefix, number);
        if let Some(old) = self.records.remove(&key) {
            self.order.remove(&(old.last, prefix, number));
        }
        let known = known.unwrap_or_default();
        let record =
            Record { bans: known.bans.saturating_add(more.bans), last: known.last.max(more.last) };
        self.records.insert(key, record);
        self.order.insert((record.last, prefix, number));
        if self.records.len() > REMEMBERED
            && let Some((_, prefix, number)) = self.order.pop_first()
        {
            self.records.remove(&(prefix, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn once(second: i64) -> Record {
        Record { bans: 1, last: at(second) }
    }

    fn address(number: u32) -> IpNet {
        IpNet::from(std::net::IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn each_jail_has_its_own_record_and_all_have_one() {
        let former = Offenders::default();
        former.add("a", address(1), once(10));
        former.add("a", address(1), once(20));
        former.add("b", address(1), once(15));
        assert_eq!(former.of("a", address(1)), Some(Record { bans: 2, last: at(20) }));
        assert_eq!(former.of("b", address(1)), Some(once(15)));
        assert_eq!(former.of_all(address(1)), Some(Record { bans: 3, last: at(20) }));
        assert_eq!((former.of("c", address(1)), former.of("a", address(2))), (None, None));
    }

    #[test]
    fn what_was_purged_is_not_on_record() {
        let former = Offenders::default();
        former.add("a", address(1), once(10));
        former.forget_before(at(11));
        assert_eq!(former.of("a", address(1)), None);
        former.add("a", address(1), once(20));
        assert_eq!(former.of("a", address(1)), Some(once(20)), "it begins anew");
    }

    #[test]
    fn who_was_banned_longest_ago_is_forgotten_first() {
        let former = Offenders::default();
        let all = u32::try_from(REMEMBERED).unwrap();
        for number in 0..all {
            former.add("a", address(number), once(i64::from(number)));
        }
        former.add("a", address(0), once(i64::from(all)));
        former.add("a", address(all), once(i64::from(all)));
        assert_eq!(former.of("a", address(1)), None);
        assert_eq!(former.of("a", address(0)).map(|record| record.bans), Some(2));
        let book = former.book();
        assert_eq!((book.records.len(), book.order.len()), (REMEMBERED, REMEMBERED));
    }
}
