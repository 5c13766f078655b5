//! Lines within lines: what `docker compose logs` and `journalctl -o json` put around what a daemon
//! wrote. Asked about lines alone in which a filter has found nothing as they stand.

use std::borrow::Cow;

use jiff::Timestamp;

use super::document;

/// A prefix of `docker compose logs` is no longer than this.
const MAX_PREFIX: usize = 128;

/// Returns what a line carries, and whether that begins with `RFC3339 SPACE`; `None`: nothing.
pub(super) fn carried(line: &str) -> Option<(Cow<'_, str>, bool)> {
    compose(line).or_else(|| journal(line))
}

/// `SERVICE-1  | TEXT` (`SERVICE_1` of version 1), and with `--timestamps` a time before the text.
/// The number is asked for, so that a first word of a client's choice is none.
fn compose(line: &str) -> Option<(Cow<'_, str>, bool)> {
    // no name holds the bar
    let at = line.bytes().take(MAX_PREFIX).position(|byte| byte == b'|')?;
    let (name, text) = line.split_at_checked(at)?;
    let (name, text) = (name.strip_suffix(' ')?, text.strip_prefix("| ")?);
    let (service, number) = name.trim_end_matches(' ').rsplit_once(['-', '_'])?;
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let good = service.starts_with(|first: char| first.is_ascii_alphabetic())
        && service.bytes().all(letters)
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit());
    if !good {
        return None;
    }
    let stamp = text.split(' ').next().unwrap_or_default();
    Some((text.into(), stamp.ends_with('Z') && stamp.parse::<Timestamp>().is_ok()))
}

/// Returns an entry as the journal's export has it in JSON (systemd, `src/shared/logs-show.c`,
/// `output_json`): `RFC3339 HOST IDENTIFIER[PID]: MESSAGE`.
fn journal(line: &str) -> Option<(Cow<'_, str>, bool)> {
    if !line.starts_with('{') || !line.contains("\"__REALTIME_TIMESTAMP\"") {
        return None;
    }
    let paths = [
        "__REALTIME_TIMESTAMP",
        "MESSAGE",
        "SYSLOG_IDENTIFIER",
        "_COMM",
        "_PID",
        "SYSLOG_PID",
        "_HOSTNAME",
    ];
    let mut texts = document::texts(line, &paths)?.into_iter();
    let mut next = || texts.next().flatten();
    let (time, message, identifier, command) = (next()?, next()?, next(), next());
    let (pid, syslog_pid, host) = (next(), next(), next());
    let time = Timestamp::from_microsecond(time.parse().ok()?).ok()?;
    let identifier = identifier.or(command).unwrap_or_default();
    let pid = pid.or(syslog_pid).map(|pid| format!("[{pid}]")).unwrap_or_default();
    let host = host.unwrap_or_else(|| "localhost".to_owned());
    // one entry is one line: what looks like a second one is an attacker's
    let message = message.replace('\n', " ");
    Some((format!("{time} {host} {identifier}{pid}: {message}").into(), true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<(&str, bool)>) {
        let found = carried(line);
        assert_eq!(found.as_ref().map(|(text, stamped)| (&**text, *stamped)), expected, "{line}");
    }

    #[test]
    fn compose_puts_a_service_and_its_number_before_a_line() {
        check("web-1  | GET / 401", Some(("GET / 401", false)));
        check("shop_web_1 | x | y", Some(("x | y", false)));
        check("db-12 | 2026-11-20T12:00:00.5Z x", Some(("2026-11-20T12:00:00.5Z x", true)));
        for line in
            ["web | x", "2026-11-20 | x", "a b-1 | x", "-1 | x", "web-1 |x", "web-1x | y", "| x"]
        {
            check(line, None);
        }
    }

    #[test]
    fn the_journals_json() {
        let entry = |message: &str, more: &str| {
            format!(r#"{{"__REALTIME_TIMESTAMP":"1795176000000000","MESSAGE":{message}{more}}}"#)
        };
        let more =
            r#","SYSLOG_IDENTIFIER":"sshd","_COMM":"sshd-session","_PID":"7","_HOSTNAME":"edge""#;
        let said = "2026-11-20T12:00:00Z edge sshd[7]: a \"b\" c";
        check(&entry(r#""a \"b\"\nc""#, more), Some((said, true)));
        check(&entry(r#""x""#, ""), Some(("2026-11-20T12:00:00Z localhost : x", true)));
        check(&entry("null", more), None);
        check(&entry(r#""x""#, r#","MESSAGE":"y""#), None);
        check(r#"{"MESSAGE":"__REALTIME_TIMESTAMP"}"#, None);
    }
}
