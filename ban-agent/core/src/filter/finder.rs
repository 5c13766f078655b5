//! Finds many texts in one pass over some bytes, at a price that hardly depends on how many they are:
//! of each text the four bytes that are thought to be the rarest, and that few others have, are looked
//! for, by a table of bits that fits into the processor's first cache; what meets one of them is
//! compared. (The idea is that of Rabin and Karp, with a Bloom filter of one hash.) ASCII case is
//! regarded when it compares.

use std::ops::{ControlFlow, Range};

/// Bits of a hash; the table has one bit for each, 32 KiB.
const BITS: u32 = 18;
/// Words of the table.
const WORDS: usize = 1 << (BITS - 6);
/// Places of the table that share a list of texts, as a power of two.
const SHARE: u32 = 4;
/// Sets the bit that tells lower case from upper.
const LOWER: u32 = 0x2020_2020;
/// Knuth's multiplicative hash: 2³² divided by the golden ratio.
const GOLDEN: u32 = 0x9e37_79b9;

/// What it weighs, in the measure of [`commonness`], that twice as many texts have a gram.
const DOUBLED: u32 = 8;

/// The letters of English, those that are met most often first.
const LETTERS: &[u8] = b"etaoinsrhldcumfpgwybvkxjqz";

/// Texts to look for.
#[derive(Debug)]
pub(super) struct Finder {
    long: Grams,
    /// Those of two or three bytes.
    short: Option<Grams>,
    texts: Vec<(Box<[u8]>, bool)>,
}

/// A text that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    /// Where.
    pub span: Range<usize>,
    /// Which, by its place in what the finder was made of.
    pub text: usize,
}

impl Finder {
    /// Returns a finder of `texts` of two bytes or more; each with whether ASCII case is
    /// disregarded.
    pub(super) fn new<'t>(texts: impl IntoIterator<Item = (&'t [u8], bool)>) -> Finder {
        let texts: Vec<(Box<[u8]>, bool)> =
            texts.into_iter().map(|(text, fold)| (text.into(), fold)).collect();
        // grams that many texts share lead to many comparisons
        let mut all: Vec<u32> =
            texts.iter().flat_map(|(text, _)| text.windows(4).map(load)).collect();
        all.sort_unstable();
        let shared = |gram: u32| {
            let from = all.partition_point(|other| *other < gram);
            let rest = all.get(from..).unwrap_or_default();
            rest.partition_point(|other| *other == gram).max(1).ilog2() * DOUBLED
        };
        let (mut long, mut short) = (Vec::new(), Vec::new());
        for (number, (text, _)) in (0_u32..).zip(&texts) {
            if text.len() < 4 {
                short.push(Entry { gram: load(text) & SHORT, at: 0, text: number });
            } else {
                let grams = (0_u32..).zip(text.windows(4));
                let rarest =
                    grams.min_by_key(|(_, window)| commonness(window) + shared(load(window)));
                let (at, window) = rarest.unwrap_or((0, text));
                long.push(Entry { gram: load(window), at, text: number });
            }
        }
        let short = (!short.is_empty()).then(|| Grams::new(short));
        Finder { long: Grams::new(long), short, texts }
    }

    /// Shows what is found in `bytes` from `from` on, until told to stop. Of two texts in different
    /// lines the earlier one comes first, if no text holds a newline within it.
    pub(super) fn each(
        &self,
        bytes: &[u8],
        from: usize,
        visit: &mut impl FnMut(Hit) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let rest = bytes.get(from..).unwrap_or_default();
        let long = &self.long;
        let Some(short) = &self.short else {
            for (at, window) in rest.windows(4).enumerate() {
                let gram = load(window);
                if long.may_hold(gram) {
                    self.compare(long, gram, bytes, from + at, from, visit)?;
                }
            }
            return ControlFlow::Continue(());
        };
        for (at, window) in rest.windows(4).enumerate() {
            let gram = load(window);
            let (one, other) = (long.may_hold(gram), short.may_hold(gram & SHORT));
            if one | other {
                self.compare(long, gram, bytes, from + at, from, visit)?;
                self.compare(short, gram & SHORT, bytes, from + at, from, visit)?;
            }
        }
        // what is shorter than a window
        for at in bytes.len().saturating_sub(3).max(from)..bytes.len() {
            let gram = load(bytes.get(at..).unwrap_or_default());
            self.compare(short, gram & SHORT, bytes, at, from, visit)?;
        }
        ControlFlow::Continue(())
    }

    #[inline(never)]
    fn compare(
        &self,
        grams: &Grams,
        gram: u32,
        bytes: &[u8],
        at: usize,
        from: usize,
        visit: &mut impl FnMut(Hit) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for entry in grams.of(gram) {
            let number = usize::try_from(entry.text).unwrap_or(usize::MAX);
            let before = usize::try_from(entry.at).unwrap_or(usize::MAX);
            let Some((text, fold)) = self.texts.get(number) else { continue };
            let Some(start) = at.checked_sub(before).filter(|start| *start >= from) else {
                continue;
            };
            let span = start..start + text.len();
            let Some(found) = bytes.get(span.clone()) else { continue };
            let same = if *fold { found.eq_ignore_ascii_case(text) } else { *found == **text };
            if same {
                visit(Hit { span, text: number })?;
            }
        }
        ControlFlow::Continue(())
    }
}

/// The part of a gram that a text of two bytes fills.
const SHORT: u32 = 0xffff;

/// Four bytes in lower case; zeros for those that are missing.
#[inline]
fn load(bytes: &[u8]) -> u32 {
    let gram = match <[u8; 4]>::try_from(bytes) {
        Ok(four) => u32::from_le_bytes(four),
        Err(_) => bytes.iter().take(4).rev().fold(0, |gram, byte| gram << 8 | u32::from(*byte)),
    };
    gram | LOWER
}

/// Returns how often four bytes are thought to stand in a line.
fn commonness(window: &[u8]) -> u32 {
    let each = window.iter().map(|byte| match byte.to_ascii_lowercase() {
        b' ' => 26,
        b'0'..=b'9' => 14,
        letter if letter.is_ascii_lowercase() => {
            let rank = LETTERS.iter().position(|known| *known == letter).unwrap_or(LETTERS.len());
            26_u32.saturating_sub(u32::try_from(rank).unwrap_or(26))
        }
        _ => 12,
    });
    each.sum()
}

/// Where a gram leads to.
#[derive(Clone, Copy, Debug)]
struct Entry {
    gram: u32,
    /// Where it stands in the text.
    at: u32,
    text: u32,
}

/// Grams by hash.
#[derive(Debug)]
struct Grams {
    maybe: Box<[u64; WORDS]>,
    /// By the high bits of the hash: where in `entries` those begin that have them; and the end.
    heads: Box<[u32]>,
    entries: Box<[Entry]>,
}

impl Grams {
    fn new(mut entries: Vec<Entry>) -> Grams {
        entries.sort_by_key(|entry| (place(entry.gram), entry.gram, entry.text));
        let mut maybe = Box::new([0; WORDS]);
        let mut heads = vec![0_u32; (1 << (BITS - SHARE)) + 1];
        for entry in &entries {
            let place = place(entry.gram);
            if let Some(word) = maybe.get_mut(place >> 6) {
                *word |= 1_u64 << (place & 63);
            }
            if let Some(next) = heads.get_mut((place >> SHARE) + 1) {
                *next += 1;
            }
        }
        let mut sum = 0;
        for head in &mut heads {
            sum += *head;
            *head = sum;
        }
        Grams { maybe, heads: heads.into(), entries: entries.into() }
    }

    /// False: no text has it. True: perhaps one has.
    #[inline]
    fn may_hold(&self, gram: u32) -> bool {
        let place = place(gram);
        self.maybe.get(place >> 6).is_some_and(|word| word >> (place & 63) & 1 != 0)
    }

    /// Returns the texts that have it.
    fn of(&self, gram: u32) -> impl Iterator<Item = &Entry> {
        let list = place(gram) >> SHARE;
        let head = |at: usize| {
            self.heads.get(at).and_then(|head| usize::try_from(*head).ok()).unwrap_or_default()
        };
        let entries = self.entries.get(head(list)..head(list + 1)).unwrap_or_default();
        entries.iter().filter(move |entry| entry.gram == gram)
    }
}

/// Returns the place of a gram in the table of bits.
#[inline]
fn place(gram: u32) -> usize {
    usize::try_from(gram.wrapping_mul(GOLDEN) >> (u32::BITS - BITS)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against plain comparison at every place.
        #[test]
        fn every_text_is_found(
            texts in prop::collection::vec(("[ab:A ]{2,6}", any::<bool>()), 1..40),
            line in "[abAB: ]{0,30}",
            from in 0_usize..6,
        ) {
            let fold = |text: &str, fold| if fold { text.to_ascii_lowercase() } else { text.to_owned() };
            let texts: Vec<_> = texts.iter().map(|(text, any)| (fold(text, *any), *any)).collect();
            let finder = Finder::new(texts.iter().map(|(text, fold)| (text.as_bytes(), *fold)));
            let mut found = Vec::new();
            let _ = finder.each(line.as_bytes(), from, &mut |hit| {
                found.push((hit.span.start, hit.span.end, hit.text));
                ControlFlow::Continue(())
            });
            found.sort_unstable();
            let mut expected = Vec::new();
            for start in from..line.len() {
                for (number, (text, any)) in texts.iter().enumerate() {
                    if fold(&line[start..], *any).starts_with(text.as_str()) {
                        expected.push((start, start + text.len(), number));
                    }
                }
            }
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn ten_thousand_texts_are_told_apart() {
        let texts: Vec<String> =
            (0..10_000).map(|number| format!("/jquery-{number}.php")).collect();
        let finder = Finder::new(texts.iter().map(|text| (text.as_bytes(), false)));
        // no text that all of them hold has a line compared with all of them
        let most = finder.long.entries.chunk_by(|a, b| a.gram == b.gram).map(<[Entry]>::len).max();
        assert!(most.is_some_and(|most| most <= 100), "{most:?} share a gram");
        for (number, text) in texts.iter().enumerate() {
            let mut found = Vec::new();
            let _ = finder.each(text.as_bytes(), 0, &mut |hit| {
                found.push(hit.text);
                ControlFlow::Continue(())
            });
            assert_eq!(found, [number]);
        }
    }
}
