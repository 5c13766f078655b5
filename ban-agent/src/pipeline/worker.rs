//! One task for each jail: lines in, offences out. It owns the jail's filter state and window.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{
        broadcast::{self, error::TryRecvError},
        mpsc, oneshot, watch,
    },
    task::JoinHandle,
    time,
};

use super::{fanout::Delivery, ignore_command::Inquiry, ignore_files::Nets};
use crate::{
    action::Ticket,
    clock::Now,
    engine::command::Command,
    event::{Bus, Event, What},
    filter::{Failure, Scanner},
    jail::{Decision, Jail},
    ledger::Holder,
    net::{self, PrefixSet},
    store::{Counted, Unbanned},
};

/// How long the first line waits until names of `ignoreip` are looked up: a little longer than those who
/// look take for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often those who went quiet are forgotten.
const IDLE: Duration = Duration::from_secs(60);

/// What `status` shows of a jail; written by its task, but for what the core decides.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) lines: AtomicU64,
    pub(crate) matched: AtomicU64,
    pub(crate) ignored: AtomicU64,
    pub(crate) failing: AtomicU64,
    pub(crate) evicted: AtomicU64,
    /// Lines that held words of a pattern, and that none matched.
    pub(crate) near: AtomicU64,
    /// Times that an address had failed too often.
    pub(crate) offences: AtomicU64,
    /// Bans that were made of them; the core counts these.
    pub(crate) total: AtomicU64,
    /// Failures without a date in logs that were there before: not counted.
    pub(crate) undated: AtomicU64,
    /// Lines whose IPv6 address may as well be one with a port.
    pub(crate) unclear: AtomicU64,
    /// Failures that were written now by a clock that shows another time: counted as of now.
    pub(crate) other_clock: AtomicU64,
    /// Failures that were written now, with a time that is older than findtime: not counted.
    pub(crate) too_old: AtomicU64,
    /// What of `ignoreip` cannot be looked up; empty: all can.
    pub(crate) lookup: Mutex<String>,
}

/// One jail at work.
pub(crate) struct Worker {
    pub(crate) name: Arc<str>,
    pub(crate) scanner: Scanner,
    pub(crate) jail: Jail,
    pub(crate) counters: Arc<Counters>,
    pub(crate) core: mpsc::Sender<Command>,
    /// Of the last lines.
    pub(crate) origin: Option<Arc<str>>,
    /// Networks of this host, as they change.
    pub(crate) onlink: watch::Receiver<Arc<PrefixSet>>,
    pub(crate) bus: Bus,
    /// Whom it ignores by name or file.
    pub(crate) ignored: Option<watch::Receiver<Nets>>,
    /// Who was let go since it last looked.
    pub(crate) forgiven: broadcast::Receiver<Arc<Forgiven>>,
    /// Who was let go when lines had been read that have not come yet.
    pub(crate) lately: Vec<Arc<Forgiven>>,
    /// Who is asked about its failures.
    pub(crate) inquiry: Option<Inquiry>,
}

/// Whom the operator let go at once.
#[derive(Debug)]
pub(crate) struct Forgiven {
    pub(crate) who: Vec<Unbanned>,
    /// When.
    pub(crate) given: Instant,
}

/// What a worker leaves to its successor.
pub(crate) struct Rest {
    jail: Jail,
    /// Lines, and bans, that it has not seen.
    waiting: [mpsc::Receiver<Delivery>; 2],
}

impl Worker {
    /// Works until the sources or the core are gone, or `stop` is: on lines, and on bans of this
    /// agent. Takes over from `former` first.
    pub(crate) async fn run(
        mut self,
        [mut deliveries, mut bans]: [mpsc::Receiver<Delivery>; 2],
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
        for mut waiting in waiting.into_iter().flatten() {
            while let Some(delivery) = waiting.recv().await {
                // they were chosen for the former patterns
                self.handle(Delivery { starts: None, ..delivery }).await;
            }
        }
        let mut idle = time::interval(IDLE);
        loop {
            let delivery = tokio::select! {
                biased;
                _ = &mut stop => break,
                Some(delivery) = bans.recv() => Some(delivery),
                delivery = deliveries.recv() => delivery,
                _ = idle.tick(), if self.jail.stats().failing > 0 => {
                    self.heed();
                    self.forget_idle();
                    continue;
                }
            };
            match delivery {
                Some(delivery) => self.handle(delivery).await,
                None => break,
            }
        }
        Rest { jail: self.jail, waiting: [deliveries, bans] }
    }

    /// Goes on with what a former worker of this jail counted; returns what waits for it.
    fn take_over(&mut self, rest: Rest) -> [mpsc::Receiver<Delivery>; 2] {
        let rules = self.jail.rules().clone();
        self.jail = rest.jail;
        self.jail.set_rules(&rules);
        rest.waiting
    }

    async fn handle(&mut self, delivery: Delivery) {
        self.heed();
        let messages = self.judge(&delivery).await;
        self.forget_earlier(delivery.batch.read);
        for message in messages {
            // the core is gone, and soon this is: it will read these lines again
            if self.core.send(message).await.is_err() {
                return;
            }
        }
        delivery.guard.note(self.counted());
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
                Ok(forgiven) => {
                    self.forgive(&forgiven.who);
                    self.lately.push(forgiven);
                }
                // so many unbans without a line between them: the oldest are not heard of
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
    }

    /// Lines that were read before an unban do not count for what was let go, though they came
    /// after.
    fn forget_earlier(&mut self, read: Instant) {
        let mut lately = std::mem::take(&mut self.lately);
        lately.retain(|forgiven| forgiven.given > read);
        lately.iter().for_each(|forgiven| self.forgive(&forgiven.who));
        self.lately = lately;
    }

    /// After an unban nothing counts that was before it.
    fn forgive(&mut self, unbanned: &[Unbanned]) {
        for (prefix, holder) in unbanned {
            let other = Holder::Jail(Arc::clone(&self.name));
            if holder.as_ref().is_none_or(|holder| *holder == other) {
                self.jail.forgive(*prefix);
            }
        }
    }

    /// Returns what the jail counts, as far as that has changed.
    fn counted(&mut self) -> Vec<Counted> {
        let changes = self.jail.take_changes().into_iter();
        changes.map(|(prefix, count)| ((Arc::clone(&self.name), prefix), count)).collect()
    }

    /// Returns what these lines lead to.
    async fn judge(&mut self, delivery: &Delivery) -> Vec<Command> {
        if self.onlink.has_changed().unwrap_or(false) {
            self.jail.set_neighbours(Arc::clone(&self.onlink.borrow_and_update()));
        }
        let now = Now::read();
        let batch = &delivery.batch;
        let other = self.origin.as_ref() != Some(&batch.origin);
        self.scanner.turn_to(batch.backlog, batch.live, other);
        self.origin = Some(Arc::clone(&batch.origin));
        let mut verdict = Verdict { wanted: self.bus.wants_failures(), ..Verdict::default() };
        let Worker { scanner, jail, inquiry, .. } = self;
        let mut asked = Vec::new();
        let mut sink = |failure: &Failure, line: &[u8]| {
            if inquiry.is_some() && !failure.success && !jail.ignores(failure) {
                asked.push((failure.clone(), line.to_vec()));
            } else {
                verdict.weigh(jail, delivery, failure, line, now);
            }
        };
        let bans = delivery.bans.iter();
        bans.for_each(|ban| sink(&ban.failure(), ban.to_string().as_bytes()));
        let (lines, stamped) = (&batch.lines, batch.stamped);
        let counts = match (&delivery.starts, &batch.raw) {
            (Some(starts), _) => {
                scanner.scan_at(lines, starts, delivery.count, stamped, now.wall, &mut sink)
            }
            (None, Some(raw)) => scanner.scan_both(lines, raw, now.wall, &mut sink),
            (None, None) => scanner.scan(lines, stamped, now.wall, &mut sink),
        };
        if let (Some(inquiry), false) = (inquiry, asked.is_empty()) {
            let tickets = asked.iter().map(|(failure, line)| Ticket::of_failure(failure, line));
            let excused = inquiry.excused(tickets.collect()).await;
            for ((failure, line), excused) in asked.iter().zip(excused) {
                if excused {
                    jail.excuse();
                } else {
                    verdict.weigh(jail, delivery, failure, line, now);
                }
            }
        }
        let Worker { jail, counters, bus, .. } = self;
        bus.publish(verdict.found);
        counters.undated.fetch_add(verdict.undated, Ordering::Relaxed);
        counters.unclear.fetch_add(counts.unclear, Ordering::Relaxed);
        counters.too_old.fetch_add(verdict.too_old, Ordering::Relaxed);
        counters.other_clock.fetch_add(counts.other_clock, Ordering::Relaxed);
        let stats = jail.stats();
        let bans = delivery.bans.len() as u64;
        counters.lines.fetch_add(counts.lines + bans, Ordering::Relaxed);
        counters.matched.fetch_add(counts.matched + bans, Ordering::Relaxed);
        counters.near.fetch_add(counts.near, Ordering::Relaxed);
        counters.ignored.store(stats.ignored, Ordering::Relaxed);
        counters.failing.store(stats.failing as u64, Ordering::Relaxed);
        counters.evicted.store(stats.evicted, Ordering::Relaxed);
        counters.offences.store(stats.banned, Ordering::Relaxed);
        verdict.messages
    }
}

/// What some lines led to so far.
#[derive(Default)]
struct Verdict {
    /// For the core.
    messages: Vec<Command>,
    /// A listener wants to hear of each failure.
    wanted: bool,
    /// The failures, if so.
    found: Vec<Event>,
    undated: u64,
    too_old: u64,
}

impl Verdict {
    fn weigh(
        &mut self,
        jail: &mut Jail,
        delivery: &Delivery,
        failure: &Failure,
        line: &[u8],
        now: Now,
    ) {
        let batch = &delivery.batch;
        // patterns that are pinned to the end of a line know this one's end from nobody but the client
        if batch.torn {
            return;
        }
        // in what was there before the agent followed the log, nothing says that it is of now
        if batch.backlog && failure.time.is_none() {
            self.undated += 1;
            return;
        }
        let decision = jail.offence(failure, line, now);
        let name = || Arc::clone(&jail.rules().name);
        self.too_old += u64::from(batch.live && decision == Decision::Old);
        let counts =
            !matches!(decision, Decision::Ignored | Decision::Old | Decision::Forgiven { .. });
        if let (true, true, Some(address)) = (self.wanted, counts, failure.address) {
            let time = failure.time.unwrap_or(now.wall);
            let what = What::Found { jail: name(), address: net::host(address), time };
            self.found.push(Event { at: now.wall, what });
        }
        match decision {
            Decision::Ban(offence) => {
                let ack = Some(Arc::clone(&delivery.guard));
                self.messages.push(Command::Offence {
                    jail: name(),
                    offence,
                    read: batch.read,
                    ack,
                });
            }
            Decision::Named(named) => {
                let ack = Some(Arc::clone(&delivery.guard));
                self.messages.push(Command::Named { jail: name(), named, ack });
            }
            Decision::Group(offences) => {
                let read = batch.read;
                self.messages.extend(offences.into_iter().map(|offence| {
                    let ack = Some(Arc::clone(&delivery.guard));
                    Command::Offence { jail: name(), offence, read, ack }
                }));
            }
            Decision::Ignored
            | Decision::Old
            | Decision::Forgiven { .. }
            | Decision::Counted { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use jiff::Timestamp;

    use super::*;
    use crate::{
        clock::Boot,
        filter::{self, Filter},
        jail,
        net::IpNet,
        pipeline::{
            OwnBan,
            acks::{AckQueue, Handled},
        },
        source::Batch,
    };

    /// What a jail is joined to.
    struct Bench {
        core: mpsc::Receiver<Command>,
        acks: std::sync::mpsc::Receiver<Handled>,
        order: Arc<Mutex<AckQueue>>,
        forgiven: broadcast::Sender<Arc<Forgiven>>,
        now: Now,
    }

    impl Bench {
        /// And a jail that bans at the third failure.
        fn new() -> (Worker, Bench) {
            let filter = filter::Spec {
                failregex: vec!["^failed <ADDR>$".to_owned()],
                ..filter::Spec::default()
            };
            let spec = jail::rules(3, 600);
            let (sender, core) = mpsc::channel(64);
            let (acks, told) = std::sync::mpsc::channel();
            let acks = Arc::new(move |handled| acks.send(handled).unwrap());
            let forgiven = broadcast::Sender::new(4);
            let now = Now {
                boot: Boot(1_000_000),
                wall: Timestamp::from_millisecond(1_800_000_000_400).unwrap(),
            };
            now.fake();
            let mut jail = Jail::new(&spec);
            jail.resume(&[]);
            let worker = Worker {
                name: "test".into(),
                scanner: Scanner::new(Arc::new(Filter::compile(&filter).unwrap())),
                jail,
                counters: Arc::default(),
                core: sender,
                origin: None,
                onlink: watch::channel(Arc::default()).1,
                bus: Bus::default(),
                ignored: None,
                forgiven: forgiven.subscribe(),
                lately: Vec::new(),
                inquiry: None,
            };
            (worker, Bench { core, acks: told, order: AckQueue::new(acks), forgiven, now })
        }

        /// Failures of this host, read at this instant.
        fn lines(&self, host: u8, count: usize, read: Instant) -> Delivery {
            let second = self.now.wall.as_second();
            let stamp = Timestamp::from_second(second).unwrap();
            let batch = Batch {
                origin: "log".into(),
                lines: format!("{stamp} failed 192.0.2.{host}\n").repeat(count).into(),
                stamped: true,
                raw: None,
                backlog: false,
                live: true,
                position: None,
                gone: false,
                torn: false,
                read,
            };
            let count = count as u64;
            let guard = AckQueue::guard(&self.order, None);
            Delivery { batch, starts: None, count, bans: Arc::default(), guard }
        }

        fn forgive(&self, host: Option<u8>, jail: Option<&str>, given: Instant) {
            let prefix = host.map(|host| IpNet::from(IpAddr::from([192, 0, 2, host])));
            let who = vec![(prefix, jail.map(|jail| Holder::Jail(jail.into())))];
            self.forgiven.send(Arc::new(Forgiven { who, given })).unwrap();
        }

        fn offences(&mut self) -> usize {
            std::iter::from_fn(|| self.core.try_recv().ok()).count()
        }
    }

    /// Its name would be two words to a pattern.
    #[tokio::test]
    async fn bans_of_other_jails_count_without_a_line() {
        let (mut worker, mut bench) = Bench::new();
        let counters = Arc::clone(&worker.counters);
        let prefix: IpNet = "2001:db8::/64".parse().unwrap();
        let ban = OwnBan { at: bench.now.wall, jail: "a door".into(), prefix };
        let delivery = Delivery { bans: vec![ban; 3].into(), ..bench.lines(1, 0, Instant::now()) };
        worker.handle(delivery).await;
        let Ok(Command::Offence { offence, .. }) = bench.core.try_recv() else { panic!("no ban") };
        assert_eq!((offence.prefix, offence.failures), (prefix, 3));
        assert_eq!(offence.fields["jail"], "a door");
        assert!(offence.evidence[2].ends_with(b" [a door] Ban 2001:db8::/64"));
        let seen =
            [&counters.lines, &counters.matched].map(|counter| counter.load(Ordering::Relaxed));
        assert_eq!(seen, [3, 3]);
    }

    #[tokio::test]
    async fn lines_were_handled_once_their_offence_is_decided() {
        let (mut worker, mut bench) = Bench::new();
        worker.handle(bench.lines(1, 3, Instant::now())).await;
        assert!(bench.acks.try_recv().is_err(), "a crash now would lose the ban");
        assert_eq!(bench.offences(), 1);
        assert!(bench.acks.try_recv().is_ok());
    }

    #[tokio::test]
    async fn a_line_without_its_end_is_no_evidence() {
        let (mut worker, mut bench) = Bench::new();
        for (torn, offences) in [(true, 0), (false, 1)] {
            let mut delivery = bench.lines(1, 3, Instant::now());
            delivery.batch.torn = torn;
            worker.handle(delivery).await;
            assert_eq!(bench.offences(), offences, "torn: {torn}");
        }
    }

    #[tokio::test]
    async fn who_is_let_go_begins_anew_and_the_others_go_on() {
        for (host, jail, anew) in [
            (Some(1), None, [true, false]),
            (Some(1), Some("test"), [true, false]),
            (Some(1), Some("other"), [false, false]),
            (None, Some("test"), [true, true]),
            (None, None, [true, true]),
        ] {
            let (mut worker, mut bench) = Bench::new();
            let begun = Instant::now();
            for host in [1, 2] {
                worker.handle(bench.lines(host, 2, begun)).await;
            }
            let given = begun + Duration::from_millis(1);
            bench.forgive(host, jail, given);
            for (host, anew) in [1, 2].into_iter().zip(anew) {
                worker.handle(bench.lines(host, 1, given + Duration::from_millis(1))).await;
                assert_eq!(bench.offences(), usize::from(!anew), "{host}");
            }
            // what counts now is recorded with the lines' position
            let counts = std::iter::from_fn(|| bench.acks.try_recv().ok());
            let last = counts.flat_map(|handled| handled.counted).last();
            assert_eq!(last.unwrap().1.map(|count| count.failures), anew[1].then_some(1));
        }
    }

    #[tokio::test]
    async fn lines_that_were_read_before_an_unban_count_for_nothing_after_it() {
        let (mut worker, mut bench) = Bench::new();
        let read = Instant::now();
        let given = read + Duration::from_millis(1);
        bench.forgive(Some(1), None, given);
        // it waited behind others while the unban was made
        worker.handle(bench.lines(1, 2, read)).await;
        worker.handle(bench.lines(2, 2, read)).await;
        let later = given + Duration::from_millis(1);
        worker.handle(bench.lines(1, 2, later)).await;
        worker.handle(bench.lines(2, 1, later)).await;
        assert_eq!(bench.offences(), 1, "the one who was not let go");
        worker.handle(bench.lines(1, 1, later)).await;
        assert_eq!(bench.offences(), 1, "three after it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_server_that_hangs_holds_no_start_up() {
        let (mut worker, mut bench) = Bench::new();
        let (_looking, ignored) = watch::channel(None);
        worker.ignored = Some(ignored);
        let (deliveries, receiver) = mpsc::channel(1);
        let (_stop, stopped) = oneshot::channel();
        deliveries.send(bench.lines(1, 3, Instant::now())).await.unwrap();
        let begun = time::Instant::now();
        tokio::spawn(worker.run([receiver, mpsc::channel(1).1], stopped, None));
        assert!(bench.core.recv().await.is_some());
        assert!(begun.elapsed() <= Duration::from_secs(2), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_jail_forgets_those_who_went_quiet_or_were_let_go() {
        let (mut worker, bench) = Bench::new();
        let counters = Arc::clone(&worker.counters);
        let failing = || counters.failing.load(Ordering::Relaxed);
        for host in [1, 2] {
            worker.handle(bench.lines(host, 1, Instant::now())).await;
        }
        assert_eq!(failing(), 2);
        let (_deliveries, receiver) = mpsc::channel(1);
        let (_stop, stopped) = oneshot::channel();
        tokio::spawn(worker.run([receiver, mpsc::channel(1).1], stopped, None));
        time::sleep(IDLE / 2).await;
        assert_eq!(failing(), 2);
        bench.forgive(Some(1), None, Instant::now());
        time::sleep(IDLE).await;
        assert_eq!(failing(), 1);
        Now { wall: bench.now.wall + Duration::from_secs(601), ..bench.now }.fake();
        time::sleep(IDLE).await;
        assert_eq!(failing(), 0);
    }
}
