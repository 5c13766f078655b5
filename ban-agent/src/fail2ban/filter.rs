//! Reads a filter of `filter.d` with its options into a [`filter::Spec`].

use std::{collections::BTreeMap, path::Path};

use super::{
    Error,
    ini::Place,
    merge::{Config, Vars},
    options::{self, Call},
    substitute,
};
use crate::filter::Spec;

/// The words of a filter.
pub(super) const WORDS: [&str; 7] =
    ["usedns", "prefregex", "ignoreregex", "failregex", "maxlines", "datepattern", "journalmatch"];

/// A filter whose tags are resolved.
#[derive(Debug)]
pub(super) struct Resolved {
    pub name: String,
    /// Its words.
    pub words: BTreeMap<String, String>,
    /// Where its failregex stands, or the file.
    pub place: Place,
}

/// Reads the filter that `call` names. `journal`: its lines come without syslog's prefix.
pub(super) fn read(dir: &Path, call: &Call, journal: bool) -> Result<Resolved, Error> {
    let mut config = Config::default();
    let base = if call.name.contains('/') {
        Path::new(&call.name).with_extension("")
    } else {
        dir.join("filter.d").join(&call.name)
    };
    if !config.read(&base)? {
        return Err(Error::NoFilter { name: call.name.clone(), dir: dir.join("filter.d") });
    }
    let mut given = call.options.clone();
    if !given.contains_key("logtype") && !config.keys("Definition").any(|key| key == "logtype") {
        given.insert("logtype".to_owned(), if journal { "journal" } else { "file" }.to_owned());
    }
    init(&config, &mut given)?;
    let place = config
        .raw("Definition", "failregex")
        .map(|value| value.place.clone())
        .unwrap_or_else(|| Place { file: base.with_extension("conf").into(), line: 0 });
    let words = resolve(&config, &given, &place)?;
    Ok(Resolved { name: call.name.clone(), words, place })
}

/// `[Init]` gives the options that nobody set.
fn init(config: &Config, given: &mut Vars) -> Result<(), Error> {
    let keys: Vec<String> = config.keys("Init").map(str::to_owned).collect();
    for key in keys {
        if let Some(value) = config.get("Init", &key, &Vars::new())? {
            given.insert(format!("known/{key}"), value.text.clone());
            given.entry(key).or_insert(value.text);
        }
    }
    Ok(())
}

fn resolve(
    config: &Config,
    given: &Vars,
    place: &Place,
) -> Result<BTreeMap<String, String>, Error> {
    let vars: Vars = given.iter().map(|(key, text)| (key.to_lowercase(), text.clone())).collect();
    let mut words = BTreeMap::new();
    for word in WORDS {
        let own = match given.get(word) {
            Some(text) => Some(text.clone()),
            None => config.get("Definition", word, &vars)?.map(|value| value.text),
        };
        let Some(text) = own else { continue };
        let mut find = |tag: &str| match given.get(tag) {
            Some(text) => Ok(Some(text.clone())),
            None => config.tag(tag, &vars),
        };
        let text = substitute::resolve(word, &text, &mut find)?.map_err(|tag| Error::Value {
            place: config.raw("Definition", word).map_or(place, |value| &value.place).clone(),
            section: "Definition".to_owned(),
            key: word.to_owned(),
            what: format!("<{tag}> refers to itself"),
        })?;
        words.insert(word.to_owned(), text);
    }
    Ok(words)
}

/// A filter of `dir` by its name with options, as in `sshd[mode=aggressive]`.
///
/// # Errors
/// If it does not exist or cannot be resolved, with file and line.
pub fn filter(dir: &Path, call: &str) -> Result<Spec, Error> {
    let parsed =
        options::parse(call).map_err(|what| Error::Call { text: call.to_owned(), what })?;
    spec(&read(dir, &parsed, false)?, None)
}

/// The filter in our words.
pub(super) fn spec(resolved: &Resolved, logtimezone: Option<String>) -> Result<Spec, Error> {
    let get = |word: &str| resolved.words.get(word).map(String::as_str);
    let lines = |word: &str| -> Vec<String> {
        let lines = get(word).into_iter().flat_map(str::lines).map(str::trim);
        lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
    };
    let maxlines = match get("maxlines").map(str::trim).filter(|text| !text.is_empty()) {
        None => 1,
        Some(text) => text.parse().map_err(|_| Error::Value {
            place: resolved.place.clone(),
            section: "Definition".to_owned(),
            key: "maxlines".to_owned(),
            what: format!("'{text}' is no number of lines"),
        })?,
    };
    Ok(Spec {
        name: resolved.name.clone(),
        prefregex: get("prefregex").filter(|text| !text.trim().is_empty()).map(str::to_owned),
        failregex: lines("failregex"),
        ignoreregex: lines("ignoreregex"),
        datepattern: lines("datepattern"),
        maxlines,
        logtimezone,
        usedns: false,
    })
}
