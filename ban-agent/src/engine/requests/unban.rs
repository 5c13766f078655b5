//! `unban`: lets go of addresses, and of what was logged about them before.

use std::time::Instant;

use crate::{
    clock::Now,
    control::{self, Changes, Outcome, Refusal, Release, Released},
    engine::{Engine, chores::PART},
    ledger::{Holder, Plan},
    net::IpNet,
};

impl Engine {
    pub(super) fn unban(
        &mut self,
        targets: &[IpNet],
        jail: Option<&str>,
        now: Now,
    ) -> Result<(Plan, Vec<control::Change>), Refusal> {
        if let Some(jail) = jail {
            self.known_holder(jail)?;
        }
        let holder = jail.map(Holder::named);
        let mut plan = Plan::default();
        let marked = targets.iter().map(|prefix| Some(prefix.trunc())).collect();
        self.mark_unban(marked, holder.as_ref(), now);
        let mut release = |prefix: &IpNet| self.ledger.release(*prefix, holder.as_ref(), &mut plan);
        let counts: Vec<usize> = targets.iter().map(&mut release).collect();
        // before it is told what still covers them
        self.narrow(&mut plan, now);
        let released = targets.iter().zip(counts);
        let changes = released.map(|(prefix, count)| self.released(*prefix, count, now)).collect();
        Ok((plan, changes))
    }

    /// One part of letting go of everybody.
    pub(in crate::engine) fn release(&mut self, release: Release, now: Now) {
        let Release { jail, mut after, reply, user, reason, quiet } = release;
        if let Some(jail) = &jail
            && let Err(refusal) = self.known_holder(jail)
        {
            // the asker may have gone
            return drop(reply.send(Err(refusal)));
        }
        let holder = jail.as_deref().map(Holder::named);
        if after.is_none() {
            self.mark_unban(vec![None], holder.as_ref(), now);
            self.actions.begin_flush();
            self.asker = user.clone();
            let all = reason.map_or_else(|| "all".to_owned(), |reason| format!("all: {reason}"));
            self.note("unban", jail.as_deref(), Some(all));
        }
        (self.asker, self.quiet) = (user, quiet);
        let (slice, mut changes, mut stuck) = (self.slice(), Vec::new(), false);
        let last = loop {
            let mut plan = Plan::default();
            let last = self.ledger.release_some(holder.as_ref(), after, PART, &mut plan);
            self.narrow(&mut plan, now);
            let mut prefixes: Vec<IpNet> =
                plan.ended.iter().map(|ended| ended.claim.prefix).collect();
            prefixes.dedup();
            changes.extend(prefixes.iter().map(|prefix| self.released(*prefix, 1, now)));
            self.flush = true;
            stuck |= self.commit(plan, Vec::new(), None, now);
            if last.is_none() || slice.is_over() {
                break last;
            }
            after = last;
        };
        (self.asker, self.quiet) = (None, false);
        if last.is_none() {
            self.actions.end_flush();
        }
        let changes = Changes::new(changes, Vec::new());
        let trouble = stuck.then(|| self.not_in_kernel());
        let _ = reply.send(Ok(Released { changes, last, trouble }));
    }

    /// What was logged before an unban bans nobody after it, also if a crash has it read again.
    /// `None`: everybody.
    fn mark_unban(&mut self, unbanned: Vec<Option<IpNet>>, holder: Option<&Holder>, now: Now) {
        if unbanned.is_empty() {
            return;
        }
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
