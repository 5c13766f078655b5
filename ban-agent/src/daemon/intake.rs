//! Runs each distinct source once and hands its lines to every jail that reads it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    message::Handled,
    order::{Order, Receipt},
};
use crate::source::{self, Batch, Looked, Position};

/// Batches that may wait between two stages: enough to keep both busy, and little memory.
const QUEUE: usize = 4;

/// Lines on their way to one jail. When the last jail drops its copy, the position is reported.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) batch: Batch,
    pub(super) receipt: Arc<Receipt>,
}

/// The jails that read one source.
type Readers = Arc<Mutex<Vec<mpsc::Sender<Delivery>>>>;

/// One running source; it ends when this is dropped, and loses nothing: what no jail handled is
/// read again from the last position.
#[derive(Debug)]
pub(super) struct Intake {
    readers: Readers,
    tasks: Vec<JoinHandle<()>>,
}

impl Intake {
    /// Starts reading `spec` for `readers`; `resume` knows the stored positions.
    pub(super) fn start(
        spec: source::Spec,
        readers: Vec<mpsc::Sender<Delivery>>,
        resume: impl Fn(&str) -> Option<Position> + Send + 'static,
        stats: source::Stats,
        acks: mpsc::UnboundedSender<Handled>,
        looked: Looked,
    ) -> Intake {
        let readers = Arc::new(Mutex::new(readers));
        let (sender, batches) = mpsc::channel(QUEUE);
        let reading = tokio::spawn(async move {
            let name = spec.to_string();
            let limits = source::Limits::default();
            if let Err(error) = source::run(spec, resume, limits, stats, sender, looked).await {
                log::error!("{name}: {error}");
            }
        });
        let handing = tokio::spawn(hand_out(batches, Arc::clone(&readers), acks));
        Intake { readers, tasks: vec![reading, handing] }
    }

    /// The same for lines that the daemon itself tells.
    pub(super) fn told(
        batches: mpsc::Receiver<Batch>,
        readers: Vec<mpsc::Sender<Delivery>>,
        acks: mpsc::UnboundedSender<Handled>,
    ) -> Intake {
        let readers = Arc::new(Mutex::new(readers));
        let handing = tokio::spawn(hand_out(batches, Arc::clone(&readers), acks));
        Intake { readers, tasks: vec![handing] }
    }

    /// Sets who reads it from the next batch on.
    pub(super) fn set_readers(&self, readers: Vec<mpsc::Sender<Delivery>>) {
        *self.readers.lock().unwrap_or_else(PoisonError::into_inner) = readers;
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn hand_out(
    mut batches: mpsc::Receiver<Batch>,
    readers: Readers,
    acks: mpsc::UnboundedSender<Handled>,
) {
    let order = Order::new(acks);
    while let Some(mut batch) = batches.recv().await {
        let position = batch.position.take().map(|position| (Arc::clone(&batch.origin), position));
        let receipt = Order::receipt(&order, position);
        let delivery = Delivery { batch, receipt };
        let senders = readers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for sender in senders {
            // a jail that a reload ended has no receiver any more
            let _ = sender.send(delivery.clone()).await;
        }
    }
}
