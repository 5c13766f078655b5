//! Reports what happened once the store has it, in order: nobody hears of a ban that a crash
//! could lose.

use std::sync::Arc;

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

/// An answer that waits for the store.
pub(super) type Receipt = (oneshot::Sender<Reply>, Reply);

/// What was decided together.
pub(super) struct Deed {
    /// The store has it.
    pub(super) durable: oneshot::Receiver<()>,
    /// For everybody.
    pub(super) events: Vec<Event>,
    /// For the actions of the jails.
    pub(super) orders: Vec<Order>,
    /// For whom asked for it.
    pub(super) receipt: Option<Receipt>,
}

/// The reporting task.
pub(super) struct Notary {
    deeds: mpsc::UnboundedSender<Deed>,
    task: JoinHandle<()>,
}

impl Notary {
    /// Reports over `bus`; `trouble` hears of what the store could not keep.
    pub(super) fn start(bus: Bus, trouble: Arc<Notify>, patience: Patience) -> Notary {
        let (deeds, mut queue) = mpsc::unbounded_channel::<Deed>();
        let reporter = Reporter::new(bus);
        let task = tokio::spawn(async move {
            while let Some(Deed { durable, events, orders, receipt }) = queue.recv().await {
                // if not, the store is degraded: the kernel has it all the same
                let durable = patience.durable(durable).await;
                if !durable {
                    trouble.notify_one();
                }
                reporter.report(events);
                orders.into_iter().for_each(Order::give);
                if let Some((sender, mut reply)) = receipt {
                    if let (false, Reply::Done(Document::Changes(changes))) = (durable, &mut reply)
                    {
                        changes.warning = Some(NOT_DURABLE.into());
                    }
                    // the asker may have gone
                    let _ = sender.send(reply);
                }
            }
        });
        Notary { deeds, task }
    }

    /// Reports once the store has it.
    pub(super) fn report(&self, deed: Deed) {
        if self.deeds.send(deed).is_err() {
            log::error!("the reporting task is gone");
        }
    }

    /// Reports what is left.
    pub(super) async fn finish(self) {
        drop(self.deeds);
        if let Err(error) = self.task.await {
            log::error!("the reporting task failed: {error}");
        }
    }
}
