//! How many connections there may be at once, by user: a user who may only look can neither use up
//! the descriptors that logs need, nor the places of those who may change something. It knows
//! numbers, and nothing of what is asked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Connections of each rank, on a machine that grants enough descriptors.
const PLACES: usize = 64;
/// Of the descriptors that the process may open, each rank takes no more than this part: the other
/// five eighths are for logs, maps and everything else.
const SHARE: usize = 8;

/// What a user may do. Each rank has places of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// Looks.
    Reader,
    /// Changes, too.
    Operator,
    /// User 0.
    Root,
}

/// Counts who is connected.
#[derive(Debug)]
pub(super) struct Limits {
    /// Connections of one rank.
    places: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    ranks: [usize; 3],
    /// Without entries that are 0.
    users: HashMap<u32, usize>,
}

/// One connection's place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    limits: Arc<Limits>,
    rank: Rank,
    user: u32,
}

impl Limits {
    /// As many as the process's limit of open files allows.
    pub(super) fn of_this_process() -> Arc<Limits> {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
        Limits::new((files / SHARE).clamp(4, PLACES))
    }

    fn new(places: usize) -> Arc<Limits> {
        Arc::new(Limits { places, taken: Mutex::default() })
    }

    /// Returns a place for one more connection of this user, if there is one. A user other than
    /// root takes no more than a quarter of his rank's.
    pub(super) fn enter(self: &Arc<Self>, user: u32, rank: Rank) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.users.get(&user).copied().unwrap_or_default();
        let full = taken.ranks.get(rank as usize).is_none_or(|count| *count >= self.places);
        if full || (rank != Rank::Root && own >= self.places / 4) {
            return None;
        }
        if let Some(count) = taken.ranks.get_mut(rank as usize) {
            *count += 1;
        }
        taken.users.insert(user, own + 1);
        Some(Place { limits: Arc::clone(self), rank, user })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.limits.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.ranks.get_mut(self.rank as usize) {
            *count = count.saturating_sub(1);
        }
        if let Some(own) = taken.users.get_mut(&self.user) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.users.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_part_a_rank_has_its_own_and_places_come_back() {
        let limits = Limits::new(8);
        let enter = |user, rank| limits.enter(user, rank);
        let mine: Vec<Place> = (0..2).map(|_| enter(1000, Rank::Reader).unwrap()).collect();
        assert!(enter(1000, Rank::Reader).is_none(), "more than a quarter for one user");
        let others: Vec<Place> =
            (0..6).map(|number| enter(2000 + number, Rank::Reader).unwrap()).collect();
        assert!(enter(3000, Rank::Reader).is_none(), "more than there are for readers");
        let operator = enter(3000, Rank::Operator).unwrap();
        let roots: Vec<Place> = (0..8).map(|_| enter(0, Rank::Root).unwrap()).collect();
        assert!(enter(0, Rank::Root).is_none());
        drop(mine);
        assert!(enter(1000, Rank::Reader).is_some());
        drop((others, operator, roots));
        let taken = limits.taken.lock().unwrap();
        assert_eq!((taken.ranks, taken.users.len()), ([0; 3], 0));
    }
}
