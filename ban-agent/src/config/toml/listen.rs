//! `[metrics]`, `[events]`, `[geoip]` and `[hooks.NAME]`: the words about who is told, as they stand in
//! the files, and what they become.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Deserialize;

use super::{
    Error, Events as Resolved,
    layer::{self, Fault, Layer},
    raw::{Bounded, OneOrMany},
};
use crate::{
    event::Wanted,
    hook::{Format, Spec, Target, Tell},
    metrics::Listen,
};

/// `[metrics]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Metrics {
    pub(super) listen: Option<Listen>,
    pub(super) allow_remote: Option<bool>,
}

/// `[events]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Events {
    pub(super) file: Option<PathBuf>,
    pub(super) journal: Option<bool>,
    pub(super) include: Option<Vec<Include>>,
    pub(super) sample: Option<u32>,
}

/// What an attacker can cause many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Include {
    /// Each failure.
    Failures,
    /// Sampled drops.
    Drops,
}

/// `[geoip]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Geoip {
    pub(super) database: Option<PathBuf>,
}

/// `[hooks.NAME]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Hook {
    pub(super) url: Option<String>,
    pub(super) format: Option<Format>,
    pub(super) command: Option<Vec<String>>,
    pub(super) tell: Option<Vec<Tell>>,
    pub(super) jails: Option<OneOrMany>,
    pub(super) every: Option<Bounded>,
    pub(super) timeout: Option<Bounded>,
}

/// An address that others can reach has to be meant: the metrics tell who is attacked, and how.
pub(super) fn metrics(layers: &[Layer], raw: &Metrics) -> Result<Option<Listen>, Error> {
    let Some(listen) = raw.listen.clone() else { return Ok(None) };
    let remote = matches!(&listen, Listen::Tcp(address) if !address.ip().is_loopback());
    if !remote || raw.allow_remote == Some(true) {
        return Ok(Some(listen));
    }
    let message = format!("metrics on {listen} could be read from other hosts");
    let hint = Some("listen on 127.0.0.1, [::1] or unix:/PATH, or add allow_remote = true".into());
    Err(layer::invalid(layers, &["metrics", "listen"], message, hint))
}

/// `[events]`, with the defaults.
pub(super) fn events(raw: &Events) -> Resolved {
    let includes = |wanted| raw.include.as_ref().is_some_and(|list| list.contains(&wanted));
    Resolved {
        file: raw.file.clone(),
        journal: raw.journal.unwrap_or(false),
        include: Wanted { failures: includes(Include::Failures), drops: includes(Include::Drops) },
        sample: raw.sample.unwrap_or(1024),
    }
}

/// Shortest time between two messages, and how long one may take, unless a hook says otherwise.
const DEFAULT: Duration = Duration::from_secs(10);

/// Returns all hooks that make sense, by name.
pub(super) fn hooks(
    layers: &[Layer],
    raw: &BTreeMap<String, Hook>,
    faults: &mut Vec<Fault>,
) -> Vec<Spec> {
    let mut hooks = Vec::new();
    for (name, raw) in raw {
        match hook(layers, name, raw) {
            Ok(hook) => hooks.push(hook),
            Err(error) => faults.push(Fault { kind: "hooks", name: name.clone(), error }),
        }
    }
    hooks
}

fn hook(layers: &[Layer], name: &str, raw: &Hook) -> Result<Spec, Error> {
    Ok(Spec {
        name: name.into(),
        target: target(layers, name, raw)?,
        tell: raw.tell.clone().unwrap_or_else(|| Tell::ALL.to_vec()),
        jails: raw.jails.as_ref().map(OneOrMany::list).unwrap_or_default(),
        every: raw.every.map_or(DEFAULT, |every| every.0),
        timeout: raw.timeout.map_or(DEFAULT, |timeout| timeout.0),
    })
}

fn target(layers: &[Layer], name: &str, raw: &Hook) -> Result<Target, Error> {
    let wrong = |key: &str, message: String, hint: &str| {
        Err(layer::invalid(layers, &["hooks", name, key], message, Some(hint.into())))
    };
    match (&raw.url, &raw.command) {
        (None, None) => wrong(
            "",
            format!("hook '{name}' has no url and no command"),
            "add url = \"https://…\", or command = [\"/path\", \"argument\"]",
        ),
        (Some(_), Some(_)) => wrong(
            "command",
            format!("hook '{name}' has a url and a command"),
            "split it into two hooks",
        ),
        (Some(url), None) if is_http(url) => {
            Ok(Target::Url { url: url.clone(), format: raw.format.unwrap_or_default() })
        }
        (Some(_), None) => wrong(
            "url",
            format!("hook '{name}': url is not an http or https URL"),
            "write url = \"https://host/path\"",
        ),
        (None, Some(_)) if raw.format.is_some() => wrong(
            "format",
            format!("hook '{name}': format is for a url"),
            "leave it out: a command always gets JSON",
        ),
        (None, Some(words)) if words.first().is_some_and(|word| word.starts_with('/')) => {
            Ok(Target::Command(words.clone()))
        }
        (None, Some(_)) => wrong(
            "command",
            format!("hook '{name}': command must be a list that begins with an absolute path"),
            "write command = [\"/usr/local/bin/notify\", \"argument\"]; there is no shell",
        ),
    }
}

fn is_http(url: &str) -> bool {
    let parsed = url.parse::<hyper::Uri>();
    parsed.is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
    })
}
