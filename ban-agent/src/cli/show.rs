//! `ban-agent show`: why is this address banned?

use std::{fmt::Write as _, process::ExitCode};

use ipnet::IpNet;

use super::{Cli, failure::Failure, list, output};
use crate::{
    control::{Document, Request, Show, call},
    event::Shown,
};

pub(super) fn run(cli: &Cli, address: IpNet) -> Result<ExitCode, Failure> {
    let document = call(&cli.socket(), &Request::Show { address })?;
    let Document::Show(show) = &document else { return Err(Failure::new(2, "odd answer")) };
    if cli.json() {
        output::json(&document)?;
    } else {
        output::print(&human(show))?;
    }
    Ok(ExitCode::from(u8::from(!show.banned)))
}

fn human(show: &Show) -> String {
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
            "\n{}: ends {}; dropped {} packets, {}{}",
            list::name(ban),
            output::until(ban.until),
            ban.packets,
            output::bytes(ban.bytes),
            if ban.ports.is_empty() {
                String::new()
            } else {
                format!("; only {}", output::ports(&ban.ports))
            }
        );
        for claim in &ban.holders {
            let _ = write!(text, "  held by {}, ends {}", claim.jail, output::until(claim.until));
            if claim.extended > 0 {
                let _ = write!(text, "; still being hit, extended {} times", claim.extended);
            }
            text.push('\n');
        }
    }
    for evidence in &show.evidence {
        let prefix = Shown(evidence.prefix).to_string();
        let whom = if prefix == show.address { "it" } else { &prefix };
        let _ = write!(text, "\n{} banned {whom} {}", evidence.jail, output::ago(evidence.at));
        if evidence.failures > 0 {
            let _ = write!(text, " after {} failures", evidence.failures);
        }
        if let Some(reason) = &evidence.reason {
            let _ = write!(text, ": {reason}");
        }
        text.push('\n');
        for line in &evidence.lines {
            let _ = writeln!(text, "  {line}");
        }
    }
    if show.history > 0 {
        let _ = writeln!(text, "\nbans on record: {}", show.history);
    }
    text
}
