//! Joins the stages into the running agent: tasks, channels, signals.
//!
//! One task owns the ledger, the maps and the store ([`Engine`]); all others send it a
//! [`Command`]. The `pipeline` has a task for each jail and each source.

pub mod capability;
mod drops;
pub mod landlock;
mod sinks;

use std::time::Duration;

use aya_log::EbpfLogger;
use sd_notify::NotifyState;
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    task::JoinError,
};

use self::sinks::Sinks;
pub use crate::engine::{Error, Grace, Options};
use crate::{
    children,
    clock::Now,
    config,
    control::{Access, Queues, Server, ServerError},
    dataplane::{self, Xdp},
    engine::{ASKING, Engine, QUEUE, command::Command, probation, tell_systemd, trial::Trial},
    event::{Bus, Geo, Observer},
    metrics,
    pipeline::Pipeline,
    protect,
    store::{self, Store},
};

fn kernel_options(agent: &config::Agent, replace: bool, trial: Trial) -> dataplane::Options {
    dataplane::Options {
        interfaces: agent.interfaces.clone(),
        unprotected: agent.unprotected.clone(),
        mode: match agent.mode {
            config::Mode::Auto => dataplane::Mode::Auto,
            config::Mode::Native => dataplane::Mode::Native,
            config::Mode::Generic => dataplane::Mode::Generic,
        },
        pins: agent.pins.clone(),
        max_bans: agent.max_bans,
        dry_run: agent.dry_run,
        replace,
        // nobody listens yet
        sample_every: 0,
        lifetime: trial.lifetime(),
    }
}

/// How long a start waits for a former agent to be gone.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a start waits for a log on a file system that does not answer.
const FIRST_LOOK: Duration = Duration::from_secs(10);

/// Runs the agent until SIGTERM, SIGINT or `detach`. Enforcement outlives it.
///
/// # Errors
/// If it cannot start. What was attached by then stays in force, as after a stop; `detach` takes it
/// off.
pub async fn run(options: Options, sessions: protect::Sessions) -> Result<(), Error> {
    let agent = &options.agent;
    let access = resolve(agent).await?;
    let server = open_patiently(agent, &access).await?;
    let metrics = match options.config.metrics.clone() {
        Some(address) => Some(metrics::Server::open(address, access.group()).await?),
        None => None,
    };
    // the sockets' group was the last that took more
    capability::limit(options.config.runs_commands());
    let was_dry = store::separate(&agent.state, agent.dry_run)?;
    let store = Store::open(&agent.state)?;
    store.set_purge_age(agent.dbpurgeage);
    let trial = probation::at_start(&options, Now::read());
    let bus = Bus::new(Observer::here(Geo::open(options.config.geoip.clone())));
    let sinks = Sinks::start(&bus, &options)?;
    let dry = agent.dry_run;
    let mut kernel_options = kernel_options(agent, options.replace, trial);
    // the maps hold what the dry run banned, until they are those of the ledger
    kernel_options.dry_run |= was_dry;
    let mut xdp = Xdp::start(kernel_options)?;
    if let Some(logger) = xdp.logger() {
        tokio::spawn(relay(logger));
    }
    let (sender, messages) = mpsc::channel(QUEUE);
    tokio::spawn(drops::relay(xdp.events()?, bus.clone(), sender.clone()));
    tokio::spawn(hear_of_interfaces(dataplane::interface::Changes::subscribe()?, sender.clone()));
    let now = Now::read();
    let pipeline = Pipeline::new(sender.clone(), store.positions().clone(), bus.clone());
    let mut core = Engine::new(options, Box::new(xdp), store, trial, pipeline, bus.clone(), now);
    core.hooks = sinks.hooks();
    core.access = access;
    core.protect(sessions, sender.clone())?;
    core.restore(now);
    if !dry {
        core.xdp.set_dry_run(false);
    }
    start_jails(&mut core).await?;
    forward_signals(&sender)?;
    if let Some(server) = metrics {
        let sender = sender.clone();
        tokio::spawn(server.serve(move || survey(sender.clone())));
    }
    let (operators, requests) = mpsc::channel(ASKING);
    let (readers, questions) = mpsc::channel(ASKING);
    let queues = Queues { operators, readers };
    let recall = Some(core.store.recall());
    let serving = tokio::spawn(server.serve(queues, bus.clone(), recall));
    // what reading the configuration, compiling and restoring took
    dataplane::give_back();
    tell_systemd(&[NotifyState::Ready]);
    log::info!("ready");
    let result = core.run(messages, requests, questions).await;
    bus.close();
    sinks.finish().await;
    serving.abort();
    // commands of a jail's `ignorecommand`, and what was cut off just now
    children::end_all().await;
    result
}

/// Starts the jails, and waits until their sources know what was there before: a line that is
/// written after we said that we are ready is new.
async fn start_jails(core: &mut Engine) -> Result<(), Error> {
    let (looked, mut looking) = mpsc::channel(1);
    core.start_jails(&looked)?;
    drop(looked);
    if tokio::time::timeout(FIRST_LOOK, looking.recv()).await.is_err() {
        log::warn!("a log cannot be looked at, or only very slowly: going on without it");
    }
    Ok(())
}

/// Returns the metrics as they stand; `None` if the agent is stopping.
async fn survey(core: mpsc::Sender<Command>) -> Option<String> {
    let (reply, snapshot) = oneshot::channel();
    core.send(Command::Survey(reply)).await.ok()?;
    Some(metrics::text(snapshot.await.ok()?))
}

/// Hands the program's own rare log lines to our log.
async fn relay(logger: EbpfLogger<&'static dyn log::Log>) {
    #[expect(deprecated, reason = "the logger owns its descriptor, and the successor is unsafe")]
    let logger = AsyncFd::with_interest(logger, Interest::READABLE);
    let Ok(mut logger) =
        logger.inspect_err(|error| log::warn!("cannot read the program's log: {error}"))
    else {
        return;
    };
    while let Ok(mut ready) = logger.readable_mut().await {
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}

/// Tells the core whenever an interface came, went or changed.
async fn hear_of_interfaces(changes: dataplane::interface::Changes, sender: mpsc::Sender<Command>) {
    #[expect(deprecated, reason = "it owns its descriptor, and the successor is unsafe")]
    let changes = AsyncFd::with_interest(changes, Interest::READABLE);
    let Ok(changes) = changes.inspect_err(|error| log::warn!("interfaces: {error}")) else {
        return;
    };
    while let Ok(mut ready) = changes.readable().await {
        ready.get_inner().drain();
        ready.clear_ready();
        if sender.send(Command::Interfaces).await.is_err() {
            return;
        }
    }
}

/// Returns who may use a socket. A directory service may take its time to say who that is.
async fn resolve(agent: &config::Agent) -> Result<Access, ServerError> {
    let (group, operators) = (agent.socket_group.clone(), agent.operators.clone());
    let asking = tokio::task::spawn_blocking(move || Access::resolve(group.as_deref(), &operators));
    let failed =
        |error: JoinError| ServerError::Listen { path: agent.socket.clone(), source: error.into() };
    asking.await.map_err(failed)?
}

/// Opens the control socket. An agent that was just killed may take a moment to be gone.
async fn open_patiently(agent: &config::Agent, access: &Access) -> Result<Server, ServerError> {
    let begun = tokio::time::Instant::now();
    loop {
        match Server::open(&agent.socket, access.clone()).await {
            Err(ServerError::Busy(_)) if begun.elapsed() < PATIENCE => {
                tokio::time::sleep(PATIENCE / 20).await;
            }
            result => return result,
        }
    }
}

fn forward_signals(sender: &mpsc::Sender<Command>) -> Result<(), Error> {
    for (kind, message) in [
        (SignalKind::terminate(), (|| Command::Stop) as fn() -> Command),
        (SignalKind::interrupt(), || Command::Stop),
        (SignalKind::hangup(), || Command::Reload),
    ] {
        let mut signals = signal(kind).map_err(|error| Error::System("handle signals", error))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if sender.send(message()).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::Lifetime;

    fn agent(text: &str) -> (tempfile::TempDir, config::Agent) {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, format!("[agent]\ninterfaces = [\"lo\"]\n{text}")).unwrap();
        let mut agent = config::load(&path).unwrap().agent;
        agent.socket = folder.path().join("control.sock");
        (folder, agent)
    }

    #[test]
    fn the_data_plane_is_asked_for_what_is_configured() {
        let (_folder, agent) = agent("mode = \"generic\"\nmax_bans = 4096\ndry_run = true\n");
        let asked = kernel_options(&agent, true, Trial::Over);
        assert_eq!(
            (asked.interfaces, asked.mode),
            (vec!["lo".to_owned()], dataplane::Mode::Generic)
        );
        assert_eq!((asked.max_bans, asked.dry_run, asked.replace), (4096, true, true));
        assert_eq!((asked.sample_every, asked.lifetime), (0, Lifetime::Pinned));
        let lapsed = Trial::Lapsed { at: Now::read().wall };
        assert_eq!(kernel_options(&agent, false, lapsed).lifetime, Lifetime::Detached);
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_waits_for_an_agent_that_is_about_to_be_gone_and_no_longer() {
        let (_folder, agent) = agent("");
        let access = Access::default();
        let first = open_patiently(&agent, &access).await.unwrap();
        let second = open_patiently(&agent, &access).await;
        assert!(matches!(second, Err(ServerError::Busy(_))));
        let (second, ()) = tokio::join!(open_patiently(&agent, &access), async {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(first);
        });
        second.unwrap();
    }

    #[tokio::test]
    async fn a_group_that_is_not_there_ends_the_start() {
        let (_folder, mut agent) = agent("");
        agent.socket_group = Some("no-such-group-here".into());
        assert!(matches!(resolve(&agent).await, Err(ServerError::Group(_))));
    }
}
