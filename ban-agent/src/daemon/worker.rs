//! One task for each jail: lines in, sentences out. It owns the jail's filter state and window.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{
        broadcast::{self, error::TryRecvError},
        mpsc::{
            self,
            error::{SendError, TrySendError},
        },
        oneshot, watch,
    },
    task::JoinHandle,
    time,
};

use super::{inquiry, intake::Delivery, lookup::Nets, message::Message, order::Receipt};
use crate::{
    clock::Now,
    event::{Bus, Event, What},
    filter::Scanner,
    jail::{Decision, Jail},
    ledger::Holder,
    net::{self, PrefixSet},
    store::{Counted, Pardoned},
};

/// How long the first line waits until names of `ignoreip` are looked up.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often those who went quiet are forgotten.
const IDLE: Duration = Duration::from_secs(60);

/// What `status` shows of a jail; written by its task, but for what the core decides.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) lines: AtomicU64,
    pub(super) matched: AtomicU64,
    pub(super) ignored: AtomicU64,
    pub(super) failing: AtomicU64,
    pub(super) evicted: AtomicU64,
    /// Lines that held words of a pattern, and that none matched.
    pub(super) near: AtomicU64,
    /// Times that an address had failed too often.
    pub(super) offences: AtomicU64,
    /// Bans that were made of them; the core counts these.
    pub(super) total: AtomicU64,
    /// Bans that `ignorecommand` did not let pass.
    pub(super) pardoned: AtomicU64,
    /// Failures without a date in logs that were there before: not counted.
    pub(super) undated: AtomicU64,
    /// Lines whose IPv6 address may as well be one with a port.
    pub(super) unclear: AtomicU64,
    /// Failures that were written now by a clock that shows another time: counted as of now.
    pub(super) other_clock: AtomicU64,
    /// Failures that were written now, with a time that is older than findtime: not counted.
    pub(super) too_old: AtomicU64,
    /// What of `ignoreip` cannot be looked up; empty: all can.
    pub(super) lookup: Mutex<String>,
}

/// One jail at work.
pub(super) struct Worker {
    pub(super) name: Arc<str>,
    pub(super) scanner: Scanner,
    pub(super) jail: Jail,
    pub(super) counters: Arc<Counters>,
    pub(super) core: mpsc::Sender<Message>,
    /// Of the last lines.
    pub(super) origin: Option<Arc<str>>,
    /// Networks of this host, as they change.
    pub(super) onlink: watch::Receiver<PrefixSet>,
    pub(super) bus: Bus,
    /// Whom it ignores by name or file.
    pub(super) ignored: Option<watch::Receiver<Nets>>,
    /// Who was let go since it last looked.
    pub(super) forgiven: broadcast::Receiver<Arc<[Pardoned]>>,
    /// Where its sentences go first.
    pub(super) inquiry: Option<inquiry::Sender>,
}

/// What a worker leaves to its successor.
pub(super) struct Rest {
    jail: Jail,
    /// Lines that it has not seen.
    deliveries: mpsc::Receiver<Delivery>,
}

impl Worker {
    /// Works until the sources or the core are gone, or `stop` is. Takes over from `former` first.
    pub(super) async fn run(
        mut self,
        deliveries: mpsc::Receiver<Delivery>,
        mut stop: oneshot::Receiver<Infallible>,
        former: Option<JoinHandle<Rest>>,
    ) -> Rest {
        let waiting = match former {
            // one that failed leaves nothing
            Some(former) => former.await.ok().map(|rest| self.take_over(rest)),
            None => None,
        };
        if let Some(ignored) = &mut self.ignored {
            // whom it ignores should be known before the first line, but a name server may be down
            let _ = time::timeout(PATIENCE, ignored.wait_for(Option::is_some)).await;
            ignored.mark_changed();
        }
        // to their end, which comes as soon as the sources know their new reader
        if let Some(mut waiting) = waiting {
            while let Some(delivery) = waiting.recv().await {
                self.handle(delivery).await;
            }
        }
        let mut deliveries = deliveries;
        let mut idle = time::interval(IDLE);
        loop {
            let delivery = tokio::select! {
                biased;
                _ = &mut stop => break,
                delivery = deliveries.recv() => delivery,
                _ = idle.tick(), if self.jail.stats().failing > 0 => {
                    self.forget_idle();
                    continue;
                }
            };
            match delivery {
                Some(delivery) => self.handle(delivery).await,
                None => break,
            }
        }
        Rest { jail: self.jail, deliveries }
    }

    /// Goes on with what a former worker of this jail counted; returns the lines that it left.
    fn take_over(&mut self, rest: Rest) -> mpsc::Receiver<Delivery> {
        let rules = self.jail.rules().clone();
        self.jail = rest.jail;
        self.jail.set_rules(&rules);
        rest.deliveries
    }

    async fn handle(&mut self, delivery: Delivery) {
        self.heed();
        for message in self.judge(&delivery) {
            // the core is gone, and soon this is: it will read these lines again
            if self.pass(message, &delivery.receipt).await.is_err() {
                return;
            }
        }
        delivery.receipt.note(self.counted());
    }

    /// Forgets those whose failures do not count any more, also where no new ones come.
    fn forget_idle(&mut self) {
        self.jail.forget_idle(Now::read());
        let failing = self.jail.stats().failing as u64;
        self.counters.failing.store(failing, Ordering::Relaxed);
    }

    /// Takes over whom to ignore, if that has changed.
    fn heed(&mut self) {
        if let Some(ignored) = &mut self.ignored
            && ignored.has_changed().unwrap_or(false)
            && let Some(nets) = &*ignored.borrow_and_update()
        {
            self.jail.ignore(nets);
        }
        loop {
            match self.forgiven.try_recv() {
                Ok(pardoned) => self.forgive(&pardoned),
                // so many unbans without a line between them: the oldest are not heard of
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
    }

    /// After an unban nothing counts that was before it.
    fn forgive(&mut self, pardoned: &[Pardoned]) {
        for (prefix, holder) in pardoned {
            let other = Holder::Jail(Arc::clone(&self.name));
            if holder.as_ref().is_none_or(|holder| *holder == other) {
                self.jail.forgive(*prefix);
            }
        }
    }

    /// To the core, by way of `ignorecommand`; if too many wait there, directly.
    /// The lines are not handled before it has said something.
    async fn pass(&self, message: Message, lines: &Arc<Receipt>) -> Result<(), SendError<Message>> {
        let message = match &self.inquiry {
            None => message,
            Some(inquiry) => match inquiry.try_send((message, Arc::clone(lines))) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full((message, _)) | TrySendError::Closed((message, _))) => {
                    log::error!("[{}] too many wait for ignorecommand: banned unasked", self.name);
                    message
                }
            },
        };
        self.core.send(message).await
    }

    /// What the jail counts, as far as that has changed.
    fn counted(&mut self) -> Vec<Counted> {
        let changes = self.jail.take_changes().into_iter();
        changes.map(|(prefix, count)| ((Arc::clone(&self.name), prefix), count)).collect()
    }

    /// The sentences that these lines lead to.
    fn judge(&mut self, delivery: &Delivery) -> Vec<Message> {
        if self.onlink.has_changed().unwrap_or(false) {
            self.jail.set_neighbours(self.onlink.borrow_and_update().clone());
        }
        let now = Now::read();
        let Worker { name, scanner, jail, counters, bus, origin, .. } = self;
        let (mut sentences, mut found) = (Vec::new(), Vec::new());
        let wanted = bus.wants_failures();
        let batch = &delivery.batch;
        let other = origin.as_ref() != Some(&batch.origin);
        scanner.turn_to(batch.backlog, batch.live, other);
        *origin = Some(Arc::clone(&batch.origin));
        let (mut undated, mut too_old) = (0, 0);
        let counts = scanner.scan(&batch.lines, batch.stamped, now.wall, &mut |failure, line| {
            // in what was there before anybody followed the log, nothing says that it is of now
            if batch.backlog && failure.time.is_none() {
                undated += 1;
                return;
            }
            let decision = jail.offence(failure, line, now);
            too_old += u64::from(batch.live && decision == Decision::Old);
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
        counters.undated.fetch_add(undated, Ordering::Relaxed);
        counters.unclear.fetch_add(counts.unclear, Ordering::Relaxed);
        counters.too_old.fetch_add(too_old, Ordering::Relaxed);
        counters.other_clock.fetch_add(counts.other_clock, Ordering::Relaxed);
        let stats = jail.stats();
        counters.lines.fetch_add(counts.lines, Ordering::Relaxed);
        counters.matched.fetch_add(counts.matched, Ordering::Relaxed);
        counters.near.fetch_add(counts.near, Ordering::Relaxed);
        counters.ignored.store(stats.ignored, Ordering::Relaxed);
        counters.failing.store(stats.failing as u64, Ordering::Relaxed);
        counters.evicted.store(stats.evicted, Ordering::Relaxed);
        counters.offences.store(stats.banned, Ordering::Relaxed);
        sentences
    }
}
