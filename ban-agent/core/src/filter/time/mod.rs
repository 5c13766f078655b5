//! Time stamps: finds the date in a line and reads it, as fail2ban does, with patterns that move
//! to the front where they are used. `now` is an argument.

mod fields;
mod template;
mod zone;

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use jiff::{Timestamp, tz::TimeZone};

use template::{Found, Template};

/// The date patterns of a filter.
#[derive(Debug)]
pub(super) struct Dates {
    templates: Vec<Arc<Template>>,
    local: TimeZone,
}

/// What the line says of its time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    /// What is to be cut out of the line.
    pub cut: Range<usize>,
    /// The time; `None` if the text that looked like one is none.
    pub time: Option<Timestamp>,
    /// It says in which zone it is meant, or needs none.
    pub absolute: bool,
}

impl Dates {
    /// Compiles date patterns; none means the default ones.
    ///
    /// # Errors
    /// The pattern, and what is wrong with it.
    pub(super) fn new(patterns: &[String]) -> Result<Dates, (String, String)> {
        let mut templates: Vec<Arc<Template>> = Vec::new();
        let mut add = |template: Arc<Template>| {
            if templates.iter().all(|known| known.name != template.name) {
                templates.push(template);
            }
        };
        for pattern in patterns {
            let bad = |reason| (pattern.clone(), reason);
            let upper = pattern.to_uppercase();
            if upper == "{DEFAULT}" {
                defaults().iter().cloned().for_each(&mut add);
            } else if upper == "{^LN-BEG}" {
                defaults().iter().filter(|known| known.line_begin).cloned().for_each(&mut add);
            } else if let Some(at) = upper.find("{DATE}") {
                for default in DEFAULTS {
                    let default = default.strip_prefix("{^LN-BEG}").unwrap_or(default);
                    let mut whole = pattern.clone();
                    whole.replace_range(at..at + "{DATE}".len(), default);
                    let template = Template::new(&whole).map_err(bad)?;
                    add(Arc::new(template));
                }
            } else {
                let template = Template::new(pattern).map_err(bad)?;
                template.engine().map_err(bad)?;
                add(Arc::new(template));
            }
        }
        if templates.is_empty() {
            templates = defaults().to_vec();
        }
        Ok(Dates { templates, local: TimeZone::system() })
    }

    /// Sets the zone of dates without one; false if there is no such zone.
    pub(super) fn set_zone(&mut self, name: &str) -> bool {
        let zone = zone::parse(name);
        let known = zone.is_some();
        self.local = zone.unwrap_or_else(|| self.local.clone());
        known
    }

    /// A date may lie in the midst of a word.
    pub(super) fn unbounded(&self) -> bool {
        self.templates.iter().any(|template| template.unbounded)
    }
}

/// fail2ban's default date formats, in its order: the first that fits at the least distance from
/// the line's beginning wins.
const DEFAULTS: &[&str] = &[
    // ISO 8601 and its relatives: 2026-11-20 12:00:00,123 +0100
    r"%ExY(?P<_sep>[-/.])%m(?P=_sep)%d(?:T|  ?)%H:%M:%S(?:[.,]%f)?(?:\s*%z)?",
    // syslog, asctime: Fri Nov 20 12:00:00.123 2026
    r"(?:%a )?%b %d %k:%M:%S(?:\.%f)?(?: %ExY)?",
    r"(?:%a )?%b %d %ExY %k:%M:%S(?:\.%f)?",
    // 20/11/2026 12:00:00, 20-11-26 12:00:00
    r"%d(?P<_sep>[-/])%m(?P=_sep)(?:%ExY|%Exy) %k:%M:%S",
    // Apache and nginx, BIND: 20/Nov/2026:12:00:00 +0100
    r"%d(?P<_sep>[-/])%b(?P=_sep)%ExY[ :]?%H:%M:%S(?:\.%f)?(?: %z)?",
    // CPanel, Netscape
    r"%m/%d/%ExY:%H:%M:%S",
    r"%m-%d-%ExY %k:%M:%S(?:\.%f)?",
    "EPOCH",
    "{^LN-BEG}%H:%M:%S",
    r"^<%m/%d/%Exy@%H:%M:%S>",
    // MySQL: 261120 12:00:00
    r"%Exy%Exm%Exd  ?%H:%M:%S",
    // Java: Nov 20, 2026 12:00:00 PM
    r"%b %d, %ExY %I:%M:%S %p",
    r"^%b-%d-%Exy %k:%M:%S",
    // ISO 8601 without separators: 20261120T120000Z
    r"%ExY%Exm%Exd(?:T|  ?)%ExH%ExM%ExS(?:[.,]%f)?(?:\s*%z)?",
    // a zone in front
    r"(?:%Z )?(?:%a )?%b %d %k:%M:%S(?:\.%f)?(?: %ExY)?",
    r"(?:%z )?(?:%a )?%b %d %k:%M:%S(?:\.%f)?(?: %ExY)?",
    "TAI64N",
];

/// Returns the default patterns: first those that hold a line's beginning, then anywhere.
fn defaults() -> &'static [Arc<Template>] {
    static DEFAULT: OnceLock<Vec<Arc<Template>>> = OnceLock::new();
    DEFAULT.get_or_init(|| {
        let anchored = |pattern: &&&str| !pattern.starts_with(['^', '{']);
        let first = DEFAULTS.iter().filter(anchored).map(|pattern| format!("{{^LN-BEG}}{pattern}"));
        let then = DEFAULTS.iter().map(|&pattern| pattern.to_owned());
        first.chain(then).filter_map(|pattern| Template::new(&pattern).ok().map(Arc::new)).collect()
    })
}

/// A pattern's record in one log.
#[derive(Debug)]
struct Slot {
    template: Arc<Template>,
    hits: u32,
    /// Where it matched last.
    distance: usize,
}

impl Slot {
    /// Hits per distance, as a fraction; patterns that hold the line's beginning weigh more.
    fn weight(&self) -> (u64, u64) {
        let factor = if self.template.name.starts_with("{^LN-BEG}") { 100 } else { 1 };
        let distance = u64::try_from(self.distance).unwrap_or(u64::MAX).max(1);
        (u64::from(self.hits) * factor, distance)
    }

    fn outweighs(&self, other: &Slot) -> bool {
        let ((a, b), (c, d)) = (self.weight(), other.weight());
        u128::from(a) * u128::from(d) > u128::from(c) * u128::from(b)
    }
}

/// Finds dates in the lines of one log, and remembers which pattern found them.
#[derive(Debug)]
pub(super) struct Detector {
    slots: Vec<Slot>,
    local: TimeZone,
    /// The slot that matched last.
    last: usize,
    /// Where it matched.
    span: Range<usize>,
}

impl Detector {
    pub(super) fn new(dates: &Dates) -> Detector {
        let slot = |template: &Arc<Template>| Slot {
            template: Arc::clone(template),
            hits: 0,
            distance: usize::MAX,
        };
        Detector {
            slots: dates.templates.iter().map(slot).collect(),
            local: dates.local.clone(),
            last: usize::MAX,
            span: 1..usize::MAX,
        }
    }

    /// Returns the date of `line`; `None` if it has none.
    pub(super) fn find(&mut self, line: &str, now: Timestamp) -> Option<Stamp> {
        let (index, found) = self.search(line, now)?;
        self.span = found.span.clone();
        if let Some(slot) = self.slots.get_mut(index) {
            slot.hits = slot.hits.saturating_add(1);
            slot.distance = found.span.start;
        }
        self.last = if index == 0 || index == self.last { index } else { self.promote(index) };
        Some(Stamp { cut: found.cut, time: found.time, absolute: found.absolute })
    }

    /// The pattern that matched last goes first; where it matches elsewhere than it did, others
    /// are asked too, and the match nearest to the line's beginning wins.
    fn search(&self, line: &str, now: Timestamp) -> Option<(usize, Found)> {
        let mut best: Option<(usize, Found)> = None;
        let known = self.slots.get(self.last);
        if let Some(found) = known.and_then(|slot| slot.template.find(line, &self.local, now)) {
            let anchored = known.is_some_and(|slot| slot.template.anchored);
            if self.slots.len() == 1 || anchored || found.span == self.span {
                return Some((self.last, found));
            }
            best = Some((self.last, found));
        }
        for (index, slot) in self.slots.iter().enumerate() {
            if index == self.last {
                continue;
            }
            let Some(found) = slot.template.find(line, &self.local, now) else { continue };
            let start = found.span.start;
            let next = self.slots.get(index + 1);
            let settled = next.is_none()
                || slot.template.anchored
                || (start == 0 && slot.hits > 0 && next.is_some_and(|next| next.hits == 0));
            if settled || (start <= slot.distance && start <= self.span.start) {
                // The last of the list does not beat what was put aside.
                return Some(match best {
                    Some(best) if best.1.span.start < start => best,
                    _ => (index, found),
                });
            }
            if best.as_ref().is_none_or(|best| start < best.1.span.start) {
                best = Some((index, found));
            }
        }
        best
    }

    /// Moves the slot towards the front if it is used more than what stands there.
    fn promote(&mut self, index: usize) -> usize {
        let unused = self.slots.iter().position(|slot| slot.hits == 0).unwrap_or(self.slots.len());
        let better = |to: usize| match (self.slots.get(index), self.slots.get(to)) {
            (Some(slot), Some(other)) => slot.outweighs(other),
            _ => false,
        };
        let first = if unused < index { unused } else { index / 2 };
        let Some(to) = [first, index.saturating_sub(1)].into_iter().find(|to| better(*to)) else {
            return index;
        };
        if let Some(part) = self.slots.get_mut(to..=index) {
            part.rotate_right(1);
        }
        to
    }
}

/// Returns a time as a number since 1970: of seconds, or of milli-, micro- or nanoseconds, by its
/// size. `None`: the text is no number, or none of a time in 1973 to 5138.
pub(super) fn number(text: &str) -> Option<Timestamp> {
    if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || b"eE+".contains(&byte)) {
        return None;
    }
    let value: f64 = text.parse().ok().filter(|value| *value >= 1e8)?;
    let scale = [1e11, 1e14, 1e17].iter().filter(|limit| value >= **limit).count();
    let millis = value * [1e3, 1.0, 1e-3, 1e-6].get(scale)?;
    #[expect(clippy::cast_possible_truncation, reason = "far below 2^63, and checked by the type")]
    let millis = millis.round() as i64;
    Timestamp::from_millisecond(millis).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECES: &[&str] = &[
        "%Y",
        "%ExY",
        "%y",
        "%m",
        "%d",
        "%b",
        "%H",
        "%M",
        "%S",
        "%j",
        "%z",
        "%Z",
        "%p",
        "%I",
        "-",
        ":",
        " ",
        "(",
        ")",
        "^",
        "$",
        "**",
        "{UNB}",
        "{^LN-BEG}",
        "{EPOCH}",
        "{DATE}",
        "(?P<_sep>[-/])",
        "(?P=_sep)",
        "\\s",
        "[",
        "?",
    ];
    const TEXT: &[&str] = &[
        "2026",
        "26",
        "11",
        "30",
        "Feb",
        "feb",
        "31",
        "12:00:00",
        "99",
        "-",
        "/",
        ":",
        " ",
        "T",
        "Z",
        "+0100",
        "+99",
        "1795172400",
        "99999999999",
        "@400000006b002830",
        "1dcd6500",
        "PM",
        "\u{fc}",
        "[",
        "]",
        "366",
        ".123456",
    ];

    proptest::proptest! {
        #[test]
        fn any_pattern_over_any_text_is_survived(
            pattern in proptest::collection::vec(0..PIECES.len(), 1..10),
            text in proptest::collection::vec(0..TEXT.len(), 0..16),
        ) {
            let join = |all: &[&str], picks: &[usize]| -> String {
                picks.iter().map(|pick| all[*pick]).collect()
            };
            let line = join(TEXT, &text);
            for patterns in [vec![join(PIECES, &pattern)], Vec::new()] {
                let Ok(dates) = Dates::new(&patterns) else { continue };
                let mut detector = Detector::new(&dates);
                for _ in 0..2 {
                    if let Some(stamp) = detector.find(&line, Timestamp::UNIX_EPOCH) {
                        proptest::prop_assert!(line.get(stamp.cut).is_some());
                    }
                }
            }
        }
    }
}
