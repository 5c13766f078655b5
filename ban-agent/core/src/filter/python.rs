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

/// Flags that change how a pattern is read; they hold to the end of their group.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    /// `x`: white space and comments mean nothing.
    verbose: bool,
    /// `a`: classes are those of ASCII.
    ascii: bool,
}

/// An open parenthesis, and what holds again once it is closed.
struct Open {
    group: Group,
    reading: Reading,
    /// Where it stands in the exact text.
    at: usize,
}

/// A character, or a class of characters like `\d`, as an escape names it.
enum Escaped {
    One(char),
    Class(char),
}

/// `\\b` and `\\B` where a word is one of ASCII.
const ASCII_EDGE: &str = "(?:(?<![0-9A-Za-z_])(?=[0-9A-Za-z_])|(?<=[0-9A-Za-z_])(?![0-9A-Za-z_]))";
const ASCII_INSIDE: &str =
    "(?:(?<![0-9A-Za-z_])(?![0-9A-Za-z_])|(?<=[0-9A-Za-z_])(?=[0-9A-Za-z_]))";

struct Translator<'p> {
    rest: std::iter::Peekable<std::str::Chars<'p>>,
    out: Translated,
    open: Vec<Open>,
    /// Number of open lookarounds.
    looks: usize,
    /// `^` matches after every newline.
    multiline: bool,
    /// The last thing emitted can be repeated.
    atom: bool,
    /// It is a lookaround, which begins here in the exact text.
    look: Option<usize>,
    reading: Reading,
    /// The flags to come are those of a group that is open already.
    reading_group: bool,
    /// Flags for the whole pattern: wherever they stand, they hold from its beginning on.
    global: String,
}

/// Translates `pattern`; with `multiline`, `^` matches at every line of the text.
///
/// # Errors
/// A message if the pattern is not closed or uses an escape that neither side knows.
pub(super) fn translate(pattern: &str, multiline: bool) -> Result<Translated, String> {
    let (out, global) = Translator::run(pattern, multiline, "");
    // what they change may be what is wrong
    if global.is_empty() { out } else { Translator::run(pattern, multiline, &global).0 }
}

impl<'p> Translator<'p> {
    /// Translates under the flags `global`; also returns the ones that the pattern sets.
    fn run(
        pattern: &'p str,
        multiline: bool,
        global: &str,
    ) -> (Result<Translated, String>, String) {
        let mut translator = Translator {
            rest: pattern.chars().peekable(),
            out: Translated::default(),
            open: Vec::new(),
            looks: 0,
            multiline: multiline || global.contains('m'),
            atom: false,
            look: None,
            reading: Reading { verbose: global.contains('x'), ascii: global.contains('a') },
            reading_group: false,
            global: String::new(),
        };
        let flags: String = global.chars().filter(|flag| matches!(flag, 'i' | 's')).collect();
        if !flags.is_empty() {
            translator.both(&format!("(?{flags})"));
        }
        let done = translator.all();
        (done.map(|()| translator.out), translator.global)
    }

    fn all(&mut self) -> Result<(), String> {
        while let Some(c) = self.rest.next() {
            self.one(c)?;
        }
        if self.open.is_empty() { Ok(()) } else { Err("missing ')'".to_owned()) }
    }
}

impl Translator<'_> {
    fn one(&mut self, c: char) -> Result<(), String> {
        if self.reading.verbose {
            if matches!(c, ' ' | '\t'..='\r') {
                return Ok(());
            }
            if c == '#' {
                let _ = self.until('\n');
                return Ok(());
            }
        }
        let atom = std::mem::replace(&mut self.atom, true);
        if let Some(at) = self.look.take()
            && let Some(optional) = self.repeated(c)
        {
            // a lookaround takes up nothing: it holds once, or need not hold at all
            if optional {
                self.out.exact.truncate(at);
            }
            self.atom = false;
            return Ok(());
        }
        match c {
            '\\' => return self.escape(),
            '[' => return self.class(),
            '(' => return self.group(atom),
            ')' => return self.close(),
            '{' => return self.brace(atom),
            '*' | '+' | '?' => self.repeat(&c.to_string()),
            '}' => self.both("\\}"),
            // Python's `$` also matches before the newline that ends the text.
            '$' => self.both("(?m:$)"),
            '^' => self.both(if self.multiline { "(?m:^)" } else { "^" }),
            '|' => {
                self.atom = false;
                if let Some(Open { group: Group::Cond(alternative), .. }) = self.open.last_mut() {
                    *alternative = true;
                }
                self.both("|");
            }
            '.' => self.both("."),
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
        self.both(&regex::escape(c.encode_utf8(&mut buffer)));
    }

    fn escape(&mut self) -> Result<(), String> {
        let c = self.rest.next().ok_or("the pattern ends in a backslash")?;
        match c {
            'A' => self.both("\\A"),
            'Z' => self.both("\\z"),
            'b' | 'B' if self.reading.ascii => {
                self.exact(if c == 'b' { ASCII_EDGE } else { ASCII_INSIDE });
                self.out.fancy = true;
                self.loose("(?:)");
            }
            'b' | 'B' => self.both(&format!("\\{c}")),
            '1'..='9' => {
                if let Some(octal) = self.three_octal(c) {
                    self.literal(octal?);
                    return Ok(());
                }
                let second = self.rest.next_if(char::is_ascii_digit);
                self.exact(&format!("\\{c}{}", second.map(String::from).unwrap_or_default()));
                self.reference();
            }
            _ => match self.escaped(c)? {
                Escaped::One(c) => self.literal(c),
                Escaped::Class(class) => {
                    let text = match (class, members(class, self.reading.ascii)) {
                        ('D' | 'S' | 'W', text) => format!("[^{text}]"),
                        (_, text) => format!("[{text}]"),
                    };
                    self.both(&text);
                }
            },
        }
        Ok(())
    }

    /// Returns the character of `\141`, of which `first` was read: no back-reference has three
    /// digits.
    fn three_octal(&mut self, first: char) -> Option<Result<char, String>> {
        let mut ahead = self.rest.clone();
        let digits: Option<Vec<u32>> =
            [Some(first), ahead.next(), ahead.next()].iter().map(|c| (*c)?.to_digit(8)).collect();
        let value = digits?.iter().fold(0, |value, digit| value * 8 + digit);
        self.rest = ahead;
        Some(octal(value))
    }

    /// Returns what an escape means in a class and outside of it, after its backslash and `c`.
    fn escaped(&mut self, c: char) -> Result<Escaped, String> {
        let digits = match c {
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => return Ok(Escaped::Class(c)),
            '0' => {
                let mut value = 0;
                for _ in 0..2 {
                    let digit = self.rest.next_if(|c| c.is_digit(8)).and_then(|c| c.to_digit(8));
                    value = digit.map_or(value, |digit| value * 8 + digit);
                }
                return octal(value).map(Escaped::One);
            }
            'a' => return Ok(Escaped::One('\x07')),
            'f' => return Ok(Escaped::One('\x0c')),
            'n' => return Ok(Escaped::One('\n')),
            'r' => return Ok(Escaped::One('\r')),
            't' => return Ok(Escaped::One('\t')),
            'v' => return Ok(Escaped::One('\x0b')),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ if c.is_ascii_alphanumeric() => return Err(format!("bad escape \\{c}")),
            _ => return Ok(Escaped::One(c)),
        };
        let mut hex = String::new();
        while hex.len() < digits
            && let Some(digit) = self.rest.next_if(char::is_ascii_hexdigit)
        {
            hex.push(digit);
        }
        let value = u32::from_str_radix(&hex, 16).ok().filter(|_| hex.len() == digits);
        let one = value.and_then(char::from_u32).map(Escaped::One);
        one.ok_or_else(|| format!("bad escape \\{c}{hex}"))
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
        let mut first = true;
        loop {
            let c = self.rest.next().ok_or("missing ']'")?;
            if c == ']' && !std::mem::take(&mut first) {
                break;
            }
            first = false;
            let low = self.member(c)?;
            let mut ahead = self.rest.clone();
            let ranges = ahead.next() == Some('-') && ahead.peek().is_some_and(|c| *c != ']');
            match low {
                Escaped::One(low) if ranges => {
                    self.rest = ahead;
                    let c = self.rest.next().ok_or("missing ']'")?;
                    let Escaped::One(high) = self.member(c)? else {
                        return Err("a class cannot end a range".to_owned());
                    };
                    text.push_str(&format!("{}-{}", in_class(low), in_class(high)));
                }
                Escaped::One(low) => text.push_str(&in_class(low)),
                Escaped::Class(class) => {
                    let members = members(class, self.reading.ascii);
                    let not = matches!(class, 'D' | 'S' | 'W');
                    text.push_str(&if not { format!("[^{members}]") } else { members.to_owned() });
                }
            }
        }
        text.push(']');
        self.both(&text);
        Ok(())
    }

    /// One member of a class that begins with `c`, or an end of a range.
    fn member(&mut self, c: char) -> Result<Escaped, String> {
        if c != '\\' {
            return Ok(Escaped::One(c));
        }
        let c = self.rest.next().ok_or("missing ']'")?;
        if c == 'b' {
            return Ok(Escaped::One('\x08'));
        }
        let Some(mut value) = c.to_digit(8) else { return self.escaped(c) };
        for _ in 0..2 {
            let digit = self.rest.next_if(|c| c.is_digit(8)).and_then(|c| c.to_digit(8));
            value = digit.map_or(value, |digit| value * 8 + digit);
        }
        octal(value).map(Escaped::One)
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

    fn group(&mut self, atom: bool) -> Result<(), String> {
        self.atom = false;
        if self.scoped() {
            return self.flags();
        }
        if !self.take("?") {
            self.exact("(");
            self.loose("(?:");
            self.push(Group::Plain);
        } else if self.take("#") {
            self.until(')')?;
            self.atom = atom;
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
            self.push(Group::Plain);
        } else if self.take("(") {
            let name = self.until(')')?;
            let number = name.starts_with(|c: char| c.is_ascii_digit());
            self.exact(&if number { format!("(?({name})") } else { format!("(?(<{name}>)") });
            self.loose("(?:");
            self.out.fancy = true;
            self.push(Group::Cond(false));
        } else if let Some(look) = ["=", "!", "<=", "<!"].into_iter().find(|look| self.take(look)) {
            self.push(Group::Look);
            self.exact(&format!("(?{look}"));
            self.out.fancy = true;
            self.looks += 1;
        } else if self.take(">") {
            self.exact("(?>");
            self.loose("(?:");
            self.out.fancy = true;
            self.push(Group::Plain);
        } else {
            return self.flags();
        }
        Ok(())
    }

    fn push(&mut self, group: Group) {
        let at = self.out.exact.len();
        self.open.push(Open { group, reading: self.reading, at });
    }

    /// `((?i)…)` and `(?:(?i)…)` are read as `(?i:…)`, as fail2ban does; takes them up to the flags.
    fn scoped(&mut self) -> bool {
        let mut ahead = self.rest.clone();
        if ahead.next_if_eq(&'?').is_some() && ahead.next() != Some(':') {
            return false;
        }
        if ahead.next() != Some('(') || ahead.next() != Some('?') {
            return false;
        }
        let flags = ahead.clone();
        let mut any = false;
        while ahead.next_if(char::is_ascii_lowercase).is_some() {
            any = true;
        }
        let closed = any && ahead.next() == Some(')');
        if closed {
            self.rest = flags;
            self.reading_group = true;
        }
        closed
    }

    /// `(?:`, `(?i)`, `(?i:`, `(?-i:`.
    fn flags(&mut self) -> Result<(), String> {
        let (mut on, mut off, mut minus) = (String::new(), String::new(), false);
        let inside = std::mem::take(&mut self.reading_group);
        let end = loop {
            match self.rest.next().ok_or("missing ')'")? {
                '-' if !minus => minus = true,
                c @ (':' | ')') => break c,
                // Unicode is the rule, and no class depends on the locale.
                'u' | 'L' => {}
                c @ ('a' | 'i' | 'm' | 's' | 'x') => if minus { &mut off } else { &mut on }.push(c),
                c => return Err(format!("unknown group (?{on}{c}")),
            }
        };
        if end == ')' && !inside {
            self.global.push_str(&on);
            return Ok(());
        }
        self.push(Group::Plain);
        self.reading.verbose = (self.reading.verbose || on.contains('x')) && !off.contains('x');
        self.reading.ascii |= on.contains('a');
        for flags in [&mut on, &mut off] {
            flags.retain(|flag| !matches!(flag, 'a' | 'x'));
        }
        if !off.is_empty() {
            on = format!("{on}-{off}");
        }
        self.both(&format!("(?{on}:"));
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        let Some(open) = self.open.pop() else { return Err("unbalanced ')'".to_owned()) };
        self.reading = open.reading;
        match open.group {
            Group::Plain => self.both(")"),
            Group::Cond(alternative) => {
                self.exact(")");
                self.loose(if alternative { ")" } else { "|)" });
            }
            Group::Look => {
                self.exact(")");
                self.looks -= 1;
                // Something has to stay that a stray repetition can refer to.
                self.loose("(?:)");
                // nor may it be repeated in Rust
                self.look = Some(open.at);
            }
        }
        Ok(())
    }

    /// Takes a repetition that begins with `c`, if one does; whether it may be of nothing.
    fn repeated(&mut self, c: char) -> Option<bool> {
        let optional = match c {
            '*' | '?' => true,
            '+' => false,
            '{' => {
                let body = self.counts()?;
                let least = body.split(',').next().unwrap_or_default();
                least.bytes().all(|digit| digit == b'0')
            }
            _ => return None,
        };
        self.rest.next_if(|c| matches!(c, '?' | '+'));
        Some(optional)
    }

    /// Returns the inside of `{2}`, `{2,}`, `{,2}`, `{2,3}`, of which the brace was read; nothing
    /// is taken of what is none.
    fn counts(&mut self) -> Option<String> {
        let mut ahead = self.rest.clone();
        let mut body = String::new();
        while let Some(c) = ahead.next_if(|c| c.is_ascii_digit() || *c == ',') {
            body.push(c);
        }
        let sound = !body.is_empty() && body.matches(',').count() <= 1;
        if ahead.next() != Some('}') || !sound {
            return None;
        }
        self.rest = ahead;
        Some(body)
    }

    /// `{`: a repetition where Python sees one, else a literal.
    fn brace(&mut self, atom: bool) -> Result<(), String> {
        let Some(body) = atom.then(|| self.counts()).flatten() else {
            self.both("\\{");
            return Ok(());
        };
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

/// Returns the character of an octal escape.
fn octal(value: u32) -> Result<char, String> {
    let byte =
        u8::try_from(value).map_err(|_| format!("octal escape \\{value:o} is above \\377"))?;
    Ok(char::from(byte))
}

/// Returns a character as a member of a class.
fn in_class(c: char) -> String {
    if matches!(c, '\\' | '[' | ']' | '^' | '-' | '&' | '~') { format!("\\{c}") } else { c.into() }
}

/// Returns the members of `\d`, `\s` or `\w`, and of what is outside `\D`, `\S` or `\W`: what
/// Python's `str.isspace` and `str.isalnum` know is not just what Unicode's own tables of such
/// names hold.
fn members(class: char, ascii: bool) -> &'static str {
    match (class.to_ascii_lowercase(), ascii) {
        ('d', false) => r"\d",
        ('d', true) => "0-9",
        ('s', false) => r"\s\x1c-\x1f",
        ('s', true) => r" \t-\r",
        (_, false) => r"\p{L}\p{N}_",
        (_, true) => "0-9A-Za-z_",
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
            (r"\040[\040]b\141d\0", " [ ]bad\0"),
            (r"\x41\u00e4[\b\101-\103]", "A\u{e4}[\u{8}A-C]"),
            ("(?x)^\\ bad [ #] # note\n (?-x: x){2}", "^ bad[ #](?: x){2}"),
            (r"a((?i)b)(?:(?i)c)", r"a(?i:b)(?i:c)"),
            (r"a(?i)b", r"(?i)ab"),
            (
                r"\w\S[\W\s](?a:\d)",
                r"[\p{L}\p{N}_][^\s\x1c-\x1f][[^\p{L}\p{N}_]\s\x1c-\x1f](?:[0-9])",
            ),
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
        for pattern in ["(a", "a)", "[a", "a\\", "\\y", "(?P<a", "(?q)", "\\777", "\\x4", "[a-\\d]"]
        {
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
