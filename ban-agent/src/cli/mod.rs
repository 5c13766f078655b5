//! The command line: one file per verb. It talks to the agent over its socket; only `run`,
//! `check`, `discover`, `test`, `replay`, `doctor` and `detach` work without one.

mod args;
mod ban;
mod check;
mod confined;
mod detach;
mod discover;
mod doctor;
mod failure;
mod history;
mod import;
mod journal;
mod list;
mod nested;
mod output;
mod replay;
mod run;
mod show;
mod stats;
mod status;
mod steer;
mod table;
mod test;
mod watch;

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

pub use args::Cli;
use args::Verb;
use clap::{CommandFactory as _, Parser as _};
use env_logger::WriteStyle;
use failure::Failure;

use crate::{
    config,
    control::{Document, Request, Text, call},
    daemon,
    event::disarm,
    protect,
};

/// Entry point of the binary.
#[must_use]
pub fn main() -> ExitCode {
    if protect::is_helper() {
        daemon::capability::limit_helper();
        return protect::serve();
    }
    let cli = Cli::parse();
    let last = logging(&cli);
    let done = dispatch(&cli);
    // what was logged comes before what is reported
    drop(last);
    match done {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn dispatch(cli: &Cli) -> Result<ExitCode, Failure> {
    if cli.csv()
        && !matches!(&cli.verb, Verb::List(_) | Verb::History(_) | Verb::Stats(_) | Verb::Allow(_))
    {
        let message =
            "this verb prints no table: -o csv is for list, history, stats and allow list";
        return Err(Failure::new(2, message));
    }
    match &cli.verb {
        Verb::Run(args) => run::run(cli, args),
        Verb::Status { jail } => status::run(cli, jail.clone()),
        Verb::History(args) => history::run(cli, args),
        Verb::Stats(args) => stats::run(cli, args),
        Verb::List(args) => list::run(cli, args),
        Verb::Show { address } => show::run(cli, *address),
        Verb::Watch { failures, drops } => watch::run(cli, *failures, *drops),
        Verb::Ban(args) => ban::ban(cli, args),
        Verb::Unban(args) => ban::unban(cli, args),
        Verb::Test(args) => test::run(cli, args),
        Verb::Replay(args) => replay::run(cli, args),
        Verb::Check => check::run(cli),
        Verb::Discover(args) => discover::run(cli, args),
        Verb::Import { from: args::From::Fail2ban, db } => import::run(cli, db),
        Verb::ExportConfig => {
            output::raw(&config::export(&config::load(&cli.config)?))?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Jail(jail) => steer::jail(cli, jail),
        Verb::Allow(allow) => steer::allow(cli, allow),
        Verb::Reload => ask(cli, &Request::Reload),
        Verb::Confirm { grace } => ask(cli, &Request::Confirm { again: *grace }),
        Verb::Resume { jail } => ask(cli, &Request::Resume { jail: jail.clone() }),
        Verb::Doctor => doctor::run(cli),
        Verb::Detach => detach::run(cli),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "ban-agent", &mut script);
            output::raw(&String::from_utf8_lossy(&script))?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Man { dir } => {
            std::fs::create_dir_all(dir)
                .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
                .map_err(|error| Failure::new(2, format!("{}: {error}", dir.display())))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A request whose answer is a sentence.
fn ask(cli: &Cli, request: &Request) -> Result<ExitCode, Failure> {
    tell(cli, call(&cli.socket(), request)?)
}

/// Prints a sentence.
fn tell(cli: &Cli, document: Document) -> Result<ExitCode, Failure> {
    if cli.json() {
        output::json(&document)?;
    } else if let Document::Text(Text { message, .. }) = &document {
        output::print(&format!("{message}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `-q` errors only, `-v` debug, `-vv` trace; `RUST_LOG` wins. Under systemd the journal adds
/// the time itself. The agent waits for nobody who reads it.
fn logging(cli: &Cli) -> Option<journal::Last> {
    let default = match (cli.quiet, cli.verbose, &cli.verb) {
        (true, ..) => "error",
        (_, 0, Verb::Run(_)) => "info",
        (_, 0, _) => "warn",
        // the loader's own debugging fills pages
        (_, 1, _) => "debug,aya=info,aya_obj=info",
        _ => "trace",
    };
    let mut builder =
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(default));
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    builder.format(move |out, record| {
        // names of files and answers of others are in it: none makes a line of its own
        let message = disarm(&record.args().to_string()).replace('\n', "\n    ");
        let level = record.level();
        if journal {
            return writeln!(out, "<{}>{message}", priority(level));
        }
        let (time, style) = (out.timestamp(), out.default_level_style(level));
        writeln!(out, "[{time} {style}{level:<5}{style:#} {}] {message}", record.target())
    });
    let mut last = None;
    if let Verb::Run(_) = &cli.verb
        && let Ok((queue, thread)) = journal::start(std::io::stderr())
    {
        last = Some(thread);
        let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let style = if colours { WriteStyle::Always } else { WriteStyle::Never };
        builder.target(env_logger::Target::Pipe(Box::new(queue))).write_style(style).init();
    } else {
        builder.target(env_logger::Target::Stderr).init();
    }
    last
}

/// As syslog counts.
fn priority(level: log::Level) -> u8 {
    match level {
        log::Level::Error => 3,
        log::Level::Warn => 4,
        log::Level::Info => 6,
        log::Level::Debug | log::Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
