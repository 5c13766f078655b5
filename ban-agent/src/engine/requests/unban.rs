//! `unban`: lets go of addresses, and of what was logged about them before.

use std::time::Instant;

use crate::{
    clock::Now,
    control::{self, Changes, Outcome, Refusal},
    engine::Engine,
    ledger::{Holder, Plan},
    net::IpNet,
};

impl Engine {
    pub(super) fn unban(
        &mut self,
        targets: &[IpNet],
        all: bool,
        jail: Option<String>,
        now: Now,
    ) -> Result<(Plan, Changes), Refusal> {
        if let Some(jail) = &jail {
            self.known_holder(jail)?;
        }
        let holder = jail.as_deref().map(Holder::named);
        let mut plan = Plan::default();
        self.mark_unban(targets, all, holder.as_ref(), now);
        if all {
            self.flush = true;
            self.ledger.release_all(holder.as_ref(), &mut plan);
            self.narrow(&mut plan, now);
            let mut prefixes: Vec<IpNet> =
                plan.ended.iter().map(|ended| ended.claim.prefix).collect();
            prefixes.dedup();
            let changes = prefixes.iter().map(|prefix| self.released(*prefix, 1, now)).collect();
            return Ok((plan, Changes::new(changes, self.alarms(now))));
        }
        let mut release = |prefix: &IpNet| self.ledger.release(*prefix, holder.as_ref(), &mut plan);
        let counts: Vec<usize> = targets.iter().map(&mut release).collect();
        // before it is told what still covers them
        self.narrow(&mut plan, now);
        let released = targets.iter().zip(counts);
        let changes = released.map(|(prefix, count)| self.released(*prefix, count, now)).collect();
        Ok((plan, Changes::new(changes, self.alarms(now))))
    }

    /// What was logged before an unban bans nobody after it, also if a crash has it read again.
    fn mark_unban(&mut self, targets: &[IpNet], all: bool, holder: Option<&Holder>, now: Now) {
        let everybody = all.then_some(None);
        let prefixes = targets.iter().map(|prefix| Some(prefix.trunc()));
        let unbanned: Vec<Option<IpNet>> = everybody.into_iter().chain(prefixes).collect();
        let of_whom = |prefix: &Option<IpNet>| (*prefix, holder.cloned());
        let given = Instant::now();
        self.pipeline.forgive(unbanned.iter().map(of_whom).collect(), given);
        for prefix in unbanned {
            self.unban_marks.insert((prefix, holder.cloned()), now.wall, Some(given));
            self.store.mark_unban((prefix, holder.cloned()), now.wall);
        }
    }

    fn released(&self, prefix: IpNet, count: usize, now: Now) -> control::Change {
        let left = self.ledger.get(prefix);
        let result = match (count, &left) {
            (0, None) => Outcome::Absent,
            (0, Some(_)) => Outcome::Held,
            (_, None) => Outcome::Unbanned,
            (_, Some(_)) => Outcome::Held,
        };
        let reason = match &left {
            Some(ban) => {
                let holders: Vec<String> =
                    ban.claims().map(|claim| claim.holder.to_string()).collect();
                Some(format!("held by {}", holders.join(", ")))
            }
            None => self
                .ledger
                .covering(prefix)
                .next()
                .map(|ban| format!("{} is still banned and covers it", ban.prefix)),
        };
        let until = left.and_then(|ban| now.wall_of(ban.until()));
        control::Change { prefix, result, until, reason }
    }
}
