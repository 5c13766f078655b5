//! Finds the failures in lines: address, time, fields. Pure: no I/O, and `now` is an argument.
//!
//! A [`Filter`] is compiled once and shared; a [`Scanner`] is one jail's way through its log.
//! Raw lines are searched for texts without which no pattern can match; only what remains is
//! decoded, loses its time stamp and meets the patterns.

mod compile;
#[cfg(test)]
mod dialect;
mod groups;
mod host;
mod literals;
mod multiline;
mod pattern;
mod port;
mod prefilter;
mod python;
mod scan;
mod session;
mod tags;
#[cfg(test)]
mod tests;
mod time;

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;

pub use compile::Filter;
pub use scan::{Counts, MAX_LINE, Outcome, Scanner};

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
    /// A line that one of these matches is no failure.
    pub ignoreregex: Vec<String>,
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
    /// Index into [`Spec::failregex`].
    pub pattern: usize,
}

/// Why a filter cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A pattern does not compile.
    #[error("filter {filter}: {key} '{pattern}': {reason}")]
    Pattern {
        /// Name of the filter.
        filter: String,
        /// `prefregex`, `failregex` or `ignoreregex`.
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
