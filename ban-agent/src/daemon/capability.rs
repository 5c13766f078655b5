//! Lets go of every capability that a running agent does not need: who finds a hole in a log
//! parser finds little behind it.

use rustix::thread::{
    CapabilitySet, capabilities, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

/// The maps and the program, also where an interface comes back; every log; and a syslog socket on
/// a port below 1024, where that was granted.
const NEEDED: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// Whose sockets are sshd's.
const HELPER: CapabilitySet = CapabilitySet::SYS_PTRACE.union(CapabilitySet::DAC_READ_SEARCH);

/// Limits the calling thread, and those that it starts from now on; whoever was not granted
/// something does not get it. Commands of the operator may need what the agent does not: if there
/// are `commands`, a program that it runs as root has all rights of root again, unless the agent's
/// own start took them away, as its unit does.
pub fn limit(commands: bool) {
    if !commands {
        keep(NEEDED);
    }
    hold(NEEDED);
}

/// Takes everything from the calling thread: it uses what is open already.
pub fn drop_all() {
    keep(CapabilitySet::empty());
    hold(CapabilitySet::empty());
}

/// Limits the helper that looks at the sessions of sshd.
pub fn limit_helper() {
    keep(HELPER);
    hold(HELPER);
}

/// Nothing else can be had again, by no program that is run.
fn keep(wanted: CapabilitySet) {
    for capability in CapabilitySet::all().difference(wanted).iter() {
        // refused where it takes a right that was not granted: the unit has done it then
        let _ = remove_capability_from_bounding_set(capability);
    }
    if let Err(error) = set_no_new_privs(true) {
        log::warn!("cannot do without new privileges: {error}");
    }
}

fn hold(wanted: CapabilitySet) {
    let limited = capabilities(None).and_then(|mut sets| {
        sets.effective &= wanted;
        sets.permitted &= wanted;
        sets.inheritable = CapabilitySet::empty();
        set_capabilities(None, sets)
    });
    if let Err(error) = limited {
        log::warn!("cannot let go of capabilities: {error}");
    }
}
