//! `ban-agent jail` and `ban-agent allow`: orders at run time, which outlive a restart.

use std::{process::ExitCode, time::Duration};

use super::{
    Cli,
    args::{Allow, Jail, Terms},
    failure::Failure,
    output,
    table::{self, Column, csv, fit},
};
use crate::{
    control::{Document, Request, SCHEMA, Steer, call},
    store::{Kind, Order},
};

const COLUMNS: [Column; 4] = [
    Column::text("ADDRESS"),
    Column::text("ENDS"),
    Column::text("SINCE").spare(1),
    Column::long("WHY"),
];

const NAMES: [&str; 4] = ["address", "until", "since", "reason"];

pub(super) fn jail(cli: &Cli, jail: &Jail) -> Result<ExitCode, Failure> {
    match jail {
        Jail::Disable { name, terms } => order(cli, Kind::Disable, name, Some(terms)),
        Jail::DryRun { name, terms } => order(cli, Kind::DryRun, name, Some(terms)),
        Jail::Enable { name } => order(cli, Kind::Disable, name, None),
    }
}

pub(super) fn allow(cli: &Cli, allow: &Allow) -> Result<ExitCode, Failure> {
    match allow {
        Allow::Add { address, terms } => order(cli, Kind::Allow, address, Some(terms)),
        Allow::Remove { address } => order(cli, Kind::Allow, address, None),
        Allow::List => list(cli),
    }
}

fn order(cli: &Cli, kind: Kind, name: &str, terms: Option<&Terms>) -> Result<ExitCode, Failure> {
    let duration: Option<Duration> = terms.and_then(|terms| terms.duration);
    let reason = terms.and_then(|terms| terms.reason.clone());
    let steer = Steer { kind, name: name.to_owned(), on: terms.is_some(), duration, reason };
    super::ask(cli, &Request::Steer(steer))
}

fn list(cli: &Cli) -> Result<ExitCode, Failure> {
    let Document::Status(status) = call(&cli.socket(), &Request::Status { jail: None })? else {
        return Err(Failure::new(2, "odd answer"));
    };
    let allowed = status.orders.iter().filter(|order| order.kind == Kind::Allow);
    let allowed: Vec<&Order> = allowed.collect();
    if cli.json() {
        output::object(&serde_json::json!({ "schema": SCHEMA, "allowed": allowed }))?;
    } else if cli.csv() {
        let record = |order: &&Order| {
            let until = order.until.map(|time| time.to_string()).unwrap_or_default();
            vec![
                order.name.clone(),
                until,
                order.at.to_string(),
                order.reason.clone().unwrap_or_default(),
            ]
        };
        output::raw(&crate::event::disarm(&csv(&NAMES, allowed.iter().map(record))))?;
    } else if allowed.is_empty() {
        output::print(
            "nobody is allowed at run time; `ban-agent status -v` tells whom no log line bans\n",
        )?;
    } else {
        let row = |order: &&Order| {
            let why = order.reason.clone().unwrap_or_default();
            vec![order.name.clone(), output::until(order.until), output::ago(order.at), why]
        };
        let rows: Vec<Vec<String>> = allowed.iter().map(row).collect();
        output::print(&fit(&COLUMNS, &rows, table::width()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What was ordered of jails, a line each, for `status`.
pub(super) fn told(orders: &[Order]) -> String {
    let of_jails = orders.iter().filter(|order| order.kind != Kind::Allow);
    let line = |order: &Order| {
        let what = if order.kind == Kind::Disable {
            "bans nobody"
        } else {
            "only counts whom it would ban"
        };
        let end = match order.until {
            Some(_) => format!("ends {}", output::until(order.until)),
            None => format!("until `ban-agent jail enable {}`", order.name),
        };
        let why = order.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("ORDERED: the jail {} {what}, {end}{why}\n", order.name)
    };
    let allowed = orders.iter().filter(|order| order.kind == Kind::Allow).count();
    let mut text: String = of_jails.map(line).collect();
    if allowed > 0 {
        let many =
            table::plural(allowed as u64, "address or network is", "addresses or networks are");
        text.push_str(&format!("ORDERED: {many} not dropped: `ban-agent allow list`\n"));
    }
    text
}
