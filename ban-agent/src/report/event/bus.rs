//! Hands events to all listeners. Publishing costs the same however many listen and however
//! slow they are: who falls behind loses the oldest events, and learns how many.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};

use super::{Event, Geo, Observer, Wanted};

/// Parts that a listener may be behind.
const BACKLOG: usize = 4096;
/// Events in a part: with the backlog, what bounds the memory of a listener that is stuck.
const PART: usize = 64;

/// Where events are published. Clones are the same bus.
#[derive(Clone, Debug)]
pub struct Bus(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    observer: Observer,
    state: Mutex<State>,
    tallies: Mutex<Vec<(&'static str, Tally)>>,
    /// Who wants every failure.
    failures: AtomicU64,
    /// Who wants dropped packets.
    drops: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    /// Number of the next event.
    next: u64,
    /// `None` once the bus is closed.
    parts: Option<broadcast::Sender<Part>>,
}

/// Some events, in order.
#[derive(Clone, Debug)]
pub struct Part {
    /// Number of the first one since the agent started, from 0.
    pub first: u64,
    /// The events.
    pub events: Arc<[Event]>,
}

/// Counts the events that one kind of listener did not get.
#[derive(Clone, Debug, Default)]
struct Tally(Arc<AtomicU64>);

impl Default for Bus {
    fn default() -> Bus {
        Bus::new(Observer::here(Geo::default()))
    }
}

impl Bus {
    /// Returns a bus of what `observer` sees.
    #[must_use]
    pub fn new(observer: Observer) -> Bus {
        let (parts, _) = broadcast::channel(BACKLOG);
        let state = Mutex::new(State { next: 0, parts: Some(parts) });
        let (drops, _) = watch::channel(0);
        let (tallies, failures) = (Mutex::default(), AtomicU64::new(0));
        Bus(Arc::new(Shared { observer, state, tallies, failures, drops }))
    }

    /// Returns who sees what happens.
    #[must_use]
    pub fn observer(&self) -> &Observer {
        &self.0.observer
    }

    /// Hands events to all that listen now.
    pub fn publish(&self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let mut state = lock(&self.0.state);
        let first = state.next;
        state.next += events.len() as u64;
        let Some(parts) = &state.parts else { return };
        if parts.receiver_count() == 0 {
            return;
        }
        for (number, chunk) in (0..).zip(events.chunks(PART)) {
            let first = first + number * PART as u64;
            // no listener is left, and none misses it
            let _ = parts.send(Part { first, events: chunk.into() });
        }
    }

    /// Listens from now on. `kind` names the listener in status and metrics.
    #[must_use]
    pub fn subscribe(&self, kind: &'static str) -> Subscription {
        let lost = self.tally(kind);
        let state = lock(&self.0.state);
        let parts = state.parts.as_ref().map(broadcast::Sender::subscribe);
        Subscription { parts, next: state.next, lost }
    }

    /// Asks for more than bans, until the answer is dropped.
    #[must_use]
    pub fn interest(&self, wanted: Wanted) -> Interest {
        if wanted.failures {
            self.0.failures.fetch_add(1, Ordering::Relaxed);
        }
        if wanted.drops {
            self.0.drops.send_modify(|count| *count += 1);
        }
        Interest { bus: self.clone(), wanted }
    }

    /// Returns whether a listener wants each failure: they are many.
    #[must_use]
    pub fn wants_failures(&self) -> bool {
        self.0.failures.load(Ordering::Relaxed) > 0
    }

    /// Returns how many want dropped packets, now and whenever it changes.
    #[must_use]
    pub fn wants_drops(&self) -> watch::Receiver<u64> {
        self.0.drops.subscribe()
    }

    /// Returns what listeners of this kind did not get.
    fn tally(&self, kind: &'static str) -> Tally {
        let mut tallies = lock(&self.0.tallies);
        if let Some((_, tally)) = tallies.iter().find(|(known, _)| *known == kind) {
            return tally.clone();
        }
        let tally = Tally::default();
        tallies.push((kind, tally.clone()));
        tally
    }

    /// Returns how many events each kind of listener did not get.
    #[must_use]
    pub fn lost(&self) -> Vec<(&'static str, u64)> {
        lock(&self.0.tallies)
            .iter()
            .map(|(kind, tally)| (*kind, tally.0.load(Ordering::Relaxed)))
            .collect()
    }

    /// Returns how many events there were.
    #[must_use]
    pub fn published(&self) -> u64 {
        lock(&self.0.state).next
    }

    /// Ends it: listeners get what is left, and then nothing.
    pub fn close(&self) {
        lock(&self.0.state).parts = None;
    }
}

/// A listener wants more than bans as long as this lives.
#[derive(Debug)]
pub struct Interest {
    bus: Bus,
    wanted: Wanted,
}

impl Drop for Interest {
    fn drop(&mut self) {
        let shared = &self.bus.0;
        if self.wanted.failures {
            shared.failures.fetch_sub(1, Ordering::Relaxed);
        }
        if self.wanted.drops {
            shared.drops.send_modify(|count| *count -= 1);
        }
    }
}

/// One listener.
#[derive(Debug)]
pub struct Subscription {
    parts: Option<broadcast::Receiver<Part>>,
    next: u64,
    lost: Tally,
}

impl Subscription {
    /// Returns the next events, and how many were lost before them; `None`: the bus is closed.
    pub async fn next(&mut self) -> Option<(u64, Part)> {
        loop {
            match self.parts.as_mut()?.recv().await {
                Ok(part) => return Some(self.take(part)),
                // the number of the next part tells how many events these were
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// As [`Subscription::next`], for a thread.
    pub fn wait(&mut self) -> Option<(u64, Part)> {
        loop {
            match self.parts.as_mut()?.blocking_recv() {
                Ok(part) => return Some(self.take(part)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Counts events that could not be passed on.
    pub fn lose(&self, count: u64) {
        self.lost.0.fetch_add(count, Ordering::Relaxed);
    }

    fn take(&mut self, part: Part) -> (u64, Part) {
        let lost = part.first.saturating_sub(self.next);
        self.next = part.first + part.events.len() as u64;
        self.lose(lost);
        (lost, part)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // whole after every statement, so a panic elsewhere spoils nothing
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;

    fn events(count: usize) -> Vec<Event> {
        vec![Event::now(What::Resumed { jail: "sshd".into() }); count]
    }

    #[tokio::test]
    async fn a_slow_listener_loses_events_with_their_number_and_holds_nobody_up() {
        let bus = Bus::default();
        bus.publish(events(7));
        let (mut slow, mut quick) = (bus.subscribe("slow"), bus.subscribe("quick"));
        let (mut published, mut heard) = (0, 0);
        for _ in 0..BACKLOG {
            published += 100;
            bus.publish(events(100));
            for _ in 0..2 {
                let (lost, part) = quick.next().await.unwrap();
                assert_eq!((lost, part.first), (0, 7 + heard));
                heard += part.events.len() as u64;
            }
        }
        assert_eq!(heard, published);
        bus.close();
        bus.publish(events(1));
        let (mut lost, mut got) = (0, 0);
        while let Some((missing, part)) = slow.next().await {
            lost += missing;
            got += part.events.len() as u64;
        }
        assert_eq!(got + lost, published, "each event was heard or counted");
        assert!(lost > 0 && got >= BACKLOG as u64, "{lost} lost, {got} heard");
        assert_eq!(bus.lost(), [("slow", lost), ("quick", 0)]);
        assert!(quick.next().await.is_none());
        assert!(bus.subscribe("late").next().await.is_none());
    }

    #[test]
    fn events_are_numbered_also_while_nobody_listens() {
        let bus = Bus::default();
        bus.publish(events(65));
        assert_eq!(bus.published(), 65);
        let mut late = bus.subscribe("late");
        bus.publish(events(1));
        let (lost, part) = late.wait().unwrap();
        assert_eq!((lost, part.first), (0, 65), "what was before is not lost to it");
    }
}
