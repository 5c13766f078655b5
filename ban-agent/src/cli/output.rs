//! Printing: a closed pipe is no failure, tables are aligned, times are relative for people.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use super::{Cli, failure::Failure};
use crate::{
    alarm::{self, Alarm},
    config::format_duration,
    control::Document,
    event::{Shown, disarm, disarm_json},
    net::Ports,
    protect::Group,
};

/// Writes to standard output; nothing in it acts on a terminal.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    raw(&disarm(text))
}

/// As the operator would write them.
pub(super) fn ports(ports: &Ports) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Writes what is meant for a program and has to arrive as it is.
pub(super) fn raw(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::broken_pipe()),
        Err(error) => Err(Failure::new(2, format!("cannot write: {error}"))),
    }
}

/// The document of a reply, as `-o json` prints it.
pub(super) fn json(document: &Document) -> Result<(), Failure> {
    match document {
        Document::Status(document) => object(document),
        Document::List(document) => object(document),
        Document::Show(document) => object(document),
        Document::Changes(document) => object(document),
        Document::Drift(document) => object(document),
        Document::History(document) => object(document),
        Document::Stats(document) => object(document),
        Document::Text(document) => object(document),
    }
}

/// One JSON object and a line end.
pub(super) fn object(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::new(2, error))?;
    raw(&format!("{}\n", disarm_json(&text)))
}

/// A JSON document that is printed as it comes; nothing in it acts on a terminal.
#[derive(Debug, Default)]
pub(super) struct Pour {
    /// The beginning of a character whose end is still to come.
    begun: Vec<u8>,
}

impl Pour {
    /// One more piece of the document.
    pub(super) fn more(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.begun.extend_from_slice(piece);
        let whole = match std::str::from_utf8(&self.begun) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let rest = self.begun.split_off(whole);
        let text = String::from_utf8(std::mem::replace(&mut self.begun, rest));
        let text = text.map_err(|error| Failure::new(2, error))?;
        let inert = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        if text.bytes().all(inert) { raw(&text) } else { raw(&disarm_json(&text)) }
    }

    /// That was all of it.
    pub(super) fn end(self) -> Result<(), Failure> {
        raw("\n")
    }
}

/// One line on standard error if something is wrong with the agent, whatever it was asked.
pub(super) fn remark(cli: &Cli, alarms: &[Alarm]) {
    if let (false, Some(remark)) = (cli.quiet, alarm::remark(alarms)) {
        // nobody reads it: then it is not missed
        let red = io::stderr().is_terminal() && colours();
        let _ = writeln!(io::stderr(), "{}", alarming(&disarm(&format!("alarm: {remark}")), red));
    }
}

/// Whether colours are wanted: <https://no-color.org>.
fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// What is wrong, each line red where that helps. The text acts on no terminal itself.
fn alarming(text: &str, red: bool) -> String {
    if !red {
        return text.to_owned();
    }
    text.split_inclusive('\n')
        .map(|line| match line.strip_suffix('\n') {
            Some(line) => format!("\u{1b}[31m{line}\u{1b}[0m\n"),
            None => format!("\u{1b}[31m{line}\u{1b}[0m"),
        })
        .collect()
}

/// Alarms, red on a terminal.
pub(super) fn alarms(text: &str) -> Result<(), Failure> {
    raw(&alarming(&disarm(text), io::stdout().is_terminal() && colours()))
}

/// Rows in aligned columns; numbers are to be passed as text.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|name| name.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> =
            cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    };
    line(&mut header.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

/// Whom no log line bans, why, and how to change that.
pub(super) fn protected(groups: &[Group]) -> String {
    let row = |group: &Group| vec![group.reason.clone(), group.remedy.clone(), prefixes(group)];
    let rows: Vec<_> = groups.iter().map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    table(&["NO LOG LINE BANS", "TO CHANGE THAT", "NOW"], &rows)
}

/// As many as a line holds.
pub(super) fn prefixes(group: &Group) -> String {
    const SHOWN: usize = 8;
    let shown = group.prefixes.iter().take(SHOWN).map(|prefix| Shown(*prefix).to_string());
    let mut shown = shown.collect::<Vec<_>>().join(" ");
    let more = group.prefixes.len().saturating_sub(SHOWN) + group.more;
    if more > 0 {
        shown.push_str(&format!(" and {more} more"));
    }
    shown
}

/// `in 59m 20s`, `for ever`.
pub(super) fn until(end: Option<Timestamp>) -> String {
    let Some(end) = end else { return "for ever".into() };
    let left = end.as_millisecond() - Timestamp::now().as_millisecond();
    match u64::try_from(left) {
        // rounded up: a ban that runs is never shown as over
        Ok(left) => format!("in {}", format_duration(Duration::from_secs(left.div_ceil(1000)))),
        Err(_) => "now".into(),
    }
}

/// `3m 2s ago`.
pub(super) fn ago(time: Timestamp) -> String {
    let past = Timestamp::now().as_millisecond() - time.as_millisecond();
    format!("{} ago", format_duration(Duration::from_millis(u64::try_from(past).unwrap_or(0))))
}

/// `Nov 28 09:55:03`, or `2025-11-28 09:55:03` in another year, by the clock on the wall here.
pub(super) fn local(time: Timestamp) -> String {
    let [time, now] = [time, Timestamp::now()].map(|time| time.to_zoned(TimeZone::system()));
    let form = if time.year() == now.year() { "%b %d %H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    time.strftime(form).to_string()
}

/// How long it is from one time to another: `1h 30m`.
pub(super) fn span(from: Timestamp, to: Timestamp) -> String {
    let time = to.as_millisecond() - from.as_millisecond();
    format_duration(Duration::from_millis(u64::try_from(time).unwrap_or(0) + 500))
}

/// The time so long ago.
pub(super) fn before(age: Duration) -> Result<Timestamp, Failure> {
    Timestamp::now().checked_sub(age).map_err(|error| Failure::new(2, format!("--since: {error}")))
}

/// `1.2 MB`: decimal units, as network people count.
pub(super) fn bytes(count: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or("B");
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {name}") }
}
