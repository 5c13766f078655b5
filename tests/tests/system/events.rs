//! What the real agent tells of a ban, its packets, its end and its own trouble: to a watcher, and
//! into a file.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    agent::{Agent, LIMIT, binary},
    host::{FAMILIES, Family},
    net::join,
    privilege,
    process::{Process, eventually},
    stage::{DEVICE, EDGE, Stage},
};

/// Two failures, and the address is banned; every dropped packet is told.
fn configuration(stage: &Stage) -> String {
    format!(
        "[events]\nfile = {:?}\nsample = 1\n\
         [filters.door]\nfailregex = ['^<ADDR> knocks$']\ndatepattern = ['{{NONE}}']\n\
         [jails.door]\nmaxretry = 2\nbantime = \"1h\"\nlogpath = {:?}\n",
        stage.file("events.ndjson"),
        stage.file("door.log")
    )
}

fn knock(stage: &Stage, address: &str) -> Result<()> {
    let mut log = fs::File::options().create(true).append(true).open(stage.file("door.log"))?;
    Ok(write!(log, "{address} knocks\n{address} knocks\n")?)
}

/// A watcher that writes what it hears into a file.
fn watch(stage: &Stage, words: &[&str]) -> Result<Process> {
    let mut command: Command = stage.edge.command(binary()?);
    command.arg("--socket").arg(stage.file("control.sock")).args(words);
    let heard = fs::File::create(stage.file("heard"))?;
    command.stdin(Stdio::null()).stdout(heard);
    Process::spawn("ban-agent watch", &mut command)
}

/// The documents of a file so far; a line that has no end yet is not one.
fn documents(stage: &Stage, name: &str) -> Result<Vec<Value>> {
    let text = fs::read_to_string(stage.file(name)).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn text<'a>(document: &'a Value, place: &str) -> &'a str {
    document.pointer(place).and_then(Value::as_str).unwrap_or_default()
}

fn of<'a>(documents: &'a [Value], action: &str, address: &str) -> Option<&'a Value> {
    documents.iter().find(|document| {
        text(document, "/event/action") == action && text(document, "/source/ip") == address
    })
}

#[test]
fn a_watcher_and_a_file_are_told_of_bans_packets_and_ends() -> Result<()> {
    if !privilege::ready("events") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let agent = Agent::start(&stage, &configuration(&stage))?;
    let _watcher = watch(&stage, &["-o", "json", "watch", "--failures", "--drops"])?;
    let told = |action: &str, address: &str| -> Result<Value> {
        eventually(&format!("{action} of {address}"), LIMIT, || {
            Ok(of(&documents(&stage, "heard")?, action, address).is_some())
        })?;
        of(&documents(&stage, "heard")?, action, address).cloned().context("it was there")
    };
    // the watcher listens once a ban by hand is heard of
    eventually("the watcher listens", LIMIT, || {
        let done = agent.verb(&["ban", "203.0.113.9", "--for", "1h", "--reason", "\u{1b}[2J"])?;
        ensure!(done.status.success(), "ban failed");
        ensure!(agent.verb(&["unban", "203.0.113.9"])?.status.success(), "unban failed");
        Ok(of(&documents(&stage, "heard")?, "unban", "203.0.113.9").is_some())
    })?;
    let lifted = told("unban", "203.0.113.9")?;
    ensure!(text(&lifted, "/ban_agent/cause") == "released", "{lifted}");
    ensure!(text(&lifted, "/rule/name") == "manual", "{lifted}");
    ensure!(text(&lifted, "/user/id") == "0", "{lifted}");

    let attacker = stage.attacker();
    for family in FAMILIES {
        let address = attacker.address(family);
        // they are neighbours by now; under a ban they would not become so
        ensure!(attacker.pings(family, EDGE)?, "pings before the ban");
        knock(&stage, address)?;
        told("failure-found", address)?;
        let ban = told("ban", address)?;
        ensure!(text(&ban, "/rule/name") == "door", "{ban}");
        ensure!(ban.pointer("/ban_agent/failures") == Some(&2.into()), "{ban}");
        ensure!(text(&ban, "/ban_agent/until") > text(&ban, "/@timestamp"), "{ban}");
        ensure!(ban.pointer("/user").is_none(), "nobody asked for it: {ban}");
        ensure!(attacker.connect(family, EDGE, 8443)?.is_none(), "not dropped");
        let packet = told("packet-dropped", address)?;
        let interface = text(&packet, "/observer/ingress/interface/name");
        ensure!(interface == DEVICE, "{packet}");
        let kind = if family == Family::V4 { "ipv4" } else { "ipv6" };
        ensure!(text(&packet, "/network/type") == kind, "{packet}");
        eventually("the connection's first packet", LIMIT, || {
            Ok(documents(&stage, "heard")?.iter().any(|packet| {
                text(packet, "/source/ip") == address
                    && packet.pointer("/destination/port") == Some(&8443.into())
                    && text(packet, "/network/transport") == "tcp"
            }))
        })?;
    }

    // the file has the bans, goes on after a rotation, and holds neither failures nor packets
    let v6 = attacker.address(Family::V6);
    eventually("the file has it all", LIMIT, || {
        Ok(of(&documents(&stage, "events.ndjson")?, "ban", v6).is_some())
    })?;
    fs::rename(stage.file("events.ndjson"), stage.file("events.ndjson.1"))?;
    ensure!(agent.verb(&["unban", v6])?.status.success(), "unban failed");
    eventually("the new file has the rest", LIMIT, || {
        Ok(of(&documents(&stage, "events.ndjson")?, "unban", v6).is_some())
    })?;
    let mut kept = documents(&stage, "events.ndjson.1")?;
    kept.extend(documents(&stage, "events.ndjson")?);
    for action in ["failure-found", "packet-dropped"] {
        let found = kept.iter().find(|document| text(document, "/event/action") == action);
        ensure!(found.is_none(), "not asked for: {found:?}");
    }
    let status = agent.json(&["status"])?;
    let lost = status.pointer("/events/lost").context("no losses in the status")?;
    ensure!(*lost == serde_json::json!({"file": 0, "watch": 0}), "{lost}");
    let page = include_str!("../../../docs/observability.md");
    let mut all = documents(&stage, "heard")?;
    all.extend(kept);
    all.iter().try_for_each(|document| documented(document, "", page))
}

/// Every field of a document is named in the documentation.
fn documented(value: &Value, name: &str, page: &str) -> Result<()> {
    let Value::Object(fields) = value else {
        ensure!(page.contains(&format!("`{name}`")), "{name} is not documented");
        return Ok(());
    };
    for (field, value) in fields {
        let dot = if name.is_empty() { "" } else { "." };
        documented(value, &format!("{name}{dot}{field}"), page)?;
    }
    Ok(())
}

#[test]
fn people_read_a_watch_and_hear_when_it_is_over() -> Result<()> {
    if !privilege::ready("watch for people") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let mut agent = Agent::start(&stage, "")?;
    let mut watcher = watch(&stage, &["watch"])?;
    let heard = || fs::read_to_string(stage.file("heard"));
    eventually("the watcher listens", LIMIT, || {
        ensure!(agent.verb(&["ban", "2001:db8:f::/64", "--for", "1h"])?.status.success(), "ban");
        ensure!(agent.verb(&["unban", "2001:db8:f::/64"])?.status.success(), "unban");
        Ok(heard()?.contains("[manual] unbanned 2001:db8:f::/64: it was lifted\n"))
    })?;
    agent.terminate()?;
    eventually("the watcher ends with the agent", LIMIT, || Ok(watcher.ended()?.is_some()))?;
    let code = watcher.ended()?.and_then(|status| status.code());
    ensure!(code == Some(3), "ended with {code:?}");
    Ok(())
}

/// Holds the state's lock until its standard input ends.
const LOCK: &str = "import sqlite3, sys; \
                    base = sqlite3.connect(sys.argv[1], isolation_level=None); \
                    base.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); sys.stdin.read()";

#[test]
fn the_agents_own_trouble_is_told() -> Result<()> {
    if !privilege::ready("events about the agent itself") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let limit = "max_bans_per_minute = 1\n";
    let agent = Agent::start(&stage, &format!("{}{limit}", configuration(&stage)))?;
    let told = |action: &str, place: &str, name: &str| {
        eventually(&format!("{action} of {name}"), LIMIT, || {
            Ok(documents(&stage, "events.ndjson")?
                .iter()
                .any(|event| text(event, "/event/action") == action && text(event, place) == name))
        })
    };
    knock(&stage, "203.0.113.1")?;
    agent.await_holders("203.0.113.1", &["door"])?;
    knock(&stage, "203.0.113.2")?;
    told("jail-stopped", "/rule/name", "door")?;
    ensure!(agent.verb(&["resume", "door"])?.status.success(), "resume failed");
    told("jail-resumed", "/rule/name", "door")?;
    // the edge's own address
    knock(&stage, EDGE.0)?;
    told("ban-refused", "/source/ip", EDGE.0)?;

    stage.edge.ip(&format!("link del {DEVICE}"))?;
    let interface = "/observer/ingress/interface/name";
    told("interface-lost", interface, DEVICE)?;
    let alarms = ["detached", "interface_missing"];
    alarms.into_iter().try_for_each(|name| told("alarm-begun", "/ban_agent/alarm", name))?;
    join(&stage.edge, DEVICE, &stage.outside, DEVICE)?;
    told("interface-attached", interface, DEVICE)?;
    alarms.into_iter().try_for_each(|name| told("alarm-ended", "/ban_agent/alarm", name))?;

    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", LOCK]).arg(stage.file("state.sqlite"));
    command.stdin(Stdio::piped()).stdout(fs::File::create(stage.file("lock"))?);
    let mut holder = Process::spawn("the lock's holder", &mut command)?;
    eventually("the state is locked", LIMIT, || {
        Ok(fs::read_to_string(stage.file("lock"))?.contains("locked"))
    })?;
    ensure!(agent.verb(&["ban", "203.0.113.3", "--for", "1h"])?.status.success(), "ban failed");
    told("alarm-begun", "/ban_agent/alarm", "store_degraded")?;
    drop(holder.child().and_then(|child| child.stdin.take()));
    told("alarm-ended", "/ban_agent/alarm", "store_degraded")?;
    let page = include_str!("../../../docs/observability.md");
    documents(&stage, "events.ndjson")?.iter().try_for_each(|event| documented(event, "", page))
}

#[test]
fn the_end_of_enforcement_is_told() -> Result<()> {
    if !privilege::ready("events of a trial") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let agent = Agent::start_with(&stage, &configuration(&stage), &["--grace", "2s"])?;
    let told = |action: &str| {
        eventually(&format!("enforcement {action}"), LIMIT, || {
            Ok(documents(&stage, "events.ndjson")?.iter().any(|event| {
                text(event, "/event/action") == action
                    && text(event, "/ban_agent/alarm") == "trial_lapsed"
            }))
        })
    };
    told("alarm-begun")?;
    ensure!(agent.verb(&["confirm"])?.status.success(), "confirm failed");
    told("alarm-ended")
}
