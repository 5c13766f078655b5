//! `bantime.increment` and its family. A formula is Python; the documented forms are known by
//! what they compute, and nothing is run.

use super::{Error, words::Words};
use crate::jail::Increment;

/// Ban counts beyond this make no ban longer.
const MAX_COUNT: i32 = 64;

/// The increment that a jail asks for.
///
/// # Errors
/// A value that is none, or a formula that cannot be evaluated.
pub(super) fn read(words: &Words<'_>) -> Result<Option<Increment>, Error> {
    if !words.flag("bantime.increment", false)? {
        return Ok(None);
    }
    let number = |key: &str, text: &str| -> Result<f64, Error> {
        let number: Option<f64> = match text.split_once('/') {
            Some((a, b)) => {
                a.trim().parse::<f64>().ok().zip(b.trim().parse::<f64>().ok()).map(|(a, b)| a / b)
            }
            None => text.trim().parse().ok(),
        };
        let sound = number.filter(|number| number.is_finite() && *number > 0.0);
        sound.ok_or_else(|| words.bad(key, format!("'{text}' is no number above 0")))
    };
    let mut factor = match words.text("bantime.factor")? {
        Some(text) => number("bantime.factor", text.trim_matches(['"', '\'']))?,
        None => 1.0,
    };
    let mut multipliers = Vec::new();
    if let Some(text) = words.text("bantime.multipliers")? {
        for part in text.split_whitespace() {
            multipliers.push(number("bantime.multipliers", part)?);
        }
    }
    if multipliers.is_empty()
        && let Some(text) = words.text("bantime.formula")?
    {
        match formula(&text) {
            Some(Formula::Doubling) => {}
            Some(Formula::Exponential) => {
                multipliers =
                    (0..MAX_COUNT).map(|count| (f64::from(count) * factor).exp()).collect();
                factor = 1.0;
            }
            None => {
                let what = "this formula cannot be evaluated: use bantime.multipliers, or one of \
                            the formulas that fail2ban's jail.conf documents";
                return Err(words.bad("bantime.formula", what.to_owned()));
            }
        }
    }
    Ok(Some(Increment {
        factor,
        multipliers,
        maxtime: words.duration("bantime.maxtime", None)?,
        rndtime: words.duration("bantime.rndtime", None)?.unwrap_or_default(),
        overalljails: words.flag("bantime.overalljails", false)?,
    }))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Formula {
    /// Doubles with each ban: what happens without a formula.
    Doubling,
    /// Grows by the factor's exponential with each ban.
    Exponential,
}

/// Recognizes a formula, whatever its spaces.
fn formula(text: &str) -> Option<Formula> {
    let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let doubling = [
        "ban.Time*(1<<(ban.Countifban.Count<20else20))*banFactor",
        "ban.Time*(1<<min(ban.Count,20))*banFactor",
        "ban.Time*2**ban.Count*banFactor",
        "ban.Time*(2**ban.Count)*banFactor",
    ];
    let exponential = [
        "ban.Time*math.exp(float(ban.Count+1)*banFactor)/math.exp(1*banFactor)",
        "ban.Time*math.exp(float(ban.Count)*banFactor)",
        "ban.Time*math.exp(ban.Count*banFactor)",
    ];
    if doubling.contains(&plain.as_str()) {
        return Some(Formula::Doubling);
    }
    exponential.contains(&plain.as_str()).then_some(Formula::Exponential)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_forms() {
        let text = "ban.Time * (1<<(ban.Count if ban.Count<20 else 20)) * banFactor";
        assert_eq!(formula(text), Some(Formula::Doubling));
        let text = "ban.Time * math.exp(float(ban.Count+1)*banFactor)/math.exp(1*banFactor)";
        assert_eq!(formula(text), Some(Formula::Exponential));
        assert_eq!(formula("ban.Time * __import__('os').system('true')"), None);
    }
}
