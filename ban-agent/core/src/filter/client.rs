//! Who the client is where a trusted proxy brought the request: the last address of the chain that
//! is no trusted proxy. What stands before it in the chain is the client's own text, and is never
//! believed; neither is the chain of a peer that is not trusted.

use std::{borrow::Cow, net::IpAddr};

use super::{groups::Fields, host};
use crate::net::{self, IpNet, PrefixSet};

/// The field of `X-Forwarded-For`, or of the source address of the PROXY protocol.
pub(super) const XFF: &str = "xff";
/// The field of `Forwarded` (RFC 7239).
pub(super) const FORWARDED: &str = "forwarded";
/// The field that names the peer, where it is not the client.
const PROXY: &str = "proxy";

/// What a chain says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// This is the client.
    Is(IpAddr),
    /// All in it are trusted.
    Nobody,
    /// What should be an address is none.
    Bad,
}

/// Returns whether a failregex of these captures a chain.
pub(super) fn asks(patterns: &[String]) -> bool {
    patterns
        .iter()
        .any(|pattern| ["<F-XFF>", "<F-FORWARDED>"].iter().any(|tag| pattern.contains(tag)))
}

/// Returns the client behind `peer`, by the chain in `fields`; says there who the peer was.
pub(super) fn find(peer: IpAddr, fields: &mut Fields, trusted: &PrefixSet) -> Client {
    if !trusts(trusted, peer) {
        return Client::Is(peer);
    }
    let get = |name: &str| fields.get(name).map(String::as_str);
    let client = match (get(XFF), get(FORWARDED)) {
        // there is no telling which of two is the proxy's
        (Some(_), Some(_)) => return Client::Bad,
        (Some(chain), None) => last(chain.rsplit(','), trusted, node),
        (None, Some(chain)) => {
            let chain = unescape(chain);
            last(elements(&chain).into_iter(), trusted, forwarded)
        }
        // the pattern looks for no chain
        (None, None) => return Client::Is(peer),
    };
    if matches!(client, Client::Is(_)) {
        fields.entry(PROXY.to_owned()).or_insert_with(|| peer.to_string());
    }
    client
}

fn trusts(trusted: &PrefixSet, address: IpAddr) -> bool {
    trusted.cover(net::host(address)).is_some()
}

/// Returns the first of `nodes`, which begin at the chain's end, that is not trusted.
fn last<'c>(
    nodes: impl Iterator<Item = &'c str>,
    trusted: &PrefixSet,
    read: impl Fn(&str) -> Option<IpAddr>,
) -> Client {
    for node in nodes {
        match node.trim() {
            "" | "-" => {}
            node => match read(node) {
                Some(address) if trusts(trusted, address) => {}
                Some(address) => return Client::Is(address),
                None => return Client::Bad,
            },
        }
    }
    Client::Nobody
}

/// Returns an address as it stands in a chain or in a field of a document: alone, with a port, in
/// brackets.
pub(super) fn node(text: &str) -> Option<IpAddr> {
    if let Some(address) = host::parse(text) {
        return Some(address);
    }
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        let port = rest.strip_prefix(':').map_or(rest.is_empty(), is_port);
        return host::parse(address).filter(|_| port && address.contains(':'));
    }
    let (address, port) = text.split_once(':')?;
    host::parse(address).filter(|address| address.is_ipv4() && is_port(port))
}

/// Returns the `for` of an element of `Forwarded`.
fn forwarded(element: &str) -> Option<IpAddr> {
    let mut found = None;
    for pair in split(element, b';') {
        let (name, value) = pair.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("for") {
            let value = value.trim();
            let inside = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            // two of them are one too many
            if found.replace(node(inside.unwrap_or(value))?).is_some() {
                return None;
            }
        }
    }
    found
}

/// Returns the elements of `Forwarded`, the last one first.
fn elements(chain: &str) -> Vec<&str> {
    split(chain, b',')
}

/// Returns the parts of `text` between separators outside quotes, the last one first. It is read
/// from its end: what a client wrote stands before what his proxy added, and cannot quote that
/// away.
fn split(text: &str, separator: u8) -> Vec<&str> {
    let bytes = text.as_bytes();
    let (mut parts, mut end, mut quoted) = (Vec::new(), text.len(), false);
    for at in (0..text.len()).rev() {
        let byte = bytes.get(at).copied();
        if byte == Some(b'"') {
            let before = bytes.get(..at).unwrap_or_default().iter().rev();
            quoted ^= before.take_while(|byte| **byte == b'\\').count() % 2 == 0;
        } else if byte == Some(separator) && !quoted {
            parts.extend(text.get(at + 1..end));
            end = at;
        }
    }
    parts.extend(text.get(..end));
    parts
}

/// Without the escapes of an access log: `\x22` and `\"` are quotes.
fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let (mut plain, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let hex = after.strip_prefix('x').and_then(|after| after.get(..2));
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        rest = if let Some(byte) = byte.filter(u8::is_ascii) {
            plain.push(byte.into());
            after.get(3..).unwrap_or_default()
        } else if let Some(sign) = after.chars().next() {
            plain.push(sign);
            after.get(sign.len_utf8()..).unwrap_or_default()
        } else {
            after
        };
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// Returns the trusted proxies as they are asked.
pub(super) fn trusted(proxies: &[IpNet]) -> PrefixSet {
    proxies.iter().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(peer: &str, name: &str, chain: &str, expected: &str) {
        let trusted = ["192.0.2.0/24", "2001:db8:a::/48"].map(|net| net.parse().unwrap());
        let mut fields = Fields::from([(name.to_owned(), chain.to_owned())]);
        let found = match find(peer.parse().unwrap(), &mut fields, &super::trusted(&trusted)) {
            Client::Is(address) => address.to_string(),
            Client::Nobody => "nobody".to_owned(),
            Client::Bad => "bad".to_owned(),
        };
        assert_eq!(found, expected, "{peer} {name}={chain}");
    }

    #[test]
    fn the_last_address_that_is_not_trusted_is_the_client() {
        for (peer, chain, expected) in [
            // a peer that is not trusted may say what it likes
            ("203.0.113.7", "198.51.100.66", "203.0.113.7"),
            ("192.0.2.1", "203.0.113.7", "203.0.113.7"),
            ("192.0.2.1", "198.51.100.66, 203.0.113.7", "203.0.113.7"),
            ("192.0.2.1", "198.51.100.66, 203.0.113.7, 192.0.2.9", "203.0.113.7"),
            ("2001:db8:a::1", "x, 203.0.113.7,192.0.2.9,2001:db8:a::9", "203.0.113.7"),
            // with ports, in brackets
            ("192.0.2.1", "198.51.100.66, 203.0.113.7:4711", "203.0.113.7"),
            ("192.0.2.1", "[2001:db8::7]:4711", "2001:db8::7"),
            ("192.0.2.1", "[2001:db8::7]", "2001:db8::7"),
            ("192.0.2.1", "2001:db8::7", "2001:db8::7"),
            ("192.0.2.1", "::ffff:203.0.113.7", "203.0.113.7"),
            // nothing that the client can break names somebody else
            ("192.0.2.1", "198.51.100.66, unknown", "bad"),
            ("192.0.2.1", "198.51.100.66, 203.0.113.7:x", "bad"),
            ("192.0.2.1", "198.51.100.66, 203.0.113.07", "bad"),
            ("192.0.2.1", "198.51.100.66 203.0.113.7", "bad"),
            ("192.0.2.1", "-", "nobody"),
            ("192.0.2.1", "", "nobody"),
            ("192.0.2.1", "192.0.2.7, 192.0.2.8", "nobody"),
        ] {
            check(peer, XFF, chain, expected);
        }
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_has_it() {
        for (chain, expected) in [
            ("for=203.0.113.7", "203.0.113.7"),
            ("For=198.51.100.66, for=203.0.113.7;proto=https;by=192.0.2.1", "203.0.113.7"),
            (r#"for="[2001:db8::7]:4711""#, "2001:db8::7"),
            (r"for=\x22[2001:db8::7]\x22;proto=http", "2001:db8::7"),
            (r#"for=\"203.0.113.7:80\", for=192.0.2.4"#, "203.0.113.7"),
            // the client's Host, quoted by the proxy; the client's quotes, left open
            (r#"for=203.0.113.7;host="x, for=198.51.100.66""#, "203.0.113.7"),
            (r#"for=203.0.113.7;host="x;for=198.51.100.66""#, "203.0.113.7"),
            (r#"for="198.51.100.66, for=203.0.113.7"#, "203.0.113.7"),
            ("for=203.0.113.7;for=198.51.100.66", "bad"),
            ("for=198.51.100.66, for=_hidden", "bad"),
            ("for=198.51.100.66, proto=https", "bad"),
            ("198.51.100.66", "bad"),
        ] {
            check("192.0.2.1", FORWARDED, chain, expected);
        }
    }

    proptest::proptest! {
        /// Whatever a client writes before what the proxy adds, he is found.
        #[test]
        fn the_clients_own_text_names_nobody(
            text in r#"[-0-9a-f.:,;="\\ \[\]x]{0,40}(198\.51\.100\.66)?[",; \\]{0,4}"#,
        ) {
            check("192.0.2.1", XFF, &format!("{text}, 203.0.113.7"), "203.0.113.7");
            check("192.0.2.1", FORWARDED, &format!("{text}, for=203.0.113.7"), "203.0.113.7");
        }
    }
}
