//! `doctor` asks where the kernel's maps differ from the ledger.

use std::collections::HashSet;

use crate::{
    control::{Document, Drift, Refusal, Reply, SCHEMA},
    engine::Engine,
    net::IpNet,
};

impl Engine {
    pub(in crate::engine) fn drift(&mut self) -> Reply {
        let differing = match self.differing() {
            Ok(differing) => differing,
            Err(error) => {
                return Reply::Error(Refusal {
                    code: 2,
                    message: format!("cannot read the maps: {error:#}"),
                    hint: None,
                });
            }
        };
        let surplus = differing.iter().filter(|prefix| self.ledger.get(**prefix).is_none()).count();
        let missing = differing.len() - surplus;
        // what waits for the kernel is an alarm of its own
        self.alarms.drift =
            if self.pending.is_empty() { (missing, surplus) } else { Default::default() };
        Reply::Done(Document::Drift(Drift {
            schema: SCHEMA,
            missing,
            surplus,
            pending: self.pending.len(),
        }))
    }

    /// Where the kernel does not hold what the ledger does. Little memory for each ban: there may be
    /// millions.
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
