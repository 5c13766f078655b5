//! Makes text that an attacker wrote inert for terminals, logs and documents.

use std::fmt::Write as _;

/// `bytes` as text in which nothing acts: control characters (C0, DEL, C1), direction overrides
/// and invisible format characters become `\u{…}`, invalid UTF-8 becomes `\xNN`, and the
/// backslash is doubled, so that no text can pretend to be an escape.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '\t' => text.push_str("\\t"),
                c if acts(c) => {
                    // writing to a String cannot fail
                    let _ = write!(text, "\\u{{{:x}}}", u32::from(c));
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// `text` with nothing in it that acts but line ends: the last resort of whoever prints what others
/// should have escaped. Leaves what [`escape`] made as it is.
#[must_use]
pub fn disarm(text: &str) -> String {
    replace(text, |sign, out| {
        let _ = write!(out, "\\u{{{:x}}}", u32::from(sign));
    })
}

/// The same for a JSON document, where an escape means the sign itself.
#[must_use]
pub fn disarm_json(text: &str) -> String {
    replace(text, |sign, out| {
        for unit in sign.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

fn replace(text: &str, instead: impl Fn(char, &mut String)) -> String {
    let mut out = String::with_capacity(text.len());
    for sign in text.chars() {
        if acts(sign) && !matches!(sign, '\n' | '\t') {
            instead(sign, &mut out);
        } else {
            out.push(sign);
        }
    }
    out
}

fn acts(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_escaped_is_disarmed_once() {
        let text = "a\\u{1b}\t\u{1b}\n\u{9b}\u{e0041}";
        assert_eq!(disarm(text), "a\\u{1b}\t\\u{1b}\n\\u{9b}\\u{e0041}");
        assert_eq!(disarm(&disarm(text)), disarm(text));
        let json = serde_json::to_string(text).unwrap();
        let safe = disarm_json(&json);
        assert!(safe.is_ascii(), "{safe}");
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
    }

    #[test]
    fn nothing_acts() {
        for (bytes, expected) in [
            (&b"plain text"[..], "plain text"),
            (b"\x1b[2J\x07", "\\u{1b}[2J\\u{7}"),
            (b"a\nb\tc\r", "a\\u{a}b\\tc\\u{d}"),
            (b"\xff\x00", "\\xff\\u{0}"),
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
            ("\u{202e}evil".as_bytes(), "\\u{202e}evil"),
            (b"\\u{1b}", "\\\\u{1b}"),
            ("grün 漢字".as_bytes(), "grün 漢字"),
        ] {
            assert_eq!(escape(bytes), expected);
        }
    }
}
