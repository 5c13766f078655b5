//! One task for each jail: lines in, sentences out. It owns the jail's filter state and window.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::{mpsc, watch};

use super::{intake::Delivery, message::Message};
use crate::{
    clock::Now,
    event::{Bus, Event, What},
    filter::Scanner,
    jail::{Decision, Jail},
    net::{self, PrefixSet},
};

/// What `status` shows of a jail; written by its task alone.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) lines: AtomicU64,
    pub(super) matched: AtomicU64,
    pub(super) ignored: AtomicU64,
    pub(super) failing: AtomicU64,
    pub(super) evicted: AtomicU64,
    pub(super) total: AtomicU64,
}

/// One jail at work.
pub(super) struct Worker {
    pub(super) name: Arc<str>,
    pub(super) scanner: Scanner,
    pub(super) jail: Jail,
    pub(super) counters: Arc<Counters>,
    pub(super) core: mpsc::Sender<Message>,
    /// Networks of this host, as they change.
    pub(super) onlink: watch::Receiver<PrefixSet>,
    pub(super) bus: Bus,
}

impl Worker {
    /// Works until the sources or the core are gone.
    pub(super) async fn run(mut self, mut deliveries: mpsc::Receiver<Delivery>) {
        while let Some(delivery) = deliveries.recv().await {
            for message in self.judge(&delivery) {
                if self.core.send(message).await.is_err() {
                    return;
                }
            }
        }
    }

    /// The sentences that these lines lead to.
    fn judge(&mut self, delivery: &Delivery) -> Vec<Message> {
        if self.onlink.has_changed().unwrap_or(false) {
            self.jail.set_neighbours(self.onlink.borrow_and_update().clone());
        }
        let now = Now::read();
        let Worker { name, scanner, jail, counters, bus, .. } = self;
        let (mut sentences, mut found) = (Vec::new(), Vec::new());
        let wanted = bus.wants_failures();
        let batch = &delivery.batch;
        let counts = scanner.scan(&batch.lines, batch.stamped, now.wall, &mut |failure, line| {
            let decision = jail.offence(failure, line, now);
            if wanted && matches!(decision, Decision::Counted { .. } | Decision::Ban(_)) {
                found.extend(failure.address.map(|address| Event {
                    at: now.wall,
                    what: What::Found {
                        jail: Arc::clone(name),
                        address: net::host(address),
                        time: failure.time.unwrap_or(now.wall),
                    },
                }));
            }
            if let Decision::Ban(sentence) = decision {
                let (jail, read) = (Arc::clone(name), batch.read);
                sentences.push(Message::Sentence { jail, sentence, read });
            }
        });
        bus.publish(found);
        let stats = jail.stats();
        counters.lines.fetch_add(counts.lines, Ordering::Relaxed);
        counters.matched.fetch_add(counts.matched, Ordering::Relaxed);
        counters.ignored.store(stats.ignored, Ordering::Relaxed);
        counters.failing.store(stats.failing as u64, Ordering::Relaxed);
        counters.evicted.store(stats.evicted, Ordering::Relaxed);
        counters.total.store(stats.banned, Ordering::Relaxed);
        sentences
    }
}
