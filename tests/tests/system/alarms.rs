//! Alarms of the real agent: they begin and end, and every way of asking shows them.

use std::{fs, io::Write as _, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    agent::{Agent, LIMIT, binary, configure},
    host::within,
    net::run,
    ordeal::trouble::SmallDisk,
    privilege,
    process::eventually,
    stage::{DEVICE, Stage},
};

/// Names and subjects of the alarms that stand, as a document says.
fn alarms(document: &Value) -> Result<Vec<String>> {
    let all = document.get("alarms").and_then(Value::as_array).context("no alarms")?;
    let word = |alarm: &Value, field: &str| -> Result<String> {
        Ok(alarm.get(field).and_then(Value::as_str).context("no word")?.to_owned())
    };
    all.iter()
        .map(|alarm| Ok(format!("{} {}", word(alarm, "name")?, word(alarm, "about")?)))
        .collect()
}

/// A command that succeeds while this file is there.
fn depends_on(stage: &Stage, name: &str) -> String {
    format!("test -e {}", stage.file(name).display())
}

fn configuration(stage: &Stage) -> String {
    format!(
        "[metrics]\nlisten = \"127.0.0.1:9938\"\n[events]\nfile = {:?}\n\
         [hooks.chat]\ncommand = [\"/bin/sh\", \"-c\", \"{}\"]\n\
         [actions.note]\nban = '{}'\n\
         [filters.door]\nfailregex = ['^<ADDR> knocks$']\ndatepattern = ['{{NONE}}']\n\
         [jails.door]\nmaxretry = 1\nactions = [\"note\"]\nlogpath = {:?}\n",
        stage.file("events.ndjson"),
        depends_on(stage, "chat"),
        depends_on(stage, "note"),
        stage.file("door.log"),
    )
}

fn scrape(stage: &Stage) -> Result<String> {
    run(stage.edge.command("curl").args([
        "-sSf",
        "--max-time",
        "30",
        "http://127.0.0.1:9938/metrics",
    ]))
}

/// What the file of events tells of one alarm.
fn told(stage: &Stage, name: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(stage.file("events.ndjson")).unwrap_or_default();
    let mut told = Vec::new();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line)?;
        if event.pointer("/ban_agent/alarm").and_then(Value::as_str) == Some(name) {
            let action = event.pointer("/event/action").and_then(Value::as_str);
            told.push(action.context("no action")?.to_owned());
        }
    }
    Ok(told)
}

#[test]
fn a_jail_that_sees_nothing_cries_everywhere_until_it_sees() -> Result<()> {
    if !privilege::ready("alarms") {
        return Ok(());
    }
    let stage = Stage::build()?;
    stage.write("chat", "")?;
    let mut agent = Agent::start(&stage, &configuration(&stage))?;
    // at once: nobody has to wait for it
    let status = agent.json(&["status"])?;
    ensure!(alarms(&status)? == ["jail_without_source door"], "{status}");
    let human = agent.verb(&["status"])?;
    let human = String::from_utf8_lossy(&human.stdout).into_owned();
    ensure!(human.starts_with("ALARM jail_without_source: [door] bans no address"), "{human}");
    let quiet = agent.verb(&["--quiet", "status"])?;
    ensure!(quiet.status.code() == Some(1) && quiet.stdout.is_empty(), "{quiet:?}");
    ensure!(quiet.stderr.is_empty(), "{quiet:?}");
    let doctor = agent.verb(&["doctor"])?;
    let diagnosis = String::from_utf8_lossy(&doctor.stdout).into_owned();
    ensure!(doctor.status.code() == Some(1), "{diagnosis}");
    ensure!(diagnosis.contains("BAD   alarm          jail_without_source: [door]"), "{diagnosis}");
    let checked = agent.verb(&["check"])?;
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    ensure!(checked.contains("warning: jail door has nothing to read"), "{checked}");
    for words in [&["list"][..], &["ban", "203.0.113.9", "--for", "1h"]] {
        let done = agent.verb(words)?;
        ensure!(done.status.success(), "an alarm is no failure of {words:?}");
        let remark = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(remark.lines().count() == 1 && remark.starts_with("alarm: [door]"), "{remark}");
        let quiet = agent.verb(&[&["--quiet"], words].concat())?;
        ensure!(quiet.stderr.is_empty(), "{quiet:?}");
        let document = agent.json(words)?;
        ensure!(alarms(&document)? == ["jail_without_source door"], "{document}");
    }
    let metrics = scrape(&stage)?;
    ensure!(metrics.contains("\nban_agent_alarm{name=\"jail_without_source\"} 1\n"), "{metrics}");
    ensure!(metrics.contains("\nban_agent_alarm{name=\"dry_run\"} 0\n"), "{metrics}");

    stage.write("door.log", "")?;
    eventually("the alarm ends", LIMIT, || {
        Ok(agent.verb(&["--quiet", "status"])?.status.code() == Some(0))
    })?;
    ensure!(agent.verb(&["list"])?.stderr.is_empty(), "a remark about nothing");
    eventually("both are told", LIMIT, || {
        Ok(told(&stage, "jail_without_source")? == ["alarm-begun", "alarm-ended"])
    })
    .with_context(|| format!("{:?}", told(&stage, "jail_without_source")))?;
    ensure!(
        scrape(&stage)?.contains("\nban_agent_alarm{name=\"jail_without_source\"} 0\n"),
        "metrics"
    );
    agent.terminate()
}

#[test]
fn an_action_and_a_hook_that_fail_until_they_do_not() -> Result<()> {
    if !privilege::ready("alarms of actions and hooks") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = stage.write("door.log", "")?;
    let mut agent = Agent::start(&stage, &configuration(&stage))?;
    let knock = |address: &str| -> Result<()> {
        let mut file = fs::File::options().append(true).open(&log)?;
        Ok(writeln!(file, "{address} knocks")?)
    };
    knock("203.0.113.1")?;
    eventually("both fail", LIMIT, || {
        let standing = alarms(&agent.json(&["status"])?)?;
        Ok(standing == ["action_failed door/note", "hook_failed chat"])
    })
    .with_context(|| format!("{:?}", agent.json(&["status"])))?;
    stage.write("chat", "")?;
    stage.write("note", "")?;
    knock("203.0.113.2")?;
    eventually("both work", LIMIT, || Ok(alarms(&agent.json(&["status"])?)?.is_empty()))
        .with_context(|| format!("{:?}", agent.json(&["status"])))?;
    for name in ["action_failed", "hook_failed"] {
        eventually("it is told", LIMIT, || {
            Ok(told(&stage, name)? == ["alarm-begun", "alarm-ended"])
        })
        .with_context(|| format!("{name}: {:?}", told(&stage, name)))?;
    }
    agent.terminate()
}

/// Waits until exactly these alarms stand.
fn await_alarms(agent: &Agent<'_>, expected: &[String]) -> Result<()> {
    let standing = || alarms(&agent.json(&["status"])?);
    eventually("these alarms stand", LIMIT, || Ok(standing()? == expected))
        .with_context(|| format!("expected {expected:?}, not {:?}", standing()))
}

fn append(log: &Path, lines: &str) -> Result<()> {
    Ok(fs::File::options().append(true).open(log)?.write_all(lines.as_bytes())?)
}

/// What is missing on this host: a log, a list of friends, a file that was read before it changed.
#[test]
fn what_is_missing_is_said_until_it_is_there() -> Result<()> {
    if !privilege::ready("alarms of what is missing") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = stage.write("door.log", "")?;
    let (never, friends) = (stage.file("never.log"), stage.file("friends"));
    let jails = format!(
        "[filters.door]\nfailregex = ['^<ADDR> knocks$']\ndatepattern = ['{{NONE}}']\n\
         [jails.door]\nlogpath = [{log:?}, {never:?}]\nignoreip = [\"file:{}\"]\n",
        friends.display()
    );
    let mut agent = Agent::start(&stage, &jails)?;
    let unseen = format!("file_never_seen {}", never.display());
    await_alarms(&agent, &[unseen.clone(), "ignore_unresolved door".to_owned()])?;
    fs::write(&friends, "203.0.113.9\n")?;
    await_alarms(&agent, std::slice::from_ref(&unseen))?;
    fs::write(&never, "")?;
    await_alarms(&agent, &[])?;
    // what runs is not what is on disk
    let path = stage.file("config.toml");
    fs::write(&path, fs::read_to_string(&path)? + "# changed\n")?;
    await_alarms(&agent, &["config_newer ".to_owned()])?;
    ensure!(agent.verb(&["reload"])?.status.success(), "{}", agent.log());
    await_alarms(&agent, &[])?;
    agent.terminate()
}

/// Fills the map by hand, then by a log, with an action that cannot keep up.
#[test]
fn what_has_no_room_is_said_until_there_is_room() -> Result<()> {
    if !privilege::ready("alarms of room") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = stage.write("door.log", "")?;
    let jails = |actions: &str| {
        format!(
            "[metrics]\nlisten = \"127.0.0.1:9938\"\n\
             [filters.door]\nfailregex = ['^<ADDR> knocks$']\ndatepattern = ['{{NONE}}']\n\
             [actions.slow]\nban = 'sleep 1000'\n\
             [jails.door]\nlogpath = {log:?}\nmaxretry = 1\n{actions}\n"
        )
    };
    let mut agent = Agent::start(&stage, &jails("actions = \"slow\""))?;
    let addresses = |net: u32, count: u32| {
        (0..count).map(move |number| std::net::Ipv4Addr::from((net << 16) + number))
    };
    // all of the room is taken by hand
    let list: String = addresses(0xc612, 4096).map(|address| format!("{address}\n")).collect();
    let list = stage.write("list", &list)?;
    let mut ban = stage.edge.command(binary()?);
    ban.arg("--socket").arg(stage.file("control.sock"));
    ban.args(["ban", "-", "--for", "1h"]).stdin(fs::File::open(list)?);
    ensure!(ban.output()?.status.success(), "{}", agent.log());
    await_alarms(&agent, &["map_full IPv4".to_owned()])?;
    // one more by hand is refused, which is said for an hour
    ensure!(!agent.verb(&["ban", "198.51.100.1", "--for", "1h"])?.status.success(), "no room");
    await_alarms(&agent, &["ban_refused ", "map_full IPv4"].map(str::to_owned))?;
    // an attacker comes by a log: what was banned by hand yields, as docs/operations.md says
    append(&log, "203.0.113.1 knocks\n")?;
    agent.await_holders("203.0.113.1", &["door"])?;
    let full = ["ban_refused ", "map_full IPv4", "ban_evicted "].map(str::to_owned);
    await_alarms(&agent, &full)?;
    let metrics = scrape(&stage)?;
    for name in ["map_full", "ban_evicted"] {
        let sample = format!("\nban_agent_alarm{{name=\"{name}\"}} 1\n");
        ensure!(metrics.contains(&sample), "{name}: {metrics}");
    }
    let doctor = agent.verb(&["doctor"])?;
    let diagnosis = String::from_utf8_lossy(&doctor.stdout).into_owned();
    ensure!(doctor.status.code() == Some(1), "{diagnosis}");
    ensure!(diagnosis.contains("BAD   alarm          map_full: "), "{diagnosis}");
    // more than wait for an action that sleeps
    let knocks: String =
        addresses(0x0a00, 40_000).map(|address| format!("{address} knocks\n")).collect();
    append(&log, &knocks)?;
    let lost = "actions_lost door/slow".to_owned();
    await_alarms(&agent, &[&full[..], std::slice::from_ref(&lost)].concat())?;
    // the action is given up, and what it lost is nobody's any more
    configure(&stage, &jails(""))?;
    ensure!(agent.verb(&["reload"])?.status.success(), "{}", agent.log());
    await_alarms(&agent, &full)?;
    ensure!(agent.verb(&["unban", "--all"])?.status.success(), "{}", agent.log());
    // that bans had to go, and one was refused, is said for an hour; a new agent made none of them
    await_alarms(&agent, &["ban_refused ", "ban_evicted "].map(str::to_owned))?;
    agent.terminate()?;
    agent.run()?;
    await_alarms(&agent, &[])?;
    agent.terminate()
}

/// A port of syslog that another has, a jail that makes no sense, and one whose daemon writes something
/// else than its filter expects.
#[test]
fn what_does_not_fit_is_said_until_it_does() -> Result<()> {
    if !privilege::ready("alarms of what does not fit") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = stage.write("door.log", "")?;
    let port = "127.0.0.1:5514";
    let other = within(&stage.edge, || Ok(std::net::UdpSocket::bind(port)?))?;
    let jails = |slip: &str| {
        format!(
            "[filters.door]\nfailregex = ['^<ADDR> knocks$']\ndatepattern = ['{{NONE}}']\n\
             [jails.door]\nlogpath = {log:?}\nsyslog = \"udp://{port}\"\n\
             [jails.slip]\nfilter = \"door\"\nlogpath = {log:?}\n{slip}\n"
        )
    };
    let mut agent = Agent::idle(&stage);
    configure(&stage, &jails("maxretri = 3"))?;
    // at once, and not a day later
    let path = stage.file("config.toml");
    let text = fs::read_to_string(&path)?;
    fs::write(&path, text.replace("[agent]\n", "[agent]\nunmatched_after = \"1s\"\n"))?;
    agent.run()?;
    let [refused, failed] =
        ["part_refused jail slip".to_owned(), format!("source_failed udp://{port}")];
    await_alarms(&agent, &[refused.clone(), failed.clone()])?;
    append(&log, &"nobody knocks\n".repeat(100))?;
    let silent = "patterns_match_nothing door".to_owned();
    await_alarms(&agent, &[refused.clone(), failed.clone(), silent])?;
    append(&log, "203.0.113.1 knocks\n")?;
    await_alarms(&agent, &[refused, failed.clone()])?;
    configure(&stage, &jails(""))?;
    ensure!(agent.verb(&["reload"])?.status.success(), "{}", agent.log());
    await_alarms(&agent, std::slice::from_ref(&failed))?;
    drop(other);
    await_alarms(&agent, &[])?;
    agent.terminate()
}

/// More suspects than a jail keeps, and events for which the disk has no room. Both are over at
/// once: that they are said for an hour and no longer is tested beside the code.
#[test]
fn what_was_lost_is_said() -> Result<()> {
    if !privilege::ready("alarms of what was lost") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = stage.write("door.log", "")?;
    let disk = SmallDisk::mount(stage.file("disk"), 1)?;
    let events = stage.file("disk/events.ndjson");
    let jails = |crowd: &str| {
        format!(
            "[events]\nfile = {events:?}\n\
             [filters.door]\nfailregex = ['^<ADDR> knocks$']\ndatepattern = ['{{NONE}}']\n\
             [jails.door]\nlogpath = {log:?}\nmaxretry = 2\n{crowd}\n"
        )
    };
    let crowd = format!("[jails.crowd]\nfilter = \"door\"\nlogpath = {log:?}\nmax_tracked = 100");
    let mut agent = Agent::start(&stage, &jails(&crowd))?;
    let some: String = (0..200).map(|number| format!("198.51.100.{number} knocks\n")).collect();
    append(&log, &some)?;
    await_alarms(&agent, &["suspects_forgotten crowd".to_owned()])?;
    let metrics = agent.json(&["status", "crowd"])?;
    ensure!(metrics["alarms"].to_string().contains("no room for 100 failures"), "{metrics}");
    // the jail is given up, and whom it forgot is nobody's any more
    configure(&stage, &jails(""))?;
    ensure!(agent.verb(&["reload"])?.status.success(), "{}", agent.log());
    await_alarms(&agent, &[])?;
    disk.fill()?;
    // more than what the last page of the file has room for
    let knocks: String = (0..100).map(|number| format!("203.0.113.{number} knocks\n")).collect();
    append(&log, &knocks.repeat(2))?;
    await_alarms(&agent, &["events_lost file".to_owned()])?;
    // what is told once there is room
    disk.clear()?;
    ensure!(agent.verb(&["ban", "198.51.100.9", "--for", "1h"])?.status.success(), "ban");
    eventually("the next event is written", LIMIT, || {
        Ok(fs::read_to_string(&events)?.contains("198.51.100.9"))
    })?;
    // a new agent has lost nothing
    agent.terminate()?;
    agent.run()?;
    await_alarms(&agent, &[])?;
    agent.terminate()
}

/// A log that was packed while no agent ran: what it held is told once, and no longer by the next.
#[test]
fn lines_that_were_gone_are_said() -> Result<()> {
    if !privilege::ready("alarms of lost lines") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = stage.write("door.log", "")?;
    let jails = format!(
        "[filters.door]\nfailregex = ['^<ADDR> knocks$']\ndatepattern = ['{{NONE}}']\n\
         [jails.door]\nlogpath = {log:?}\nmaxretry = 1\n"
    );
    let mut agent = Agent::start(&stage, &jails)?;
    append(&log, "203.0.113.1 knocks\n")?;
    agent.await_holders("203.0.113.1", &["door"])?;
    agent.terminate()?;
    append(&log, "203.0.113.2 knocks\n")?;
    run(Command::new("gzip").arg(&log))?;
    fs::write(&log, "203.0.113.3 knocks\n")?;
    agent.run()?;
    agent.await_holders("203.0.113.3", &["door"])?;
    await_alarms(&agent, &[format!("lines_lost {}", log.display())])?;
    agent.terminate()?;
    agent.run()?;
    await_alarms(&agent, &[])?;
    agent.terminate()
}

#[test]
fn a_dry_run_is_said_first() -> Result<()> {
    if !privilege::ready("the alarm of a dry run") {
        return Ok(());
    }
    let stage = Stage::build()?;
    stage.write("door.log", "")?;
    stage.write("chat", "")?;
    let mut agent = Agent::start_with(&stage, &configuration(&stage), &["--dry-run"])?;
    let human = agent.verb(&["status"])?.stdout;
    ensure!(human.starts_with(b"ALARM dry_run: NOTHING IS DROPPED"), "not said first");
    ensure!(agent.verb(&["--quiet", "status"])?.status.code() == Some(1), "no alarm");
    ensure!(agent.verb(&["ban", "203.0.113.1", "--for", "1h"])?.status.success(), "ban");
    ensure!(agent.banned()? == ["203.0.113.1"], "{:?}", agent.banned()?);
    agent.kill()?;
    ensure!(agent.verb(&["--quiet", "status"])?.status.code() == Some(3), "it does not run");
    agent.run()?;
    let quiet = agent.verb(&["--quiet", "status"])?;
    ensure!(quiet.status.code() == Some(0), "still an alarm: {}", agent.log());
    ensure!(agent.banned()?.is_empty(), "a ban of the dry run became real: {:?}", agent.banned()?);
    agent.terminate()
}

/// The shipped rules are those that Prometheus takes.
#[test]
fn prometheus_takes_the_rules() -> Result<()> {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../dist/prometheus/ban-agent.rules.yml");
    let said = run(Command::new("promtool").args(["check", "rules", rules]))?;
    ensure!(said.contains("SUCCESS"), "{said}");
    Ok(())
}

/// The configuration asks for another mode than the one that runs, and the kernel takes no ban.
#[test]
fn what_the_kernel_does_otherwise_is_said_until_it_does_as_asked() -> Result<()> {
    if !privilege::ready("alarms of the kernel") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let mut agent = Agent::idle(&stage);
    let set = |mode: &str, max_bans: u32| -> Result<()> {
        let path = configure(&stage, "")?;
        let agent = format!("[agent]\nmode = \"{mode}\"\n");
        let text = fs::read_to_string(&path)?.replace("[agent]\n", &agent);
        Ok(fs::write(&path, text.replace("4096", &max_bans.to_string()))?)
    };
    let reload = |agent: &Agent<'_>| agent.verb(&["reload"]);
    set("generic", 4096)?;
    agent.run()?;
    await_alarms(&agent, &[])?;
    set("native", 4096)?;
    ensure!(reload(&agent)?.status.success(), "{}", agent.log());
    await_alarms(&agent, &[format!("interface_generic {DEVICE}")])?;
    agent.terminate()?;
    agent.run()?;
    await_alarms(&agent, &[])?;

    // somebody freezes the map: nobody can write there any more
    let map = stage.pins().join("v1/ban_v4");
    run(Command::new("bpftool").args(["map", "freeze", "pinned"]).arg(map))?;
    let refused = agent.verb(&["ban", "203.0.113.1", "--for", "1h"])?;
    await_alarms(&agent, &["kernel_steps_pending ".to_owned()])?;
    ensure!(!refused.status.success(), "a ban that is not enforced was called one: {refused:?}");
    // maps of another size are new ones
    set("native", 8192)?;
    ensure!(reload(&agent)?.status.success(), "{}", agent.log());
    await_alarms(&agent, &[])?;
    ensure!(agent.banned()? == ["203.0.113.1"], "{:?}", agent.banned()?);
    agent.terminate()
}

/// A jail whose log strangers can write into does not run, until the operator takes that.
#[test]
fn a_raw_log_is_refused_or_said() -> Result<()> {
    if !privilege::ready("alarms of raw logs") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = stage.write("gitea.log", "")?;
    let jails = |raw: &str| {
        format!("[jails.sshd]\nlogpath = {log:?}\n[jails.gitea]\nlogpath = {log:?}\n{raw}\n")
    };
    let mut agent = Agent::start(&stage, &jails(""))?;
    await_alarms(&agent, &["part_refused jail gitea".to_owned()])?;
    let checked = agent.verb(&["check"])?;
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    ensure!(checked.status.code() == Some(78), "{checked:?}");
    ensure!(said.contains("jail 'gitea': ") && said.contains("hint: "), "{said}");
    ensure!(said.contains("raw_log = true in [jails.gitea]"), "{said}");
    configure(&stage, &jails("raw_log = true"))?;
    ensure!(agent.verb(&["check"])?.status.success(), "it is accepted");
    ensure!(agent.verb(&["reload"])?.status.success(), "{}", agent.log());
    await_alarms(&agent, &["raw_log gitea".to_owned()])?;
    configure(&stage, &jails("enabled = false"))?;
    ensure!(agent.verb(&["reload"])?.status.success(), "{}", agent.log());
    await_alarms(&agent, &[])?;
    agent.terminate()
}
