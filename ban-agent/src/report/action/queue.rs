//! The way to an action: what it can be told, its bounded queue, what became of it. To tell it
//! takes no waiting.

use std::sync::Arc;

use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};

use super::{Of, Spec, Ticket, runner::Runner};
use crate::report::Deliveries;

/// What may wait for one action; more is dropped, and counted.
pub(super) const QUEUE: usize = 65_536;
/// What waits behind so many others waits without its lines, which are most of its bytes.
pub(super) const DETAILED: usize = 4096;

/// What an action is told.
#[derive(Clone, Debug)]
pub enum Job {
    /// An address is banned.
    Ban(Arc<Ticket>),
    /// Its ban became longer.
    Prolong(Arc<Ticket>),
    /// It is banned no more.
    Unban(Arc<Ticket>),
    /// No address is banned any more.
    Flush,
    /// The configuration was read again.
    Reload,
}

impl Job {
    /// Leaves out the lines that led to the ban.
    pub(super) fn shorten(&mut self) {
        let (Job::Ban(ticket) | Job::Prolong(ticket) | Job::Unban(ticket)) = self else { return };
        if ticket.lines(Of::All).next().is_none() {
            return;
        }
        let past = ticket.past.shortened();
        *ticket = Arc::new(Ticket { matches: Vec::new(), past, ..Ticket::clone(ticket) });
    }
}

/// A running action. Dropping it lets it work off what it was told, and stop.
#[derive(Debug)]
pub struct Action {
    spec: Arc<Spec>,
    lane: Lane,
    task: JoinHandle<()>,
}

/// The way to it.
#[derive(Clone, Debug)]
struct Lane {
    title: Arc<str>,
    queue: mpsc::Sender<Job>,
    stats: Arc<Deliveries>,
}

/// Something that an action is told later.
#[derive(Debug)]
pub struct Order(Lane, Job);

impl Order {
    /// Tells it; never waits.
    pub fn give(self) {
        let Order(Lane { title, queue, stats }, mut job) = self;
        if queue.max_capacity() - queue.capacity() >= DETAILED {
            job.shorten();
        }
        let dropped = queue.try_send(job).is_err();
        if stats.queued(dropped) {
            log::error!("{title}: {QUEUE} jobs wait, more are dropped and counted");
        }
    }
}

impl Action {
    /// Starts it for a jail, after the one that it replaces has stopped.
    #[must_use]
    pub fn start(
        spec: Spec,
        jail: &str,
        permits: Arc<Semaphore>,
        former: Option<Action>,
    ) -> Action {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (spec, stats) = (Arc::new(spec), Arc::new(Deliveries::default()));
        let title: Arc<str> = format!("[{jail}] action {}", spec.name).into();
        let runner =
            Runner::new(Arc::clone(&spec), Arc::clone(&title), permits, Arc::clone(&stats));
        let task = tokio::spawn(async move {
            if let Some(former) = former {
                former.finish().await;
            }
            runner.run(jobs).await;
        });
        Action { spec, lane: Lane { title, queue, stats }, task }
    }

    /// Returns what it is called where others are, too.
    #[must_use]
    pub fn title(&self) -> &Arc<str> {
        &self.lane.title
    }

    /// Returns what it was made of.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Returns what became of its commands.
    #[must_use]
    pub fn stats(&self) -> &Arc<Deliveries> {
        &self.lane.stats
    }

    /// Returns what it is to be told, when the time has come.
    #[must_use]
    pub fn order(&self, job: Job) -> Order {
        Order(self.lane.clone(), job)
    }

    /// Waits until it has worked off what it was told, and has stopped.
    pub async fn finish(self) {
        let Lane { title, queue, .. } = self.lane;
        drop(queue);
        if let Err(error) = self.task.await {
            log::error!("{title}: {error}");
        }
    }
}
