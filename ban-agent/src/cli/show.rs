//! `ban-agent show`: why is this address banned?

use std::{fmt::Write as _, process::ExitCode};

use ipnet::IpNet;

use super::{
    Cli,
    failure::Failure,
    history, list, output,
    table::{self, plural},
};
use crate::{
    control::{Choice, Document, Request, Show, call},
    event::Shown,
};

/// Members of a prefix that are told.
const MEMBERS: usize = 20;

pub(super) fn run(cli: &Cli, address: IpNet) -> Result<ExitCode, Failure> {
    let odd = || Failure::new(2, "odd answer");
    let Document::Show(mut show) = call(&cli.socket(), &Request::Show { address })? else {
        return Err(odd());
    };
    if address.prefix_len() < address.max_prefix_len() {
        let choice = Choice { within: Some(address), limit: Some(MEMBERS), ..Choice::default() };
        let Document::List(list) = call(&cli.socket(), &Request::List(choice))? else {
            return Err(odd());
        };
        (show.members, show.inside) = (list.bans, list.total);
    }
    if cli.json() {
        output::object(&show)?;
    } else {
        output::print(&human(&show, table::width()))?;
    }
    Ok(ExitCode::from(u8::from(!show.banned && show.inside == 0)))
}

fn human(show: &Show, width: Option<usize>) -> String {
    let mut text = format!("{} is {}banned", show.address, if show.banned { "" } else { "not " });
    if let Some(reason) = &show.protected {
        let _ = write!(text, "; it is protected: {reason}");
    }
    text.push('\n');
    if !show.trusted_by.is_empty() {
        let jails = show.trusted_by.join(", ");
        let _ = writeln!(
            text,
            "never banned by {jails}: it is a proxy that they trust (trusted_proxies)"
        );
    }
    for ban in &show.bans {
        let _ = writeln!(
            text,
            "\n{}: ends {}; dropped {}, {}{}",
            list::name(ban),
            output::until(ban.until),
            plural(ban.packets, "packet", "packets"),
            output::bytes(ban.bytes),
            if ban.ports.is_empty() {
                String::new()
            } else {
                format!("; only {}", output::ports(&ban.ports))
            }
        );
        let place = [ban.place.country.clone().unwrap_or_default(), list::network(ban)].join(" ");
        if !place.trim().is_empty() {
            let _ = writeln!(text, "  from {}", place.trim());
        }
        for claim in &ban.holders {
            let _ = write!(text, "  held by {}, ends {}", claim.jail, output::until(claim.until));
            if claim.extended > 0 {
                let times = plural(claim.extended.into(), "time", "times");
                let _ = write!(text, "; still being hit, extended {times}");
            }
            text.push('\n');
        }
    }
    for evidence in &show.evidence {
        let prefix = Shown(evidence.prefix).to_string();
        let whom = if prefix == show.address { "it" } else { &prefix };
        let _ = write!(text, "\n{} banned {whom} {}", evidence.jail, output::ago(evidence.at));
        if evidence.failures > 0 {
            let failures = plural(evidence.failures.into(), "failure", "failures");
            let _ = write!(text, " after {failures}");
        }
        if let Some(reason) = &evidence.reason {
            let _ = write!(text, ": {reason}");
        }
        text.push('\n');
        for line in &evidence.lines {
            let _ = writeln!(text, "  {line}");
        }
    }
    if show.inside > 0 {
        let _ = writeln!(text, "\n{} inside it:", plural(show.inside, "ban", "bans"));
        text.push_str(&list::table(&show.members, width));
        let more = show.inside.saturating_sub(show.members.len() as u64);
        if more > 0 {
            let _ = writeln!(text, "… and {more} more: `ban-agent list --within {}`", show.address);
        }
    }
    if !show.deeds.is_empty() {
        let _ = writeln!(text, "\nlast done to it:");
        text.push_str(&history::table(&show.deeds, width));
    }
    if show.history > 0 {
        let _ = writeln!(text, "\nbans on record: {}", show.history);
    }
    text
}
