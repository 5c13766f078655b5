//! The namespaces, links, processes and pin folders of the crate `tests`, compiled here as well:
//! depending on that crate would build the agent before any verb can run.

#[expect(unreachable_pub, reason = "the tests use it from outside")]
#[path = "../../tests/src/net.rs"]
mod net;
#[expect(dead_code, unreachable_pub, reason = "the tests use all of it")]
#[path = "../../tests/src/patience.rs"]
mod patience;
#[expect(dead_code, unreachable_pub, reason = "the tests use all of it, the lab some")]
#[path = "../../tests/src/process.rs"]
mod process;

pub(crate) use net::{Namespace, join, run};
pub(crate) use process::{Pins, Process, eventually};
