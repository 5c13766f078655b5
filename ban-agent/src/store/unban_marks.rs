//! What the operator let go of, and when: lines from before that, which a crash has the agent read
//! again, must not bring the ban back.

use std::{collections::HashMap, time::Instant};

use jiff::{SignedDuration, Timestamp};

use crate::{ledger::Holder, net::IpNet};

/// So many are remembered; beyond it the oldest go. A crash makes the agent read the lines of some
/// seconds again, and no operator types so fast.
const MAX: usize = 4096;

/// Clocks are corrected by less.
pub(crate) const CORRECTION: SignedDuration = SignedDuration::from_secs(60);

/// Who was let go: a prefix or, if `None`, all; of one holder or, if `None`, of all.
pub type Unbanned = (Option<IpNet>, Option<Holder>);

/// When a prefix was let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct UnbanMark {
    at: Timestamp,
    /// The same instant, if it was in this run: lines that were read later were written later, as
    /// far as one can tell within a second.
    given: Option<Instant>,
}

/// All of them, with their time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnbanMarks(HashMap<Unbanned, UnbanMark>);

impl UnbanMarks {
    /// Remembers one, with the instant if it is of this run.
    pub fn insert(&mut self, unbanned: Unbanned, at: Timestamp, given: Option<Instant>) {
        if self.0.len() >= MAX && !self.0.contains_key(&unbanned) {
            let mut times: Vec<Timestamp> = self.0.values().map(|mark| mark.at).collect();
            times.sort_unstable();
            let middle = times.get(times.len() / 2).copied().unwrap_or_default();
            self.0.retain(|_, mark| mark.at > middle);
        }
        self.0.insert(unbanned, UnbanMark { at, given });
    }

    /// Notes that the wall clock was set, to this: nothing was let go much later than now. Else
    /// what is done from now on would be forgiven until the clock is there again; after a small
    /// correction, though, lines that bear the old time must not bring a ban back. What was
    /// changed.
    #[must_use]
    pub fn cap(&mut self, now: Timestamp) -> Vec<(Unbanned, Timestamp)> {
        let latest = now.saturating_add(CORRECTION).unwrap_or(now);
        let late = self.0.iter_mut().filter(|(_, mark)| mark.at > latest);
        late.map(|(unbanned, mark)| {
            mark.at = latest;
            (unbanned.clone(), latest)
        })
        .collect()
    }

    /// Returns whether what `prefix` did at `time` is forgiven by `holder`. Many logs know no more
    /// than the second: what is of the same one counts if its line was `read` after the unban,
    /// unless it may have been read before as well (`None`, or an unban of an earlier run).
    #[must_use]
    pub fn forgive(
        &self,
        prefix: IpNet,
        holder: &Holder,
        time: Timestamp,
        read: Option<Instant>,
    ) -> bool {
        let some = [
            (Some(prefix), Some(holder)),
            (Some(prefix), None),
            (None, Some(holder)),
            (None, None),
        ];
        some.into_iter().any(|(prefix, holder)| {
            let mark = self.0.get(&(prefix, holder.cloned()));
            mark.is_some_and(|mark| time <= mark.at && !mark.is_before(time, read))
        })
    }
}

impl UnbanMark {
    /// Returns whether it was given before something that is on record without a fraction of its
    /// second.
    fn is_before(&self, time: Timestamp, read: Option<Instant>) -> bool {
        let known = self.given.zip(read).is_some_and(|(given, read)| read > given);
        known && time.subsec_nanosecond() == 0 && time.as_second() == self.at.as_second()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_came_before_is_forgiven_and_what_comes_after_is_not() {
        let (one, other) = ("192.0.2.1/32".parse().unwrap(), "192.0.2.2/32".parse().unwrap());
        let (a, b) = (Holder::Jail("a".into()), Holder::Jail("b".into()));
        let mut unban_marks = UnbanMarks::default();
        unban_marks.insert((Some(one), Some(a.clone())), at(10), None);
        let forgiven = |unban_marks: &UnbanMarks| {
            let all = [(one, &a, 10), (one, &a, 11), (one, &b, 9), (other, &a, 9)];
            all.map(|(prefix, holder, second)| {
                unban_marks.forgive(prefix, holder, at(second), None)
            })
        };
        assert_eq!(forgiven(&unban_marks), [true, false, false, false]);
        unban_marks.insert((Some(one), None), at(9), None);
        assert_eq!(forgiven(&unban_marks), [true, false, true, false]);
        unban_marks.insert((None, None), at(11), None);
        assert_eq!(forgiven(&unban_marks), [true; 4]);
    }

    /// The unban is in the middle of a second of which the log knows no more.
    #[test]
    fn who_fails_again_in_the_second_of_the_unban_is_not_forgiven() {
        let prefix = "192.0.2.1/32".parse().unwrap();
        let before = Instant::now();
        let given = before + Duration::from_millis(300);
        let after = given + Duration::from_millis(1);
        let unban = at(10) + Duration::from_millis(400);
        let forgiven = |given, time, read| {
            let mut unban_marks = UnbanMarks::default();
            unban_marks.insert((Some(prefix), None), unban, given);
            unban_marks.forgive(prefix, &Holder::Manual, time, read)
        };
        assert!(!forgiven(Some(given), at(10), Some(after)));
        assert!(forgiven(Some(given), at(10), Some(before)), "read before it");
        assert!(forgiven(Some(given), at(9), Some(after)), "a second before, read late");
        let exact = at(10) + Duration::from_millis(399);
        assert!(forgiven(Some(given), exact, Some(after)), "the log knows better");
        assert!(forgiven(None, at(10), Some(after)), "read again, after a crash");
        assert!(forgiven(Some(given), at(10), None), "counted in an earlier run");
    }

    #[test]
    fn a_clock_that_was_set_back_forgives_nothing_new() {
        let prefix = "192.0.2.1/32".parse().unwrap();
        let mut unban_marks = UnbanMarks::default();
        unban_marks.insert((Some(prefix), None), at(1000), None);
        assert_eq!(unban_marks.cap(at(50)), [((Some(prefix), None), at(110))]);
        let forgiven = |second| unban_marks.forgive(prefix, &Holder::Manual, at(second), None);
        assert_eq!([forgiven(50), forgiven(110), forgiven(111)], [true, true, false]);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut unban_marks = UnbanMarks::default();
        for number in 0..=u32::try_from(MAX).unwrap() {
            let prefix = std::net::IpAddr::from(std::net::Ipv4Addr::from(number)).into();
            unban_marks.insert((Some(prefix), None), at(number.into()), None);
        }
        let number = u32::try_from(MAX).unwrap();
        let last = std::net::IpAddr::from(std::net::Ipv4Addr::from(number)).into();
        assert!(unban_marks.0.len() <= MAX);
        assert!(unban_marks.forgive(last, &Holder::Manual, at(0), None));
    }
}
