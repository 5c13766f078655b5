//! Whose password an address had wrong, and how often: so much is forgiven when that user comes in.
//! What others' passwords cost stays, so that an account of one's own buys no guesses at theirs.

/// Users of one address that are known; of more, nothing is forgiven.
const KEPT: usize = 32;

/// Failures by user.
#[derive(Clone, Debug, Default)]
pub(super) struct Users {
    /// Hash of the name, and what its failures count.
    known: Vec<(u32, u32)>,
}

impl Users {
    /// A failure of `user` (a hash), which weighs so much.
    pub(super) fn add(&mut self, user: u32, weight: u32) {
        if let Some(known) = self.known.iter_mut().find(|known| known.0 == user) {
            known.1 = known.1.saturating_add(weight);
        } else if self.known.len() < KEPT {
            self.known.push((user, weight));
        }
    }

    /// Returns what the failures of `user` count, from now on nothing.
    pub(super) fn take(&mut self, user: u32) -> u32 {
        let at = self.known.iter().position(|known| known.0 == user);
        at.map_or(0, |at| self.known.swap_remove(at).1)
    }

    /// Nothing that was counted so far can be told apart any more.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }
}
