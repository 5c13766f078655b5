//! `show`: why an address is banned.

use crate::{
    clock::Now,
    control::{Document, Reply, SCHEMA, Show},
    engine::Engine,
    event::Shown,
    ledger::Holder,
    net::IpNet,
};

impl Engine {
    pub(super) fn show(&mut self, address: IpNet, now: Now) -> Reply {
        let mut covering: Vec<IpNet> =
            self.ledger.covering(address).map(|ban| ban.prefix).collect();
        covering.reverse();
        let bans = match self.bans(&covering, now) {
            Ok(bans) => bans,
            Err(refusal) => return Reply::Error(refusal),
        };
        let protected =
            self.ledger.refusal(address, &Holder::Manual, false).map(|refusal| refusal.to_string());
        Reply::Done(Document::Show(Show {
            schema: SCHEMA,
            address: Shown(address).to_string(),
            banned: !bans.is_empty(),
            protected,
            trusted_by: self.ledger.trusting(address).map(ToString::to_string).collect(),
            bans,
            // the socket's end asks the disk
            evidence: Vec::new(),
            deeds: Vec::new(),
            history: 0,
            // the CLI asks for the list
            members: Vec::new(),
            inside: 0,
        }))
    }
}
