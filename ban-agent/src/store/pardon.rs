//! What the operator let go of, and when: lines from before that, which a crash has the agent read
//! again, must not bring the ban back.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use crate::{ledger::Holder, net::IpNet};

/// So many are remembered; beyond it the oldest go. A crash makes the agent read the lines of some
/// seconds again, and nobody types so fast.
const MAX: usize = 4096;

/// Clocks are corrected by less.
pub(crate) const CORRECTION: SignedDuration = SignedDuration::from_secs(60);

/// Who was let go: a prefix or, if `None`, everybody; of one holder or, if `None`, of all.
pub type Pardoned = (Option<IpNet>, Option<Holder>);

/// All of them, with their time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pardons(HashMap<Pardoned, Timestamp>);

impl Pardons {
    /// Remembers one.
    pub fn insert(&mut self, pardoned: Pardoned, at: Timestamp) {
        if self.0.len() >= MAX && !self.0.contains_key(&pardoned) {
            let mut times: Vec<Timestamp> = self.0.values().copied().collect();
            times.sort_unstable();
            let middle = times.get(times.len() / 2).copied().unwrap_or_default();
            self.0.retain(|_, at| *at > middle);
        }
        self.0.insert(pardoned, at);
    }

    /// The wall clock was set, to this: nobody was let go much later than now. Else what is done from
    /// now on would be forgiven until the clock is there again; after a small correction, though,
    /// lines that bear the old time must not bring a ban back. What was changed.
    #[must_use]
    pub fn cap(&mut self, now: Timestamp) -> Vec<(Pardoned, Timestamp)> {
        let latest = now.saturating_add(CORRECTION).unwrap_or(now);
        let late = self.0.iter_mut().filter(|(_, at)| **at > latest);
        late.map(|(pardoned, at)| {
            *at = latest;
            (pardoned.clone(), latest)
        })
        .collect()
    }

    /// Whether what `prefix` did at `time` is forgiven by `holder`. Many logs know no more than
    /// the second: who does it again in the same one has to do it again.
    #[must_use]
    pub fn forgive(&self, prefix: IpNet, holder: &Holder, time: Timestamp) -> bool {
        let some = [
            (Some(prefix), Some(holder)),
            (Some(prefix), None),
            (None, Some(holder)),
            (None, None),
        ];
        some.into_iter().any(|(prefix, holder)| {
            self.0.get(&(prefix, holder.cloned())).is_some_and(|at| time <= *at)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_came_before_is_forgiven_and_what_comes_after_is_not() {
        let (one, other) = ("192.0.2.1/32".parse().unwrap(), "192.0.2.2/32".parse().unwrap());
        let (a, b) = (Holder::Jail("a".into()), Holder::Jail("b".into()));
        let mut pardons = Pardons::default();
        pardons.insert((Some(one), Some(a.clone())), at(10));
        let forgiven = |pardons: &Pardons| {
            let all = [(one, &a, 10), (one, &a, 11), (one, &b, 9), (other, &a, 9)];
            all.map(|(prefix, holder, second)| pardons.forgive(prefix, holder, at(second)))
        };
        assert_eq!(forgiven(&pardons), [true, false, false, false]);
        pardons.insert((Some(one), None), at(9));
        assert_eq!(forgiven(&pardons), [true, false, true, false]);
        pardons.insert((None, None), at(11));
        assert_eq!(forgiven(&pardons), [true; 4]);
    }

    #[test]
    fn a_clock_that_was_set_back_forgives_nothing_new() {
        let prefix = "192.0.2.1/32".parse().unwrap();
        let mut pardons = Pardons::default();
        pardons.insert((Some(prefix), None), at(1000));
        assert_eq!(pardons.cap(at(50)), [((Some(prefix), None), at(110))]);
        let forgiven = |second| pardons.forgive(prefix, &Holder::Manual, at(second));
        assert_eq!([forgiven(50), forgiven(110), forgiven(111)], [true, true, false]);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut pardons = Pardons::default();
        for number in 0..=u32::try_from(MAX).unwrap() {
            let prefix = std::net::IpAddr::from(std::net::Ipv4Addr::from(number)).into();
            pardons.insert((Some(prefix), None), at(number.into()));
        }
        let number = u32::try_from(MAX).unwrap();
        let last = std::net::IpAddr::from(std::net::Ipv4Addr::from(number)).into();
        assert!(pardons.0.len() <= MAX);
        assert!(pardons.forgive(last, &Holder::Manual, at(0)));
    }
}
