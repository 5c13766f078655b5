//! The addresses and ids that a jail counts: at most so many, the one that was quiet longest goes first.
//! Constant time per failure, whoever chooses the addresses.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{count::Count, distinct::Distinct, users::Users};
use crate::net::IpNet;

/// No neighbour in the list.
const NONE: u32 = u32::MAX;

/// What failures are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Who {
    /// An address or a prefix.
    Net(IpNet),
    /// What a filter names so (`<F-ID>`), as the attacker wrote it.
    Id(Arc<str>),
}

impl From<IpNet> for Who {
    fn from(net: IpNet) -> Who {
        Who::Net(net)
    }
}

/// An address that failed, where failures are not counted by address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behind {
    pub(super) address: IpNet,
    /// What is banned of it.
    pub(super) prefix: IpNet,
    /// Its last failure, in milliseconds of log time.
    pub(super) last: i64,
}

/// One who is tracked.
#[derive(Debug)]
pub(super) struct Suspect {
    who: Who,
    /// Its failures.
    pub(super) count: Count,
    /// The values that it tried, for each field that is counted so; none before the first.
    pub(super) distinct: Vec<Distinct>,
    /// How often which user's password was wrong.
    pub(super) users: Users,
    /// Whose failures these are, where they are counted by something else.
    pub(super) behind: Vec<Behind>,
    /// Its last failures' lines, oldest first.
    pub(super) evidence: Vec<Box<[u8]>>,
    quieter: u32,
    louder: u32,
}

/// All suspects, linked from the quietest to the one that failed last.
#[derive(Debug)]
pub(super) struct Suspects {
    index: HashMap<Who, u32>,
    slots: Vec<Suspect>,
    quietest: u32,
    loudest: u32,
    /// Who was counted or forgotten since that was last asked; `None`: nobody asks.
    changed: Option<HashSet<IpNet>>,
}

impl Suspects {
    pub(super) fn new() -> Suspects {
        Suspects {
            index: HashMap::new(),
            slots: Vec::new(),
            quietest: NONE,
            loudest: NONE,
            changed: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn contains(&self, who: &Who) -> bool {
        self.index.contains_key(who)
    }

    /// The suspect `who`, from now on the loudest; a new one starts at `count`.
    pub(super) fn touch(&mut self, who: &Who, count: Count) -> Option<&mut Suspect> {
        self.note(who);
        let at = match self.index.get(who) {
            Some(&at) => {
                self.unlink(at);
                at
            }
            None => {
                let at = u32::try_from(self.slots.len()).ok()?;
                self.index.insert(who.clone(), at);
                self.slots.push(Suspect {
                    who: who.clone(),
                    count,
                    distinct: Vec::new(),
                    users: Users::default(),
                    behind: Vec::new(),
                    evidence: Vec::new(),
                    quieter: NONE,
                    louder: NONE,
                });
                at
            }
        };
        self.link(at);
        self.slot(at)
    }

    /// The one that was quiet longest.
    pub(super) fn quietest(&self) -> Option<(Who, &Count)> {
        let suspect = self.slots.get(usize::try_from(self.quietest).ok()?)?;
        Some((suspect.who.clone(), &suspect.count))
    }

    /// Those inside `prefix`.
    pub(super) fn within(&self, prefix: IpNet) -> Vec<Who> {
        let inside = |who: &&Who| matches!(who, Who::Net(net) if prefix.contains(net));
        self.slots.iter().map(|suspect| &suspect.who).filter(inside).cloned().collect()
    }

    /// The suspect `who`, as quiet as before.
    pub(super) fn get(&mut self, who: &Who) -> Option<&mut Suspect> {
        let at = *self.index.get(who)?;
        self.slot(at)
    }

    /// All of them.
    pub(super) fn each(&mut self) -> impl Iterator<Item = &mut Suspect> {
        self.slots.iter_mut()
    }

    /// Forgets `who`, and returns what was known.
    pub(super) fn remove(&mut self, who: &Who) -> Option<Suspect> {
        let at = self.index.remove(who)?;
        self.note(who);
        self.unlink(at);
        let gone = self.slots.swap_remove(usize::try_from(at).ok()?);
        self.moved_to(at);
        Some(gone)
    }

    /// From now on [`Suspects::take_changes`] is asked.
    pub(super) fn follow(&mut self) {
        self.changed.get_or_insert_default();
    }

    /// Who was counted, and how often by now, or forgotten (`None`) since this was last asked.
    pub(super) fn take_changes(&mut self) -> Vec<(IpNet, Option<Count>)> {
        let changed = self.changed.as_mut().map(std::mem::take).unwrap_or_default();
        changed.into_iter().map(|prefix| (prefix, self.count(prefix))).collect()
    }

    fn count(&self, prefix: IpNet) -> Option<Count> {
        let at = usize::try_from(*self.index.get(&Who::Net(prefix))?).ok()?;
        self.slots.get(at).map(|suspect| suspect.count)
    }

    /// What counts for `who` is to be said again; what counts for an id is kept in memory alone.
    pub(super) fn note(&mut self, who: &Who) {
        if let (Some(changed), Who::Net(prefix)) = (&mut self.changed, who) {
            changed.insert(*prefix);
        }
    }

    /// The last slot was moved to `at`: its neighbours and the index have to follow.
    fn moved_to(&mut self, at: u32) {
        let Some(moved) = self.slot(at) else { return };
        let (who, quieter, louder) = (moved.who.clone(), moved.quieter, moved.louder);
        self.index.insert(who, at);
        self.join(quieter, at);
        self.join(at, louder);
    }

    fn link(&mut self, at: u32) {
        self.join(self.loudest, at);
        self.join(at, NONE);
    }

    fn unlink(&mut self, at: u32) {
        let Some(suspect) = self.slot(at) else { return };
        let (quieter, louder) = (suspect.quieter, suspect.louder);
        self.join(quieter, louder);
    }

    /// Makes two slots neighbours; [`NONE`] stands for the end of the list on its side.
    fn join(&mut self, quieter: u32, louder: u32) {
        match self.slot(quieter) {
            Some(suspect) => suspect.louder = louder,
            None => self.quietest = louder,
        }
        match self.slot(louder) {
            Some(suspect) => suspect.quieter = quieter,
            None => self.loudest = quieter,
        }
    }

    fn slot(&mut self, at: u32) -> Option<&mut Suspect> {
        self.slots.get_mut(usize::try_from(at).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a plain queue: same members, same order of quietness.
        #[test]
        fn keeps_the_order_of_quietness(steps in prop::collection::vec((0u8..12, any::<bool>()), 0..200)) {
            let mut suspects = Suspects::new();
            let mut model: VecDeque<Who> = VecDeque::new();
            for (host, remove) in steps {
                let who = Who::Net(IpNet::from(std::net::IpAddr::from([192, 0, 2, host])));
                model.retain(|other| *other != who);
                if remove {
                    suspects.remove(&who);
                } else {
                    suspects.touch(&who, Count::new(0)).unwrap();
                    model.push_back(who);
                }
                prop_assert_eq!(suspects.len(), model.len());
                prop_assert_eq!(suspects.quietest().map(|(who, _)| who), model.front().cloned());
            }
            while let Some((who, _)) = suspects.quietest() {
                suspects.remove(&who);
                prop_assert_eq!(Some(who), model.pop_front());
            }
            prop_assert!(model.is_empty());
        }
    }
}
