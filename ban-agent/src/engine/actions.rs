//! Tells the actions of a jail what became of its claims. What is told is gathered while the core
//! decides, and given once the store has it, like every other report.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{sync::Semaphore, time};

use crate::{
    action::{Action, Job, Order, Past, Spec, Ticket},
    children,
    clock::{Boot, Now},
    control::ActionStatus,
    event::escape,
    jail::{self, Named, Offence},
    ledger::{Change, Claim, Holder},
    net::IpNet,
    store::Store,
};

/// Bans whose circumstances are kept in memory for those who are told of their end.
const KEPT: usize = 8192;
/// How many of those who were only told of are remembered.
const TOLD: usize = 65_536;

/// How long a stop waits for actions; what still runs then is killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// The running actions of all jails.
pub(super) struct Actions {
    permits: Arc<Semaphore>,
    dry_run: bool,
    running: BTreeMap<(Arc<str>, Arc<str>), Action>,
    /// What is to be told once the store has what was decided.
    orders: Vec<Order>,
    /// Those that are told to flush then, by their titles.
    flushed: Vec<Arc<str>>,
    /// Whom jails have banned since a release of all began, which took away all before: each of
    /// them is told of by himself. `None`: no release goes on, or there are too many.
    since_flush: Option<HashSet<(Arc<str>, IpNet)>>,
    /// What was told of live bans, by jail, where their end is told with it.
    kept: HashMap<(Arc<str>, IpNet), Arc<Ticket>>,
    /// Until when an offender is not told of again whom no packet filter bans.
    told: HashMap<(Arc<str>, String), Boot>,
}

impl Actions {
    /// At most `most` commands run at once. A dry run runs none: what they do is real.
    pub(super) fn new(most: u32, dry_run: bool) -> Actions {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(most));
        Actions {
            permits,
            dry_run,
            running: BTreeMap::new(),
            orders: Vec::new(),
            flushed: Vec::new(),
            since_flush: None,
            kept: HashMap::new(),
            told: HashMap::new(),
        }
    }

    /// Makes the running actions those of `jails`: unchanged ones go on, the others stop after
    /// what they were told.
    pub(super) fn apply(&mut self, jails: &[Arc<jail::Spec>]) {
        let jails = if self.dry_run { &[] } else { jails };
        let key =
            |jail: &jail::Spec, spec: &Spec| (Arc::clone(&jail.rules.name), Arc::clone(&spec.name));
        let wanted: BTreeMap<_, _> = jails
            .iter()
            .flat_map(|jail| jail.actions.iter().map(move |spec| (key(jail, spec), spec)))
            .collect();
        let mut former = std::mem::take(&mut self.running);
        for (key, spec) in wanted {
            let known = former.remove(&key);
            let action = match known {
                Some(action) if action.spec() == &**spec => {
                    action.order(Job::Reload).give();
                    action
                }
                known => Action::start(Spec::clone(spec), &key.0, Arc::clone(&self.permits), known),
            };
            self.running.insert(key, action);
        }
    }

    /// Returns the actions of one jail.
    fn of<'a>(&'a self, jail: &'a str) -> impl Iterator<Item = &'a Action> {
        self.running.iter().filter(move |((name, _), _)| **name == *jail).map(|(_, action)| action)
    }

    /// Returns what `status` shows.
    pub(super) fn status(&self, jail: &str) -> Vec<ActionStatus> {
        let status = |action: &Action| {
            let stats = action.stats();
            ActionStatus {
                name: action.spec().name.to_string(),
                done: stats.done(),
                failed: stats.failed(),
                dropped: stats.dropped(),
                error: stats.error(),
            }
        };
        self.of(jail).map(status).collect()
    }

    /// Keeps what is told of a ban, if it will be asked for again and there is room.
    fn keep(&mut self, jail: &Arc<str>, ticket: &Arc<Ticket>) {
        let Some(prefix) = ticket.prefix else { return };
        let key = (Arc::clone(jail), prefix);
        let room = self.kept.len() < KEPT || self.kept.contains_key(&key);
        if room && self.of(jail).any(|action| action.spec().looks_back()) {
            self.kept.insert(key, Arc::clone(ticket));
        }
    }

    /// Returns whether an offender is told of from now on; until `until` not again.
    fn begins(&mut self, jail: &Arc<str>, whom: String, until: Boot, now: Boot) -> bool {
        if self.told.len() >= TOLD {
            self.told.retain(|_, until| *until > now);
        }
        let key = (Arc::clone(jail), whom);
        let known = self.told.get(&key).is_some_and(|until| *until > now);
        if known || self.told.len() < TOLD {
            self.told.insert(key, until);
        }
        !known
    }

    /// Returns what was gathered since the last time.
    pub(super) fn take_orders(&mut self) -> Vec<Order> {
        std::mem::take(&mut self.orders)
    }

    /// A release of all begins: each action that can flush does so once.
    pub(super) fn begin_flush(&mut self) {
        self.flushed.clear();
        self.since_flush = Some(HashSet::new());
    }

    /// It is over.
    pub(super) fn end_flush(&mut self) {
        self.flushed.clear();
        self.since_flush = None;
    }

    /// Returns whether a ban was there when all were let go at once.
    fn was_flushed(&mut self, jail: &Arc<str>, prefix: IpNet) -> bool {
        let since = self.since_flush.as_mut();
        since.is_some_and(|since| !since.remove(&(Arc::clone(jail), prefix)))
    }

    /// Lets all of them work off what they were told and stop, but not for ever.
    pub(super) async fn finish(self) {
        let deadline = time::Instant::now() + PATIENCE;
        let mut late = Vec::new();
        let tasks: Vec<_> =
            self.running.into_values().map(|action| tokio::spawn(action.finish())).collect();
        for mut task in tasks {
            if time::timeout_at(deadline, &mut task).await.is_err() {
                late.push(task);
            }
        }
        if late.is_empty() {
            return;
        }
        log::error!("{} actions were not done after {PATIENCE:?}: killed", late.len());
        // no further command begins, and those that run end with all they have started
        self.permits.close();
        children::end_all().await;
        for task in late {
            task.abort();
        }
    }

    /// A claim of a jail was made or became longer: its actions are told. To be called before the
    /// store learns of it.
    pub(super) fn tell_banned(
        &mut self,
        store: &mut Store,
        claim: &Claim,
        change: &Change,
        offence: Option<&Offence>,
        now: Now,
    ) {
        let Holder::Jail(jail) = &claim.holder else { return };
        if self.of(jail).next().is_none() {
            return;
        }
        let prolonged = match change {
            Change::New | Change::Joined => false,
            Change::Extended => true,
            _ => return,
        };
        let mut ticket = self.ticket(store, jail, claim, offence, prolonged, now);
        if prolonged && let Some(first) = self.kept.get(&(Arc::clone(jail), claim.prefix)) {
            ticket = Ticket { time: ticket.time, bantime: ticket.bantime, ..Ticket::clone(first) };
        }
        let ticket = Arc::new(ticket);
        if let Some(since) = &mut self.since_flush {
            since.insert((Arc::clone(jail), claim.prefix));
            if since.len() > TOLD {
                self.since_flush = None;
            }
        }
        self.keep(jail, &ticket);
        let orders: Vec<Order> = self
            .of(jail)
            .map(|action| {
                let ticket = Arc::clone(&ticket);
                action.order(if prolonged { Job::Prolong(ticket) } else { Job::Ban(ticket) })
            })
            .collect();
        self.orders.extend(orders);
    }

    /// A claim of an earlier run goes on.
    pub(super) fn tell_restored(&mut self, store: &mut Store, claim: &Claim, now: Now) {
        let Holder::Jail(jail) = &claim.holder else { return };
        let told = || self.of(jail).filter(|action| !action.spec().norestored);
        if told().next().is_none() {
            return;
        }
        let mut ticket = Ticket { restored: true, ..plain(claim, now) };
        if told().any(|action| action.spec().tells_why()) {
            recall(store, jail, claim, &mut ticket, now);
        }
        let ticket = Arc::new(ticket);
        let told = self.of(jail).filter(|action| !action.spec().norestored);
        let orders: Vec<Order> =
            told.map(|action| action.order(Job::Ban(Arc::clone(&ticket)))).collect();
        self.orders.extend(orders);
    }

    /// A claim ended. `flush`: with all others of its jail, and an action that can lets all go at
    /// once.
    pub(super) fn tell_unbanned(
        &mut self,
        store: &mut Store,
        claim: &Claim,
        flush: bool,
        now: Now,
    ) {
        let Holder::Jail(jail) = &claim.holder else { return };
        let ticket = Arc::new(self.former(store, jail, claim, now));
        let flush = flush && self.was_flushed(jail, claim.prefix);
        let (mut orders, mut flushed) = (Vec::new(), Vec::new());
        for action in self.of(jail) {
            let flushes = || !action.spec().commands(ticket.family()).flush.is_empty();
            if !(flush && flushes()) {
                orders.push(action.order(Job::Unban(Arc::clone(&ticket))));
            } else if !self.flushed.contains(action.title()) {
                flushed.push(Arc::clone(action.title()));
                orders.push(action.order(Job::Flush));
            }
        }
        self.flushed.extend(flushed);
        self.orders.extend(orders);
    }

    /// Returns what a ban was, that ends; of one of an earlier run, what is on record.
    fn former(&mut self, store: &mut Store, jail: &Arc<str>, claim: &Claim, now: Now) -> Ticket {
        if let Some(kept) = self.kept.remove(&(Arc::clone(jail), claim.prefix)) {
            return Arc::unwrap_or_clone(kept);
        }
        let mut ticket = Ticket { ended: true, ..plain(claim, now) };
        if self.of(jail).any(|action| action.spec().looks_back()) {
            recall(store, jail, claim, &mut ticket, now);
        }
        ticket
    }

    /// What is no address has failed too often in a jail: its actions are told, once in a bantime.
    pub(super) fn named(&mut self, jail: &Arc<str>, named: &Named, now: Now) {
        let whom = escape(named.id.as_bytes());
        let ticket = Ticket {
            time: named.time,
            bantime: named.duration,
            failures: named.failures,
            bancount: 1,
            matches: named.evidence.clone(),
            fields: named.fields.clone(),
            ..Ticket::default()
        };
        self.tell_only(jail, whom, ticket, now);
    }

    /// An offender that this agent does not ban has failed too often: the actions of the jail are
    /// told. False: they were told within this bantime.
    pub(super) fn tell_only(
        &mut self,
        jail: &Arc<str>,
        whom: String,
        ticket: Ticket,
        now: Now,
    ) -> bool {
        let until = ticket.bantime.map_or(Boot::NEVER, |bantime| {
            now.boot_of(ticket.time.checked_add(bantime).unwrap_or(Timestamp::MAX))
        });
        let shown = whom.clone();
        if !self.begins(jail, whom, until, now.boot) {
            return false;
        }
        log::info!(
            "[{jail}] {shown} has failed too often: not banned, only the jail's actions run"
        );
        let ticket = Arc::new(ticket);
        let tell = |action: &Action| action.order(Job::Ban(Arc::clone(&ticket)));
        let orders: Vec<Order> = self.of(jail).map(tell).collect();
        self.orders.extend(orders);
        true
    }

    fn ticket(
        &self,
        store: &mut Store,
        jail: &str,
        claim: &Claim,
        offence: Option<&Offence>,
        prolonged: bool,
        now: Now,
    ) -> Ticket {
        let mut ticket = offence.map_or_else(|| plain(claim, now), Ticket::of);
        ticket.prefix = Some(claim.prefix);
        ticket.bantime = now
            .wall_of(claim.until)
            .map(|until| Duration::try_from(until.duration_since(ticket.time)).unwrap_or_default());
        let mentions = |tags: &[&str]| {
            self.of(jail).any(|action| tags.iter().any(|tag| action.spec().mentions(tag)))
        };
        let (counts, knows) = (
            mentions(&["bancount"]),
            mentions(&["ipmatches", "ipfailures", "ipjailmatches", "ipjailfailures"]),
        );
        if counts {
            let former = store.former_bans(claim.prefix, jail, false, now);
            ticket.bancount = former.saturating_add(u32::from(!prolonged));
        }
        if knows {
            let evidence = store.past(claim.prefix);
            ticket.past = Past { holder: Some(claim.holder.clone()), evidence };
        }
        ticket
    }
}

/// Adds what is on record of a ban of an earlier run.
fn recall(store: &mut Store, jail: &str, claim: &Claim, ticket: &mut Ticket, now: Now) {
    ticket.bancount = store.former_bans(claim.prefix, jail, false, now);
    let evidence = store.past(claim.prefix);
    ticket.past = Past { holder: Some(claim.holder.clone()), evidence };
}

fn plain(claim: &Claim, now: Now) -> Ticket {
    let bantime = now.wall_of(claim.until).map(|until| {
        // over already: a ban that ended
        Duration::try_from(until.duration_since(now.wall)).unwrap_or_default()
    });
    Ticket { prefix: Some(claim.prefix), time: now.wall, bantime, ..Ticket::default() }
}
