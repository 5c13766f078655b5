//! Reads and checks the configuration; knows its words and defaults, does nothing with them.
//!
//! [`Config`] is the model, with two front ends: `toml` reads our own files, and [`fail2ban`] the
//! configuration of one that `[agent] fail2ban` names.

mod disk;
mod evidence;
pub mod fail2ban;
mod owner;
mod toml;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use self::toml::{Mode, Service, catalogue, export, shipped, socket};
pub use crate::duration::{BadDuration, format_duration, parse_duration};
pub use disk::Disk;

use crate::{
    event::Wanted,
    filter, hook, jail,
    metrics::Listen,
    net::{IpNet, Translators},
    protect::Servers,
};

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/ban-agent/config.toml";

/// Where the control socket is unless `--socket` says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/ban-agent/control.sock";

/// Why a configuration is not usable. The message names the file, the line and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A key or value is wrong.
    #[error("{}:{line}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line in it, from 1.
        line: usize,
        /// What is wrong.
        message: String,
        /// What to do, if we know.
        hint: Option<String>,
    },
    /// The fail2ban configuration that `[agent] fail2ban` names is wrong.
    #[error(transparent)]
    Fail2ban(Box<fail2ban::Error>),
    /// A part of ours cannot be used because another one makes no sense.
    #[error("{part}: {what}")]
    Part {
        /// The part.
        part: String,
        /// The other one.
        what: String,
    },
    /// One of its filters does not compile.
    #[error("{}: jail {jail}: {source}", folder.display())]
    Fail2banFilter {
        /// The fail2ban configuration.
        folder: PathBuf,
        /// The jail that uses the filter.
        jail: String,
        /// What is wrong with it.
        source: Box<filter::Error>,
    },
}

impl Error {
    /// Returns what the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Read { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
                Some(format!("create {} or name another file with --config", path.display()))
            }
            Error::Read { .. }
            | Error::Fail2ban(_)
            | Error::Fail2banFilter { .. }
            | Error::Part { .. } => None,
            Error::Invalid { hint, .. } => hint.clone().or_else(|| {
                Some("fix this line, then run `ban-agent check` again to see any others".into())
            }),
        }
    }
}

/// The `[agent]` section.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// Interfaces to protect; empty: all by which the outside reaches this host.
    pub interfaces: Vec<String>,
    /// Interfaces that lead to the outside and are left open on purpose.
    pub unprotected: Vec<String>,
    /// Native, generic, or native with a fallback.
    pub mode: Mode,
    /// The state database.
    pub state: PathBuf,
    /// Folder of the pins, on a bpffs.
    pub pins: PathBuf,
    /// Capacity of the ban maps, per family.
    pub max_bans: u32,
    /// Count what would be dropped, and pass it.
    pub dry_run: bool,
    /// Never banned, by any jail or user.
    pub allow: Vec<IpNet>,
    /// Who is never banned by a log line, besides what the kernel tells of.
    pub protect: Servers,
    /// What IPv6 addresses of translators stand for.
    pub translators: Translators,
    /// The control socket.
    pub socket: PathBuf,
    /// Group that may open the socket, to read; `None`: root only.
    pub socket_group: Option<String>,
    /// Users who may change things as well, beside root; `*`: all who may open it.
    pub operators: Vec<String>,
    /// A log file in fail2ban's line format, for pipelines that read one.
    pub fail2ban_log: Option<PathBuf>,
    /// A fail2ban configuration to load as well.
    pub fail2ban: Option<PathBuf>,
    /// The first start is on trial: unless it is confirmed so soon, nothing is enforced any more.
    pub grace: Option<Duration>,
    /// Commands of actions that may run at once.
    pub max_actions: u32,
    /// Age at which the store forgets history and evidence that no claim rests on.
    pub dbpurgeage: Duration,
    /// How long a jail's patterns may match nothing of lines that hold their words; `None`: for
    /// ever.
    pub unmatched_after: Option<Duration>,
    /// How long a ban by hand is unless it says so; `None`: for ever.
    pub manual_bantime: Option<Duration>,
}

impl Agent {
    /// `allow`, and what stands for its IPv4 prefixes behind a translator.
    #[must_use]
    pub fn allowed(&self) -> Vec<IpNet> {
        self.translators.expand(&self.allow)
    }
}

/// The `[events]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// A file of ECS documents, one a line.
    pub file: Option<PathBuf>,
    /// Also into the systemd journal.
    pub journal: bool,
    /// What file and journal get beside bans.
    pub include: Wanted,
    /// One dropped packet in about so many is told, while a client listens; 0: none.
    pub sample: u32,
}

/// A part of the configuration that makes no sense; the others do without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What it is: `jail sshd`.
    pub part: String,
    /// What is wrong with it, and where.
    pub why: String,
}

/// A configuration, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The `[agent]` section.
    pub agent: Agent,
    /// Where Prometheus finds the metrics; `None`: nowhere.
    pub metrics: Option<Listen>,
    /// The `[events]` section.
    pub events: Events,
    /// A MaxMind database of cities or countries.
    pub geoip: Option<PathBuf>,
    /// Messages to people and programs elsewhere, by name.
    pub hooks: Vec<hook::Spec>,
    /// The jails that run, by name.
    pub jails: Vec<Arc<jail::Spec>>,
    /// Jails that are left out because their log is raw, by name: where no address is banned they may
    /// be looked at.
    pub raw: Vec<Arc<jail::Spec>>,
    /// All filters, the shipped ones too.
    pub filters: BTreeMap<String, Arc<filter::Spec>>,
    /// Jails that are known and off.
    pub disabled: Vec<String>,
    /// What an operator should know, though it is no error.
    pub warnings: Vec<String>,
    /// What makes no sense and is left out; empty unless [`load_sound`] read it.
    pub refused: Vec<Refused>,
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
}

impl Config {
    /// Returns what differs from `former` and is looked at when the agent starts alone, in the
    /// words of the file: `[agent] interfaces`.
    #[must_use]
    pub fn waits_for_start(&self, former: &Config) -> Vec<String> {
        let (new, old) = (&self.agent, &former.agent);
        // every field is named, so that a new one is not forgotten
        let Agent {
            interfaces,
            unprotected,
            mode,
            state,
            pins,
            max_bans: _,
            dry_run,
            allow: _,
            protect: _,
            translators: _,
            socket,
            socket_group,
            operators: _,
            fail2ban_log,
            fail2ban: _,
            grace: _,
            max_actions,
            dbpurgeage: _,
            manual_bantime: _,
            unmatched_after: _,
        } = new;
        let events = (&self.events, &former.events);
        let mut keys: Vec<String> = [
            ("[agent] interfaces", *interfaces != old.interfaces),
            ("[agent] unprotected", *unprotected != old.unprotected),
            ("[agent] mode", *mode != old.mode),
            ("[agent] state", *state != old.state),
            ("[agent] pins", *pins != old.pins),
            ("[agent] dry_run", *dry_run != old.dry_run),
            ("[agent] socket", *socket != old.socket),
            ("[agent] socket_group", *socket_group != old.socket_group),
            ("[agent] fail2ban_log", *fail2ban_log != old.fail2ban_log),
            ("[agent] max_actions", *max_actions != old.max_actions),
            ("[metrics] listen", self.metrics != former.metrics),
            ("[events] file", events.0.file != events.1.file),
            ("[events] journal", events.0.journal != events.1.journal),
            ("[events] include", events.0.include != events.1.include),
            ("[geoip] database", self.geoip != former.geoip),
        ]
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(key, _)| key.to_owned())
        .collect();
        // the agent may not make it in another folder than it was told of at its start
        let folders = |config: &Config| -> BTreeSet<PathBuf> {
            config.heard().filter_map(|path| path.parent().map(Path::to_owned)).collect()
        };
        if !folders(self).is_subset(&folders(former)) {
            keys.push("syslog sockets in another folder".to_owned());
        }
        let differing = self.hooks.iter().filter(|hook| !former.hooks.contains(hook));
        let gone = |hook: &&hook::Spec| self.hooks.iter().all(|other| other.name != hook.name);
        let gone = former.hooks.iter().filter(gone);
        keys.extend(differing.chain(gone).map(|hook| format!("[hooks.{}]", hook.name)));
        keys
    }

    /// Returns the files, sockets and pins that the agent makes beside logs, with `agent` for its
    /// section.
    #[must_use]
    pub fn written(&self, agent: &Agent) -> Vec<PathBuf> {
        let metrics = match &self.metrics {
            Some(Listen::Unix(path)) => Some(path),
            Some(Listen::Tcp(_)) | None => None,
        };
        let own = [&agent.state, &agent.socket, &agent.pins].into_iter();
        let told = [agent.fail2ban_log.as_ref(), self.events.file.as_ref(), metrics];
        own.chain(told.into_iter().flatten()).cloned().chain(self.heard()).collect()
    }

    /// Returns the unix sockets of sources.
    fn heard(&self) -> impl Iterator<Item = PathBuf> {
        let sources = self.jails.iter().flat_map(|jail| &jail.sources);
        sources.filter_map(|source| source.socket()).map(PathBuf::from)
    }

    /// Returns whether the operator has commands run: actions, ignorecommand, hooks.
    #[must_use]
    pub fn runs_commands(&self) -> bool {
        let of_jail =
            |jail: &jail::Spec| !jail.actions.is_empty() || jail.rules.ignorecommand.is_some();
        let of_hook = |hook: &hook::Spec| matches!(hook.target, hook::Target::Command(_));
        self.jails.iter().any(|jail| of_jail(jail)) || self.hooks.iter().any(of_hook)
    }
}

/// Reads `path`, its `conf.d`, and what they refer to. Nothing is opened but configuration.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn load(path: &Path) -> Result<Config, Error> {
    let (config, faults) = load_sound(path)?;
    faults.into_iter().next().map_or(Ok(config), Err)
}

/// As [`load`], but what is wrong with one jail, filter, action or hook is told beside, and the
/// others are there: at a start it is better to protect what can be protected.
///
/// # Errors
/// What leaves nothing to go on with: a file that cannot be read, or a mistake in what all share.
pub fn load_sound(path: &Path) -> Result<(Config, Vec<Error>), Error> {
    let (mut config, faults) = toml::read(path)?;
    config.warnings.extend(owner::warnings(&config.files));
    config.warnings.extend(owner::of_sockets(&config.jails));
    Ok((config, faults))
}

#[cfg(test)]
mod tests;
