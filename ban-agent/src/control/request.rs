//! What the CLI asks: one verb, with values that were parsed where they were written.

use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{net::Ports, store::import::Former};

/// What the CLI asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase")]
pub enum Request {
    /// Everything at a glance, or one jail.
    Status {
        /// Only this jail.
        jail: Option<String>,
    },
    /// The live bans.
    List {
        /// Only those that this jail holds.
        jail: Option<String>,
        /// At most so many.
        limit: Option<usize>,
    },
    /// Why an address is banned.
    Show {
        /// An address or a prefix.
        address: IpNet,
    },
    /// Bans by hand.
    Ban {
        /// Whom.
        targets: Vec<IpNet>,
        /// How long; `None`: the jail's bantime, or for ever.
        duration: Option<Term>,
        /// In the name of this jail instead of `manual`.
        jail: Option<String>,
        /// Its ports; empty: all traffic.
        ports: Ports,
        /// Kept as evidence.
        reason: Option<String>,
        /// Also what the never-ban list protects.
        force: bool,
    },
    /// Ends bans.
    Unban {
        /// Whom.
        targets: Vec<IpNet>,
        /// Everybody.
        all: bool,
        /// Only this jail's claims.
        jail: Option<String>,
    },
    /// Takes over what fail2ban remembers.
    Import {
        /// Read from its database. The core takes all `bans` for new: what is on record already is taken
        /// off at the socket's end.
        formers: Vec<Former>,
    },
    /// Reads the configuration again.
    Reload,
    /// Lets jails ban again that their breaker has stopped.
    Resume {
        /// Only this one.
        jail: Option<String>,
    },
    /// Ends a trial: the agent goes on enforcing, or does so again.
    Confirm {
        /// Only on a new trial, as long as this.
        again: Option<Duration>,
    },
    /// Events from now on: an answer, then a document a line until either side leaves.
    Watch {
        /// Each failure as well.
        failures: bool,
        /// Sampled dropped packets as well.
        drops: bool,
    },
    /// Compares the ledger with the kernel's maps.
    Drift,
    /// Takes the program off the interfaces, removes the pins, and ends the agent.
    Detach,
}

/// How long a ban by hand lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Term {
    /// It does not end.
    Forever,
    /// As long as this.
    For(Duration),
}

impl Request {
    /// The verb.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Request::Status { .. } => "status",
            Request::List { .. } => "list",
            Request::Show { .. } => "show",
            Request::Ban { .. } => "ban",
            Request::Unban { .. } => "unban",
            Request::Import { .. } => "import",
            Request::Reload => "reload",
            Request::Resume { .. } => "resume",
            Request::Confirm { .. } => "confirm",
            Request::Watch { .. } => "watch",
            Request::Drift => "doctor",
            Request::Detach => "detach",
        }
    }

    /// Whether it changes anything: only root and the operators may.
    #[must_use]
    pub fn changes(&self) -> bool {
        !matches!(
            self,
            Request::Status { .. }
                | Request::List { .. }
                | Request::Show { .. }
                | Request::Watch { .. }
                | Request::Drift
        )
    }
}
