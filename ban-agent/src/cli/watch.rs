//! `ban-agent watch`: events as they happen.

use std::process::ExitCode;

use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;

use super::{Cli, failure::Failure, output};
use crate::{
    control::{Request, watch},
    event::disarm_json,
};

pub(super) fn run(cli: &Cli, failures: bool, drops: bool) -> Result<ExitCode, Failure> {
    for line in watch(&cli.socket(), &Request::Watch { failures, drops })? {
        let line = line?;
        if cli.json() {
            output::raw(&disarm_json(&line))?;
        } else {
            output::print(&human(&line, &TimeZone::system())?)?;
        }
    }
    Err(Failure::new(3, "the agent has ended").hint("bans stay enforced; start it again"))
}

/// Returns the time here, and what happened.
fn human(line: &str, zone: &TimeZone) -> Result<String, Failure> {
    let event: Value = serde_json::from_str(line).map_err(|error| Failure::new(2, error))?;
    let text = |place: &str| event.pointer(place).and_then(Value::as_str).unwrap_or_default();
    let time = text("/@timestamp").parse().map_or_else(
        |_| "?".into(),
        |at: Timestamp| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string(),
    );
    Ok(format!("{time} {}\n", text("/message").replace('\n', " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_becomes_a_line() {
        let line = r#"{"@timestamp":"2026-11-20T12:00:00.123Z","message":"[a] banned\n1"}"#;
        let text = human(line, &TimeZone::UTC).unwrap();
        assert_eq!(text, "2026-11-20 12:00:00.123 [a] banned 1\n");
        assert!(human("junk", &TimeZone::UTC).is_err());
    }
}
