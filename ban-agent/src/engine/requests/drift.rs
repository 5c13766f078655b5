//! `doctor` asks where the kernel's maps differ from the ledger.

use std::collections::HashSet;

use crate::{
    control::{Refusal, Round, Stage},
    dataplane::Sweep,
    engine::{Engine, chores::PART},
    net::IpNet,
};

impl Engine {
    /// One part of the comparison; it changes nothing but what is known of drift, at its end.
    pub(in crate::engine) fn compare_maps(&mut self, round: Round) -> Result<Round, Refusal> {
        let (slice, mut compared) = (self.slice(), self.compare_some(round));
        while let Ok(round) = compared
            && round.stage.is_some()
            && !slice.is_over()
        {
            compared = self.compare_some(round);
        }
        compared.map_err(|error| Refusal {
            code: 2,
            message: format!("cannot read the maps: {error:#}"),
            hint: None,
        })
    }

    fn compare_some(&mut self, mut round: Round) -> anyhow::Result<Round> {
        match round.stage {
            Some(Stage::Ledger(after)) => {
                let wanted: Vec<_> = self
                    .ledger
                    .after(after)
                    .take(PART)
                    .map(|ban| (ban.prefix, ban.enforced()))
                    .collect();
                let prefixes: Vec<IpNet> = wanted.iter().map(|(prefix, _)| *prefix).collect();
                let held = self.xdp.holds(&prefixes)?;
                let agrees = |((_, wanted), held): &(&(IpNet, _), &Option<_>)| {
                    held.as_ref().is_some_and(|held: &crate::ledger::Enforced| held.agrees(wanted))
                };
                round.missing += wanted.iter().zip(&held).filter(|pair| !agrees(pair)).count();
                round.stage = Some(match prefixes.last() {
                    Some(last) => Stage::Ledger(Some(*last)),
                    None => Stage::Maps(Sweep::default()),
                });
            }
            Some(Stage::Maps(mut sweep)) => {
                let held = self.xdp.sweep(&mut sweep, PART)?;
                round.surplus +=
                    held.iter().filter(|prefix| self.ledger.get(**prefix).is_none()).count();
                round.stage = (!sweep.is_over()).then_some(Stage::Maps(sweep));
            }
            None => {}
        }
        if round.stage.is_none() {
            round.pending = self.pending.len();
            // what waits for the kernel is an alarm of its own
            let waits = !self.pending.is_empty();
            let found = (round.missing, round.surplus);
            self.alarms.drift = if waits { Default::default() } else { found };
        }
        Ok(round)
    }

    /// Returns where the kernel does not hold what the ledger does. Little memory for each ban:
    /// there may be millions.
    pub(in crate::engine) fn differing(&mut self) -> anyhow::Result<Vec<IpNet>> {
        let (mut differing, mut known) = (Vec::new(), 0);
        let ledger = &self.ledger;
        self.xdp.each_held(&mut |held| {
            let ban = ledger.get(held.prefix);
            known += usize::from(ban.is_some());
            if ban.is_none_or(|ban| !held.enforced.agrees(&ban.enforced())) {
                differing.push(held.prefix);
            }
        })?;
        if known < self.ledger.len() {
            let held = self.held_prefixes()?;
            let missing = self.ledger.iter().map(|ban| ban.prefix);
            differing.extend(missing.filter(|prefix| !held.contains(prefix)));
        }
        Ok(differing)
    }

    pub(in crate::engine) fn held_prefixes(&mut self) -> anyhow::Result<HashSet<IpNet>> {
        let mut prefixes = HashSet::new();
        self.xdp.each_held(&mut |held| _ = prefixes.insert(held.prefix))?;
        Ok(prefixes)
    }
}
