//! One compiled pattern: the linear engine where it can, a backtracking one with a limit where it
//! must. Knows groups by name, nothing of what they mean.

use std::{ops::Range, sync::OnceLock};

use regex_syntax::hir::Hir;

use super::{
    Error,
    linear::{self, Linear, SIZE_LIMIT, plain},
    literals::{self, Required},
    port, python, tags,
    words::{self, Words},
};

/// Steps that the backtracking engine may take on one line.
const BACKTRACK_LIMIT: usize = 200_000;

/// Where a pattern stood in the configuration, for messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// Name of the filter.
    pub filter: &'a str,
    /// `failregex`, `ignoreregex`, `prefregex`.
    pub key: &'static str,
    /// The lists that it may refer to.
    pub words: &'a Words,
}

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    engine: Engine,
    /// Texts of which each match contains one.
    pub required: Option<Required>,
    /// Its loose text, with a sign for each of its lists.
    loose: Box<str>,
    /// An address may be followed by `:PORT`, or not; found out when it matters.
    optional_port: OnceLock<bool>,
}

/// The groups of a match as ranges of the text, by index; 0 is the whole match.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups(pub Vec<Option<Range<usize>>>);

impl Groups {
    /// Returns where the match lies.
    pub(super) fn span(&self) -> Range<usize> {
        self.0.first().cloned().flatten().unwrap_or(0..0)
    }
}

/// The backtracking limit was hit: the line counts as not matched.
#[derive(Debug)]
pub(super) struct LimitHit;

impl Pattern {
    /// Compiles a pattern in fail2ban's words.
    pub(super) fn new(
        source: &str,
        place: Place<'_>,
        names: bool,
        multiline: bool,
    ) -> Result<Pattern, Error> {
        let bad = |reason: String| Error::Pattern {
            filter: place.filter.to_owned(),
            key: place.key,
            pattern: source.to_owned(),
            reason,
        };
        if source.trim().is_empty() {
            return Err(bad("the pattern is empty".to_owned()));
        }
        let listed = words::expand(source, place.words).map_err(bad)?;
        let expanded = tags::expand(&listed, names);
        let text = python::translate(&expanded, multiline).map_err(bad)?;
        let (engine, hir) = if text.fancy {
            Engine::backtracking(&text.exact, Some(&text.loose)).map_err(bad)?
        } else {
            let (engine, hir) = Engine::linear(&text.exact).map_err(bad)?;
            (engine, Some(hir))
        };
        // a long list need not be taken apart for what surrounds it
        let signed = with_signs(source, place.words, multiline);
        Ok(Pattern {
            engine,
            required: signed
                .as_deref()
                .and_then(|signed| literals::listed(signed, place.words))
                .or_else(|| hir.as_ref().and_then(literals::required)),
            loose: signed.unwrap_or(text.loose).into(),
            optional_port: OnceLock::new(),
        })
    }

    /// Returns whether an address may be followed by `:PORT`, or not.
    pub(super) fn optional_port(&self) -> bool {
        *self.optional_port.get_or_init(|| port::optional(&self.loose))
    }

    /// Names and indices of the named groups.
    pub(super) fn names(&self) -> impl Iterator<Item = (usize, &str)> {
        self.engine.names()
    }

    /// Returns whether one of these groups exists.
    pub(super) fn has_any(&self, wanted: &[&str]) -> bool {
        self.names().any(|(_, name)| wanted.contains(&name))
    }

    /// Returns whether `text` matches.
    pub(super) fn is_match(&self, text: &str) -> Result<bool, LimitHit> {
        self.engine.is_match(text)
    }

    /// Returns the first match and its groups.
    pub(super) fn captures(&self, text: &str) -> Result<Option<Groups>, LimitHit> {
        self.engine.captures(text)
    }
}

/// Returns whether an address in a pattern may be followed by `:PORT`, or not.
pub(super) fn optional_port(source: &str, words: &Words, names: bool, multiline: bool) -> bool {
    let loose = with_signs(source, words, multiline)
        .or_else(|| Some(python::translate(&tags::expand(source, names), multiline).ok()?.loose));
    loose.is_some_and(|loose| port::optional(&loose))
}

/// Returns the pattern with a sign for each of its lists, as an engine would take it; `None`: it
/// has none.
fn with_signs(source: &str, words: &Words, multiline: bool) -> Option<String> {
    let marked = words::marked(source, words).filter(|marked| marked != source)?;
    let text = python::translate(&tags::expand(&marked, false), multiline).ok()?;
    Some(text.loose)
}

/// What runs a pattern.
#[derive(Debug)]
pub(super) struct Engine {
    kind: Kind,
    /// Names of the groups, by index.
    names: Vec<Option<Box<str>>>,
}

#[derive(Debug)]
enum Kind {
    Linear(Linear),
    Backtracking {
        /// Matches wherever `exact` does, in linear time.
        loose: Option<Linear>,
        exact: fancy_regex::Regex,
    },
}

impl Engine {
    /// Compiles a pattern in Rust's syntax, by the linear engine if that can.
    pub(super) fn new(pattern: &str) -> Result<Engine, String> {
        match Engine::linear(pattern) {
            Ok((engine, _)) => Ok(engine),
            Err(_) => Ok(Engine::backtracking(pattern, None)?.0),
        }
    }

    fn linear(pattern: &str) -> Result<(Engine, Hir), String> {
        let (linear, hir) = Linear::new(pattern)?;
        Ok((Engine { kind: Kind::Linear(linear), names: linear::names(&hir) }, hir))
    }

    /// Also returns what `loose` consists of.
    fn backtracking(pattern: &str, loose: Option<&str>) -> Result<(Engine, Option<Hir>), String> {
        let exact = fancy_regex::RegexBuilder::new(pattern)
            .backtrack_limit(BACKTRACK_LIMIT)
            .delegate_size_limit(SIZE_LIMIT)
            .build()
            .map_err(|error| plain(&error.to_string()))?;
        let names = exact.capture_names().map(|name| name.map(Box::from)).collect();
        let (loose, hir) = loose.map(Linear::new).transpose()?.unzip();
        Ok((Engine { kind: Kind::Backtracking { loose, exact }, names }, hir))
    }

    /// Names and indices of the named groups.
    pub(super) fn names(&self) -> impl Iterator<Item = (usize, &str)> {
        let named = self.names.iter().enumerate();
        named.filter_map(|(index, name)| name.as_deref().map(|name| (index, name)))
    }

    fn is_match(&self, text: &str) -> Result<bool, LimitHit> {
        match &self.kind {
            Kind::Linear(linear) => linear.is_match(text),
            Kind::Backtracking { loose, exact } => {
                Ok(may(loose.as_ref(), text)? && exact.is_match(text).map_err(|_| LimitHit)?)
            }
        }
    }

    /// Returns the first match and its groups.
    pub(super) fn captures(&self, text: &str) -> Result<Option<Groups>, LimitHit> {
        match &self.kind {
            Kind::Linear(linear) => linear.captures(text),
            Kind::Backtracking { loose, exact } => {
                if !may(loose.as_ref(), text)? {
                    return Ok(None);
                }
                let captures = exact.captures(text).map_err(|_| LimitHit)?;
                Ok(captures.map(|captures| {
                    Groups(captures.iter().map(|group| group.map(|group| group.range())).collect())
                }))
            }
        }
    }
}

/// Returns whether a text may match what `loose` is looser than.
fn may(loose: Option<&Linear>, text: &str) -> Result<bool, LimitHit> {
    loose.map_or(Ok(true), |loose| loose.is_match(text))
}
