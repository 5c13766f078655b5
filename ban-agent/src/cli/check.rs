//! `ban-agent check`: validates the configuration and prints the resolved jails.

use std::{
    collections::BTreeMap, fmt::Write as _, fs, net::ToSocketAddrs as _, path::Path,
    process::ExitCode,
};

use serde::Serialize;

use super::{Cli, confined, failure::Failure, nested, output};
use crate::{
    config::{self, Config, format_duration},
    control::SCHEMA,
    jail,
    protect::{self, Group},
    source,
};

pub(super) fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    let (mut config, faults) = config::load_sound(&cli.config)?;
    let mut faults: Vec<Failure> = faults.into_iter().map(Failure::from).collect();
    if let Some(last) = faults.pop() {
        for fault in faults {
            fault.report();
        }
        return Err(last);
    }
    if !cli.quiet {
        let confined = confined::warnings(&config, Path::new("/"));
        let nested = nested::warnings(&config);
        let more = [lookups(&config), blind(&config), confined, nested];
        config.warnings.extend(more.into_iter().flatten());
    }
    let mut protected = protect::survey(&config.agent.protect).unwrap_or_else(|error| {
        config.warnings.push(error.to_string());
        Vec::new()
    });
    protected.extend(protect::of_jails(&config.jails));
    if cli.json() {
        output::object(&document(&config, &protected))?;
    } else if !cli.quiet {
        output::print(&(human(&config) + &output::protected(&protected)))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    files: Vec<String>,
    warnings: &'a [String],
    jails: Vec<Jail<'a>>,
    disabled: &'a [String],
    protected: &'a [Group],
}

#[derive(Serialize)]
struct Jail<'a> {
    name: &'a str,
    filter: &'a str,
    reads: Vec<String>,
    maxretry: Option<u32>,
    distinct: BTreeMap<&'a str, u32>,
    count_by: Option<&'a str>,
    max_tracked: usize,
    findtime: u64,
    bantime: Option<u64>,
    bans: bool,
    ports: Vec<String>,
    ignoreip: Vec<String>,
    ignorecommand: Option<&'a str>,
    actions: Vec<&'a str>,
}

fn document<'a>(config: &'a Config, protected: &'a [Group]) -> Document<'a> {
    Document {
        schema: SCHEMA,
        files: config.files.iter().map(|path| path.display().to_string()).collect(),
        warnings: &config.warnings,
        jails: config.jails.iter().map(|jail| describe(jail)).collect(),
        disabled: &config.disabled,
        protected,
    }
}

fn describe(jail: &jail::Spec) -> Jail<'_> {
    Jail {
        name: &jail.rules.name,
        filter: &jail.rules.filter.name,
        reads: jail.sources.iter().map(ToString::to_string).collect(),
        maxretry: jail.rules.maxretry,
        distinct: jail.rules.distinct.iter().map(|(field, wanted)| (&**field, *wanted)).collect(),
        count_by: jail.rules.count_by.as_deref(),
        max_tracked: jail.rules.max_tracked,
        findtime: jail.rules.findtime.as_secs(),
        bantime: jail.rules.bantime.map(|time| time.as_secs()),
        bans: jail.rules.bans,
        ports: jail.rules.ports.iter().map(ToString::to_string).collect(),
        ignoreip: ignored(jail),
        ignorecommand: jail.rules.ignorecommand.as_ref().map(|rule| rule.command.as_str()),
        actions: jail.actions.iter().map(|action| &*action.name).collect(),
    }
}

/// Returns the whole of `ignoreip`: what is looked up, too.
fn ignored(jail: &jail::Spec) -> Vec<String> {
    let files = jail.rules.lookup.files.iter().map(|path| format!("file:{}", path.display()));
    let nets = jail.rules.ignoreip.iter().map(ToString::to_string);
    nets.chain(jail.rules.lookup.names.iter().cloned()).chain(files).collect()
}

/// Returns what of `ignoreip` cannot be looked up now; a running agent tries again and again.
fn lookups(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for jail in &config.jails {
        for name in &jail.rules.lookup.names {
            if let Err(error) = (name.as_str(), 0).to_socket_addrs() {
                warnings.push(format!("jail {}: ignoreip: {name}: {error}", jail.rules.name));
            }
        }
        for path in &jail.rules.lookup.files {
            if let Err(error) = fs::read_to_string(path) {
                let path = path.display();
                warnings.push(format!("jail {}: ignoreip: {path}: {error}", jail.rules.name));
            }
        }
    }
    warnings
}

/// Returns the jails that could see nothing on this host as it stands.
pub(super) fn blind(config: &Config) -> Vec<String> {
    let jails = config.jails.iter().filter(|jail| !jail.rules.filter.is_idle());
    let blind = jails.filter(|jail| !jail.sources.iter().any(source::Spec::is_there));
    blind
        .map(|jail| {
            let sources: Vec<String> = jail.sources.iter().map(ToString::to_string).collect();
            let named = match &*sources {
                [] => "it names no source".to_owned(),
                named => format!("there is no {}", named.join(", and no ")),
            };
            format!("jail {} has nothing to read: {named}", jail.rules.name)
        })
        .collect()
}

fn human(config: &Config) -> String {
    let mut text = String::new();
    for path in &config.files {
        let _ = writeln!(text, "{}: good", path.display());
    }
    for warning in &config.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    let rows: Vec<Vec<String>> = config.jails.iter().map(|jail| row(jail)).collect();
    if !rows.is_empty() {
        let header = ["JAIL", "FILTER", "MAXRETRY", "FINDTIME", "BANTIME", "PORTS", "READS"];
        text.push_str(&output::table(&header, &rows));
    }
    for jail in config.jails.iter().filter(|jail| !jail.actions.is_empty()) {
        let names: Vec<&str> = jail.actions.iter().map(|action| &*action.name).collect();
        let _ = writeln!(text, "{} runs {}", jail.rules.name, names.join(", "));
    }
    if !config.disabled.is_empty() {
        let _ = writeln!(text, "off: {}", config.disabled.join(", "));
    }
    text
}

/// Returns when an address has failed too often: `5`, `5 or 4 user`.
fn bounds(rules: &jail::Rules) -> String {
    let distinct = rules.distinct.iter().map(|(field, wanted)| format!("{wanted} {field}"));
    let each = rules.maxretry.iter().map(ToString::to_string).chain(distinct);
    let text = each.collect::<Vec<_>>().join(" or ");
    match &rules.count_by {
        Some(field) => format!("{text} by {field}"),
        None => text,
    }
}

fn row(jail: &jail::Spec) -> Vec<String> {
    let shown = describe(jail);
    vec![
        shown.name.into(),
        shown.filter.into(),
        bounds(&jail.rules),
        format_duration(jail.rules.findtime),
        jail.rules.bantime.map_or("for ever".into(), format_duration),
        match shown.ports.as_slice() {
            _ if !shown.bans => "none: bans nobody".into(),
            [] => "all".into(),
            ports => ports.join(" "),
        },
        shown.reads.join(" "),
    ]
}
