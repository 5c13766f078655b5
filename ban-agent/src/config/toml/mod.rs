//! Our own configuration, in TOML. Three layers, later ones win key by key: the shipped filters and
//! jails inside the binary, the main file, and `conf.d/*.toml` beside it. A shipped jail runs only
//! if a file names it. `raw` has the words, `resolve` makes the model of them, `export` writes it.

mod action;
mod export;
mod layer;
mod listen;
mod proxies;
mod raw;
mod resolve;
mod shipped;
mod words;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

pub use self::{export::export, raw::Mode};

use super::{Agent, Config, DEFAULT_SOCKET, Error, Events, Refused, evidence, parse_duration};
use crate::jail;

/// Returns the configuration of `path` and its `conf.d`, and what makes no sense in it.
///
/// # Errors
/// What leaves nothing to go on with.
pub(super) fn read(path: &Path) -> Result<(Config, Vec<Error>), Error> {
    resolve::resolve(&mut layer::read(path)?)
}

/// Returns the control socket that `path` and its `conf.d` name, or the default one. Also where
/// something else in them is wrong: the running agent has to be reached all the same.
#[must_use]
pub fn socket(path: &Path) -> PathBuf {
    layer::socket(path).unwrap_or_else(|| DEFAULT_SOCKET.into())
}

/// Returns what the binary ships alone: its filters, and no jail that runs.
///
/// # Errors
/// None that a test would not have found.
pub fn shipped() -> Result<Config, Error> {
    resolve::resolve(&mut layer::shipped()?).map(|(config, _)| config)
}

/// One file of `dist/shipped/`.
#[derive(Debug)]
pub struct Service {
    /// Its folder: `ssh`, `mail`, `web`.
    pub kind: String,
    /// Its name: `sshd`.
    pub name: String,
    /// Its jails, as if each were on; `raw_log`: its log is raw, and the operator has to say so.
    pub jails: Vec<Arc<jail::Spec>>,
    /// Its jails that need a `logpath` first.
    pub unplaced: Vec<String>,
}

/// Returns all that is shipped, by file.
///
/// # Errors
/// None that a test would not have found.
pub fn catalogue() -> Result<Vec<Service>, Error> {
    let mut layers = layer::shipped()?;
    let names: Vec<Vec<String>> = layers.iter().map(layer::Layer::jails).collect();
    layers.push(layer::naming(names.iter().flatten())?);
    let (mut config, _) = resolve::resolve(&mut layers)?;
    for jail in &mut config.jails {
        let jail = Arc::make_mut(jail);
        let filter = &*jail.rules.filter.name;
        let raw = layers.iter().any(|layer| layer.says_raw(filter));
        jail.raw_log = evidence::raw(jail, raw).is_some();
    }
    let of = |jail: &String| config.jails.iter().find(|spec| *spec.rules.name == **jail);
    let service = |((path, _), names): (&(&str, &str), Vec<String>)| {
        let (kind, file) = path.split_once('/').unwrap_or(("", path));
        let (placed, unplaced) = names.into_iter().partition(|jail| of(jail).is_some());
        let placed: Vec<String> = placed;
        Service {
            kind: kind.to_owned(),
            name: file.trim_end_matches(".toml").to_owned(),
            jails: placed.iter().filter_map(of).cloned().collect(),
            unplaced,
        }
    };
    Ok(shipped::SHIPPED.iter().zip(names).map(service).collect())
}
