//! Durations in fail2ban's words: `600`, `10m`, `1h 30m`, `2 weeks`, `-1` for ever.

use std::time::Duration;

/// A text that is no duration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is no duration like 600, 10m, 1h30m, 1d or 2w")]
pub struct BadDuration(pub String);

const SECOND: f64 = 1.0;
const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;
const DAY: f64 = 86400.0;
// fail2ban's month and year, so that its configurations mean the same here
const MONTH: f64 = DAY * 30.4375;
const YEAR: f64 = DAY * 365.25;

fn unit(name: &str) -> Option<f64> {
    Some(match name {
        "" | "s" | "ss" | "sec" | "secs" | "second" | "seconds" => SECOND,
        "m" | "mm" | "mi" | "min" | "mins" | "minute" | "minutes" => MINUTE,
        "h" | "hh" | "ho" | "hou" | "hour" | "hours" => HOUR,
        "d" | "dd" | "da" | "day" | "days" => DAY,
        "w" | "ww" | "we" | "wee" | "week" | "weeks" => 7.0 * DAY,
        "mo" | "mon" | "month" | "months" => MONTH,
        "y" | "yy" | "ye" | "yea" | "year" | "years" => YEAR,
        _ => return None,
    })
}

/// Parses a duration; `None` is "for ever" (any negative number).
///
/// # Errors
/// [`BadDuration`] if it is none, or longer than a thousand years.
pub fn parse_duration(text: &str) -> Result<Option<Duration>, BadDuration> {
    let bad = || BadDuration(text.to_owned());
    let mut rest = text.trim();
    if let Some(number) = rest.strip_prefix('-') {
        return number.parse::<u64>().map(|_| None).map_err(|_| bad());
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let number: f64 = number.parse().map_err(|_| bad())?;
        let tail = tail.trim_start();
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (name, tail) = tail.split_at(letters);
        total += number * unit(&name.to_ascii_lowercase()).ok_or_else(bad)?;
        rest = tail.trim_start_matches([' ', '\t', '+']);
    }
    if total > 1000.0 * YEAR {
        return Err(bad());
    }
    Duration::try_from_secs_f64(total).map(Some).map_err(|_| bad())
}

/// The shortest text that [`parse_duration`] reads back, with at most two units: `1h 30m`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let Some(first) = units.iter().position(|(size, _)| seconds >= *size) else {
        return "0s".to_owned();
    };
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (size, name) in units.iter().skip(first).take(2) {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            parts.push(format!("{count}{name}"));
        }
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fail2bans_words() {
        for (text, seconds) in [
            ("600", 600),
            ("10m", 600),
            ("1h30m", 5400),
            ("1h 30m", 5400),
            ("1d", 86400),
            ("2 weeks", 1_209_600),
            ("1mo", 2_629_800),
            ("1y", 31_557_600),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Some(Duration::from_secs(seconds))), "{text}");
        }
        assert_eq!(parse_duration("-1"), Ok(None));
        for text in ["", "x", "10q", "1h,", "--1", "1..2s", "9999y"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shows_two_units() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (3600, "1h"), (5430, "1h 30m"), (90061, "1d 1h")]
        {
            assert_eq!(format_duration(Duration::from_secs(seconds)), text);
        }
    }
}
