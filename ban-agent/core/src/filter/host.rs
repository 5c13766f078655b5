//! Reads the address that a pattern captured. Accepts canonical spellings only: what the address
//! parser refuses, or what is a piece of something longer, is no address.

use std::{
    net::{IpAddr, Ipv6Addr},
    ops::Range,
};

/// Parses a captured address; IPv4-mapped IPv6 addresses become IPv4.
pub(super) fn parse(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Returns whether `text[start..end]` is a piece of something longer: of a number
/// (`203.0.113.1234`), of an address that ends like one of IPv4 (`64:ff9b::203.0.113.7` is not
/// 64:ff9b::203), or of a host name, which its owner chooses: `203.0.113.7.example.org`,
/// `x-203.0.113.7`.
pub(super) fn glued(text: &str, start: usize, end: usize) -> bool {
    let word = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let joined = |first: Option<u8>, second| match first {
        Some(b'.' | b'-' | b'_') => word(second),
        first => word(first),
    };
    let before = text.as_bytes().get(..start).unwrap_or_default();
    let after = text.as_bytes().get(end..).unwrap_or_default();
    let (mut left, mut right) = (before.iter().rev().copied(), after.iter().copied());
    joined(left.next(), left.next()) || (joined(right.next(), right.next()) && !hyphen_port(after))
}

/// Returns whether a text begins with a port as libssh's `Remote: 203.0.113.7-1780;` has it.
fn hyphen_port(text: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(b"-") else { return false };
    let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    let next = rest.get(end).copied();
    !next.is_some_and(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

/// Returns whether the end of the IPv6 address at `range` may as well be a port: `2001:db8::1:2345`
/// is an address, and is 2001:db8::1 with port 2345. In brackets, or with a port behind it, it is
/// not.
pub(super) fn may_hold_port(text: &str, range: &Range<usize>) -> bool {
    let around = |at: Option<usize>| at.and_then(|at| text.as_bytes().get(at)).copied();
    if around(range.start.checked_sub(1)) == Some(b'[') && around(Some(range.end)) == Some(b']') {
        return false;
    }
    let Some((address, port)) = text.get(range.clone()).and_then(|text| text.rsplit_once(':'))
    else {
        return false;
    };
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    // two may stand there: the whole, or what is before the last colon
    is_port && around(Some(range.end)) != Some(b':') && address.parse::<Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_spellings_only() {
        for (text, expected) in [
            ("203.0.113.7", Some("203.0.113.7")),
            ("::ffff:203.0.113.7", Some("203.0.113.7")),
            ("2001:DB8::1", Some("2001:db8::1")),
            ("203.0.113.256", None),
            ("203.0.113.07", None),
            ("203.0.113", None),
            ("1::2::3", None),
            ("0x7f.0.0.1", None),
            ("2130706433", None),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn a_piece_of_something_longer_is_no_address() {
        for (text, address, expected) in [
            ("x 1203.0.113.7 y", "203.0.113.7", true),
            ("x 203.0.113.7234 y", "203.0.113.7", true),
            ("203.0.113.7.5", "203.0.113.7", true),
            ("64:ff9b::203.0.113.7", "64:ff9b::203", true),
            ("203.0.113.7.example.org", "203.0.113.7", true),
            ("203.0.113.7-static.example.org", "203.0.113.7", true),
            ("x-203.0.113.7", "203.0.113.7", true),
            ("7.113.0.203.dnsbl.example.org", "7.113.0.203", true),
            ("x203.0.113.7", "203.0.113.7", true),
            ("203.0.113.7", "203.0.113.7", false),
            ("from 203.0.113.7.", "203.0.113.7", false),
            ("rhost=203.0.113.7:80", "203.0.113.7", false),
            ("client 203.0.113.7#53", "203.0.113.7", false),
            ("(203.0.113.7), [203.0.113.8]", "203.0.113.7", false),
            ("- 203.0.113.7 -", "203.0.113.7", false),
            ("2001:db8::1%eth0", "2001:db8::1", false),
            ("Remote: 203.0.113.7-1780;", "203.0.113.7", false),
            ("203.0.113.7-1780.example.org", "203.0.113.7", true),
        ] {
            let start = text.find(address).unwrap();
            assert_eq!(glued(text, start, start + address.len()), expected, "{text}");
        }
    }

    #[test]
    fn a_port_is_not_taken_for_an_address() {
        for (text, expected) in [
            ("2001:db8::a:b:c:d:2345", true),
            ("2001:db8::1:1", true),
            ("::1:2345", true),
            // no port: the rest is no address
            ("2001:db8::2345", false),
            ("2001:db8:1:2:3:4:5:6", false),
            ("2001:db8::1:abc", false),
        ] {
            assert_eq!(may_hold_port(text, &(0..text.len())), expected, "{text}");
            let bracketed = format!("[{text}]:80");
            assert!(!may_hold_port(&bracketed, &(1..text.len() + 1)), "{text}");
            let followed = format!("{text}:50000");
            assert!(!may_hold_port(&followed, &(0..text.len())), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "[0-9a-fx:.%/]{0,50}") {
            if let Some(address) = parse(&text) {
                proptest::prop_assert_eq!(parse(&address.to_string()), Some(address));
            }
        }
    }
}
