//! The words of the command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::{
    config::{self, Mode},
    net,
};

/// Bans the addresses that attack this host, in the network card's driver.
///
/// Exit codes: 0 done or found, 1 negative answer, 2 usage or failure, 3 agent not running,
/// 4 not permitted, 78 bad configuration.
#[derive(Debug, Parser)]
#[command(name = "ban-agent", version, max_term_width = 100)]
pub struct Cli {
    /// Configuration; `conf.d/*.toml` beside it is read as well
    #[arg(long, global = true, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    pub(super) config: PathBuf,

    /// Control socket of the agent [default: the configured one, else
    /// /run/ban-agent/control.sock]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// Output for people, or one JSON document
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "human")]
    output: Format,

    /// Say more; twice: everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,

    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,

    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Human,
    Json,
}

impl Cli {
    pub(super) fn json(&self) -> bool {
        self.output == Format::Json
    }

    /// `--socket`, else what the configuration says, else the default.
    pub(super) fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| config::socket(&self.config))
    }

    /// `--socket` alone.
    pub(super) fn socket_given(&self) -> Option<PathBuf> {
        self.socket.clone()
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run the agent in the foreground
    Run(Run),
    /// Interfaces, jails, totals, and what is wrong
    Status {
        /// Only this jail
        jail: Option<String>,
    },
    /// The live bans, those that end first at the top
    List {
        /// Only those that this jail holds
        #[arg(long)]
        jail: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Why an address is banned; exit code 1 if it is not
    Show {
        /// Address or prefix
        #[arg(value_parser = net::parse_prefix)]
        address: IpNet,
    },
    /// Events as they happen, until interrupted; with -o json one ECS document a line
    Watch {
        /// Each failure in a log as well
        #[arg(long)]
        failures: bool,
        /// A sample of the dropped packets as well
        #[arg(long)]
        drops: bool,
    },
    /// Ban addresses or prefixes by hand
    Ban(Ban),
    /// End bans
    Unban(Unban),
    /// What a filter matches in a file
    Test(Test),
    /// Which bans a log would have caused, by its own time
    Replay(Replay),
    /// Check the configuration and print the jails; exit code 78 if it is bad
    Check,
    /// Which services run here, which jail covers each, and whom it would have banned in a day
    Discover(Discover),
    /// Take over the live bans and the history of another program
    Import {
        /// Of which program
        from: From,
        /// Its database
        #[arg(long, value_name = "PATH", default_value = "/var/lib/fail2ban/fail2ban.sqlite3")]
        db: PathBuf,
    },
    /// Print the resolved jails, fail2ban's too, as our TOML
    ExportConfig,
    /// Read the configuration again: all of it, or nothing if it is bad
    Reload,
    /// End a trial (`run --grace`): go on enforcing, or enforce again where it ran out
    Confirm {
        /// Only on a new trial of this length
        #[arg(long = "for", value_name = "DUR", value_parser = span)]
        grace: Option<Duration>,
    },
    /// Let jails ban again that have stopped because they banned too much
    Resume {
        /// Only this jail
        jail: Option<String>,
    },
    /// Report on kernel, interfaces, pins and drift
    Doctor,
    /// Take the program off all interfaces and remove the pins; every ban ends
    Detach,
    /// Print a completion script
    Completions {
        /// For this shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages
    Man {
        /// Into this folder
        dir: PathBuf,
    },
}

/// Whose database `import` reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum From {
    /// fail2ban 0.11 or later.
    Fail2ban,
}

/// A duration that ends.
fn span(text: &str) -> Result<Duration, String> {
    let time = config::parse_duration(text).map_err(|error| error.to_string())?;
    let time = time.filter(|time| !time.is_zero());
    time.ok_or_else(|| "a trial takes some time, and ends: 5m".to_owned())
}

#[derive(Debug, Args)]
pub(super) struct Run {
    /// Interface to protect; may be repeated [default: the configured ones, else the one with
    /// the default route]
    #[arg(short, long = "interface", value_name = "IFACE")]
    pub(super) interfaces: Vec<String>,
    /// How to attach
    #[arg(long)]
    pub(super) mode: Option<Mode>,
    /// Count what would be dropped, and let it pass
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Take an interface whose XDP slot another program holds
    #[arg(long)]
    pub(super) replace: bool,
    /// On trial: enforce nothing any more unless `ban-agent confirm` comes so soon (5m)
    #[arg(long, value_name = "DUR", value_parser = span)]
    pub(super) grace: Option<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct Ban {
    /// Address or prefix; `-` reads a list from standard input, one a line, `#` comments
    #[arg(required = true, value_name = "ADDR|CIDR|-")]
    pub(super) targets: Vec<String>,
    /// How long: 600, 10m, 1h, 1d, or ever [default: the jail's bantime, else [agent]
    /// manual_bantime, a day]
    #[arg(long = "for", value_name = "DUR", allow_hyphen_values = true)]
    pub(super) duration: Option<String>,
    /// In the name of this jail, or of one of fail2ban's: f2b-NAME
    #[arg(long)]
    pub(super) jail: Option<String>,
    /// Only these ports: tcp/22, tcp/http,https, udp/1000-2000; may be repeated
    #[arg(long = "port", value_name = "PROTO/PORT")]
    pub(super) ports: Vec<String>,
    /// Why; `show` prints it, events tell it
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// Also what is protected, or wider than /16 (IPv6: /32)
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Unban {
    /// Address or prefix; `-` reads a list from standard input
    #[arg(required_unless_present = "all", value_name = "ADDR|CIDR|-")]
    pub(super) targets: Vec<String>,
    /// Every ban
    #[arg(long, conflicts_with = "targets")]
    pub(super) all: bool,
    /// Only this jail's claims
    #[arg(long)]
    pub(super) jail: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Test {
    /// Jail or filter, with options as in fail2ban where it is one of fail2ban's:
    /// 'sshd[mode=aggressive]'
    #[arg(value_name = "JAIL|FILTER", required_unless_present = "failregex")]
    pub(super) filter: Option<String>,
    /// Log file; `-` is standard input
    pub(super) file: Option<PathBuf>,
    /// A pattern instead of a filter; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub(super) failregex: Vec<String>,
    /// The time that counts as now, against which years are guessed
    #[arg(long, value_name = "RFC3339")]
    pub(super) now: Option<jiff::Timestamp>,
    /// With -o json: one object for each line first
    #[arg(long)]
    pub(super) each: bool,
    /// Print the lines that matched
    #[arg(long)]
    pub(super) print_matched: bool,
    /// Print the lines that did not match
    #[arg(long)]
    pub(super) print_missed: bool,
    /// Print the lines that an ignoreregex took out
    #[arg(long)]
    pub(super) print_ignored: bool,
}

#[derive(Debug, Args)]
pub(super) struct Discover {
    /// Also write a configuration that turns on the jails of what was found
    #[arg(long, value_name = "FILE")]
    pub(super) write: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// Jails, all enabled ones if none is named; then the log file, `-` is standard input
    #[arg(required = true, value_name = "[JAIL…] FILE")]
    pub(super) words: Vec<String>,
    /// The time that counts as now, against which years are guessed
    #[arg(long, value_name = "RFC3339")]
    pub(super) now: Option<jiff::Timestamp>,
}
