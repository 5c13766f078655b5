//! `ban-agent list`

use std::process::ExitCode;

use super::{Cli, failure::Failure, output};
use crate::control::{Ban, Document, List, Request, call, pour as pour_list};

pub(super) fn run(
    cli: &Cli,
    jail: Option<String>,
    limit: Option<usize>,
) -> Result<ExitCode, Failure> {
    let request = Request::List { jail, limit };
    if cli.json() {
        let mut pour = output::Pour::default();
        pour_list(&cli.socket(), &request, |piece| pour.more(piece))??;
        pour.end()?;
    } else if let Document::List(list) = &call(&cli.socket(), &request)? {
        output::print(&human(list))?;
        output::remark(cli, &list.alarms);
    }
    Ok(ExitCode::SUCCESS)
}

fn human(list: &List) -> String {
    if list.bans.is_empty() {
        return "no address is banned\n".into();
    }
    let rows: Vec<Vec<String>> = list.bans.iter().map(row).collect();
    output::table(&["ADDRESS", "ENDS", "HELD BY", "PACKETS", "BYTES", "PORTS"], &rows)
}

fn row(ban: &Ban) -> Vec<String> {
    let holders: Vec<&str> = ban.holders.iter().map(|claim| claim.jail.as_str()).collect();
    vec![
        name(ban),
        output::until(ban.until),
        holders.join(","),
        ban.packets.to_string(),
        output::bytes(ban.bytes),
        if ban.ports.is_empty() { "all".into() } else { output::ports(&ban.ports) },
    ]
}

/// The address, with its length where it is a prefix.
pub(super) fn name(ban: &Ban) -> String {
    let host = if ban.family == 4 { 32 } else { 128 };
    if ban.prefix == host { ban.address.clone() } else { format!("{}/{}", ban.address, ban.prefix) }
}
