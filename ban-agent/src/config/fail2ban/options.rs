//! The notation `name[key=value, key="value"][key=value]` of filters and actions.

use super::merge::Vars;

/// A name and its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub name: String,
    pub options: Vars,
}

/// Parses one call.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(text: &str) -> Result<Call, String> {
    let text = text.trim();
    let Some((name, rest)) = text.split_once('[') else {
        return Ok(Call { name: text.to_owned(), options: Vars::new() });
    };
    let inside = rest.strip_suffix(']').ok_or("its last ']' is missing")?;
    let mut options = Vars::new();
    let mut rest = inside.trim_start();
    while !rest.is_empty() {
        let equals = rest.find('=').ok_or_else(|| format!("'{rest}' is no key=value"))?;
        // `key?family=inet6=value` is meant for one family of addresses
        let more = rest.get(..equals).filter(|key| key.contains('?')).and_then(|_| {
            let tail = rest.get(equals + 1..)?;
            Some(equals + 1 + tail.find('=')?)
        });
        let (key, tail) = rest.split_at(more.unwrap_or(equals));
        let tail = tail.get(1..).unwrap_or_default();
        let key = key.trim();
        let (plain, condition) = key.split_once('?').unwrap_or((key, "a=b"));
        let condition = condition.split_once('=').is_some_and(|(what, value)| {
            [what, value].iter().all(|part| !part.is_empty() && part.chars().all(word))
        });
        if plain.is_empty() || !plain.chars().all(letter) || !condition {
            return Err(format!("'{key}' is not an option name"));
        }
        let (value, tail) = value(tail)?;
        options.insert(key.to_owned(), value.trim().to_owned());
        rest = next(tail)?;
    }
    Ok(Call { name: name.trim().to_owned(), options })
}

fn word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn letter(c: char) -> bool {
    word(c) || matches!(c, '-' | '.')
}

/// Returns the value that `text` begins with, and what follows it.
fn value(text: &str) -> Result<(&str, &str), String> {
    for quote in ['"', '\''] {
        if let Some(tail) = text.strip_prefix(quote) {
            return tail.split_once(quote).ok_or_else(|| format!("a {quote} is missing"));
        }
    }
    Ok(text.split_at(text.find([',', ']']).unwrap_or(text.len())))
}

/// Returns what stands behind the separator: a comma, or `][`.
fn next(text: &str) -> Result<&str, String> {
    let text = text.trim_start();
    if text.is_empty() {
        return Ok(text);
    }
    if let Some(tail) = text.strip_prefix(',') {
        return Ok(tail.trim_start());
    }
    let group = text.strip_prefix(']').and_then(|tail| tail.trim_start().strip_prefix('['));
    group.map(str::trim_start).ok_or_else(|| format!("'{text}' is no key=value"))
}

/// Splits a list of calls at white space outside brackets and quotes.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut calls = Vec::new();
    let mut call = String::new();
    let mut depth = 0_usize;
    let mut quote = None;
    for c in text.chars() {
        match (c, quote) {
            (_, Some(open)) if c == open => quote = None,
            (_, Some(_)) => {}
            ('"' | '\'', None) if depth > 0 => quote = Some(c),
            ('[', None) => depth += 1,
            (']', None) => depth = depth.saturating_sub(1),
            (' ' | '\t' | '\n', None) if depth == 0 => {
                calls.push(std::mem::take(&mut call));
                continue;
            }
            _ => {}
        }
        call.push(c);
    }
    calls.push(call);
    calls.retain(|call| !call.trim().is_empty());
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls() {
        for (text, name, options) in [
            ("sshd", "sshd", &[][..]),
            ("sshd[mode=aggressive]", "sshd", &[("mode", "aggressive")]),
            ("a[x=1, y=\"2,]3\"][z='4']", "a", &[("x", "1"), ("y", "2,]3"), ("z", "4")]),
            ("a[]", "a", &[]),
            ("a[x=\"1\", x?family=inet6=\"R=2\"]", "a", &[("x", "1"), ("x?family=inet6", "R=2")]),
            ("a[x=]", "a", &[("x", "")]),
        ] {
            let call = parse(text).unwrap();
            let expected = options.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
            assert_eq!((call.name.as_str(), call.options), (name, expected), "{text}");
        }
        for text in ["a[x?y=1]", "a[x?=1=2]", "a[x", "a[x]", "a[x=\"]", "a[x=1]y"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_of_calls() {
        let text = "one[a=\"x y\", b=2]\n  two three[c='d\ne']";
        assert_eq!(split(text), ["one[a=\"x y\", b=2]", "two", "three[c='d\ne']"]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "[a-z=,\"'\\[\\] ]{0,60}") {
            let _ = parse(&text);
            let _ = split(&text);
        }
    }
}
