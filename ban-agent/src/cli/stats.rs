//! `ban-agent stats`: how often what was banned.

use std::process::ExitCode;

use super::{
    Cli,
    args::Stats as Args,
    failure::Failure,
    output,
    table::{self, Column, csv, fit, plural},
};
use crate::control::{Axis, Document, Request, Stats, call};

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let (by, since) = (args.by, output::before(args.since)?);
    let request = Request::Stats { by, since, limit: args.limit };
    let Document::Stats(stats) = call(&cli.socket(), &request)? else {
        return Err(Failure::new(2, "odd answer"));
    };
    if cli.json() {
        output::object(&stats)?;
    } else if cli.csv() {
        let rows = stats.rows.iter();
        let row = |row: &crate::control::Row| {
            vec![row.name.clone(), row.bans.to_string(), row.failures.to_string()]
        };
        let names = [title(by).to_ascii_lowercase(), "bans".into(), "failures".into()];
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        output::raw(&crate::event::disarm(&csv(&names, rows.map(row))))?;
    } else {
        output::print(&human(&stats, table::width()))?;
    }
    Ok(ExitCode::from(u8::from(stats.rows.is_empty())))
}

fn title(by: Axis) -> &'static str {
    match by {
        Axis::Address => "ADDRESS",
        Axis::Prefix => "PREFIX",
        Axis::Jail => "JAIL",
        Axis::Country => "COUNTRY",
        Axis::Asn => "NETWORK",
        Axis::User => "USER",
        Axis::Path => "PATH",
    }
}

fn human(stats: &Stats, width: Option<usize>) -> String {
    if stats.rows.is_empty() {
        return format!("nothing was banned since {}\n", output::local(stats.since));
    }
    let columns = [
        Column::long(title(stats.by)),
        Column::number("BANS"),
        Column::number("SHARE").spare(2),
        Column::number("FAILURES").spare(1),
    ];
    let row = |row: &crate::control::Row| {
        let share = 100.0 * row.bans as f64 / stats.bans.max(1) as f64;
        let (bans, failures) = (table::short(row.bans), table::short(row.failures));
        vec![row.name.clone(), bans, format!("{share:.0} %"), failures]
    };
    let rows: Vec<Vec<String>> = stats.rows.iter().map(row).collect();
    let mut text = fit(&columns, &rows, width);
    let more = stats.total.saturating_sub(stats.rows.len() as u64);
    if more > 0 {
        text.push_str(&format!("… and {more} more\n"));
    }
    text.push_str(&format!(
        "{} after {} since {}\n",
        plural(stats.bans, "ban", "bans"),
        plural(stats.failures, "failure", "failures"),
        output::local(stats.since)
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Row;

    #[test]
    fn shares_and_what_is_left_out_are_told() {
        let rows = vec![Row { name: "DE".into(), bans: 3, failures: 12_345 }];
        let since = jiff::Timestamp::UNIX_EPOCH;
        let stats = Stats {
            schema: 1,
            since,
            by: Axis::Country,
            bans: 4,
            failures: 12_346,
            total: 2,
            rows,
        };
        let text = human(&stats, None);
        assert!(text.starts_with("COUNTRY  BANS  SHARE  FAILURES\nDE          3   75 %     12.3k\n… and 1 more\n4 bans after"), "{text}");
    }
}
