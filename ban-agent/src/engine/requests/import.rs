//! `import`: takes over what fail2ban remembers.

use std::sync::Arc;

use crate::{
    clock::{Boot, Now},
    control::Change,
    engine::Engine,
    event::{Action, Event},
    ledger::{self, Claim, Holder, Plan},
    pipeline::OwnBan,
    store::import::Former,
};

impl Engine {
    /// History and evidence of all, and the claims of those whose ban still runs. The socket's end has
    /// taken off the bans that were taken over before.
    pub(super) fn import(
        &mut self,
        formers: &[Former],
        now: Now,
    ) -> (Plan, Vec<Event>, Vec<Change>) {
        let (mut plan, mut events, mut changes) = (Plan::default(), Vec::new(), Vec::new());
        let mut past = Vec::new();
        for former in formers {
            self.end_before(former.prefix, &mut plan, &mut events, now);
            self.store.former(former);
            let jail: Arc<str> = former.jail.as_str().into();
            let more = usize::try_from(former.bans).unwrap_or(usize::MAX);
            let newest = former.times.iter().rev().take(more);
            past.extend(newest.map(|at| OwnBan {
                at: *at,
                jail: Arc::clone(&jail),
                prefix: former.prefix,
            }));
            let until = former.until.map_or(Boot::NEVER, |until| now.boot_of(until));
            if until <= now.boot {
                continue;
            }
            let holder = Holder::named(&former.jail);
            // as wide as the jail would ban; fail2ban's database does not tell
            let ports = self.pipeline.jail(&former.jail).map(|spec| spec.rules.ports.clone());
            let ports = ports.unwrap_or_default();
            let claim = Claim { prefix: former.prefix, holder, until, ports, derived: false };
            let change = self.ledger.claim(&claim, false, now.boot, &mut plan);
            if matches!(
                change,
                ledger::Change::New | ledger::Change::Joined | ledger::Change::Extended
            ) {
                self.actions.tell_restored(&mut self.store, &claim, now);
                self.store.claim(&claim, None, now);
                events.push(Event::of(Action::Restore, &claim, now));
            }
            changes.push(self.changed(&claim, &change, now));
        }
        self.pipeline.tell_bans(past);
        (plan, events, changes)
    }
}
