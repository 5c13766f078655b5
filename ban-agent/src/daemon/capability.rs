//! Lets go of every capability that a running agent does not need: who finds a hole in a log
//! parser finds little behind it.

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// The maps and the program, also where an interface comes back; every log; whose sockets are
/// sshd's; and a syslog socket on a port below 1024, where that was granted.
const NEEDED: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// Limits the calling thread, and those that it starts from now on; whoever was not granted
/// something does not get it.
pub fn limit() {
    let limited = capabilities(None).and_then(|mut sets| {
        sets.effective &= NEEDED;
        sets.permitted &= NEEDED;
        sets.inheritable = CapabilitySet::empty();
        set_capabilities(None, sets)
    });
    if let Err(error) = limited {
        log::warn!("cannot let go of capabilities: {error}");
    }
}
