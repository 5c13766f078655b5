//! Tells the actions of a jail what became of its claims. What is told is gathered while the core
//! decides, and given once the store has it, like every other report.

use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering, time::Duration};

use tokio::{sync::Semaphore, time};

use super::core::Core;
use crate::{
    action::{Action, Job, Order, Past, Spec, Ticket},
    children,
    clock::Now,
    control::ActionStatus,
    jail::{self, Sentence},
    ledger::{Change, Claim, Holder},
};

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
}

impl Actions {
    /// At most `most` commands run at once. A dry run runs none: what they do is real.
    pub(super) fn new(most: u32, dry_run: bool) -> Actions {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(most));
        let (running, orders, flushed) = (BTreeMap::new(), Vec::new(), Vec::new());
        Actions { permits, dry_run, running, orders, flushed }
    }

    /// Makes the running actions those of `jails`: unchanged ones go on, the others stop after
    /// what they were told.
    pub(super) fn apply(&mut self, jails: &[jail::Spec]) {
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

    /// The actions of one jail.
    fn of<'a>(&'a self, jail: &'a str) -> impl Iterator<Item = &'a Action> {
        self.running.iter().filter(move |((name, _), _)| **name == *jail).map(|(_, action)| action)
    }

    /// What `status` shows.
    pub(super) fn status(&self, jail: &str) -> Vec<ActionStatus> {
        let status = |action: &Action| {
            let stats = action.stats();
            ActionStatus {
                name: action.spec().name.to_string(),
                done: stats.done.load(Ordering::Relaxed),
                failed: stats.failed.load(Ordering::Relaxed),
                dropped: stats.dropped.load(Ordering::Relaxed),
                error: stats.error(),
            }
        };
        self.of(jail).map(status).collect()
    }

    /// What was gathered since the last time.
    pub(super) fn take_orders(&mut self) -> Vec<Order> {
        self.flushed.clear();
        std::mem::take(&mut self.orders)
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
}

impl Core {
    /// A claim of a jail was made or became longer: its actions are told. To be called before the
    /// store learns of it.
    pub(super) fn tell_banned(
        &mut self,
        claim: &Claim,
        change: &Change,
        sentence: Option<&Sentence>,
        now: Now,
    ) {
        let Holder::Jail(jail) = &claim.holder else { return };
        if self.actions.of(jail).next().is_none() {
            return;
        }
        let prolonged = match change {
            Change::New | Change::Joined => false,
            Change::Extended => true,
            _ => return,
        };
        let ticket = Arc::new(self.ticket(jail, claim, sentence, now));
        let orders: Vec<Order> = self
            .actions
            .of(jail)
            .map(|action| {
                let ticket = Arc::clone(&ticket);
                action.order(if prolonged { Job::Prolong(ticket) } else { Job::Ban(ticket) })
            })
            .collect();
        self.actions.orders.extend(orders);
    }

    /// A claim of an earlier run goes on.
    pub(super) fn tell_restored(&mut self, claim: &Claim, now: Now) {
        let Holder::Jail(jail) = &claim.holder else { return };
        let ticket = || Arc::new(Ticket { restored: true, ..plain(claim, now) });
        let orders: Vec<Order> = self
            .actions
            .of(jail)
            .filter(|action| !action.spec().norestored)
            .map(|action| action.order(Job::Ban(ticket())))
            .collect();
        self.actions.orders.extend(orders);
    }

    /// A claim ended. `flush`: with all others of its jail, and an action that can lets all go at
    /// once.
    pub(super) fn tell_unbanned(&mut self, claim: &Claim, flush: bool, now: Now) {
        let Holder::Jail(jail) = &claim.holder else { return };
        let ticket = Arc::new(plain(claim, now));
        let (mut orders, mut flushed) = (Vec::new(), Vec::new());
        for action in self.actions.of(jail) {
            let flushes = || !action.spec().commands(ticket.family()).flush.is_empty();
            if !(flush && flushes()) {
                orders.push(action.order(Job::Unban(Arc::clone(&ticket))));
            } else if !self.actions.flushed.contains(action.title()) {
                flushed.push(Arc::clone(action.title()));
                orders.push(action.order(Job::Flush));
            }
        }
        self.actions.flushed.extend(flushed);
        self.actions.orders.extend(orders);
    }

    fn ticket(
        &mut self,
        jail: &str,
        claim: &Claim,
        sentence: Option<&Sentence>,
        now: Now,
    ) -> Ticket {
        let mut ticket = sentence.map_or_else(|| plain(claim, now), ticket_of);
        ticket.prefix = Some(claim.prefix);
        ticket.bantime = now
            .wall_of(claim.until)
            .map(|until| Duration::try_from(until.duration_since(ticket.time)).unwrap_or_default());
        let mentions = |tags: &[&str]| {
            self.actions.of(jail).any(|action| tags.iter().any(|tag| action.spec().mentions(tag)))
        };
        let (counts, knows) = (
            mentions(&["bancount"]),
            mentions(&["ipmatches", "ipfailures", "ipjailmatches", "ipjailfailures"]),
        );
        if counts {
            ticket.bancount = self.store.former_bans(claim.prefix, jail, false, now);
        }
        if knows {
            let evidence = self.store.past(claim.prefix);
            ticket.past = Past { holder: Some(claim.holder.clone()), evidence };
        }
        ticket
    }
}

/// What is known of an offence before it is a ban.
pub(super) fn ticket_of(sentence: &Sentence) -> Ticket {
    Ticket {
        prefix: Some(sentence.address),
        time: sentence.time,
        bantime: sentence.duration,
        failures: sentence.failures,
        matches: sentence.evidence.clone(),
        fields: sentence.fields.clone(),
        ..Ticket::default()
    }
}

fn plain(claim: &Claim, now: Now) -> Ticket {
    let bantime = now.wall_of(claim.until).map(|until| {
        // over already: a ban that ended
        Duration::try_from(until.duration_since(now.wall)).unwrap_or_default()
    });
    Ticket { prefix: Some(claim.prefix), time: now.wall, bantime, ..Ticket::default() }
}
