//! The words of a jail: which there are, what they say, and which mean nothing.

use std::{path::Path, time::Duration};

use super::{
    Error, Loaded, Unsupported,
    ini::{Place, Value},
    merge::{Config, Vars},
    unused::{self, References},
};
use crate::duration;

/// Words that mean something in a jail, or to the values that fail2ban ships.
const KNOWN: &[&str] = &[
    "action",
    "backend",
    "banaction",
    "banaction_allports",
    "bantime",
    "bantime.factor",
    "bantime.formula",
    "bantime.increment",
    "bantime.maxtime",
    "bantime.multipliers",
    "bantime.overalljails",
    "bantime.rndtime",
    "blocktype",
    "chain",
    "datepattern",
    "destemail",
    "enabled",
    "fail2ban_agent",
    "failregex",
    "filter",
    "findtime",
    "ignorecache",
    "ignorecommand",
    "ignoreip",
    "ignoreregex",
    "ignoreself",
    "journalmatch",
    "logencoding",
    "logpath",
    "logtimezone",
    "maxlines",
    "maxmatches",
    "maxretry",
    "mode",
    "mta",
    "port",
    "prefregex",
    "protocol",
    "returntype",
    "sender",
    "skip_if_nologs",
    "systemd_if_nologs",
    "usedns",
];

/// The words of one jail, with defaults.
pub(super) struct Words<'c> {
    pub(super) config: &'c Config,
    pub(super) name: &'c str,
}

impl Words<'_> {
    /// Returns a word as it resolves; `None` if it is missing.
    pub(super) fn value(&self, key: &str) -> Result<Option<Value>, Error> {
        self.config.get(self.name, key, &Vars::new())
    }

    /// Returns the text of a word; `None` if it is missing or empty.
    pub(super) fn text(&self, key: &str) -> Result<Option<String>, Error> {
        let text = self.value(key)?.map(|value| value.text.trim().to_owned());
        Ok(text.filter(|text| !text.is_empty()))
    }

    /// Returns where a word stands.
    pub(super) fn place(&self, key: &str) -> Place {
        let value = self.config.raw(self.name, key);
        let empty = || Place { file: Path::new("jail.conf").into(), line: 0 };
        value.map_or_else(empty, |value| value.place.clone())
    }

    /// Returns the error that this word makes no sense.
    pub(super) fn bad(&self, key: &str, what: String) -> Error {
        let (section, key) = (self.name.to_owned(), key.to_owned());
        Error::Value { place: self.place(&key), section, key, what }
    }

    /// Returns a yes or no.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, Error> {
        match self.text(key)?.map(|text| text.to_lowercase()).as_deref() {
            None => Ok(default),
            Some("1" | "on" | "true" | "yes") => Ok(true),
            Some("0" | "off" | "false" | "no") => Ok(false),
            Some(text) => Err(self.bad(key, format!("'{text}' is neither true nor false"))),
        }
    }

    /// Returns a duration; `None` is "for ever".
    pub(super) fn duration(
        &self,
        key: &str,
        default: Option<Duration>,
    ) -> Result<Option<Duration>, Error> {
        match self.text(key)? {
            None => Ok(default),
            Some(text) => {
                duration::parse_duration(&text).map_err(|error| self.bad(key, error.to_string()))
            }
        }
    }

    /// Returns a number.
    pub(super) fn number<N: std::str::FromStr>(&self, key: &str, default: N) -> Result<N, Error> {
        match self.text(key)? {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| self.bad(key, format!("'{text}' is no number"))),
        }
    }
}

/// Lists the words that mean nothing, in the jails that run and in the operator's own defaults.
pub(super) fn unknown(config: &Config, loaded: &mut Loaded) {
    let references = References::of(config, std::iter::empty());
    let jails = loaded.jails.iter().map(|jail| &*jail.rules.name);
    for section in jails.chain(["DEFAULT"]) {
        for (place, what) in unused::unused(config, section, KNOWN, &references) {
            let file = place.file.file_name().unwrap_or_default().to_string_lossy();
            let shipped = file == "jail.conf" || file.starts_with("paths-");
            if place.line > 0 && !(section == "DEFAULT" && shipped) {
                let jail = section.to_owned();
                loaded.unsupported.push(Unsupported { place, jail, what });
            }
        }
    }
}
