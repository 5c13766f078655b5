//! Why the agent could not start, or had to end; with the exit code and the remedy.

use std::io;

use crate::{config, control::ServerError, dataplane, filter, metrics, protect, store};

/// Why the agent could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's side.
    #[error(transparent)]
    Kernel(#[from] dataplane::Error),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ServerError),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The port of the metrics.
    #[error(transparent)]
    Metrics(#[from] metrics::ServerError),
    /// Own addresses and gateways.
    #[error(transparent)]
    Protect(#[from] protect::Error),
    /// A reload.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A filter.
    #[error(transparent)]
    Filter(filter::Error),
    /// A timer or a signal handler.
    #[error("cannot {0}: {1}")]
    System(&'static str, io::Error),
}

impl Error {
    /// Returns the documented exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Error::Kernel(error) if error.is_permission() => 4,
            Error::Control(ServerError::Listen { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                4
            }
            Error::Config(_) | Error::Filter(_) => 78,
            // no start after this one would end otherwise
            Error::Store(
                store::Error::Newer { .. } | store::Error::Foreign(_) | store::Error::NotAFile(_),
            ) => 78,
            _ => 2,
        }
    }

    /// Returns what the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Kernel(error) => error.hint(),
            Error::Config(error) => error.hint(),
            Error::Control(ServerError::Busy(_)) => {
                Some("stop it first, or give this one its own --socket and [agent] pins".into())
            }
            Error::Control(ServerError::Occupied(_)) => {
                Some("name another place with --socket or [agent] socket".into())
            }
            Error::Control(ServerError::Group(_)) => {
                Some("create it with `groupadd --system NAME`, or drop [agent] socket_group".into())
            }
            Error::Control(ServerError::Operator(_)) => {
                Some("name a user of this machine, or a user id, in [agent] operators".into())
            }
            Error::Control(ServerError::Listen { .. }) => {
                Some("run as root, or name another place with --socket".into())
            }
            Error::Store(store::Error::Newer { .. }) => Some(
                "nothing was attached; run the later version again, or move the file away: the bans \
                 that the kernel holds stay"
                    .into(),
            ),
            Error::Store(_) => {
                Some("nothing was attached; name another file with [agent] state".into())
            }
            Error::Metrics(_) => {
                Some("name another port or socket with [metrics] listen, or leave it out".into())
            }
            Error::Protect(_) | Error::Filter(_) | Error::System(..) => None,
        }
    }
}
