//! What can go wrong on the kernel side, with what an operator needs to mend it.

use std::{io, path::PathBuf};

/// The kernel refuses, or the machine is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not enough rights for bpf(2).
    #[error("not permitted to {what}")]
    Permission {
        /// What was tried.
        what: &'static str,
    },
    /// The pin path lies on another file system.
    #[error("{path} is not on a BPF file system")]
    NoBpffs {
        /// The pin path.
        path: PathBuf,
    },
    /// Another agent owns the pins.
    #[error("another ban-agent is running on {path}")]
    Running {
        /// The pin path.
        path: PathBuf,
    },
    /// [`super::detach_by_force`] has taken everything off under this agent.
    #[error("everything was detached by force: no ban is enforced any more")]
    Detached,
    /// Pins of another version enforce bans.
    #[error("{path} belongs to another version of ban-agent, and is in force")]
    OtherVersion {
        /// Its folder.
        path: PathBuf,
    },
    /// No such network interface.
    #[error("no interface named '{name}'")]
    NoInterface {
        /// As configured.
        name: String,
        /// Those that exist.
        known: Vec<String>,
    },
    /// No interface was named and no interface leads to the outside.
    #[error("no interface is configured, and none has a default route or a global address")]
    NoDefaultRoute,
    /// More interfaces than the counters have rows.
    #[error("{count} interfaces are too many, at most {limit} can be protected")]
    TooManyInterfaces {
        /// Configured.
        count: usize,
        /// Possible.
        limit: u32,
    },
    /// Another XDP program sits on the interface.
    #[error("{interface} already runs the XDP program {owner}")]
    SlotTaken {
        /// The interface.
        interface: String,
        /// Name and id of the program.
        owner: String,
    },
    /// The driver has no native XDP, and generic was ruled out.
    #[error("the driver of {interface} refuses native XDP")]
    NoNative {
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nothing that we can read comes by it.
    #[error("frames of {interface} (link type {link_type}) cannot be read by the program")]
    LinkType {
        /// The interface.
        interface: String,
        /// `ARPHRD_*`.
        link_type: u16,
    },
    /// The kernel is too old.
    #[error("kernel {found} is too old, {needed} or later is needed")]
    OldKernel {
        /// Running.
        found: String,
        /// Needed.
        needed: &'static str,
    },
    /// The verifier rejected the program.
    #[error("the kernel rejects the program: {tail}")]
    Rejected {
        /// Its last useful lines.
        tail: String,
        /// All of them.
        log: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The embedded program cannot be loaded.
    #[error("cannot load the program")]
    Load {
        /// What aya said.
        source: Box<aya::EbpfError>,
    },
    /// A program step failed.
    #[error("cannot {what}")]
    Program {
        /// The step.
        what: &'static str,
        /// What aya said.
        source: Box<aya::programs::ProgramError>,
    },
    /// A map cannot be used.
    #[error("map {name}")]
    Map {
        /// Its name.
        name: &'static str,
        /// What aya said.
        source: Box<aya::maps::MapError>,
    },
    /// The object has no such map or program.
    #[error("the embedded object has no '{name}'")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// A pinned map is not what this agent expects.
    #[error(
        "map {name} has {entries} entries with keys of {key} and values of {value} bytes, which is \
         not this agent's layout"
    )]
    Layout {
        /// Its name.
        name: &'static str,
        /// Bytes.
        key: usize,
        /// Bytes.
        value: usize,
        /// How many.
        entries: u32,
    },
    /// Too many different port sets.
    #[error("more than {limit} different port sets are in use")]
    PortSets {
        /// How many there can be.
        limit: u32,
    },
    /// A map is full and nothing can be evicted.
    #[error("map {name} is full with {max} entries")]
    Full {
        /// Its name.
        name: &'static str,
        /// How many it holds.
        max: u32,
    },
    /// A test run's action does not fit what it counted: another one ran at the same time.
    #[error("the program said {action} and counted {counted:?}")]
    Judgement {
        /// `enum xdp_action`.
        action: u32,
        /// The row that grew.
        counted: Option<ban_common::Verdict>,
    },
    /// A system call failed.
    #[error("{call} on {on}")]
    Call {
        /// The call.
        call: &'static str,
        /// What it was called on.
        on: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// Returns a failed system call.
    pub(super) fn call(call: &'static str, on: impl Into<String>, source: io::Error) -> Error {
        Error::Call { call, on: on.into(), source }
    }

    /// Returns the remedy, where we know one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::Permission { .. } => {
                "run as root, or give the service CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON".into()
            }
            Error::NoBpffs { .. } => {
                "mount it: mount -t bpf bpf /sys/fs/bpf; or set [agent] pins to a path on it".into()
            }
            Error::Running { .. } => {
                "stop it first, or give this one its own [agent] pins and --socket".into()
            }
            Error::OtherVersion { .. } => {
                "run that version's `ban-agent detach`, or this one's: bans come back from the store"
                    .into()
            }
            Error::NoInterface { known, .. } => format!("there are: {}", known.join(", ")),
            Error::NoDefaultRoute => "name one: ban-agent run -i IFACE, or [agent] interfaces".into(),
            Error::SlotTaken { interface, .. } => format!(
                "run with --replace to take its place, or remove it: ip link set dev {interface} xdp off"
            ),
            Error::NoNative { .. } => "use --mode auto or --mode generic".into(),
            Error::LinkType { interface, .. } => format!(
                "protect the interface below {interface}, by which its packets arrive, and say \
                 [agent] unprotected = [\"{interface}\"]"
            ),
            Error::OldKernel { .. } => "boot a newer kernel".into(),
            Error::Rejected { .. } => {
                "run again with -v for the verifier's whole log, and report it".into()
            }
            Error::Layout { .. } => {
                "pins of another version: ban-agent detach removes them (bans come back from the store)"
                    .into()
            }
            Error::Full { .. } => "raise [agent] max_bans".into(),
            Error::TooManyInterfaces { .. }
            | Error::Load { .. }
            | Error::Program { .. }
            | Error::Map { .. }
            | Error::Missing { .. }
            | Error::Detached
            | Error::Judgement { .. }
            | Error::PortSets { .. }
            | Error::Call { .. } => return None,
        })
    }

    /// Returns whether the exit code should say "not permitted".
    #[must_use]
    pub fn is_permission(&self) -> bool {
        match self {
            Error::Permission { .. } => true,
            Error::Call { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lacks_rights_says_so_to_the_shell() {
        let call = |kind| Error::call("attach", "eth0", io::Error::from(kind));
        assert!(Error::Permission { what: "load a program" }.is_permission());
        assert!(call(io::ErrorKind::PermissionDenied).is_permission());
        assert!(!call(io::ErrorKind::NotFound).is_permission());
        assert_eq!(call(io::ErrorKind::NotFound).to_string(), "attach on eth0");
    }

    #[test]
    fn a_remedy_names_the_interface_at_hand() {
        let known = vec!["lo".to_owned(), "eth0".to_owned()];
        let hint = |error: Error| error.hint().unwrap();
        assert_eq!(hint(Error::NoInterface { name: "eth9".into(), known }), "there are: lo, eth0");
        let taken = Error::SlotTaken { interface: "eth0".into(), owner: "with id 7".into() };
        assert!(hint(taken).contains("ip link set dev eth0 xdp off"));
        let tunnel = Error::LinkType { interface: "ib0".into(), link_type: 32 };
        assert!(hint(tunnel).contains("unprotected = [\"ib0\"]"));
        assert_eq!(Error::Detached.hint(), None);
    }
}
