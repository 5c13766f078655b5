//! Does what an operator has ordered at run time: jails that ban nobody, and addresses that are never
//! dropped, for a while or until the order is taken back. The configuration stays what it is.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tokio::sync::oneshot;

use super::Engine;
use crate::{
    clock::Now,
    config::format_duration,
    control::{Refusal, Reply, Steer},
    event::{Event, Shown, What, escape},
    jail::Offence,
    ledger::Plan,
    net::{IpNet, parse_prefix},
    store::{Kind, Order},
};

/// The widest network that is allowed at run time, IPv4 and IPv6: more is a matter of the configuration.
const WIDEST: (u8, u8) = (8, 16);

/// All orders, and what jails did not do because of them.
#[derive(Debug, Default)]
pub(super) struct Orders {
    all: BTreeMap<(Kind, String), Order>,
    withheld: HashMap<Arc<str>, u64>,
}

impl Orders {
    /// Whom the operator allows beside the configuration.
    pub(super) fn allowed(&self) -> impl Iterator<Item = IpNet> {
        let allow = self.all.keys().filter(|(kind, _)| *kind == Kind::Allow);
        allow.filter_map(|(_, name)| parse_prefix(name).ok())
    }

    /// Why a jail bans nobody, if so. To be disabled says more than to run dry.
    pub(super) fn of(&self, jail: &str) -> Option<&Order> {
        if self.all.is_empty() {
            return None;
        }
        [Kind::Disable, Kind::DryRun]
            .iter()
            .find_map(|kind| self.all.get(&(*kind, jail.to_owned())))
    }

    /// Bans that a jail did not make since the agent's start, because it was ordered not to.
    pub(super) fn withheld(&self, jail: &str) -> u64 {
        self.withheld.get(jail).copied().unwrap_or(0)
    }

    /// For people.
    pub(super) fn shown(&self) -> Vec<Order> {
        let shown = |order: &Order| Order {
            name: escape(order.name.as_bytes()),
            reason: order.reason.as_ref().map(|reason| escape(reason.as_bytes())),
            ..order.clone()
        };
        self.all.values().map(shown).collect()
    }
}

impl Engine {
    /// Takes over what was ordered in an earlier run.
    pub(super) fn restore_orders(&mut self, now: Now) {
        let orders = self.store.orders().into_iter();
        self.orders.all = orders.map(|order| ((order.kind, order.name.clone()), order)).collect();
        self.end_orders(now);
    }

    /// Ends the orders whose time is up; the kernel follows.
    pub(super) fn look_at_orders(&mut self, now: Now) {
        if self.end_orders(now) {
            self.take_allowed(now);
        }
    }

    /// Ends the orders whose time is up; says whether somebody is allowed no more.
    fn end_orders(&mut self, now: Now) -> bool {
        let over = |order: &&Order| order.until.is_some_and(|until| until <= now.wall);
        let over: Vec<Order> = self.orders.all.values().filter(over).cloned().collect();
        for Order { kind, name, .. } in &over {
            log::info!("{} {}: its time is up", kind.word(), escape(name.as_bytes()));
            self.orders.all.remove(&(*kind, name.clone()));
            self.store.end_order(*kind, name);
        }
        over.iter().any(|order| order.kind == Kind::Allow)
    }

    /// Takes an order, or takes one back; answered once the store has it.
    pub(super) fn steer(&mut self, steer: Steer, reply: oneshot::Sender<Reply>, now: Now) {
        let answer = match self.steered(steer, now) {
            Ok(said) => Reply::text(said),
            Err(refusal) => Reply::Error(refusal),
        };
        let mut plan = Plan::default();
        self.set_guard(&mut plan);
        self.allow();
        self.commit(plan, Vec::new(), Some((reply, answer)), now);
    }

    fn steered(&mut self, steer: Steer, now: Now) -> Result<String, Refusal> {
        let Steer { kind, name, on, duration, reason } = steer;
        let name = match kind {
            Kind::Allow => allowable(&name)?,
            Kind::Disable | Kind::DryRun => {
                self.known_holder(&name)?;
                name
            }
        };
        let shown = match parse_prefix(&name) {
            Ok(prefix) if kind == Kind::Allow => Shown(prefix).to_string(),
            _ => escape(name.as_bytes()),
        };
        let mut former = false;
        // a jail is one or the other
        let others =
            if kind == Kind::Allow { vec![kind] } else { vec![Kind::Disable, Kind::DryRun] };
        for kind in others {
            former |= self.orders.all.remove(&(kind, name.clone())).is_some();
            self.store.end_order(kind, &name);
        }
        let verb = match (kind, on) {
            (Kind::Allow, true) => "allow",
            (Kind::Allow, false) => "disallow",
            (Kind::Disable, true) => "disable",
            (Kind::DryRun, true) => "dry-run",
            (_, false) => "enable",
        };
        if !on {
            if !former {
                let message = match kind {
                    Kind::Allow => format!("{shown} was not allowed at run time"),
                    _ => format!("the jail '{shown}' bans already, as far as it is up to orders"),
                };
                let hint = "what the configuration says stays: see [agent] allow, and `enabled`";
                return Err(Refusal { code: 1, message, hint: Some(hint.into()) });
            }
            self.note_order(verb, kind, &name, reason);
            return Ok(match kind {
                Kind::Allow => format!("{shown} can be banned again"),
                _ => format!("the jail '{shown}' bans again"),
            });
        }
        let until = duration.and_then(|time| now.wall.checked_add(time).ok());
        let by = self.asker.as_deref().cloned();
        let order =
            Order { kind, name: name.clone(), at: now.wall, until, reason: reason.clone(), by };
        self.store.order(order.clone());
        self.orders.all.insert((kind, name.clone()), order);
        self.note_order(verb, kind, &name, reason);
        let lasts = duration.map_or_else(
            || "until it is taken back".to_owned(),
            |time| format!("for {}", format_duration(time)),
        );
        Ok(match kind {
            Kind::Allow => format!("{shown} is not dropped {lasts}"),
            Kind::Disable => {
                format!("the jail '{shown}' bans nobody {lasts}; what it holds stays banned")
            }
            Kind::DryRun => {
                format!(
                    "the jail '{shown}' only counts whom it would ban, {lasts}; what it holds stays banned"
                )
            }
        })
    }

    fn note_order(&mut self, verb: &str, kind: Kind, name: &str, reason: Option<String>) {
        if kind == Kind::Allow
            && let Ok(prefix) = parse_prefix(name)
        {
            return self.note_about(verb, prefix, reason);
        }
        self.note(verb, Some(name), reason);
    }

    /// A jail wants a ban, and was ordered to make none.
    pub(super) fn withhold(
        &mut self,
        jail: &Arc<str>,
        offence: &Offence,
        now: Now,
        events: &mut Vec<Event>,
    ) -> bool {
        let Some(kind) = self.orders.of(jail).map(|order| order.kind) else { return false };
        *self.orders.withheld.entry(Arc::clone(jail)).or_default() += 1;
        if kind == Kind::DryRun {
            let (jail, prefix) = (Arc::clone(jail), offence.prefix);
            let reason = "the jail runs dry: it would be banned".to_owned();
            events.push(Event { at: now.wall, what: What::Refused { jail, prefix, reason } });
        }
        true
    }
}

/// An address or network that may be allowed at run time.
fn allowable(name: &str) -> Result<String, Refusal> {
    let refuse =
        |message: String, hint: &str| Refusal { code: 2, message, hint: Some(hint.into()) };
    let prefix = parse_prefix(name).map_err(|error| {
        refuse(error.to_string(), "nothing was changed; host names are not resolved")
    })?;
    let widest = if prefix.addr().is_ipv4() { WIDEST.0 } else { WIDEST.1 };
    if prefix.prefix_len() < widest {
        let message = format!("{prefix} is wider than a /{widest}");
        return Err(refuse(message, "name it in [agent] allow, if it is meant"));
    }
    Ok(prefix.trunc().to_string())
}
