//! ban-agent: reads logs, decides who attacks, and has the network card's driver drop them.
//!
//! The modules are the stages of the pipeline in the order in which data flows; a stage may use
//! the data types of earlier stages, never their engines. `daemon` joins them.
#![deny(unsafe_code)]

pub use config::fail2ban;
pub use report::{action, event, hook};

pub use ban_core::{arithmetic, clock, duration, filter, ledger, net};

pub mod alarm;
mod children;
#[cfg(test)]
mod circles;
mod memory;
mod netlink;
mod socket;

pub mod control;
#[expect(unsafe_code, reason = "bpf(2), mmap(2) and the layouts that both sides share")]
pub mod dataplane;
pub mod jail;
pub mod metrics;
pub mod protect;
pub mod report;
pub mod source;
pub mod store;

pub mod cli;
pub mod config;
pub mod daemon;
mod engine;
mod pipeline;

#[cfg(test)]
#[expect(dead_code, unreachable_pub, reason = "the crate of the other rings uses all of it")]
#[path = "../../tests/src/patience.rs"]
mod patience;
