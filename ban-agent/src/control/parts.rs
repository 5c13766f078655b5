//! Cuts a request that may be about a million prefixes into parts, between which the core does what
//! others want, and gathers what became of them.

use std::collections::BTreeMap;

use super::{Change, Changes, Outcome, Request, SCHEMA};
use crate::alarm::Alarm;

/// Targets that the core takes at once: about half a millisecond of its time.
pub(super) const PART: usize = 256;
/// Targets between two waits for the disk: what is not written yet is bounded.
pub(super) const WINDOW: usize = 128 * PART;
/// Changes of each kind that the answer shows one by one; of more, only the number is.
pub(super) const SHOWN: u64 = 10_000;
/// Targets of a request that are reported and put on record one by one; of more, only the claims are
/// recorded and the number is told.
pub(super) const TOLD: usize = 10_000;

/// The parts of `request`, each with the number of its targets; itself, if it is short. In the order
/// of the addresses, in which the store's pages and the ledger's lie beside each other.
pub(super) fn cut(request: Request) -> Box<dyn Iterator<Item = (usize, Request)> + Send> {
    match request {
        Request::Ban { mut targets, duration, jail, ports, reason, force }
            if targets.len() > PART =>
        {
            targets.sort_unstable();
            Box::new(chunks(targets).map(move |targets| {
                let (jail, ports, reason) = (jail.clone(), ports.clone(), reason.clone());
                (targets.len(), Request::Ban { targets, duration, jail, ports, reason, force })
            }))
        }
        Request::Unban { mut targets, all: false, jail, reason } if targets.len() > PART => {
            targets.sort_unstable();
            Box::new(chunks(targets).map(move |targets| {
                let (jail, reason) = (jail.clone(), reason.clone());
                (targets.len(), Request::Unban { targets, all: false, jail, reason })
            }))
        }
        Request::Import { formers } if formers.len() > PART => {
            Box::new(chunks(formers).map(|formers| (formers.len(), Request::Import { formers })))
        }
        short => Box::new(std::iter::once((0, short))),
    }
}

fn chunks<T>(all: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut all = all.into_iter();
    std::iter::from_fn(move || {
        let part: Vec<T> = all.by_ref().take(PART).collect();
        (!part.is_empty()).then_some(part)
    })
}

/// What became of the parts so far.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    changes: Vec<Change>,
    counts: BTreeMap<Outcome, u64>,
    alarms: Vec<Alarm>,
    warning: Option<String>,
}

impl Gathered {
    /// One more part.
    pub(super) fn add(&mut self, part: Changes) {
        for change in part.changes {
            let count = self.counts.entry(change.result).or_default();
            *count += 1;
            if *count <= SHOWN {
                self.changes.push(change);
            }
        }
        self.alarms = part.alarms;
        self.warning = self.warning.take().or(part.warning);
    }

    /// All of them together.
    pub(super) fn finish(self) -> Changes {
        let Gathered { changes, counts, alarms, warning } = self;
        Changes { schema: SCHEMA, changes, counts, alarms, warning }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::net::IpNet;

    fn prefixes(count: usize) -> Vec<IpNet> {
        let address = |number| IpAddr::from(Ipv4Addr::from(u32::try_from(number).unwrap()));
        (0..count).map(|number| IpNet::from(address(number))).collect()
    }

    #[test]
    fn the_parts_are_the_request() {
        for count in [0, 1, PART, PART + 1, 3 * PART + 7] {
            let request =
                Request::Unban { targets: prefixes(count), all: false, jail: None, reason: None };
            let mut all = Vec::new();
            for (size, part) in cut(request) {
                let Request::Unban { targets, all: false, .. } = part else { panic!() };
                assert!(targets.len() <= PART && (size == 0 || size == targets.len()));
                all.extend(targets);
            }
            assert_eq!(all, prefixes(count));
        }
    }

    #[test]
    fn many_changes_are_counted_and_some_of_each_kind_shown() {
        let mut gathered = Gathered::default();
        let change = |prefix, result| Change { prefix, result, until: None, reason: None };
        let many = usize::try_from(SHOWN).unwrap() + 5;
        let banned = prefixes(many).into_iter().map(|prefix| change(prefix, Outcome::Banned));
        gathered.add(Changes::new(banned.collect(), Vec::new()));
        gathered.add(Changes::new(vec![change(prefixes(1)[0], Outcome::Refused)], Vec::new()));
        let changes = gathered.finish();
        assert_eq!(changes.changes.len(), many - 5 + 1);
        assert_eq!(changes.counts[&Outcome::Banned], SHOWN + 5);
        assert_eq!(changes.counts[&Outcome::Refused], 1);
    }
}
