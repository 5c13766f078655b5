//! The words of the command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::{
    config::{self, Mode},
    control::Axis,
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

    /// Output for people, one JSON document, or a table for programs
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
    Csv,
}

impl Cli {
    pub(super) fn json(&self) -> bool {
        self.output == Format::Json
    }

    pub(super) fn csv(&self) -> bool {
        self.output == Format::Csv
    }

    pub(super) fn human(&self) -> bool {
        self.output == Format::Human
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
    List(List),
    /// Who banned or let go of whom, when and why; exit code 1 if nothing is on record
    History(History),
    /// How often what was banned, the most first
    Stats(Stats),
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
    /// Have a jail ban nobody for a while, or only count; kept over restarts
    #[command(subcommand)]
    Jail(Jail),
    /// Let an address or network through for a while, whoever bans it; kept over restarts
    #[command(subcommand)]
    Allow(Allow),
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

/// The order of `list`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    /// What ends first
    Ends,
    /// What began last
    Since,
    /// Who lost most packets
    Packets,
    /// Who lost most bytes
    Bytes,
    /// By number
    Address,
    /// By ISO code
    Country,
    /// By name
    Holder,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ban-agent list --sort packets --limit 10     the ten who knock most
  ban-agent list --jail sshd --country CN
  ban-agent list --holder manual               what was banned by hand
  ban-agent list --within 203.0.113.0/24
  ban-agent -o csv list > bans.csv")]
pub(super) struct List {
    /// Only those that this jail, or `manual`, holds
    #[arg(long, visible_alias = "holder", value_name = "NAME")]
    pub(super) jail: Option<String>,
    /// At most so many [default: all, and 100 on a terminal]
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<usize>,
    /// In this order
    #[arg(long, value_name = "BY", default_value = "ends")]
    pub(super) sort: Sort,
    /// Only those inside this network, itself included
    #[arg(long, value_name = "CIDR", value_parser = net::parse_prefix)]
    pub(super) within: Option<IpNet>,
    /// Only those of this country; needs a GeoIP database
    #[arg(long, value_name = "ISO")]
    pub(super) country: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ban-agent history 203.0.113.66               who banned it, and who let it go
  ban-agent history 203.0.113.0/24 --since 7d
  ban-agent -o csv history --since 1d > yesterday.csv")]
pub(super) struct History {
    /// Only what is about this address, or lies in this network [default: everything]
    #[arg(value_name = "ADDR|CIDR", value_parser = net::parse_prefix)]
    pub(super) address: Option<IpNet>,
    /// Not before so long ago: 24h, 7d
    #[arg(long, value_name = "DUR", value_parser = age)]
    pub(super) since: Option<Duration>,
    /// The newest, at most so many [default: 10000, and 100 on a terminal]
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<usize>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ban-agent stats --by country --since 24h
  ban-agent stats --by user --limit 50
  ban-agent -o csv stats --by prefix --since 30d")]
pub(super) struct Stats {
    /// By what
    #[arg(long, value_name = "WHAT", default_value = "jail")]
    pub(super) by: Axis,
    /// Bans of the last so long
    #[arg(long, value_name = "DUR", default_value = "24h", value_parser = age)]
    pub(super) since: Duration,
    /// At most so many names
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(super) limit: usize,
}

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  ban-agent jail disable sshd --for 2h --reason maintenance
  ban-agent jail dry-run web-panels --for 7d   only count whom it would ban, for a week
  ban-agent jail enable sshd")]
pub(super) enum Jail {
    /// It bans nobody; what it holds stays banned
    Disable {
        /// Its name
        name: String,
        #[command(flatten)]
        terms: Terms,
    },
    /// It counts, and tells, whom it would ban; what it holds stays banned
    DryRun {
        /// Its name
        name: String,
        #[command(flatten)]
        terms: Terms,
    },
    /// It bans again
    Enable {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  ban-agent allow add 198.51.100.0/24 --for 1d --reason \"the office\"
  ban-agent allow list
  ban-agent allow remove 198.51.100.0/24")]
pub(super) enum Allow {
    /// Never drop it; bans inside it end
    Add {
        /// Address or network
        #[arg(value_name = "ADDR|CIDR")]
        address: String,
        #[command(flatten)]
        terms: Terms,
    },
    /// It can be banned again; [agent] allow stays what it is
    Remove {
        /// Address or network, as it was added
        #[arg(value_name = "ADDR|CIDR")]
        address: String,
    },
    /// Whom `allow add` lets through
    List,
}

/// How long an order holds, and why.
#[derive(Debug, Args)]
pub(super) struct Terms {
    /// How long: 2h, 7d [default: until it is taken back]
    #[arg(long = "for", value_name = "DUR", value_parser = age)]
    pub(super) duration: Option<Duration>,
    /// Why; `status` and `history` tell it
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

/// How long ago.
fn age(text: &str) -> Result<Duration, String> {
    let time = config::parse_duration(text).map_err(|error| error.to_string())?;
    time.ok_or_else(|| "it has to end: 24h, 7d".to_owned())
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
    /// Why; `show`, `list` and `history` tell it, and events do
    #[arg(long, visible_alias = "comment", value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// Also what is protected, or wider than /16 (IPv6: /32)
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Unban {
    /// Address or prefix; `-` reads a list from standard input
    #[arg(required_unless_present_any = ["all", "within"], value_name = "ADDR|CIDR|-")]
    pub(super) targets: Vec<String>,
    /// Every ban; asks before, on a terminal
    #[arg(long, conflicts_with_all = ["targets", "within"])]
    pub(super) all: bool,
    /// Every ban inside this network, itself included
    #[arg(long, value_name = "CIDR", conflicts_with = "targets", value_parser = net::parse_prefix)]
    pub(super) within: Option<IpNet>,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
    /// Why; `history` tells it
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
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
