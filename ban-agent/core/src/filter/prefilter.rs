//! Rejects lines by their raw bytes: a line that holds none of the texts which the patterns need
//! cannot match. One pass over a whole buffer, without looking at lines at all.

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, MatchKind, Span, packed};

use super::literals::Required;

/// More patterns than this share the last bit of a [`Suspects`].
const BITS: usize = 63;

/// Which of the patterns a line may match: bit by index; the last bit stands for all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suspects(u64);

impl Suspects {
    /// Every pattern.
    pub(super) const ALL: Suspects = Suspects(u64::MAX);
    /// None of them.
    pub(super) const NONE: Suspects = Suspects(0);

    /// Whether the pattern at `index` may match.
    pub(super) fn holds(self, index: usize) -> bool {
        self.0 & bit(index) != 0
    }
}

fn bit(index: usize) -> u64 {
    1 << index.min(BITS)
}

/// Finds the first of the texts.
#[derive(Debug)]
enum First {
    /// Many bytes at a time: where the processor can, and the texts are few and as written.
    Packed(packed::Searcher),
    Automaton(AhoCorasick),
}

/// The compiled texts.
#[derive(Debug)]
pub(super) struct Prefilter {
    /// Stops at the first text.
    any: First,
    /// Finds every text of one line; its patterns are those of `bits`.
    all: AhoCorasick,
    /// The patterns that each text stands for.
    bits: Vec<u64>,
    texts: Vec<Vec<u8>>,
}

impl Prefilter {
    /// The prefilter of patterns that need these texts; `None` if one of them needs no text and
    /// `prefregex` needs none either.
    pub(super) fn new(
        prefregex: Option<&Required>,
        failregex: &[Option<&Required>],
    ) -> Option<Prefilter> {
        let each: Option<Vec<_>> = failregex.iter().copied().collect();
        let mut texts: Vec<(Vec<u8>, u64)> = Vec::new();
        let mut fold = false;
        let mut add = |text: &[u8], bits: u64| match texts.iter_mut().find(|known| known.0 == text)
        {
            Some(known) => known.1 |= bits,
            None => texts.push((text.to_vec(), bits)),
        };
        match (each, prefregex) {
            (Some(each), _) => {
                for (index, required) in each.iter().enumerate() {
                    fold |= required.fold;
                    required.texts.iter().for_each(|text| add(text, bit(index)));
                }
            }
            (None, Some(required)) => {
                fold = required.fold;
                required.texts.iter().for_each(|text| add(text, u64::MAX));
            }
            (None, None) => return None,
        }
        let packed = || {
            let searcher =
                packed::Config::new().builder().extend(texts.iter().map(|t| &t.0)).build();
            searcher.filter(|_| !fold)
        };
        let build = |kind| {
            AhoCorasickBuilder::new()
                .ascii_case_insensitive(fold)
                .match_kind(kind)
                .build(texts.iter().map(|text| &text.0))
                .ok()
        };
        Some(Prefilter {
            any: match packed() {
                Some(searcher) => First::Packed(searcher),
                None => First::Automaton(build(MatchKind::LeftmostFirst)?),
            },
            all: build(MatchKind::Standard)?,
            bits: texts.iter().map(|text| text.1).collect(),
            texts: texts.into_iter().map(|text| text.0).collect(),
        })
    }

    /// The texts: a line without any of them is none that a pattern matches.
    pub(super) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.texts.iter().map(Vec::as_slice)
    }

    /// Where the first text at or after `from` begins.
    pub(super) fn next(&self, buffer: &[u8], from: usize) -> Option<usize> {
        let span = Span { start: from, end: buffer.len() };
        let found = match &self.any {
            First::Packed(searcher) => searcher.find_in(buffer, span),
            First::Automaton(automaton) => {
                automaton.find(aho_corasick::Input::new(buffer).span(span))
            }
        };
        found.map(|found| found.start())
    }

    /// The patterns that `line` may match.
    pub(super) fn suspects(&self, line: &[u8]) -> Suspects {
        let found = self.all.find_overlapping_iter(line);
        Suspects(found.fold(0, |bits, found| {
            bits | self.bits.get(found.pattern().as_usize()).copied().unwrap_or(u64::MAX)
        }))
    }
}
