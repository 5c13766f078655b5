//! The answers of the agent, as `-o json` prints them: a file for each verb, field names that are an
//! interface. Data only.

mod changes;
mod drift;
mod history;
mod list;
mod show;
mod status;

use serde::{Deserialize, Serialize};

pub use self::{
    changes::{Change, Changes, Outcome},
    drift::Drift,
    history::{Axis, Deed, History, Row, Stats},
    list::{Ban, Claim, Held, List},
    show::{Evidence, Show},
    status::{
        ActionStatus, Events, Fill, Hold, HookStatus, Interface, JailStatus, Latency, SourceStatus,
        Status, Stopped, Trial, Verdict,
    },
};

pub use crate::report::SCHEMA;

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// The document for `-o json`.
    Done(Document),
    /// Why not.
    Error(Refusal),
}

impl Reply {
    /// Something was done, in a sentence.
    #[must_use]
    pub fn text(message: String) -> Reply {
        Reply::Done(Document::Text(Text { schema: SCHEMA, message }))
    }
}

/// A request that could not be served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The exit code of the CLI.
    pub code: u8,
    /// The cause.
    pub message: String,
    /// The remedy.
    pub hint: Option<String>,
}

/// The documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Document {
    /// Answers [`super::Request::Status`].
    Status(Box<Status>),
    /// Answers [`super::Request::List`].
    List(List),
    /// Answers [`super::Request::Show`].
    Show(Show),
    /// Answers [`super::Request::Ban`] and [`super::Request::Unban`].
    Changes(Changes),
    /// Answers [`super::Request::Drift`].
    Drift(Drift),
    /// Answers [`super::Request::History`].
    History(History),
    /// Answers [`super::Request::Stats`].
    Stats(Stats),
    /// Answers the others.
    Text(Text),
}

/// A sentence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Text {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What was done.
    pub message: String,
}
