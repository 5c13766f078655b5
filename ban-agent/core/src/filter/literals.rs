//! Finds texts of which every match of a pattern contains one, so that a line without any of them
//! need not meet the pattern. Knows patterns, not lines.

use regex_syntax::hir::{Class, Hir, HirKind};

use super::words::{self, Words};

/// More members than this make a set useless.
const MAX_SET: usize = 24;
/// A literal longer than this is not made longer.
const MAX_LENGTH: usize = 48;

/// Words that most lines of some log hold: useless for telling lines apart.
const COMMON: &[&str] = &[
    "http",
    "https",
    "get",
    "post",
    "head",
    "put",
    "from",
    "for",
    "user",
    "client",
    "server",
    "request",
    "host",
    "port",
    "sshd",
    "info",
    "warn",
    "warning",
    "error",
    "notice",
    "debug",
    "connection",
    "closed",
    "by",
    "login",
    "auth",
    "session",
    "disconnected",
    "connect",
    "accepted",
    "address",
    "with",
    "ssh2",
    "preauth",
    "www",
    "com",
    "html",
    "rhost",
    "kernel",
];

/// A set of texts of which each match contains one, and how well it tells lines apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Required {
    /// The texts, in lower case where `fold`.
    pub texts: Vec<Vec<u8>>,
    /// To be compared without regard to ASCII case.
    pub fold: bool,
    /// Higher is rarer.
    pub score: usize,
}

/// Returns the best set for a pattern; `None` if a match need not contain anything.
pub(super) fn required(hir: &Hir) -> Option<Required> {
    let exact = best(walk(hir, false), false);
    // Patterns without regard to case spell each letter as a class of two.
    let folded = best(walk(hir, true), true);
    match (exact, folded) {
        (Some(exact), Some(folded)) if folded.score > exact.score + 2 => Some(folded),
        (None, folded) => folded,
        (exact, _) => exact,
    }
}

/// Returns the words of a list of which each match contains one, by a pattern with signs for its
/// lists.
pub(super) fn listed(pattern: &str, words: &Words) -> Option<Required> {
    let hir = regex_syntax::Parser::new().parse(pattern).ok()?;
    let info = walk(&hir, false);
    // what stands beside a list may be of several kinds
    let behind = |texts: &Vec<Vec<u8>>| {
        let lists = texts.iter().map(|text| words::behind(text, words));
        lists.collect::<Option<Vec<_>>>().filter(|lists| !lists.is_empty())
    };
    let lists = info.required.iter().chain(&info.exact).find_map(behind)?;
    let mut texts: Vec<Vec<u8>> = lists
        .into_iter()
        .flat_map(|list| list.iter())
        .filter(|word| !word.is_empty())
        .map(|word| longest_piece(word.as_bytes()).to_ascii_lowercase())
        .collect();
    texts.sort();
    texts.dedup();
    let score = texts.iter().map(|text| weight(text)).min().filter(|score| *score > 1)?;
    // the pattern around it may take either case
    Some(Required { texts, fold: true, score })
}

fn best(info: Info, fold: bool) -> Option<Required> {
    let whole = info.exact.and_then(set);
    info.required
        .into_iter()
        .chain(whole)
        .map(|texts| Required { score: score(&texts), texts, fold })
        .max_by_key(|required| required.score)
        .filter(|required| required.score > 1)
}

/// What is known of an expression.
#[derive(Default)]
struct Info {
    /// All that it can match, if that is a small finite set.
    exact: Option<Vec<Vec<u8>>>,
    /// Sets of which each match contains a member.
    required: Vec<Vec<Vec<u8>>>,
}

impl Info {
    fn exactly(texts: Vec<Vec<u8>>) -> Info {
        Info { exact: Some(texts), required: Vec::new() }
    }
}

fn walk(hir: &Hir, fold: bool) -> Info {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Info::exactly(vec![Vec::new()]),
        HirKind::Literal(literal) => {
            let mut text = literal.0.to_vec();
            if fold {
                text.make_ascii_lowercase();
            }
            Info::exactly(vec![text])
        }
        HirKind::Class(class) => Info { exact: small_class(class, fold), required: Vec::new() },
        HirKind::Capture(capture) => walk(&capture.sub, fold),
        HirKind::Repetition(repetition) => {
            let inner = walk(&repetition.sub, fold);
            repeated(inner, repetition.min, repetition.max)
        }
        HirKind::Concat(parts) => concat(parts, fold),
        HirKind::Alternation(parts) => alternation(parts, fold),
    }
}

fn repeated(inner: Info, min: u32, max: Option<u32>) -> Info {
    match (min, max, inner.exact) {
        (0, Some(1), Some(mut exact)) => {
            exact.push(Vec::new());
            Info::exactly(exact)
        }
        (0, _, _) => Info::default(),
        (1, Some(1), exact) => Info { exact, required: inner.required },
        (min, max, Some(exact)) => {
            let text = if Some(min) == max { power(&exact, min) } else { None };
            let required = if text.is_none() { set(exact).into_iter().collect() } else { vec![] };
            Info { exact: text, required }
        }
        (_, _, None) => Info { exact: None, required: inner.required },
    }
}

fn power(texts: &[Vec<u8>], times: u32) -> Option<Vec<Vec<u8>>> {
    (0..times).try_fold(vec![Vec::new()], |all, _| product(&all, texts))
}

fn product(left: &[Vec<u8>], right: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    let long = left.iter().any(|text| text.len() > MAX_LENGTH);
    if long || left.len() * right.len() > MAX_SET {
        return None;
    }
    let mut all: Vec<Vec<u8>> = left
        .iter()
        .flat_map(|a| right.iter().map(move |b| [a.as_slice(), b.as_slice()].concat()))
        .collect();
    all.sort();
    all.dedup();
    Some(all)
}

fn concat(parts: &[Hir], fold: bool) -> Info {
    let mut run = vec![Vec::new()];
    let mut required = Vec::new();
    let mut whole = true;
    for part in parts {
        let info = walk(part, fold);
        required.extend(info.required);
        let longer = info.exact.as_ref().and_then(|exact| product(&run, exact));
        match longer {
            Some(longer) => run = longer,
            None => {
                whole = false;
                required.extend(set(std::mem::replace(&mut run, vec![Vec::new()])));
                if let Some(exact) = info.exact {
                    run = exact;
                }
            }
        }
    }
    if whole {
        return Info { exact: Some(run), required };
    }
    required.extend(set(run));
    Info { exact: None, required }
}

fn alternation(parts: &[Hir], fold: bool) -> Info {
    let infos: Vec<Info> = parts.iter().map(|part| walk(part, fold)).collect();
    let exact = infos
        .iter()
        .map(|info| info.exact.clone())
        .collect::<Option<Vec<_>>>()
        .map(|sets| sets.concat())
        .filter(|texts| texts.len() <= MAX_SET);
    if exact.is_some() {
        return Info { exact, required: Vec::new() };
    }
    let each: Option<Vec<_>> =
        infos.into_iter().map(|info| best(info, fold).map(|required| required.texts)).collect();
    let union = each.map(|sets| sets.concat()).and_then(set);
    Info { exact: None, required: union.into_iter().collect() }
}

fn small_class(class: &Class, fold: bool) -> Option<Vec<Vec<u8>>> {
    let mut texts = Vec::new();
    match class {
        Class::Unicode(class) => {
            for range in class.ranges() {
                for c in range.start()..=range.end() {
                    texts.push(c.to_string().into_bytes());
                    if texts.len() > 8 {
                        return None;
                    }
                }
            }
        }
        Class::Bytes(class) => {
            for range in class.ranges() {
                for c in range.start()..=range.end() {
                    texts.push(vec![c]);
                    if texts.len() > 8 {
                        return None;
                    }
                }
            }
        }
    }
    if fold {
        // U+017F and U+212A fold to s and k; no daemon spells its messages with them.
        texts.retain(|text| text.as_slice() != "\u{17f}".as_bytes());
        texts.retain(|text| text.as_slice() != "\u{212a}".as_bytes());
        texts.iter_mut().for_each(|text| text.make_ascii_lowercase());
        texts.sort();
        texts.dedup();
    }
    (!texts.is_empty()).then_some(texts)
}

/// Returns the set that can be searched in a line with its time stamp still inside. Time stamps lie
/// between two characters that belong to no word, or at an end of the line: a text is cut where
/// it holds two such characters side by side.
fn set(texts: Vec<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
    let mut pieces: Vec<Vec<u8>> = texts.iter().map(|text| longest_piece(text).to_vec()).collect();
    pieces.sort();
    pieces.dedup();
    let usable = !pieces.is_empty()
        && pieces.len() <= MAX_SET * 2
        && pieces.iter().all(|piece| piece.len() > 1);
    usable.then_some(pieces)
}

fn longest_piece(text: &[u8]) -> &[u8] {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
    let mut best: &[u8] = &[];
    let mut rest = text;
    loop {
        let seam = rest
            .windows(2)
            .position(|pair| pair.iter().all(|byte| !word(*byte)))
            .map_or(rest.len(), |at| at + 1);
        let (piece, tail) = rest.split_at(seam);
        if weight(piece) > weight(best) {
            best = piece;
        }
        if tail.is_empty() {
            return best;
        }
        rest = tail;
    }
}

/// Returns how rare a text is thought to be.
pub(super) fn weight(text: &[u8]) -> usize {
    let words = text.split(|byte| !byte.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let telling: usize = words.map(|word| if is_common(word) { 0 } else { word.len() }).sum();
    telling * 2 + text.len().min(8)
}

/// Returns whether it is a part of a common word.
fn is_common(part: &[u8]) -> bool {
    let lower = part.to_ascii_lowercase();
    COMMON.iter().any(|common| common.as_bytes().windows(lower.len()).any(|window| window == lower))
}

fn score(texts: &[Vec<u8>]) -> usize {
    let weakest = texts.iter().map(|text| weight(text)).min().unwrap_or(0);
    weakest.saturating_sub(texts.len() / 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, expected: &[&str]) {
        let hir = regex_syntax::Parser::new().parse(pattern).unwrap();
        let got: Option<Vec<String>> = required(&hir).map(|required| {
            required.texts.into_iter().map(|text| String::from_utf8(text).unwrap()).collect()
        });
        let expected: Vec<String> = expected.iter().map(|&text| text.to_owned()).collect();
        assert_eq!(got.unwrap_or_default(), expected, "{pattern}");
    }

    #[test]
    fn the_rarest_part_is_chosen() {
        check("^Failed password for .* from x", &["Failed password for "]);
        check(r#"^\S+ -.*"(GET|POST|HEAD).*HTTP.*" 401"#, &[" 401"]);
        check("(?:closed|reset) by", &["closed by", "reset by"]);
        check("[aA]uthentication failure", &["Authentication failure", "authentication failure"]);
        check("(?i)authentication failure", &["authentication failure"]);
        check("a(?:foo)?b{2}cde", &["abbcde", "afoobbcde"]);
        check(r".*\d+", &[]);
        check("foo|.*", &[]);
    }

    #[test]
    fn a_text_that_a_time_stamp_may_have_split_is_cut() {
        check(r#" \[\] "X: quux"#, &[" quux"]);
        check(r#"" 401 "#, &[" 401 "]);
    }
}
