//! One file of `filter.d` or `action.d` with the options of a jail: what its words mean once
//! `%(…)s` and `<tag>`s are resolved. Knows no word.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{
    Error,
    ini::Place,
    merge::{Config, Vars},
    options::Call,
    substitute,
    unused::{self, References},
};

/// What an attacker may have written is put in when the command runs, and never resolved here.
const LATE: [&str; 4] = ["matches", "ipmatches", "ipjailmatches", "bantime"];

/// A definition with its options.
#[derive(Debug)]
pub(super) struct Definition {
    config: Config,
    /// The options of the jail, and what `[Init]` has for those that nobody set.
    given: Vars,
    /// The same with keys in lower case, as `%(…)s` sees them.
    vars: Vars,
    file: PathBuf,
}

impl Definition {
    /// Reads what `call` names in this folder of `dir`; `None` if there is no such file.
    pub(super) fn read(dir: &Path, folder: &str, call: &Call) -> Result<Option<Definition>, Error> {
        let mut config = Config::default();
        let base = if call.name.contains('/') {
            Path::new(&call.name).with_extension("")
        } else {
            dir.join(folder).join(&call.name)
        };
        if !config.read(&base)? {
            return Ok(None);
        }
        let mut given = call.options.clone();
        let keys: Vec<String> = config.keys("Init").map(str::to_owned).collect();
        for key in keys {
            if let Some(value) = config.get("Init", &key, &Vars::new())? {
                given.insert(format!("known/{key}"), value.text.clone());
                given.entry(key).or_insert(value.text);
            }
        }
        let vars = lowered(&given);
        // not `with_extension`: a name may hold a dot
        let file = PathBuf::from(format!("{}.conf", base.display()));
        Ok(Some(Definition { config, given, vars, file }))
    }

    /// Sets an option that neither the jail nor the file has set.
    pub(super) fn default(&mut self, key: &str, text: &str) {
        if !self.given.contains_key(key)
            && !self.config.keys("Definition").any(|known| known == key)
        {
            self.given.insert(key.to_owned(), text.to_owned());
            self.vars = lowered(&self.given);
        }
    }

    /// Returns the words that the file and the options define.
    pub(super) fn words(&self) -> BTreeSet<String> {
        let own = ["Definition", "DEFAULT"].into_iter().flat_map(|name| self.config.keys(name));
        own.chain(self.given.keys().map(String::as_str)).map(str::to_lowercase).collect()
    }

    /// Returns where a word stands; the file, if it does not.
    pub(super) fn place(&self, word: &str) -> Place {
        let value = self.config.raw("Definition", word).or_else(|| self.config.raw("Init", word));
        let file = || Place { file: self.file.clone().into(), line: 0 };
        value.map_or_else(file, |value| value.place.clone())
    }

    /// Returns what means nothing in the file, and among the options of the jail; `known` words do.
    pub(super) fn unused(&self, call: &Call, known: &[&str]) -> Vec<(Option<Place>, String)> {
        let references = References::of(&self.config, call.options.values().map(String::as_str));
        let mut found: Vec<(Option<Place>, String)> = ["Definition", "Init"]
            .into_iter()
            .flat_map(|section| unused::unused(&self.config, section, known, &references))
            .map(|(place, what)| (Some(place), what))
            .collect();
        let options = call.options.keys().filter(|key| {
            let key = key.to_lowercase();
            !known.contains(&key.as_str()) && !references.has(&key)
        });
        found.extend(options.map(|key| (None, unused::describe(key, known))));
        found
    }

    /// Returns whether something depends on the family of the address.
    pub(super) fn has_families(&self) -> bool {
        ["Definition", "Init"]
            .into_iter()
            .flat_map(|section| self.config.keys(section))
            .any(|key| key.contains("?family="))
    }

    /// Returns a word, resolved; `family` (`inet4`, `inet6`) decides where the file has conditions.
    pub(super) fn get(&self, word: &str, family: Option<&str>) -> Result<Option<String>, Error> {
        let Some(text) = self.value(word, family)? else { return Ok(None) };
        let mut find = |tag: &str| match family {
            Some(_) if LATE.contains(&tag) => Ok(None),
            Some(family) => match self.tag(&format!("{tag}?family={family}"))? {
                Some(text) => Ok(Some(text)),
                None => self.tag(tag),
            },
            None => self.tag(tag),
        };
        let text = substitute::resolve(word, &text, &mut find)?.map_err(|tag| Error::Value {
            place: self.place(word),
            section: "Definition".to_owned(),
            key: word.to_owned(),
            what: format!("<{tag}> refers to itself"),
        })?;
        Ok(Some(text))
    }

    fn value(&self, word: &str, family: Option<&str>) -> Result<Option<String>, Error> {
        let conditional = family.map(|family| format!("{word}?family={family}"));
        for key in conditional.as_deref().into_iter().chain([word]) {
            if let Some(text) = self.given.get(key) {
                return Ok(Some(text.clone()));
            }
            if let Some(value) = self.config.get("Definition", key, &self.vars)? {
                return Ok(Some(value.text));
            }
        }
        Ok(None)
    }

    fn tag(&self, tag: &str) -> Result<Option<String>, Error> {
        match self.given.get(tag) {
            Some(text) => Ok(Some(text.clone())),
            None => self.config.tag(tag, &self.vars),
        }
    }
}

fn lowered(given: &Vars) -> Vars {
    given.iter().map(|(key, text)| (key.to_lowercase(), text.clone())).collect()
}
