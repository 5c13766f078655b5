//! `ban-agent list`

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use super::{
    Cli,
    args::{List as Args, Sort},
    failure::Failure,
    output,
    table::{self, Column, csv, fit, plural},
};
use crate::control::{Ban, Choice, Document, List, Request, call, pour as pour_list};

/// Bans that a terminal is shown unless `--limit` says otherwise.
const SHOWN: usize = 100;

/// Those of a table for people.
const COLUMNS: [Column; 10] = [
    Column::text("ADDRESS"),
    Column::text("ENDS"),
    Column::text("SINCE").spare(5),
    Column::long("HELD BY"),
    Column::number("PACKETS"),
    Column::number("BYTES").spare(6),
    Column::text("COUNTRY").spare(3),
    Column::long("NETWORK").spare(7),
    Column::long("PORTS").spare(2),
    Column::long("REASON").spare(4),
];

/// Those of `-o csv`.
const NAMES: [&str; 13] = [
    "address", "prefix", "until", "since", "held_by", "packets", "bytes", "ports", "country",
    "asn", "network", "failures", "reason",
];

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let terminal = cli.human() && std::io::stdout().is_terminal();
    let limit = args.limit.or(terminal.then_some(SHOWN));
    // the agent knows the ends; whoever wants another order has to see all
    let choice = Choice {
        jail: args.jail.clone(),
        limit: limit.filter(|_| args.sort == Sort::Ends),
        within: args.within,
        country: args.country.as_ref().map(|code| code.to_ascii_uppercase()),
    };
    let request = Request::List(choice);
    if cli.json() && args.sort == Sort::Ends {
        let mut pour = output::Pour::default();
        pour_list(&cli.socket(), &request, |piece| pour.more(piece))??;
        pour.end()?;
        return Ok(ExitCode::SUCCESS);
    }
    let Document::List(mut list) = call(&cli.socket(), &request)? else {
        return Err(Failure::new(2, "odd answer"));
    };
    sort(&mut list.bans, args.sort);
    list.bans.truncate(limit.unwrap_or(usize::MAX));
    if cli.json() {
        output::object(&list)?;
    } else if cli.csv() {
        output::raw(&crate::event::disarm(&csv(&NAMES, list.bans.iter().map(record))))?;
    } else {
        output::print(&human(&list, table::width()))?;
        output::remark(cli, &list.alarms);
    }
    Ok(ExitCode::SUCCESS)
}

/// The most, the newest and the first of the alphabet come first.
fn sort(bans: &mut [Ban], by: Sort) {
    match by {
        Sort::Ends => {}
        Sort::Since => bans.sort_by_key(|ban| std::cmp::Reverse(ban.since)),
        Sort::Packets => bans.sort_by_key(|ban| std::cmp::Reverse(ban.packets)),
        Sort::Bytes => bans.sort_by_key(|ban| std::cmp::Reverse(ban.bytes)),
        Sort::Address => bans.sort_by_cached_key(|ban| ban.net().ok()),
        // those of whom nothing is known last
        Sort::Country => bans.sort_by_cached_key(|ban| {
            let country = ban.place.country.clone();
            (country.is_none(), country)
        }),
        Sort::Holder => bans.sort_by_cached_key(holders),
    }
}

fn human(list: &List, width: Option<usize>) -> String {
    if list.total == 0 {
        return "no address is banned\n".into();
    }
    let mut text = table(&list.bans, width);
    let more = list.total.saturating_sub(list.bans.len() as u64);
    if more > 0 {
        text.push_str(&format!("… and {more} more of {}\n", plural(list.total, "ban", "bans")));
    }
    text
}

/// Bans for people.
pub(super) fn table(bans: &[Ban], width: Option<usize>) -> String {
    let rows: Vec<Vec<String>> = bans.iter().map(row).collect();
    fit(&COLUMNS, &rows, width)
}

fn row(ban: &Ban) -> Vec<String> {
    let place = &ban.place;
    let ports = if ban.ports.is_empty() { String::new() } else { output::ports(&ban.ports) };
    vec![
        name(ban),
        output::until(ban.until),
        ban.since.map(output::ago).unwrap_or_default(),
        holders(ban),
        table::short(ban.packets),
        output::bytes(ban.bytes),
        place.country.clone().unwrap_or_default(),
        network(ban),
        ports,
        why(ban),
    ]
}

fn record(ban: &Ban) -> Vec<String> {
    let place = &ban.place;
    let time =
        |time: Option<jiff::Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
    vec![
        ban.address.clone(),
        ban.prefix.to_string(),
        time(ban.until),
        time(ban.since),
        holders(ban),
        ban.packets.to_string(),
        ban.bytes.to_string(),
        output::ports(&ban.ports),
        place.country.clone().unwrap_or_default(),
        place.asn.map(|asn| asn.to_string()).unwrap_or_default(),
        place.network.clone().unwrap_or_default(),
        ban.failures.to_string(),
        ban.reason.clone().unwrap_or_default(),
    ]
}

fn holders(ban: &Ban) -> String {
    ban.holders.iter().map(|claim| claim.jail.as_str()).collect::<Vec<_>>().join(",")
}

/// `AS64496 Example`.
pub(super) fn network(ban: &Ban) -> String {
    let asn = ban.place.asn.map(|asn| format!("AS{asn}"));
    asn.into_iter().chain(ban.place.network.clone()).collect::<Vec<_>>().join(" ")
}

/// The operator's words, or how many failures there were.
fn why(ban: &Ban) -> String {
    match (&ban.reason, ban.failures) {
        (Some(reason), _) => reason.clone(),
        (None, 0) => String::new(),
        (None, failures) => plural(u64::from(failures), "failure", "failures"),
    }
}

/// The address, with its length where it is a prefix.
pub(super) fn name(ban: &Ban) -> String {
    let host = if ban.family == 4 { 32 } else { 128 };
    if ban.prefix == host { ban.address.clone() } else { format!("{}/{}", ban.address, ban.prefix) }
}

/// Asks on the terminal; no terminal, no question.
pub(super) fn confirmed(question: &str) -> Result<bool, Failure> {
    let failed = |error: std::io::Error| Failure::new(2, error);
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(true);
    }
    let mut out = std::io::stderr();
    write!(out, "{question} [y/N] ").and_then(|()| out.flush()).map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{control::Claim, event::Place};

    fn ban(address: &str, packets: u64, country: Option<&str>) -> Ban {
        let now = jiff::Timestamp::now();
        Ban {
            address: address.into(),
            prefix: if address.contains(':') { 128 } else { 32 },
            family: if address.contains(':') { 6 } else { 4 },
            holders: vec![Claim { jail: "sshd".into(), until: None, extended: 0 }],
            until: None,
            packets,
            bytes: packets * 60,
            ports: Vec::new(),
            since: Some(now),
            failures: 5,
            reason: None,
            place: Place {
                country: country.map(Into::into),
                asn: Some(64496),
                network: Some("Example Networks".into()),
            },
        }
    }

    fn list(total: u64) -> List {
        let bans = vec![
            ban("203.0.113.7", 1_234_567, Some("DE")),
            ban("2001:db8:1234:5678:9abc:def0:1234:5678", 3, None),
        ];
        List { schema: 1, total, bans, alarms: Vec::new() }
    }

    #[test]
    fn nothing_wraps_and_numbers_stand_to_the_right() {
        for width in [80, 100, 200] {
            let text = human(&list(2), Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
        }
        let text = human(&list(2), Some(200));
        assert!(text.contains("1.2M") && text.contains("AS64496 Example Networks"), "{text}");
        assert!(text.contains("5 failures") && !text.contains("more"), "{text}");
        assert!(human(&list(9), None).ends_with("… and 7 more of 9 bans\n"));
        assert_eq!(
            human(&List { total: 0, bans: Vec::new(), ..list(0) }, None),
            "no address is banned\n"
        );
    }

    #[test]
    fn every_order_is_there() {
        let first = |by| {
            let mut bans = list(2).bans;
            bans.reverse();
            sort(&mut bans, by);
            bans[0].family
        };
        assert_eq!(first(Sort::Ends), 6);
        for by in [Sort::Packets, Sort::Bytes, Sort::Address, Sort::Country] {
            assert_eq!(first(by), 4, "{by:?}");
        }
    }

    #[test]
    fn csv_has_a_cell_for_each_name() {
        assert_eq!(record(&list(2).bans[0]).len(), NAMES.len());
        assert_eq!(row(&list(2).bans[0]).len(), COLUMNS.len());
    }
}
