//! `trusted_proxies`: whom the operator trusts to bring others' requests. Addresses and prefixes,
//! files of such, and the lists of addresses that content delivery networks publish, as they were
//! when this version was made (`dist/cdn/` of the source tree says when, and how to renew one).

use std::{fs, path::PathBuf};

use serde::{Deserialize, Deserializer, de};

use super::{
    Error,
    layer::{self, Layer},
    raw::{self, OneOrMany},
};
use crate::{
    jail::Ignored,
    ledger::Protected,
    net::{self, IpNet},
};

macro_rules! list {
    ($name:literal) => {
        (concat!("cdn:", $name), include_str!(concat!("../../../../dist/cdn/", $name, ".list")))
    };
}

/// The word for each, and its text.
const LISTS: &[(&str, &str)] = &[list!("cloudflare"), list!("cloudfront"), list!("fastly")];

/// A file that is longer is no list of proxies.
const MAX: u64 = 1 << 20;

#[derive(Clone, Debug)]
enum Proxy {
    Net(IpNet),
    Cdn(&'static str, &'static str),
    File(PathBuf),
}

/// The words of `trusted_proxies`; a text separates them with spaces or commas.
#[derive(Clone, Debug)]
pub(super) struct Proxies(Vec<Proxy>);

impl<'de> Deserialize<'de> for Proxies {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let words = raw::words(OneOrMany::deserialize(from)?);
        let proxies = words.iter().map(|word| parse(word)).collect::<Result<_, _>>();
        proxies.map(Proxies).map_err(de::Error::custom)
    }
}

fn parse(word: &str) -> Result<Proxy, String> {
    if word.starts_with("cdn:") {
        let known = LISTS.iter().find(|(name, _)| *name == word);
        return known.map(|(name, text)| Proxy::Cdn(name, text)).ok_or_else(|| {
            let names: Vec<&str> = LISTS.iter().map(|(name, _)| *name).collect();
            format!(
                "there is no list '{word}', only {}; name a file of your own: '/PATH'",
                names.join(", ")
            )
        });
    }
    let path = word.strip_prefix("file:").unwrap_or(word);
    if path.starts_with('/') {
        return Ok(Proxy::File(path.into()));
    }
    let bad = |_| {
        format!(
            "'{word}' is not an address, a prefix, a list such as cdn:cloudflare, or a file: /PATH"
        )
    };
    net::parse_prefix(word).map(Proxy::Net).map_err(bad)
}

/// Returns what the words stand for now, and why each is protected; the files that were read go to
/// `files`.
///
/// # Errors
/// The files that cannot be read or hold something else. The rest is there all the same.
pub(super) fn resolve(
    layers: &[Layer],
    keys: &[&str],
    proxies: &Proxies,
    files: &mut Vec<PathBuf>,
) -> (Vec<(IpNet, Protected)>, Vec<Error>) {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for proxy in &proxies.0 {
        match proxy {
            Proxy::Net(net) => found.push((*net, Protected::Proxy)),
            Proxy::Cdn(name, text) => {
                let nets = Ignored::words(text).filter_map(|word| net::parse_prefix(word).ok());
                found.extend(nets.map(|net| (net, Protected::Cdn(name))));
            }
            Proxy::File(path) => match read(layers, keys, path.clone()) {
                Ok(nets) => {
                    found.extend(nets.into_iter().map(|net| (net, Protected::Proxy)));
                    files.push(path.clone());
                }
                Err(error) => errors.push(error),
            },
        }
    }
    (found, errors)
}

/// One file: addresses and prefixes, and comments from `#` to the end of a line.
fn read(layers: &[Layer], keys: &[&str], path: PathBuf) -> Result<Vec<IpNet>, Error> {
    let refused = |why: String| {
        let message = format!("cannot read {}: {why}", path.display());
        let hint =
            "create that file, with one address or prefix per line, or remove it from the list";
        layer::invalid(layers, keys, message, Some(hint.into()))
    };
    let meta = fs::metadata(&path).map_err(|error| refused(error.to_string()))?;
    if !meta.is_file() || meta.len() > MAX {
        return Err(refused(format!("it is not a regular file of at most {MAX} bytes")));
    }
    let text = fs::read_to_string(&path).map_err(|error| refused(error.to_string()))?;
    let mut nets = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        for word in Ignored::words(text) {
            nets.push(net::parse_prefix(word).map_err(|error| Error::Invalid {
                path: path.clone(),
                line,
                message: error.to_string(),
                hint: Some("fix this line, or remove it".into()),
            })?);
        }
    }
    Ok(nets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_dated_and_hold_networks_alone() {
        for (name, text) in LISTS {
            let words: Vec<&str> = Ignored::words(text).collect();
            assert!(words.len() > 10, "{name}");
            for word in words {
                let net = net::parse_prefix(word).unwrap();
                assert_eq!(net.to_string(), *word, "{name}");
                // a slip there would leave a part of the Internet unbannable
                assert!(net.prefix_len() >= 12, "{name}: {net}");
            }
            for said in ["as published on 20", "Source: https://", "Renew with: "] {
                assert!(text.contains(said), "{name} does not say {said}");
            }
        }
    }

    #[test]
    fn words_that_are_no_proxies_are_refused() {
        for (word, said) in [
            ("cdn:cloudflair", "cdn:cloudflare, cdn:cloudfront, cdn:fastly"),
            ("cloudflare", "is not an address, a prefix, a list"),
            ("192.0.2.400", "is not an address, a prefix, a list"),
        ] {
            let error = parse(word).unwrap_err();
            assert!(error.contains(said) && error.contains(word), "{error}");
        }
    }
}
