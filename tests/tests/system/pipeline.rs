//! A pipeline as operators have it behind fail2ban, behind the real agent: a real rsyslog tails the
//! log through a real logrotate and sends it on, and grok reads what arrives. Snippets and patterns
//! are those of docs/observability.md.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    process::Stdio,
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use grok::{Grok, Pattern};
use tests::{
    agent::{Agent, LIMIT},
    host::{FAMILIES, within},
    net::run,
    privilege,
    process::{Process, eventually},
    stage::Stage,
};

const PAGE: &str = include_str!("../../../docs/observability.md");
const LOGROTATE: &str = include_str!("../../../dist/ban-agent.logrotate");

/// As they stand in the field, named patterns first.
const PATTERNS: [(&str, &str); 4] = [
    ("F2B_DATE", r"%{YEAR}-%{MONTHNUM}-%{MONTHDAY}[ ]%{HOUR}:%{MINUTE}:%{SECOND}"),
    ("F2B_ACTION", r"(\w+)\.(\w+)\[%{POSINT:pid}\]:"),
    ("F2B_JAIL", r"\[(?<jail>\w+\-?\w+?)\]"),
    ("F2B_LEVEL", r"(?<level>\w+)\s+"),
];
const LINES: [&str; 2] = [
    "%{F2B_DATE:date} %{F2B_ACTION} %{F2B_LEVEL} %{F2B_JAIL} %{WORD:action} %{IP:ip} %{GREEDYDATA:msg}?",
    "%{F2B_DATE:date} %{F2B_ACTION} %{WORD:level} %{F2B_JAIL} %{WORD:action} %{IP:ip}",
];

/// The patterns, which are on the page as well.
fn patterns() -> Result<Vec<Pattern>> {
    let mut grok = Grok::with_default_patterns();
    for (name, pattern) in PATTERNS {
        grok.add_pattern(name, pattern);
        ensure!(PAGE.contains(&format!("{name:<10} {pattern}\n")), "{name} is not in the docs");
    }
    let [first, second] = LINES;
    ensure!(PAGE.contains(&format!("{first}\n{second}\n")), "the lines are not in the docs");
    for line in LINES {
        ensure!(PAGE.contains(&format!("      \"{line}\"")), "Logstash's snippet lacks {line}");
    }
    Ok(LINES.iter().map(|line| grok.compile(line, false)).collect::<Result<_, _>>()?)
}

/// The page's rsyslog configuration, for this stage.
fn rsyslog(stage: &Stage, port: u16) -> Result<Process> {
    let start = PAGE.find("# /etc/rsyslog.d/fail2ban.conf\n").context("no rsyslog snippet")?;
    let snippet = PAGE.get(start..).and_then(|rest| rest.split("```").next()).unwrap_or_default();
    let mut text = format!("global(workDirectory={:?})\n", stage.file("spool"));
    let log = stage.file("log/fail2ban.log").to_string_lossy().into_owned();
    let mut own = snippet.to_owned();
    for (of_the_page, here) in [
        ("/var/log/ban-agent/fail2ban.log", log.as_str()),
        ("\"logstash\"", "\"127.0.0.1\""),
        ("\"5140\"", &format!("\"{port}\"")),
    ] {
        ensure!(own.contains(of_the_page), "the snippet lacks {of_the_page}");
        own = own.replace(of_the_page, here);
    }
    text.push_str(&own);
    let config = stage.write("rsyslog.conf", &text)?;
    fs::create_dir(stage.file("spool"))?;
    let mut command = stage.edge.command("rsyslogd");
    command.arg("-n").arg("-f").arg(config).arg("-i").arg(stage.file("rsyslog.pid"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Process::spawn("rsyslogd", &mut command)
}

/// Logstash's place: the lines that arrive on a port of the edge.
fn arrivals(stage: &Stage) -> Result<(u16, Receiver<String>)> {
    let listener = within(&stage.edge, || Ok(TcpListener::bind("127.0.0.1:0")?))?;
    let port = listener.local_addr()?.port();
    let (sender, lines) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok((port, lines))
}

/// The shipped configuration, for this stage.
fn logrotate(stage: &Stage) -> Result<()> {
    let folder = stage.file("log").to_string_lossy().into_owned();
    let text = LOGROTATE.replace("/var/log/ban-agent", &folder).replace("delaycompress\n", "");
    // anybody may read the stage's folder, which logrotate minds
    let config = stage.write("logrotate.conf", &format!("su root root\n{text}"))?;
    let mut command = stage.edge.command("logrotate");
    command.arg("--force").arg("--state").arg(stage.file("logrotate.state"));
    run(command.arg(config))?;
    for name in ["fail2ban.log", "events.ndjson"] {
        ensure!(!stage.file("log").join(name).exists(), "{name} was not rotated");
        ensure!(stage.file("log").join(format!("{name}.1.gz")).exists(), "{name} is gone");
    }
    Ok(())
}

#[test]
fn what_read_fail2bans_log_reads_ours() -> Result<()> {
    if !privilege::ready("rsyslog and grok behind fail2ban's line format") {
        return Ok(());
    }
    let patterns = patterns()?;
    let stage = Stage::build()?;
    fs::create_dir(stage.file("log"))?;
    let (log, door) = (stage.file("log/fail2ban.log"), stage.write("door.log", "")?);
    fs::create_dir(stage.file("conf.d"))?;
    fs::write(stage.file("conf.d/log.toml"), format!("[agent]\nfail2ban_log = {log:?}\n"))?;
    let jails = format!(
        "[events]\nfile = {:?}\n\
         [filters.door]\nfailregex = ['^<ADDR> knocks$']\ndatepattern = ['{{NONE}}']\n\
         [jails.door]\nmaxretry = 2\nbantime = \"1h\"\nlogpath = {door:?}\n",
        stage.file("log/events.ndjson"),
    );
    let mut agent = Agent::start(&stage, &jails)?;
    let (port, arriving) = arrivals(&stage)?;
    let _rsyslog = rsyslog(&stage, port)?;
    let mut arrived: Vec<String> = Vec::new();
    let mut until = |end: &str| -> Result<()> {
        while !arrived.iter().any(|line| line.ends_with(end)) {
            let line = arriving.recv_timeout(LIMIT);
            arrived.push(line.with_context(|| format!("{end} has not arrived: {arrived:?}"))?);
        }
        Ok(())
    };
    let addresses = FAMILIES.map(|family| stage.attacker().address(family));
    for address in addresses {
        write!(
            fs::File::options().append(true).open(&door)?,
            "{address} knocks\n{address} knocks\n"
        )?;
        until(&format!("[door] Ban {address}"))?;
    }
    agent.terminate()?;
    agent.run()?;
    for address in addresses {
        until(&format!("[door] Restore Ban {address}"))?;
    }
    logrotate(&stage)?;
    ensure!(agent.verb(&["unban", "--all"])?.status.success(), "unban failed");
    for address in addresses {
        until(&format!("[door] Unban {address}"))?;
    }
    eventually("the events go on as well", Duration::from_secs(10), || {
        let events = fs::read_to_string(stage.file("log/events.ndjson")).unwrap_or_default();
        Ok(events.matches("\"action\":\"unban\"").count() == 2)
    })?;

    let mut read = Vec::new();
    for line in &arrived {
        let Some(matched) = patterns.iter().find_map(|pattern| pattern.match_against(line)) else {
            // fail2ban's own line does not fit the patterns either: a word too many
            ensure!(line.contains("] Restore Ban "), "grok does not read: {line}");
            continue;
        };
        let field = |name: &str| matched.get(name).unwrap_or_default().to_owned();
        ensure!(field("jail") == "door", "{line}");
        ensure!(line.contains(&field("date")) && field("date").len() == 23, "{line}");
        ensure!(line.contains(&format!("[{}]: {} [", field("pid"), field("level"))), "{line}");
        read.push(format!("{} {} {}", field("level"), field("action"), field("ip")));
    }
    let mut expected: Vec<String> = addresses
        .iter()
        .flat_map(|address| {
            ["INFO Found", "INFO Found", "NOTICE Ban", "NOTICE Unban"]
                .map(|said| format!("{said} {address}"))
        })
        .collect();
    read.sort();
    expected.sort();
    ensure!(read == expected, "{read:?}, not {expected:?}");
    Ok(())
}
