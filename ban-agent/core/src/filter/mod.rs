//! Finds the failures in lines: address, time, fields. Pure: no I/O, and `now` is an argument.
//!
//! A [`Filter`] is compiled once and shared; a [`Scanner`] is one jail's way through its log.
//! Raw lines are searched for texts without which no pattern can match; only what remains is
//! decoded, loses its time stamp and meets the patterns.

mod carrier;
mod client;
mod compile;
#[cfg(test)]
mod dialect;
mod document;
mod finder;
mod groups;
mod host;
mod linear;
mod literals;
mod multiline;
mod pattern;
mod port;
mod prefilter;
mod python;
mod scan;
mod session;
mod shared;
mod tags;
#[cfg(test)]
mod tests;
mod time;
mod words;

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;

use crate::net::IpNet;

pub use compile::Filter;
pub use document::{Conditions, Form, Spec as Document, Wanted};
pub use scan::{Counts, MAX_LINE, Outcome, Scanner, lines_in};
pub use shared::{SharedPrefilter, Start, Starts};
pub use words::Words;

/// A filter in fail2ban's words, before it is compiled. Tags and interpolation of fail2ban's own
/// configuration files are already expanded; `<HOST>` and the `<F-…>` tags are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// Name of the filter, for messages.
    pub name: String,
    /// Must match first; its `<F-CONTENT>` is what failregex sees.
    pub prefregex: Option<String>,
    /// One failure each; empty: nothing is found.
    pub failregex: Vec<String>,
    /// A line that one of these matches and no failregex does says that a user came in: his failures
    /// from that address are forgiven.
    pub successregex: Vec<String>,
    /// A line that one of these matches is no failure.
    pub ignoreregex: Vec<String>,
    /// The lines are documents: which of them are failures. What is no document meets failregex.
    pub document: Option<Document>,
    /// Date patterns in fail2ban's words (`%Y-%m-%d …`, `{^LN-BEG}`, `EPOCH`, `{NONE}`);
    /// empty: the default templates.
    pub datepattern: Vec<String>,
    /// Lines that a pattern may span; 1 unless the filter says otherwise.
    pub maxlines: usize,
    /// Zone of time stamps without one: an IANA name or `UTC+0200`; `None`: the system's.
    pub logtimezone: Option<String>,
    /// It may be written for lines as a container engine wraps them: those are tried, too, where the
    /// text within matches nothing.
    pub wrapped: bool,
    /// Take host names for addresses (the field `dns`; who resolves it is not decided here).
    /// Off: an attacker chooses what would be resolved.
    pub usedns: bool,
    /// Whose `<F-XFF>` or `<F-FORWARDED>` is believed; whoever else is named so is the client himself.
    pub proxies: Vec<IpNet>,
    /// What `<LIST:NAME>` stands for: those lists that the patterns name.
    pub words: Words,
}

impl Spec {
    /// Returns whether a pattern captures the chain of proxies through which a client came.
    #[must_use]
    pub fn asks_proxies(&self) -> bool {
        let patterns = [&self.failregex, self.prefregex.as_slice()];
        patterns.iter().any(|patterns| client::asks(patterns))
            || self.document.as_ref().is_some_and(Document::asks_proxies)
    }

    /// Returns the lists of words that its patterns name.
    pub fn lists(&self) -> impl Iterator<Item = &str> {
        let text = self.failregex.iter().chain(&self.successregex).chain(&self.ignoreregex);
        let text = text.chain(&self.prefregex);
        let documents = self.document.iter().flat_map(Document::all_patterns);
        text.chain(documents).flat_map(|pattern| words::named(pattern))
    }

    /// Returns whether it counts nothing: for bans by hand.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.failregex.is_empty() && self.document.is_none()
    }

    /// Returns whether a pattern captures this field, or a document has a path for it.
    #[must_use]
    pub fn has_field(&self, name: &str) -> bool {
        let tag = name.to_ascii_uppercase();
        let forms = [format!("<F-{tag}>"), format!("_{tag}>"), format!("(?P<{name}>")];
        let names = |pattern: &String| forms.iter().any(|form| pattern.contains(form));
        let document = self.document.iter();
        self.failregex.iter().chain(&self.prefregex).any(names)
            || document.clone().any(|document| document.fields.contains_key(name))
            || document.flat_map(Document::patterns).any(names)
    }

    /// Returns the patterns that take an IPv6 address with `:PORT` behind it and without, so that
    /// some addresses without brackets name nobody, each with its key; one that does not compile is
    /// none.
    pub fn optional_ports(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let of = |key, pattern, multiline| (key, String::as_str(pattern), multiline);
        let prefregex = self.prefregex.iter().map(move |pattern| of("prefregex", pattern, false));
        let several = self.maxlines > 1;
        let failregex = self.failregex.iter().map(move |pattern| of("failregex", pattern, several));
        prefregex.chain(failregex).filter_map(|(key, source, multiline)| {
            pattern::optional_port(source, &self.words, self.usedns, multiline)
                .then_some((key, source))
        })
    }

    /// Returns what a failure can come of, as people read it, by the index that
    /// [`Failure::pattern`] has.
    #[must_use]
    pub fn patterns(&self) -> Vec<String> {
        let documents = self.document.iter().flat_map(|document| &document.wanted);
        self.failregex.iter().cloned().chain(documents.map(document::said)).collect()
    }
}

/// One failure that a line reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Who; `None` where the pattern named no address but an id (`<F-ID>`) or a name.
    pub address: Option<IpAddr>,
    /// `<F-ID>`/`<CIDR>` text where the failure is not of one address.
    pub id: Option<String>,
    /// When, by the line's own time stamp; `None` where it has none.
    pub time: Option<Timestamp>,
    /// The `<F-NAME>` fields, lower-case names without `F-` (`user`, `mlfid` …).
    pub fields: BTreeMap<String, String>,
    /// Index into [`Spec::failregex`], and from its end on into the conditions of documents.
    pub pattern: usize,
    /// It is none: this user came in from there.
    pub success: bool,
}

/// Why a filter cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A pattern does not compile.
    #[error("filter {filter}: {key} '{pattern}': {reason}")]
    Pattern {
        /// Name of the filter.
        filter: String,
        /// `prefregex`, `failregex` or `ignoreregex`, `where` or `unless`.
        key: &'static str,
        /// The pattern as written.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A pattern names neither an address nor an id.
    #[error(
        "filter {filter}: failregex '{pattern}' names no address: it needs <ADDR>, <HOST> or <F-ID>"
    )]
    NoAddress {
        /// Name of the filter.
        filter: String,
        /// The pattern as written.
        pattern: String,
    },
    /// A date pattern does not compile.
    #[error("filter {filter}: datepattern '{pattern}': {reason}")]
    Date {
        /// Name of the filter.
        filter: String,
        /// The pattern as written.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A success that names no user: it would forgive what others failed at.
    #[error(
        "filter {filter}: successregex '{pattern}' has to capture the address and <F-USER>: what is forgiven are that user's failures"
    )]
    NoUser {
        /// Name of the filter.
        filter: String,
        /// The pattern as written.
        pattern: String,
    },
    /// There is no such zone.
    #[error(
        "filter {filter}: logtimezone '{zone}' is neither an offset like UTC+0200 nor a zone like Europe/Zurich"
    )]
    Zone {
        /// Name of the filter.
        filter: String,
        /// The zone as written.
        zone: String,
    },
}
