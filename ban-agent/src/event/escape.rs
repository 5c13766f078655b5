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
