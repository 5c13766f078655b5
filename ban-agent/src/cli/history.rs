//! `ban-agent history`: what was done, when, by whom and why.

use std::{collections::HashMap, fs, io::IsTerminal as _, process::ExitCode};

use jiff::Timestamp;

use super::{
    Cli,
    args::History as Args,
    failure::Failure,
    output,
    table::{self, Column, csv, fit, plural},
};
use crate::{
    control::{Deed, Document, History, Request, call},
    store::{Asker, Search},
};

/// What is shown unless `--limit` says otherwise: on a terminal, and elsewhere.
const SHOWN: (usize, usize) = (100, 10_000);

const COLUMNS: [Column; 7] = [
    Column::text("WHEN"),
    Column::text("WHAT"),
    Column::long("ADDRESS"),
    Column::long("HOLDER"),
    Column::text("FOR").spare(2),
    Column::long("BY"),
    Column::long("WHY").spare(1),
];

const NAMES: [&str; 11] = [
    "at", "what", "address", "holder", "until", "failures", "reason", "uid", "login", "tty", "unit",
];

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let shown = if std::io::stdout().is_terminal() { SHOWN.0 } else { SHOWN.1 };
    let search = Search {
        about: args.address,
        since: args.since.map(output::before).transpose()?,
        limit: args.limit.unwrap_or(shown),
    };
    let Document::History(history) = call(&cli.socket(), &Request::History(search))? else {
        return Err(Failure::new(2, "odd answer"));
    };
    if cli.json() {
        output::object(&history)?;
    } else if cli.csv() {
        output::raw(&crate::event::disarm(&csv(&NAMES, history.deeds.iter().map(record))))?;
    } else {
        output::print(&human(&history, table::width()))?;
    }
    Ok(ExitCode::from(u8::from(history.deeds.is_empty())))
}

fn human(history: &History, width: Option<usize>) -> String {
    if history.deeds.is_empty() {
        return "nothing is on record\n".into();
    }
    table(&history.deeds, width)
}

/// Deeds for people.
pub(super) fn table(deeds: &[Deed], width: Option<usize>) -> String {
    let names = Names::read();
    let rows: Vec<Vec<String>> = deeds.iter().map(|deed| row(deed, &names)).collect();
    fit(&COLUMNS, &rows, width)
}

fn row(deed: &Deed, names: &Names) -> Vec<String> {
    let lasts = match (deed.what.as_str(), deed.until) {
        ("ban" | "extend", None) => "ever".to_owned(),
        (_, Some(until)) => output::span(deed.at, until),
        _ => String::new(),
    };
    let failures = || plural(u64::from(deed.failures), "failure", "failures");
    let why = match (&deed.reason, deed.failures) {
        (Some(reason), _) => reason.clone(),
        (None, 0) => String::new(),
        (None, _) => failures(),
    };
    vec![
        output::local(deed.at),
        deed.what.clone(),
        deed.address.clone().unwrap_or_default(),
        deed.holder.clone(),
        lasts,
        deed.by.as_ref().map_or_else(|| "the agent".to_owned(), |by| who(by, names)),
        why,
    ]
}

fn record(deed: &Deed) -> Vec<String> {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
    let by = deed.by.clone();
    let origin = by.as_ref().map(|by| by.origin.clone()).unwrap_or_default();
    let number = |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
    vec![
        deed.at.to_string(),
        deed.what.clone(),
        deed.address.clone().unwrap_or_default(),
        deed.holder.clone(),
        time(deed.until),
        deed.failures.to_string(),
        deed.reason.clone().unwrap_or_default(),
        number(by.map(|by| by.user)),
        number(origin.login),
        origin.tty.unwrap_or_default(),
        origin.unit.unwrap_or_default(),
    ]
}

/// `alice (as root) on pts/3`, `root in cron.service`.
fn who(by: &Asker, names: &Names) -> String {
    let user = names.of(by.user);
    let mut text = match by.origin.login {
        Some(login) if login != by.user => format!("{} (as {user})", names.of(login)),
        _ => user,
    };
    match (&by.origin.tty, &by.origin.unit) {
        (Some(tty), _) => text.push_str(&format!(" on {tty}")),
        (None, Some(unit)) => text.push_str(&format!(" in {unit}")),
        (None, None) => {}
    }
    text
}

/// The users of this host, by number.
struct Names(HashMap<u32, String>);

impl Names {
    fn read() -> Names {
        let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let user = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            Some((fields.nth(1)?.parse().ok()?, name))
        };
        Names(text.lines().filter_map(user).collect())
    }

    /// The name, or the number.
    fn of(&self, user: u32) -> String {
        self.0.get(&user).cloned().unwrap_or_else(|| format!("uid {user}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Origin;

    #[test]
    fn who_did_it_is_told_in_words() {
        let names = Names(HashMap::from([(0, "root".into()), (1000, "alice".into())]));
        let who = |user, login, tty: Option<&str>, unit: Option<&str>| {
            let origin = Origin { login, tty: tty.map(Into::into), unit: unit.map(Into::into) };
            who(&Asker { user, origin, ..Asker::default() }, &names)
        };
        assert_eq!(who(0, Some(1000), Some("pts/3"), None), "alice (as root) on pts/3");
        assert_eq!(who(0, None, None, Some("cron.service")), "root in cron.service");
        assert_eq!(who(1001, Some(1001), None, None), "uid 1001");
    }

    #[test]
    fn history_fits_a_terminal() {
        let deed = Deed {
            at: Timestamp::UNIX_EPOCH,
            what: "ban".into(),
            address: Some("2001:db8:1234:5678:9abc:def0:1234:5678".into()),
            holder: "web-panels-npm".into(),
            until: None,
            failures: 1,
            reason: None,
            by: None,
        };
        assert_eq!(record(&deed).len(), NAMES.len());
        let text = table(std::slice::from_ref(&deed), Some(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("the agent"), "{text}");
        assert!(table(&[deed], None).contains("  ever  "));
    }
}
