//! What the rings of tests share.

pub mod net;
pub mod packet;
pub mod privilege;
pub mod process;
