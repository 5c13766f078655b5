//! Rejects lines by their raw bytes: a line that holds none of the texts which the patterns need
//! cannot match. One pass over a whole buffer, without looking at lines at all.

use std::{
    collections::BTreeMap,
    ops::{BitOrAssign, ControlFlow},
    sync::OnceLock,
};

use aho_corasick::{Span, packed};

use super::{finder::Finder, literals::Required};

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

    /// Returns whether the pattern at `index` may match.
    pub(super) fn holds(self, index: usize) -> bool {
        self.0 & Suspects::one(index).0 != 0
    }

    fn one(index: usize) -> Suspects {
        Suspects(1 << index.min(BITS))
    }
}

impl BitOrAssign for Suspects {
    fn bitor_assign(&mut self, other: Suspects) {
        self.0 |= other.0;
    }
}

/// The texts, compiled where they are looked for: filters that read a log together do so together.
#[derive(Debug)]
pub(super) struct Prefilter {
    /// With the patterns that need each.
    texts: Vec<(Vec<u8>, Suspects)>,
    /// ASCII case is disregarded.
    fold: bool,
    /// Finds the first text, many bytes at a time: where the processor can, and the texts are few
    /// and as written.
    packed: OnceLock<Option<packed::Searcher>>,
    finder: OnceLock<Finder>,
}

impl Prefilter {
    /// Returns the prefilter of patterns that need these texts; `None` if one of them needs no text
    /// and `prefregex` needs none either.
    pub(super) fn new(
        prefregex: Option<&Required>,
        failregex: &[Option<&Required>],
    ) -> Option<Prefilter> {
        let each: Option<Vec<_>> = failregex.iter().copied().collect();
        let mut texts: BTreeMap<&[u8], Suspects> = BTreeMap::new();
        let mut fold = false;
        let mut all: Vec<(&Required, Suspects)> = Vec::new();
        match (each, prefregex) {
            (Some(each), _) => {
                let one = |(index, required)| (required, Suspects::one(index));
                all.extend(each.into_iter().enumerate().map(one));
            }
            (None, Some(required)) => all.push((required, Suspects::ALL)),
            (None, None) => return None,
        }
        for (required, suspects) in all {
            fold |= required.fold;
            for text in &required.texts {
                *texts.entry(text).or_insert(Suspects::NONE) |= suspects;
            }
        }
        Some(Prefilter {
            texts: texts.into_iter().map(|(text, suspects)| (text.to_vec(), suspects)).collect(),
            fold,
            packed: OnceLock::new(),
            finder: OnceLock::new(),
        })
    }

    /// Returns the texts, each with the patterns that need it: a line without any of them is none
    /// that a pattern matches.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&[u8], Suspects)> {
        self.texts.iter().map(|(text, suspects)| (text.as_slice(), *suspects))
    }

    /// Returns whether ASCII case is disregarded.
    pub(super) fn folds(&self) -> bool {
        self.fold
    }

    /// Returns a place in the first line, at or after `from`, that holds a text.
    pub(super) fn next(&self, buffer: &[u8], from: usize) -> Option<usize> {
        let packed = self.packed.get_or_init(|| {
            let texts = self.texts.iter().map(|(text, _)| text);
            let searcher = packed::Config::new().builder().extend(texts).build();
            searcher.filter(|_| !self.fold)
        });
        if let Some(packed) = packed {
            let span = Span { start: from, end: buffer.len() };
            return packed.find_in(buffer, span).map(|found| found.start());
        }
        let mut first = None;
        let _ = self.finder().each(buffer, from, &mut |hit| {
            first = Some(hit.span.start);
            ControlFlow::Break(())
        });
        first
    }

    /// Returns the patterns that `line` may match.
    pub(super) fn suspects(&self, line: &[u8]) -> Suspects {
        let mut suspects = Suspects::NONE;
        let _ = self.finder().each(line, 0, &mut |hit| {
            suspects |= self.texts.get(hit.text).map_or(Suspects::ALL, |text| text.1);
            ControlFlow::Continue(())
        });
        suspects
    }

    fn finder(&self) -> &Finder {
        self.finder.get_or_init(|| Finder::new(self.texts().map(|(text, _)| (text, self.fold))))
    }
}
