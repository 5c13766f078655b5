//! Runs each distinct source once and hands its lines to every jail that reads it.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    task::{JoinHandle, JoinSet},
    time,
};

use super::{
    acks::{AckGuard, AckQueue, Told},
    own_bans::OwnBan,
    worker::Counters,
};
use crate::{
    filter::{Filter, SharedPrefilter, Starts, lines_in},
    source::{self, Batch, Looked, Resume},
};

/// Batches that may wait between two stages: enough to keep both busy, and little memory.
const QUEUE: usize = 4;

/// Pause before a source that could not start is tried again; doubled each time up to the last.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Lines on their way to one jail. When the last jail drops its copy, the position is reported.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) batch: Batch,
    /// Where the lines begin that this jail has to look at; `None`: it looks at all.
    pub(crate) starts: Option<Starts>,
    /// How many lines there are.
    pub(crate) count: u64,
    /// Bans of this agent instead of lines.
    pub(crate) bans: Arc<[OwnBan]>,
    pub(crate) guard: Arc<AckGuard>,
}

/// A jail that reads the source.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(crate) deliveries: mpsc::Sender<Delivery>,
    pub(crate) filter: Arc<Filter>,
    pub(crate) counters: Arc<Counters>,
}

/// The jails that read one source, and one pass over its lines for all of them.
#[derive(Debug)]
struct Readers {
    jails: Vec<Reader>,
    /// Made with the first lines; `None`: each jail looks at all of them.
    shared: OnceLock<Option<SharedPrefilter>>,
}

impl Readers {
    fn new(jails: Vec<Reader>) -> Arc<Readers> {
        Arc::new(Readers { jails, shared: OnceLock::new() })
    }

    /// Returns what each jail has to look at.
    fn sort(&self, batch: &Batch) -> Vec<Option<Starts>> {
        // one jail does as well by itself
        let shared = self.shared.get_or_init(|| match self.jails.as_slice() {
            [_, _, ..] => SharedPrefilter::new(self.jails.iter().map(|jail| &*jail.filter)),
            _ => None,
        });
        match shared {
            Some(shared) => shared.sort(&batch.lines),
            None => vec![None; self.jails.len()],
        }
    }
}

type Shared = Arc<Mutex<Arc<Readers>>>;

/// One running source; it ends when this is dropped, and loses nothing: what no jail handled is
/// read again from the last position.
#[derive(Debug)]
pub(crate) struct Fanout {
    readers: Shared,
    /// Has a source that failed try again at once.
    again: Arc<Notify>,
    tasks: Vec<JoinHandle<()>>,
    /// The counters of this source alone.
    stats: source::Stats,
}

impl Fanout {
    /// Starts reading `spec` for `readers`, from where `resume` says.
    pub(crate) fn start(
        spec: source::Spec,
        readers: Vec<Reader>,
        resume: Resume,
        stats: &source::Stats,
        told: Told,
        looked: Looked,
    ) -> Fanout {
        let stats = stats.of_source();
        let readers = Arc::new(Mutex::new(Readers::new(readers)));
        let (sender, batches) = mpsc::channel(QUEUE);
        let again = Arc::new(Notify::new());
        let key = spec.clone();
        let keep = keep(spec, resume, stats.clone(), sender, looked, Arc::clone(&again));
        let handing = hand_out(key, batches, Arc::clone(&readers), told);
        let tasks = vec![tokio::spawn(keep), tokio::spawn(handing)];
        Fanout { readers, again, tasks, stats }
    }

    /// Returns whether a task of it has failed: nothing is read any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.tasks.iter().any(JoinHandle::is_finished)
    }

    /// If the source failed, it is tried again now.
    pub(crate) fn revive(&self) {
        self.again.notify_one();
    }

    /// Sets who reads it from the next batch on.
    pub(crate) fn set_readers(&self, readers: Vec<Reader>) {
        *self.readers.lock().unwrap_or_else(PoisonError::into_inner) = Readers::new(readers);
    }
}

impl Drop for Fanout {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        // a source that is gone is gone everywhere
        self.stats.close();
    }
}

/// Runs a source, and starts again what cannot start, for an address may come up later than we do,
/// or what fails.
async fn keep(
    spec: source::Spec,
    resume: Resume,
    stats: source::Stats,
    sender: mpsc::Sender<Batch>,
    looked: Looked,
    again: Arc<Notify>,
) {
    let origin: Arc<str> = spec.origin().into();
    // shown from the beginning, whatever becomes of it
    stats.update(&origin, |_| ());
    let (mut pause, mut looked) = (PAUSE.0, Some(looked));
    loop {
        // no start waits for the first look of one that failed
        let looked = looked.take().unwrap_or_else(|| mpsc::channel(1).0);
        let (limits, stats, resume) = (source::Limits::default(), stats.clone(), resume.clone());
        let mut task = JoinSet::new();
        task.spawn(source::run(
            spec.clone(),
            resume,
            limits,
            stats.clone(),
            sender.clone(),
            looked,
        ));
        let error = match task.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(_)) => source::Error::Died,
            // it ends when no jail listens any more, or with its input
            Some(Ok(Ok(()))) | None => return,
        };
        let why = chain(&error);
        log::error!("{origin}: {why}; trying again in {pause:?}");
        stats.update(&origin, |counters| {
            counters.waiting = true;
            counters.restarts += 1;
            counters.error = Some(why);
        });
        tokio::select! {
            () = sender.closed() => return,
            () = again.notified() => pause = PAUSE.0,
            () = time::sleep(pause) => pause = (pause * 2).min(PAUSE.1),
        }
    }
}

/// Returns an error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Hands batches to all who read them; `spec` tells under which keys positions are stored.
async fn hand_out(
    spec: source::Spec,
    mut batches: mpsc::Receiver<Batch>,
    readers: Shared,
    told: Told,
) {
    let order = AckQueue::new(told);
    while let Some(mut batch) = batches.recv().await {
        let (position, gone) = (batch.position.take(), batch.gone);
        let position = (gone || position.is_some()).then(|| (spec.key(&batch.origin), position));
        let guard = AckQueue::guard(&order, position);
        let readers = Arc::clone(&*readers.lock().unwrap_or_else(PoisonError::into_inner));
        let (wanted, count) = (readers.sort(&batch), lines_in(&batch.lines));
        for (jail, starts) in readers.jails.iter().zip(wanted) {
            // it may match a line as a container engine wrapped it
            let starts = starts.filter(|_| batch.raw.is_none() || !jail.filter.is_wrapped());
            if starts.as_ref().is_some_and(Vec::is_empty) {
                jail.counters.lines.fetch_add(count, Ordering::Relaxed);
                continue;
            }
            let (batch, guard) = (batch.clone(), Arc::clone(&guard));
            // a jail that a reload ended has no receiver any more
            let _ = jail
                .deliveries
                .send(Delivery { batch, starts, count, bans: Arc::default(), guard })
                .await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UdpSocket;

    use super::*;
    use crate::{filter, patience::patience};

    fn reader(patterns: &[&str], deliveries: mpsc::Sender<Delivery>) -> Reader {
        let spec = filter::Spec {
            failregex: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(),
            ..filter::Spec::default()
        };
        let filter = Arc::new(Filter::compile(&spec).unwrap());
        Reader { deliveries, filter, counters: Arc::default() }
    }

    #[tokio::test]
    async fn a_jail_is_woken_for_its_lines_alone_and_counts_all() {
        let (sender, batches) = mpsc::channel(QUEUE);
        let (readers, mut lines): (Vec<_>, Vec<_>) =
            [&["^bad <ADDR>$"], &["^worse <ADDR>$"], &["^<ADDR>$"]]
                .map(|patterns| {
                    let (deliveries, lines) = mpsc::channel(QUEUE);
                    (reader(patterns, deliveries), lines)
                })
                .into_iter()
                .unzip();
        let counters: Vec<_> = readers.iter().map(|reader| Arc::clone(&reader.counters)).collect();
        let told: Told = Arc::new(|_| ());
        let readers = Arc::new(Mutex::new(Readers::new(readers)));
        tokio::spawn(hand_out(source::Spec::Stdin, batches, readers, told));
        let batch = Batch {
            origin: "log".into(),
            lines: "good\nbad 192.0.2.1\nfine\nBAD 192.0.2.1\n".into(),
            stamped: false,
            raw: None,
            backlog: false,
            live: true,
            position: None,
            gone: false,
            torn: false,
            read: std::time::Instant::now(),
        };
        sender.send(batch).await.unwrap();
        let delivery = lines[0].recv().await.unwrap();
        let starts: Vec<u32> = delivery.starts.unwrap().iter().map(|start| start.at).collect();
        assert_eq!((starts, delivery.count), (vec![5], 4), "as the pattern has it");
        assert_eq!(lines[2].recv().await.unwrap().starts, None);
        assert!(lines[1].try_recv().is_err(), "nothing for it");
        let counted = counters.iter().map(|counters| counters.lines.load(Ordering::Relaxed));
        assert_eq!(Vec::from_iter(counted), [0, 4, 0], "the others count when they have looked");
    }

    /// An address that is taken when the agent starts, and free later.
    #[tokio::test]
    async fn a_source_that_cannot_start_says_so_and_is_tried_again() {
        let taken = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let listen = format!("udp://{}", taken.local_addr().unwrap());
        let stats = source::Stats::default();
        let (deliveries, mut lines) = mpsc::channel(QUEUE);
        let reader = reader(&["^.*<ADDR>"], deliveries);
        let told = Arc::new(|_| ());
        let (looked, mut looking) = mpsc::channel(1);
        let spec = source::Spec::Syslog { listen: listen.clone() };
        let resume = Resume::default();
        let fanout = Fanout::start(spec, vec![reader], resume, &stats, told, looked);
        assert_eq!(looking.recv().await, None, "a start waits for it for ever");
        let wait = async {
            while stats.snapshot().get(&*listen).is_none_or(|counters| counters.error.is_none()) {
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(patience(), wait).await.unwrap();
        let counters = stats.snapshot()[&*listen].clone();
        assert!(counters.waiting, "{counters:?}");
        assert!(counters.error.unwrap().contains("in use"));
        let address = taken.local_addr().unwrap();
        drop(taken);
        fanout.revive();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let read = async {
            loop {
                drop(client.send_to(b"<13>Nov 20 12:00:00 h a: one", address).await);
                if let Ok(Some(_)) = time::timeout(Duration::from_millis(20), lines.recv()).await {
                    return;
                }
            }
        };
        time::timeout(patience(), read).await.unwrap();
        assert_eq!(stats.snapshot()[&*listen].error, None);
        drop(fanout);
        assert!(stats.snapshot().is_empty(), "gone everywhere");
    }
}
