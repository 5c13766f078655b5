//! Resolves `<tag>`s between the options of a filter or an action. Tags that nothing defines
//! (`<HOST>`, `<F-USER>`, `<ip>`) stay.

use std::collections::BTreeMap;

/// One tag may be replaced this often in one value; more is a circle.
const MAX_REPEAT: usize = 25;
/// A value may grow to this; more is a circle too.
const MAX_LENGTH: usize = 1 << 20;

/// Resolves the tags in `text`, the value of `own`; `find` gives the value of a tag.
///
/// # Errors
/// The tag that refers to itself, or what `find` says.
pub(super) fn resolve<E>(
    own: &str,
    text: &str,
    find: &mut impl FnMut(&str) -> Result<Option<String>, E>,
) -> Result<Result<String, String>, E> {
    let mut text = text.to_owned();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut from = 0;
    while let Some((start, tag)) = next_tag(&text, from) {
        let Some(value) = find(&tag)? else {
            from = start + tag.len() + 2;
            continue;
        };
        let count = counts.entry(tag.clone()).or_default();
        *count += 1;
        if tag == own || *count > MAX_REPEAT || text.len() > MAX_LENGTH {
            return Ok(Err(tag));
        }
        text = text.replace(&format!("<{tag}>"), &value);
        // What was replaced may have completed a tag around it.
        from = 0;
    }
    Ok(Ok(text))
}

/// Returns the next innermost tag at or after `from`, and where it begins.
fn next_tag(text: &str, from: usize) -> Option<(usize, String)> {
    let mut start = None;
    for (at, c) in text.get(from..)?.char_indices() {
        match (c, start) {
            ('<', _) => start = Some(from + at),
            (' ', _) => start = None,
            ('>', Some(begin)) if begin + 1 < from + at => {
                return Some((begin, text.get(begin + 1..from + at)?.to_owned()));
            }
            ('>', _) => start = None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let mut find = |tag: &str| -> Result<Option<String>, std::convert::Infallible> {
            Ok(match tag {
                "mode" => Some("b".to_owned()),
                "x-b" => Some("<mode>!".to_owned()),
                "loop" => Some("<loop>".to_owned()),
                "empty" => Some(String::new()),
                _ => None,
            })
        };
        let got = resolve("own", text, &mut find).unwrap();
        assert_eq!(got, expected.map(str::to_owned).map_err(str::to_owned), "{text}");
    }

    #[test]
    fn nested_unknown_and_circular() {
        check("a <x-<mode>> <mode>", Ok("a b! b"));
        check(
            "<HOST> (?P<n>x) <F-USER>\\S+</F-USER> a < b> <<empty>>",
            Ok("<HOST> (?P<n>x) <F-USER>\\S+</F-USER> a < b> <>"),
        );
        check("<loop>", Err("loop"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "[<>a-z -]{0,60}") {
            let _ = resolve("own", &text, &mut |tag: &str| -> Result<_, ()> {
                Ok((tag.len() == 1).then(|| "<zz>".to_owned()))
            });
        }
    }
}
