//! One date pattern, compiled: finds a date in a line and reads it. Knows fail2ban's notation
//! (`%Y`, `%Ex…`, `EPOCH`, `TAI64N`, `{^LN-BEG}`, `{UNB}`, `**`), not which pattern is tried when.

use std::{
    ops::Range,
    sync::{LazyLock, OnceLock},
};

use jiff::{Timestamp, tz::TimeZone};
use regex::Regex;

use super::fields::Fields;
use crate::filter::{pattern::Engine, python};

/// A place that is no word on one of its sides, or no word at all: where a date may end.
const END: &str = r"(?:\b{end-half}|\b)";
/// Where a date may begin.
const BEGIN: &str = r"(?:^|\b|\b{end-half})";
/// The beginning of a line, give or take a bracket.
const LINE: &str = r"^(?:\W{0,2})?";
/// Seconds since 1970.
const EPOCH: &str = r"[0-9]{10,11}\b(?:\.[0-9]{3,6})?";
/// The same, or milliseconds or microseconds.
const LONG_EPOCH: &str = r"[0-9]{10,11}(?:[0-9]{3}(?:\.[0-9]{1,6}|[0-9]{3})?)?";

/// How the text of a date becomes an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fields,
    Epoch {
        long: bool,
    },
    Tai64n,
    /// `{NONE}`: lines have no date.
    None,
}

/// A date pattern.
#[derive(Debug)]
pub(super) struct Template {
    /// The pattern as written.
    pub name: String,
    /// It matches at an end of the line only.
    pub anchored: bool,
    /// It matches at the beginning of the line only.
    pub line_begin: bool,
    /// A date that it finds may touch a word: literals of a line may be split anywhere.
    pub unbounded: bool,
    kind: Kind,
    regex: String,
    engine: OnceLock<Engine>,
}

/// A date in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The whole match.
    pub span: Range<usize>,
    /// What is cut out of the line.
    pub cut: Range<usize>,
    /// The instant; `None` if the text is no date after all.
    pub time: Option<Timestamp>,
    /// It names its zone, or counts seconds that need none.
    pub absolute: bool,
}

impl Template {
    /// Reads a pattern; it is compiled at its first use, or by [`Template::engine`].
    pub(super) fn new(pattern: &str) -> Result<Template, String> {
        let upper = pattern.to_uppercase();
        let special = |line, kind: Kind, regex: String| Template {
            name: pattern.to_owned(),
            anchored: line,
            line_begin: line,
            unbounded: false,
            kind,
            regex,
            engine: OnceLock::new(),
        };
        let plain = upper.strip_prefix("{^LN-BEG}").or_else(|| upper.strip_prefix('^'));
        let line = plain.is_some();
        match plain.unwrap_or(&upper) {
            "EPOCH" => Ok(special(line, Kind::Epoch { long: false }, epoch(EPOCH, line))),
            "LEPOCH" => Ok(special(line, Kind::Epoch { long: true }, epoch(LONG_EPOCH, line))),
            "TAI64N" => {
                let begin = if line { LINE } else { "" };
                Ok(special(line, Kind::Tai64n, format!("{begin}(@[0-9a-f]{{24}}){END}")))
            }
            _ if upper == "{NONE}" => Ok(special(true, Kind::None, "^()".to_owned())),
            _ => Template::written(pattern),
        }
    }

    /// Returns a pattern with `%` fields or `{EPOCH}`.
    fn written(pattern: &str) -> Result<Template, String> {
        let mut kind = Kind::Fields;
        let source = pattern.trim();
        let unbounded = source.starts_with("{UNB}");
        let source = source.strip_prefix("{UNB}").unwrap_or(source);
        let start = source.starts_with("{^LN-BEG}");
        let source = source.strip_prefix("{^LN-BEG}").unwrap_or(source);
        let alpha = ["%a", "%A", "%b", "%B", "%p", "%c"].iter().any(|field| source.contains(field));
        // flags hold for the whole, wherever they stand
        let flags = EDGES.flags.find(source).map_or("", |flags| flags.as_str());
        let mut source = source.replacen(flags, "", 1);
        for (word, long, regex) in [("{LEPOCH}", true, LONG_EPOCH), ("{EPOCH}", false, EPOCH)] {
            if let Some(at) = source.to_uppercase().find(word) {
                kind = Kind::Epoch { long };
                // a group of its own is all that is cut out
                let whole = !has_group(&source);
                source.replace_range(at..at + word.len(), &format!("(?P<epoch>{regex})"));
                if whole {
                    source = format!("({source})");
                }
            }
        }
        let source = expand(&source)?;
        let body = grouped(&source);
        let bounds = Bounds::of(&source, &body, unbounded, start);
        let body = unstarred(&body);
        let translated = python::translate(&format!("{flags}{body}"), false)?;
        let begin = match (bounds.begin, start) {
            (true, true) => LINE,
            (true, false) => BEGIN,
            (false, _) => "",
        };
        let end = if bounds.end { END } else { "" };
        let case = if alpha { "(?i)" } else { "" };
        Ok(Template {
            name: pattern.to_owned(),
            line_begin: bounds.line_begin,
            anchored: bounds.line_begin || bounds.line_end,
            unbounded: unbounded || bounds.free,
            kind,
            regex: format!("{case}{begin}{}{end}", translated.exact),
            engine: OnceLock::new(),
        })
    }

    /// Returns the compiled pattern.
    pub(super) fn engine(&self) -> Result<&Engine, String> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let engine = Engine::new(&self.regex)?;
        Ok(self.engine.get_or_init(|| engine))
    }

    /// Returns the first date in `line`.
    pub(super) fn find(&self, line: &str, local: &TimeZone, now: Timestamp) -> Option<Found> {
        let engine = self.engine().ok()?;
        let groups = engine.captures(line).ok()??;
        let span = groups.0.first()?.clone()?;
        // The first group that took part is what is cut: alternatives of a pattern have one each.
        let cut = groups.0.iter().skip(1).flatten().next()?.clone();
        let mut absolute = true;
        let time = match self.kind {
            // A pattern may say that such lines have no date of their own.
            _ if cut.is_empty() => None,
            Kind::Fields => {
                let named = |name: &str| {
                    let index = engine.names().find(|named| named.1 == name)?.0;
                    line.get(groups.0.get(index)?.clone()?)
                };
                if named("_sep") != named("_sep2") && named("_sep2").is_some() {
                    return None;
                }
                let mut fields = Fields::default();
                let mut good = true;
                for (index, name) in engine.names() {
                    if let Some(text) = groups.0.get(index).cloned().flatten() {
                        good &= fields.set(name, line.get(text)?).is_some();
                    }
                }
                absolute = fields.offset.is_some();
                if good { fields.instant(local, now) } else { None }
            }
            Kind::Epoch { long } => {
                let text = match engine.names().find(|named| named.1 == "epoch") {
                    Some((index, _)) => groups.0.get(index)?.clone()?,
                    None => cut.clone(),
                };
                seconds(line.get(text)?, long)
            }
            Kind::Tai64n => {
                let hex = line.get(cut.clone())?.get(2..17)?;
                i64::from_str_radix(hex, 16).ok().and_then(|at| Timestamp::from_second(at).ok())
            }
            Kind::None => None,
        };
        Some(Found { span, cut, time, absolute })
    }
}

fn epoch(number: &str, line: bool) -> String {
    if line {
        format!(r"^(?:\[({number})\]|(?:\W{{0,2}})?({number}){END})")
    } else {
        format!(r"(?:^({number}){END}|^\[({number})\]|\baudit\(({number}):[0-9]+\))")
    }
}

/// Seconds, or with `long` milli- or microseconds where the number is long enough.
fn seconds(text: &str, long: bool) -> Option<Timestamp> {
    let value: f64 = text.parse().ok()?;
    let value = match text.len() {
        16.. if long && !text.contains('.') => value / 1e6,
        13.. if long => value / 1e3,
        _ => value,
    };
    // Milliseconds are as much as a number of this size carries.
    #[expect(clippy::cast_possible_truncation, reason = "at most 11 digits before the point")]
    Timestamp::from_millisecond((value * 1000.0).round() as i64).ok()
}

/// What the beginning and the end of a pattern ask for.
struct Bounds {
    begin: bool,
    end: bool,
    line_begin: bool,
    line_end: bool,
    /// `**` switches a boundary off.
    free: bool,
}

impl Bounds {
    /// `body` is `source` with its group; `start`: it is meant for the beginning of a line.
    fn of(source: &str, body: &str, unbounded: bool, start: bool) -> Bounds {
        let begin = !unbounded && !EDGES.no_begin.is_match(source);
        let end = !unbounded && !EDGES.no_end.is_match(source);
        Bounds {
            begin,
            end,
            line_begin: if begin { start } else { EDGES.line_begin.is_match(body) },
            line_end: !end && EDGES.line_end.is_match(body),
            free: EDGES.stars_before.is_match(body) || EDGES.stars_behind.is_match(body),
        }
    }
}

/// How the edges of a pattern are told; what is escaped means itself.
struct Edges {
    flags: Regex,
    /// It begins so that no boundary is needed before it.
    no_begin: Regex,
    /// It ends so that none is needed behind it.
    no_end: Regex,
    line_begin: Regex,
    line_end: Regex,
    /// `**` in front and at the end means that a boundary is not wanted.
    stars_before: Regex,
    stars_behind: Regex,
}

static EDGES: LazyLock<Edges> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the patterns are ours")]
    let rule = |pattern: &str| Regex::new(pattern).expect("a valid pattern");
    Edges {
        flags: rule(r"\(\?[a-z]+\)"),
        no_begin: rule(r"^\(*(?:\(\?\w+\))?(?:\^|\(*\*\*|\((?:\?:)?\^)"),
        no_end: rule(r"(?:^|[^\\])(?:\$\)?|\\b|\\s|\*\*\)*)$"),
        line_begin: rule(r"^(?:\(\?\w+\))?(?:\^|\((?:\?:)?\^(?:[^|]|$))"),
        line_end: rule(r"(?:^|[^\\|])\$\)?$"),
        stars_before: rule(r"^(\(*(?:\(\?\w+\))?\(*)\*\*"),
        stars_behind: rule(r"(^|[^\\])\*\*(\)*)$"),
    }
});

/// Returns the pattern without the stars that only switch a boundary off.
fn unstarred(body: &str) -> String {
    let body = EDGES.stars_before.replace(body, "$1");
    EDGES.stars_behind.replace(&body, "$1$2").into_owned()
}

/// Returns the pattern with a first group around what is to be cut, unless it has a group of its
/// own.
fn grouped(source: &str) -> String {
    if has_group(source) {
        return source.to_owned();
    }
    let (caret, rest) = match source.strip_prefix('^') {
        Some(rest) => ("^", rest),
        None => ("", source),
    };
    let (body, dollar) = match rest.strip_suffix('$') {
        Some(body) if !body.ends_with('\\') => (body, "$"),
        _ => (rest, ""),
    };
    format!("{caret}({body}){dollar}")
}

/// Returns whether there is a plain group `(…)`.
fn has_group(source: &str) -> bool {
    let bytes = source.as_bytes();
    bytes.iter().enumerate().any(|(at, byte)| {
        let before = at.checked_sub(1).and_then(|at| bytes.get(at));
        *byte == b'(' && before != Some(&b'\\') && bytes.get(at + 1) != Some(&b'?')
    })
}

/// Replaces the `%` fields by groups, and the back-reference to a separator by a second group.
fn expand(source: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = source;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let field = after
            .strip_prefix("Ex")
            .and_then(|tail| tail.chars().next())
            .and_then(|c| extended(c).map(|text| (text, 3)))
            .or_else(|| after.chars().next().and_then(|c| simple(c).map(|text| (text, 1))));
        let (text, length) = field
            .ok_or_else(|| format!("unknown field %{}", after.chars().next().unwrap_or(' ')))?;
        out.push_str(&text);
        rest = after.get(length..).unwrap_or_default();
    }
    out.push_str(rest);
    let class = out.split_once("(?P<_sep>").and_then(|tail| tail.1.split_once(')')).map(|c| c.0);
    if let Some(class) = class.map(str::to_owned) {
        out = out.replacen("(?P=_sep)", &format!("(?P<_sep2>{class})"), 1);
        out = out.replace("(?P=_sep)", &class);
    }
    Ok(out)
}

const MONTH: &str = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec";
const DAY: &str = "3[01]|[12][0-9]|0[1-9]|[1-9]| [1-9]";
const CLOCK: &str =
    "(?P<H>2[0-3]|[01][0-9]|[0-9]):(?P<M>[0-5][0-9]|[0-9]):(?P<S>6[01]|[0-5][0-9]|[0-9])";

fn simple(field: char) -> Option<String> {
    let group = |text: &str| format!("(?P<{field}>{text})");
    Some(match field {
        '%' => "%".to_owned(),
        'Y' => group("[0-9]{4}"),
        'y' => group("[0-9][0-9]"),
        'm' => group("0?[1-9]|1[0-2]"),
        'b' => group(MONTH),
        'B' => group(
            "january|february|march|april|may|june|july|august|september|october|november|december",
        ),
        'a' => group("mon|tue|wed|thu|fri|sat|sun"),
        'A' => group("monday|tuesday|wednesday|thursday|friday|saturday|sunday"),
        'd' => group("[12][0-9]|[0 ]?[1-9]|3[01]"),
        'H' => group("[01]?[0-9]|2[0-3]"),
        'I' => group("1[0-2]|0[1-9]|[1-9]"),
        'k' => " ?(?P<H>[0-2]?[0-9])".to_owned(),
        'l' => " ?(?P<I>1?[0-9])".to_owned(),
        'M' => group("[0-5]?[0-9]"),
        'S' => group("[0-5]?[0-9]|6[01]"),
        // up to nanoseconds, as Go writes them; strptime knows six digits
        'f' => group("[0-9]{1,9}"),
        'p' => group("am|pm"),
        'j' => group("36[0-6]|3[0-5][0-9]|[12][0-9][0-9]|0[1-9][0-9]|00[1-9]|[1-9][0-9]|[1-9]"),
        'U' | 'W' => group("5[0-3]|[0-4][0-9]|[0-9]"),
        'w' => group("[0-6]"),
        // of ISO weeks nothing is read
        'G' => group("[0-9]{4}"),
        'u' => group("[1-7]"),
        'V' => group("5[0-3]|0[1-9]|[1-4][0-9]|[0-9]"),
        // as the C locale writes them, its parts as narrow as Python's own
        'c' => format!(
            r"(?P<a>mon|tue|wed|thu|fri|sat|sun)\s+(?P<b>{MONTH})\s+(?P<d>{DAY})\s+{CLOCK}\s+(?P<Y>[0-9]{{4}})"
        ),
        'x' => format!("(?P<m>1[0-2]|0[1-9]|[1-9])/(?P<d>{DAY})/(?P<y>[0-9]{{2}})"),
        'X' => CLOCK.to_owned(),
        'z' => group("Z|UTC|GMT|[+-][01][0-9](?::?[0-9]{2})?"),
        'Z' => group("Z|[A-Z]{3,5}"),
        _ => return None,
    })
}

fn extended(field: char) -> Option<String> {
    Some(match field {
        // A year that is near enough to be one.
        'Y' => "(?P<Y>20[0-4][0-9])".to_owned(),
        'y' => "(?P<y>[0-9]{2})".to_owned(),
        'd' => "(?P<d>[12][0-9]|0[1-9]|3[01])".to_owned(),
        'm' => "(?P<m>0[1-9]|1[0-2])".to_owned(),
        'H' => "(?P<H>[01][0-9]|2[0-3])".to_owned(),
        'k' => " ?(?P<H>[01]?[0-9]|2[0-3])".to_owned(),
        'l' => " ?(?P<I>1[0-2]|[0-9])".to_owned(),
        'M' => "(?P<M>[0-5][0-9])".to_owned(),
        'S' => "(?P<S>[0-5][0-9]|6[01])".to_owned(),
        'Z' => "(?P<Z>[A-Z](?:[A-Z]{2,4})?)".to_owned(),
        'z' => {
            let name = "[A-Z](?:[A-Z]{2,4})?";
            format!("(?P<z>(?:{name})?[+-][01][0-9](?::?[0-9]{{2}})?|{name})")
        }
        _ => return None,
    })
}
