//! `list`: who is banned, page by page.

use std::sync::Arc;

use crate::{
    clock::Now,
    control::{Ban, Held, List, Refusal, Rolled, SCHEMA},
    engine::Engine,
    ledger::Holder,
    net::IpNet,
};

/// Bans whose ends are told at once.
const ROLL: usize = 2048;

impl Engine {
    /// Who is banned; the socket's end puts them in order and asks for more of them, page by page.
    pub(in crate::engine) fn roll(
        &mut self,
        jail: Option<&str>,
        after: Option<IpNet>,
        now: Now,
    ) -> Result<Rolled, Refusal> {
        if let Some(name) = jail {
            self.known_holder(name)?;
        }
        let holder = jail.map(Holder::named);
        let (mut last, mut seen) = (None, 0);
        let some = self.ledger.after(after).take(ROLL).inspect(|ban| {
            last = Some(ban.prefix);
            seen += 1;
        });
        let held = some.filter(|ban| holder.as_ref().is_none_or(|holder| ban.is_held_by(holder)));
        let bans = held.map(|ban| (ban.until(), ban.prefix)).collect();
        let list = match after {
            Some(_) => None,
            None => {
                Some(List { schema: SCHEMA, total: 0, bans: Vec::new(), alarms: self.alarms(now) })
            }
        };
        Ok(Rolled { list, bans, last: last.filter(|_| seen == ROLL) })
    }

    /// The bans of exactly these prefixes, with their counters.
    pub(in crate::engine) fn page(
        &mut self,
        prefixes: &[IpNet],
        now: Now,
    ) -> Result<Vec<Held>, Refusal> {
        let hits = self.xdp.hits(prefixes).map_err(|error| Refusal {
            code: 2,
            message: format!("cannot read the maps: {error:#}"),
            hint: Some("`ban-agent doctor` tells more".into()),
        })?;
        let held = prefixes.iter().zip(hits).filter_map(|(prefix, hits)| {
            let ban = self.ledger.get(*prefix)?;
            let claims = ban.claims().map(|claim| {
                let extended = match &claim.holder {
                    Holder::Jail(jail) => self.looks.extended(&(claim.prefix, Arc::clone(jail))),
                    Holder::Manual => 0,
                };
                (claim, extended)
            });
            Some(Held { prefix: *prefix, claims: claims.collect(), hits, now })
        });
        Ok(held.collect())
    }

    /// The same as they are shown.
    pub(in crate::engine) fn bans(
        &mut self,
        prefixes: &[IpNet],
        now: Now,
    ) -> Result<Vec<Ban>, Refusal> {
        Ok(self.page(prefixes, now)?.into_iter().map(Ban::from).collect())
    }
}
