//! Tells the world what happened: our log, and fail2ban's line format. Text from logs is escaped
//! here.

mod escape;
mod fail2ban;

use std::{fmt, path::PathBuf, sync::Arc};

pub use escape::escape;
use jiff::Timestamp;

use crate::{ledger::Holder, net::IpNet};

/// Something that happened to a ban.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What.
    pub action: Action,
    /// In whose name.
    pub holder: Holder,
    /// To whom.
    pub prefix: IpNet,
    /// The claim's end; `None`: permanent, or over.
    pub until: Option<Timestamp>,
}

/// What happened; the names are fail2ban's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A claim began, or became longer.
    Ban,
    /// A claim of an earlier run goes on.
    Restore,
    /// A claim ended or was lifted.
    Unban,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Ban => "Ban",
            Action::Restore => "Restore Ban",
            Action::Unban => "Unban",
        })
    }
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

/// Everybody who is told.
#[derive(Debug)]
pub struct Reporter {
    fail2ban: Option<fail2ban::LogFile>,
}

impl Reporter {
    /// Reports to the agent's log, and in fail2ban's line format to `fail2ban_log`.
    #[must_use]
    pub fn new(fail2ban_log: Option<PathBuf>) -> Reporter {
        Reporter { fail2ban: fail2ban_log.map(fail2ban::LogFile::new) }
    }

    /// Reports what was done; never fails, never blocks on more than a file's write.
    pub fn report(&mut self, events: &[Event]) {
        for event in events {
            let Event { action, holder, prefix, .. } = event;
            let holder: Arc<str> = holder.to_string().into();
            log::info!("[{}] {action} {}", escape(holder.as_bytes()), Shown(*prefix));
        }
        if let Some(file) = &mut self.fail2ban {
            file.write(events);
        }
    }
}
