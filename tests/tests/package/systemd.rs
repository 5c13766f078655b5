//! The unit under a real systemd: it starts, is watched, reloads, restarts and stops as documented,
//! confined as it says, and bans meanwhile.

use std::{fs, io::Write as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use tests::{
    host::Family,
    machine::Machine,
    privilege,
    process::eventually,
    stage::{ATTACKER, EDGE, Stage},
};

/// More than any step takes, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
const CONFIG: &str = "/etc/ban-agent/config.toml";
const LOG: &str = "/var/log/app.log";
const UNIT: &str = "ban-agent.service";

/// A booted machine with the package, and one jail.
fn machine(stage: &Stage) -> Result<Machine<'_>> {
    let mut machine = Machine::build(stage)?;
    machine.install()?;
    fs::write(machine.file(LOG), "")?;
    fs::write(machine.file(CONFIG), config("maxretry = 2"))?;
    machine.boot()?;
    Ok(machine)
}

fn config(more: &str) -> String {
    format!(
        "[agent]\ninterfaces = [\"eth0\"]\nmax_bans = 4096\n\
         [filters.app]\nfailregex = ['^ slow <ADDR>$']\n\
         [jails.app]\nlogpath = \"{LOG}\"\nfindtime = \"1h\"\n{more}\n"
    )
}

fn complain(machine: &Machine<'_>, times: usize) -> Result<()> {
    let mut file = fs::File::options().append(true).open(machine.file(LOG))?;
    // dated: a line without counts only once the log is being followed, a moment after the start
    let now = Timestamp::now();
    (0..times).try_for_each(|_| writeln!(file, "{now:.0} slow {}", ATTACKER.0))?;
    Ok(())
}

fn property(machine: &Machine<'_>, name: &str) -> Result<String> {
    let shown = machine.done(&["systemctl", "show", "--value", "--property", name, UNIT])?;
    Ok(shown.trim().to_owned())
}

fn pings(stage: &Stage) -> Result<bool> {
    stage.attacker().pings(Family::V4, EDGE)
}

/// Waits until the attacker is banned, and by whom.
fn await_ban(machine: &Machine<'_>) -> Result<()> {
    eventually("the log line bans", LIMIT, || {
        Ok(machine.run(&["ban-agent", "show", ATTACKER.0])?.status.success())
    })
    .with_context(|| journal(machine))
}

fn journal(machine: &Machine<'_>) -> String {
    machine.done(&["journalctl", "--no-pager", "--unit", UNIT]).unwrap_or_default()
}

#[test]
fn the_unit_does_as_documented() -> Result<()> {
    if !privilege::ready("the unit under systemd") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let machine = machine(&stage)?;
    machine.done(&["systemctl", "start", UNIT]).with_context(|| journal(&machine))?;
    ensure!(property(&machine, "ActiveState")? == "active", "not active once it was started");
    ensure!(property(&machine, "Type")? == "notify");
    confined(&machine)?;
    for (path, expected) in [
        ("/var/lib/ban-agent", "0 0 700"),
        ("/run/ban-agent", "0 0 755"),
        ("/run/ban-agent/control.sock", "0 0 660"),
    ] {
        let found = machine.done(&["stat", "--format", "%u %g %a", path])?;
        ensure!(found.trim() == expected, "{path}: {found}");
    }

    complain(&machine, 2)?;
    await_ban(&machine)?;
    ensure!(!pings(&stage)?, "banned, and answered");

    reload(&machine)?;

    // a restart leaves the bans where they are
    machine.done(&["systemctl", "restart", UNIT])?;
    ensure!(!pings(&stage)?, "the restart ended the ban");
    await_ban(&machine)?;
    machine.done(&["systemctl", "stop", UNIT])?;
    ensure!(!pings(&stage)?, "the stop ended the ban");
    ensure!(!property(&machine, "Result")?.contains("timeout"), "it had to be killed");

    // what it cannot start with, it does not start with, nor again and again
    fs::write(machine.file(CONFIG), config("maxretri = 2"))?;
    ensure!(!machine.run(&["systemctl", "start", UNIT])?.status.success(), "started");
    eventually("it is left alone", LIMIT, || Ok(property(&machine, "ActiveState")? == "failed"))?;
    ensure!(property(&machine, "NRestarts")? == "0", "tried again with a bad configuration");
    ensure!(journal(&machine).contains("maxretri"), "{}", journal(&machine));
    ensure!(!pings(&stage)?, "a bad configuration ended the ban");

    fs::write(machine.file(CONFIG), config("maxretry = 2"))?;
    machine.done(&["systemctl", "start", UNIT])?;
    // the end of everything takes the program off
    machine.done(&["dpkg", "--purge", "ban-agent"])?;
    ensure!(pings(&stage)? && !stage.attached()?, "still dropped after the purge");
    Ok(())
}

/// Files, journal, hooks and metrics work inside what the unit allows.
#[test]
fn whoever_listens_hears_through_the_confinement() -> Result<()> {
    if !privilege::ready("events under systemd") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let machine = machine(&stage)?;
    let listeners = "maxretry = 2\n[metrics]\nlisten = \"127.0.0.1:9938\"\n\
                     [events]\nfile = \"/var/log/ban-agent/events.ndjson\"\njournal = true\n\
                     [hooks.web]\nurl = \"https://127.0.0.1:9/\"\n\
                     [hooks.program]\ncommand = [\"/usr/bin/tee\", \"/var/log/ban-agent/told\"]";
    fs::write(machine.file(CONFIG), config(listeners))?;
    machine.done(&["systemctl", "start", UNIT]).with_context(|| journal(&machine))?;
    complain(&machine, 2)?;
    await_ban(&machine)?;
    let address = format!("BAN_AGENT_ADDRESS={}", ATTACKER.0);
    let journalctl = ["journalctl", "--output=json", "BAN_AGENT_ACTION=ban", &address];
    eventually("the journal has the ban's fields", LIMIT, || {
        let entries = machine.run(&journalctl)?.stdout;
        Ok(String::from_utf8_lossy(&entries).contains("\"BAN_AGENT_JAIL\":\"app\""))
    })?;
    for name in ["events.ndjson", "told"] {
        let file = machine.file(&format!("/var/log/ban-agent/{name}"));
        eventually(&format!("{name} has the ban"), LIMIT, || {
            Ok(fs::read_to_string(&file).unwrap_or_default().contains("\"action\":\"ban\""))
        })
        .with_context(|| journal(&machine))?;
    }
    // nobody listens there; to be told so, it had to be allowed to try
    eventually("the web hook was refused", LIMIT, || {
        let status = machine.done(&["ban-agent", "status"])?;
        Ok(status.contains("hook web does not deliver") && status.contains("refused"))
    })?;
    let ask =
        "exec 3<>/dev/tcp/127.0.0.1/9938; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
    let metrics = machine.done(&["bash", "-c", ask])?;
    ensure!(metrics.contains("ban_agent_jail_offences_total{jail=\"app\"} 1\n"), "{metrics}");
    Ok(())
}

/// All of it, or nothing; by `systemctl reload` and by SIGHUP.
fn reload(machine: &Machine<'_>) -> Result<()> {
    let pid = property(machine, "MainPID")?;
    fs::write(machine.file(CONFIG), config("maxretri = 3"))?;
    let failed = machine.run(&["systemctl", "reload", UNIT])?;
    ensure!(!failed.status.success(), "a bad configuration was reloaded");
    machine.done(&["systemctl", "kill", "--signal=HUP", UNIT])?;
    eventually("the journal says why it was not", LIMIT, || {
        Ok(journal(machine).contains("configuration not reloaded"))
    })?;
    ensure!(machine.done(&["ban-agent", "status"])?.contains("app"), "the jail is gone");
    fs::write(machine.file(CONFIG), config("maxretry = 3"))?;
    machine.done(&["systemctl", "reload", UNIT])?;
    machine.done(&["systemctl", "kill", "--signal=HUP", UNIT])?;
    eventually(
        "it is reloaded",
        LIMIT,
        || Ok(journal(machine).contains("configuration reloaded")),
    )?;
    ensure!(property(machine, "MainPID")? == pid, "the reload restarted it");
    Ok(())
}

/// What the kernel says of the running process.
fn confined(machine: &Machine<'_>) -> Result<()> {
    let pid = property(machine, "MainPID")?;
    let status = machine.done(&["cat", &format!("/proc/{pid}/status")])?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim_matches([':', '\t', ' ']).to_owned()).unwrap_or_default()
    };
    ensure!(field("NoNewPrivs") == "1" && field("Seccomp") == "2", "{status}");
    // DAC_READ_SEARCH, NET_ADMIN, PERFMON, BPF
    let needed = [2, 12, 38, 39].into_iter().fold(0_u64, |mask, bit| mask | 1 << bit);
    ensure!(u64::from_str_radix(&field("CapEff"), 16)? == needed, "{status}");
    let rated = machine.done(&["systemd-analyze", "security", "--no-pager", UNIT])?;
    let figure = rated.lines().find(|line| line.contains("Overall exposure")).unwrap_or_default();
    println!("systemd-analyze security: {}", figure.trim());
    let score = figure.split_whitespace().find_map(|word| word.parse::<f32>().ok());
    ensure!(score.is_some_and(|score| score <= 2.5), "{rated}");
    Ok(())
}

#[test]
fn a_crash_or_a_hang_is_restarted_and_lifts_no_ban() -> Result<()> {
    if !privilege::ready("restarts under systemd") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let machine = machine(&stage)?;
    let folder = machine.file("/etc/systemd/system/ban-agent.service.d");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("test.conf"), "[Service]\nWatchdogSec=3s\n")?;
    machine.done(&["systemctl", "daemon-reload"])?;
    machine.done(&["systemctl", "start", UNIT]).with_context(|| journal(&machine))?;
    complain(&machine, 2)?;
    await_ban(&machine)?;
    for signal in ["KILL", "STOP"] {
        let before = property(&machine, "MainPID")?;
        let signal_name = format!("--signal={signal}");
        machine.done(&["systemctl", "kill", "--kill-whom=main", &signal_name, UNIT])?;
        eventually("a new one answers", LIMIT, || {
            ensure!(!pings(&stage)?, "SIG{signal} ended the ban");
            let now = property(&machine, "MainPID")?;
            let answers = || machine.run(&["ban-agent", "-o", "json", "status"]);
            Ok(now != "0" && now != before && answers()?.status.success())
        })
        .with_context(|| journal(&machine))?;
        await_ban(&machine)?;
    }
    ensure!(property(&machine, "NRestarts")? == "2", "restarted for another reason");
    ensure!(journal(&machine).contains("watchdog"), "the hang was not the watchdog's");
    Ok(())
}
