//! The core task: owns ledger, maps and store, and takes one message after the other.
//!
//! Law 4 lives here. A ban goes to the kernel, then to the store, and is reported once the store
//! has it; an unban is handed to the store first, and reported like a ban. A kernel step that
//! failed stays pending, is retried, and is visible in `status`.
//!
//! Law 11 as well: nothing holds this task for longer than about two milliseconds. Offences come
//! first, a few hundred at a time; between two such batches there is one part of a request, then one of
//! somebody who may only look, then one of what is to be done for all bans ([`chores`]).

mod actions;
mod alarms;
#[cfg(test)]
mod bulk;
mod chores;
pub(crate) mod command;
#[cfg(test)]
mod crashes;
mod deadline;
mod decide;
mod error;
mod extend;
mod hold;
mod latency;
#[cfg(test)]
mod laws;
mod orders;
mod outbox;
mod patrol;
pub(crate) mod probation;
mod record;
mod requests;
mod restore;
#[cfg(test)]
mod rig;
mod snapshot;
pub(crate) mod trial;

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use sd_notify::NotifyState;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::MissedTickBehavior,
};

use self::{
    actions::Actions,
    alarms::Alarms,
    chores::{Chores, PART},
    command::Command,
    deadline::{ClockSteps, Deadline},
    hold::Holds,
    latency::Latency,
    orders::Orders,
    outbox::{Entry, Outbox, PendingReply},
    patrol::Patrol,
    probation::Probation,
    trial::Trial,
};
pub use self::{error::Error, trial::Grace};
use crate::{
    clock::Now,
    config::{self, Config, Disk},
    control::{Access, Asked, Refusal, Reply},
    dataplane::DataPlane,
    event::{Action, Bus, Event, What},
    jail::Breaker,
    ledger::{Cause, Ended, Holder, Ledger, Looks, Op, Plan},
    net::IpNet,
    pipeline::Pipeline,
    protect::{Group, Sessions, Watcher},
    report::Deliveries,
    source::{self, Looked},
    store::{Asker, Store, UnbanMarks},
};

/// Messages handled together: their bans reach the kernel in one batch.
const BATCH: usize = 256;
/// Bans of one batch that may have made room before their end is told.
const ENDED: usize = 64;
/// How long a failed kernel step waits for its next try.
const RETRY: Duration = Duration::from_secs(1);
/// How often interfaces and pins are looked at.
const GUARD: Duration = Duration::from_secs(1);
/// Failed kernel steps after which a try is given up until the next one.
const FAILURES: u32 = 16;
/// While there is other work, those who may only look wait so many times as long as the answer
/// before took.
const READERS_WAIT: u32 = 9;

/// Messages that may wait for the core: a burst of offences, and no more.
pub(crate) const QUEUE: usize = 1024;

/// Requests that may wait for the core, of those who may change something and of the others.
pub(crate) const ASKING: usize = 16;

/// What `run` was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file, for a reload.
    pub path: PathBuf,
    /// The configuration as it stands in the file.
    pub config: Config,
    /// Its `[agent]` section with the command line over it.
    pub agent: config::Agent,
    /// Take an XDP slot that another program holds.
    pub replace: bool,
    /// Enforce on trial.
    pub grace: Option<Grace>,
}

/// Everything that the agent decides with.
pub(crate) struct Engine {
    config: Config,
    path: PathBuf,
    ledger: Ledger,
    pub(crate) xdp: Box<dyn DataPlane>,
    pub(crate) store: Store,
    pipeline: Pipeline,
    actions: Actions,
    /// What the operator let go of lately.
    unban_marks: UnbanMarks,
    /// Bans whose kernel step failed.
    pending: BTreeSet<IpNet>,
    /// The last of them that was tried again.
    retried: Option<IpNet>,
    kernel_error: Option<String>,
    /// The kernel's allow list is not that of the ledger.
    allow_due: bool,
    started: Timestamp,
    /// How long lines took to become bans.
    latency: Latency,
    outbox: Outbox,
    /// Where everybody listens.
    bus: Bus,
    /// Who may change anything.
    pub(crate) access: Access,
    /// Why the operator banned whom he did, as long as the ban lasts; not more than so many.
    reasons: HashMap<(IpNet, Holder), Arc<str>>,
    /// What the hooks count, by name.
    pub(crate) hooks: Vec<(Arc<str>, Arc<Deliveries>)>,
    /// Somebody listens for dropped packets.
    sampling: bool,
    /// Who asks for what is being done, `None`: nobody does.
    asker: Option<Arc<Asker>>,
    orders: Orders,
    /// Why he asks.
    why: Option<String>,
    /// What is being decided lets go of all that a jail holds, or of all.
    flush: bool,
    /// It is answered before the disk has it.
    early: bool,
    /// It is one of so many that nobody is told of it alone.
    quiet: bool,
    /// What is wrong.
    alarms: Alarms,
    trouble: Arc<Notify>,
    /// `None` until [`Engine::protect`].
    watcher: Option<Watcher>,
    /// Whom no log line bans, for people.
    protected: Vec<Group>,
    /// One for each jail that has banned somebody.
    breakers: HashMap<Arc<str>, Breaker>,
    /// Whether it enforces for good.
    probation: Probation,
    /// Counters that decide whether a ban is extended.
    looks: Looks,
    /// Sees that all that enforces stays in place.
    patrol: Patrol,
    leaving: Option<Leaving>,
    /// Until when other work goes before those who may only look.
    readers_due: Instant,
    chores: Chores,
    holds: Holds,
}

/// Why the core ends.
enum Leaving {
    /// Enforcement stays.
    Stop,
    /// Enforcement was ended by force, while the agent hung.
    Detached,
    /// Enforcement ends; whoever asked for it waits for this answer.
    Detach(oneshot::Sender<Reply>),
}

impl Engine {
    pub(crate) fn new(
        options: Options,
        xdp: Box<dyn DataPlane>,
        store: Store,
        trial: Trial,
        pipeline: Pipeline,
        bus: Bus,
        now: Now,
    ) -> Engine {
        let trouble = Arc::new(Notify::new());
        let disk = Disk::of(&options.path, &options.config.files);
        let max_bans = usize::try_from(options.agent.max_bans).unwrap_or(usize::MAX);
        let mut store = store;
        store.set_max_bans(max_bans);
        Engine {
            ledger: Ledger::new(max_bans),
            actions: Actions::new(options.agent.max_actions, options.agent.dry_run),
            outbox: Outbox::start(bus.clone(), Arc::clone(&trouble), store.patience()),
            config: options.config,
            path: options.path,
            xdp,
            store,
            pipeline,
            bus,
            access: Access::default(),
            reasons: HashMap::new(),
            hooks: Vec::new(),
            sampling: false,
            asker: None,
            orders: Orders::default(),
            why: None,
            flush: false,
            early: false,
            quiet: false,
            alarms: Alarms::new(disk),
            trouble,
            unban_marks: UnbanMarks::default(),
            pending: BTreeSet::new(),
            retried: None,
            kernel_error: None,
            allow_due: false,
            started: now.wall,
            latency: Latency::default(),
            watcher: None,
            protected: Vec::new(),
            breakers: HashMap::new(),
            probation: Probation::new(trial, &options.agent.state, now),
            looks: Looks::default(),
            patrol: Patrol::new(),
            leaving: None,
            readers_due: Instant::now(),
            chores: Chores::default(),
            holds: Holds::default(),
        }
    }

    /// Takes messages until it is told to end.
    pub(crate) async fn run(
        mut self,
        mut messages: mpsc::Receiver<Command>,
        mut requests: mpsc::Receiver<Asked>,
        mut questions: mpsc::Receiver<Asked>,
    ) -> Result<(), Error> {
        let mut deadline = Deadline::new().map_err(|error| Error::System("make a timer", error))?;
        let mut batch = Vec::with_capacity(BATCH);
        // systemd restarts an agent that hangs; without systemd nothing wakes up for this
        let period = sd_notify::watchdog_enabled().map(|period| period / 2);
        let mut pulse = tokio::time::interval(period.unwrap_or(RETRY));
        let mut retry = tokio::time::interval(RETRY);
        let mut steps = ClockSteps::new().map_err(|error| Error::System("make a timer", error))?;
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut soon, mut look) =
            (tokio::time::interval(alarms::SOON), tokio::time::interval(alarms::LOOK));
        soon.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut guards = tokio::time::interval(GUARD);
        guards.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let trouble = Arc::clone(&self.trouble);
        // what still waits at the end was decided by nobody: it is read again
        let closing = self.store.positions().closing();
        while self.leaving.is_none() {
            let waits = !self.pending.is_empty() || self.chores.expire;
            let next = if waits { None } else { self.ledger.next_deadline() };
            let next = next.into_iter().chain(self.probation.deadline());
            let next = next.chain(self.looks.next()).min();
            deadline.set(next).map_err(|error| Error::System("set a timer", error))?;
            // biased: a flood of messages starves no timer
            tokio::select! {
                biased;
                _ = pulse.tick(), if period.is_some() => {
                    tell_systemd(&[NotifyState::Watchdog]);
                }
                fired = deadline.reached() => {
                    fired.map_err(|error| Error::System("wait for a timer", error))?;
                    self.held("expiry", |engine| engine.expire(Now::read()));
                }
                stepped = steps.next() => {
                    stepped.map_err(|error| Error::System("watch the clocks", error))?;
                    self.held("a clock step", |engine| engine.clocks_changed(Now::read()));
                }
                _ = retry.tick(), if !self.sound() => self.held("a retry", |engine| {
                    engine.expire(Now::read());
                    engine.retry(Now::read());
                }),
                _ = guards.tick() => {
                    self.held("a look at the interfaces", Engine::guard);
                    self.held("orders", |engine| engine.look_at_orders(Now::read()));
                }
                () = tokio::time::sleep_until(self.patrol.next()) => {
                    self.held("patrol", |engine| engine.patrol(Now::read()));
                }
                () = trouble.notified() => {}
                _ = soon.tick(), if self.alarms.due => {
                    self.held("alarms", |engine| engine.look_for_alarms(Now::read()));
                    continue;
                }
                _ = look.tick() => {
                    self.held("alarms", |engine| {
                        engine.look_at_disk();
                        engine.pipeline.revive(Now::read());
                        engine.look_for_alarms(Now::read());
                    });
                    continue;
                }
                count = messages.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    self.held("offences", |engine| engine.handle(batch.drain(..)));
                    // a flood of messages silences nobody
                    if let Ok(asked) = requests.try_recv() {
                        self.request(asked);
                    }
                    // but those who may only look get no more than a small part of the time
                    if Instant::now() >= self.readers_due
                        && let Ok(asked) = questions.try_recv()
                    {
                        self.question(asked);
                    }
                    self.one_chore();
                }
                Some(asked) = requests.recv() => {
                    let slice = self.slice();
                    self.request(asked);
                    // further parts, until an offence waits
                    while messages.is_empty() && !slice.is_over()
                        && let Ok(asked) = requests.try_recv()
                    {
                        self.request(asked);
                    }
                    self.one_chore();
                }
                Some(asked) = questions.recv() => {
                    self.question(asked);
                    self.one_chore();
                }
                // whoever has come in the meantime goes first
                () = tokio::task::yield_now(), if self.has_chores() => self.one_chore(),
            }
            self.alarms.due = true;
        }
        drop(closing);
        drop((messages, requests, questions));
        self.leave().await
    }

    /// Whether kernel and store hold all they should; if not, it is tried again every so often.
    fn sound(&self) -> bool {
        self.pending.is_empty()
            && !self.allow_due
            && self.store.state().is_sound()
            && !self.store.wants_snapshot()
    }

    /// The clock may have been set back since somebody was let go.
    fn cap_unban_marks(&mut self, now: Now) {
        for (unbanned, at) in self.unban_marks.cap(now.wall) {
            self.store.mark_unban(unbanned, at);
        }
    }

    /// The wall clock was set, or the machine slept. Deadlines do not care, but the ends that the
    /// maps and the store show are by the wall clock, and the kernel's ticks stood still.
    fn clocks_changed(&mut self, now: Now) {
        log::info!("the clock was set, or the machine slept: writing the ends of all bans again");
        self.expire(now);
        self.cap_unban_marks(now);
        self.chores.rewrite = Some(None);
        self.rewrite_store();
    }

    async fn leave(self) -> Result<(), Error> {
        tell_systemd(&[NotifyState::Stopping]);
        let kept = self.probation.trial() == Trial::Over;
        let Engine { xdp, store, outbox, pipeline, actions, leaving, .. } = self;
        let mut result = Ok(());
        if let Some(Leaving::Detached) = leaving {
            log::warn!("stopped: it was detached by force, no ban is enforced any more");
        } else if let Some(Leaving::Detach(reply)) = leaving {
            // before anything that takes time: somebody may be locked out
            let (answer, detached) = requests::detach(xdp);
            // the asker may have gone
            let _ = reply.send(answer);
            result = detached;
        } else if kept {
            log::info!("stopped; the bans stay enforced");
        } else {
            log::warn!("stopped; nothing is enforced, because the trial was not confirmed");
        }
        drop(pipeline);
        outbox.finish().await;
        actions.finish().await;
        store.close();
        result
    }

    fn handle(&mut self, messages: impl Iterator<Item = Command>) {
        let now = Now::read();
        let mut plan = Plan::default();
        let mut events = Vec::new();
        let (mut allow, mut look) = (false, false);
        // until all of it is committed
        let mut acks = Vec::new();
        for message in messages {
            match message {
                Command::Named { jail, named, ack } => {
                    self.actions.named(&jail, &named, now);
                    acks.extend(ack);
                }
                Command::Offence { jail, offence, read, ack } => {
                    acks.extend(ack);
                    self.end_before(offence.prefix, &mut plan, &mut events, now);
                    self.holds.waited(read);
                    self.latency.begin(read);
                    self.offence(jail, offence, read, now, &mut plan, &mut events);
                    look = true;
                }
                Command::Sample(on) => {
                    self.sampling = on;
                    self.sample();
                }
                // a reader that gave up needs no answer
                Command::Survey(reader) => drop(reader.send(self.snapshot(Now::read()))),
                Command::Call(call) if call.reply.is_closed() => {}
                Command::Roll(roll) => {
                    drop(roll.reply.send(self.roll(roll.jail.as_deref(), roll.after, now)));
                }
                Command::Page(page) => drop(page.reply.send(self.page(&page.prefixes, now))),
                Command::Compare(compare) => {
                    drop(compare.reply.send(self.compare_maps(compare.round)));
                }
                Command::Release(release) if release.reply.is_closed() => {}
                Command::Release(release) => {
                    self.commit(std::mem::take(&mut plan), std::mem::take(&mut events), None, now);
                    self.release(release, now);
                }
                Command::Call(call) => {
                    // a call sees, and is answered after, everything that came before it
                    self.commit(std::mem::take(&mut plan), std::mem::take(&mut events), None, now);
                    self.answer(call, now);
                }
                Command::HostNetwork(host) => {
                    self.ledger.set_protected(&host.protected, &mut plan);
                    self.protected = host.groups;
                    self.set_onlink(host.onlink, &mut plan);
                    self.patrol.moved = true;
                    allow = true;
                }
                // a host of many containers has links come and go all the time
                Command::Interfaces => self.patrol.moved = true,
                Command::Reload => match self.reload() {
                    Ok(_) => log::info!("configuration reloaded"),
                    Err(error) => log::error!("configuration not reloaded: {error}"),
                },
                Command::Stop => self.leaving = Some(Leaving::Stop),
            }
        }
        self.commit(plan, events, None, now);
        drop(acks);
        if let (true, Some(watcher)) = (look, &self.watcher) {
            // nothing tells of a login: whoever was banned may have a session by now
            watcher.look();
        }
        if allow {
            self.allow();
        }
    }

    /// The end of a ban is recorded and told before it is made anew.
    fn end_before(&mut self, prefix: IpNet, plan: &mut Plan, events: &mut Vec<Event>, now: Now) {
        let again = |ended: &Ended| ended.claim.prefix.contains(&prefix);
        if plan.ended.len() > ENDED || plan.ended.iter().any(again) {
            self.commit(std::mem::take(plan), std::mem::take(events), None, now);
        }
    }

    /// One part of what an operator asks.
    fn request(&mut self, asked: Asked) {
        let what = asked.name();
        self.held(what, |engine| engine.handle(std::iter::once(asked.into())));
    }

    /// One part of what is to be done for all bans, if anything is.
    fn one_chore(&mut self) {
        if self.has_chores() {
            self.held("chores", |engine| {
                let slice = engine.slice();
                engine.chore(Now::read());
                while engine.has_chores() && !slice.is_over() {
                    engine.chore(Now::read());
                }
            });
        }
    }

    /// Answers somebody who may only look, if he still waits.
    fn question(&mut self, asked: Asked) {
        let begun = Instant::now();
        if !asked.is_forgotten() {
            self.request(asked);
        }
        self.readers_due = Instant::now() + begun.elapsed() * READERS_WAIT;
    }

    /// Learns what must not be banned, and goes on hearing of it.
    pub(crate) fn protect(
        &mut self,
        sessions: Sessions,
        sender: mpsc::Sender<Command>,
    ) -> Result<(), Error> {
        let (watcher, host) =
            Watcher::start(sessions, self.config.agent.protect.clone(), move |host| {
                // the core is gone: nobody needs to know
                let _ = sender.blocking_send(Command::HostNetwork(host));
            })?;
        self.watcher = Some(watcher);
        self.set_onlink(host.onlink, &mut Plan::default());
        self.ledger.set_protected(&host.protected, &mut Plan::default());
        self.protected = host.groups;
        Ok(())
    }

    /// Ends what is due, or the first of it.
    fn expire(&mut self, now: Now) {
        self.look_at_hits(now);
        self.expire_part(now);
        self.lapse(now);
    }

    /// Carries a plan out, and has it reported once the store has it. Whether a step of it waits for
    /// the kernel.
    fn commit(
        &mut self,
        mut plan: Plan,
        mut events: Vec<Event>,
        mut asking: Option<PendingReply>,
        now: Now,
    ) -> bool {
        self.narrow(&mut plan, now);
        let flush = std::mem::take(&mut self.flush);
        if !plan.ended.is_empty() {
            self.store.release_all(plan.ended.iter().map(|ended| &ended.claim));
        }
        for ended in &plan.ended {
            if !self.reasons.is_empty() {
                self.reasons.remove(&(ended.claim.prefix, ended.claim.holder.clone()));
            }
            if ended.cause == Cause::Evicted {
                let prefix = ended.claim.prefix;
                log::warn!("{prefix} made room for another ban: raise [agent] max_bans");
            }
            self.actions.tell_unbanned(&mut self.store, &ended.claim, flush, now);
            if !(self.quiet && ended.cause == Cause::Released) {
                events.push(Event::of(Action::Unban(ended.cause), &ended.claim, now));
            }
        }
        // what was banned by force, and must not be, is not dropped any more
        let forced = plan.ended.iter().any(|Ended { claim, .. }| {
            claim.holder == Holder::Manual && self.ledger.is_protected(claim.prefix)
        });
        if forced {
            self.allow();
        }
        for event in &mut events {
            if let What::Ban(ban) = &mut event.what {
                ban.by = self.asker.as_ref().map(|asker| asker.user);
            }
        }
        self.record(&events);
        self.enforce(&plan.ops, now);
        self.latency.settle(&self.pending);
        let stuck = plan.ops.iter().any(|op| self.pending.contains(&op.prefix()));
        if let (true, Some((_, reply))) = (stuck, &mut asking) {
            *reply = Reply::Error(self.not_in_kernel());
        }
        let orders = self.actions.take_orders();
        if self.early
            && let Some((sender, reply)) = asking.take()
        {
            // more follows, which is waited for; the asker may have gone
            let _ = sender.send(reply);
        }
        if !events.is_empty() || asking.is_some() || !orders.is_empty() {
            let durable = self.store.barrier();
            self.outbox.report(Entry { durable, events, orders, pending: asking });
        }
        stuck
    }

    fn not_in_kernel(&self) -> Refusal {
        let error = self.kernel_error.as_deref().unwrap_or("others are tried before it");
        Refusal {
            code: 2,
            message: format!("recorded, but not in the kernel yet: {error}"),
            hint: Some("the agent retries every second; see `ban-agent status`".into()),
        }
    }

    /// Brings the kernel in line; what fails is remembered and tried again.
    fn enforce(&mut self, ops: &[Op], now: Now) {
        if ops.is_empty() {
            return;
        }
        match self.xdp.apply(ops, now) {
            Ok(()) if self.pending.is_empty() => {}
            Ok(()) => {
                for op in ops {
                    self.pending.remove(&op.prefix());
                }
                self.retry(now);
            }
            Err(_) => {
                self.pending.extend(ops.iter().map(Op::prefix));
                self.retry(now);
            }
        }
    }

    /// Tells the kernel what it must never drop.
    fn allow(&mut self) {
        self.allow_due = true;
        self.retry(Now::read());
    }

    /// Tries again what failed, as the ledger has it now.
    fn retry(&mut self, now: Now) {
        self.chores.retry = false;
        if self.store.wants_snapshot() && self.chores.gather.is_none() {
            self.rewrite_store();
        }
        if self.pending.is_empty() && !self.allow_due && self.kernel_error.is_none() {
            return;
        }
        match self.write_pending(now) {
            Ok(()) => {
                self.latency.settle(&self.pending);
                // the rest of them, if there are more
                self.chores.retry = !self.pending.is_empty();
                if self.kernel_error.take().is_some() {
                    log::info!("the kernel takes bans again");
                }
            }
            Err(error) => {
                let error = format!("{error:#}");
                if self.kernel_error.as_ref() != Some(&error) {
                    log::error!("{} bans are not in the kernel yet: {error}", self.pending.len());
                }
                self.kernel_error = Some(error);
            }
        }
    }

    /// The allow list first: it wins. Then some bans one after the other, so that one that the kernel
    /// refuses holds no other back; those behind them come next time.
    fn write_pending(&mut self, now: Now) -> anyhow::Result<()> {
        let mut failed: Option<anyhow::Error> = None;
        if self.allow_due {
            // a list that the kernel does not take keeps no ban from it
            failed = self.xdp.allow(&self.ledger.never_dropped()).err();
            self.allow_due = failed.is_some();
        }
        let mut failures = 0;
        let behind = self.retried.map_or(Bound::Unbounded, Bound::Excluded);
        let mut due: Vec<IpNet> =
            self.pending.range((behind, Bound::Unbounded)).take(PART).copied().collect();
        let before = self.pending.iter().take_while(|prefix| Some(**prefix) <= self.retried);
        due.extend(before.take(PART - due.len()).copied());
        let is_held = |prefix: &IpNet| self.ledger.get(*prefix).is_some();
        // what goes makes room in a full map for what comes
        let (held, gone): (Vec<_>, Vec<_>) = due.into_iter().partition(is_held);
        for prefix in gone.into_iter().chain(held) {
            let op = match self.ledger.get(prefix) {
                Some(ban) => Op::Set(prefix, ban.enforced()),
                None => Op::Clear(prefix),
            };
            self.retried = Some(prefix);
            match self.xdp.apply(&[op], now) {
                Ok(()) => drop(self.pending.remove(&prefix)),
                Err(error) => {
                    failures += 1;
                    failed.get_or_insert(error);
                    if failures == FAILURES {
                        break;
                    }
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Starts the jails of the configuration; their sources drop `looked` once they have looked.
    pub(crate) fn start_jails(&mut self, looked: &Looked) -> Result<(), Error> {
        self.pipeline.apply(&self.config.jails, looked).map_err(Error::Filter)?;
        self.watch_hits();
        // a jail that was left out goes on where it was, once it is mended
        if self.config.refused.is_empty() {
            self.forget_positions();
        }
        Ok(())
    }

    /// A source that no jail of the configuration reads begins anew, should it ever come back. What it
    /// still has under way may be recorded once more, until the next time.
    fn forget_positions(&mut self) {
        let sources = self.config.jails.iter().flat_map(|jail| &jail.sources);
        let positions = self.store.positions();
        let left = source::unclaimed(sources, &positions.known());
        positions.handled(left.into_iter().map(|key| (key, None)), []);
    }

    /// The program tells of dropped packets only while somebody listens.
    fn sample(&self) {
        self.xdp.set_sampling(if self.sampling { self.config.events.sample } else { 0 });
    }
}

/// Tells systemd, if it started us; elsewhere nothing happens.
pub(crate) fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot notify systemd: {error}");
    }
}
