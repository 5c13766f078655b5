//! Lines that are documents: JSON and logfmt. Fields are found by their path, and conditions say
//! which documents are failures. No tree is built: one pass keeps the texts of the wanted paths.
//!
//! A document is evidence only if it is whole, ends with its line, and says everything that is asked
//! for once: readers differ in which of two `"status"` they take, and here nobody gets to choose.

mod envelope;
mod json;
mod logfmt;
mod paths;

use std::collections::BTreeMap;

use super::{
    Error, client,
    groups::{self, Fields},
    literals::{self, Required},
    pattern::{LimitHit, Pattern, Place},
    words::Words,
};
use paths::Paths;

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// RFC 8259; paths are keys joined by dots, or JSON pointers (RFC 6901, beginning with `/`).
    Json,
    /// `key=value key="a value"`, as Go's and Ruby's loggers write it; a path is a key.
    Logfmt,
}

/// What a value has to be: any of these.
pub type Conditions = BTreeMap<String, Vec<Wanted>>;

/// One text that a value may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This text, number or word (`true`).
    Exactly(String),
    /// What this pattern, in the words of failregex, is found in.
    Matches(String),
}

/// A filter's documents, before it is compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// How they are written.
    pub form: Form,
    /// Where the address is: the first of these that a document has; none: a condition's pattern
    /// names it.
    pub address: Vec<String>,
    /// Where the time is, likewise: a date, or a number since 1970 in seconds, or in milli-, micro- or
    /// nanoseconds, by its size.
    pub time: Vec<String>,
    /// Paths of the failure's fields, by the names of fields (`user`, `xff`, `mlfid` …).
    pub fields: BTreeMap<String, String>,
    /// Each is a failure.
    pub wanted: Vec<Conditions>,
    /// A document that meets one of these is none.
    pub unless: Vec<Conditions>,
}

impl Spec {
    /// Returns whether the chain of proxies is among the fields.
    pub(super) fn asks_proxies(&self) -> bool {
        [client::XFF, client::FORWARDED].iter().any(|name| self.fields.contains_key(*name))
    }
}

impl Spec {
    /// Returns the patterns of all conditions.
    pub(super) fn all_patterns(&self) -> impl Iterator<Item = &String> {
        let excuses = self.unless.iter().flat_map(BTreeMap::values).flatten();
        self.patterns().chain(excuses.filter_map(Wanted::pattern))
    }

    /// Returns the patterns of what is wanted.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &String> {
        let all = self.wanted.iter().flat_map(BTreeMap::values).flatten();
        all.filter_map(Wanted::pattern)
    }
}

impl Wanted {
    fn pattern(&self) -> Option<&String> {
        match self {
            Wanted::Matches(pattern) => Some(pattern),
            Wanted::Exactly(_) => None,
        }
    }
}

/// Conditions as one line of text.
pub(super) fn said(conditions: &Conditions) -> String {
    let one = |wanted: &Wanted| match wanted {
        Wanted::Exactly(text) => text.clone(),
        Wanted::Matches(pattern) => format!("~{pattern}"),
    };
    let each = conditions.iter().map(|(path, any)| {
        format!("{path} = {}", any.iter().map(one).collect::<Vec<_>>().join(" | "))
    });
    each.collect::<Vec<_>>().join(", ")
}

/// Why a text is no document.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// It does not follow the grammar, is nested too deep, or goes on after its end.
    Malformed,
    /// It says something twice.
    Twice,
}

/// Texts of the wanted paths, by their number.
pub(super) type Values = Vec<Option<String>>;

/// Returns the texts at these paths of one JSON document; `None`: it is no evidence.
pub(super) fn texts(document: &str, paths: &[&str]) -> Option<Values> {
    let mut all = Paths::new(Form::Json);
    let places: Vec<_> = paths.iter().map(|path| all.add(path)).collect();
    let mut values = json::read(document, &all).ok()?;
    Some(places.iter().map(|at| values.get_mut(*at).and_then(Option::take)).collect())
}

/// Compiled.
#[derive(Debug)]
pub(super) struct Documents {
    form: Form,
    paths: Paths,
    address: Vec<usize>,
    time: Vec<usize>,
    fields: Vec<(Box<str>, usize)>,
    pub(super) wanted: Vec<Rule>,
    unless: Vec<Rule>,
}

/// Compiled conditions: all have to hold.
#[derive(Debug)]
pub(super) struct Rule {
    conditions: Vec<Condition>,
    /// Texts of which each line that fulfils them holds one.
    pub(super) required: Option<Required>,
}

#[derive(Debug)]
struct Condition {
    path: usize,
    exactly: Vec<Box<str>>,
    patterns: Vec<Pattern>,
}

/// What a document says.
#[derive(Debug)]
pub(super) struct Read {
    values: Values,
}

impl Documents {
    pub(super) fn compile(
        spec: &Spec,
        filter: &str,
        words: &Words,
        names: bool,
    ) -> Result<Documents, Error> {
        let mut paths = Paths::new(spec.form);
        let mut all = |list: &[String]| list.iter().map(|path| paths.add(path)).collect();
        let (address, time): (Vec<_>, Vec<_>) = (all(&spec.address), all(&spec.time));
        let fields = spec.fields.iter();
        let fields = fields.map(|(name, path)| (name.as_str().into(), paths.add(path))).collect();
        let mut rules = |key, list: &[Conditions]| {
            let place = Place { filter, key, words };
            let compile = |conditions| Rule::new(conditions, spec.form, &mut paths, place, names);
            list.iter().map(compile).collect::<Result<Vec<_>, _>>()
        };
        let wanted = rules("where", &spec.wanted)?;
        let unless = rules("unless", &spec.unless)?;
        let named = |rule: &Rule| {
            let mut patterns = rule.conditions.iter().flat_map(|one| &one.patterns);
            patterns.any(|pattern| pattern.has_any(super::compile::IDENTIFIERS))
        };
        let by_field = ["fid", "mlfid"].iter().any(|name| spec.fields.contains_key(*name));
        let nobody = wanted.iter().position(|rule| !named(rule));
        if let (true, false, Some(at)) = (address.is_empty(), by_field, nobody) {
            let pattern = spec.wanted.get(at).map(said).unwrap_or_default();
            let reason = "it names no address: set `address` to the path of one, or capture <ADDR>";
            let (filter, reason) = (filter.to_owned(), reason.to_owned());
            return Err(Error::Pattern { filter, key: "where", pattern, reason });
        }
        Ok(Documents { form: spec.form, paths, address, time, fields, wanted, unless })
    }

    /// Returns whether a line may hold a document: false without the sign that each has.
    pub(super) fn may_stand_in(&self, line: &[u8]) -> bool {
        line.contains(match self.form {
            Form::Json => &b'{',
            Form::Logfmt => &b'=',
        })
    }

    /// Returns where the document of a line begins: at the line's start, or after what syslog or a
    /// container's engine puts before it.
    pub(super) fn start(&self, line: &str) -> Option<usize> {
        envelope::start(line, self.form)
    }

    /// Reads one to its end.
    pub(super) fn read(&self, text: &str) -> Result<Read, Bad> {
        let values = match self.form {
            Form::Json => json::read(text, &self.paths)?,
            Form::Logfmt => logfmt::read(text, &self.paths)?,
        };
        Ok(Read { values })
    }

    /// Returns the text of its time.
    pub(super) fn time<'d>(&self, document: &'d Read) -> Option<&'d str> {
        document.first(&self.time)
    }

    /// Returns what a failure by these conditions is told with; `None`: they do not hold.
    pub(super) fn meets(&self, document: &Read, rule: &Rule) -> Result<Option<Fields>, LimitHit> {
        let mut fields = Fields::new();
        for condition in &rule.conditions {
            let Some(value) = document.get(condition.path) else { return Ok(None) };
            if condition.exactly.iter().any(|text| **text == *value) {
                continue;
            }
            let Some(mut found) = condition.found(value)? else { return Ok(None) };
            fields.append(&mut found);
        }
        for (name, path) in &self.fields {
            if let Some(value) = document.get(*path) {
                fields.insert(name.to_string(), value.to_owned());
            }
        }
        if !self.address.is_empty() {
            let address = document.first(&self.address).and_then(client::node);
            let (name, text) = match address {
                Some(address) if address.is_ipv4() => ("ip4", address.to_string()),
                Some(address) => ("ip6", address.to_string()),
                None => ("glued", String::new()),
            };
            fields.insert(name.to_owned(), text);
        }
        Ok(Some(fields))
    }

    /// Returns whether the document is no failure after all.
    pub(super) fn excuses(&self, document: &Read) -> Result<bool, LimitHit> {
        for rule in &self.unless {
            let mut all = true;
            for condition in &rule.conditions {
                let Some(value) = document.get(condition.path) else {
                    all = false;
                    break;
                };
                let exactly = condition.exactly.iter().any(|text| **text == *value);
                all &= exactly || condition.found(value)?.is_some();
            }
            if all {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Read {
    fn get(&self, path: usize) -> Option<&str> {
        self.values.get(path)?.as_deref()
    }

    fn first(&self, paths: &[usize]) -> Option<&str> {
        paths.iter().find_map(|path| self.get(*path))
    }
}

impl Rule {
    fn new(
        conditions: &Conditions,
        form: Form,
        paths: &mut Paths,
        place: Place<'_>,
        names: bool,
    ) -> Result<Rule, Error> {
        let mut compiled = Vec::with_capacity(conditions.len());
        let mut required: Option<Required> = None;
        for (path, any) in conditions {
            let (mut exactly, mut patterns) = (Vec::new(), Vec::new());
            for wanted in any {
                match wanted {
                    Wanted::Exactly(text) => exactly.push(text.as_str().into()),
                    Wanted::Matches(pattern) => {
                        patterns.push(Pattern::new(pattern, place, names, false)?);
                    }
                }
            }
            let found = literal(&exactly, &patterns, form);
            if found.as_ref().map(|one| one.score) > required.as_ref().map(|one| one.score) {
                required = found;
            }
            compiled.push(Condition { path: paths.add(path), exactly, patterns });
        }
        Ok(Rule { conditions: compiled, required })
    }
}

impl Condition {
    /// Returns what the first pattern that fits captures.
    fn found(&self, value: &str) -> Result<Option<Fields>, LimitHit> {
        for pattern in &self.patterns {
            if let Some(found) = pattern.captures(value)? {
                return Ok(Some(groups::collect(pattern, &found, value)));
            }
        }
        Ok(None)
    }
}

/// What a number of several digits tells of a line: more than a text, which may be the same in each.
const BARE_SCORE: usize = 100;

/// Texts of which a line with such a value holds one, as any writer has it; `None`: there are none.
fn literal(exactly: &[Box<str>], patterns: &[Pattern], form: Form) -> Option<Required> {
    let (mut texts, mut fold, mut score) = (Vec::new(), false, usize::MAX);
    for value in exactly {
        let before: &[&str] = match (form, bare(value)) {
            (Form::Json, true) => &["\":", "\": ", "\""],
            (Form::Json, false) => &["\""],
            (Form::Logfmt, true) => &["=", "=\""],
            (Form::Logfmt, false) => &[""],
        };
        let piece = plain(value.as_bytes());
        if piece.len() < 2 {
            return None;
        }
        // only what begins with the value tells what stands before it
        let whole = piece.len() == value.len();
        let before = if whole { before } else { &[""] };
        score = score.min(if value.len() > 2 && value.parse::<f64>().is_ok() {
            BARE_SCORE
        } else {
            literals::weight(piece)
        });
        texts.extend(before.iter().map(|before| [before.as_bytes(), piece].concat()));
    }
    for pattern in patterns {
        let required = pattern.required.as_ref()?;
        let pieces = required.texts.iter().map(|text| plain(text));
        if pieces.clone().any(|piece| piece.len() < 3) {
            return None;
        }
        score = score.min(pieces.clone().map(literals::weight).min()?);
        fold |= required.fold;
        texts.extend(pieces.map(<[u8]>::to_vec));
    }
    if fold {
        texts.iter_mut().for_each(|text| text.make_ascii_lowercase());
    }
    (!texts.is_empty()).then_some(Required { texts, fold, score })
}

/// Returns whether a value may stand without quotes in JSON.
fn bare(value: &str) -> bool {
    matches!(value, "true" | "false" | "null") || value.parse::<f64>().is_ok()
}

/// Returns the longest piece that no writer escapes: some do so with `/ < > & = ' +`, and all
/// beyond ASCII.
fn plain(text: &[u8]) -> &[u8] {
    let safe = |byte: &u8| byte.is_ascii_alphanumeric() || b" _-.,:;()[]{}!*@#%?".contains(byte);
    text.split(|byte| !safe(byte)).max_by_key(|piece| piece.len()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
