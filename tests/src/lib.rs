//! What the rings of tests share.

pub mod agent;
pub mod bench;
pub mod clock;
pub mod daemons;
pub mod frame;
pub mod guest;
pub mod host;
pub mod machine;
pub mod mmdb;
pub mod net;
pub mod ordeal;
pub mod packet;
pub mod patience;
pub mod privilege;
pub mod process;
pub mod random;
pub mod stage;
pub mod tun;
