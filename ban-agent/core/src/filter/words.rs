//! `<LIST:NAME>` in patterns: one of the words of a list, which may be long. The words become one
//! expression with the shape of a tree of letters, in which an engine has few ways to go at any
//! letter, whatever the number of words.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

/// Lists of words, by name.
pub type Words = BTreeMap<String, Arc<[String]>>;

/// Opens the tag.
const OPEN: &str = "<LIST:";
/// Deeper than this the words stand side by side.
const MAX_DEPTH: usize = 40;

/// Returns the names of the lists that `pattern` refers to.
pub(super) fn named(pattern: &str) -> impl Iterator<Item = &str> {
    pattern.split(OPEN).skip(1).filter_map(|rest| rest.split_once('>').map(|(name, _)| name))
}

/// `pattern` with each list as an expression.
///
/// # Errors
/// There is no such list, or it is empty.
pub(super) fn expand<'p>(pattern: &'p str, words: &Words) -> Result<Cow<'p, str>, String> {
    replace(pattern, |name| {
        let list = words.get(name).ok_or_else(|| {
            let known: Vec<&str> = words.keys().map(String::as_str).collect();
            format!("there is no list '{name}' in [words], only {}", known.join(", "))
        })?;
        if list.iter().all(String::is_empty) {
            return Err(format!("the list '{name}' is empty"));
        }
        Ok(expression(list))
    })
}

/// `pattern` with a sign of its own in the place of each list: nothing else holds it.
pub(super) fn marked(pattern: &str, words: &Words) -> Option<String> {
    let sign = |name: &str| {
        let at = words.keys().position(|known| known == name).ok_or_else(String::new)?;
        Ok(mark(at).map(String::from).unwrap_or_default())
    };
    replace(pattern, sign).ok().map(Cow::into_owned)
}

/// Returns the words that a text with signs of [`marked`] stands for, if it holds one.
pub(super) fn behind<'w>(text: &[u8], words: &'w Words) -> Option<&'w Arc<[String]>> {
    let text = std::str::from_utf8(text).ok()?;
    words.values().enumerate().find_map(|(at, list)| text.contains(mark(at)?).then_some(list))
}

/// Returns the sign of a list: of a plane that is for private use.
fn mark(at: usize) -> Option<char> {
    char::from_u32(0xf_0000 + u32::try_from(at).ok()?)
}

fn replace<'p>(
    pattern: &'p str,
    mut with: impl FnMut(&str) -> Result<String, String>,
) -> Result<Cow<'p, str>, String> {
    if !pattern.contains(OPEN) {
        return Ok(Cow::Borrowed(pattern));
    }
    let (mut out, mut rest) = (String::new(), pattern);
    while let Some((before, after)) = rest.split_once(OPEN) {
        let (name, after) =
            after.split_once('>').ok_or_else(|| format!("'{OPEN}' without its '>'"))?;
        out.push_str(before);
        out.push_str(&with(name)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

/// Returns an expression for one of these words, the longest that fits.
fn expression(words: &[String]) -> String {
    let mut words: Vec<&str> = words.iter().map(String::as_str).filter(|w| !w.is_empty()).collect();
    words.sort_unstable();
    words.dedup();
    let mut out = String::new();
    tree(&words, 0, &mut out);
    out
}

/// Writes sorted words as a tree.
fn tree(words: &[&str], depth: usize, out: &mut String) {
    let (end, rest) = match words.split_first() {
        Some((&"", rest)) => (true, rest),
        _ => (false, words),
    };
    if rest.is_empty() {
        return;
    }
    out.push_str("(?:");
    if depth >= MAX_DEPTH {
        // longer words first: the first that fits is taken
        for (at, word) in rest.iter().rev().enumerate() {
            out.push_str(if at == 0 { "" } else { "|" });
            escape(word, out);
        }
    } else {
        let branches = rest.chunk_by(|a, b| a.chars().next() == b.chars().next());
        for (at, branch) in branches.enumerate() {
            let (first, last) = (branch.first().copied(), branch.last().copied());
            let shared = common(first.unwrap_or_default(), last.unwrap_or_default());
            out.push_str(if at == 0 { "" } else { "|" });
            escape(shared, out);
            let ends: Vec<&str> =
                branch.iter().filter_map(|word| word.get(shared.len()..)).collect();
            tree(&ends, depth + 1, out);
        }
    }
    out.push_str(if end { ")?" } else { ")" });
}

/// Returns what both texts begin with.
fn common<'t>(a: &'t str, b: &str) -> &'t str {
    let same = a.char_indices().zip(b.chars()).find(|((_, x), y)| x != y);
    let end = same.map_or(a.len().min(b.len()), |((at, _), _)| at);
    a.get(..end).unwrap_or_default()
}

/// Writes a text as a pattern of itself, in Python's notation.
fn escape(text: &str, out: &mut String) {
    for sign in text.chars() {
        match sign {
            // no tag
            '<' => out.push_str("[<]"),
            sign if r"\.+*?()|[]{}^$# ".contains(sign) => out.extend(['\\', sign]),
            sign => out.push(sign),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against plain comparison: what fits is the longest word that the text begins with.
        #[test]
        fn a_list_is_any_of_its_words(
            list in prop::collection::vec(r"[ab/.*\[ <é]{0,5}", 1..20),
            text in r"[ab/.*\[ <é]{0,8}",
        ) {
            let words = Words::from([("x".to_owned(), list.clone().into())]);
            let expanded = expand("^<LIST:x>", &words);
            if list.iter().all(String::is_empty) {
                prop_assert!(expanded.is_err());
                return Ok(());
            }
            let regex = regex::Regex::new(&expanded.unwrap()).unwrap();
            let fits = list.iter().filter(|word| !word.is_empty() && text.starts_with(&***word));
            let expected = fits.map(String::len).max();
            prop_assert_eq!(regex.find(&text).map(|found| found.len()), expected);
        }
    }

    #[test]
    fn words_share_their_beginnings() {
        let list: Arc<[String]> =
            ["/wp", "/wp-login.php", "/wp-admin", "/x"].map(Into::into).into();
        let words = Words::from([("a".to_owned(), list)]);
        assert_eq!(
            expand("<LIST:a>$", &words).unwrap(),
            r"(?:/(?:wp(?:-(?:admin|login\.php))?|x))$"
        );
        assert!(expand("<LIST:b>", &words).unwrap_err().contains("'b' in [words], only a"));
        assert!(expand("<LIST:b", &words).is_err());
        let deep: Vec<String> = (1..200).map(|length| "a".repeat(length)).collect();
        let words = Words::from([("a".to_owned(), deep.into())]);
        let regex = regex::Regex::new(&expand("^<LIST:a>", &words).unwrap()).unwrap();
        assert_eq!(regex.find(&"a".repeat(500)).unwrap().len(), 199);
    }
}
