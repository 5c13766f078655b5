//! The compiled filter: immutable, shared by all that read with it.

use super::{
    Error, Spec, client,
    document::Documents,
    pattern::{Pattern, Place},
    prefilter::Prefilter,
    time::Dates,
};
use crate::net::PrefixSet;

/// Groups of which a failure needs one.
pub(super) const IDENTIFIERS: &[&str] = &["fid", "ip4", "ip6", "dns", "mlfid"];

/// A compiled filter.
#[derive(Debug)]
pub struct Filter {
    name: String,
    pub(super) prefregex: Option<Pattern>,
    pub(super) failregex: Vec<Pattern>,
    pub(super) successregex: Vec<Pattern>,
    pub(super) ignoreregex: Vec<Pattern>,
    pub(super) documents: Option<Documents>,
    pub(super) dates: Dates,
    pub(super) maxlines: usize,
    pub(super) wrapped: bool,
    /// Who is believed when he says for whom he asks.
    pub(super) proxies: PrefixSet,
    /// Rejects lines on their raw bytes; `None` if every line has to be looked at.
    pub(super) prefilter: Option<Prefilter>,
}

impl Filter {
    /// Compiles a filter.
    ///
    /// # Errors
    /// The first pattern that does not compile, and why.
    pub fn compile(spec: &Spec) -> Result<Filter, Error> {
        let multiline = spec.maxlines > 1;
        let pattern = |key: &'static str, source: &str, multiline: bool| {
            Pattern::new(
                source,
                Place { filter: &spec.name, key, words: &spec.words },
                spec.usedns,
                multiline,
            )
        };
        let prefregex = spec
            .prefregex
            .as_deref()
            .map(|source| pattern("prefregex", source, false))
            .transpose()?;
        let named_before = prefregex.as_ref().is_some_and(|pattern| pattern.has_any(IDENTIFIERS));
        let mut failregex = Vec::with_capacity(spec.failregex.len());
        for source in &spec.failregex {
            let pattern = pattern("failregex", source, multiline)?;
            if !named_before && !pattern.has_any(IDENTIFIERS) {
                let (filter, pattern) = (spec.name.clone(), source.clone());
                return Err(Error::NoAddress { filter, pattern });
            }
            failregex.push(pattern);
        }
        let mut successregex = Vec::with_capacity(spec.successregex.len());
        for source in &spec.successregex {
            let pattern = pattern("successregex", source, multiline)?;
            let has = |names: &[&str]| {
                let before = prefregex.as_ref().is_some_and(|prefix| prefix.has_any(names));
                before || pattern.has_any(names)
            };
            if !has(&["ip4", "ip6"]) || !has(&["user", "alt_user", "tuple_user"]) {
                let (filter, pattern) = (spec.name.clone(), source.clone());
                return Err(Error::NoUser { filter, pattern });
            }
            successregex.push(pattern);
        }
        let ignoreregex = spec
            .ignoreregex
            .iter()
            .map(|source| pattern("ignoreregex", source, false))
            .collect::<Result<_, _>>()?;
        let documents = spec.document.as_ref();
        let documents = documents
            .map(|document| Documents::compile(document, &spec.name, &spec.words, spec.usedns))
            .transpose()?;
        let dates = dates(spec)?;
        // A pattern over several lines needs all of them; a date inside a word may split any text.
        let prefilter = if multiline || dates.unbounded() {
            None
        } else {
            let rules = documents.iter().flat_map(|documents| &documents.wanted);
            let each = failregex.iter().map(|pattern| pattern.required.as_ref());
            let each = each.chain(rules.map(|rule| rule.required.as_ref()));
            let successes = successregex.iter().map(|pattern| pattern.required.as_ref());
            let each: Vec<_> = each.chain(successes).collect();
            Prefilter::new(prefregex.as_ref().and_then(|pattern| pattern.required.as_ref()), &each)
        };
        Ok(Filter {
            name: spec.name.clone(),
            prefregex,
            failregex,
            successregex,
            ignoreregex,
            documents,
            dates,
            maxlines: spec.maxlines.max(1),
            wrapped: spec.wrapped && !multiline,
            proxies: client::trusted(&spec.proxies),
            prefilter,
        })
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether lines that a container engine wrapped are tried as they stand in its file,
    /// too.
    #[must_use]
    pub fn is_wrapped(&self) -> bool {
        self.wrapped
    }

    /// Returns whether lines are rejected on their raw bytes; if not, each line meets the patterns.
    #[must_use]
    pub fn rejects_early(&self) -> bool {
        self.prefilter.is_some()
    }
}

fn dates(spec: &Spec) -> Result<Dates, Error> {
    let filter = || spec.name.clone();
    let mut dates = Dates::new(&spec.datepattern).map_err(|(pattern, reason)| Error::Date {
        filter: filter(),
        pattern,
        reason,
    })?;
    if let Some(zone) = &spec.logtimezone
        && !dates.set_zone(zone)
    {
        return Err(Error::Zone { filter: filter(), zone: zone.clone() });
    }
    Ok(dates)
}
