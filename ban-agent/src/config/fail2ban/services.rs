//! Port numbers of service names, from the system's list and a few that every jail uses.

use std::{collections::BTreeMap, fs};

/// Services that jails name, for systems without a list.
const USUAL: &[(&str, u16)] = &[
    ("ftp", 21),
    ("ftp-data", 20),
    ("ftps", 990),
    ("ftps-data", 989),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("465", 465),
    ("domain", 53),
    ("http", 80),
    ("pop3", 110),
    ("imap2", 143),
    ("imap", 143),
    ("https", 443),
    ("submissions", 465),
    ("submission", 587),
    ("imaps", 993),
    ("pop3s", 995),
    ("sieve", 4190),
    ("ldap", 389),
    ("ldaps", 636),
    ("mysql", 3306),
];

/// A list of services.
#[derive(Debug)]
pub(super) struct Services(BTreeMap<String, u16>);

impl Services {
    /// Returns the system's list; what it lacks is filled in.
    pub(super) fn system() -> Services {
        let text = fs::read_to_string("/etc/services").unwrap_or_default();
        Services::parse(&text)
    }

    fn parse(text: &str) -> Services {
        let mut ports: BTreeMap<String, u16> =
            USUAL.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let (Some(name), Some(port)) = (words.next(), words.next()) else { continue };
            let Some(port) = port.split('/').next().and_then(|port| port.parse().ok()) else {
                continue;
            };
            for name in std::iter::once(name).chain(words) {
                ports.insert(name.to_owned(), port);
            }
        }
        Services(ports)
    }

    /// Returns a number, or the port of a service.
    pub(super) fn port(&self, text: &str) -> Option<u16> {
        text.parse().ok().or_else(|| self.0.get(text).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let services = Services::parse("# list\nfoo 4711/tcp bar # note\nssh 22/tcp\nbroken\n");
        for (text, port) in [
            ("foo", Some(4711)),
            ("bar", Some(4711)),
            ("22", Some(22)),
            ("https", Some(443)),
            ("x", None),
        ] {
            assert_eq!(services.port(text), port, "{text}");
        }
    }
}
