//! One task for each action of a jail: takes what happened from a bounded queue, and runs the
//! commands one after the other, in the order in which fail2ban would. Of all tasks together no
//! more commands run at once than there are permits.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};

use super::{Commands, Family, Spec, Ticket, shell, tags};
use crate::event::Shown;

/// What may wait for one action; more is dropped, and counted.
const QUEUE: usize = 65_536;
/// What waits behind so many others waits without its lines, which are most of its bytes.
const DETAILED: usize = 4096;

/// What an action is told.
#[derive(Clone, Debug)]
pub enum Job {
    /// An address is banned.
    Ban(Arc<Ticket>),
    /// Its ban became longer.
    Prolong(Arc<Ticket>),
    /// It is banned no more.
    Unban(Arc<Ticket>),
    /// The configuration was read again.
    Reload,
}

impl Job {
    /// Leaves out the lines that led to the ban.
    fn shorten(&mut self) {
        let (Job::Ban(ticket) | Job::Prolong(ticket) | Job::Unban(ticket)) = self else { return };
        let lines = [&ticket.matches, &ticket.in_jail.lines, &ticket.in_all.lines];
        if lines.iter().all(|lines| lines.is_empty()) {
            return;
        }
        let mut short = Ticket::clone(ticket);
        for lines in [&mut short.matches, &mut short.in_jail.lines, &mut short.in_all.lines] {
            *lines = Vec::new();
        }
        *ticket = Arc::new(short);
    }
}

/// What became of an action's commands since the start.
#[derive(Debug, Default)]
pub struct Stats {
    /// Commands that ended well.
    pub done: AtomicU64,
    /// Commands that failed, or were killed.
    pub failed: AtomicU64,
    /// What it was not told, because its queue was full.
    pub dropped: AtomicU64,
    /// The queue was full when it was last told something.
    full: AtomicBool,
    error: Mutex<Option<String>>,
}

impl Stats {
    /// Why the last command failed, escaped; `None` if it did not.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_error(&self, error: Option<String>) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

/// A running action. Dropping it lets it work off what it was told, and stop.
#[derive(Debug)]
pub struct Action {
    spec: Arc<Spec>,
    title: Arc<str>,
    queue: mpsc::Sender<Job>,
    stats: Arc<Stats>,
    task: JoinHandle<()>,
}

/// Something that an action is told later.
#[derive(Debug)]
pub struct Order {
    title: Arc<str>,
    queue: mpsc::Sender<Job>,
    stats: Arc<Stats>,
    job: Job,
}

impl Order {
    /// Tells it; never waits.
    pub fn give(mut self) {
        if self.queue.max_capacity() - self.queue.capacity() >= DETAILED {
            self.job.shorten();
        }
        let full = self.queue.try_send(self.job).is_err();
        if full {
            self.stats.dropped.fetch_add(1, Ordering::Relaxed);
        }
        if full && !self.stats.full.swap(full, Ordering::Relaxed) {
            log::error!("{}: {QUEUE} jobs wait, more are dropped and counted", self.title);
        } else if !full {
            self.stats.full.store(false, Ordering::Relaxed);
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
        let (spec, stats) = (Arc::new(spec), Arc::new(Stats::default()));
        let title: Arc<str> = format!("[{jail}] action {}", spec.name).into();
        let runner = Runner {
            spec: Arc::clone(&spec),
            title: Arc::clone(&title),
            permits,
            stats: Arc::clone(&stats),
            started: [false; 2],
        };
        let task = tokio::spawn(async move {
            if let Some(former) = former {
                former.finish().await;
            }
            runner.run(jobs).await;
        });
        Action { spec, title, queue, stats, task }
    }

    /// What it was made of.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// What became of its commands.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The same, for longer than it runs.
    #[must_use]
    pub fn shared_stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// What it is to be told, when the time has come.
    #[must_use]
    pub fn order(&self, job: Job) -> Order {
        Order {
            title: Arc::clone(&self.title),
            queue: self.queue.clone(),
            stats: Arc::clone(&self.stats),
            job,
        }
    }

    /// Waits until it has worked off what it was told, and has stopped.
    pub async fn finish(self) {
        drop(self.queue);
        if let Err(error) = self.task.await {
            log::error!("{}: {error}", self.title);
        }
    }
}

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

struct Runner {
    spec: Arc<Spec>,
    title: Arc<str>,
    permits: Arc<Semaphore>,
    stats: Arc<Stats>,
    /// By family, as in [`FAMILIES`].
    started: [bool; 2],
}

impl Runner {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
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
                Job::Reload => drop(self.operate(Step::Reload, &self.running()).await),
            }
        }
        let running = self.running();
        self.operate(Step::Stop, &running).await;
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

    /// Runs a command that is about nobody, once if it is the same for both families; says for
    /// which families it went well.
    async fn operate(&self, step: Step, families: &[Family]) -> Vec<Family> {
        let mut done: Vec<(&str, bool)> = Vec::new();
        let mut well = Vec::new();
        for family in families {
            let command = step.of(self.spec.commands(*family));
            let known = done.iter().find(|(other, _)| *other == command).map(|(_, good)| *good);
            let good = match known {
                Some(good) => good,
                None => self.command(step, *family, &Ticket::nobody()).await,
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

    /// Whether a command ended well; there being none is as good.
    async fn command(&self, step: Step, family: Family, ticket: &Ticket) -> bool {
        let command = step.of(self.spec.commands(family));
        if command.trim().is_empty() {
            return true;
        }
        let script = tags::fill(command, family, ticket);
        // closed never: an error cannot happen, and would mean one command more
        let permit = self.permits.acquire().await;
        let result = shell::run(&script, self.spec.timeout).await;
        drop(permit);
        let Err(error) = result else {
            self.stats.done.fetch_add(1, Ordering::Relaxed);
            self.stats.set_error(None);
            return true;
        };
        let whom = ticket.prefix.map(|prefix| format!(" of {}", Shown(prefix))).unwrap_or_default();
        log::error!("{}: {step}{whom} failed: {error}", self.title);
        self.stats.failed.fetch_add(1, Ordering::Relaxed);
        self.stats.set_error(Some(format!("{step}{whom} failed: {error}")));
        false
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    /// Commands that write down what they are, each with a failure on request.
    fn spec(log: &std::path::Path) -> Spec {
        let note = |step: &str| {
            format!("echo {step} <ip> <family> >> {0}; test ! -e {0}.{step}", log.display())
        };
        let commands = Commands {
            start: note("start"),
            stop: note("stop"),
            reload: note("reload"),
            check: note("check"),
            repair: String::new(),
            ban: note("ban"),
            prolong: note("prolong"),
            unban: note("unban"),
        };
        Spec {
            name: "note".into(),
            v4: commands.clone(),
            v6: commands,
            on_demand: false,
            timeout: Duration::from_secs(60),
            norestored: false,
            repair_on_unban: false,
        }
    }

    fn ticket(address: &str) -> Arc<Ticket> {
        Arc::new(Ticket { prefix: Some(address.parse().unwrap()), ..Ticket::default() })
    }

    async fn lines(spec: Spec, log: &std::path::Path, jobs: Vec<Job>) -> Vec<String> {
        let action = Action::start(spec, "door", Arc::new(Semaphore::new(1)), None);
        jobs.into_iter().for_each(|job| action.order(job).give());
        action.finish().await;
        let text = fs::read_to_string(log).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn runs_what_it_is_told_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let (v4, v6) = (ticket("192.0.2.1/32"), ticket("2001:db8::1/128"));
        let jobs = vec![
            Job::Ban(v4.clone()),
            Job::Prolong(v4.clone()),
            Job::Reload,
            Job::Ban(v6),
            Job::Unban(v4),
        ];
        // commands without a family are the same for both: start, stop and reload run once
        let mut spec = spec(&log);
        for commands in [&mut spec.v4, &mut spec.v6] {
            for command in [&mut commands.start, &mut commands.stop, &mut commands.reload] {
                *command = command.replace("<family>", "");
            }
        }
        let expected = [
            "start",
            "ban 192.0.2.1 inet4",
            "prolong 192.0.2.1 inet4",
            "reload",
            "ban 2001:db8::1 inet6",
            "unban 192.0.2.1 inet4",
            "stop",
        ];
        assert_eq!(lines(spec, &log, jobs).await, expected);
    }

    #[tokio::test]
    async fn starts_on_demand_by_family() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut spec = Spec { on_demand: true, ..spec(&log) };
        spec.v6.start = spec.v6.start.replace("start", "start6");
        let jobs = vec![Job::Ban(ticket("2001:db8::1/128")), Job::Ban(ticket("2001:db8::2/128"))];
        let expected =
            ["start6 inet6", "ban 2001:db8::1 inet6", "ban 2001:db8::2 inet6", "stop inet6"];
        assert_eq!(lines(spec, &log, jobs).await, expected);
    }

    #[tokio::test]
    async fn a_failure_is_checked_and_tried_once_more() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        fs::write(folder.path().join("log.ban"), "").unwrap();
        let jobs = vec![Job::Ban(ticket("192.0.2.1/32"))];
        let expected = [
            "start inet4",
            "ban 192.0.2.1 inet4",
            "check inet4",
            "ban 192.0.2.1 inet4",
            "stop inet4",
        ];
        let got = lines(Spec { on_demand: true, ..spec(&log) }, &log, jobs).await;
        assert_eq!(got, expected);
    }

    #[tokio::test]
    async fn a_broken_environment_is_started_anew_but_not_for_an_unban() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        for step in ["ban", "unban", "check"] {
            fs::write(folder.path().join(format!("log.{step}")), "").unwrap();
        }
        let ticket = ticket("192.0.2.1/32");
        let mut spec = Spec { on_demand: true, ..spec(&log) };
        // starting mends it
        let mend = format!("; rm {}.check", log.display());
        spec.v4.start.push_str(&mend);
        spec.v4.start = spec.v4.start.replace("; test", " && test");
        let jobs = vec![Job::Ban(ticket.clone())];
        let expected = [
            "start inet4",
            "ban 192.0.2.1 inet4",
            "check inet4",
            "ban 192.0.2.1 inet4",
            "stop inet4",
        ];
        assert_eq!(lines(spec.clone(), &log, jobs).await, expected);

        fs::write(folder.path().join("log.check"), "").unwrap();
        fs::remove_file(&log).unwrap();
        let jobs = vec![Job::Unban(ticket)];
        let expected = ["unban 192.0.2.1 inet4", "check inet4"];
        assert_eq!(lines(spec, &log, jobs).await, expected);
    }

    #[tokio::test]
    async fn a_replaced_action_stops_before_the_next_one_starts() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let permits = Arc::new(Semaphore::new(4));
        let first = Action::start(spec(&log), "door", Arc::clone(&permits), None);
        first.order(Job::Ban(ticket("192.0.2.1/32"))).give();
        let mut spec = spec(&log);
        for commands in [&mut spec.v4, &mut spec.v6] {
            commands.start = commands.start.replace("start", "second").replace("<family>", "");
            commands.stop.clear();
        }
        Action::start(spec, "door", permits, Some(first)).finish().await;
        let text = fs::read_to_string(&log).unwrap();
        let steps: Vec<_> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(steps, ["start", "ban", "stop", "second"]);
    }

    #[tokio::test]
    async fn a_full_queue_drops_and_counts() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let permits = Arc::new(Semaphore::new(0));
        let action = Action::start(spec(&log), "door", Arc::clone(&permits), None);
        for _ in 0..QUEUE + 3 {
            action.order(Job::Reload).give();
        }
        assert_eq!(action.stats().dropped.load(Ordering::Relaxed), 3);
        drop(permits);
        action.task.abort();
    }

    #[tokio::test]
    async fn behind_many_others_only_the_lines_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let permits = Arc::new(Semaphore::new(0));
        let action = Action::start(spec(&folder.path().join("log")), "door", permits, None);
        let long = Arc::new(Ticket {
            matches: vec![b"line".as_slice().into()],
            failures: 5,
            ..Ticket::clone(&ticket("192.0.2.1/32"))
        });
        let shortened = || Arc::strong_count(&long) - 1;
        // it waits to start, and takes nothing
        for _ in 0..DETAILED {
            action.order(Job::Ban(Arc::clone(&long))).give();
        }
        assert_eq!(shortened(), DETAILED, "all of them whole");
        action.order(Job::Ban(Arc::clone(&long))).give();
        assert_eq!(shortened(), DETAILED, "without its lines");
        let mut job = Job::Ban(Arc::clone(&long));
        job.shorten();
        let Job::Ban(short) = job else { panic!("another job") };
        assert_eq!((short.matches.len(), short.failures, short.prefix), (0, 5, long.prefix));
        assert_eq!(action.stats().dropped.load(Ordering::Relaxed), 0);
        action.task.abort();
    }

    #[tokio::test]
    async fn no_more_at_once_than_there_are_permits() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("lock");
        // fails if another one runs
        let ban = format!("mkdir {0} && sleep 0.05 && rmdir {0}", lock.display());
        let mut spec = spec(&folder.path().join("log"));
        (spec.v4, spec.v6) = (Commands { ban, ..Commands::default() }, Commands::default());
        let permits = Arc::new(Semaphore::new(1));
        let actions: Vec<Action> = (0..5)
            .map(|_| Action::start(spec.clone(), "door", Arc::clone(&permits), None))
            .collect();
        let stats: Vec<Arc<Stats>> =
            actions.iter().map(|action| Arc::clone(&action.stats)).collect();
        for action in &actions {
            action.order(Job::Ban(ticket("192.0.2.1/32"))).give();
        }
        for action in actions {
            action.finish().await;
        }
        let count = |of: fn(&Stats) -> &AtomicU64| -> u64 {
            stats.iter().map(|stats| of(stats).load(Ordering::Relaxed)).sum()
        };
        assert_eq!((count(|stats| &stats.done), count(|stats| &stats.failed)), (5, 0));
    }
}
