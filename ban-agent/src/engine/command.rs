//! Everything that can happen to the ledger, in one place.

use std::{sync::Arc, time::Instant};

use tokio::sync::oneshot;

use crate::{
    control::{Asked, Call, Compare, Page, Release, Roll},
    jail::{Named, Offence},
    metrics::Snapshot,
    pipeline::acks::AckGuard,
    protect::HostNetwork,
};

/// What the core task is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// A jail wants a ban.
    Offence {
        /// The jail.
        jail: Arc<str>,
        /// The ban.
        offence: Offence,
        /// When the line was read that was one too many.
        read: Instant,
        /// Dropped once it is decided: until then its lines were not handled.
        ack: Option<Arc<AckGuard>>,
    },
    /// A jail counted too many failures of what is no address.
    Named {
        /// The jail.
        jail: Arc<str>,
        /// What, and why.
        named: Named,
        /// As for an address.
        ack: Option<Arc<AckGuard>>,
    },
    /// A listener wants to hear of dropped packets, or none does any more.
    Sample(bool),
    /// A client asks for the metrics.
    Survey(oneshot::Sender<Snapshot>),
    /// The CLI asks.
    Call(Call),
    /// Who is banned?
    Roll(Roll),
    /// More of some bans.
    Page(Page),
    /// Let go of some more.
    Release(Release),
    /// Where do some more differ from the kernel's?
    Compare(Compare),
    /// Own addresses, gateways or SSH sessions changed.
    HostNetwork(HostNetwork),
    /// A network interface came, went or changed.
    Interfaces,
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT: end, and leave the bans enforced.
    Stop,
}

impl From<Asked> for Command {
    fn from(asked: Asked) -> Command {
        match asked {
            Asked::Call(call) => Command::Call(call),
            Asked::Roll(roll) => Command::Roll(roll),
            Asked::Page(page) => Command::Page(page),
            Asked::Release(release) => Command::Release(release),
            Asked::Compare(compare) => Command::Compare(compare),
        }
    }
}
