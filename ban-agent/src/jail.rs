//! A jail as the configuration resolved it: its rules, what it reads, and what it runs.

use std::sync::Arc;

pub use ban_core::jail::*;

use crate::{action, source};

/// A jail as the configuration resolved it.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// What it counts, and how it bans.
    pub rules: Rules,
    /// What it reads.
    pub sources: Vec<source::Spec>,
    /// Strangers can write whole lines there, and the operator takes that.
    pub raw_log: bool,
    /// What is run besides, when it bans or lets go.
    pub actions: Vec<Arc<action::Spec>>,
}
