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
    /// What is run besides, when it bans or lets go.
    pub actions: Vec<Arc<action::Spec>>,
}
