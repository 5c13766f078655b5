//! What the rings of tests share.

pub mod bench;
pub mod net;
pub mod packet;
pub mod privilege;
pub mod process;
