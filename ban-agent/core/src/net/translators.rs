//! IPv6 addresses that stand for something else than a host in a /64: behind a translator (NAT64,
//! SIIT) each is one IPv4 host, a Teredo address is one of the many clients of a server, and a
//! 6to4 /48 is one IPv4 host. Knows the prefixes; decides nothing.
//!
//! Sources: RFC 6052 (where an IPv4 address lies in a translated one), RFC 8215 (64:ff9b:1::/48),
//! RFC 2765 (`::ffff:0:0:0/96`), RFC 4380 (Teredo), RFC 3056 (6to4).

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use ipnet::{Ipv4Net, Ipv6Net};

use super::{IpNet, ParseError, parse_prefix};

/// The lengths that a translator's prefix may have (RFC 6052, section 2.2).
const LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

/// What every translator may use.
const WELL_KNOWN: [Ipv6Net; 2] = [
    Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96),
    Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96),
];

/// The others. In 64:ff9b:1::/48 operators choose prefixes of any length for their translators:
/// where the IPv4 address lies is not known unless they say so.
const OTHERS: [(Ipv6Net, Meaning); 3] = [
    (Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48), Meaning::Host),
    (Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32), Meaning::Host),
    (Ipv6Net::new_assert(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), Meaning::Ipv4),
];

/// What the addresses of a prefix are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The prefix is followed by an IPv4 address.
    Ipv4,
    /// Each is one host, and has nothing to do with its neighbours.
    Host,
}

/// The widest network of IPv4 hosts that has something in common.
const WIDEST_V4: u8 = 16;

/// The prefixes whose addresses stand for something else, the operator's own included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translators {
    own: Arc<[Ipv6Net]>,
}

impl Translators {
    /// Knows the prefixes of the operator's own translators as well.
    #[must_use]
    pub fn new(own: &[Ipv6Net]) -> Translators {
        Translators { own: own.into() }
    }

    /// Parses the prefix of a translator.
    ///
    /// # Errors
    /// If it is no IPv6 prefix of a length that translators have (RFC 6052).
    pub fn parse(text: &str) -> Result<Ipv6Net, ParseError> {
        match parse_prefix(text)? {
            IpNet::V6(prefix) if LENGTHS.contains(&prefix.prefix_len()) => Ok(prefix),
            _ => Err(ParseError::Translator(text.to_owned())),
        }
    }

    /// Returns the network that `address` is counted and banned by, where IPv4 hosts are by their
    /// first `v4` bits; `None` if it is an ordinary address, or one of IPv4.
    #[must_use]
    pub fn unit(&self, address: IpAddr, v4: u8) -> Option<IpNet> {
        let IpAddr::V6(address) = address else { return None };
        let length = match self.region(address.into())? {
            (_, Meaning::Host) => 128,
            // a translator leaves the bits behind the IPv4 address zero; a 6to4 site does not
            (prefix, Meaning::Ipv4) if v4 >= 32 && prefix.prefix_len() >= 32 => 128,
            (prefix, Meaning::Ipv4) => behind(prefix, v4),
        };
        Some(IpNet::new(address.into(), length).ok()?.trunc())
    }

    /// Returns the lengths that bans of addresses like `net` are widened to, of those of IPv4;
    /// `None` if it is an ordinary network.
    #[must_use]
    pub fn lengths(&self, net: IpNet, v4: &[u8]) -> Option<Vec<u8>> {
        let IpNet::V6(net) = net else { return None };
        match self.region(net)? {
            (_, Meaning::Host) => Some(Vec::new()),
            (prefix, Meaning::Ipv4) => Some(v4.iter().map(|v4| behind(prefix, *v4)).collect()),
        }
    }

    /// Returns whether `net` holds hosts that have nothing in common: no line of a log bans it.
    #[must_use]
    pub fn mixes(&self, net: IpNet) -> bool {
        let IpNet::V6(net) = net else { return false };
        if self.regions().any(|(prefix, _)| net.contains(&prefix)) {
            return true;
        }
        match self.region(net) {
            Some((_, Meaning::Host)) => net.prefix_len() < 128,
            Some((prefix, Meaning::Ipv4)) => net.prefix_len() < behind(prefix, WIDEST_V4),
            None => false,
        }
    }

    /// `nets`, and what stands for those of IPv4 behind a translator.
    #[must_use]
    pub fn expand<'a>(&self, nets: impl IntoIterator<Item = &'a IpNet>) -> Vec<IpNet> {
        let mut all = Vec::new();
        for net in nets {
            all.push(*net);
            if let IpNet::V4(v4) = net {
                let prefixes = self.own.iter().chain(&WELL_KNOWN);
                all.extend(prefixes.filter_map(|prefix| embed(*prefix, *v4)).map(IpNet::V6));
            }
        }
        all
    }

    fn regions(&self) -> impl Iterator<Item = (Ipv6Net, Meaning)> {
        let v4 = self.own.iter().chain(&WELL_KNOWN).map(|prefix| (*prefix, Meaning::Ipv4));
        v4.chain(OTHERS)
    }

    /// Returns the narrowest one that holds `net`.
    fn region(&self, net: Ipv6Net) -> Option<(Ipv6Net, Meaning)> {
        let around = self.regions().filter(|(prefix, _)| prefix.contains(&net));
        around.max_by_key(|(prefix, _)| prefix.prefix_len())
    }
}

/// Returns the length of the prefix with `v4` bits of an IPv4 address behind it. Bits 64 to 71 are
/// none of the address's (RFC 6052, section 2.2).
fn behind(prefix: Ipv6Net, v4: u8) -> u8 {
    let length = prefix.prefix_len() + v4.min(32);
    if prefix.prefix_len() < 96 && length > 64 { length + 8 } else { length }
}

fn embed(prefix: Ipv6Net, v4: Ipv4Net) -> Option<Ipv6Net> {
    let shift = 96_u8.checked_sub(prefix.prefix_len())?;
    let bits = u128::from(u32::from(v4.network())) << shift;
    let low = bits & u128::from(u64::MAX);
    let low = if shift == 0 { low } else { low >> 8 };
    let bits = u128::from(prefix.network()) | (bits >> 64 << 64) | low;
    Ipv6Net::new(bits.into(), behind(prefix, v4.prefix_len())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(own: &[&str]) -> Translators {
        let own: Vec<_> = own.iter().map(|text| Translators::parse(text).unwrap()).collect();
        Translators::new(&own)
    }

    #[test]
    fn addresses_are_what_they_stand_for() {
        let known = known(&["2001:db8:64::/96", "2001:db8:100::/40", "2001:db8:122:344::/64"]);
        for (address, v4, expected) in [
            ("64:ff9b::c633:6401", 32, Some("64:ff9b::c633:6401/128")),
            ("64:ff9b::c633:6401", 24, Some("64:ff9b::c633:6400/120")),
            ("::ffff:0:198.51.100.1", 32, Some("::ffff:0:c633:6401/128")),
            ("64:ff9b:1:fffe::c633:6401", 24, Some("64:ff9b:1:fffe::c633:6401/128")),
            ("2001:db8:64::c633:6401", 32, Some("2001:db8:64::c633:6401/128")),
            // the examples of RFC 6052, section 2.4, of 192.0.2.33
            ("2001:db8:1c0:2:21::", 32, Some("2001:db8:1c0:2:21::/128")),
            ("2001:db8:1c0:2:21::", 24, Some("2001:db8:1c0:2::/64")),
            ("2001:db8:122:344:c0:2:2100:0", 24, Some("2001:db8:122:344:c0:2::/96")),
            ("2001:0:53aa:64c:0:2af9:39cc:9bfe", 24, Some("2001:0:53aa:64c:0:2af9:39cc:9bfe/128")),
            ("2002:c633:6401:1::5", 32, Some("2002:c633:6401::/48")),
            ("2002:c633:6401:1::5", 24, Some("2002:c633:6400::/40")),
            ("2001:db8::1", 32, None),
            ("2001:db8:65::c633:6401", 32, None),
            ("198.51.100.1", 24, None),
        ] {
            let unit = known.unit(address.parse().unwrap(), v4);
            assert_eq!(unit.map(|net| net.to_string()).as_deref(), expected, "{address} {v4}");
        }
    }

    #[test]
    fn strangers_are_not_mixed() {
        let known = known(&["2001:db8:64::/96"]);
        for (net, expected) in [
            ("64:ff9b::/64", true),
            ("64:ff9b::/96", true),
            ("64:ff9b::c600:0/104", true),
            ("64:ff9b::c633:0/112", false),
            ("64:ff9b::c633:6401", false),
            ("64:ff9b:1:fffe::/64", true),
            ("2001:db8:64::/64", true),
            ("2001:db8::/32", true),
            ("2001:db8:65::/64", false),
            ("2001:0:53aa:64c::/64", true),
            ("2001::/16", true),
            ("2002::/16", true),
            ("2002:c633::/32", false),
            ("0.0.0.0/0", false),
        ] {
            assert_eq!(known.mixes(parse_prefix(net).unwrap()), expected, "{net}");
        }
    }

    /// RFC 6052, section 2.4.
    #[test]
    fn ipv4_lies_where_the_rfc_says() {
        for (prefix, expected) in [
            ("2001:db8::/32", "2001:db8:c000:221::/64"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::/80"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::/88"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::/96"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100:0/104"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::c000:221/128"),
        ] {
            let v4 = "192.0.2.33/32".parse().unwrap();
            let embedded = embed(Translators::parse(prefix).unwrap(), v4).unwrap();
            assert_eq!(embedded.to_string(), expected, "{prefix}");
        }
        for text in ["2001:db8::/33", "192.0.2.0/24", "64:ff9b::1"] {
            assert!(Translators::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn who_is_allowed_is_allowed_behind_a_translator() {
        let nets = ["198.51.100.0/24", "2001:db8:1::/48"].map(|text| text.parse().unwrap());
        let all = known(&["2001:db8:64::/96"]).expand(&nets);
        let all: Vec<_> = all.iter().map(ToString::to_string).collect();
        assert_eq!(
            all,
            [
                "198.51.100.0/24",
                "2001:db8:64::c633:6400/120",
                "64:ff9b::c633:6400/120",
                "::ffff:0:c633:6400/120",
                "2001:db8:1::/48",
            ]
        );
    }
}
