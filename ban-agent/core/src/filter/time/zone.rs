//! Zones as logs spell them: offsets, abbreviations with a fixed offset, and IANA names.

use jiff::tz::{Offset, TimeZone};

/// Abbreviations in use, with their offset from UTC in minutes. None switches to summer time by
/// itself: a log that writes CET means CET.
const ABBREVIATIONS: &[(i32, &[&str])] = &[
    (-600, &["HST"]),
    (-540, &["AKST"]),
    (-480, &["AKDT", "PST"]),
    (-420, &["PDT", "MST"]),
    (-360, &["MDT", "CST"]),
    (-300, &["CDT", "EST", "COT", "PET"]),
    (-240, &["EDT", "AST", "CLT", "BOT"]),
    (-210, &["NST"]),
    (-180, &["ADT", "BRT", "ART", "UYT", "CLST"]),
    (-150, &["NDT"]),
    (0, &["UTC", "GMT", "WET", "Z"]),
    (60, &["CET", "WEST", "WAT", "BST"]),
    (120, &["EET", "CEST", "SAST", "CAT"]),
    (180, &["MSK", "EEST", "EAT", "IDT"]),
    (210, &["IRST"]),
    (240, &["MSD", "GST", "AZT", "SAMT"]),
    (300, &["PKT", "UZT", "YEKT"]),
    (330, &["IST"]),
    (345, &["NPT"]),
    (360, &["OMST", "ALMT"]),
    (420, &["ICT", "WIB", "KRAT", "NOVT"]),
    (480, &["SGT", "HKT", "AWST", "MYT", "PHT", "IRKT"]),
    (540, &["JST", "KST", "WIT", "YAKT"]),
    (570, &["ACST"]),
    (600, &["AEST", "VLAT"]),
    (630, &["ACDT"]),
    (660, &["AEDT", "MAGT"]),
    (720, &["NZST", "FJT", "PETT"]),
    (780, &["NZDT"]),
];

/// Minutes east of UTC of `CET`, `+0200`, `+02:00`, `+02`, `UTC+0200`; `None` if unknown.
pub(super) fn offset(text: &str) -> Option<i32> {
    let sign = text.find(['+', '-']);
    let (name, digits) = text.split_at(sign.unwrap_or(text.len()));
    let base = if name.is_empty() { 0 } else { named(name)? };
    if digits.is_empty() {
        return (!name.is_empty()).then_some(base);
    }
    let (sign, digits) = digits.split_at_checked(1)?;
    let digits = digits.replace(':', "");
    let (hours, minutes) = digits.split_at_checked(2)?;
    let hours: i32 = hours.parse().ok()?;
    let minutes: i32 = if minutes.is_empty() { 0 } else { minutes.parse().ok()? };
    let total = hours * 60 + minutes;
    Some(base + if sign == "-" { -total } else { total })
}

fn named(name: &str) -> Option<i32> {
    if let [letter] = name.as_bytes() {
        return military(*letter);
    }
    ABBREVIATIONS.iter().find(|row| row.1.contains(&name)).map(|row| row.0)
}

/// Returns the one-letter zones: A to M (without J) east, N to Y west, Z is UTC.
fn military(letter: u8) -> Option<i32> {
    let hours = |from: u8| i32::from(letter - from);
    Some(
        60 * match letter {
            b'A'..=b'I' => hours(b'A') + 1,
            b'K'..=b'M' => hours(b'A'),
            b'N'..=b'Y' => -(hours(b'N') + 1),
            b'Z' => 0,
            _ => return None,
        },
    )
}

/// Returns the zone that `logtimezone` names: an offset, an abbreviation or an IANA name.
pub(super) fn parse(text: &str) -> Option<TimeZone> {
    match offset(text) {
        Some(minutes) => Offset::from_seconds(minutes * 60).ok().map(TimeZone::fixed),
        None => TimeZone::get(text).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        for (text, expected) in [
            ("UTC", Some(0)),
            ("Z", Some(0)),
            ("CET", Some(60)),
            ("+0200", Some(120)),
            ("-03:30", Some(-210)),
            ("+05", Some(300)),
            ("UTC+0200", Some(120)),
            ("CET-0100", Some(0)),
            ("A", Some(60)),
            ("M", Some(720)),
            ("N", Some(-60)),
            ("Y", Some(-720)),
            ("J", None),
            ("", None),
            ("Nowhere", None),
            ("+", None),
        ] {
            assert_eq!(offset(text), expected, "{text}");
        }
        assert!(parse("Europe/Zurich").is_some());
        assert!(parse("Europe/Nowhere").is_none());
    }
}
