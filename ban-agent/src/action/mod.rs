//! Runs an operator's commands when an address is banned or let go: mails, reports to a service,
//! bans elsewhere. Knows commands, tags and processes; nothing of why an address is banned, and
//! whatever a command does or fails to do, no ban waits for it.

mod ask;
mod queue;
mod runner;
mod shell;
mod tags;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use jiff::Timestamp;

pub use self::{
    ask::{Answers, ask},
    queue::{Action, Job, Order, Stats},
};
use crate::net::IpNet;

/// How long a command may take unless its action says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// An action of a jail, as the configuration resolved it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its name, unique within the jail.
    pub name: Arc<str>,
    /// What is run for IPv4 addresses.
    pub v4: Commands,
    /// What is run for IPv6 addresses.
    pub v6: Commands,
    /// `start` waits for the first ban of its family.
    pub on_demand: bool,
    /// A command that runs longer is killed.
    pub timeout: Duration,
    /// Bans of an earlier run of the agent are not told again.
    pub norestored: bool,
    /// An `unban` that failed may repair as a `ban` does.
    pub repair_on_unban: bool,
}

/// Shell commands with tags; an empty one is not run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// Before the first ban.
    pub start: String,
    /// When the jail ends.
    pub stop: String,
    /// When the configuration was read again and the action stayed.
    pub reload: String,
    /// After a command that failed: is the environment sound?
    pub check: String,
    /// It is not: this mends it; without it, `stop` and `start` do.
    pub repair: String,
    /// An address is banned.
    pub ban: String,
    /// Its ban became longer.
    pub prolong: String,
    /// It is banned no more.
    pub unban: String,
    /// Nobody is banned any more, in place of `unban` for each.
    pub flush: String,
}

impl Spec {
    /// What is run for addresses of this family.
    #[must_use]
    pub fn commands(&self, family: Family) -> &Commands {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// Whether a command that tells of a ban mentions this tag.
    #[must_use]
    pub fn mentions(&self, tag: &str) -> bool {
        let tag = format!("<{tag}>");
        [&self.v4, &self.v6]
            .into_iter()
            .flat_map(|commands| [&commands.ban, &commands.prolong, &commands.unban])
            .any(|command| command.contains(&tag))
    }
}

/// An address family, for commands that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `inet4`
    V4,
    /// `inet6`
    V6,
}

/// What the tags of a command stand for: one ban.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ticket {
    /// Who; `None` for commands that are about nobody.
    pub prefix: Option<IpNet>,
    /// When, by the wall clock.
    pub time: Timestamp,
    /// How long; `None`: for ever.
    pub bantime: Option<Duration>,
    /// Failures that led to it.
    pub failures: u32,
    /// Bans before this one.
    pub bancount: u32,
    /// Lines that led to it, as an attacker wrote them.
    pub matches: Vec<Box<[u8]>>,
    /// Fields of the last failure, as an attacker wrote them.
    pub fields: BTreeMap<String, String>,
    /// Lines and failures known of the address in this jail.
    pub in_jail: Known,
    /// Lines and failures known of the address in all jails.
    pub in_all: Known,
    /// The ban was made by an earlier run of the agent.
    pub restored: bool,
}

/// What is known of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Its lines.
    pub lines: Vec<Box<[u8]>>,
    /// Its failures.
    pub failures: u32,
}

impl Ticket {
    /// For a command that is about nobody.
    fn nobody() -> Ticket {
        Ticket { time: Timestamp::now(), ..Ticket::default() }
    }

    /// The family of its address.
    #[must_use]
    pub fn family(&self) -> Family {
        match self.prefix.map(|prefix| prefix.addr()) {
            Some(IpAddr::V6(_)) => Family::V6,
            _ => Family::V4,
        }
    }
}
