//! `doctor`: where the kernel's maps differ from the ledger.

use serde::{Deserialize, Serialize};

/// Differences between the ledger and the kernel's maps; all zero unless something else wrote
/// into the maps, or a step failed and is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// [`SCHEMA`](super::SCHEMA).
    pub schema: u32,
    /// Bans that the kernel does not hold, or holds with another end.
    pub missing: usize,
    /// Entries of the kernel that no claim explains.
    pub surplus: usize,
    /// Steps that failed and are being retried.
    pub pending: usize,
}
