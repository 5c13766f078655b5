//! Which jail reads which source: starts, keeps and ends their tasks when the configuration
//! changes.

pub(crate) mod acks;
mod fanout;
mod ignore_command;
mod ignore_files;
mod own_bans;
mod worker;

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    task::JoinHandle,
};

use self::{
    acks::{Handled, Told},
    fanout::{Delivery, Fanout, Reader},
    ignore_command::Inquiry,
    own_bans::Bans,
    worker::{Forgiven, Rest, Worker},
};
pub(crate) use self::{own_bans::OwnBan, worker::Counters};
use crate::{
    clock::{Boot, Now},
    engine::command::Command,
    event::Bus,
    filter::{self, Filter, Scanner},
    jail::{self, Jail, Offenders},
    net::PrefixSet,
    source::{self, Looked},
    store::{Counts, Positions, Unbanned},
};

/// How long a jail whose task failed rests; doubled each time up to the last.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// Batches that may wait for a jail.
const QUEUE: usize = 4;

/// Unbans that may wait until a jail reads its next lines.
const FORGIVEN: usize = 256;

/// The tasks of all jails and sources.
pub(crate) struct Pipeline {
    core: mpsc::Sender<Command>,
    positions: Positions,
    bus: Bus,
    stats: source::Stats,
    jails: BTreeMap<Arc<str>, Running>,
    fanouts: HashMap<source::Spec, Fanout>,
    /// Networks that this host is a member of.
    onlink: watch::Sender<Arc<PrefixSet>>,
    /// The way to the jails that count bans; `None` if there is none.
    bans: Option<Bans>,
    /// What an earlier run counted, by jail, until the jail starts.
    counts: Counts,
    offenders: Offenders,
    forgiven: broadcast::Sender<Arc<Forgiven>>,
}

/// One jail's task.
struct Running {
    spec: Arc<jail::Spec>,
    /// Where its lines go.
    reader: Reader,
    /// Where bans go, if it counts them.
    bans: mpsc::Sender<Delivery>,
    /// Times that its task failed, and when it is started again if it does.
    deaths: u64,
    again: Option<Boot>,
    /// Dropped, it has the task end after the lines that it is at.
    stop: Option<oneshot::Sender<Infallible>>,
    task: Option<JoinHandle<Rest>>,
}

impl Running {
    /// It counts bans of this agent.
    fn counts_bans(&self) -> bool {
        self.spec.sources.contains(&source::Spec::Bans)
    }

    /// Returns whether its task has failed.
    fn is_dead(&self) -> bool {
        self.task.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Has it end after the lines that it is at; what it leaves comes out of the task.
    fn stop(mut self) -> Option<JoinHandle<Rest>> {
        self.stop = None;
        self.task.take()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Pipeline {
    pub(crate) fn new(core: mpsc::Sender<Command>, positions: Positions, bus: Bus) -> Pipeline {
        Pipeline {
            core,
            positions,
            bus,
            stats: source::Stats::default(),
            jails: BTreeMap::new(),
            fanouts: HashMap::new(),
            onlink: watch::Sender::default(),
            bans: None,
            counts: Counts::new(),
            offenders: Offenders::default(),
            forgiven: broadcast::Sender::new(FORGIVEN),
        }
    }

    /// Whom the jails that start from now on have banned before.
    pub(crate) fn remember(&mut self, offenders: Offenders) {
        self.offenders = offenders;
    }

    /// Has the jails forget what they counted for those who are let go.
    pub(crate) fn forgive(&self, who: Vec<Unbanned>, given: Instant) {
        // without a jail nobody counts
        let _ = self.forgiven.send(Arc::new(Forgiven { who, given }));
    }

    /// Has the jails that start from now on go on with what an earlier run counted.
    pub(crate) fn resume(&mut self, counts: Counts) {
        self.counts = counts;
    }

    /// Makes the running jails those of `specs`: unchanged ones go on with what they know, changed
    /// ones take over what their predecessors counted, and the lines that wait for them. Sources
    /// that are new drop their copy of `looked` once they have looked at what is there.
    ///
    /// # Errors
    /// If a filter does not compile; then nothing was changed.
    pub(crate) fn apply(
        &mut self,
        specs: &[Arc<jail::Spec>],
        looked: &Looked,
    ) -> Result<(), filter::Error> {
        let mut compiled = Vec::new();
        for spec in specs {
            // what is run besides, and what the operator accepts, is no matter of the jail's task
            let goes_on = self.jails.get(&spec.rules.name).is_some_and(|running| {
                running.spec.rules == spec.rules && running.spec.sources == spec.sources
            });
            if !goes_on {
                compiled.push((spec, Arc::new(Filter::compile(&spec.rules.filter)?)));
            }
        }
        self.jails.retain(|name, _| specs.iter().any(|spec| spec.rules.name == *name));
        for spec in specs {
            if let Some(running) = self.jails.get_mut(&spec.rules.name) {
                running.spec = Arc::clone(spec);
            }
        }
        for (spec, filter) in compiled {
            let former = self.jails.remove(&spec.rules.name);
            let running = self.start(spec, filter, former);
            self.jails.insert(Arc::clone(&spec.rules.name), running);
        }
        self.connect(looked);
        Ok(())
    }

    fn start(
        &mut self,
        spec: &Arc<jail::Spec>,
        filter: Arc<Filter>,
        former: Option<Running>,
    ) -> Running {
        let counts = self.counts.remove(&spec.rules.name).unwrap_or_default();
        let deaths = former.as_ref().map_or(0, |former| former.deaths);
        let counters = former.as_ref().map(|former| Arc::clone(&former.reader.counters));
        let counters = counters.unwrap_or_default();
        let mut onlink = self.onlink.subscribe();
        onlink.mark_changed();
        let lookup = Some(&spec.rules.lookup).filter(|lookup| !lookup.is_empty());
        let mut jail = Jail::new(&spec.rules);
        jail.resume(&counts);
        jail.remember(self.offenders.clone());
        let worker = Worker {
            ignored: lookup.map(|lookup| {
                ignore_files::start(Arc::clone(&spec.rules.name), lookup, Arc::clone(&counters))
            }),
            inquiry: spec
                .rules
                .ignorecommand
                .as_ref()
                .map(|rule| Inquiry::new(Arc::clone(&spec.rules.name), rule)),
            name: Arc::clone(&spec.rules.name),
            scanner: Scanner::new(Arc::clone(&filter)),
            jail,
            counters: Arc::clone(&counters),
            core: self.core.clone(),
            origin: None,
            onlink,
            forgiven: self.forgiven.subscribe(),
            lately: Vec::new(),
            bus: self.bus.clone(),
        };
        let (deliveries, lines) = mpsc::channel(QUEUE);
        let (bans, own) = mpsc::channel(own_bans::QUEUE);
        let (stop, stopped) = oneshot::channel();
        let former = former.and_then(Running::stop);
        let task = Some(tokio::spawn(worker.run([lines, own], stopped, former)));
        let (spec, stop) = (Arc::clone(spec), Some(stop));
        let reader = Reader { deliveries, filter, counters };
        Running { spec, reader, bans, deaths, again: None, stop, task }
    }

    /// Tells the jails the networks that this host is a member of.
    pub(crate) fn set_onlink(&self, networks: PrefixSet) {
        self.onlink.send_replace(Arc::new(networks));
    }

    /// Returns the networks that this host is a member of.
    pub(crate) fn onlink(&self) -> Arc<PrefixSet> {
        Arc::clone(&self.onlink.borrow())
    }

    /// Starts the sources that a jail reads, and ends those that none does.
    fn connect(&mut self, looked: &Looked) {
        let positions = self.positions.clone();
        let told: Told = Arc::new(move |handled: Handled| {
            positions.handled(handled.positions, handled.counted);
        });
        let mut readers: HashMap<source::Spec, Vec<Reader>> = HashMap::new();
        for running in self.jails.values() {
            let read = running.spec.sources.iter().filter(|spec| **spec != source::Spec::Bans);
            for source in read {
                readers.entry(source.clone()).or_default().push(running.reader.clone());
            }
        }
        self.fanouts.retain(|spec, _| readers.contains_key(spec));
        let counted = self.jails.values().any(Running::counts_bans);
        self.bans = self.bans.take().filter(|_| counted);
        if counted && self.bans.is_none() {
            self.bans = Some(Bans::new(self.stats.of_source(), Arc::clone(&told)));
        }
        for (spec, senders) in readers {
            if let Some(fanout) = self.fanouts.get(&spec).filter(|fanout| !fanout.has_ended()) {
                fanout.set_readers(senders);
                fanout.revive();
                continue;
            }
            let (resume, told) = (spec.resume(&self.positions.known()), Arc::clone(&told));
            let (source, stats) = (spec.clone(), &self.stats);
            let fanout = Fanout::start(source, senders, resume, stats, told, looked.clone());
            self.fanouts.insert(spec, fanout);
        }
    }

    /// Name, spec and counters of each jail, by name.
    pub(crate) fn jails(&self) -> impl Iterator<Item = (&jail::Spec, &Counters)> {
        self.jails.values().map(|running| (&*running.spec, &*running.reader.counters))
    }

    /// Returns the jails whose task has failed: how often, and whether it is
    /// so now.
    pub(crate) fn deaths(&self) -> impl Iterator<Item = (&str, u64, bool)> {
        let all = self.jails.values();
        all.map(|jail| (&*jail.spec.rules.name, jail.deaths, jail.is_dead()))
            .filter(|(_, deaths, dead)| *deaths > 0 || *dead)
    }

    /// Starts again what has failed: a source goes on behind what was handled,
    /// a jail with the next lines. One that fails again and again waits longer each time.
    pub(crate) fn revive(&mut self, now: Now) {
        let mut due = Vec::new();
        for running in self.jails.values_mut().filter(|running| running.is_dead()) {
            let again = running.again.get_or_insert_with(|| {
                let pause = PAUSE.0.saturating_mul(1 << running.deaths.min(16)).min(PAUSE.1);
                now.boot.after(pause)
            });
            if *again <= now.boot {
                due.push(Arc::clone(&running.spec));
            }
        }
        let ended = self.fanouts.values().any(Fanout::has_ended);
        let any = !due.is_empty();
        for spec in due {
            // it compiled before
            let Ok(filter) = Filter::compile(&spec.rules.filter) else { continue };
            let Some(mut former) = self.jails.remove(&spec.rules.name) else { continue };
            former.deaths += 1;
            log::error!("[{}] its task has failed; starting it again", spec.rules.name);
            let running = self.start(&spec, Arc::new(filter), Some(former));
            self.jails.insert(Arc::clone(&spec.rules.name), running);
        }
        if any || ended {
            self.connect(&mpsc::channel(1).0);
        }
    }

    /// What no jail does by itself.
    #[cfg(test)]
    pub(crate) fn kill(&self, jail: &str) {
        self.jails[jail].task.as_ref().unwrap().abort();
    }

    /// Returns the spec of one jail.
    pub(crate) fn jail(&self, name: &str) -> Option<&jail::Spec> {
        self.jails.get(name).map(|running| &*running.spec)
    }

    /// An offence of this jail became a ban.
    pub(crate) fn count_ban(&self, jail: &str) {
        if let Some(running) = self.jails.get(jail) {
            running.reader.counters.total.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells the jails that count bans of these, also from before this agent ran.
    pub(crate) fn tell_bans(&self, mut past: Vec<OwnBan>) {
        let Some(bans) = &self.bans else { return };
        // a jail's own bans would keep it going for ever
        past.retain(|ban| !self.jails.get(&ban.jail).is_some_and(Running::counts_bans));
        past.sort_by_key(|ban| ban.at);
        if !past.is_empty() {
            let counting = self.jails.values().filter(|running| running.counts_bans());
            bans.tell(past, counting.map(|running| &running.bans));
        }
    }

    /// Returns what the sources count.
    pub(crate) fn stats(&self) -> &source::Stats {
        &self.stats
    }
}
