//! Finds the failures in lines: address, time, fields. Pure: no I/O, and `now` is an argument.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;

/// A filter in fail2ban's words, before it is compiled. Tags and interpolation of fail2ban's own
/// configuration files are already expanded; `<HOST>` and the `<F-…>` tags are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// Name of the filter, for messages.
    pub name: String,
    /// Must match first; its `<F-CONTENT>` is what failregex sees.
    pub prefregex: Option<String>,
    /// One failure each.
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
    /// Resolve host names that a line holds. Off: an attacker chooses what would be resolved.
    pub usedns: bool,
}

/// One failure that a line reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Who; `None` where the pattern named no address but an id (`<F-ID>`).
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
