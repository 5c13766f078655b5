//! `ban-agent status`: alarms first, then interfaces, totals and jails. With `--quiet` the exit code
//! alone: 1 if there is any alarm.

use std::{fmt::Write as _, process::ExitCode};

use jiff::Timestamp;

use super::{Cli, failure::Failure, output, steer, table::plural};
use crate::{
    alarm::Alarm,
    control::{Document, Latency, Request, Status, Trial, call},
};

pub(super) fn run(cli: &Cli, jail: Option<String>) -> Result<ExitCode, Failure> {
    let document = call(&cli.socket(), &Request::Status { jail })?;
    let Document::Status(status) = &document else {
        return Err(Failure::new(2, "odd answer"));
    };
    if cli.quiet {
        return Ok(ExitCode::from(u8::from(!status.alarms.is_empty())));
    }
    if cli.json() {
        output::json(&document)?;
    } else {
        output::alarms(&status.alarms.iter().map(told).collect::<String>())?;
        let mut text = human(status);
        if cli.verbose > 0 {
            let (time, by) = (status.longest_hold.seconds * 1000.0, &status.longest_hold.by);
            let wait = status.longest_wait * 1000.0;
            let _ = writeln!(text, "the engine was held for {time:.1} ms at most, by {by}");
            let _ = writeln!(text, "a ban waited {wait:.1} ms for its turn at most");
            text.push_str(&output::protected(&status.protected));
        }
        output::print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn on_trial(until: Timestamp) -> String {
    format!(
        "ON TRIAL: nothing is enforced any more {}, unless `ban-agent confirm` comes before",
        output::until(Some(until))
    )
}

/// Two lines: what is wrong since when, and what to do.
fn told(alarm: &Alarm) -> String {
    format!(
        "ALARM {}: {} (since {})\n      {}\n",
        alarm.name.word(),
        alarm.sentence(),
        output::ago(alarm.since),
        alarm.remedy
    )
}

fn human(status: &Status) -> String {
    let mut text = String::new();
    if let Some(Trial::Running { until }) = status.trial {
        let _ = writeln!(text, "{}", on_trial(until));
    }
    text.push_str(&steer::told(&status.orders));
    for warning in &status.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    let _ = writeln!(
        text,
        "ban-agent {} [{}], started {}{}",
        status.version,
        status.pid,
        output::ago(status.since),
        if status.dry_run { ", DRY RUN: nothing is dropped" } else { "" }
    );
    let interfaces: Vec<String> = status
        .interfaces
        .iter()
        .map(|interface| format!("{} ({})", interface.name, interface.mode))
        .collect();
    let _ = writeln!(text, "interfaces: {}", interfaces.join(", "));
    let _ = writeln!(
        text,
        "bans: {} IPv4, {} IPv6, of {} each; store {}",
        status.bans.v4, status.bans.v6, status.bans.max, status.store
    );
    if let Latency { bans: bans @ 1.., median: Some(median), p99: Some(p99) } = status.log_to_drop {
        let [median, p99] = [median, p99].map(|seconds| seconds * 1000.0);
        let _ = writeln!(
            text,
            "from line to drop: median ≤ {median} ms, 99 % ≤ {p99} ms, over {}",
            plural(bans, "ban", "bans")
        );
    }
    for verdict in status.verdicts.iter().filter(|verdict| verdict.packets > 0) {
        let _ = writeln!(
            text,
            "  {:<14} {:>12} packets  {:>10}",
            verdict.name,
            verdict.packets,
            output::bytes(verdict.bytes)
        );
    }
    if !status.jails.is_empty() {
        let rows: Vec<Vec<String>> = status
            .jails
            .iter()
            .map(|jail| {
                let numbers =
                    [jail.lines, jail.matched, jail.failed, jail.banned, jail.total, jail.ignored];
                let mut row = vec![jail.name.clone()];
                row.extend(numbers.iter().map(u64::to_string));
                row.push(jail.sources.join(" "));
                row
            })
            .collect();
        let header = ["JAIL", "LINES", "MATCHED", "FAILED", "BANNED", "TOTAL", "IGNORED", "READS"];
        text.push_str(&output::table(&header, &rows));
    }
    let rows: Vec<Vec<String>> = status
        .jails
        .iter()
        .flat_map(|jail| jail.actions.iter().map(move |action| (jail, action)))
        .map(|(jail, action)| {
            let numbers = [action.done, action.failed, action.dropped];
            let names = [action.name.clone(), jail.name.clone()].into_iter();
            names.chain(numbers.iter().map(u64::to_string)).collect()
        })
        .collect();
    if !rows.is_empty() {
        text.push_str(&output::table(&["ACTION", "OF", "DONE", "FAILED", "DROPPED"], &rows));
    }
    if !status.sources.is_empty() {
        let rows: Vec<Vec<String>> = status
            .sources
            .iter()
            .map(|source| {
                let counters = &source.counters;
                let remarks = counters.remarks().join(", ");
                let bytes = [counters.bytes, counters.lag].map(output::bytes);
                let [read, waiting] = bytes;
                let lines = counters.lines.to_string();
                vec![source.origin.clone(), lines, read, waiting, remarks]
            })
            .collect();
        text.push_str(&output::table(&["SOURCE", "LINES", "BYTES", "LAG", "REMARKS"], &rows));
    }
    text
}
