//! `ban-agent run`: the daemon, in the foreground.

use std::process::ExitCode;

use super::{
    Cli,
    args::Run,
    failure::{Failure, chain},
};
use crate::{
    config,
    daemon::{self, Grace, Options},
    dataplane, protect,
};

/// As many as this host lets us have: each log that a glob finds is one.
fn allow_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::warn!("cannot have more than {:?} open files: {error}", limit.current);
    }
}

pub(super) fn run(cli: &Cli, args: &Run) -> Result<ExitCode, Failure> {
    dataplane::few_arenas();
    allow_open_files();
    // while it has every right, and before anything is read that others wrote
    let sessions = protect::Sessions::start();
    let (config, faults) = config::load_sound(&cli.config)?;
    for fault in &faults {
        log::error!("{}", chain(fault));
    }
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    if config.jails.is_empty()
        && let Some(fault) = faults.into_iter().next()
    {
        // nobody would be protected: rather say so than run
        return Err(fault.into());
    }
    let commands = config.runs_commands();
    let mut agent = config.agent.clone();
    if !args.interfaces.is_empty() {
        agent.interfaces.clone_from(&args.interfaces);
    }
    if let Some(mode) = args.mode {
        agent.mode = mode;
    }
    if let Some(socket) = cli.socket_given() {
        agent.socket = socket;
    }
    agent.dry_run |= args.dry_run;
    let grace = match (args.grace, agent.grace) {
        (Some(time), _) => Some(Grace { time, again: true }),
        (None, configured) => configured.map(|time| Grace { time, again: false }),
    };
    // before there are threads
    daemon::landlock::limit(&config.written(&agent), commands);
    let path = cli.config.clone();
    let options = Options { path, config, agent, replace: args.replace, grace };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_start(move || daemon::capability::limit(commands))
        .build()
        .map_err(|error| Failure::new(2, format!("cannot start threads: {error}")))?;
    runtime.block_on(daemon::run(options, sessions)).map_err(|error| {
        let failure = Failure::new(error.code(), chain(&error));
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}
