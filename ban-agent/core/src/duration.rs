//! Durations in fail2ban's words: `600`, `10m`, `1h 30m`, `2 weeks`, `60*60*24`, `-1` for ever.

use std::time::Duration;

use crate::arithmetic::Expression;

/// A text that is no duration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is not a duration such as 600, 10m, 1h30m, 1d or 2w")]
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
        "s" | "ss" | "sec" | "secs" | "second" | "seconds" => SECOND,
        "m" | "mm" | "mi" | "min" | "mins" | "minute" | "minutes" => MINUTE,
        "h" | "hh" | "ho" | "hou" | "hour" | "hours" => HOUR,
        "d" | "dd" | "da" | "day" | "days" => DAY,
        "w" | "ww" | "we" | "wee" | "week" | "weeks" => 7.0 * DAY,
        "mo" | "mon" | "month" | "months" => MONTH,
        "y" | "yy" | "ye" | "yea" | "year" | "years" => YEAR,
        _ => return None,
    })
}

/// Parses a duration, which may be computed as in fail2ban: `60*60*24`, `1d-1h`, `1 year + 1 week`.
/// `None` is "for ever" (anything below 0).
///
/// # Errors
/// [`BadDuration`] if it is none, or longer than a thousand years.
pub fn parse_duration(text: &str) -> Result<Option<Duration>, BadDuration> {
    let bad = || BadDuration(text.to_owned());
    let total = Expression::parse(text, &[], Some(unit)).map_err(|_| bad())?.value(&[]);
    if total.is_nan() || total > 1000.0 * YEAR {
        return Err(bad());
    }
    if total < 0.0 {
        return Ok(None);
    }
    Duration::try_from_secs_f64(total).map(Some).map_err(|_| bad())
}

/// Returns the shortest text that [`parse_duration`] reads back, with at most two units: `1h 30m`.
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
            ("60*60*24*7", 604_800),
            ("86400 * 7", 604_800),
            ("1d-1h", 82_800),
            ("1d12h", 129_600),
            ("1 year + 1 month - 1 week", 31_557_600 + 2_629_800 - 604_800),
            ("24*3600/600", 144),
            ("(1h + 30m) * 2", 10_800),
            ("1/2h", 1800),
            ("1 Week", 604_800),
            ("--1", 1),
        ] {
            assert_eq!(parse_duration(text), Ok(Some(Duration::from_secs(seconds))), "{text}");
        }
        for text in ["-1", "-1d", "1h - 2h"] {
            assert_eq!(parse_duration(text), Ok(None), "{text}");
        }
        for text in ["", "x", "10q", "1h,", "1..2s", "9999y", "1/0", "0/0", "d", "1 +", "10**400"] {
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
