//! Answers the CLI: a file for each verb that has something to decide.

mod ban;
mod confirm;
mod detach;
mod drift;
mod import;
mod list;
mod reload;
mod resume;
mod show;
mod unban;

use tokio::sync::oneshot;

use self::ban::Terms;
pub(super) use self::detach::detach;
use super::Engine;
use crate::{
    clock::Now,
    control::{Call, Changes, Document, Refusal, Reply, Request},
    ledger::Holder,
    store::Many,
};

/// Names of jails that fail2ban runs and we enforce begin like this.
const FAIL2BAN: &str = "f2b-";
/// How near a jail's name has to be to be named.
const NEAR: usize = 3;

impl Engine {
    /// Answers one request; changes are answered once the store has them.
    pub(in crate::engine) fn answer(&mut self, call: Call, now: Now) {
        let Call { request, reply, user, more, quiet } = call;
        (self.asker, self.early, self.quiet) = (user, more, quiet);
        if let Some(Many::First(targets)) = self.asker.as_ref().map(|asker| asker.many) {
            let (jail, reason) = match &request {
                Request::Ban { jail, reason, .. } | Request::Unban { jail, reason, .. } => {
                    (jail.as_deref(), reason.as_deref())
                }
                _ => (None, None),
            };
            let many = format!("{targets} targets");
            let reason = reason.map_or_else(|| many.clone(), |reason| format!("{many}: {reason}"));
            self.note(request.name(), jail, Some(reason));
        }
        self.reply(request, reply, now);
        (self.asker, self.early, self.quiet) = (None, false, false);
        self.why = None;
    }

    fn reply(&mut self, request: Request, reply: oneshot::Sender<Reply>, now: Now) {
        let decided = match request {
            Request::Ban { targets, duration, jail, ports, reason, force } => {
                self.ban(&targets, &Terms { duration, jail, ports, reason, force }, now)
            }
            Request::Unban { targets, all: false, jail, reason } => {
                self.why = reason;
                let decided = self.unban(&targets, jail.as_deref(), now);
                decided.map(|(plan, changes)| (plan, Vec::new(), changes))
            }
            Request::Import { formers } => Ok(self.import(&formers, now)),
            Request::Steer(steer) => return self.steer(steer, reply, now),
            Request::Detach => {
                self.note("detach", None, None);
                return self.detach(reply);
            }
            other => {
                let (what, changes) = (other.name(), other.changes());
                let jail = match &other {
                    Request::Resume { jail } => jail.clone(),
                    _ => None,
                };
                let answer = self.look(other, now);
                if changes && matches!(answer, Reply::Done(_)) {
                    self.note(what, jail.as_deref(), None);
                }
                // the asker may have gone
                let _ = reply.send(answer);
                return;
            }
        };
        match decided {
            Ok((plan, events, changes)) => {
                let alarms = if self.early { Vec::new() } else { self.alarms(now) };
                let changes = Changes::new(changes, alarms);
                let pending = (reply, Reply::Done(Document::Changes(changes)));
                self.commit(plan, events, Some(pending), now);
            }
            Err(refusal) => drop(reply.send(Reply::Error(refusal))),
        }
    }

    /// Answers what changes no ban.
    fn look(&mut self, request: Request, now: Now) -> Reply {
        match request {
            Request::Status { jail } => self.status(jail.as_deref(), now),
            Request::Show { address } => self.show(address, now),
            Request::Reload => self.reloaded(),
            Request::Confirm { again } => self.confirm(again, now),
            Request::Resume { jail } => self.resume(jail.as_deref()),
            // decided with what changes bans, or served by the socket's end
            Request::Ban { .. }
            | Request::Unban { .. }
            | Request::Import { .. }
            | Request::Detach
            | Request::Watch { .. }
            | Request::History(_)
            | Request::Steer(_)
            | Request::Stats { .. }
            | Request::Drift
            | Request::List(_) => Reply::text("sent over the socket only".into()),
        }
    }

    fn holder(&self, jail: Option<&str>) -> Result<Holder, Refusal> {
        let Some(name) = jail else { return Ok(Holder::Manual) };
        if self.pipeline.jail(name).is_some() {
            return Ok(Holder::named(name));
        }
        if name.strip_prefix(FAIL2BAN).is_some_and(|rest| !rest.is_empty() && rest.len() <= 64) {
            return Ok(Holder::named(name));
        }
        Err(self.no_jail(name))
    }

    /// Whether somebody may hold bans by this name: a jail, also one that is off or gone and left
    /// some, the operator, or a jail of fail2ban.
    pub(in crate::engine) fn known_holder(&self, name: &str) -> Result<(), Refusal> {
        let holder = Holder::named(name);
        let known = name == "manual"
            || name.starts_with(FAIL2BAN)
            || self.pipeline.jail(name).is_some()
            || self.config.disabled.iter().any(|off| off == name)
            || self.config.refused.iter().any(|refused| refused.part == format!("jail {name}"))
            || self.ledger.held().any(|(other, _)| *other == holder);
        if known { Ok(()) } else { Err(self.no_jail(name)) }
    }

    /// That there is no such jail, and which was meant perhaps.
    pub(in crate::engine) fn no_jail(&self, name: &str) -> Refusal {
        let known: Vec<&str> = self.pipeline.jails().map(|(spec, _)| &*spec.rules.name).collect();
        let near = known.iter().map(|jail| (strsim::damerau_levenshtein(jail, name), *jail));
        let hint = match near.min() {
            Some((distance, jail)) if distance <= NEAR.min(name.chars().count() / 2) => {
                format!("did you mean '{jail}'?")
            }
            _ => format!("running jails: {}", known.join(", ")),
        };
        Refusal { code: 2, message: format!("there is no jail '{name}'"), hint: Some(hint) }
    }
}
