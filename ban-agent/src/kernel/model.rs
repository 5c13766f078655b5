//! A plain model of the kernel's maps, for tests of the stages around it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Enforcer, Held, Hits, Sweep};
use crate::{
    clock::Now,
    ledger::{Enforced, Op},
    net::IpNet,
};

/// Holds what [`super::Xdp`] would hold, in memory.
#[derive(Debug, Default)]
pub struct Memory {
    /// The bans.
    pub bans: BTreeMap<IpNet, (Enforced, Hits)>,
    /// The allow list.
    pub allowed: BTreeSet<IpNet>,
    /// While not `None`, [`Enforcer::apply`] fails with this text.
    pub failing: Option<String>,
    /// How the clocks stood when ops were last applied.
    pub now: Option<Now>,
}

impl Enforcer for Memory {
    fn apply(&mut self, ops: &[Op], now: Now) -> anyhow::Result<()> {
        if let Some(text) = &self.failing {
            anyhow::bail!("{text}");
        }
        self.now = Some(now);
        for op in ops {
            match op {
                Op::Set(prefix, enforced) => {
                    let entry = self.bans.entry(*prefix);
                    let slot = entry.or_insert_with(|| (enforced.clone(), Hits::default()));
                    slot.0 = enforced.clone();
                }
                Op::Clear(prefix) => {
                    self.bans.remove(prefix);
                }
            }
        }
        Ok(())
    }

    fn hits(&mut self, prefixes: &[IpNet]) -> anyhow::Result<Vec<Hits>> {
        let hits = |prefix| self.bans.get(prefix).map_or_else(Hits::default, |(_, hits)| *hits);
        Ok(prefixes.iter().map(hits).collect())
    }

    fn each_held(&mut self, visit: &mut dyn FnMut(Held)) -> anyhow::Result<()> {
        let now = self.now.unwrap_or_else(Now::read);
        let held = self.bans.iter().map(|(prefix, (enforced, hits))| Held {
            prefix: *prefix,
            enforced: enforced.clone(),
            until: now.wall_of(enforced.all.max(enforced.scoped)),
            hits: *hits,
        });
        held.for_each(visit);
        Ok(())
    }

    fn sweep(&mut self, sweep: &mut Sweep, _: usize) -> anyhow::Result<Vec<IpNet>> {
        *sweep = Sweep::over();
        Ok(self.bans.keys().copied().collect())
    }

    fn allows(&mut self, prefixes: &[IpNet]) -> anyhow::Result<bool> {
        Ok(self.allowed == prefixes.iter().copied().collect())
    }

    fn allow(&mut self, prefixes: &[IpNet]) -> anyhow::Result<()> {
        self.allowed = prefixes.iter().copied().collect();
        Ok(())
    }
}
