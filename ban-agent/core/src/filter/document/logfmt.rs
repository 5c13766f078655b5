//! logfmt: `key=value`, `key="a value with \" and \n"`, and `key` alone, between spaces.

use super::{
    Bad, Values,
    paths::{Paths, ROOT},
};

/// Returns the texts at `paths` of a line.
pub(super) fn read(text: &str, paths: &Paths) -> Result<Values, Bad> {
    let mut values: Values = vec![None; paths.len()];
    let mut rest = text.trim_matches([' ', '\t', '\n', '\r']);
    while !rest.is_empty() {
        let end = rest.find([' ', '\t', '=', '"']).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        let control = key.bytes().any(|byte| byte.is_ascii_control());
        if key.is_empty() || after.starts_with('"') || control {
            return Err(Bad::Malformed);
        }
        let (value, after) = match after.strip_prefix('=') {
            None => ("true".to_owned(), after),
            Some(quoted) if quoted.starts_with('"') => unquote(quoted)?,
            Some(bare) => {
                let end = bare.find([' ', '\t']).unwrap_or(bare.len());
                let (value, after) = bare.split_at(end);
                if value.contains('"') || value.bytes().any(|byte| byte.is_ascii_control()) {
                    return Err(Bad::Malformed);
                }
                (value.to_owned(), after)
            }
        };
        let path = paths.child(ROOT, key).and_then(|child| paths.node(child)?.path);
        if let Some(slot) = path.and_then(|path| values.get_mut(path))
            && slot.replace(value).is_some()
        {
            return Err(Bad::Twice);
        }
        let next = after.trim_start_matches([' ', '\t']);
        // what follows a value without a space is no key
        if next.len() == after.len() && !next.is_empty() {
            return Err(Bad::Malformed);
        }
        rest = next;
    }
    Ok(values)
}

/// Returns the value of a text that begins with a quote, and what follows it.
fn unquote(text: &str) -> Result<(String, &str), Bad> {
    let mut value = String::new();
    let mut signs = text.char_indices().skip(1);
    while let Some((at, sign)) = signs.next() {
        match sign {
            '"' => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            '\\' => match signs.next().map(|next| next.1) {
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some('t') => value.push('\t'),
                Some(digits @ ('x' | 'u' | 'U')) => {
                    let count = match digits {
                        'x' => 2,
                        'u' => 4,
                        _ => 8,
                    };
                    let hex: String = signs.by_ref().take(count).map(|next| next.1).collect();
                    let code = u32::from_str_radix(&hex, 16).map_err(|_| Bad::Malformed)?;
                    value.push(char::from_u32(code).unwrap_or('\u{fffd}'));
                }
                Some(sign) => value.push(sign),
                None => return Err(Bad::Malformed),
            },
            sign if sign.is_ascii_control() => return Err(Bad::Malformed),
            sign => value.push(sign),
        }
    }
    Err(Bad::Malformed)
}
