//! JSON (RFC 8259), read in one pass: what no path asks for is checked and passed over.

use std::borrow::Cow;

use super::{
    Bad, Values,
    paths::{Paths, ROOT},
};

/// A document that is nested deeper is none.
const MAX_DEPTH: usize = 64;

/// Returns the texts at `paths` of a text that holds one document and nothing after it.
pub(super) fn read(text: &str, paths: &Paths) -> Result<Values, Bad> {
    let mut reader = Reader {
        text,
        bytes: text.as_bytes(),
        at: 0,
        paths,
        values: vec![None; paths.len()],
        seen: vec![false; paths.places()],
    };
    reader.space();
    if reader.peek() != Some(b'{') {
        return Err(Bad::Malformed);
    }
    reader.value(Some(ROOT), 0)?;
    reader.space();
    if reader.at < reader.bytes.len() {
        return Err(Bad::Malformed);
    }
    Ok(reader.values)
}

struct Reader<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    paths: &'t Paths,
    values: Values,
    /// The places of the tree that this document has.
    seen: Vec<bool>,
}

impl<'t> Reader<'t> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, sign: u8) -> Result<(), Bad> {
        if self.peek() != Some(sign) {
            return Err(Bad::Malformed);
        }
        self.at += 1;
        Ok(())
    }

    /// Reads a value, which stands at a place of the tree or nowhere in it.
    fn value(&mut self, place: Option<usize>, depth: usize) -> Result<(), Bad> {
        if depth > MAX_DEPTH {
            return Err(Bad::Malformed);
        }
        let node = place.and_then(|place| self.paths.node(place));
        let path = node.and_then(|node| node.path);
        let inner = place.filter(|_| node.is_some_and(super::paths::Node::inner));
        match self.peek() {
            Some(b'{') => self.object(inner, depth),
            Some(b'[') => self.array(inner, path, depth),
            Some(b'"') => {
                let (inside, escaped) = self.string()?;
                if let Some(path) = path {
                    self.keep(path, decode(inside, escaped));
                }
                Ok(())
            }
            _ => {
                let word = self.word()?;
                match path {
                    Some(path) if word != "null" => self.keep(path, word.into()),
                    _ => {}
                }
                Ok(())
            }
        }
    }

    /// The elements of an array of texts are kept as one text, with commas between them.
    fn keep(&mut self, path: usize, text: Cow<'_, str>) {
        if let Some(value) = self.values.get_mut(path) {
            match value {
                Some(known) => {
                    known.push_str(", ");
                    known.push_str(&text);
                }
                None => *value = Some(text.into_owned()),
            }
        }
    }

    fn object(&mut self, place: Option<usize>, depth: usize) -> Result<(), Bad> {
        self.take(b'{')?;
        self.space();
        if self.peek() == Some(b'}') {
            return self.take(b'}');
        }
        loop {
            self.space();
            let (inside, escaped) = self.string()?;
            let child = match place {
                Some(place) => self.paths.child(place, &decode(inside, escaped)),
                None => None,
            };
            if let Some(child) = child
                && let Some(seen) = self.seen.get_mut(child)
                && std::mem::replace(seen, true)
            {
                return Err(Bad::Twice);
            }
            self.space();
            self.take(b':')?;
            self.space();
            self.value(child, depth + 1)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                _ => return self.take(b'}'),
            }
        }
    }

    fn array(
        &mut self,
        place: Option<usize>,
        path: Option<usize>,
        depth: usize,
    ) -> Result<(), Bad> {
        self.take(b'[')?;
        self.space();
        if let Some(value) = path.and_then(|path| self.values.get_mut(path)) {
            // also an empty one is there
            *value = self.bytes.get(self.at).filter(|sign| **sign == b']').map(|_| String::new());
        }
        if self.peek() == Some(b']') {
            return self.take(b']');
        }
        for index in 0.. {
            self.space();
            let child = place.and_then(|place| self.paths.child(place, &index.to_string()));
            match (path, self.peek()) {
                (Some(path), Some(b'"')) if child.is_none() => {
                    let (inside, escaped) = self.string()?;
                    self.keep(path, decode(inside, escaped));
                }
                _ => self.value(child, depth + 1)?,
            }
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                _ => break,
            }
        }
        self.take(b']')
    }

    /// Returns the inside of a string, and whether it holds escapes.
    fn string(&mut self) -> Result<(&'t str, bool), Bad> {
        self.take(b'"')?;
        let (start, mut escaped) = (self.at, false);
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                // no writer leaves them in, but a file that was cut or written over has them
                Some(0..=0x1f) | None => return Err(Bad::Malformed),
                Some(_) => self.at += 1,
            }
        }
        let inside = self.text.get(start..self.at).ok_or(Bad::Malformed)?;
        self.at += 1;
        Ok((inside, escaped))
    }

    fn escape(&mut self) -> Result<(), Bad> {
        let rest = self.bytes.get(self.at + 1..).unwrap_or_default();
        self.at += match rest {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', digits @ ..]
                if digits.iter().take(4).filter(|digit| digit.is_ascii_hexdigit()).count() == 4 =>
            {
                6
            }
            _ => return Err(Bad::Malformed),
        };
        Ok(())
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> Result<&'t str, Bad> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let inside = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
        let length = rest.iter().position(|byte| !inside(byte)).unwrap_or(rest.len());
        let word = self.text.get(self.at..self.at + length).ok_or(Bad::Malformed)?;
        let digits = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
        let begins = word.starts_with(|sign: char| sign == '-' || sign.is_ascii_digit());
        let number = begins && word.bytes().all(digits) && word.parse::<f64>().is_ok();
        if !number && !matches!(word, "true" | "false" | "null") {
            return Err(Bad::Malformed);
        }
        self.at += length;
        Ok(word)
    }
}

/// Returns a string's text. Half of a surrogate pair becomes U+FFFD.
fn decode(inside: &str, escaped: bool) -> Cow<'_, str> {
    if !escaped {
        return Cow::Borrowed(inside);
    }
    let (mut text, mut rest) = (String::with_capacity(inside.len()), inside);
    let unit = |rest: &str| u16::from_str_radix(rest.strip_prefix("\\u")?.get(..4)?, 16).ok();
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let mut length = 1;
        match after.bytes().next() {
            Some(b'b') => text.push('\u{8}'),
            Some(b'f') => text.push('\u{c}'),
            Some(b'n') => text.push('\n'),
            Some(b'r') => text.push('\r'),
            Some(b't') => text.push('\t'),
            Some(b'u') => {
                length = 5;
                let here = rest.get(before.len()..).unwrap_or_default();
                let high = unit(here).unwrap_or(0xfffd);
                let low = here.get(6..).and_then(unit);
                let pair = low.and_then(|low| char::decode_utf16([high, low]).next()?.ok());
                match (pair, 0xd800..=0xdbff) {
                    (Some(pair), high_half) if high_half.contains(&high) => {
                        text.push(pair);
                        length = 11;
                    }
                    _ => text.push(char::from_u32(high.into()).unwrap_or('\u{fffd}')),
                }
            }
            Some(sign) => text.push(sign.into()),
            None => length = 0,
        }
        rest = after.get(length..).unwrap_or_default();
    }
    text.push_str(rest);
    Cow::Owned(text)
}
