//! Messages to people and programs elsewhere: a webhook, or a command with JSON on its standard
//! input. Many events become one message, messages come no faster than configured, and whatever a
//! receiver does, nothing waits for it.

mod deliver;
mod gather;
mod message;
mod task;

use std::{fmt, sync::Arc, time::Duration};

pub use task::{Running, start};

use crate::event::{Action, What};

/// A hook, as the configuration resolved it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its name.
    pub name: Arc<str>,
    /// Where messages go.
    pub target: Target,
    /// What it is told.
    pub tell: Vec<Tell>,
    /// Only of these jails; empty: of all.
    pub jails: Vec<String>,
    /// Shortest time between two messages.
    pub every: Duration,
    /// How long a delivery may take.
    pub timeout: Duration,
}

/// Where messages go.
#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    /// A POST to this URL.
    Url {
        /// `http` or `https`; often a secret.
        url: String,
        /// What is posted.
        format: Format,
    },
    /// A program and its arguments; no shell.
    Command(Vec<String>),
}

/// Without the URL: who knows it may post.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Url { format, .. } => f.debug_tuple("Url").field(format).finish(),
            Target::Command(words) => f.debug_tuple("Command").field(words).finish(),
        }
    }
}

/// What is posted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `{"text": …}`, as Slack, Mattermost and their like take it.
    #[default]
    Slack,
    /// The events as ECS documents.
    Json,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tell {
    /// Claims that began or became longer; not those of an earlier run.
    Bans,
    /// Claims that ended.
    Unbans,
    /// The agent's own state: alarms, stopped jails, interfaces.
    Trouble,
}

impl Tell {
    /// All of them.
    pub const ALL: [Tell; 3] = [Tell::Bans, Tell::Unbans, Tell::Trouble];

    fn of(what: &What) -> Option<Tell> {
        match what {
            What::Ban(ban) => match ban.action {
                Action::Ban | Action::Extend => Some(Tell::Bans),
                Action::Unban(_) => Some(Tell::Unbans),
                Action::Restore => None,
            },
            What::Stopped { .. }
            | What::Resumed { .. }
            | What::AlarmBegun(_)
            | What::AlarmEnded(_)
            | What::InterfaceLost { .. }
            | What::InterfaceAttached { .. } => Some(Tell::Trouble),
            What::Found { .. } | What::Refused { .. } | What::Dropped(_) => None,
        }
    }
}

impl Spec {
    /// Returns whether it is told of this.
    #[must_use]
    pub fn wants(&self, what: &What) -> bool {
        let jail = match what {
            What::Ban(ban) => Some(ban.holder.to_string()),
            What::Stopped { jail, .. } | What::Resumed { jail } => Some(jail.to_string()),
            _ => None,
        };
        let of_ours = jail.is_none_or(|jail| self.jails.is_empty() || self.jails.contains(&jail));
        of_ours && Tell::of(what).is_some_and(|kind| self.tell.contains(&kind))
    }
}
