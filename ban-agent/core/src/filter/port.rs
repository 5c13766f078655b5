//! Finds patterns that let an address be followed by `:PORT` or not. Without brackets the last
//! group of an IPv6 address and a port look alike there. Knows patterns, not lines.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Returns whether a pattern, by its loose text, takes an IPv6 address with a port behind it and
/// without.
pub(super) fn optional(loose: &str) -> bool {
    regex_syntax::Parser::new().parse(loose).is_ok_and(|hir| within(&hir, &[]))
}

/// Looks for the address in `hir`, which `after` follows.
fn within(hir: &Hir, after: &[&Hir]) -> bool {
    match hir.kind() {
        // a loose text captures nothing else
        HirKind::Capture(_) => colon(after) == Colon::Optional,
        HirKind::Repetition(repetition) => within(&repetition.sub, after),
        HirKind::Alternation(branches) => branches.iter().any(|branch| within(branch, after)),
        HirKind::Concat(parts) => parts
            .iter()
            .enumerate()
            .any(|(at, part)| within(part, &followed(parts.iter().skip(at + 1), after))),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => false,
    }
}

fn followed<'p>(parts: impl Iterator<Item = &'p Hir>, after: &[&'p Hir]) -> Vec<&'p Hir> {
    parts.chain(after.iter().copied()).collect()
}

/// Whether a text that matches begins with a colon and a digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colon {
    Always,
    Never,
    Optional,
    /// It may be empty, and does not begin so if it is not.
    Empty,
}

/// Returns how texts of these parts, one after the other, begin.
fn colon(parts: &[&Hir]) -> Colon {
    for (at, part) in parts.iter().enumerate() {
        match first(part, parts.get(at + 1..).unwrap_or_default()) {
            Colon::Empty => {}
            other => return other,
        }
    }
    Colon::Empty
}

fn first(hir: &Hir, after: &[&Hir]) -> Colon {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Colon::Empty,
        HirKind::Literal(literal) => match &*literal.0 {
            [b':'] if digit(after) => Colon::Always,
            [b':', b'0'..=b'9', ..] => Colon::Always,
            _ => Colon::Never,
        },
        HirKind::Class(class) if digit(after) => only_few(class, ':'),
        HirKind::Class(_) => Colon::Never,
        HirKind::Capture(capture) => first(&capture.sub, after),
        HirKind::Repetition(repetition) => match first(&repetition.sub, after) {
            Colon::Always if repetition.min == 0 => Colon::Optional,
            Colon::Never if repetition.min == 0 => Colon::Empty,
            other => other,
        },
        HirKind::Concat(parts) => colon(&followed(parts.iter(), after)),
        HirKind::Alternation(branches) => {
            let branches: Vec<Colon> = branches.iter().map(|branch| first(branch, after)).collect();
            if branches.iter().all(|branch| *branch == Colon::Always) {
                Colon::Always
            } else if branches
                .iter()
                .any(|branch| matches!(branch, Colon::Always | Colon::Optional))
            {
                Colon::Optional
            } else if branches.contains(&Colon::Empty) {
                Colon::Empty
            } else {
                Colon::Never
            }
        }
    }
}

/// Returns whether texts of these parts may begin with a digit.
fn digit(parts: &[&Hir]) -> bool {
    for part in parts {
        let begins = match part.kind() {
            HirKind::Literal(literal) => literal.0.first().is_some_and(u8::is_ascii_digit),
            HirKind::Class(class) => holds(class, '5'),
            HirKind::Capture(capture) => digit(&[&capture.sub]),
            HirKind::Repetition(repetition) => digit(&[&repetition.sub]),
            HirKind::Concat(parts) => digit(&parts.iter().collect::<Vec<_>>()),
            HirKind::Alternation(branches) => branches.iter().any(|branch| digit(&[branch])),
            HirKind::Empty | HirKind::Look(_) => false,
        };
        if begins || part.properties().minimum_len() != Some(0) {
            return begins;
        }
    }
    false
}

fn holds(class: &Class, wanted: char) -> bool {
    match class {
        Class::Unicode(class) => {
            class.iter().any(|range| (range.start()..=range.end()).contains(&wanted))
        }
        Class::Bytes(class) => class
            .iter()
            .any(|range| (range.start()..=range.end()).any(|byte| char::from(byte) == wanted)),
    }
}

/// A class of a few characters names the colon; one of many, as `.`, takes it like any other.
fn only_few(class: &Class, wanted: char) -> Colon {
    let size = match class {
        Class::Unicode(class) => class.iter().map(|range| range.len()).sum::<usize>(),
        Class::Bytes(class) => class.iter().map(|range| range.len()).sum::<usize>(),
    };
    match size {
        1 if holds(class, wanted) => Colon::Always,
        2..=8 if holds(class, wanted) => Colon::Optional,
        _ => Colon::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{python, tags};

    #[test]
    fn optional_ports_are_seen() {
        for (pattern, expected) in [
            (r"\[client <ADDR>(?::\d+)?\] x", true),
            (r"\[client <HOST>(:\d{1,5})?\]", true),
            (r"client <HOST>:?\d*\s", true),
            (r"client <HOST>(?::<F-PORT>\d+</F-PORT>|)$", true),
            (r"client <HOST>(?: \(x\))?(?::\d+)?", true),
            (r"client <F-ADDR/>[:#]\d+", true),
            (r"client <IP6>(?::\d+)?", true),
            // it is there, or it is none, or it is in brackets
            (r"\[client <ADDR>:\d+\] x", false),
            (r"^<ADDR>:<F-PORT/> ", false),
            (r"\[<HOST>\](?::\d+)?", false),
            (r"from <HOST>(?: port \d+)?: \d+", false),
            (r"from <HOST>:? ", false),
            (r"from <HOST>.*$", false),
            (r"from <HOST>\S* x", false),
            (r"from <HOST>", false),
            (r"<IP4>(?::\d+)?", false),
        ] {
            let text = python::translate(&tags::expand(pattern, true), false).unwrap();
            assert_eq!(optional(&text.loose), expected, "{pattern}");
        }
    }
}
