//! Everything that can happen to the ledger, in one place.

use std::{collections::HashMap, sync::Arc, time::Instant};

use tokio::sync::oneshot;

use crate::{
    control::{Asked, Call, Page, Roll},
    jail::{Count, Named, Sentence},
    metrics::Snapshot,
    net::IpNet,
    protect::Surroundings,
    source::Position,
};

/// What the core task is told.
#[derive(Debug)]
pub(super) enum Message {
    /// A jail wants a ban.
    Sentence {
        /// The jail.
        jail: Arc<str>,
        /// The ban.
        sentence: Sentence,
        /// When the line was read that was one too many.
        read: Instant,
    },
    /// A jail counted too many failures of what is no address.
    Named {
        /// The jail.
        jail: Arc<str>,
        /// What, and why.
        named: Named,
    },
    /// Somebody wants to hear of dropped packets, or nobody does any more.
    Sample(bool),
    /// Somebody looks at the metrics.
    Survey(oneshot::Sender<Snapshot>),
    /// The CLI asks.
    Call(Call),
    /// Who is banned?
    Roll(Roll),
    /// More of some bans.
    Page(Page),
    /// Own addresses, gateways or SSH sessions changed.
    Surroundings(Surroundings),
    /// A network interface came, went or changed.
    Interfaces,
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT: end, and leave the bans enforced.
    Stop,
}

impl From<Asked> for Message {
    fn from(asked: Asked) -> Message {
        match asked {
            Asked::Call(call) => Message::Call(call),
            Asked::Roll(roll) => Message::Roll(roll),
            Asked::Page(page) => Message::Page(page),
        }
    }
}

/// All jails have handled the lines of a source up to a position.
#[derive(Debug, Default)]
pub(super) struct Handled {
    /// How far each log was read; none, if the source cannot go on where it was. `None`: the log is
    /// gone, and nobody goes on with it.
    pub(super) positions: HashMap<Arc<str>, Option<Position>>,
    /// What the jails count since; `None`: nothing any more.
    pub(super) counted: HashMap<(Arc<str>, IpNet), Option<Count>>,
}

impl Handled {
    /// What was handled after this.
    pub(super) fn add(&mut self, later: Handled) {
        self.positions.extend(later.positions);
        self.counted.extend(later.counted);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.positions.is_empty() && self.counted.is_empty()
    }
}
