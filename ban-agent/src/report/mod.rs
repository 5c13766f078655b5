//! Everything that leaves the agent, beside its answers: events for all listeners, messages of
//! hooks, commands of actions. Whatever a receiver does, no task waits for it: what it cannot take
//! is lost, counted, and shown.
//!
//! Events and hooks hear the same [`event::Bus`], which forgets the oldest for who falls behind. An
//! action has a queue of its own, which refuses the newest: an unban never overtakes its ban.

pub mod action;
mod delivery;
pub mod event;
pub mod hook;

pub use self::delivery::Deliveries;

/// Version of all documents: of events, messages and answers.
pub const SCHEMA: u32 = 1;
