//! Longer bans for those who come again: fail2ban's `bantime.increment` and its family.

use std::time::Duration;

use super::{Increment, Rules};
use crate::arithmetic::Expression;

/// What a formula may name, in this order.
const NAMES: [&str; 3] = ["ban.Time", "ban.Count", "banFactor"];
/// Ban counts for which a formula has to have a value.
const TRIED: [f64; 4] = [1.0, 2.0, 20.0, 1000.0];

/// `bantime.formula`: how long a ban is, from `ban.Time` (`bantime`), `ban.Count` (the bans before
/// it) and `banFactor`. Arithmetic, and nothing else of Python.
#[derive(Clone, Debug, PartialEq)]
pub struct Formula(Expression);

impl Formula {
    /// Reads a formula.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Formula, String> {
        let formula = Formula(Expression::parse(text, &NAMES, None)?);
        for count in TRIED {
            if formula.0.value(&[600.0, count, 1.0]).is_nan() {
                return Err(format!("it has no value where ban.Count is {count}"));
            }
        }
        Ok(formula)
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.text()
    }
}

/// Doublings beyond this one change nothing, as in fail2ban.
const MAX_DOUBLINGS: u32 = 20;

impl Rules {
    /// Returns how long a prefix is banned that was banned `former` times before; `None`:
    /// permanently. `dice` in `0.0..1.0` picks the share of `bantime.rndtime` that is added.
    #[must_use]
    pub fn bantime_for(&self, former: u32, dice: f64) -> Option<Duration> {
        let bantime = self.bantime?;
        match &self.increment {
            Some(increment) if former > 0 => Some(increment.apply(bantime, former, dice)),
            _ => Some(bantime),
        }
    }
}

/// Returns how much a failure of a prefix weighs that was banned `former` times before, as in
/// fail2ban: 1, 2, 3, 5, 9 …, at most as much as leads to a ban at once.
pub(super) fn weight(former: u32, maxretry: u32) -> u32 {
    if former == 0 {
        return 1;
    }
    ((1u32 << former.min(MAX_DOUBLINGS)) / 2 + 1).min(maxretry.max(1))
}

impl Increment {
    fn apply(&self, bantime: Duration, former: u32, dice: f64) -> Duration {
        if let (Some(Formula(formula)), true) = (&self.formula, self.multipliers.is_empty()) {
            let seconds = formula.value(&[bantime.as_secs_f64(), f64::from(former), self.factor]);
            return self.bounded(duration(seconds).max(bantime), dice);
        }
        let multiplier = match self.multipliers.last() {
            Some(last) => {
                let at = usize::try_from(former).unwrap_or(usize::MAX);
                *self.multipliers.get(at).unwrap_or(last)
            }
            None => f64::from(1u32 << former.min(MAX_DOUBLINGS)),
        };
        let seconds = bantime.as_secs_f64() * self.factor * multiplier;
        let mut longer = duration(seconds);
        if self.multipliers.is_empty() {
            longer = longer.max(bantime);
        }
        self.bounded(longer, dice)
    }

    fn bounded(&self, longer: Duration, dice: f64) -> Duration {
        let longer = self.maxtime.map_or(longer, |maxtime| longer.min(maxtime));
        longer.saturating_add(duration(self.rndtime.as_secs_f64() * dice))
    }
}

/// Negative and undefined become zero, what is too long the longest.
fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::{super::rules, *};

    fn seconds(increment: Increment, former: u32, dice: f64) -> u64 {
        let rules = Rules {
            bantime: Some(Duration::from_secs(600)),
            increment: Some(increment),
            ..rules(5, 600)
        };
        rules.bantime_for(former, dice).unwrap().as_secs()
    }

    fn doubling() -> Increment {
        Increment {
            factor: 1.0,
            multipliers: Vec::new(),
            formula: None,
            maxtime: None,
            rndtime: Duration::ZERO,
            overalljails: false,
        }
    }

    #[test]
    fn doubles_by_default() {
        assert_eq!([0, 1, 2, 3].map(|n| seconds(doubling(), n, 0.0)), [600, 1200, 2400, 4800]);
        assert_eq!(seconds(doubling(), 1000, 0.0), 600 << 20);
    }

    #[test]
    fn failures_of_a_known_offender_weigh_more() {
        assert_eq!([0, 1, 2, 3, 4].map(|former| weight(former, 100)), [1, 2, 3, 5, 9]);
        assert_eq!([weight(3, 4), weight(u32::MAX, 5), weight(9, 1)], [4, 5, 1]);
    }

    #[test]
    fn multipliers_replace_doubling() {
        let increment = Increment { multipliers: vec![1.0, 5.0, 30.0], ..doubling() };
        let bans = [0, 1, 2, 3, 99].map(|n| seconds(increment.clone(), n, 0.0));
        assert_eq!(bans, [600, 3000, 18_000, 18_000, 18_000]);
    }

    #[test]
    fn a_formula_says_how_long() {
        let formula = |text: &str| Increment {
            formula: Some(Formula::parse(text).unwrap()),
            factor: 2.0,
            ..doubling()
        };
        for (text, expected) in [
            ("ban.Time * ban.Count", [600, 600, 1200, 1800]),
            ("ban.Time * (1<<ban.Count)", [600, 1200, 2400, 4800]),
            ("ban.Time * 1.5 ** ban.Count", [600, 900, 1350, 2025]),
            ("min(ban.Time * banFactor * ban.Count, 2000)", [600, 1200, 2000, 2000]),
            ("math.pow(ban.Time, ban.Count)", [600, 600, 360_000, 216_000_000]),
            // never shorter than bantime, as in fail2ban
            ("ban.Time - 599", [600, 600, 600, 600]),
        ] {
            assert_eq!([0, 1, 2, 3].map(|n| seconds(formula(text), n, 0.0)), expected, "{text}");
        }
        let bounded = Increment {
            maxtime: Some(Duration::from_secs(4000)),
            ..formula("ban.Time * 10 ** ban.Count")
        };
        assert_eq!(seconds(bounded.clone(), 300, 0.0), 4000);
        assert_eq!(seconds(Increment { multipliers: vec![1.0, 2.0], ..bounded }, 1, 0.0), 2400);
        for text in ["ban.Time * __import__('os').system('true')", "0/0", "banfactor"] {
            assert!(Formula::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn maxtime_bounds_before_chance_is_added() {
        let increment = Increment {
            factor: 3.0,
            maxtime: Some(Duration::from_secs(3600)),
            rndtime: Duration::from_secs(100),
            ..doubling()
        };
        assert_eq!(seconds(increment.clone(), 1, 0.5), 3650);
        assert_eq!(seconds(increment, 0, 0.5), 600);
    }

    #[test]
    fn absurd_factors_stay_in_range() {
        let increment = |factor| Increment { factor, ..doubling() };
        assert_eq!(seconds(increment(f64::NAN), 1, 0.0), 600);
        assert_eq!(seconds(increment(-1.0), 1, 0.0), 600);
        assert_eq!(seconds(increment(f64::MAX), 9, 0.0), Duration::MAX.as_secs());
    }

    #[test]
    fn permanent_stays_permanent() {
        let rules = Rules { bantime: None, increment: Some(doubling()), ..rules(5, 600) };
        assert_eq!(rules.bantime_for(3, 0.0), None);
    }
}
