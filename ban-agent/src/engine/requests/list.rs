//! `list`: who is banned, page by page.

use std::sync::Arc;

use crate::{
    clock::Now,
    control::{self, Ban, List, Refusal, Rolled, SCHEMA},
    dataplane::Hits,
    engine::Engine,
    ledger::{self, Claim, Holder, Looks},
    net::{IpNet, Ports},
};

impl Engine {
    /// Who is banned; the socket's end puts them in order and asks for more of them, page by page.
    pub(in crate::engine) fn roll(
        &mut self,
        jail: Option<&str>,
        now: Now,
    ) -> Result<Rolled, Refusal> {
        if let Some(name) = jail {
            self.known_holder(name)?;
        }
        let holder = jail.map(Holder::named);
        let bans = self
            .ledger
            .iter()
            .filter(|ban| holder.as_ref().is_none_or(|holder| ban.is_held_by(holder)))
            .map(|ban| (ban.until(), ban.prefix))
            .collect();
        let alarms = self.alarms(now);
        Ok(Rolled { list: List { schema: SCHEMA, bans: Vec::new(), alarms }, bans })
    }

    /// The bans of exactly these prefixes, with their counters.
    pub(in crate::engine) fn bans(
        &mut self,
        prefixes: &[IpNet],
        now: Now,
    ) -> Result<Vec<Ban>, Refusal> {
        let hits = self.xdp.hits(prefixes).map_err(|error| Refusal {
            code: 2,
            message: format!("cannot read the maps: {error:#}"),
            hint: Some("`ban-agent doctor` tells more".into()),
        })?;
        Ok(prefixes
            .iter()
            .zip(hits)
            .filter_map(|(prefix, hits)| {
                Some(describe(self.ledger.get(*prefix)?, hits, &self.looks, now))
            })
            .collect())
    }
}

fn describe(ban: ledger::Ban<'_>, hits: Hits, looks: &Looks, now: Now) -> Ban {
    let claims: Vec<Claim> = ban.claims().collect();
    let mut ports = Ports::new();
    if claims.iter().all(|claim| !claim.ports.is_empty()) {
        ports = ban.enforced().ports;
    }
    Ban {
        address: ban.prefix.addr().to_string(),
        prefix: ban.prefix.prefix_len(),
        family: if matches!(ban.prefix, IpNet::V4(_)) { 4 } else { 6 },
        holders: claims
            .iter()
            .map(|claim| control::Claim {
                jail: claim.holder.to_string(),
                until: now.wall_of(claim.until),
                extended: match &claim.holder {
                    Holder::Jail(jail) => looks.extended(&(claim.prefix, Arc::clone(jail))),
                    Holder::Manual => 0,
                },
            })
            .collect(),
        until: now.wall_of(ban.until()),
        packets: hits.packets,
        bytes: hits.bytes,
        ports,
    }
}
