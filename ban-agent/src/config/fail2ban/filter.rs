//! Reads a filter of `filter.d` with its options into a [`filter::Spec`].

use std::{collections::BTreeMap, path::Path};

use super::{
    Error,
    definition::Definition,
    ini::Place,
    options::{self, Call},
};
use crate::filter::Spec;

/// The words of a filter.
pub(super) const WORDS: [&str; 7] =
    ["usedns", "prefregex", "ignoreregex", "failregex", "maxlines", "datepattern", "journalmatch"];

/// All words that mean something in a filter.
const KNOWN: [&str; 10] = [
    "usedns",
    "prefregex",
    "ignoreregex",
    "failregex",
    "maxlines",
    "datepattern",
    "journalmatch",
    "logtype",
    "_daemon",
    "mode",
];

/// A filter whose tags are resolved.
#[derive(Debug)]
pub(super) struct Resolved {
    pub name: String,
    /// Its words.
    pub words: BTreeMap<String, String>,
    /// All that it defines, for `%(known/…)s` in the jail.
    pub known: BTreeMap<String, String>,
    /// Where its failregex stands, or the file.
    pub place: Place,
    /// What means nothing, in the file or (without a place) in the jail's options.
    pub unused: Vec<(Option<Place>, String)>,
}

/// Reads the filter that `call` names. `journal`: its lines come without syslog's prefix.
pub(super) fn read(dir: &Path, call: &Call, journal: bool) -> Result<Resolved, Error> {
    let mut definition = Definition::read(dir, "filter.d", call)?
        .ok_or_else(|| Error::NoFilter { name: call.name.clone(), dir: dir.join("filter.d") })?;
    definition.default("logtype", if journal { "journal" } else { "file" });
    let place = definition.place("failregex");
    let unused = definition.unused(call, &KNOWN);
    let mut words = BTreeMap::new();
    for word in WORDS {
        match definition.get(word, None) {
            Ok(text) => words.extend(text.map(|text| (word.to_owned(), text))),
            // a log type of one's own need not say how its dates look
            Err(_) if word == "datepattern" && call.options.contains_key("logtype") => {}
            Err(error) => return Err(error),
        }
    }
    if words.get("datepattern").is_some_and(|text| is_tag(text.trim())) {
        words.remove("datepattern");
    }
    let mut known = BTreeMap::new();
    for word in definition.words() {
        // what cannot be resolved alone is meant as a part of something else
        if let Ok(Some(text)) = definition.get(&word, None) {
            known.insert(word, text);
        }
    }
    Ok(Resolved { name: call.name.clone(), words, known, place, unused })
}

/// Nothing but a tag that stands for nothing.
fn is_tag(text: &str) -> bool {
    text.strip_prefix('<')
        .and_then(|rest| rest.strip_suffix('>'))
        .is_some_and(|tag| tag.contains('/') && !tag.contains(['<', '>', ' ']))
}

/// No filter: the jail says all itself.
pub(super) fn none(jail: &str, place: Place) -> Resolved {
    Resolved {
        name: jail.to_owned(),
        words: BTreeMap::new(),
        known: BTreeMap::new(),
        place,
        unused: Vec::new(),
    }
}

/// Returns a filter of `dir` by its name with options, as in `sshd[mode=aggressive]`.
///
/// # Errors
/// If it does not exist or cannot be resolved, with file and line.
pub fn filter(dir: &Path, call: &str) -> Result<Spec, Error> {
    let parsed =
        options::parse(call).map_err(|what| Error::Call { text: call.to_owned(), what })?;
    spec(&read(dir, &parsed, false)?, None)
}

/// Returns the filter in our words.
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
            what: format!("'{text}' is not a number of lines"),
        })?,
    };
    Ok(Spec {
        name: resolved.name.clone(),
        prefregex: get("prefregex").filter(|text| !text.trim().is_empty()).map(str::to_owned),
        failregex: lines("failregex"),
        successregex: Vec::new(),
        document: None,
        ignoreregex: lines("ignoreregex"),
        datepattern: lines("datepattern"),
        maxlines,
        logtimezone,
        wrapped: true,
        usedns: false,
        proxies: Vec::new(),
        words: crate::filter::Words::new(),
    })
}
