//! `ban-agent ban` and `ban-agent unban`: print what changed, what did not, and why.

use std::{fmt::Write as _, io, net::IpAddr, process::ExitCode};

use ipnet::IpNet;

use super::{Cli, args, failure::Failure, list, output};
use crate::{
    config,
    control::{Ban, Changes, Choice, Document, Outcome, Request, Term, call},
    fail2ban,
    net::{self, Ports},
};

pub(super) fn ban(cli: &Cli, args: &args::Ban) -> Result<ExitCode, Failure> {
    let ports = ports(&args.ports)?;
    let request = Request::Ban {
        targets: targets(&args.targets, whole)?,
        duration: duration(args.duration.as_deref())?,
        jail: args.jail.clone(),
        ports,
        reason: args.reason.clone(),
        force: args.force,
    };
    changes(cli, &request)
}

pub(super) fn unban(cli: &Cli, args: &args::Unban) -> Result<ExitCode, Failure> {
    let jail = args.jail.clone();
    let targets = match args.within {
        Some(within) => members(cli, within, jail.clone())?,
        None => targets(&args.targets, any)?,
    };
    let question = || match &jail {
        Some(jail) => format!("let go of everybody whom {jail} holds?"),
        None => "let go of everybody who is banned?".to_owned(),
    };
    if args.all && !args.yes && !list::confirmed(&question())? {
        return Err(Failure::new(1, "nothing was changed"));
    }
    if let (Some(within), true) = (args.within, targets.is_empty()) {
        return Err(Failure::new(1, format!("nobody inside {within} is banned")));
    }
    changes(cli, &Request::Unban { targets, all: args.all, jail, reason: args.reason.clone() })
}

/// What is banned inside a network.
fn members(cli: &Cli, within: IpNet, jail: Option<String>) -> Result<Vec<IpNet>, Failure> {
    let choice = Choice { jail, within: Some(within), ..Choice::default() };
    let Document::List(list) = call(&cli.socket(), &Request::List(choice))? else {
        return Err(Failure::new(2, "odd answer"));
    };
    let nets = list.bans.iter().map(Ban::net);
    nets.collect::<Result<_, _>>().map_err(|error| Failure::new(2, error))
}

fn duration(text: Option<&str>) -> Result<Option<Term>, Failure> {
    let Some(text) = text else { return Ok(None) };
    if matches!(text.trim(), "ever" | "forever" | "for ever") {
        return Ok(Some(Term::Forever));
    }
    let bad =
        |error| Failure::new(2, error).hint("nothing was changed; `--for ever` bans permanently");
    match config::parse_duration(text).map_err(bad)? {
        None => Ok(Some(Term::Forever)),
        Some(duration) if duration.is_zero() => {
            Err(Failure::new(2, "--for must be longer than 0")
                .hint("`--for ever` bans permanently"))
        }
        Some(duration) => Ok(Some(Term::For(duration))),
    }
}

/// The rules with numbers; none is all traffic.
fn ports(rules: &[String]) -> Result<Ports, Failure> {
    let mut all = Ports::new();
    for rule in rules {
        let ports = match net::parse_ports(rule) {
            Ok(ports) => ports,
            Err(_) => fail2ban::ports(rule)
                .map_err(|error| Failure::new(2, error).hint("nothing was changed"))?,
        };
        if ports.is_empty() {
            return Ok(ports);
        }
        all.extend(ports);
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// What has to hold of a target.
type Sound = fn(&str, IpNet) -> Result<IpNet, String>;

/// A network is named by its first address: of `10.0.0.1/8` nobody knows whether the host or all of
/// the network is meant.
fn whole(word: &str, target: IpNet) -> Result<IpNet, String> {
    let host = word.split_once('/').and_then(|(host, _)| host.parse::<IpAddr>().ok());
    match host {
        Some(host) if host.is_ipv4() == target.addr().is_ipv4() && host != target.addr() => {
            Err(format!("'{word}' is no network: {target} is, and {host} is one address of it"))
        }
        _ => Ok(target),
    }
}

/// Whoever lets go means all of it.
fn any(_word: &str, target: IpNet) -> Result<IpNet, String> {
    Ok(target)
}

fn targets(words: &[String], sound: Sound) -> Result<Vec<IpNet>, Failure> {
    let mut targets = Vec::with_capacity(words.len());
    for word in words {
        if word == "-" {
            read_list(io::stdin().lock(), sound, &mut targets)?;
        } else {
            let target = net::parse_prefix(word).map_err(|error| {
                Failure::new(2, error).hint("nothing was changed; host names are not resolved")
            })?;
            targets.push(sound(word, target).map_err(|error| {
                Failure::new(2, error).hint("nothing was changed; write the one that you mean")
            })?);
        }
    }
    Ok(targets)
}

/// A block list: one address or prefix a line, `#` comments. All of it, or nothing.
fn read_list(
    input: impl io::BufRead,
    sound: Sound,
    targets: &mut Vec<IpNet>,
) -> Result<(), Failure> {
    for (index, line) in input.split(b'\n').enumerate() {
        let line = line.map_err(|error| Failure::new(2, format!("standard input: {error}")))?;
        let line = String::from_utf8_lossy(&line);
        let word = line.split('#').next().unwrap_or_default().trim();
        if word.is_empty() {
            continue;
        }
        let parsed = net::parse_prefix(word).map_err(|error| error.to_string());
        let target = parsed.and_then(|target| sound(word, target)).map_err(|error| {
            Failure::new(2, format!("standard input, line {}: {error}", index + 1))
                .hint("nothing was changed; fix or delete the line")
        })?;
        targets.push(target);
    }
    Ok(())
}

pub(super) fn changes(cli: &Cli, request: &Request) -> Result<ExitCode, Failure> {
    let document = call(&cli.socket(), request)?;
    let Document::Changes(changes) = &document else {
        return Err(Failure::new(2, "odd answer"));
    };
    if cli.json() {
        output::json(&document)?;
    } else if !cli.quiet {
        output::print(&human(changes))?;
        output::remark(cli, &changes.alarms);
    }
    if let Some(warning) = &changes.warning {
        log::warn!("{warning}");
    }
    let negative =
        |outcome: &Outcome| matches!(outcome, Outcome::Refused | Outcome::Absent | Outcome::Full);
    Ok(ExitCode::from(u8::from(changes.counts.keys().any(negative))))
}

/// A line for each target, or a count where there are many of a kind.
fn human(changes: &Changes) -> String {
    const MANY: usize = 20;
    let mut text = String::new();
    for outcome in Outcome::ALL {
        let same = changes.changes.iter().filter(|change| change.result == *outcome);
        for change in same.take(MANY) {
            let address = if change.prefix.prefix_len() == change.prefix.max_prefix_len() {
                change.prefix.addr().to_string()
            } else {
                change.prefix.to_string()
            };
            let _ = write!(text, "{address}: {}", outcome.describe());
            if matches!(
                outcome,
                Outcome::Banned | Outcome::Extended | Outcome::Unchanged | Outcome::Held
            ) {
                let _ = write!(text, ", ends {}", output::until(change.until));
            }
            if let Some(reason) = &change.reason {
                let _ = write!(text, " ({reason})");
            }
            text.push('\n');
        }
        let count = changes.counts.get(outcome).copied().unwrap_or_default();
        if count > MANY as u64 {
            let _ = writeln!(text, "… and {} more {}", count - MANY as u64, outcome.describe());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_list_is_read_whole_or_not_at_all() {
        let mut targets = Vec::new();
        let list = "# list\n203.0.113.7\n\n2001:db8::/32 # net\r\n";
        read_list(list.as_bytes(), whole, &mut targets).unwrap();
        assert_eq!(targets.len(), 2);
        let error = read_list(&b"203.0.113.7\nexample.org\n"[..], whole, &mut targets).unwrap_err();
        assert!(format!("{error:?}").contains("line 2"), "{error:?}");
    }

    #[test]
    fn a_network_is_named_by_its_first_address() {
        let words = |text: &str| [text.to_owned()];
        for good in ["10.0.0.0/8", "10.0.0.1", "10.0.0.1/32", "2001:db8::/32"] {
            assert!(targets(&words(good), whole).is_ok(), "{good}");
        }
        let error = format!("{:?}", targets(&words("10.0.0.1/8"), whole).unwrap_err());
        assert!(error.contains("10.0.0.0/8 is, and 10.0.0.1 is one address of it"), "{error}");
        assert!(targets(&words("2001:db8::1/32"), whole).is_err());
        // who lets go means all that holds him
        assert!(targets(&words("10.0.0.1/8"), any).is_ok());
    }

    #[test]
    fn for_ever_is_a_word() {
        for text in ["ever", "forever", "-1"] {
            assert!(matches!(duration(Some(text)).unwrap(), Some(Term::Forever)), "{text}");
        }
        assert!(duration(None).unwrap().is_none());
        assert!(duration(Some("never")).is_err());
    }
}
