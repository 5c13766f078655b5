//! Whom a jail ignores besides fixed addresses: words of `ignoreip`, and the command that is asked.
//! Knows what is to be looked up and asked; does neither.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use crate::net::{self, IpNet};

/// What of `ignoreip` has to be looked up, again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookup {
    /// Host names, never one from a log.
    pub names: Vec<String>,
    /// Files with addresses, prefixes and host names.
    pub files: Vec<PathBuf>,
}

impl Lookup {
    /// Returns whether there is nothing to look up.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.files.is_empty()
    }
}

/// `ignorecommand` and `ignorecache`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoreCommand {
    /// Run before a ban; if it ends with 0, there is none.
    pub command: String,
    /// What is kept of its answers; `None`: nothing.
    pub cache: Option<IgnoreCache>,
}

/// `ignorecache`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoreCache {
    /// Text with tags; equal texts have equal answers.
    pub key: String,
    /// Answers kept at most; at least 1.
    pub count: usize,
    /// How long an answer counts.
    pub time: Duration,
}

impl IgnoreCache {
    /// fail2ban's `max-count`.
    pub const COUNT: usize = 100;
    /// fail2ban's `max-time`.
    pub const TIME: Duration = Duration::from_secs(300);
}

/// One word of `ignoreip`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// An address or a prefix.
    Net(IpNet),
    /// A host name.
    Name(String),
    /// `file:PATH`
    File(PathBuf),
}

/// A word that is none of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an address, prefix, host name or file:/PATH")]
pub struct BadIgnored(pub String);

impl Ignored {
    /// Reads one word: `192.0.2.0/24`, `192.0.2.0/255.255.255.0`, `[2001:db8::1]/64`,
    /// `host.example.net`, `file:/etc/list`.
    ///
    /// # Errors
    /// If it is none of these.
    pub fn parse(word: &str) -> Result<Ignored, BadIgnored> {
        let bad = || BadIgnored(word.to_owned());
        if let Some(path) = word.strip_prefix("file:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.starts_with('/') { Ok(Ignored::File(path.into())) } else { Err(bad()) };
        }
        if let Some(net) = prefix(word) {
            return Ok(Ignored::Net(net));
        }
        let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let last = word.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
        // 192.0.2.400 is a slip, not a name
        let named = last.starts_with(|c: char| c.is_ascii_alphabetic()) && !word.starts_with('-');
        if named && word.chars().all(part) {
            Ok(Ignored::Name(word.to_owned()))
        } else {
            Err(bad())
        }
    }

    /// Returns the words of a text or of a file, where `#` begins a comment.
    pub fn words(text: &str) -> impl Iterator<Item = &str> {
        text.lines()
            .flat_map(|line| {
                line.split('#').next().unwrap_or_default().split([' ', ',', '\t', '\r'])
            })
            .filter(|word| !word.is_empty())
    }
}

/// Returns an address, a prefix, or an address with a mask like `192.0.2.0/255.255.255.0`.
fn prefix(text: &str) -> Option<IpNet> {
    let text = text.trim_matches(['[', ']']);
    if let Ok(net) = net::parse_prefix(text) {
        return Some(net);
    }
    let (address, mask) = text.split_once('/')?;
    let address: IpAddr = address.trim_matches(['[', ']']).parse().ok()?;
    let length = match mask.parse::<IpAddr>() {
        Ok(mask) => ipnet::ip_mask_to_prefix(mask).ok()?,
        Err(_) => mask.parse().ok()?,
    };
    IpNet::new(address, length).ok().map(|net| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_ignoreip() {
        for (text, expected) in [
            ("127.0.0.1/8", Some("127.0.0.0/8")),
            ("192.0.2.0/255.255.255.0", Some("192.0.2.0/24")),
            ("[2001:db8::1]/64", Some("2001:db8::/64")),
            ("::1", Some("::1/128")),
        ] {
            let net = prefix(text).map(|net| net.to_string());
            assert_eq!(net.as_deref(), expected, "{text}");
        }
        let name = |text: &str| Ok(Ignored::Name(text.to_owned()));
        for (word, expected) in [
            ("host.example.net", name("host.example.net")),
            ("localhost", name("localhost")),
            ("file:/a", Ok(Ignored::File("/a".into()))),
            ("file:///a", Ok(Ignored::File("/a".into()))),
            ("file:a", Err(())),
            ("192.0.2.400", Err(())),
            ("192.0.2.0/255.0.255.0", Err(())),
            ("-x.net", Err(())),
            ("a b", Err(())),
            ("", Err(())),
        ] {
            assert_eq!(Ignored::parse(word).map_err(|_| ()), expected, "{word}");
        }
        let words: Vec<_> = Ignored::words("a, b\tc # d\n#e\n\nf").collect();
        assert_eq!(words, ["a", "b", "c", "f"]);
    }
}
