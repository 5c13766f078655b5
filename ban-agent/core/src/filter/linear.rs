//! The linear engine. A pattern is read when the filter is, and compiled when the first text reaches
//! it: of the many patterns of a host a few meet a line. Texts of ASCII alone, which almost all are,
//! meet an engine whose classes hold nothing else: it is small, and made in well under a
//! millisecond. Only the first other text has the whole one made.

use std::sync::OnceLock;

use regex_automata::meta;
use regex_syntax::hir::{self, Hir, HirKind, Look};

use super::pattern::{Groups, LimitHit};

/// Bytes that one compiled pattern may take.
pub(super) const SIZE_LIMIT: usize = 64 << 20;
/// Bytes in which each thread that runs a pattern keeps what it has learned of it.
const CACHE: usize = 256 << 10;
/// A pattern with more parts than this is compiled when it is read: it may be too large, and would
/// hold a line up. One with fewer is always within [`SIZE_LIMIT`].
const PARTS: usize = 30_000;

/// A pattern in `regex` syntax.
#[derive(Debug)]
pub(super) struct Linear {
    source: Box<str>,
    /// For texts of ASCII; `None` inside: it does not compile.
    ascii: OnceLock<Option<meta::Regex>>,
    whole: OnceLock<Option<meta::Regex>>,
}

impl Linear {
    /// Reads a pattern; also returns what it consists of.
    ///
    /// # Errors
    /// What is wrong with it, on one line.
    pub(super) fn new(source: &str) -> Result<(Linear, Hir), String> {
        let hir = parse(source)?;
        let linear =
            Linear { source: source.into(), ascii: OnceLock::new(), whole: OnceLock::new() };
        if parts(&hir) > PARTS {
            let ascii = compile(&to_ascii(&hir))?;
            let whole = compile(&hir)?;
            let _ = (linear.ascii.set(Some(ascii)), linear.whole.set(Some(whole)));
        }
        Ok((linear, hir))
    }

    fn engine(&self, text: &str) -> Result<&meta::Regex, LimitHit> {
        let engine = if text.is_ascii() {
            self.ascii.get_or_init(|| compile(&to_ascii(&parse(&self.source).ok()?)).ok())
        } else {
            self.whole.get_or_init(|| compile(&parse(&self.source).ok()?).ok())
        };
        engine.as_ref().ok_or(LimitHit)
    }

    /// Returns whether `text` matches.
    pub(super) fn is_match(&self, text: &str) -> Result<bool, LimitHit> {
        Ok(self.engine(text)?.is_match(text))
    }

    /// Returns the first match and its groups.
    pub(super) fn captures(&self, text: &str) -> Result<Option<Groups>, LimitHit> {
        let engine = self.engine(text)?;
        let mut captures = engine.create_captures();
        engine.captures(text, &mut captures);
        let group = |span: Option<regex_automata::Span>| span.map(|span| span.start..span.end);
        Ok(captures.is_match().then(|| Groups(captures.iter().map(group).collect::<Vec<_>>())))
    }
}

fn parse(source: &str) -> Result<Hir, String> {
    regex_syntax::Parser::new().parse(source).map_err(|error| plain(&error.to_string()))
}

fn compile(hir: &Hir) -> Result<meta::Regex, String> {
    let config = meta::Config::new()
        .nfa_size_limit(Some(SIZE_LIMIT))
        .hybrid_cache_capacity(CACHE)
        .dfa(false);
    meta::Builder::new().configure(config).build_from_hir(hir).map_err(|error| {
        match error.size_limit() {
            Some(limit) => format!("the compiled pattern would take more than {limit} bytes"),
            None => plain(&error.to_string()),
        }
    })
}

/// Returns an engine's message on one line.
pub(super) fn plain(message: &str) -> String {
    let mut lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    let last = lines.next_back().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

/// Names of the groups of a pattern, by index; 0 is the whole match.
pub(super) fn names(hir: &Hir) -> Vec<Option<Box<str>>> {
    fn walk(hir: &Hir, names: &mut Vec<Option<Box<str>>>) {
        match hir.kind() {
            HirKind::Capture(capture) => {
                let index = usize::try_from(capture.index).unwrap_or(0);
                names.resize(names.len().max(index + 1), None);
                if let Some(name) = names.get_mut(index) {
                    name.clone_from(&capture.name);
                }
                walk(&capture.sub, names);
            }
            HirKind::Repetition(repetition) => walk(&repetition.sub, names),
            HirKind::Concat(parts) | HirKind::Alternation(parts) => {
                parts.iter().for_each(|part| walk(part, names));
            }
            HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => {}
        }
    }
    let mut names = vec![None];
    walk(hir, &mut names);
    names
}

/// Returns how much an engine has to be made of.
fn parts(hir: &Hir) -> usize {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len(),
        HirKind::Class(hir::Class::Unicode(class)) => class.ranges().len(),
        HirKind::Class(hir::Class::Bytes(class)) => class.ranges().len(),
        HirKind::Capture(capture) => parts(&capture.sub).saturating_add(2),
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min.saturating_add(1)).max(1);
            let times = usize::try_from(times).unwrap_or(usize::MAX);
            parts(&repetition.sub).saturating_mul(times).saturating_add(1)
        }
        HirKind::Concat(inner) | HirKind::Alternation(inner) => {
            inner.iter().map(parts).fold(1, usize::saturating_add)
        }
    }
}

/// Returns the same pattern for texts of ASCII: it matches those that `hir` matches, in the same
/// way.
fn to_ascii(hir: &Hir) -> Hir {
    let all = |parts: &[Hir]| parts.iter().map(to_ascii).collect();
    match hir.kind() {
        HirKind::Class(hir::Class::Unicode(class)) => {
            let ascii = hir::ClassUnicodeRange::new('\0', '\x7f');
            let mut class = class.clone();
            class.intersect(&hir::ClassUnicode::new([ascii]));
            Hir::class(hir::Class::Unicode(class))
        }
        HirKind::Look(look) => Hir::look(match look {
            Look::WordUnicode => Look::WordAscii,
            Look::WordUnicodeNegate => Look::WordAsciiNegate,
            Look::WordStartUnicode => Look::WordStartAscii,
            Look::WordEndUnicode => Look::WordEndAscii,
            Look::WordStartHalfUnicode => Look::WordStartHalfAscii,
            Look::WordEndHalfUnicode => Look::WordEndHalfAscii,
            other => *other,
        }),
        HirKind::Repetition(repetition) => Hir::repetition(hir::Repetition {
            sub: Box::new(to_ascii(&repetition.sub)),
            ..repetition.clone()
        }),
        HirKind::Capture(capture) => {
            Hir::capture(hir::Capture { sub: Box::new(to_ascii(&capture.sub)), ..capture.clone() })
        }
        HirKind::Concat(parts) => Hir::concat(all(parts)),
        HirKind::Alternation(parts) => Hir::alternation(all(parts)),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) => hir.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PIECES: &[&str] = &[
        r"\w",
        r"\W",
        r"\d",
        r"\S",
        r"\s",
        ".",
        r"\b",
        r"\B",
        r"\b{start}",
        r"\b{end-half}",
        "(",
        "(?:",
        "(?i:",
        ")",
        ")",
        "|",
        "*",
        "+?",
        "{0,2}",
        "{0}",
        "k",
        "s",
        "[^a]",
        "[a-c\u{e4}]",
        "\u{e4}",
        " ",
        "^",
        "$",
        "a",
        "(?<n>",
    ];

    proptest! {
        /// Against the plain engine, over texts of both kinds.
        #[test]
        fn both_engines_find_what_the_plain_one_finds(
            pieces in prop::collection::vec(prop::sample::select(PIECES), 1..9),
            text in r"[akKsS1 _\-\u{e4}\u{17f}\u{212a}]{0,7}|[akKsS1 _\-]{0,7}",
        ) {
            let pattern = pieces.concat();
            let (ours, plain) = (Linear::new(&pattern), regex::Regex::new(&pattern));
            prop_assert_eq!(ours.is_ok(), plain.is_ok(), "{}", pattern);
            let (Ok((ours, hir)), Ok(plain)) = (ours, plain) else { return Ok(()) };
            let named: Vec<_> = plain.capture_names().map(|name| name.map(Box::from)).collect();
            prop_assert_eq!(names(&hir), named, "{}", &pattern);
            let expected: Option<Vec<_>> = plain
                .captures(&text)
                .map(|found| found.iter().map(|group| group.map(|group| group.range())).collect());
            let found = ours.captures(&text).unwrap().map(|groups| groups.0);
            prop_assert_eq!(found, expected, "{} in {:?}", &pattern, &text);
            prop_assert_eq!(ours.is_match(&text).unwrap(), plain.is_match(&text));
        }
    }

    #[test]
    fn a_pattern_that_is_too_large_is_an_error_at_once() {
        assert!(Linear::new(r"\w{1000}{1000}").is_err());
        let (large, _) = Linear::new(&"[a-z]x{900}".repeat(50)).unwrap();
        assert!(large.ascii.get().is_some(), "it would hold up the first line");
        let (small, _) = Linear::new(r"^\w+ \d{4}").unwrap();
        assert!(small.ascii.get().is_none());
        assert!(small.is_match("ab 1234").unwrap());
        assert!(small.ascii.get().is_some() && small.whole.get().is_none());
        assert!(small.is_match("\u{e4}b 1234").unwrap());
        assert!(small.whole.get().is_some());
    }
}
