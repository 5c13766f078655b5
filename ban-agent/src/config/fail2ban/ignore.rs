//! Whom a jail ignores: `ignoreip`, `ignorecommand`, `ignorecache`.

use super::{Error, jail::Reader, options, words::Words};
use crate::{
    duration,
    jail::{IgnoreCache, IgnoreCommand, Ignored, Lookup},
    net::IpNet,
};

/// Answers of `ignorecommand` that may be kept.
const MAX_ANSWERS: usize = 100_000;

impl Reader<'_> {
    /// Returns the addresses of `ignoreip`, and what has to be looked up.
    pub(super) fn ignoreip(&mut self, words: &Words<'_>) -> Result<(Vec<IpNet>, Lookup), Error> {
        let text = words.text("ignoreip")?.unwrap_or_default();
        let (mut nets, mut lookup) = (Vec::new(), Lookup::default());
        for word in Ignored::words(&text) {
            match Ignored::parse(word).map_err(|error| words.bad("ignoreip", error.to_string()))? {
                Ignored::Net(net) => nets.push(net),
                Ignored::Name(name) => lookup.names.push(name),
                Ignored::File(path) => lookup.files.push(path),
            }
        }
        nets.sort();
        nets.dedup();
        Ok((nets, lookup))
    }

    /// Returns what is asked before a ban.
    pub(super) fn ignorecommand(
        &mut self,
        words: &Words<'_>,
    ) -> Result<Option<IgnoreCommand>, Error> {
        let Some(command) = words.text("ignorecommand")? else { return Ok(None) };
        let cache = match words.text("ignorecache")? {
            Some(text) => Some(self.ignorecache(words, &text)?),
            None => None,
        };
        if command.contains("<ip-host>")
            || cache.as_ref().is_some_and(|cache| cache.key.contains("<ip-host>"))
        {
            let what = "<ip-host> gives the address: names are not looked up, because an attacker chooses them";
            self.note(words, "ignorecommand", what.to_owned());
        }
        Ok(Some(IgnoreCommand { command, cache }))
    }

    fn ignorecache(&mut self, words: &Words<'_>, text: &str) -> Result<IgnoreCache, Error> {
        let bad = |what: String| words.bad("ignorecache", what);
        let call = options::parse(&format!("cache[{text}]")).map_err(bad)?;
        let mut cache =
            IgnoreCache { key: String::new(), count: IgnoreCache::COUNT, time: IgnoreCache::TIME };
        for (key, value) in &call.options {
            match key.as_str() {
                "key" => cache.key.clone_from(value),
                "max-count" => {
                    let count =
                        value.parse().ok().filter(|count| (1..=MAX_ANSWERS).contains(count));
                    cache.count = count.ok_or_else(|| {
                        bad(format!("max-count = {value} is not from 1 to {MAX_ANSWERS}"))
                    })?;
                }
                "max-time" => {
                    let time =
                        duration::parse_duration(value).map_err(|error| bad(error.to_string()))?;
                    cache.time = time.ok_or_else(|| bad("max-time has to end".to_owned()))?;
                }
                other => self.note(
                    words,
                    "ignorecache",
                    format!("ignorecache: '{other}' is not one of its options: it has no effect"),
                ),
            }
        }
        if cache.key.is_empty() {
            return Err(bad("it has no key: write key=\"<ip>\"".to_owned()));
        }
        Ok(cache)
    }
}
