//! Bans that are still being hit when they would end. For each of them two looks at its counter:
//! one when a quarter of its time is left, one just before its end; the difference decides.
//!
//! Holds only what has yet to be looked at, at most one entry for each ban and jail. Reads no
//! counter itself.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    clock::{Boot, Now},
    jail::Extend,
    net::IpNet,
};

/// The second look comes so many ms before the end, so that no packet slips through between.
const LEAD: u64 = 1000;

/// A ban, and the jail that holds it.
pub type Watched = (IpNet, Arc<str>);

/// Which counters have to be looked at, and when.
#[derive(Debug, Default)]
pub struct Looks {
    looks: HashMap<Watched, Look>,
    order: BTreeSet<(Boot, Watched)>,
}

#[derive(Debug)]
struct Look {
    due: Boot,
    /// The end that the ban had when this was planned.
    until: Boot,
    /// When the ban began, if that was in this run.
    since: Option<Timestamp>,
    /// Packets at the first look.
    packets: Option<u64>,
    extended: u32,
}

impl Looks {
    /// Has a ban looked at before `until`. `since`: when it began, if it is known.
    pub fn watch(
        &mut self,
        ban: Watched,
        until: Boot,
        since: Option<Timestamp>,
        bantime: Duration,
        now: Boot,
    ) {
        if until == Boot::NEVER {
            return;
        }
        let former = self.forget(&ban);
        let (since, extended) = match former {
            Some(look) => (look.since, look.extended),
            None => (since, 0),
        };
        let due = before(until, quarter(bantime)).max(now);
        self.plan(ban, Look { due, until, since, packets: None, extended });
    }

    /// Returns whether a ban is waiting for a look.
    #[must_use]
    pub fn is_watched(&self, ban: &Watched) -> bool {
        self.looks.contains_key(ban)
    }

    /// Returns how often a ban was extended in this run.
    #[must_use]
    pub fn extended(&self, ban: &Watched) -> u32 {
        self.looks.get(ban).map_or(0, |look| look.extended)
    }

    /// Returns when [`Looks::due`] has something next.
    #[must_use]
    pub fn next(&self) -> Option<Boot> {
        self.order.first().map(|(due, _)| *due)
    }

    /// Returns whose counters are to be read now; each is then [`Looks::seen`].
    #[must_use]
    pub fn due(&self, now: Boot) -> Vec<Watched> {
        let due = self.order.iter().take_while(|(due, _)| *due <= now);
        due.map(|(_, ban)| ban.clone()).collect()
    }

    /// Takes the counter of a ban that ends at `until` (`None`: it is gone). Its new end, if it
    /// is still being hit: its jail's bantime later, but not beyond `maxtime` from `began`, which
    /// is asked only then.
    pub fn seen(
        &mut self,
        ban: Watched,
        packets: u64,
        until: Option<Boot>,
        (rule, bantime): (Extend, Duration),
        began: impl FnOnce() -> Option<Timestamp>,
        now: Now,
    ) -> Option<Boot> {
        let look = self.forget(&ban)?;
        let until = until.filter(|until| *until > now.boot)?;
        if until != look.until {
            // another claim has moved its end
            let due = before(until, quarter(bantime)).max(now.boot);
            self.plan(ban, Look { due, until, packets: None, ..look });
            return None;
        }
        let Some(before_that) = look.packets else {
            let due = before(until, LEAD.min(quarter(bantime) / 4)).max(now.boot);
            self.plan(ban, Look { due, packets: Some(packets), ..look });
            return None;
        };
        if packets < before_that.saturating_add(rule.hits) {
            return None;
        }
        let since = look.since.or_else(began).unwrap_or(now.wall);
        let limit = since.checked_add(rule.maxtime).unwrap_or(Timestamp::MAX);
        let new = until.plus(millis(bantime)).min(now.boot_of(limit));
        if new <= until {
            return None;
        }
        let due = before(new, quarter(bantime)).max(now.boot);
        let extended = look.extended + 1;
        self.plan(ban, Look { due, until: new, since: Some(since), packets: None, extended });
        Some(new)
    }

    /// Gives up on a ban; it ends when it ends.
    pub fn drop_ban(&mut self, ban: &Watched) {
        self.forget(ban);
    }

    fn plan(&mut self, ban: Watched, look: Look) {
        self.order.insert((look.due, ban.clone()));
        self.looks.insert(ban, look);
    }

    fn forget(&mut self, ban: &Watched) -> Option<Look> {
        let look = self.looks.remove(ban)?;
        self.order.remove(&(look.due, ban.clone()));
        Some(look)
    }
}

fn before(until: Boot, millis: u64) -> Boot {
    Boot(until.0.saturating_sub(millis))
}

fn quarter(bantime: Duration) -> u64 {
    millis(bantime) / 4
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::parse_prefix;

    const BANTIME: Duration = Duration::from_secs(400);
    const RULE: Extend = Extend { hits: 5, maxtime: Duration::from_secs(1000) };

    fn now(second: u64) -> Now {
        let wall = 1_800_000_000 + i64::try_from(second).unwrap();
        Now { boot: Boot(second * 1000), wall: Timestamp::from_second(wall).unwrap() }
    }

    fn ban() -> Watched {
        (parse_prefix("192.0.2.1").unwrap(), "sshd".into())
    }

    fn banned() -> Looks {
        let mut looks = Looks::default();
        looks.watch(ban(), Boot(400_000), Some(now(0).wall), BANTIME, Boot(0));
        looks
    }

    /// Returns what is seen at each look until the ban is let go: the ends that it is given, in
    /// seconds.
    fn ends(looks: &mut Looks, mut packets: impl FnMut(u64) -> u64) -> Vec<u64> {
        let (mut until, mut ends) = (Boot(400_000), Vec::new());
        while let Some(due) = looks.next() {
            assert!(due < until, "looked at before its end");
            let [watched] = looks.due(due).try_into().unwrap();
            let now = now(due.0 / 1000);
            let now = Now { boot: due, ..now };
            let seen = packets(due.0 / 1000);
            if let Some(new) = looks.seen(watched, seen, Some(until), (RULE, BANTIME), || None, now)
            {
                ends.push(new.0 / 1000);
                until = new;
            }
        }
        ends
    }

    #[test]
    fn whoever_goes_on_is_banned_for_longer_up_to_the_longest() {
        let mut looks = banned();
        assert_eq!(ends(&mut looks, |second| second), [800, 1000]);
        assert!(!looks.is_watched(&ban()), "nothing is kept of it");
    }

    #[test]
    fn whoever_has_given_up_is_let_go() {
        // a thousand packets at first, and then a stray one
        assert!(ends(&mut banned(), |second| 1000 + u64::from(second > 350)).is_empty());
        // gives up in the second round
        assert_eq!(ends(&mut banned(), |second| second.min(500)), [800]);
    }

    #[test]
    fn a_ban_that_is_gone_or_moved_is_not_extended() {
        let mut looks = banned();
        assert_eq!(looks.seen(ban(), 0, None, (RULE, BANTIME), || None, now(300)), None);
        assert_eq!((looks.next(), looks.due(Boot(u64::MAX))), (None, Vec::new()));
        let mut looks = banned();
        let moved = Some(Boot(900_000));
        assert_eq!(looks.seen(ban(), 0, moved, (RULE, BANTIME), || None, now(300)), None);
        assert_eq!(looks.next(), Some(Boot(800_000)));
    }

    #[test]
    fn the_longest_counts_from_the_beginning_also_after_a_restart() {
        let mut looks = Looks::default();
        looks.watch(ban(), Boot(400_000), None, BANTIME, Boot(390_000));
        let look = |looks: &mut Looks, packets, second| {
            let began =
                || Some(now(0).wall.checked_sub(jiff::SignedDuration::from_secs(500)).unwrap());
            looks.seen(ban(), packets, Some(Boot(400_000)), (RULE, BANTIME), began, now(second))
        };
        assert_eq!(look(&mut looks, 7, 390), None);
        assert_eq!(look(&mut looks, 99, 399), Some(Boot(500_000)));
        assert_eq!(looks.extended(&ban()), 1);
    }

    #[test]
    fn permanent_bans_are_not_looked_at() {
        let mut looks = Looks::default();
        looks.watch(ban(), Boot::NEVER, None, BANTIME, Boot(0));
        assert_eq!(looks.next(), None);
    }
}
