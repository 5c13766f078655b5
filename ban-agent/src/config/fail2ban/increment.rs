//! `bantime.increment` and its family. A formula is Python; its arithmetic is computed, and nothing
//! is run.

use super::{Error, words::Words};
use crate::{
    arithmetic::Expression,
    jail::{Formula, Increment},
};

/// Returns the increment that a jail asks for.
///
/// # Errors
/// A value that is none, or a formula that cannot be evaluated.
pub(super) fn read(words: &Words<'_>) -> Result<Option<Increment>, Error> {
    if !words.flag("bantime.increment", false)? {
        return Ok(None);
    }
    let number = |key: &str, text: &str| -> Result<f64, Error> {
        let number = Expression::parse(text, &[], None).map(|number| number.value(&[]));
        let sound = number.ok().filter(|number| number.is_finite() && *number > 0.0);
        sound.ok_or_else(|| words.bad(key, format!("'{text}' is not a number above 0")))
    };
    let factor = match words.text("bantime.factor")? {
        Some(text) => number("bantime.factor", text.trim_matches(['"', '\'']))?,
        None => 1.0,
    };
    let mut multipliers = Vec::new();
    if let Some(text) = words.text("bantime.multipliers")? {
        for part in text.split_whitespace() {
            multipliers.push(number("bantime.multipliers", part)?);
        }
    }
    let formula = match words.text("bantime.formula")? {
        Some(text) => {
            let what = |why| format!("only arithmetic is evaluated: {why}");
            let formula = Formula::parse(&text);
            Some(formula.map_err(|why| words.bad("bantime.formula", what(why)))?)
        }
        None => None,
    };
    Ok(Some(Increment {
        factor,
        multipliers,
        formula,
        maxtime: words.duration("bantime.maxtime", None)?,
        rndtime: words.duration("bantime.rndtime", None)?.unwrap_or_default(),
        overalljails: words.flag("bantime.overalljails", false)?,
    }))
}
