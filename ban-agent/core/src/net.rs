//! The vocabulary of addresses that all stages share: prefixes, and the ports of a ban.

mod map;
mod translators;

use std::{fmt, net::IpAddr, str::FromStr};

pub use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::{
    map::{PrefixMap, PrefixSet},
    translators::Translators,
};

/// Returns the prefix of one address (/32 or /128). IPv4-mapped IPv6 addresses become IPv4.
#[must_use]
pub fn host(address: IpAddr) -> IpNet {
    IpNet::from(address.to_canonical())
}

/// Why a text is no address, prefix or port rule.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseError {
    /// Neither an address nor a prefix.
    #[error("'{0}' is neither an address nor a prefix like 203.0.113.0/24 or 2001:db8::/32")]
    Prefix(String),
    /// Not the prefix of a NAT64 or SIIT translator.
    #[error(
        "'{0}' is not a translator's prefix such as 2001:db8:64::/96; the length must be 32, 40, 48, 56, 64 \
         or 96"
    )]
    Translator(String),
    /// Not `PROTO/PORT[,PORT…]`.
    #[error("'{0}' is not a port rule such as tcp/22, tcp/80,443 or udp/1000-2000")]
    Port(String),
}

/// Parses an address or a prefix; host bits are cleared, IPv4-mapped addresses become IPv4.
///
/// # Errors
/// [`ParseError::Prefix`] if it is neither.
pub fn parse_prefix(text: &str) -> Result<IpNet, ParseError> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(host(address));
    }
    let net: IpNet = text.parse().map_err(|_| ParseError::Prefix(text.to_owned()))?;
    if let IpNet::V6(v6) = net
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Some(length) = v6.prefix_len().checked_sub(96)
        && let Ok(mapped) = ipnet::Ipv4Net::new(v4, length)
    {
        return Ok(IpNet::V4(mapped).trunc());
    }
    Ok(net.trunc())
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// TCP, protocol number 6.
    Tcp,
    /// UDP, protocol number 17.
    Udp,
}

/// A destination port range that a ban is limited to; both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PortRange {
    /// The protocol.
    pub proto: Proto,
    /// First port.
    pub low: u16,
    /// Last port.
    pub high: u16,
}

/// The ports of a ban; empty means all traffic of the source.
pub type Ports = Vec<PortRange>;

/// Parses `tcp/22`, `tcp/80,443` or `udp/1000-2000`.
///
/// # Errors
/// [`ParseError::Port`] if it is none of these.
pub fn parse_ports(text: &str) -> Result<Ports, ParseError> {
    let bad = || ParseError::Port(text.to_owned());
    let (proto, list) = text.trim().split_once('/').ok_or_else(bad)?;
    let proto = match proto {
        "tcp" => Proto::Tcp,
        "udp" => Proto::Udp,
        _ => return Err(bad()),
    };
    list.split(',')
        .map(|part| {
            let (low, high) = part.split_once(['-', ':']).unwrap_or((part, part));
            let low = u16::from_str(low.trim()).map_err(|_| bad())?;
            let high = u16::from_str(high.trim()).map_err(|_| bad())?;
            if low == 0 || low > high {
                return Err(bad());
            }
            Ok(PortRange { proto, low, high })
        })
        .collect()
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> String {
        range.to_string()
    }
}

impl TryFrom<String> for PortRange {
    type Error = ParseError;

    fn try_from(text: String) -> Result<PortRange, ParseError> {
        match parse_ports(&text)?.as_slice() {
            [range] => Ok(*range),
            _ => Err(ParseError::Port(text)),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proto = match self.proto {
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
        };
        if self.low == self.high {
            write!(f, "{proto}/{}", self.low)
        } else {
            write!(f, "{proto}/{}-{}", self.low, self.high)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_canonical() {
        for (text, expected) in [
            ("203.0.113.7", "203.0.113.7/32"),
            ("203.0.113.7/24", "203.0.113.0/24"),
            ("::ffff:203.0.113.7", "203.0.113.7/32"),
            ("::ffff:203.0.113.0/120", "203.0.113.0/24"),
            ("2001:db8::1", "2001:db8::1/128"),
        ] {
            assert_eq!(parse_prefix(text).unwrap().to_string(), expected, "{text}");
        }
        for text in ["", "203.0.113", "203.0.113.7/33", "example.org", "0x7f.1"] {
            assert!(parse_prefix(text).is_err(), "{text}");
        }
    }

    #[test]
    fn port_rules() {
        let shown = |text| {
            parse_ports(text)
                .map(|ports| ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(shown("tcp/22").unwrap(), "tcp/22");
        assert_eq!(shown("tcp/80,443").unwrap(), "tcp/80 tcp/443");
        assert_eq!(shown("udp/1000-2000").unwrap(), "udp/1000-2000");
        for text in ["22", "tcp/", "tcp/0", "tcp/9-1", "icmp/1", "tcp/65536"] {
            assert!(shown(text).is_err(), "{text}");
        }
    }
}
