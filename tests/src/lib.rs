//! What the rings of tests share.

pub mod net;
pub mod process;
