//! Computes an instant from the parts of a written date. Knows calendars and guesses what is
//! missing (year, day, zone); knows no patterns.

use jiff::{
    SignedDuration, Timestamp, ToSpan,
    civil::{Date, DateTime, Time, Weekday},
    tz::TimeZone,
};

use super::zone;

/// What a date pattern captured; what it does not hold is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub year: Option<i16>,
    pub month: Option<i8>,
    pub day: Option<i8>,
    pub yearday: Option<i16>,
    /// Week of the year, and whether it begins on Monday (`%W`) or Sunday (`%U`).
    pub week: Option<(i8, bool)>,
    pub weekday: Option<Weekday>,
    pub hour: i8,
    pub minute: i8,
    pub second: i8,
    /// Twelve-hour clock, with its half of the day: true is p.m.
    pub half: Option<Option<bool>>,
    /// Offset of the zone, in minutes.
    pub offset: Option<i32>,
}

/// How far ahead of ours the clock of a log may be.
const SLACK: SignedDuration = SignedDuration::from_secs(60);

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

impl Fields {
    /// Takes the text of the field `name` (`Y`, `m`, `b` …); `None` if it makes no sense.
    pub(super) fn set(&mut self, name: &str, text: &str) -> Option<()> {
        let text = text.trim();
        match name {
            // there is no year 0
            "Y" => self.year = Some(text.parse().ok().filter(|year| *year > 0)?),
            "y" => self.year = Some(text.parse::<i16>().ok()? + 2000),
            "m" => self.month = Some(text.parse().ok()?),
            "b" | "B" => {
                let short = text.get(..3)?.to_ascii_lowercase();
                let index = MONTHS.iter().position(|month| *month == short)?;
                self.month = Some(i8::try_from(index + 1).ok()?);
            }
            "d" => self.day = Some(text.parse().ok()?),
            "j" => self.yearday = Some(text.parse().ok()?),
            "U" | "W" => self.week = Some((text.parse().ok()?, name == "W")),
            "a" | "A" => {
                let short = text.get(..3)?.to_ascii_lowercase();
                self.weekday = DAYS.iter().find(|day| day.0 == short).map(|day| day.1);
            }
            "w" => self.weekday = Weekday::from_sunday_zero_offset(text.parse().ok()?).ok(),
            "H" => self.hour = text.parse().ok()?,
            "I" => {
                self.hour = text.parse().ok()?;
                self.half.get_or_insert(None);
            }
            "p" => self.half = Some(Some(text.eq_ignore_ascii_case("pm"))),
            "M" => self.minute = text.parse().ok()?,
            // A leap second is the one before it.
            "S" => self.second = text.parse::<i8>().ok()?.min(59),
            "z" | "Z" => self.offset = Some(zone::offset(text)?),
            _ => {}
        }
        Some(())
    }

    /// Returns the instant; what is missing is guessed so that it lies in the past of `now`.
    pub(super) fn instant(&self, local: &TimeZone, now: Timestamp) -> Option<Timestamp> {
        let today = now.to_zoned(local.clone()).date();
        let clock = Time::new(self.clock_hour()?, self.minute, self.second, 0).ok()?;
        let year = self.year.unwrap_or(today.year());
        if let Some(date) = self.date(year) {
            let at = self.at(DateTime::from_parts(date?, clock), local, now)?;
            let tomorrow = now.checked_add(SignedDuration::from_hours(24)).ok()?;
            // A day of grace: the zones of the host and of the log may differ.
            if self.year.is_some() || at <= tomorrow {
                return Some(at);
            }
            let date = self.date(year - 1)??;
            return self.at(DateTime::from_parts(date, clock), local, now);
        }
        let at = self.at(DateTime::from_parts(today, clock), local, now)?;
        if at <= now {
            return Some(at);
        }
        let yesterday = today.checked_sub(1.day()).ok()?;
        self.at(DateTime::from_parts(yesterday, clock), local, now)
    }

    fn clock_hour(&self) -> Option<i8> {
        Some(match self.half {
            None | Some(None) if self.hour == 12 && self.half.is_some() => 0,
            Some(Some(false)) if self.hour == 12 => 0,
            Some(Some(true)) if self.hour != 12 => self.hour.checked_add(12)?,
            _ => self.hour,
        })
    }

    /// Returns the day in `year`; `None` if the fields name no day, `Some(None)` if it does not
    /// exist.
    fn date(&self, year: i16) -> Option<Option<Date>> {
        if let (Some(month), Some(day)) = (self.month, self.day) {
            let exact = Date::new(year, month, day).ok();
            // 29 February without a year, read in the year after.
            let retry =
                || if self.year.is_none() { Date::new(year - 1, month, day).ok() } else { None };
            return Some(exact.or_else(retry));
        }
        let first = Date::new(year, 1, 1).ok()?;
        if let Some(yearday) = self.yearday {
            return Some(first.checked_add(i64::from(yearday - 1).days()).ok());
        }
        if let (Some((week, monday)), Some(weekday)) = (self.week, self.weekday) {
            let index = |day: Weekday| {
                i64::from(if monday {
                    day.to_monday_zero_offset()
                } else {
                    day.to_sunday_zero_offset()
                })
            };
            // Days before the first week's first day belong to week 0.
            let first_week = (7 - index(first.weekday())) % 7;
            let days = first_week + (i64::from(week) - 1) * 7 + index(weekday);
            return Some(first.checked_add(days.days()).ok());
        }
        (self.month.is_some() || self.day.is_some()).then_some(None)
    }

    fn at(&self, written: DateTime, local: &TimeZone, now: Timestamp) -> Option<Timestamp> {
        match self.offset {
            // of an hour that a clock shows twice, the later pass unless that is yet to come: in a
            // log that is read to its end the earlier one is an hour ago
            None => {
                let both = local.to_ambiguous_timestamp(written);
                let later = both.later().ok();
                let past = later.filter(|at| now.duration_since(*at) >= -SLACK);
                past.or_else(|| both.compatible().ok())
            }
            Some(minutes) => {
                let utc = TimeZone::UTC.to_timestamp(written).ok()?;
                utc.checked_sub(SignedDuration::from_mins(i64::from(minutes))).ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fields: &[(&str, &str)], expected: &str) {
        let now = "2026-03-01T00:30:00Z".parse().unwrap();
        let mut parsed = Fields::default();
        for (name, text) in fields {
            parsed.set(name, text).unwrap();
        }
        let got = parsed.instant(&TimeZone::UTC, now);
        assert_eq!(got, Some(expected.parse().unwrap()), "{fields:?}");
    }

    #[test]
    fn what_is_missing_is_guessed() {
        check(&[("b", "Feb"), ("d", " 3"), ("H", "4")], "2026-02-03T04:00:00Z");
        check(&[("b", "Dec"), ("d", "31")], "2025-12-31T00:00:00Z");
        check(&[("m", "3"), ("d", "2")], "2026-03-02T00:00:00Z");
        check(&[("m", "3"), ("d", "3")], "2025-03-03T00:00:00Z");
        check(&[("H", "0"), ("M", "10")], "2026-03-01T00:10:00Z");
        check(&[("H", "23"), ("M", "10")], "2026-02-28T23:10:00Z");
        check(&[("y", "24"), ("m", "2"), ("d", "29")], "2024-02-29T00:00:00Z");
        check(&[("Y", "2026"), ("j", "32")], "2026-02-01T00:00:00Z");
        check(&[("Y", "2026"), ("W", "1"), ("a", "Tue")], "2026-01-06T00:00:00Z");
        check(&[("Y", "2026"), ("U", "1"), ("a", "Sun")], "2026-01-04T00:00:00Z");
    }

    #[test]
    fn clocks_and_zones() {
        let day = [("Y", "2026"), ("m", "1"), ("d", "2")];
        let with = |more: &[(&'static str, &'static str)]| [&day[..], more].concat();
        check(&with(&[("I", "12"), ("p", "AM")]), "2026-01-02T00:00:00Z");
        check(&with(&[("I", "12"), ("p", "PM")]), "2026-01-02T12:00:00Z");
        check(&with(&[("I", "3"), ("p", "PM")]), "2026-01-02T15:00:00Z");
        check(&with(&[("H", "3"), ("z", "+0130")]), "2026-01-02T01:30:00Z");
        check(&with(&[("H", "3"), ("z", "-02:00")]), "2026-01-02T05:00:00Z");
        check(&with(&[("H", "3"), ("Z", "CEST")]), "2026-01-02T01:00:00Z");
        check(&with(&[("S", "60")]), "2026-01-02T00:00:59Z");
    }

    #[test]
    fn days_that_do_not_exist_are_no_dates() {
        let mut fields = Fields::default();
        for (name, text) in [("Y", "2026"), ("m", "2"), ("d", "30")] {
            fields.set(name, text).unwrap();
        }
        assert_eq!(fields.instant(&TimeZone::UTC, Timestamp::UNIX_EPOCH), None);
    }
}
