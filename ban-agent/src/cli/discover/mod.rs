//! `ban-agent discover`: which services run here, which shipped jail covers each, what it would read
//! and whom it would have banned in the last day. It changes nothing but the file that `--write`
//! names.

mod host;

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write as _,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::ExitCode,
};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{
    Cli,
    args::Discover,
    failure::Failure,
    output,
    replay::{Lines, Replayed, read_all},
};
use crate::{
    config::{self, Service},
    control::SCHEMA,
    event::{Shown, disarm},
    jail,
    net::IpNet,
    source::{self, Found},
};
use host::{Host, Process};

/// Of a log, at most so much of its end is looked through.
const MOST: u64 = 256 << 20;

/// A file in the logs of so many services says nothing about any of them.
const SHARED: usize = 3;

/// How a file begins that this verb may write anew.
const MARK: &str = "# Written by `ban-agent discover`";

/// Processes that are not called as their service is.
const PROGRAMS: [(&str, &[&str]); 15] = [
    ("apache", &["apache2", "httpd"]),
    ("bind", &["named"]),
    ("ceph", &["ceph-mgr", "radosgw"]),
    ("exim", &["exim4"]),
    ("kubernetes", &["kube-apiserver", "k3s-server", "rke2"]),
    ("litespeed", &["lshttpd", "litespeed"]),
    ("mongodb", &["mongod"]),
    ("mysql", &["mysqld", "mariadbd"]),
    ("postfix", &["master"]),
    ("postgresql", &["postgres"]),
    ("proxmox", &["pvedaemon", "pveproxy", "proxmox-backup-"]),
    ("redis", &["redis-server", "valkey-server"]),
    ("samba", &["smbd", "samba"]),
    ("strongswan", &["charon", "charon-systemd"]),
    ("teamspeak", &["ts3server"]),
];

pub(super) fn run(cli: &Cli, args: &Discover) -> Result<ExitCode, Failure> {
    let enabled = enabled(&cli.config);
    let host = Host::survey(Path::new("/"));
    let report = report(&config::catalogue()?, &host, &enabled, Timestamp::now());
    if let Some(path) = &args.write {
        write(path, &report)?;
    }
    if cli.json() {
        output::object(&report)?;
    } else {
        output::print(&human(&report))?;
    }
    Ok(ExitCode::from(u8::from(report.services.is_empty())))
}

/// The jails that run, ours and fail2ban's; none without a usable configuration.
fn enabled(path: &Path) -> BTreeSet<String> {
    let loaded = config::load_sound(path);
    let config = loaded.inspect_err(|error| log::warn!("no jail counts as on: {error}"));
    let jails = config.map(|(config, _)| config.jails).unwrap_or_default();
    jails.iter().map(|jail| jail.rules.name.to_string()).collect()
}

/// What was found, as `-o json` prints it.
#[derive(Serialize)]
struct Report {
    schema: u32,
    services: Vec<Seen>,
    /// What others can reach and no shipped filter is for.
    uncovered: Vec<Uncovered>,
}

/// A service that runs here.
#[derive(Serialize)]
struct Seen {
    service: String,
    kind: String,
    /// Why it is taken to be here.
    seen: Vec<String>,
    jails: Vec<Covering>,
}

/// A shipped jail for it.
#[derive(Serialize)]
struct Covering {
    jail: String,
    state: State,
    /// The log file, or `journal`; none was found without it.
    reads: Option<String>,
    /// Whom it would have banned in the last day, if it had been on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    last_day: Vec<Ban>,
    /// Why that could not be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The `logpath` to set, where it is not the jail's own.
    #[serde(skip)]
    logpath: Option<PathBuf>,
}

#[derive(Serialize)]
struct Ban {
    prefix: IpNet,
    at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// The configuration names it.
    On,
    /// It is known, and off.
    Off,
    /// There is nothing that it could read: `logpath` has to be set.
    Blind,
    /// It is off, and what it would read is no evidence: `raw_log` has to be set.
    Raw,
}

/// A program that others can reach and that no shipped filter is for.
#[derive(Serialize)]
struct Uncovered {
    program: String,
    unit: Option<String>,
    listens: BTreeSet<String>,
}

fn report(
    catalogue: &[Service],
    host: &Host,
    enabled: &BTreeSet<String>,
    now: Timestamp,
) -> Report {
    let mut users: HashMap<&Path, usize> = HashMap::new();
    for service in catalogue {
        for file in files(service) {
            *users.entry(file).or_default() += 1;
        }
    }
    let mut known: BTreeSet<(&str, Option<&str>)> = BTreeSet::new();
    let mut services = Vec::new();
    for service in catalogue {
        let processes: Vec<&Process> =
            host.processes.iter().filter(|process| is_of(process, service)).collect();
        known.extend(processes.iter().map(|process| (&*process.name, process.unit.as_deref())));
        let container = host.containers.iter().find(|container| {
            names(&container.name, &service.name) || names(&container.image, &service.name)
        });
        let mut seen: Vec<String> = processes.iter().map(|process| told(process)).collect();
        seen.extend(container.map(|container| format!("container {}", container.name)));
        seen.extend(identified(service, host));
        // lines of a web server are for jails of any application behind it
        let shared = if service.kind == "web" { usize::MAX } else { SHARED };
        let own = files(service)
            .into_iter()
            .filter(|file| users.get(file).is_none_or(|count| *count < shared) && file.is_file());
        seen.extend(own.map(|file| file.display().to_string()));
        if seen.is_empty() {
            continue;
        }
        // such a path cannot stand in a configuration
        let plain = |path: &&Path| !path.to_string_lossy().contains(['\n', '*', '?', '[']);
        let log = container.map(|container| container.log.as_path()).filter(plain);
        let contained = log.filter(|_| processes.iter().all(|process| process.unit.is_none()));
        let jails = service.jails.iter();
        let jails = jails.map(|spec| covering(spec, contained, enabled, now));
        let blind = service.unplaced.iter().map(|jail| Covering {
            state: if enabled.contains(jail) { State::On } else { State::Blind },
            jail: jail.clone(),
            reads: None,
            last_day: Vec::new(),
            error: None,
            logpath: None,
        });
        let (service, kind) = (service.name.clone(), service.kind.clone());
        services.push(Seen { service, kind, seen, jails: jails.chain(blind).collect() });
    }
    let reached = host.processes.iter().filter(|process| {
        let known = known.contains(&(&*process.name, process.unit.as_deref()));
        !process.listens.is_empty() && !known && !OWN.contains(&&*process.name)
    });
    let uncovered = reached.map(|process| Uncovered {
        program: process.name.clone(),
        unit: process.unit.clone(),
        listens: process.listens.clone(),
    });
    Report { schema: SCHEMA, services, uncovered: uncovered.collect() }
}

/// They listen for others: what answers is another process, or we.
const OWN: [&str; 3] = ["systemd", "docker-proxy", "ban-agent"];

/// The files that `logpath = "auto"` looks for.
fn files(service: &Service) -> BTreeSet<&Path> {
    let specs = service.jails.iter().flat_map(|jail| &jail.sources);
    let files = specs.flat_map(|spec| match spec {
        source::Spec::Auto { files, .. } => files.as_slice(),
        _ => &[],
    });
    files.map(PathBuf::as_path).collect()
}

/// The matches of its jails: `_SYSTEMD_UNIT=ssh.service`.
fn matches(service: &Service) -> impl Iterator<Item = &str> {
    let specs = service.jails.iter().flat_map(|jail| &jail.sources);
    specs
        .flat_map(|spec| match spec {
            source::Spec::Auto { matches, .. } | source::Spec::Journal { matches } => {
                matches.as_slice()
            }
            _ => &[],
        })
        .map(String::as_str)
}

fn is_of(process: &Process, service: &Service) -> bool {
    let programs = PROGRAMS.iter().find(|(name, _)| *name == service.name);
    let called = process.name == service.name
        || programs.is_some_and(|(_, names)| names.contains(&&*process.name));
    called
        || process.unit.as_deref().is_some_and(|unit| {
            matches(service).any(|word| word.strip_prefix("_SYSTEMD_UNIT=") == Some(unit))
        })
}

/// `sshd (ssh.service, tcp/22)`.
fn told(process: &Process) -> String {
    let more: Vec<&str> =
        process.unit.as_deref().into_iter().chain(process.listens.iter().map(|at| &**at)).collect();
    if more.is_empty() {
        return process.name.clone();
    }
    format!("{} ({})", process.name, more.join(", "))
}

/// By what it calls itself in the journal.
fn identified(service: &Service, host: &Host) -> Option<String> {
    let mut words = matches(service);
    let found = words.find_map(|word| {
        let name = word.strip_prefix("SYSLOG_IDENTIFIER=")?;
        host.identifiers.contains(name).then_some(name)
    })?;
    Some(format!("{found} in the journal"))
}

/// Whether a container's or image's name holds the service's as a word of its own.
fn names(text: &str, service: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.match_indices(service).any(|(at, _)| {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let after = text.get(at + service.len()..).and_then(|after| after.chars().next());
        [before, after].iter().flatten().all(|c| !c.is_alphanumeric())
    })
}

/// What the jail would read, and whom it would have banned.
fn covering(
    spec: &jail::Spec,
    contained: Option<&Path>,
    enabled: &BTreeSet<String>,
    now: Timestamp,
) -> Covering {
    let name = spec.rules.name.to_string();
    let found = contained.map(Found::File).or_else(|| {
        spec.sources.iter().find_map(|source| match source {
            source::Spec::Auto { files, matches } => source::find_now(files, matches),
            source::Spec::File { path, .. } => path.is_file().then_some(Found::File(path)),
            source::Spec::Journal { .. } => Some(Found::Journal),
            _ => None,
        })
    });
    let counts_bans = spec.sources.contains(&source::Spec::Bans);
    let state = match found {
        _ if enabled.contains(&name) => State::On,
        None if !counts_bans => State::Blind,
        _ if spec.raw_log => State::Raw,
        _ => State::Off,
    };
    let (last_day, error) = match found.map(|found| last_day(spec, found, now)).transpose() {
        Ok(bans) => (bans.unwrap_or_default(), None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let reads = found.map(|found| match found {
        Found::File(path) => path.display().to_string(),
        Found::Journal => "journal".to_owned(),
    });
    Covering { jail: name, state, reads, last_day, error, logpath: contained.map(Path::to_owned) }
}

fn last_day(spec: &jail::Spec, found: Found<'_>, now: Timestamp) -> Result<Vec<Ban>, String> {
    let mut replayed = Replayed::new(spec).map_err(|_| "its filter is not valid".to_owned())?;
    let read = match found {
        Found::File(path) => tail(path).and_then(|mut log| {
            let jails = std::slice::from_mut(&mut replayed);
            read_all(jails, &mut log, source::Engine::of(path), now)
        }),
        Found::Journal => {
            let matches = spec.sources.iter().find_map(|source| match source {
                source::Spec::Auto { matches, .. } | source::Spec::Journal { matches } => {
                    Some(matches.as_slice())
                }
                _ => None,
            });
            source::last_day(matches.unwrap_or_default(), |lines| {
                replayed.scan(lines, Lines::Stamped, now);
            })
        }
    };
    read.map_err(|error| error.to_string())?;
    let since = now.saturating_sub(SignedDuration::from_hours(24)).unwrap_or(Timestamp::MIN);
    let bans = replayed.bans.into_iter().filter(|ban| ban.at >= since);
    Ok(bans.map(|ban| Ban { prefix: ban.prefix, at: ban.at }).collect())
}

/// The end of a log, from the beginning of a line on.
fn tail(path: &Path) -> io::Result<BufReader<File>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let skipped = length.saturating_sub(MOST);
    file.seek(SeekFrom::Start(skipped))?;
    let mut log = BufReader::new(file);
    if skipped > 0 {
        log.skip_until(b'\n')?;
    }
    Ok(log)
}

fn human(report: &Report) -> String {
    if report.services.is_empty() {
        return "no service was found that a shipped jail is for\n".into();
    }
    let mut rows = Vec::new();
    for seen in &report.services {
        let mut first = Some((seen.service.clone(), seen.seen.join(", ")));
        for jail in &seen.jails {
            let (service, why) = first.take().unwrap_or_default();
            let state = match jail.state {
                State::On => "on",
                State::Off => "off",
                State::Blind => "set logpath",
                State::Raw => "raw log",
            };
            let last_day = match (&jail.error, &jail.reads) {
                (Some(error), _) => error.clone(),
                (None, None) => String::new(),
                (None, Some(_)) => addresses(&jail.last_day),
            };
            let reads = jail.reads.clone().unwrap_or_default();
            rows.push(vec![service, jail.jail.clone(), state.into(), reads, last_day, why]);
        }
    }
    let header = ["SERVICE", "JAIL", "IS", "READS", "WOULD HAVE BANNED IN A DAY", "SEEN AS"];
    let mut text = output::table(&header, &rows);
    if !report.uncovered.is_empty() {
        text.push_str("\nNot covered by a shipped jail, and reached from outside:\n");
        for program in &report.uncovered {
            let unit = program.unit.as_ref().map(|unit| format!(" ({unit})")).unwrap_or_default();
            let listens: Vec<&str> = program.listens.iter().map(|at| &**at).collect();
            let _ = writeln!(text, "  {}{unit}: {}", program.program, listens.join(" "));
        }
    }
    let off = |jail: &&Covering| jail.state == State::Off;
    if report.services.iter().flat_map(|seen| &seen.jails).any(|jail| off(&jail)) {
        text.push_str(
            "\nTo turn on what is off: ban-agent discover --write \
             /etc/ban-agent/conf.d/50-discovered.toml\n",
        );
    }
    text
}

/// `3: 203.0.113.7, 203.0.113.8, …`.
fn addresses(bans: &[Ban]) -> String {
    const SHOWN: usize = 2;
    let distinct: BTreeSet<String> = bans.iter().map(|ban| Shown(ban.prefix).to_string()).collect();
    if distinct.is_empty() {
        return "none".into();
    }
    let shown: Vec<String> = distinct.iter().take(SHOWN).cloned().collect();
    let more = if distinct.len() > SHOWN { ", …" } else { "" };
    format!("{}: {}{more}", distinct.len(), shown.join(", "))
}

/// Writes the jails of what was found to a file for `conf.d`; only over one of its own.
fn write(path: &Path, report: &Report) -> Result<(), Failure> {
    let failed = |error| Failure::new(2, format!("cannot write {}: {error}", path.display()));
    match fs::read_to_string(path) {
        Ok(text) if !text.starts_with(MARK) => {
            let message = format!("{} is not a file that discover has written", path.display());
            return Err(Failure::new(2, message).hint("nothing was changed; name another file"));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(_) | Err(_) => {}
    }
    fs::write(path, toml(report)).map_err(failed)?;
    let shown = path.display();
    log::info!("wrote {shown}");
    Ok(())
}

fn toml(report: &Report) -> String {
    let mut text = format!(
        "{MARK}: a jail for each service that it found. `ban-agent check`, then\n\
         # `ban-agent reload`. A jail that you do not want: enabled = false, in another file.\n"
    );
    for seen in &report.services {
        let _ = writeln!(text, "\n# {}: {}", seen.service, comment(&seen.seen.join(", ")));
        for jail in &seen.jails {
            let Some(reads) = &jail.reads else {
                let _ = writeln!(text, "# no log was found: name it, and take off the '#'");
                let _ = writeln!(text, "#[jails.{}]\n#logpath = \"/\"", jail.jail);
                continue;
            };
            let off = if jail.state == State::Raw {
                text.push_str(
                    "# no evidence: strangers can write whole lines into this log, and have any address\n\
                     # banned. If you trust all who can reach the service, take off the '#'\n",
                );
                "#"
            } else {
                ""
            };
            let _ = writeln!(text, "{off}[jails.{}]", jail.jail);
            if jail.state == State::Raw {
                text.push_str("#raw_log = true\n");
            }
            if let Some(path) = &jail.logpath {
                let path = toml::Value::String(path.display().to_string());
                let _ = writeln!(text, "{off}logpath = {path}");
            }
            let banned = addresses(&jail.last_day);
            let _ = writeln!(
                text,
                "# reads {}; in a day it would have banned {banned}",
                comment(reads)
            );
        }
    }
    text
}

/// What can stand behind a `#`.
fn comment(text: &str) -> String {
    disarm(text).replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::{host::Container, *};

    fn process(name: &str, unit: &str, listens: &[&str]) -> Process {
        Process {
            name: name.into(),
            unit: (!unit.is_empty()).then(|| unit.to_owned()),
            listens: listens.iter().map(|at| (*at).to_owned()).collect(),
        }
    }

    fn seen<'a>(report: &'a Report, service: &str) -> Option<&'a Seen> {
        report.services.iter().find(|seen| seen.service == service)
    }

    #[test]
    fn what_runs_is_seen_by_its_unit_its_name_or_its_container() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("aa-json.log");
        let now = Timestamp::now();
        let line = |seconds: i64| {
            let at = now - SignedDuration::from_secs(seconds);
            let text = format!(
                "[{}][vaultwarden::api::identity][ERROR] Username or password is incorrect. Try again. \
                 IP: 203.0.113.7. Username: a@example.org.\\n",
                at.strftime("%Y-%m-%d %H:%M:%S.000")
            );
            format!("{{\"log\":\"{text}\",\"stream\":\"stdout\",\"time\":\"{at}\"}}\n")
        };
        // ten failures an hour ago, and as many two days ago
        let old = (0..10).map(|at| line(2 * 86_400 + at));
        let new = (0..10).map(|at| line(3_600 - at));
        fs::write(&log, old.chain(new).collect::<String>()).unwrap();
        let host = Host {
            processes: vec![
                process("sshd", "ssh.service", &["tcp/22"]),
                process("mariadbd", "", &["tcp/3306"]),
                process("odd-server", "odd.service", &["tcp/9000"]),
                process("odd-client", "", &[]),
                process("systemd", "", &["tcp/111"]),
            ],
            containers: vec![Container {
                name: "proj-vaultwarden-1".into(),
                image: "vaultwarden/server:1.30".into(),
                log: log.clone(),
            }],
            ..Host::default()
        };
        let on = BTreeSet::from(["sshd".to_owned()]);
        let report = report(&config::catalogue().unwrap(), &host, &on, now);
        let sshd = seen(&report, "sshd").unwrap();
        assert_eq!(sshd.seen, ["sshd (ssh.service, tcp/22)"]);
        let state = |seen: &Seen, jail: &str| {
            seen.jails.iter().find(|one| one.jail == jail).map(|one| one.state).unwrap()
        };
        assert_eq!(state(sshd, "sshd"), State::On);
        assert_ne!(state(sshd, "sshd-preauth"), State::On);
        assert!(seen(&report, "mysql").is_some());
        let vault = seen(&report, "vaultwarden").unwrap();
        let jail = vault.jails.iter().find(|one| one.jail == "vaultwarden").unwrap();
        assert_eq!(jail.reads.as_deref(), log.to_str());
        let banned: BTreeSet<String> =
            jail.last_day.iter().map(|ban| Shown(ban.prefix).to_string()).collect();
        assert_eq!(Vec::from_iter(banned), ["203.0.113.7"]);
        assert!(jail.last_day.iter().all(|ban| ban.at > now - SignedDuration::from_hours(2)));
        let uncovered: Vec<_> = report.uncovered.iter().map(|one| &*one.program).collect();
        assert_eq!(uncovered, ["odd-server"]);
        let text = human(&report);
        assert!(
            text.contains("1: 203.0.113.7") && text.contains("odd-server (odd.service)"),
            "{text}"
        );
    }

    #[test]
    fn what_is_written_is_a_configuration_of_those_jails() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("x\".log");
        fs::write(&log, "").unwrap();
        let host = Host {
            processes: vec![process("sshd", "ssh.service", &[])],
            containers: vec![
                Container {
                    name: "grafana\n[jails.evil]".into(),
                    image: "grafana/grafana".into(),
                    log: log.clone(),
                },
                Container { name: "vaultwarden".into(), image: "vaultwarden/server".into(), log },
            ],
            ..Host::default()
        };
        let none = BTreeSet::new();
        let report = report(&config::catalogue().unwrap(), &host, &none, Timestamp::now());
        let main = folder.path().join("config.toml");
        write(&main, &report).unwrap();
        // once more, over itself
        write(&main, &report).unwrap();
        let config = config::load(&main).unwrap();
        let names: Vec<_> = config.jails.iter().map(|jail| jail.rules.name.to_string()).collect();
        assert!(names.contains(&"grafana".to_owned()), "{names:?}");
        assert!(!names.contains(&"evil".to_owned()), "{names:?}");
        // one over a raw log is the operator's to turn on
        assert!(!names.contains(&"vaultwarden".to_owned()), "{names:?}");
        let text = fs::read_to_string(&main).unwrap();
        assert!(text.contains("\n#[jails.vaultwarden]\n#raw_log = true\n#logpath = "), "{text}");
        fs::write(&main, "# mine\n").unwrap();
        assert!(write(&main, &report).is_err());
        assert_eq!(fs::read_to_string(&main).unwrap(), "# mine\n");
    }

    #[test]
    fn a_name_is_a_word_of_its_own() {
        for (text, service, expected) in [
            ("proj-nextcloud-1", "nextcloud", true),
            ("docker.io/library/nextcloud:28", "nextcloud", true),
            ("Grafana", "grafana", true),
            ("vaultwarden", "vault", false),
            ("mynextcloud", "nextcloud", false),
            ("", "nextcloud", false),
        ] {
            assert_eq!(names(text, service), expected, "{text} {service}");
        }
    }
}
