//! Expands `<HOST>`, `<ADDR>`, `<F-USER>` and their family into groups of a pattern. Leaves
//! every other `<word>` alone.

use std::collections::BTreeSet;

/// An IPv4 address, also in its IPv6-mapped spelling.
const IP4: &str = r"(?:::f{4,6}:)?(?P<ip4>(?:[0-9]{1,3}\.){3}[0-9]{1,3})";
/// An IPv6 address, by its alphabet and shape: the address parser has the last word.
const IP6: &str = r"(?P<ip6>(?:[0-9a-fA-F]{1,4}::?|::){1,7}(?:[0-9a-fA-F]{1,4}|:))";
/// A host name.
const DNS: &str = r"(?P<dns>[\w\-.^_]*\w)";
/// A prefix length.
const CIDR: &str = r"(?P<cidr>[0-9]+)";

/// Expands the tags of `pattern`. With `names`, `<HOST>` takes host names too.
pub(super) fn expand(pattern: &str, names: bool) -> String {
    let mut out = String::with_capacity(pattern.len() * 2);
    let mut open = BTreeSet::new();
    let mut skips = 0;
    let mut rest = pattern;
    while let Some(start) = rest.find('<') {
        let (before, tail) = rest.split_at(start);
        out.push_str(before);
        match tag_at(tail) {
            Some(tag) => {
                match expansion(tag, names, &mut open, &mut skips) {
                    Some(text) => out.push_str(&text),
                    None => out.push_str(&format!("<{tag}>")),
                }
                rest = tail.get(tag.len() + 2..).unwrap_or_default();
            }
            None => {
                out.push('<');
                rest = tail.get(1..).unwrap_or_default();
            }
        }
    }
    out.push_str(rest);
    out
}

/// Returns the inside of the tag that `text` begins with.
fn tag_at(text: &str) -> Option<&str> {
    let inside = text.strip_prefix('<')?;
    let (tag, _) = inside.split_once('>')?;
    let name = tag.strip_prefix('/').unwrap_or(tag);
    let name = name.strip_suffix('/').unwrap_or(name);
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    (!name.is_empty() && name.chars().all(word)).then_some(tag)
}

fn expansion(
    tag: &str,
    names: bool,
    open: &mut BTreeSet<String>,
    skips: &mut usize,
) -> Option<String> {
    let address = format!(r"\[?(?:{IP4}|{IP6})\]?");
    Some(match tag {
        "HOST" if names => format!("(?:{address}|{DNS})"),
        "HOST" | "ADDR" | "F-ADDR/" => address,
        "IP4" | "F-IP4/" => IP4.to_owned(),
        "IP6" | "F-IP6/" => IP6.to_owned(),
        "DNS" | "F-DNS/" => DNS.to_owned(),
        "CIDR" | "F-CIDR/" => CIDR.to_owned(),
        "SUBNET" | "F-SUBNET/" => format!(r"\[?(?:{IP4}|{IP6})(?:/{CIDR})?\]?"),
        "F-ID/" => r"(?P<fid>\S+)".to_owned(),
        "F-PORT/" => r"(?P<fport>\w+)".to_owned(),
        "SKIPLINES" => {
            *skips += 1;
            format!(r"\n(?P<skiplines{}>(?:(?:.*\n)*?))", *skips - 1)
        }
        _ => return custom(tag, open),
    })
}

/// `<F-NAME>` opens a group, `</F-NAME>` closes it.
fn custom(tag: &str, open: &mut BTreeSet<String>) -> Option<String> {
    let closing = tag.starts_with('/');
    let name = tag.strip_prefix('/').unwrap_or(tag).strip_prefix("F-")?;
    let upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(upper) {
        return None;
    }
    if closing {
        return open.contains(name).then(|| ")".to_owned());
    }
    open.insert(name.to_owned());
    Some(format!("(?P<{}>", group_name(name)))
}

/// Returns the group that a tag's text is kept in.
fn group_name(tag: &str) -> String {
    match tag {
        "ID" => "fid".to_owned(),
        "PORT" => "fport".to_owned(),
        _ => tag.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_become_groups() {
        for (pattern, expected) in [
            ("a <F-USER>.*</F-USER> b", "a (?P<user>.*) b"),
            ("<F-ID>x</F-ID>", "(?P<fid>x)"),
            ("</F-USER>", "</F-USER>"),
            ("<W> <mode> a<b", "<W> <mode> a<b"),
            ("(?P<name>x)", "(?P<name>x)"),
            ("<CIDR>", "(?P<cidr>[0-9]+)"),
            ("<F-ID/>", r"(?P<fid>\S+)"),
            ("a<SKIPLINES>b", r"a\n(?P<skiplines0>(?:(?:.*\n)*?))b"),
        ] {
            assert_eq!(expand(pattern, false), expected);
        }
    }

    #[test]
    fn host_takes_names_only_on_request() {
        assert!(!expand("<HOST>", false).contains("<dns>"));
        assert!(expand("<HOST>", true).contains("<dns>"));
        assert!(!expand("<ADDR>", true).contains("<dns>"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "[<>/A-Z-]{0,40}") {
            let _ = expand(&text, true);
        }
    }
}
