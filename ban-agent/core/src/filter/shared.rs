//! One pass over the lines of a log for all filters that read it: each is only shown the lines that
//! hold a text which its patterns need.

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind};

use super::Filter;

/// The texts of several filters, compiled together. What it finds is a superset of what each filter's
/// own prefilter would find: it does not regard ASCII case.
#[derive(Debug)]
pub struct SharedPrefilter {
    automaton: AhoCorasick,
    /// The filters that each text is of, by index.
    owners: Vec<Vec<usize>>,
    /// Filters that have to see every line.
    unfiltered: Vec<bool>,
}

/// Where in some lines those begin that one filter has to look at, in bytes, ascending.
pub type Starts = Vec<u32>;

impl SharedPrefilter {
    /// Compiles the texts of `filters`; `None` if none of them has any, or they are too many.
    pub fn new<'f>(filters: impl IntoIterator<Item = &'f Filter>) -> Option<SharedPrefilter> {
        let mut texts: Vec<(Vec<u8>, Vec<usize>)> = Vec::new();
        let mut unfiltered = Vec::new();
        for (index, filter) in filters.into_iter().enumerate() {
            let prefilter = filter.prefilter.as_ref();
            unfiltered.push(prefilter.is_none());
            for text in prefilter.into_iter().flat_map(|prefilter| prefilter.texts()) {
                texts.push((text.to_ascii_lowercase(), vec![index]));
            }
        }
        texts.sort();
        texts.dedup_by(|next, known| {
            let same = next.0 == known.0;
            if same && known.1.last() != next.1.last() {
                known.1.append(&mut next.1);
            }
            same
        });
        if texts.is_empty() {
            return None;
        }
        let automaton = AhoCorasickBuilder::new()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::DFA))
            .match_kind(MatchKind::Standard)
            .build(texts.iter().map(|(text, _)| text))
            .ok()?;
        let owners = texts.into_iter().map(|(_, owners)| owners).collect();
        Some(SharedPrefilter { automaton, owners, unfiltered })
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
        for hit in self.automaton.find_overlapping_iter(lines) {
            if hit.end() > end {
                let before = lines.get(..hit.start()).unwrap_or_default();
                let begin = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
                let after = lines.get(hit.end()..).unwrap_or_default();
                start = u32::try_from(begin).unwrap_or(u32::MAX);
                end = memchr::memchr(b'\n', after).map_or(lines.len(), |at| hit.end() + at);
            }
            for owner in self.owners.get(hit.pattern().as_usize()).into_iter().flatten() {
                if let Some(Some(starts)) = found.get_mut(*owner)
                    && starts.last() != Some(&start)
                {
                    starts.push(start);
                }
            }
        }
        found
    }
}
