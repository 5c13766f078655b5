//! One pass over the lines of a log for all filters that read it: each is only shown the lines that
//! hold a text which its patterns need.

use std::{collections::BTreeMap, ops::ControlFlow};

use super::{
    Filter,
    finder::{Finder, Hit},
    prefilter::Suspects,
};

/// The texts of several filters, compiled together. It finds what each filter's own prefilter would.
#[derive(Debug)]
pub struct SharedPrefilter {
    finder: Finder,
    /// For each text the filters that it is of, by index, and their patterns that need it.
    owners: Vec<Vec<Owner>>,
    /// Filters that have to see every line.
    unfiltered: Vec<bool>,
}

/// A line that a filter has to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Where it begins, in bytes.
    pub at: u32,
    /// The patterns that it may match.
    pub(super) suspects: Suspects,
}

/// The number of a filter that a text belongs to, and the patterns of it that need the text.
type Owner = (usize, Suspects);

/// The lines that one filter has to look at, in their order.
pub type Starts = Vec<Start>;

impl SharedPrefilter {
    /// Compiles the texts of `filters`; `None` if none of them has any.
    pub fn new<'f>(filters: impl IntoIterator<Item = &'f Filter>) -> Option<SharedPrefilter> {
        let mut texts: BTreeMap<(&[u8], bool), Vec<Owner>> = BTreeMap::new();
        let mut unfiltered = Vec::new();
        for (index, filter) in filters.into_iter().enumerate() {
            let prefilter = filter.prefilter.as_ref();
            unfiltered.push(prefilter.is_none());
            if let Some(prefilter) = prefilter {
                for (text, suspects) in prefilter.texts() {
                    texts.entry((text, prefilter.folds())).or_default().push((index, suspects));
                }
            }
        }
        if texts.is_empty() {
            return None;
        }
        let finder = Finder::new(texts.keys().copied());
        Some(SharedPrefilter { finder, owners: texts.into_values().collect(), unfiltered })
    }

    /// For each filter the lines that it has to look at; `None`: all of them.
    #[must_use]
    pub fn sort(&self, lines: &[u8]) -> Vec<Option<Starts>> {
        let mut found: Vec<Option<Starts>> =
            self.unfiltered.iter().map(|all| (!all).then(Vec::new)).collect();
        // offsets are kept in four bytes
        if u32::try_from(lines.len()).is_err() {
            return vec![None; found.len()];
        }
        // of the line at hand
        let (mut start, mut end) = (0_u32, 0);
        let _ = self.finder.each(lines, 0, &mut |Hit { span, text }| {
            if span.start >= end {
                let before = lines.get(..span.start).unwrap_or_default();
                let begin = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
                let after = lines.get(span.start..).unwrap_or_default();
                start = u32::try_from(begin).unwrap_or(u32::MAX);
                end = memchr::memchr(b'\n', after).map_or(lines.len(), |at| span.start + at + 1);
            }
            for (owner, suspects) in self.owners.get(text).into_iter().flatten() {
                let Some(Some(starts)) = found.get_mut(*owner) else { continue };
                match starts.last_mut().filter(|last| last.at == start) {
                    Some(last) => last.suspects |= *suspects,
                    None => starts.push(Start { at: start, suspects: *suspects }),
                }
            }
            ControlFlow::Continue(())
        });
        found
    }
}
