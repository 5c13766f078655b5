//! What the world is told, in types and in words. A sentence here acts on no terminal.

use std::{fmt, net::IpAddr, sync::Arc};

use jiff::Timestamp;

use super::escape;
use crate::{
    alarm::Alarm,
    clock::Now,
    ledger::{Cause, Change, Claim, Holder},
    net::IpNet,
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When, by the wall clock.
    pub at: Timestamp,
    /// What.
    pub what: What,
}

impl Event {
    /// Returns what happened to `claim`.
    #[must_use]
    pub fn of(action: Action, claim: &Claim, now: Now) -> Event {
        let what = What::Ban(Ban {
            action,
            holder: claim.holder.clone(),
            prefix: claim.prefix,
            until: now.wall_of(claim.until),
            failures: None,
            reason: None,
            by: None,
        });
        Event { at: now.wall, what }
    }
}

/// Everything that the world is told.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A claim began, changed or ended.
    Ban(Ban),
    /// A line was a failure of this address.
    Found {
        /// The jail.
        jail: Arc<str>,
        /// Whose.
        address: IpNet,
        /// When, by its line.
        time: Timestamp,
    },
    /// A jail wanted a ban and may not have it.
    Refused {
        /// The jail.
        jail: Arc<str>,
        /// Whom.
        prefix: IpNet,
        /// Why not.
        reason: String,
    },
    /// A breaker stopped a jail.
    Stopped {
        /// The jail.
        jail: Arc<str>,
        /// What it did.
        reason: String,
    },
    /// The operator lets it go on.
    Resumed {
        /// The jail.
        jail: Arc<str>,
    },
    /// Something is wrong.
    AlarmBegun(Alarm),
    /// It is right again.
    AlarmEnded(Alarm),
    /// An interface is not there any more.
    InterfaceLost {
        /// Its name.
        name: String,
    },
    /// An interface is back, and protected.
    InterfaceAttached {
        /// Its name.
        name: String,
    },
    /// A packet of a banned source, one out of many.
    Dropped(Dropped),
}

/// What happened to a claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Ban {
    /// What.
    pub action: Action,
    /// In whose name.
    pub holder: Holder,
    /// To whom.
    pub prefix: IpNet,
    /// The claim's end; `None`: permanent, or over.
    pub until: Option<Timestamp>,
    /// How many failures led to it.
    pub failures: Option<u32>,
    /// Why, in the operator's words.
    pub reason: Option<Arc<str>>,
    /// User id of the operator who asked for it.
    pub by: Option<u32>,
}

/// What happened; shown as fail2ban names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A claim began.
    Ban,
    /// A claim became longer.
    Extend,
    /// A claim of an earlier run goes on.
    Restore,
    /// A claim ended.
    Unban(Cause),
}

impl Action {
    /// Returns what the world is told of a change; `None`: nothing changed.
    #[must_use]
    pub fn of(change: &Change) -> Option<Action> {
        match change {
            Change::New | Change::Joined => Some(Action::Ban),
            Change::Extended => Some(Action::Extend),
            Change::Unchanged(_) | Change::Over | Change::Refused(_) => None,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Ban | Action::Extend => "Ban",
            Action::Restore => "Restore Ban",
            Action::Unban(_) => "Unban",
        })
    }
}

/// A sampled drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The source.
    pub address: IpAddr,
    /// Name of the interface that received it.
    pub interface: String,
    /// Bytes, from the Ethernet header on.
    pub length: u32,
    /// IP protocol and destination port, if it has any.
    pub target: Option<(u8, u16)>,
    /// A dry run let it pass.
    pub dry_run: bool,
}

impl What {
    /// Returns whom it is about, if it is about an address.
    pub(super) fn address(&self) -> Option<IpAddr> {
        match self {
            What::Ban(Ban { prefix, .. }) | What::Refused { prefix, .. } => Some(prefix.addr()),
            What::Found { address, .. } => Some(address.addr()),
            What::Dropped(dropped) => Some(dropped.address),
            _ => None,
        }
    }
}

impl Event {
    /// Of now.
    #[must_use]
    pub fn now(what: What) -> Event {
        Event { at: Timestamp::now(), what }
    }
}

/// A sentence for people; nothing in it acts on a terminal.
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Ban(ban) => ban.fmt(f),
            What::Found { jail, address, .. } => {
                write!(f, "[{}] a failure of {}", inert(jail), Shown(*address))
            }
            What::Refused { jail, prefix, reason } => {
                write!(f, "[{}] {} not banned: {}", inert(jail), Shown(*prefix), inert(reason))
            }
            What::Stopped { jail, reason } => {
                write!(f, "[{}] stopped banning: {}", inert(jail), inert(reason))
            }
            What::Resumed { jail } => write!(f, "[{}] bans again", inert(jail)),
            What::AlarmBegun(alarm) => {
                write!(f, "alarm {}: {}", alarm.name.word(), inert(&alarm.sentence()))
            }
            What::AlarmEnded(alarm) => {
                write!(f, "alarm {} is over: {}", alarm.name.word(), inert(&alarm.sentence()))
            }
            What::InterfaceLost { name } => write!(f, "{} is gone", inert(name)),
            What::InterfaceAttached { name } => write!(f, "{} is protected", inert(name)),
            What::Dropped(dropped) => dropped.fmt(f),
        }
    }
}

impl fmt::Display for Ban {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] ", inert(&self.holder.to_string()))?;
        let prefix = Shown(self.prefix);
        match self.action {
            Action::Ban => write!(f, "banned {prefix}"),
            Action::Extend => write!(f, "banned {prefix} for longer"),
            Action::Restore => write!(f, "goes on banning {prefix}"),
            Action::Unban(cause) => return write!(f, "unbanned {prefix}: {cause}"),
        }?;
        match self.until {
            Some(until) => write!(f, " until {until:.0}")?,
            None => f.write_str(" for ever")?,
        }
        if let Some(failures) = self.failures {
            write!(f, " after {failures} failures")?;
        }
        self.reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {}", inert(reason)))
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = if self.dry_run { "would drop" } else { "dropped" };
        write!(
            f,
            "{done} {} bytes of {} on {}",
            self.length,
            self.address,
            inert(&self.interface)
        )?;
        match self.target {
            Some((protocol, 0)) => write!(f, ", {}", transport(protocol)),
            Some((protocol, port)) => write!(f, ", to {}/{port}", transport(protocol)),
            None => Ok(()),
        }
    }
}

/// IANA's word for an IP protocol number, lower case.
pub(super) fn transport(protocol: u8) -> String {
    match protocol {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "ipv6-icmp".into(),
        132 => "sctp".into(),
        other => other.to_string(),
    }
}

pub(super) fn inert(text: &str) -> String {
    escape(text.as_bytes())
}

/// An address without its length, a prefix with it.
pub struct Shown(pub IpNet);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}
