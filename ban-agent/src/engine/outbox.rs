//! Reports what happened once the store has it, in order: no listener hears of a ban that a crash
//! could lose.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    action::Order,
    control::{Document, Reply},
    event::{Bus, Event, Reporter},
    store::Patience,
};

const NOT_DURABLE: &str =
    "in force, but not on disk: the store is degraded, and a reboot would undo it";

/// Events that may wait for the disk. Beyond it nothing waits for it any more: what has happened is
/// told although a reboot could undo it.
const WAITING: usize = 100_000;

/// An answer that waits for the store.
pub(super) type PendingReply = (oneshot::Sender<Reply>, Reply);

/// What was decided together.
pub(super) struct Entry {
    /// The store has it.
    pub(super) durable: oneshot::Receiver<()>,
    /// For all listeners.
    pub(super) events: Vec<Event>,
    /// For the actions of the jails.
    pub(super) orders: Vec<Order>,
    /// For whom asked for it.
    pub(super) pending: Option<PendingReply>,
}

impl Entry {
    /// Returns what it takes of [`WAITING`].
    fn weight(&self) -> usize {
        1 + self.events.len() + self.orders.len()
    }
}

/// What waits for the reporting task.
#[derive(Debug, Default)]
struct Crowd {
    waiting: AtomicUsize,
    too_many: Notify,
}

/// The reporting task.
pub(super) struct Outbox {
    /// Never long: see [`WAITING`].
    entries: mpsc::UnboundedSender<Entry>,
    crowd: Arc<Crowd>,
    task: JoinHandle<()>,
}

impl Outbox {
    /// Reports over `bus`; `trouble` hears of what the store could not keep.
    pub(super) fn start(bus: Bus, trouble: Arc<Notify>, patience: Patience) -> Outbox {
        let (entries, mut queue) = mpsc::unbounded_channel::<Entry>();
        let reporter = Reporter::new(bus);
        let crowd = Arc::new(Crowd::default());
        let its = Arc::clone(&crowd);
        let task = tokio::spawn(async move {
            while let Some(entry) = queue.recv().await {
                let weight = entry.weight();
                let Entry { mut durable, events, orders, pending } = entry;
                // if not, the store is degraded: the kernel has it all the same
                let crowded = || its.waiting.load(Ordering::Relaxed) > WAITING;
                let durable = if crowded() {
                    durable.try_recv().is_ok()
                } else {
                    let mut waited = std::pin::pin!(patience.durable(durable));
                    loop {
                        tokio::select! {
                            durable = &mut waited => break durable,
                            () = its.too_many.notified() => if crowded() { break false },
                        }
                    }
                };
                its.waiting.fetch_sub(weight, Ordering::Relaxed);
                if !durable {
                    trouble.notify_one();
                }
                reporter.report(events);
                orders.into_iter().for_each(Order::give);
                if let Some((sender, mut reply)) = pending {
                    if let (false, Reply::Done(Document::Changes(changes))) = (durable, &mut reply)
                    {
                        changes.warning = Some(NOT_DURABLE.into());
                    }
                    // the asker may have gone
                    let _ = sender.send(reply);
                }
            }
        });
        Outbox { entries, crowd, task }
    }

    /// Reports once the store has it.
    pub(super) fn report(&self, entry: Entry) {
        let weight = entry.weight();
        if self.crowd.waiting.fetch_add(weight, Ordering::Relaxed) + weight > WAITING {
            self.crowd.too_many.notify_one();
        }
        if self.entries.send(entry).is_err() {
            log::error!("the reporting task is gone");
        }
    }

    /// Reports what is left.
    pub(super) async fn finish(self) {
        drop(self.entries);
        if let Err(error) = self.task.await {
            log::error!("the reporting task failed: {error}");
        }
    }
}
