//! Events that wait for the next message: at most so many in full, the others by number.

use crate::event::Event;

/// Events in one message.
const LIMIT: usize = 500;

/// What waits.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Gathered {
    /// With their numbers.
    pub(super) events: Vec<(u64, Event)>,
    /// Events beyond the limit.
    pub(super) more: u64,
}

impl Gathered {
    pub(super) fn add(&mut self, number: u64, event: &Event) {
        if self.events.len() < LIMIT {
            self.events.push((number, event.clone()));
        } else {
            self.more += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Returns how many events there are.
    pub(super) fn count(&self) -> u64 {
        self.events.len() as u64 + self.more
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;

    #[test]
    fn a_flood_is_counted_and_not_kept() {
        let mut gathered = Gathered::default();
        assert!(gathered.is_empty());
        for number in 0..100_000 {
            gathered.add(number, &Event::now(What::Resumed { jail: "sshd".into() }));
        }
        assert_eq!((gathered.events.len(), gathered.count()), (LIMIT, 100_000));
    }
}
