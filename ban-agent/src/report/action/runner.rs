//! One task for each action of a jail: takes what happened from a bounded queue, and runs the
//! commands one after the other, in the order in which fail2ban would. Of all tasks together no
//! more commands run at once than there are permits.

use std::{fmt, sync::Arc};

use tokio::sync::{Semaphore, mpsc};

use super::{Commands, Family, Spec, Ticket, queue::Job, shell, tags};
use crate::{event::Shown, report::Deliveries};

/// Which command of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Start,
    Stop,
    Reload,
    Check,
    Repair,
    Ban,
    Prolong,
    Unban,
    Flush,
}

impl Step {
    fn of(self, commands: &Commands) -> &str {
        match self {
            Step::Start => &commands.start,
            Step::Stop => &commands.stop,
            Step::Reload => &commands.reload,
            Step::Check => &commands.check,
            Step::Repair => &commands.repair,
            Step::Ban => &commands.ban,
            Step::Prolong => &commands.prolong,
            Step::Unban => &commands.unban,
            Step::Flush => &commands.flush,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{self:?}").to_lowercase();
        write!(f, "action{name}")
    }
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// An action at work.
pub(super) struct Runner {
    spec: Arc<Spec>,
    title: Arc<str>,
    permits: Arc<Semaphore>,
    stats: Arc<Deliveries>,
    /// By family, as in [`FAMILIES`].
    started: [bool; 2],
}

impl Runner {
    /// It has not started yet.
    pub(super) fn new(
        spec: Arc<Spec>,
        title: Arc<str>,
        permits: Arc<Semaphore>,
        stats: Arc<Deliveries>,
    ) -> Runner {
        Runner { spec, title, permits, stats, started: [false; 2] }
    }

    /// Starts, works until its queue is closed, and stops.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        if !self.spec.on_demand {
            self.start(&FAMILIES).await;
        }
        while let Some(job) = jobs.recv().await {
            match job {
                Job::Ban(ticket) => {
                    let family = ticket.family();
                    if self.spec.on_demand && !self.is_started(family) {
                        self.start(&[family]).await;
                    }
                    self.process(Step::Ban, &ticket).await;
                    self.set_started(family, true);
                }
                Job::Prolong(ticket) => self.process(Step::Prolong, &ticket).await,
                Job::Unban(ticket) => self.process(Step::Unban, &ticket).await,
                Job::Flush => self.flush().await,
                Job::Reload => drop(self.operate(Step::Reload, &self.running()).await),
            }
        }
        let running = self.running();
        self.operate(Step::Stop, &running).await;
    }

    /// Lets all addresses go; what fails is tried once more, as an unban is.
    async fn flush(&mut self) {
        let running = self.running();
        let done = self.operate(Step::Flush, &running).await;
        for family in running.into_iter().filter(|family| !done.contains(family)) {
            if self.is_sane(family, self.spec.repair_on_unban).await {
                self.command(Step::Flush, family, &Ticket::nobody()).await;
            }
        }
    }

    fn running(&self) -> Vec<Family> {
        FAMILIES.into_iter().filter(|family| self.is_started(*family)).collect()
    }

    fn is_started(&self, family: Family) -> bool {
        let [v4, v6] = self.started;
        if family == Family::V4 { v4 } else { v6 }
    }

    fn set_started(&mut self, family: Family, on: bool) {
        let [v4, v6] = &mut self.started;
        *(if family == Family::V4 { v4 } else { v6 }) = on;
    }

    async fn start(&mut self, families: &[Family]) {
        for family in self.operate(Step::Start, families).await {
            self.set_started(family, true);
        }
    }

    /// Runs a command that is about no address, once if it is the same for both families; says for
    /// which families it went well.
    async fn operate(&self, step: Step, families: &[Family]) -> Vec<Family> {
        let nobody = Ticket::nobody();
        let mut done: Vec<(String, bool)> = Vec::new();
        let mut well = Vec::new();
        for family in families {
            let command = tags::text(step.of(self.spec.commands(*family)), *family, &nobody);
            let known = done.iter().find(|(other, _)| *other == command).map(|(_, good)| *good);
            let good = match known {
                Some(good) => good,
                None => self.command(step, *family, &nobody).await,
            };
            done.push((command, good));
            if good {
                well.push(*family);
            }
        }
        well
    }

    /// Runs a command about an address; after a failure it is tried once more, if the action
    /// finds its environment sound or can make it so.
    async fn process(&mut self, step: Step, ticket: &Ticket) {
        let family = ticket.family();
        if self.command(step, family, ticket).await {
            return;
        }
        let repair = step != Step::Unban || self.spec.repair_on_unban;
        if self.is_sane(family, repair).await {
            self.command(step, family, ticket).await;
        }
    }

    async fn is_sane(&mut self, family: Family, repair: bool) -> bool {
        let nobody = Ticket::nobody();
        if self.command(Step::Check, family, &nobody).await {
            return true;
        }
        if !repair {
            log::error!("{}: its environment is broken", self.title);
            return false;
        }
        log::error!("{}: its environment is broken, trying to mend it", self.title);
        if self.spec.commands(family).repair.trim().is_empty() {
            self.command(Step::Stop, family, &nobody).await;
            self.set_started(family, false);
            self.start(&[family]).await;
        } else {
            let mended = self.command(Step::Repair, family, &nobody).await;
            self.set_started(family, mended);
        }
        self.is_started(family) && self.command(Step::Check, family, &nobody).await
    }

    /// Returns whether a command ended well; there being none is as good.
    async fn command(&self, step: Step, family: Family, ticket: &Ticket) -> bool {
        let command = step.of(self.spec.commands(family));
        if command.trim().is_empty() {
            return true;
        }
        let script = tags::fill(command, family, ticket);
        // closed when the agent ends and has no more time
        let Ok(permit) = self.permits.acquire().await else { return false };
        let result = shell::run(&script, self.spec.timeout).await;
        drop(permit);
        let Err(error) = result else {
            self.stats.count(Ok(()));
            return true;
        };
        let whom = ticket.prefix.map(|prefix| format!(" of {}", Shown(prefix))).unwrap_or_default();
        log::error!("{}: {step}{whom} failed: {error}", self.title);
        self.stats.count(Err(format!("{step}{whom} failed: {error}")));
        false
    }
}
