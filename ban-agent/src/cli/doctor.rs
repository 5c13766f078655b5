//! `ban-agent doctor`: what this host can do, what is attached, and whether the maps agree with
//! the agent. Exit code 1 if something is bad.

use std::{fs, path::Path, process::ExitCode};

use serde::Serialize;

use super::{Cli, check, failure::Failure, output};
use crate::{
    alarm::{Alarm, Name},
    config::{self, Agent},
    control::{CallError, Document, Drift, Request, SCHEMA, Status, call},
    dataplane::{self, interface::Interface},
    protect::{self, Group},
};

pub(super) fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    let mut checks = vec![running_kernel(), btf(), jit(), capabilities()];
    let (mut blind, mut protected) = (Vec::new(), Vec::new());
    let agent = match config::load_sound(&cli.config) {
        Ok((config, faults)) => {
            checks.push(good("configuration", format!("{} jails", config.jails.len())));
            checks.extend(faults.iter().map(|fault| {
                bad("configuration", fault.to_string(), &fault.hint().unwrap_or_default())
            }));
            blind = check::blind(&config);
            protected = protect::survey(&config.agent.protect).unwrap_or_default();
            protected.extend(protect::of_jails(&config.jails));
            config.agent
        }
        Err(error) => {
            let hint = error.hint().unwrap_or_default();
            checks.push(bad("configuration", error.to_string(), &hint));
            config::shipped()?.agent
        }
    };
    checks.push(bpffs(&agent.pins));
    checks.extend(interfaces(&agent));
    checks.push(pins(&agent.pins));
    checks.extend(memory(&agent.pins));
    checks.extend(running_agent(cli, blind, protected));
    let sound = checks.iter().all(|check| check.verdict != Verdict::Bad);
    if cli.json() {
        output::object(&Report { schema: SCHEMA, sound, checks: &checks })?;
    } else {
        output::print(&human(&checks))?;
    }
    Ok(ExitCode::from(u8::from(!sound)))
}

#[derive(Serialize)]
struct Report<'a> {
    schema: u32,
    sound: bool,
    checks: &'a [Check],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    Warning,
    Bad,
}

#[derive(Debug, Serialize)]
struct Check {
    name: String,
    verdict: Verdict,
    detail: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
}

fn checked(name: &str, verdict: Verdict, detail: String, hint: &str) -> Check {
    Check { name: name.into(), verdict, detail, hint: hint.into() }
}

fn good(name: &str, detail: String) -> Check {
    checked(name, Verdict::Good, detail, "")
}

fn warning(name: &str, detail: String, hint: &str) -> Check {
    checked(name, Verdict::Warning, detail, hint)
}

fn bad(name: &str, detail: String, hint: &str) -> Check {
    checked(name, Verdict::Bad, detail, hint)
}

fn human(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let mark = match check.verdict {
            Verdict::Good => "good",
            Verdict::Warning => "warn",
            Verdict::Bad => "BAD ",
        };
        text.push_str(&format!("{mark}  {:<14} {}\n", check.name, check.detail));
        if !check.hint.is_empty() {
            text.push_str(&format!("      {:<14} hint: {}\n", "", check.hint));
        }
    }
    text
}

fn running_kernel() -> Check {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 15) {
        good("kernel", release)
    } else {
        bad("kernel", release, "ban-agent needs Linux 5.15 or newer")
    }
}

fn btf() -> Check {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        good("BTF", "/sys/kernel/btf/vmlinux".into())
    } else {
        warning(
            "BTF",
            "the kernel has none".into(),
            "maps work, but bpftool shows them without names",
        )
    }
}

fn jit() -> Check {
    match fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").as_deref().map(str::trim) {
        Ok("0") => warning(
            "JIT",
            "off: the program is interpreted".into(),
            "sysctl net.core.bpf_jit_enable=1 makes it several times faster",
        ),
        Ok(value) => good("JIT", format!("on ({value})")),
        // only the first network namespace has the switch
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            good("JIT", "no switch in this network namespace".into())
        }
        Err(error) => warning("JIT", format!("unknown: {error}"), "run doctor as root"),
    }
}

fn capabilities() -> Check {
    const NET_ADMIN: u64 = 1 << 12;
    const SYS_ADMIN: u64 = 1 << 21;
    const PERFMON: u64 = 1 << 38;
    const BPF: u64 = 1 << 39;
    let held = fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or(0);
    let missing: Vec<&str> =
        [(NET_ADMIN, "CAP_NET_ADMIN"), (PERFMON, "CAP_PERFMON"), (BPF, "CAP_BPF")]
            .iter()
            .filter(|(bit, _)| held & bit == 0)
            .filter(|(bit, _)| *bit == NET_ADMIN || held & SYS_ADMIN == 0)
            .map(|(_, name)| *name)
            .collect();
    if missing.is_empty() {
        good("capabilities", "BPF, NET_ADMIN, PERFMON".into())
    } else {
        warning(
            "capabilities",
            format!("this shell lacks {}", missing.join(", ")),
            "the agent itself needs them: run it as root or from its unit",
        )
    }
}

fn bpffs(pins: &Path) -> Check {
    match dataplane::check_bpffs(pins) {
        Ok(()) => good("bpffs", pins.display().to_string()),
        Err(error) => bad("bpffs", error.to_string(), &error.hint().unwrap_or_default()),
    }
}

fn interfaces(agent: &Agent) -> Vec<Check> {
    let names = dataplane::protected(&agent.interfaces, &agent.unprotected);
    match names.and_then(|names| Ok((names, dataplane::interface::list()?))) {
        Ok((names, _)) if names.is_empty() => {
            let hint = "name one: ban-agent run -i IFACE, or [agent] interfaces";
            vec![bad("interface", "no interface leads to the outside".into(), hint)]
        }
        Ok((names, all)) => names.iter().map(|name| interface(name, &all)).collect(),
        Err(error) => vec![bad("interface", error.to_string(), "")],
    }
}

fn interface(name: &str, all: &[Interface]) -> Check {
    let Some(found) = all.iter().find(|interface| interface.name == name) else {
        return bad("interface", format!("{name} does not exist"), "see `ip link`");
    };
    let kind = match found.kind.as_str() {
        "" => fs::read_link(format!("/sys/class/net/{name}/device/driver"))
            .ok()
            .and_then(|path| Some(format!("driver {}", path.file_name()?.to_string_lossy())))
            .unwrap_or_else(|| "hardware".into()),
        kind => kind.to_owned(),
    };
    let program = match (found.program, found.generic) {
        (0, _) => "no XDP program".to_owned(),
        (id, true) => format!("XDP program {id}, generic"),
        (id, false) => format!("XDP program {id}, native"),
    };
    let shown = format!("{name}: {kind}, MTU {}, {program}", found.mtu);
    if !found.is_readable() {
        let hint = "protect the interface below it, by which its packets arrive";
        return bad("interface", format!("{shown}; its frames cannot be read"), hint);
    }
    good("interface", shown)
}

fn pins(folder: &Path) -> Check {
    let folder = folder.join(format!("v{}", ban_common::ABI));
    match fs::read_dir(folder.join("links")) {
        Ok(entries) => {
            let mut names: Vec<String> =
                entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            good("pins", format!("{}, links: {}", folder.display(), names.join(" ")))
        }
        Err(error) => warning(
            "pins",
            format!("{}: {error}", folder.display()),
            "nothing is enforced: the agent never ran here, or detach removed it",
        ),
    }
}

/// Returns what the maps cost; nothing to say where there are none.
fn memory(folder: &Path) -> Option<Check> {
    let maps = match dataplane::memory::footprints(folder) {
        Ok(maps) if maps.is_empty() => return None,
        Ok(maps) => maps,
        Err(error) => return Some(warning("memory", error.to_string(), "run doctor as root")),
    };
    let all: u64 = maps.iter().map(|map| map.bytes).sum();
    let mut largest = maps;
    largest.sort_by_key(|map| std::cmp::Reverse(map.bytes));
    let largest: Vec<String> = largest
        .iter()
        .take(3)
        .map(|map| format!("{} {}", map.name, mebibytes(map.bytes)))
        .collect();
    let detail = format!(
        "{} in the kernel ({}, …); a ban takes {} bytes of it, an IPv6 ban {}",
        mebibytes(all),
        largest.join(", "),
        dataplane::memory::per_ban(4),
        dataplane::memory::per_ban(16),
    );
    Some(good("memory", detail))
}

fn mebibytes(bytes: u64) -> String {
    let tenths = bytes * 10 / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// `blind`: the jails that would see nothing; `protected`: whom no log line would ban. A running
/// agent knows better.
fn running_agent(cli: &Cli, blind: Vec<String>, protected: Vec<Group>) -> Vec<Check> {
    let socket = cli.socket();
    let status = match call(&socket, &Request::Status { jail: None }) {
        Ok(Document::Status(status)) => status,
        Ok(_) => return vec![bad("agent", "odd answer".into(), "restart the agent")],
        Err(error @ CallError::NotRunning { .. }) => {
            let hint = error.hint().unwrap_or_default();
            let mut checks = vec![warning("agent", error.to_string(), &hint)];
            let remedy = Name::JailWithoutSource.remedy();
            checks.extend(blind.into_iter().map(|text| bad("jail", text, remedy)));
            checks.extend(protected.iter().map(never_banned));
            return checks;
        }
        Err(error) => {
            let hint = error.hint().unwrap_or_default();
            return vec![bad("agent", error.to_string(), &hint)];
        }
    };
    let mut checks: Vec<Check> = status.alarms.iter().map(alarm_check).collect();
    checks.push(agent_check(&status));
    checks.extend(status.protected.iter().map(never_banned));
    checks.extend(status.warnings.iter().map(|text| warning("agent", text.clone(), "")));
    if let Ok(Document::Drift(drift)) = call(&socket, &Request::Drift) {
        checks.push(drift_check(drift));
    }
    checks
}

fn never_banned(group: &Group) -> Check {
    let detail = format!("{}: {}", output::prefixes(group), group.reason);
    checked("never banned", Verdict::Good, detail, &group.remedy)
}

fn alarm_check(alarm: &Alarm) -> Check {
    let detail = format!("{}: {}", alarm.name.word(), alarm.sentence());
    bad("alarm", detail, &alarm.remedy)
}

fn agent_check(status: &Status) -> Check {
    let bans = status.bans.v4 + status.bans.v6;
    good(
        "agent",
        format!("{} [{}], {bans} bans, store {}", status.version, status.pid, status.store),
    )
}

fn drift_check(drift: Drift) -> Check {
    let Drift { missing, surplus, pending, .. } = drift;
    if missing + surplus + pending == 0 {
        return good("drift", "none: the maps hold what the ledger says".into());
    }
    bad(
        "drift",
        format!("{missing} missing or different, {surplus} surplus, {pending} pending"),
        "`ban-agent reload` repairs it; does something else write into the maps?",
    )
}
