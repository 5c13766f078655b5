//! An agent that was taken over, under the real unit: what it runs finds no way out. Every way is
//! tried outside as well, where each has to lead somewhere.

use std::{
    collections::BTreeSet, fs, io::Write as _, net::TcpListener, os::unix::fs::PermissionsExt as _,
};

use anyhow::{Context as _, Result, ensure};
use tests::{
    agent::LIMIT,
    host::within,
    machine::Machine,
    privilege,
    process::eventually,
    stage::{CLIENT, Stage},
};

const LOG: &str = "/var/log/app.log";
const UNIT: &str = "ban-agent.service";
const SCRIPT: &str = "/usr/local/bin/escape";
/// What the script found, inside the unit and outside.
const INSIDE: &str = "/var/log/ban-agent/escape";
const OUTSIDE: &str = "/root/escape";

/// Commands of an action are children of the agent's: with its mounts, its filter of system calls,
/// and no right that it has not.
const CONFIG: &str = r#"
[agent]
interfaces = ["eth0"]
max_bans = 4096
[filters.app]
failregex = ['^slow <ADDR>$']
[actions.escape]
ban = '/usr/local/bin/escape /var/log/ban-agent/escape 2>&1'
[jails.app]
logpath = "/var/log/app.log"
maxretry = 1
actions = ["escape"]
"#;

/// Each way, and what comes of it: a line in the file for those that are open. `STRONG` is a
/// process of root's with every right, `WEAK` one without any, whose rights are no more than ours.
const WAYS: &str = r#"#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
exec 3> "$1"
try() { name=$1; shift; if "$@"; then echo "$name" >&3; fi; }
memory() { printf X | dd of="/proc/$1/mem" bs=1 seek=$(($2)) conv=notrunc status=none; }
touched() { echo x > "$1"; }
try memory-of-strong memory STRONG
try memory-of-weak memory WEAK
try root-of-init touched /proc/1/root/escaped
try root-of-strong touched /proc/STRONG_PID/root/escaped
try root-of-weak touched /proc/WEAK_PID/root/escaped
try file touched /etc/escaped
try home touched /root/escaped
try namespace nsenter --target 1 --mount true
try mount mount -t tmpfs none /mnt
try unit systemd-run --quiet --wait true
try bus busctl status
try shadow grep -q root: /etc/shadow
try command-line grep -q sleep /proc/STRONG_PID/cmdline
echo done >&3
"#;

/// A process that sleeps, and the start of its stack.
fn victim(machine: &Machine<'_>, unit: &str, more: &[&str]) -> Result<(String, String)> {
    let unit = format!("--unit={unit}");
    machine.done(&[&["systemd-run", &unit][..], more, &["sleep", "infinity"]].concat())?;
    let shown = ["systemctl", "show", "--value", "--property", "MainPID"];
    let pid = machine.done(&[&shown[..], &[unit.trim_start_matches("--unit=")]].concat())?;
    let pid = pid.trim().to_owned();
    let stack = || -> Result<Option<String>> {
        let maps = machine.done(&["cat", &format!("/proc/{pid}/maps")])?;
        let line = maps.lines().find(|line| line.ends_with("[stack]"));
        Ok(line.and_then(|line| line.split('-').next()).map(str::to_owned))
    };
    Ok((pid.clone(), stack()?.context("no stack")?))
}

fn ways(machine: &Machine<'_>, file: &str) -> Result<Option<BTreeSet<String>>> {
    let text = fs::read_to_string(machine.file(file)).unwrap_or_default();
    let mut ways: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    Ok(ways.remove("done").then_some(ways))
}

#[test]
fn who_takes_the_agent_over_stays_inside() -> Result<()> {
    if !privilege::ready("an escape from the unit") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let mut machine = Machine::build(&stage)?;
    machine.install()?;
    fs::write(machine.file(LOG), "")?;
    fs::write(machine.file("/etc/ban-agent/config.toml"), CONFIG)?;
    machine.boot()?;
    let journal = || machine.done(&["journalctl", "--no-pager", "--unit", "ban-agent*"]);
    let (strong, strong_stack) = victim(&machine, "strong", &[])?;
    let (weak, weak_stack) = victim(&machine, "weak", &["--property=CapabilityBoundingSet="])?;
    let script = WAYS
        .replace("STRONG_PID", &strong)
        .replace("WEAK_PID", &weak)
        .replace("STRONG", &format!("{strong} 0x{strong_stack}"))
        .replace("WEAK", &format!("{weak} 0x{weak_stack}"));
    fs::write(machine.file(SCRIPT), script)?;
    fs::set_permissions(machine.file(SCRIPT), fs::Permissions::from_mode(0o755))?;

    machine.done(&["systemctl", "start", UNIT]).with_context(|| journal().unwrap_or_default())?;
    fs::write(machine.file(LOG), "slow 203.0.113.1\n")?;
    eventually("every way was tried", LIMIT, || Ok(ways(&machine, INSIDE)?.is_some()))
        .with_context(|| journal().unwrap_or_default())?;
    let inside = ways(&machine, INSIDE)?.unwrap_or_default();
    let said = machine.done(&[SCRIPT, OUTSIDE])?;
    let outside = ways(&machine, OUTSIDE)?.context("not all ways were tried outside")?;
    let all: BTreeSet<String> = WAYS
        .lines()
        .filter_map(|line| line.strip_prefix("try "))
        .filter_map(|line| Some(line.split_whitespace().next()?.to_owned()))
        .collect();
    ensure!(inside.is_empty(), "out of the unit leads: {inside:?}");
    ensure!(outside == all, "no ways at all: {:?}\n{said}", &all - &outside);
    Ok(())
}

/// The unit of the helper stands in for the right that the agent has not.
#[test]
fn a_session_is_protected_by_a_unit_of_its_own() -> Result<()> {
    if !privilege::ready("SSH sessions under systemd") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let mut machine = Machine::build(&stage)?;
    machine.install()?;
    fs::write(machine.file(LOG), "")?;
    let config = CONFIG.replace("[agent]", "[agent]\nsocket_group = \"daemon\"");
    fs::write(machine.file("/etc/ban-agent/config.toml"), config)?;
    let drop_in = machine.file("/etc/systemd/system/ban-agent.service.d");
    fs::create_dir_all(&drop_in)?;
    fs::write(drop_in.join("group.conf"), "[Service]\nSupplementaryGroups=daemon\n")?;
    machine.boot()?;
    let journal = || machine.done(&["journalctl", "--no-pager"]).unwrap_or_default();
    machine.done(&["systemctl", "start", UNIT]).with_context(journal)?;

    let owner = ["stat", "--format", "%U %G %a", "/run/ban-agent/control.sock"];
    ensure!(machine.done(&owner)?.trim() == "root daemon 660", "{}", journal());

    // a session of root's, as far as the kernel can tell
    let listener = within(&stage.outside, || Ok(TcpListener::bind((CLIENT.0, 7777))?))?;
    machine.done(&["cp", "/bin/bash", "/usr/local/bin/sshd"])?;
    let session = format!(
        "exec -a 'sshd: root@pts/0' /usr/local/bin/sshd -c 'exec 3<>/dev/tcp/{}/7777; read -ru 3'",
        CLIENT.0
    );
    machine.done(&["systemd-run", "--unit=session", "bash", "-c", &session])?;
    let (_session, _) = listener.accept()?;
    // a log line that would ban has it looked at
    let complain = |address: &str| -> Result<()> {
        let mut log = fs::File::options().append(true).open(machine.file(LOG))?;
        Ok(writeln!(log, "slow {address}")?)
    };
    let refused = format!("{}/32 is the peer of an SSH session", CLIENT.0);
    eventually("the session is known", LIMIT, || {
        complain(CLIENT.0)?;
        Ok(journal().contains(&refused))
    })
    .with_context(journal)?;
    let list = ["systemctl", "--no-legend", "list-units", "ban-agent-sessions@*"];
    let helper = || -> Result<bool> { Ok(machine.done(&list)?.contains("running")) };
    ensure!(helper()?, "{}", journal());

    // killed, it is there again with the next question; and after an upgrade
    let mut stranger = 0_u16;
    for words in [
        &["systemctl", "kill", "--signal=KILL", "ban-agent-sessions@*"][..],
        &["dpkg", "--install", "/ban-agent.deb"],
    ] {
        machine.done(words)?;
        eventually("the helper is there again", LIMIT, || {
            stranger += 1;
            complain(&format!("198.18.{}.{}", stranger >> 8, stranger & 255))?;
            helper()
        })
        .with_context(|| format!("after {words:?}\n{}", journal()))?;
    }
    let shown = machine.run(&["ban-agent", "show", CLIENT.0])?;
    ensure!(shown.status.code() == Some(1), "the client is banned\n{}", journal());
    ensure!(!journal().contains("no SSH session is protected"), "{}", journal());

    // it goes with the agent, and the package leaves nothing of it
    machine.done(&["dpkg", "--remove", "ban-agent"])?;
    let left = machine.done(&["systemctl", "--no-legend", "list-units", "ban-agent*"])?;
    ensure!(left.trim().is_empty(), "{left}");
    ensure!(!machine.file("/run/ban-agent-sessions.sock").exists());
    Ok(())
}
