//! `ban`: what the operator bans by hand.

use std::sync::Arc;

use crate::{
    clock::{Boot, Now},
    control::{self, Outcome, Refusal, Term},
    engine::Engine,
    event::{Action, Event, What},
    ledger::{self, Change, Claim, Plan},
    net::{IpNet, Ports},
};

/// The widest prefixes, IPv4 and IPv6, that are banned by hand without --force.
const WIDEST: (u8, u8) = (16, 32);
/// Reasons of bans by hand that are told again when one is prolonged.
const REASONS: usize = 4096;

impl Engine {
    pub(super) fn ban(
        &mut self,
        targets: &[IpNet],
        terms: &Terms,
        now: Now,
    ) -> Result<(Plan, Vec<Event>, Vec<control::Change>), Refusal> {
        let holder = self.holder(terms.jail.as_deref())?;
        let until = match (terms.duration, terms.jail.as_deref()) {
            (Some(Term::For(time)), _) => now.boot.after(time),
            (Some(Term::Forever), _) => Boot::NEVER,
            (None, jail) => self.bantime(jail, now),
        };
        let reason: Option<Arc<str>> = terms.reason.as_deref().map(Into::into);
        let (mut plan, mut events) = (Plan::default(), Vec::new());
        let mut changes = Vec::with_capacity(targets.len());
        // a reason is kept, of however many
        let (quiet, mut claims) = (self.quiet && reason.is_none(), Vec::new());
        for prefix in targets {
            if !plan.ended.is_empty() {
                // what has to make room for another is recorded before it is let go
                self.store.claims(&mut claims, now);
            }
            self.end_before(*prefix, &mut plan, &mut events, now);
            if !terms.force && is_wide(*prefix) {
                changes.push(too_wide(*prefix));
                continue;
            }
            let claim = Claim {
                prefix: *prefix,
                holder: holder.clone(),
                until,
                ports: terms.ports.clone(),
                derived: false,
            };
            let change = self.ledger.claim(&claim, terms.force, now.boot, &mut plan);
            let action = Action::of(&change);
            if let Some(action) = action {
                self.actions.tell_banned(&mut self.store, &claim, &change, None, now);
                self.count_ban(&claim, &change, now);
                if !quiet {
                    if change == Change::Extended && reason.is_none() {
                        // what was said of it still holds
                        self.store.claim(&claim, None, now);
                    } else {
                        self.store.manual(&claim, reason.as_deref(), now);
                    }
                    let mut event = Event::of(action, &claim, now);
                    if let What::Ban(ban) = &mut event.what {
                        ban.reason = self.reason(&claim, reason.as_ref());
                    }
                    events.push(event);
                }
            }
            let banned = action.is_some();
            changes.push(self.changed(&claim, &change, now));
            if quiet && banned {
                claims.push(claim);
            }
        }
        self.store.claims(&mut claims, now);
        if terms.force {
            self.allow();
        }
        Ok((plan, events, changes))
    }

    /// Returns why a claim by hand is there: as is said now, or was when it was made.
    fn reason(&mut self, claim: &Claim, said: Option<&Arc<str>>) -> Option<Arc<str>> {
        let key = (claim.prefix.trunc(), claim.holder.clone());
        let Some(said) = said else { return self.reasons.get(&key).cloned() };
        if self.reasons.len() < REASONS {
            self.reasons.insert(key, Arc::clone(said));
        }
        Some(Arc::clone(said))
    }

    pub(super) fn changed(&self, claim: &Claim, change: &Change, now: Now) -> control::Change {
        let (result, reason) = match change {
            Change::New => (Outcome::Banned, None),
            Change::Joined | Change::Extended => (Outcome::Extended, None),
            Change::Unchanged(_) => (Outcome::Unchanged, None),
            Change::Over => (Outcome::Refused, Some("its end is past".into())),
            Change::Refused(refusal @ ledger::Refusal::Full(_)) => {
                (Outcome::Full, Some(refusal.to_string()))
            }
            Change::Refused(refusal @ ledger::Refusal::Protected(..)) => {
                (Outcome::Refused, Some(format!("{refusal}; use --force to ban it anyway")))
            }
            Change::Refused(refusal) => (Outcome::Refused, Some(refusal.to_string())),
        };
        let until = match change {
            Change::New => now.wall_of(claim.until),
            _ => self.ledger.get(claim.prefix).and_then(|ban| now.wall_of(ban.until())),
        };
        control::Change { prefix: claim.prefix, result, until, reason }
    }

    fn bantime(&self, jail: Option<&str>, now: Now) -> Boot {
        let time = match jail {
            None => self.config.agent.manual_bantime,
            Some(jail) => self.pipeline.jail(jail).and_then(|spec| spec.rules.bantime),
        };
        match time {
            Some(time) => now.boot.after(time),
            None => Boot::NEVER,
        }
    }
}

/// Returns whether a ban by hand has to be meant: it is more than a slip of the hand should ban.
fn is_wide(prefix: IpNet) -> bool {
    prefix.prefix_len() < if matches!(prefix, IpNet::V4(_)) { WIDEST.0 } else { WIDEST.1 }
}

fn too_wide(prefix: IpNet) -> control::Change {
    let widest = if matches!(prefix, IpNet::V4(_)) { WIDEST.0 } else { WIDEST.1 };
    let reason = format!("it is wider than a /{widest}; use --force to ban it anyway");
    control::Change { prefix, result: Outcome::Refused, until: None, reason: Some(reason) }
}

/// How a ban by hand was asked for.
pub(super) struct Terms {
    pub(super) duration: Option<Term>,
    pub(super) jail: Option<String>,
    pub(super) ports: Ports,
    pub(super) reason: Option<String>,
    pub(super) force: bool,
}
