//! Everything that can happen to the ledger, in one place.

use std::{sync::Arc, time::Instant};

use tokio::sync::oneshot;

use crate::{
    control::Call, jail::Sentence, metrics::Snapshot, protect::Surroundings, source::Position,
    store::Counted,
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
    /// Somebody wants to hear of dropped packets, or nobody does any more.
    Sample(bool),
    /// Somebody looks at the metrics.
    Survey(oneshot::Sender<Snapshot>),
    /// The CLI asks.
    Call(Call),
    /// Own addresses, gateways or SSH sessions changed.
    Surroundings(Surroundings),
    /// A network interface came, went or changed.
    Interfaces,
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT: end, and leave the bans enforced.
    Stop,
}

/// All jails have handled the lines of a source up to a position.
#[derive(Debug)]
pub(super) struct Handled {
    /// The source, and how far; `None` if it cannot go on where it was.
    pub(super) position: Option<(Arc<str>, Position)>,
    /// What the jails count since.
    pub(super) counted: Vec<Counted>,
}
