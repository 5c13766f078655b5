//! Who did what, for `history`: bans, ends before their time, and the operators' verbs.

use super::Engine;
use crate::{
    clock::Now,
    event::{Action, Event, What},
    ledger::Cause,
    net::IpNet,
    store::{Deed, Many},
};

impl Engine {
    /// What happened to claims. An end that was due is no deed: the ban says when it comes. What a long
    /// request did is one deed, whatever the number of its targets.
    pub(super) fn record(&mut self, events: &[Event]) {
        let by = self.asker.clone();
        if by.as_ref().is_some_and(|by| by.many != Many::No) {
            return;
        }
        for event in events {
            let What::Ban(ban) = &event.what else { continue };
            let what = match ban.action {
                Action::Ban => "ban",
                // of a jail's there may be one with every packet
                Action::Extend if by.is_some() => "extend",
                Action::Unban(Cause::Released) => "unban",
                Action::Unban(Cause::Allowed) => "allowed",
                Action::Unban(Cause::Evicted) => "evicted",
                Action::Extend | Action::Restore | Action::Unban(Cause::Expired) => continue,
            };
            let reason = ban.reason.as_deref().map(ToOwned::to_owned);
            self.store.deed(Deed {
                at: event.at,
                what: what.to_owned(),
                prefix: Some(ban.prefix),
                holder: ban.holder.to_string(),
                until: ban.until.filter(|_| !matches!(ban.action, Action::Unban(_))),
                failures: ban.failures.unwrap_or(0),
                reason: reason.or_else(|| self.why.clone()),
                by: by.clone(),
            });
        }
    }

    /// An operator's verb that is about no single address.
    pub(super) fn note(&mut self, what: &str, holder: Option<&str>, reason: Option<String>) {
        self.noted(what, None, holder, reason);
    }

    /// An operator's verb that is about an address, and bans nobody.
    pub(super) fn note_about(&mut self, what: &str, prefix: IpNet, reason: Option<String>) {
        self.noted(what, Some(prefix), None, reason);
    }

    fn noted(
        &mut self,
        what: &str,
        prefix: Option<IpNet>,
        holder: Option<&str>,
        reason: Option<String>,
    ) {
        self.store.deed(Deed {
            at: Now::read().wall,
            what: what.to_owned(),
            prefix,
            holder: holder.unwrap_or_default().to_owned(),
            until: None,
            failures: 0,
            reason,
            by: self.asker.clone(),
        });
    }
}
