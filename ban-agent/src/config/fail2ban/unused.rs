//! Finds words that mean nothing: neither known, nor referred to by another word. A slip in a key
//! is found this way, while an operator's own variables are left alone.

use super::{ini::Place, merge::Config};

/// Rounds of tags inside tags.
const MAX_DEPTH: usize = 6;
/// Stands for whatever an inner tag may become.
const ANY: char = '\u{1}';
/// How near a known word has to be to be named.
const NEAR: usize = 3;

/// All that the values of a configuration refer to, as `%(…)s` or `<…>`.
#[derive(Debug, Default)]
pub(super) struct References(Vec<String>);

impl References {
    /// Those of all values of `config`, and of the texts besides.
    pub(super) fn of<'t>(config: &'t Config, more: impl Iterator<Item = &'t str>) -> References {
        let mut references = References::default();
        config.texts().chain(more).for_each(|text| references.add(text));
        references.0.sort_unstable();
        references.0.dedup();
        references
    }

    fn add(&mut self, text: &str) {
        for part in text.split("%(").skip(1) {
            self.0.extend(part.split_once(")s").map(|(name, _)| name.to_lowercase()));
        }
        let mut text = text.to_owned();
        for _ in 0..MAX_DEPTH {
            let tags = innermost(&text);
            for tag in &tags {
                text = text.replace(&format!("<{tag}>"), &ANY.to_string());
            }
            if tags.is_empty() {
                return;
            }
            self.0.extend(tags.into_iter().map(|tag| tag.to_lowercase()));
        }
    }

    /// Returns whether something refers to this key.
    pub(super) fn has(&self, key: &str) -> bool {
        let key = key.split('?').next().unwrap_or(key);
        self.0.iter().any(|reference| {
            let (_, last) = reference.rsplit_once('/').unwrap_or(("", reference));
            fits(last, key)
        })
    }
}

/// Tags without a tag inside.
fn innermost(text: &str) -> Vec<String> {
    let pieces = text.split('<').skip(1);
    let tags = pieces.filter_map(|piece| piece.split_once('>').map(|(tag, _)| tag));
    tags.filter(|tag| !tag.is_empty() && !tag.contains(' ')).map(str::to_owned).collect()
}

/// Returns whether `key` is what `pattern` may become.
fn fits(pattern: &str, key: &str) -> bool {
    let mut parts = pattern.split(ANY);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = key.strip_prefix(first) else { return false };
    let mut open = false;
    for part in parts {
        open = true;
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    // an inner tag at the end may be anything
    rest.is_empty()
        || (open && pattern.ends_with(ANY))
        || (open && key.ends_with(last_part(pattern)))
}

fn last_part(pattern: &str) -> &str {
    pattern.rsplit(ANY).next().unwrap_or_default()
}

/// Returns the keys of a section that mean nothing, where they stand, and what was meant perhaps.
pub(super) fn unused(
    config: &Config,
    section: &str,
    known: &[&str],
    references: &References,
) -> Vec<(Place, String)> {
    let mut found = Vec::new();
    for key in config.keys(section) {
        let base = key.split('?').next().unwrap_or(key);
        if base.starts_with("known/") || known.contains(&base) || references.has(base) {
            continue;
        }
        let Some(value) = config.raw(section, key) else { continue };
        found.push((value.place.clone(), describe(base, known)));
    }
    found
}

/// Returns what to say of an unknown word.
pub(super) fn describe(key: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|word| (strsim::damerau_levenshtein(word, key), word)).min();
    let hint = match nearest {
        Some((distance, word)) if distance <= NEAR.min(key.len() / 2) => {
            format!("; did you mean '{word}'?")
        }
        _ => String::new(),
    };
    format!("'{key}' is not a fail2ban option, and nothing refers to it: it has no effect{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_found_through_tags_in_tags() {
        let mut references = References::default();
        references.add("%(log)s %(DEFAULT/where)s <mdre-<mode>> <lt_<logtype>/prefix> a < b> <x>");
        for (key, used) in [
            ("log", true),
            ("where", true),
            ("mode", true),
            ("mdre-loud", true),
            ("mdre", false),
            ("prefix", true),
            ("x", true),
            ("x?family=inet6", true),
            ("b", false),
            ("lo", false),
        ] {
            assert_eq!(references.has(key), used, "{key}");
        }
        assert!(fits("a-\u{1}-b", "a-x-b") && !fits("a-\u{1}-b", "a-x-c"));
    }

    #[test]
    fn the_nearest_word_is_named() {
        assert!(
            describe("maxretri", &["maxretry", "bantime"]).ends_with("did you mean 'maxretry'?")
        );
        assert!(describe("colour", &["maxretry", "bantime"]).ends_with("it has no effect"));
    }
}
