//! The unix control socket: requests of the CLI, answered by the daemon.
//!
//! One request and one answer a connection, each a line of JSON; after the answer to a watch there
//! is one line for each event. The answers are the documents that `-o json` prints: their field
//! names are an interface.

mod access;
mod client;
mod conversation;
mod documents;
mod limits;
mod origin;
mod parts;
mod past;
mod request;
mod server;
mod watch;

pub use self::{
    access::Access,
    client::{CallError, Watch, call, call_within, pour, watch},
    conversation::{
        Asked, Call, Compare, Page, Queues, Release, Released, Roll, Rolled, Round, Stage,
    },
    documents::{
        ActionStatus, Axis, Ban, Change, Changes, Claim, Deed, Document, Drift, Events, Evidence,
        Fill, Held, History, Hold, HookStatus, Interface, JailStatus, Latency, List, Outcome,
        Refusal, Reply, Row, SCHEMA, Show, SourceStatus, Stats, Status, Stopped, Text, Trial,
        Verdict,
    },
    request::{Choice, Request, Steer, Term},
    server::{Server, ServerError},
};

/// Longest request; a block list of a million prefixes fits. One that is longer than
/// [`MAX_QUESTION`] is taken at a time, whoever sends it.
pub const MAX_REQUEST: u64 = 64 << 20;

/// Longest request of those who may only read.
pub const MAX_QUESTION: u64 = 64 << 10;
