//! What the names of rotated logs tell: which belong together, and which came later. Pure.

use std::cmp::Ordering;

const COMPRESSED: [&str; 9] = ["gz", "bz2", "xz", "zst", "lz4", "lzma", "Z", "zip", "7z"];

/// The age that a rotated file's name tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// `log.1`: the smaller, the newer.
    Number(u32),
    /// `log-20261120`: the greater, the newer.
    Date(String),
}

impl Age {
    /// `Less` is older. Names of different schemes cannot be compared.
    pub(super) fn compare(&self, other: &Age) -> Option<Ordering> {
        match (self, other) {
            (Age::Number(a), Age::Number(b)) => Some(b.cmp(a)),
            (Age::Date(a), Age::Date(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    /// The same for sorting: of different schemes, numbers come first.
    pub(super) fn order(&self, other: &Age) -> Ordering {
        let scheme = |age: &Age| matches!(age, Age::Date(_));
        self.compare(other).unwrap_or_else(|| scheme(self).cmp(&scheme(other)))
    }
}

/// Returns the age of `name` if it is a readable rotation of `base`: `base.1`, `base-20261120`,
/// `stem.1.ext`, `stem-20261120.ext`.
pub(super) fn age(base: &str, name: &str) -> Option<Age> {
    if let Some(suffix) = name.strip_prefix(base) {
        return tag(suffix);
    }
    let (stem, extension) = base.rsplit_once('.')?;
    tag(name.strip_prefix(stem)?.strip_suffix(extension)?.strip_suffix('.')?)
}

/// A name that a glob matches, but that only holds what was read under another name.
pub(super) fn is_rotation(name: &str) -> bool {
    let Some((base, extension)) = name.rsplit_once('.') else { return false };
    if base.is_empty() {
        return false;
    }
    let numbered = (1..=3).contains(&extension.len()) && is_digits(extension);
    let dated = extension.split_once('-').is_some_and(|(_, date)| is_date(date));
    COMPRESSED.contains(&extension) || numbered || dated
}

/// `.1`, `-20261120`, `.2026-11-20`, `-20261120-1200`.
fn tag(suffix: &str) -> Option<Age> {
    let body = suffix.strip_prefix(['.', '-', '_'])?;
    if body.len() <= 4 && is_digits(body) {
        return body.parse().ok().map(Age::Number);
    }
    is_date(body).then(|| Age::Date(body.to_owned()))
}

fn is_date(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    digits >= 8 && text.bytes().all(|byte| byte.is_ascii_digit() || b"-_.T:".contains(&byte))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        let number = |n| Some(Age::Number(n));
        let date = |text: &str| Some(Age::Date(text.to_owned()));
        for (base, name, expected) in [
            ("auth.log", "auth.log.1", number(1)),
            ("auth.log", "auth.log.12", number(12)),
            ("auth.log", "auth.1.log", number(1)),
            ("auth.log", "auth.log-20261120", date("20261120")),
            ("auth.log", "auth-2026-11-20.log", date("2026-11-20")),
            ("auth.log", "auth.log", None),
            ("auth.log", "auth.log.1.gz", None),
            ("auth.log", "auth.log.old", None),
            ("auth.log", "auth.login", None),
            ("auth.log", "authx.log", None),
            ("messages", "messages.2", number(2)),
        ] {
            assert_eq!(age(base, name), expected, "{base} {name}");
        }
    }

    #[test]
    fn newer() {
        let compare = |a, b| age("l", a).unwrap().compare(&age("l", b).unwrap());
        assert_eq!(compare("l.2", "l.1"), Some(Ordering::Less));
        assert_eq!(compare("l.2", "l.10"), Some(Ordering::Greater));
        assert_eq!(compare("l-20261119", "l-20261120"), Some(Ordering::Less));
        assert_eq!(compare("l-20261119", "l.1"), None);
    }

    #[test]
    fn rotations_that_globs_skip() {
        for name in ["a.log.1", "a.log.12", "a.log.2.gz", "a.xz", "a.log-20261120", "a.zst"] {
            assert!(is_rotation(name), "{name}");
        }
        for name in ["a.log", "a-20261120.log", "20261120", ".1", "a.5432", "gz", "a.log.old"] {
            assert!(!is_rotation(name), "{name}");
        }
    }
}
