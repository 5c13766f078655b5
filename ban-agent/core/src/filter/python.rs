//! Turns a pattern written for Python's `re` into one for `regex`/`fancy-regex`. Knows both
//! syntaxes and nothing of logs or tags.
//!
//! Two texts come out: `exact`, and `loose`, which matches wherever `exact` does (and perhaps
//! elsewhere) without anything that a finite automaton cannot do. The loose text rejects lines in
//! linear time before a backtracking engine sees them, and tells which literals a match needs.

/// A translated pattern.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Translated {
    /// The same meaning in Rust's syntax.
    pub exact: String,
    /// A superset of it without lookaround, back-references and conditionals.
    pub loose: String,
    /// `exact` needs a backtracking engine.
    pub fancy: bool,
}

/// What an open parenthesis was.
enum Group {
    Plain,
    /// A conditional; whether its "else" was seen.
    Cond(bool),
    /// A lookaround: the loose text leaves it out.
    Look,
}

struct Translator<'p> {
    rest: std::iter::Peekable<std::str::Chars<'p>>,
    out: Translated,
    open: Vec<Group>,
    /// Number of open lookarounds.
    looks: usize,
    /// `^` matches after every newline.
    multiline: bool,
    /// The last thing emitted can be repeated.
    atom: bool,
}

/// Translates `pattern`; with `multiline`, `^` matches at every line of the text.
///
/// # Errors
/// A message if the pattern is not closed or uses an escape that neither side knows.
pub(super) fn translate(pattern: &str, multiline: bool) -> Result<Translated, String> {
    let mut translator = Translator {
        rest: pattern.chars().peekable(),
        out: Translated::default(),
        open: Vec::new(),
        looks: 0,
        multiline,
        atom: false,
    };
    while let Some(c) = translator.rest.next() {
        translator.one(c)?;
    }
    if translator.open.is_empty() { Ok(translator.out) } else { Err("missing ')'".to_owned()) }
}

impl Translator<'_> {
    fn one(&mut self, c: char) -> Result<(), String> {
        let atom = std::mem::replace(&mut self.atom, true);
        match c {
            '\\' => return self.escape(),
            '[' => return self.class(),
            '(' => return self.group(),
            ')' => return self.close(),
            '{' => return self.brace(atom),
            '*' | '+' | '?' => self.repeat(&c.to_string()),
            '}' => self.both("\\}"),
            // Python's `$` also matches before the newline that ends the text.
            '$' => self.both("(?m:$)"),
            '^' => self.both(if self.multiline { "(?m:^)" } else { "^" }),
            '|' => {
                self.atom = false;
                if let Some(Group::Cond(alternative)) = self.open.last_mut() {
                    *alternative = true;
                }
                self.both("|");
            }
            _ => self.literal(c),
        }
        Ok(())
    }

    fn both(&mut self, text: &str) {
        self.exact(text);
        self.loose(text);
    }

    fn exact(&mut self, text: &str) {
        self.out.exact.push_str(text);
    }

    fn loose(&mut self, text: &str) {
        if self.looks == 0 {
            self.out.loose.push_str(text);
        }
    }

    fn literal(&mut self, c: char) {
        let mut buffer = [0; 4];
        self.both(c.encode_utf8(&mut buffer));
    }

    fn escaped_literal(&mut self, c: char) {
        let mut buffer = [0; 4];
        self.both(&regex::escape(c.encode_utf8(&mut buffer)));
    }

    fn escape(&mut self) -> Result<(), String> {
        let c = self.rest.next().ok_or("the pattern ends in a backslash")?;
        match c {
            'Z' => self.both("\\z"),
            '0' => self.both("\\x00"),
            '1'..='9' => {
                self.exact(&format!("\\{c}"));
                if let Some(second) = self.rest.next_if(char::is_ascii_digit) {
                    self.literal_exact(second);
                }
                self.reference();
            }
            'd' | 'D' | 'w' | 'W' | 's' | 'S' | 'b' | 'B' | 'A' | 'n' | 'r' | 't' | 'f' | 'v'
            | 'a' | 'x' => self.both(&format!("\\{c}")),
            'u' | 'U' => self.both(&format!("\\{c}")),
            _ if c.is_ascii_alphanumeric() => return Err(format!("bad escape \\{c}")),
            _ => self.escaped_literal(c),
        }
        Ok(())
    }

    fn literal_exact(&mut self, c: char) {
        self.out.exact.push(c);
    }

    /// The loose side of a back-reference: it may repeat any text.
    fn reference(&mut self) {
        self.out.fancy = true;
        self.loose("(?s:.*)");
    }

    fn class(&mut self) -> Result<(), String> {
        let mut text = String::from("[");
        if self.rest.next_if_eq(&'^').is_some() {
            text.push('^');
        }
        if self.rest.next_if_eq(&']').is_some() {
            text.push_str("\\]");
        }
        loop {
            let c = self.rest.next().ok_or("missing ']'")?;
            match c {
                ']' => break,
                '\\' => {
                    let c = self.rest.next().ok_or("missing ']'")?;
                    match c {
                        'b' => text.push_str("\\x08"),
                        '0' => text.push_str("\\x00"),
                        _ if c.is_alphanumeric() => text.extend(['\\', c]),
                        '<' | '>' => text.push(c),
                        _ if c.is_ascii() => text.extend(['\\', c]),
                        _ => text.push(c),
                    }
                }
                '[' | '&' | '~' => text.extend(['\\', c]),
                '-' if self.rest.peek() == Some(&'-') => text.push_str("\\-"),
                _ => text.push(c),
            }
        }
        text.push(']');
        self.both(&text);
        Ok(())
    }

    fn take(&mut self, text: &str) -> bool {
        let mut ahead = self.rest.clone();
        if text.chars().all(|c| ahead.next() == Some(c)) {
            self.rest = ahead;
            return true;
        }
        false
    }

    fn until(&mut self, end: char) -> Result<String, String> {
        let mut text = String::new();
        loop {
            match self.rest.next() {
                Some(c) if c == end => return Ok(text),
                Some(c) => text.push(c),
                None => return Err(format!("missing '{end}'")),
            }
        }
    }

    fn group(&mut self) -> Result<(), String> {
        self.atom = false;
        if !self.take("?") {
            self.exact("(");
            self.loose("(?:");
            self.open.push(Group::Plain);
        } else if self.take("#") {
            self.until(')')?;
        } else if self.take("P=") {
            let name = self.until(')')?;
            self.exact(&format!("(?P={name})"));
            self.reference();
            self.atom = true;
        } else if self.take("P<") {
            let name = self.until('>')?;
            self.exact(&format!("(?P<{name}>"));
            // the only group that captures: where the address stands is asked of the loose text
            self.loose(if name == "ip6" { "(" } else { "(?:" });
            self.open.push(Group::Plain);
        } else if self.take("(") {
            let name = self.until(')')?;
            let number = name.starts_with(|c: char| c.is_ascii_digit());
            self.exact(&if number { format!("(?({name})") } else { format!("(?(<{name}>)") });
            self.loose("(?:");
            self.out.fancy = true;
            self.open.push(Group::Cond(false));
        } else if let Some(look) = ["=", "!", "<=", "<!"].into_iter().find(|look| self.take(look)) {
            self.exact(&format!("(?{look}"));
            self.out.fancy = true;
            self.looks += 1;
            self.open.push(Group::Look);
        } else if self.take(">") {
            self.exact("(?>");
            self.loose("(?:");
            self.out.fancy = true;
            self.open.push(Group::Plain);
        } else {
            return self.flags();
        }
        Ok(())
    }

    /// `(?:`, `(?i)`, `(?i:`, `(?-i:`.
    fn flags(&mut self) -> Result<(), String> {
        let mut flags = String::new();
        loop {
            let c = self.rest.next().ok_or("missing ')'")?;
            match c {
                ':' | ')' => {
                    if c == ':' {
                        self.both(&format!("(?{flags}:"));
                        self.open.push(Group::Plain);
                    } else if !flags.is_empty() {
                        self.both(&format!("(?{flags})"));
                    }
                    return Ok(());
                }
                'i' | 'm' | 's' | 'x' | '-' => flags.push(c),
                // Unicode, locale and ASCII classes: ours are Unicode.
                'u' | 'L' | 'a' => {}
                _ => return Err(format!("unknown group (?{flags}{c}")),
            }
        }
    }

    fn close(&mut self) -> Result<(), String> {
        match self.open.pop() {
            None => return Err("unbalanced ')'".to_owned()),
            Some(Group::Plain) => self.both(")"),
            Some(Group::Cond(alternative)) => {
                self.exact(")");
                self.loose(if alternative { ")" } else { "|)" });
            }
            Some(Group::Look) => {
                self.exact(")");
                self.looks -= 1;
                // Something has to stay that a stray repetition can refer to.
                self.loose("(?:)");
            }
        }
        Ok(())
    }

    /// `{`: a repetition where Python sees one, else a literal.
    fn brace(&mut self, atom: bool) -> Result<(), String> {
        let mut ahead = self.rest.clone();
        let mut body = String::new();
        while let Some(c) = ahead.next_if(|c| c.is_ascii_digit() || *c == ',') {
            body.push(c);
        }
        let closed = ahead.next() == Some('}');
        if !atom || !closed || body.is_empty() || body.matches(',').count() > 1 {
            self.both("\\{");
            return Ok(());
        }
        self.rest = ahead;
        let text = match body.strip_prefix(',') {
            Some(max) => format!("{{0,{max}}}"),
            None => format!("{{{body}}}"),
        };
        self.repeat(&text);
        Ok(())
    }

    /// A repetition with its `?` (lazy) or `+` (possessive).
    fn repeat(&mut self, text: &str) {
        self.atom = false;
        self.both(text);
        if self.rest.next_if_eq(&'?').is_some() {
            self.both("?");
        } else if self.rest.next_if_eq(&'+').is_some() {
            self.exact("+");
            self.out.fancy = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, exact: &str, loose: &str, fancy: bool) {
        let got = translate(pattern, false).unwrap();
        assert_eq!((got.exact.as_str(), got.loose.as_str(), got.fancy), (exact, loose, fancy));
    }

    #[test]
    fn both_syntaxes_mean_the_same() {
        for (pattern, exact) in [
            (r"^a\<b\>$", r"^a<b>(?m:$)"),
            (r"x{2}y{,3}z{", r"x{2}y{0,3}z\{"),
            (r"{LEFT}", r"\{LEFT\}"),
            (r"[[:&&~]", r"[\[:\&\&\~]"),
            (r"[^]a]", r"[^\]a]"),
            (r"a(?#note)b\Z", r"ab\z"),
            (r"(?iu)a", r"(?i)a"),
            (r#"\"\/\%"#, r#""/%"#),
        ] {
            let got = translate(pattern, false).unwrap();
            assert_eq!(got.exact, exact, "{pattern}");
            assert!(!got.fancy);
        }
    }

    #[test]
    fn what_needs_backtracking_has_a_loose_twin() {
        check("a(?!b(c))d", "a(?!b(c))d", "a(?:)d", true);
        check("(?P<q>['\"])x(?P=q)", "(?P<q>['\"])x(?P=q)", "(?:['\"])x(?s:.*)", true);
        check("(?P<a>x)?(?(a)y|z)", "(?P<a>x)?(?(<a>)y|z)", "(?:x)?(?:y|z)", true);
        check("(x)?(?(1)y)", "(x)?(?(1)y)", "(?:x)?(?:y|)", true);
        check("a*+b", "a*+b", "a*b", true);
    }

    #[test]
    fn broken_patterns_are_errors() {
        for pattern in ["(a", "a)", "[a", "a\\", "\\y", "(?P<a", "(?q)"] {
            assert!(translate(pattern, false).is_err(), "{pattern}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,40}") {
            let _ = translate(&text, true);
        }
    }
}
