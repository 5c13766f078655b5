//! `[hooks.NAME]`: from the words of the file to where messages go.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Error,
    layer::{self, Layer},
    raw::{self, OneOrMany},
};
use crate::hook::{Spec, Target, Tell};

/// Shortest time between two messages, and how long one may take, unless a hook says otherwise.
const DEFAULT: Duration = Duration::from_secs(10);

/// All hooks, by name.
pub(super) fn resolve(
    layers: &[Layer],
    raw: &BTreeMap<String, raw::Hook>,
) -> Result<Vec<Spec>, Error> {
    raw.iter().map(|(name, raw)| hook(layers, name, raw)).collect()
}

fn hook(layers: &[Layer], name: &str, raw: &raw::Hook) -> Result<Spec, Error> {
    Ok(Spec {
        name: name.into(),
        target: target(layers, name, raw)?,
        tell: raw.tell.clone().unwrap_or_else(|| Tell::ALL.to_vec()),
        jails: raw.jails.as_ref().map(OneOrMany::list).unwrap_or_default(),
        every: raw.every.map_or(DEFAULT, |every| every.0),
        timeout: raw.timeout.map_or(DEFAULT, |timeout| timeout.0),
    })
}

fn target(layers: &[Layer], name: &str, raw: &raw::Hook) -> Result<Target, Error> {
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
            "make two hooks of it",
        ),
        (Some(url), None) if is_http(url) => {
            Ok(Target::Url { url: url.clone(), format: raw.format.unwrap_or_default() })
        }
        (Some(_), None) => wrong(
            "url",
            format!("hook '{name}': url is no http or https URL"),
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
            format!("hook '{name}': command is not a list that begins with a path from /"),
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
