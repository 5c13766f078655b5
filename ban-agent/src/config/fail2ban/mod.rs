//! Reads fail2ban's configuration as it stands (`jail.conf`, `jail.d`, `filter.d`, `.local`) and
//! says the same in our words. Reads files; resolves no name, and runs nothing.
//! What we do not do is listed, never passed over.

mod action;
mod definition;
mod filter;
mod ignore;
mod increment;
mod ini;
mod jail;
mod merge;
mod options;
mod services;
mod substitute;
#[cfg(test)]
mod tests;
mod unused;
mod words;

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

pub use filter::filter;
pub use ini::Place;

/// What a fail2ban configuration says.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The jails that are enabled, by name. One whose actions ban no address is marked so.
    pub jails: Vec<crate::jail::Spec>,
    /// The jails that are not.
    pub disabled: Vec<String>,
    /// Jails that are enabled and make no sense.
    pub refused: Vec<(String, Error)>,
    /// What it asks for and we do otherwise or not at all.
    pub unsupported: Vec<Unsupported>,
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
}

/// Something that the configuration asks for in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// Where.
    pub place: Place,
    /// The jail that it belongs to.
    pub jail: String,
    /// What, and what happens instead.
    pub what: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: jail {}: {}", self.place, self.jail, self.what)
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no `jail.conf`.
    #[error("{} holds no jail.conf", .0.display())]
    NoJails(PathBuf),
    /// A file is no configuration.
    #[error("{place}: {what}")]
    Syntax {
        /// Where.
        place: Place,
        /// What is wrong.
        what: String,
    },
    /// A value makes no sense, or cannot be resolved.
    #[error("{place}: [{section}] {key}: {what}")]
    Value {
        /// Where.
        place: Place,
        /// The section.
        section: String,
        /// The key.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// A filter does not exist.
    #[error("there is no filter '{name}' in {}", dir.display())]
    NoFilter {
        /// Its name.
        name: String,
        /// Where it was sought.
        dir: PathBuf,
    },
    /// `name[key=value]` is written wrongly.
    #[error("'{text}': {what}")]
    Call {
        /// As written.
        text: String,
        /// What is wrong.
        what: String,
    },
}

/// Returns the ports of a rule as fail2ban's `protocol/port`: names of services, `8000:8010`;
/// `all`, or all ports, is no limit.
///
/// # Errors
/// What is wrong with it.
pub fn ports(rule: &str) -> Result<crate::net::Ports, String> {
    let (protocol, port) =
        rule.split_once('/').ok_or_else(|| format!("'{rule}' is no PROTOCOL/PORT"))?;
    let options = [("protocol", protocol), ("port", port)];
    let options = options.map(|(key, text)| (key.to_owned(), text.to_owned())).into();
    let call = options::Call { name: String::new(), options };
    action::ports(&call, &services::Services::system())
}

/// Loads the configuration in `dir`, usually `/etc/fail2ban`.
///
/// # Errors
/// What leaves nothing to go on with, with file and line: a file that is none of fail2ban's.
pub fn load(dir: &Path) -> Result<Loaded, Error> {
    jail::load(dir)
}
