//! Reports how far the lines of a source were handled, in their order: what comes after lines that
//! still wait for a decision waits with them, so that a crash has them read again.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{jail::Count, net::IpNet, source::Position, store::Counted};

/// All jails have handled the lines of a source up to a position.
#[derive(Debug, Default)]
pub(crate) struct Handled {
    /// How far each log was read; none, if the source cannot go on where it was. `None`: the log is
    /// gone, and nobody goes on with it.
    pub(crate) positions: HashMap<Arc<str>, Option<Position>>,
    /// What the jails count since; `None`: nothing any more.
    pub(crate) counted: HashMap<(Arc<str>, IpNet), Option<Count>>,
}

impl Handled {
    /// What was handled after this.
    pub(crate) fn add(&mut self, later: Handled) {
        self.positions.extend(later.positions);
        self.counted.extend(later.counted);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.positions.is_empty() && self.counted.is_empty()
    }
}

/// Who is told what was handled.
pub(crate) type Told = Arc<dyn Fn(Handled) + Send + Sync>;

/// The batches of one source that are under way.
pub(crate) struct AckQueue {
    told: Told,
    next: u64,
    /// By number: what to report, once it is handled. No two neighbours are: they are made one.
    batches: BTreeMap<u64, Option<Handled>>,
}

impl AckQueue {
    pub(crate) fn new(told: Told) -> Arc<Mutex<AckQueue>> {
        Arc::new(Mutex::new(AckQueue { told, next: 0, batches: BTreeMap::new() }))
    }

    /// A batch begins.
    pub(crate) fn guard(
        order: &Arc<Mutex<AckQueue>>,
        position: Option<(Arc<str>, Option<Position>)>,
    ) -> Arc<AckGuard> {
        let mut this = order.lock().unwrap_or_else(PoisonError::into_inner);
        let number = this.next;
        this.next += 1;
        this.batches.insert(number, None);
        let handled = Handled { positions: position.into_iter().collect(), ..Handled::default() };
        Arc::new(AckGuard { order: Arc::clone(order), number, handled: Mutex::new(handled) })
    }

    fn done(&mut self, number: u64, mut handled: Handled) {
        if let Some((&before, Some(_))) = self.batches.range(..number).next_back()
            && let Some(Some(mut earlier)) = self.batches.remove(&before)
        {
            earlier.add(handled);
            handled = earlier;
        }
        if let Some((&after, Some(_))) = self.batches.range(number + 1..).next()
            && let Some(Some(later)) = self.batches.remove(&after)
        {
            handled.add(later);
        }
        self.batches.insert(number, Some(handled));
        while let Some(first) = self.batches.first_entry()
            && first.get().is_some()
        {
            if let Some(handled) = first.remove().filter(|handled| !handled.is_empty()) {
                (self.told)(handled);
            }
        }
    }
}

/// Lines on their way, and what became of them: a jail holds it while it reads them, an offence takes
/// it along. When the last copy is dropped, they were handled.
pub(crate) struct AckGuard {
    order: Arc<Mutex<AckQueue>>,
    number: u64,
    handled: Mutex<Handled>,
}

impl AckGuard {
    /// Adds what a jail counts after these lines: it is recorded together with the position, so
    /// that after a crash each line has been counted once.
    pub(crate) fn note(&self, counted: Vec<Counted>) {
        let mut handled = self.handled.lock().unwrap_or_else(PoisonError::into_inner);
        handled.counted.extend(counted);
    }
}

impl fmt::Debug for AckGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AckGuard").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Drop for AckGuard {
    fn drop(&mut self) {
        // A jail that panicked has not handled its lines: they, and what follows them, are read
        // again after a restart.
        if std::thread::panicking() {
            return;
        }
        let handled = self.handled.get_mut().unwrap_or_else(PoisonError::into_inner);
        let handled = std::mem::take(handled);
        self.order.lock().unwrap_or_else(PoisonError::into_inner).done(self.number, handled);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn told() -> (Told, mpsc::Receiver<Handled>) {
        let (sender, told) = mpsc::channel();
        (Arc::new(move |handled| sender.send(handled).unwrap()), told)
    }

    fn begin(order: &Arc<Mutex<AckQueue>>, origin: &str, offset: u64) -> Arc<AckGuard> {
        let position = Position::File {
            files: vec![crate::source::Checkpoint {
                dev: 0,
                ino: 0,
                offset,
                head: 0,
                head_len: 0,
                last: 0,
                last_len: 0,
                copy: false,
                rotated: false,
            }],
        };
        AckQueue::guard(order, Some((origin.into(), Some(position))))
    }

    /// Returns what was reported: the offset by origin.
    fn reported(acks: &mpsc::Receiver<Handled>) -> Vec<Vec<(String, u64)>> {
        std::iter::from_fn(|| acks.try_recv().ok())
            .map(|handled| {
                let offset = |position: &Option<Position>| match position {
                    Some(Position::File { files }) => files[0].offset,
                    _ => 0,
                };
                let all = handled.positions.iter();
                all.map(|(origin, position)| (origin.to_string(), offset(position))).collect()
            })
            .collect()
    }

    #[test]
    fn later_lines_wait_for_earlier_ones() {
        let (acks, told) = told();
        let order = AckQueue::new(acks);
        let guards = [("a", 1), ("a", 2), ("b", 7), ("a", 3), ("a", 4)]
            .map(|(origin, offset)| begin(&order, origin, offset));
        let [one, two, three, four, five] = guards;
        drop(one);
        assert_eq!(reported(&told), [[("a".to_owned(), 1)]]);
        let prefix = "192.0.2.1/32".parse().unwrap();
        let count = |failures| Some(Count { failures, first: 0, last: 0 });
        for (guard, failures) in [(&four, 2), (&three, 1), (&five, 3)] {
            guard.note(vec![(("sshd".into(), prefix), count(failures))]);
        }
        for guard in [four, three, five] {
            drop(guard);
        }
        assert!(reported(&told).is_empty());
        assert_eq!(order.lock().unwrap().batches.len(), 2, "kept as one");
        drop(two);
        let both = |handled: Handled| {
            assert_eq!(handled.counted.values().collect::<Vec<_>>(), [&count(3)]);
            handled.positions.len()
        };
        assert_eq!(both(told.try_recv().unwrap()), 2);
        assert!(order.lock().unwrap().batches.is_empty() && told.try_recv().is_err());
    }

    /// It comes back at once: its new position stays, in whatever order the jails are done.
    #[test]
    fn a_log_is_forgotten_when_what_came_before_was_handled() {
        for turns in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]] {
            let (acks, told) = told();
            let order = AckQueue::new(acks);
            let gone = |order| AckQueue::guard(order, Some(("a".into(), None)));
            let mut guards = [begin(&order, "a", 1), gone(&order), begin(&order, "a", 2)].map(Some);
            let mut known: HashMap<Arc<str>, Option<Position>> = HashMap::new();
            for turn in turns {
                guards[turn] = None;
                while let Ok(handled) = told.try_recv() {
                    known.extend(handled.positions);
                }
            }
            let Some(Some(Position::File { files })) = known.get("a") else { panic!("{known:?}") };
            assert_eq!(files[0].offset, 2, "{turns:?}");
        }
    }

    #[test]
    fn what_a_panic_drops_was_not_handled() {
        let (acks, told) = told();
        let order = AckQueue::new(acks);
        let (one, two) = (begin(&order, "a", 1), begin(&order, "a", 2));
        let jail = std::thread::spawn(move || {
            let _lines = one;
            panic!("a jail's fault, on purpose");
        });
        assert!(jail.join().is_err());
        drop(two);
        assert!(reported(&told).is_empty());
    }

    #[test]
    fn nothing_is_reported_that_says_nothing() {
        let (acks, told) = told();
        let order = AckQueue::new(acks);
        drop(AckQueue::guard(&order, None));
        assert!(told.try_recv().is_err());
    }
}
