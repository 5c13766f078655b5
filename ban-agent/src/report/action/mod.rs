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

use ban_core::jail::Offence;
use jiff::Timestamp;

pub use self::{
    ask::{Answers, ask, question},
    queue::{Action, Job, Order},
};
use crate::{
    filter::Failure,
    ledger::Holder,
    net::{self, IpNet},
    store::{self, Evidence},
};

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
    /// No address is banned any more, in place of `unban` for each.
    pub flush: String,
}

impl Spec {
    /// Returns what is run for addresses of this family.
    #[must_use]
    pub fn commands(&self, family: Family) -> &Commands {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// Returns whether the end of a ban, or a later one, is told with more than whom it is about.
    #[must_use]
    pub fn looks_back(&self) -> bool {
        let commands = [&self.v4, &self.v6].into_iter().flat_map(|all| [&all.prolong, &all.unban]);
        commands.into_iter().any(|command| asks_more(command, &[]))
    }

    /// Returns whether a command that tells of a ban says why, or which one it is.
    #[must_use]
    pub fn tells_why(&self) -> bool {
        let rest = ["<time>", "<bantime>", "<restored>"];
        [&self.v4, &self.v6].into_iter().any(|all| asks_more(&all.ban, &rest))
    }

    /// Returns whether a command that tells of a ban mentions this tag.
    #[must_use]
    pub fn mentions(&self, tag: &str) -> bool {
        let tag = format!("<{tag}>");
        [&self.v4, &self.v6]
            .into_iter()
            .flat_map(|commands| [&commands.ban, &commands.prolong, &commands.unban])
            .any(|command| command.contains(&tag))
    }
}

/// Returns whether a command has other tags than those of whom it is about, and these.
fn asks_more(command: &str, these: &[&str]) -> bool {
    let whom = ["<ip>", "<fid>", "<F-ID>", "<family>", "<ip-rev>", "<ip-host>"];
    let known = whom.iter().chain(these);
    known.fold(command.to_owned(), |rest, tag| rest.replace(tag, "")).contains('<')
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
    /// Whom it is about; `None` for commands that are about no address.
    pub prefix: Option<IpNet>,
    /// When, by the wall clock.
    pub time: Timestamp,
    /// How long; `None`: for ever.
    pub bantime: Option<Duration>,
    /// Failures that led to it.
    pub failures: u32,
    /// Which ban of the address this is, from 1 on; 0: it is none yet.
    pub bancount: u32,
    /// Lines that led to it, as an attacker wrote them.
    pub matches: Vec<Box<[u8]>>,
    /// Fields of the last failure, as an attacker wrote them.
    pub fields: BTreeMap<String, String>,
    /// Why the address was banned before.
    pub past: Past,
    /// The ban was made by an earlier run of the agent.
    pub restored: bool,
    /// The ban has ended, and when and for how long it was is known from the past alone.
    pub ended: bool,
}

impl Ticket {
    /// Returns what is known of an offence before it is a ban.
    #[must_use]
    pub fn of(offence: &Offence) -> Ticket {
        Ticket {
            prefix: Some(offence.address),
            time: offence.time,
            bantime: offence.duration,
            failures: offence.failures,
            matches: offence.evidence.clone(),
            fields: offence.fields.clone(),
            ..Ticket::default()
        }
    }

    /// Returns what is known of a failure before it counts.
    #[must_use]
    pub fn of_failure(failure: &Failure, line: &[u8]) -> Ticket {
        let mut fields = failure.fields.clone();
        fields.extend(failure.id.iter().map(|id| ("fid".to_owned(), id.clone())));
        Ticket {
            prefix: failure.address.map(net::host),
            time: failure.time.unwrap_or_else(Timestamp::now),
            failures: 1,
            matches: vec![line.into()],
            fields,
            ..Ticket::default()
        }
    }
}

/// Why an address was banned before. The store tells before the ban is reported; if its disk does not
/// answer, nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Who bans it now.
    pub holder: Option<Holder>,
    /// By all.
    pub evidence: store::Past,
}

/// Whose bans count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// Those of the jail that bans now.
    Jail,
    /// All.
    All,
}

impl Past {
    fn of(&self, whose: Of) -> impl Iterator<Item = &Evidence> {
        let all = self.evidence.get().map(Vec::as_slice).unwrap_or_default().iter();
        let holder = self.holder.as_ref();
        all.filter(move |evidence| whose == Of::All || Some(&evidence.holder) == holder)
    }

    /// The same without the lines.
    fn shortened(&self) -> Past {
        let all =
            self.of(Of::All).map(|evidence| Evidence { lines: Vec::new(), ..evidence.clone() });
        let all: Vec<Evidence> = all.collect();
        Past { holder: self.holder.clone(), evidence: Arc::new(all.into()) }
    }
}

impl Ticket {
    /// For a command that is about no address.
    fn nobody() -> Ticket {
        Ticket { time: Timestamp::now(), ..Ticket::default() }
    }

    /// Returns what is on record of this ban, if an earlier run of the agent made it.
    fn recorded(&self) -> Option<&Evidence> {
        (self.ended || self.restored).then(|| self.past.of(Of::Jail).last()).flatten()
    }

    /// Failures that are known, those of this ban included.
    fn failures(&self, of: Of) -> u32 {
        let before = self.past.of(of).map(|evidence| evidence.failures);
        before.fold(self.failures, u32::saturating_add)
    }

    /// Returns their lines.
    fn lines(&self, of: Of) -> impl Iterator<Item = &[u8]> {
        let before = self.past.of(of).flat_map(|evidence| &evidence.lines).map(Vec::as_slice);
        before.chain(self.matches.iter().map(|line| &**line))
    }

    /// Returns the family of its address.
    #[must_use]
    pub fn family(&self) -> Family {
        match self.prefix.map(|prefix| prefix.addr()) {
            Some(IpAddr::V6(_)) => Family::V6,
            _ => Family::V4,
        }
    }
}
