//! A map of prefixes that answers which of them cover an address and which lie inside another.
//! Knows nothing of what it keeps.

use std::{collections::BTreeMap, ops::Bound};

use super::IpNet;

/// Values by prefix. Host bits of keys must be clear.
#[derive(Clone, Debug)]
pub struct PrefixMap<V> {
    entries: BTreeMap<IpNet, V>,
    /// How many prefixes of each length there are, IPv4 first: lengths without any are skipped.
    lengths: [Box<[u32]>; 2],
    /// How many there are of IPv4; the rest is IPv6.
    v4: usize,
}

impl<V> Default for PrefixMap<V> {
    fn default() -> Self {
        PrefixMap {
            entries: BTreeMap::new(),
            lengths: [vec![0; 33].into_boxed_slice(), vec![0; 129].into_boxed_slice()],
            v4: 0,
        }
    }
}

impl<V> PrefixMap<V> {
    /// Returns how many prefixes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns how many prefixes of IPv4, and of IPv6, there are.
    #[must_use]
    pub fn families(&self) -> [usize; 2] {
        [self.v4, self.len() - self.v4]
    }

    /// Returns how many prefixes of the family of `like` there are.
    #[must_use]
    pub fn len_of_family(&self, like: IpNet) -> usize {
        if matches!(like, IpNet::V4(_)) { self.v4 } else { self.len() - self.v4 }
    }

    /// Returns the value of exactly this prefix.
    #[must_use]
    pub fn get(&self, prefix: IpNet) -> Option<&V> {
        self.entries.get(&prefix)
    }

    /// Returns the value of exactly this prefix, to be changed.
    pub fn get_mut(&mut self, prefix: IpNet) -> Option<&mut V> {
        self.entries.get_mut(&prefix)
    }

    /// Puts a value, and returns the one that was there.
    pub fn insert(&mut self, prefix: IpNet, value: V) -> Option<V> {
        let old = self.entries.insert(prefix, value);
        if old.is_none() {
            self.count(prefix, u32::wrapping_add);
            self.v4 += usize::from(matches!(prefix, IpNet::V4(_)));
        }
        old
    }

    /// Takes a value out.
    pub fn remove(&mut self, prefix: IpNet) -> Option<V> {
        let old = self.entries.remove(&prefix);
        if old.is_some() {
            self.count(prefix, u32::wrapping_sub);
            self.v4 -= usize::from(matches!(prefix, IpNet::V4(_)));
        }
        old
    }

    /// Returns all of them: IPv4 before IPv6, by address, the wider before the narrower.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (IpNet, &V)> {
        self.entries.iter().map(|(&prefix, value)| (prefix, value))
    }

    /// Returns those behind `last` in the order of [`PrefixMap::iter`]; all, if it is `None`.
    pub fn after(&self, last: Option<IpNet>) -> impl Iterator<Item = (IpNet, &V)> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries.range((from, Bound::Unbounded)).map(|(&prefix, value)| (prefix, value))
    }

    /// Returns those that cover all of `prefix`, itself included, the widest first.
    pub fn covering(&self, prefix: IpNet) -> impl Iterator<Item = (IpNet, &V)> {
        let lengths = self.lengths_of(prefix).iter().zip(0u8..);
        lengths.take_while(move |(_, length)| *length <= prefix.prefix_len()).filter_map(
            move |(&count, length)| {
                if count == 0 {
                    return None;
                }
                let wider = IpNet::new(prefix.addr(), length).ok()?.trunc();
                self.entries.get(&wider).map(|value| (wider, value))
            },
        )
    }

    /// Returns those that lie inside `prefix`, itself included.
    pub fn within(&self, prefix: IpNet) -> impl Iterator<Item = (IpNet, &V)> {
        self.within_after(prefix, None)
    }

    /// Returns those of them behind `after`, in the order of [`PrefixMap::iter`].
    pub fn within_after(
        &self,
        prefix: IpNet,
        after: Option<IpNet>,
    ) -> impl Iterator<Item = (IpNet, &V)> {
        let first = after.map_or(Bound::Included(prefix.trunc()), Bound::Excluded);
        let last = Bound::Included(IpNet::from(prefix.broadcast()));
        self.entries.range((first, last)).map(|(&prefix, value)| (prefix, value))
    }

    fn lengths_of(&self, like: IpNet) -> &[u32] {
        let [v4, v6] = &self.lengths;
        if matches!(like, IpNet::V4(_)) { v4 } else { v6 }
    }

    fn count(&mut self, prefix: IpNet, step: fn(u32, u32) -> u32) {
        let [v4, v6] = &mut self.lengths;
        let lengths = if matches!(prefix, IpNet::V4(_)) { v4 } else { v6 };
        if let Some(count) = lengths.get_mut(usize::from(prefix.prefix_len())) {
            *count = step(*count, 1);
        }
    }
}

/// A set of prefixes, for allow lists.
#[derive(Clone, Debug, Default)]
pub struct PrefixSet(PrefixMap<()>);

impl PrefixSet {
    /// Returns the member that covers all of `prefix`, the widest if several do.
    #[must_use]
    pub fn cover(&self, prefix: IpNet) -> Option<IpNet> {
        self.0.covering(prefix).next().map(|(member, ())| member)
    }

    /// Returns a member that has an address in common with `prefix`.
    #[must_use]
    pub fn overlap(&self, prefix: IpNet) -> Option<IpNet> {
        self.cover(prefix).or_else(|| self.0.within(prefix).next().map(|(member, ())| member))
    }

    /// Returns the members.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> {
        self.0.iter().map(|(prefix, ())| prefix)
    }
}

impl FromIterator<IpNet> for PrefixSet {
    fn from_iter<T: IntoIterator<Item = IpNet>>(prefixes: T) -> Self {
        let mut map = PrefixMap::default();
        for prefix in prefixes {
            map.insert(prefix.trunc(), ());
        }
        PrefixSet(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::parse_prefix;

    fn set(prefixes: &[&str]) -> PrefixSet {
        prefixes.iter().map(|text| parse_prefix(text).unwrap()).collect()
    }

    #[test]
    fn covers_and_overlaps() {
        let allowed = set(&["10.0.0.0/8", "192.0.2.1", "2001:db8:1::/48", "::1"]);
        for (text, cover, overlap) in [
            ("10.1.2.3", Some("10.0.0.0/8"), Some("10.0.0.0/8")),
            ("10.0.0.0/8", Some("10.0.0.0/8"), Some("10.0.0.0/8")),
            ("8.0.0.0/6", None, Some("10.0.0.0/8")),
            ("192.0.2.0/24", None, Some("192.0.2.1/32")),
            ("192.0.3.0/24", None, None),
            ("0.0.0.0/0", None, Some("10.0.0.0/8")),
            ("2001:db8:1:2::/64", Some("2001:db8:1::/48"), Some("2001:db8:1::/48")),
            ("2001:db8::/32", None, Some("2001:db8:1::/48")),
            ("::/0", None, Some("::1/128")),
            ("fe80::/64", None, None),
        ] {
            let prefix = parse_prefix(text).unwrap();
            let show = |found: Option<IpNet>| found.map(|net| net.to_string());
            assert_eq!(show(allowed.cover(prefix)).as_deref(), cover, "{text}");
            assert_eq!(show(allowed.overlap(prefix)).as_deref(), overlap, "{text}");
        }
    }

    #[test]
    fn removed_prefixes_cover_nothing() {
        let mut map = PrefixMap::default();
        let wide = parse_prefix("10.0.0.0/8").unwrap();
        let narrow = parse_prefix("10.0.0.0/32").unwrap();
        map.insert(wide, 1);
        map.insert(narrow, 2);
        map.insert(narrow, 3);
        assert_eq!(map.covering(narrow).map(|(_, v)| *v).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(map.within(narrow).map(|(_, v)| *v).collect::<Vec<_>>(), [3]);
        assert_eq!((map.remove(wide), map.remove(wide)), (Some(1), None));
        assert_eq!(map.covering(narrow).map(|(_, v)| *v).collect::<Vec<_>>(), [3]);
        assert_eq!((map.len(), map.len_of_family(wide)), (1, 1));
    }
}
