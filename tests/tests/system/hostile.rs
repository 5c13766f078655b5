//! Text that an attacker writes into a log acts nowhere: not on the terminal of whoever looks, not
//! in a document, a message, a metric or our own log.

use std::{
    fs,
    io::Write as _,
    os::unix::ffi::OsStrExt as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use ban_agent::event::escape;
use serde_json::Value;
use tests::{
    agent::{Agent, LIMIT, binary},
    host::Family,
    net::run,
    privilege,
    process::{Process, eventually},
    stage::Stage,
};

/// As user names; each acts somewhere if it is let.
const PAYLOADS: [&[u8]; 10] = [
    // terminals: clear, title, C1 control sequence introducer, bell, back space, carriage return
    b"\x1b[2J\x1b]0;owned\x07",
    "\u{9b}31m\u{9d}0;owned\u{9c}".as_bytes(),
    b"\x08\x08\x7f\rBan 198.51.100.1",
    // readers: direction overrides, invisible characters, tags, line separators
    "\u{202e}nab\u{2066}\u{200b}\u{e0041}\u{2028}[door] Ban 198.51.100.2".as_bytes(),
    // pages and chats
    b"<script>alert(1)</script><!channel> <https://evil|click> *b* `c` [x](javascript:1) &amp;",
    // format strings, shells, JSON, label values
    b"%s%n%99999d {} {0} $(reboot) `reboot` ;reboot|reboot #{x}",
    b"\",\"event\":{\"action\":\"unban\"},\"x\":\"",
    b"\"} 1\\n# TYPE evil counter\\nevil{a=\"",
    // not text at all
    b"\xff\xfe\xc3\x28\0\0",
    b"\xed\xa0\x80\xf4\x90\x80\x80",
];

/// What acts in `text`, if anything does; lines may end.
fn active(text: &str) -> Option<char> {
    let acts = |sign: &char| {
        let escaped = escape(sign.to_string().as_bytes());
        !matches!(sign, '\\' | '\n') && escaped != sign.to_string()
    };
    text.chars().find(acts)
}

fn inert(what: &str, bytes: &[u8]) -> Result<()> {
    let text = std::str::from_utf8(bytes).with_context(|| format!("{what} is no text"))?;
    ensure!(active(text).is_none(), "{what} has {:?}: {}", active(text), escape(bytes));
    Ok(())
}

/// As printed, and as a program understands it.
fn inert_json(what: &str, bytes: &[u8]) -> Result<()> {
    inert(what, bytes)?;
    for document in serde_json::Deserializer::from_slice(bytes).into_iter::<Value>() {
        inert_value(what, &document.with_context(|| format!("{what} is no JSON"))?)?;
    }
    Ok(())
}

fn inert_value(what: &str, value: &Value) -> Result<()> {
    match value {
        Value::String(text) => inert(what, text.as_bytes()),
        Value::Array(values) => values.iter().try_for_each(|value| inert_value(what, value)),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            inert(what, name.as_bytes())?;
            inert_value(what, value)
        }),
        _ => Ok(()),
    }
}

/// A name that a user with a folder of his own could give a log.
const LOG: &[u8] = b"door-\x1b[2J\"}\xff<b>.log";

fn configuration(stage: &Stage) -> String {
    format!(
        "[metrics]\nlisten = \"127.0.0.1:9938\"\n\
         [events]\nfile = {:?}\ninclude = [\"failures\"]\n\
         [hooks.program]\ncommand = [\"/usr/bin/tee\", \"-a\", {:?}]\n\
         [filters.door]\nfailregex = ['^<ADDR> knocks as <F-USER>.*</F-USER>$']\n\
         datepattern = ['{{NONE}}']\n\
         [jails.door]\nmaxretry = {}\nlogpath = {:?}\n",
        stage.file("events.ndjson"),
        stage.file("told"),
        PAYLOADS.len(),
        stage.file("door-*.log"),
    )
}

fn watch(stage: &Stage, format: &str) -> Result<Process> {
    let mut command: Command = stage.edge.command(binary()?);
    command.arg("--socket").arg(stage.file("control.sock")).args(["-o", format, "watch"]);
    let heard = fs::File::create(stage.file(&format!("heard-{format}")))?;
    command.arg("--failures").stdin(Stdio::null()).stdout(heard);
    Process::spawn("ban-agent watch", &mut command)
}

#[test]
fn what_an_attacker_writes_acts_nowhere() -> Result<()> {
    if !privilege::ready("hostile text") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = stage.file("").join(std::ffi::OsStr::from_bytes(LOG));
    fs::write(&log, "")?;
    fs::create_dir(stage.file("conf.d"))?;
    let lines = format!("[agent]\nfail2ban_log = {:?}\n", stage.file("fail2ban.log"));
    fs::write(stage.file("conf.d/log.toml"), lines)?;
    let mut agent = Agent::start(&stage, &configuration(&stage))?;
    let _watchers = [watch(&stage, "human")?, watch(&stage, "json")?];
    let address = stage.attacker().address(Family::V4);
    for heard in ["heard-human", "heard-json"] {
        eventually("the watchers listen", LIMIT, || {
            let reason = "\u{1b}[2J\u{202e}";
            let done = agent.verb(&["ban", "203.0.113.9", "--for", "1h", "--reason", reason])?;
            ensure!(done.status.success(), "ban failed");
            ensure!(agent.verb(&["unban", "203.0.113.9"])?.status.success(), "unban failed");
            Ok(fs::read_to_string(stage.file(heard))?.contains("203.0.113.9"))
        })?;
    }
    let done = agent.verb(&["ban", "203.0.113.9", "--for", "1h", "--reason", "\u{9b}2J\r"])?;
    ensure!(done.status.success(), "ban failed");
    let mut file = fs::File::options().append(true).open(&log)?;
    for payload in PAYLOADS {
        let line = [address.as_bytes(), b" knocks as ", payload, b"\n"].concat();
        file.write_all(&line)?;
    }
    agent.await_holders(address, &["door"])?;

    let log = log.to_string_lossy().into_owned();
    let copy = stage.file("copy.log");
    let whole: Vec<u8> = PAYLOADS
        .iter()
        .flat_map(|payload| [address.as_bytes(), b" knocks as ", payload, b"\nx ", payload, b"\n"])
        .flatten()
        .copied()
        .collect();
    fs::write(&copy, whole)?;
    let copy = copy.to_string_lossy().into_owned();
    let prints = ["--print-matched", "--print-missed", "--print-ignored"];
    for words in [
        &["list"][..],
        &["show", address],
        &["show", "203.0.113.9"],
        &["status"],
        &["status", "\u{1b}[2J\u{202e}"],
        &[&["test", "door", &copy], &prints[..]].concat(),
        &["test", "door", &copy, "--each"],
        &["test", "door", &log],
        &["test", "\u{1b}[2J\u{9b}", &copy],
        &["replay", "door", &copy],
        &["replay", "door", "/\u{1b}[2J\u{202e}"],
        &["unban", "203.0.113.9", "--jail", "\u{1b}[2J\u{9b}"],
    ] {
        let human = agent.verb(words)?;
        inert(&format!("{words:?}"), &human.stdout)?;
        inert(&format!("{words:?}, errors"), &human.stderr)?;
        let json = agent.verb(&[&["-o", "json"], words].concat())?;
        inert_json(&format!("{words:?} as JSON"), &json.stdout)?;
        inert(&format!("{words:?} as JSON, errors"), &json.stderr)?;
    }
    // it is all there to be read, none of it was interpreted
    let show = agent.verb(&["show", address])?;
    let shown = String::from_utf8(show.stdout)?;
    for text in [
        r"knocks as \u{1b}[2J\u{1b}]0;owned\u{7}",
        r"knocks as \u{9b}31m",
        r"knocks as %s%n%99999d {} {0} $(reboot)",
        r"knocks as \xff\xfe\xc3(\u{0}\u{0}",
    ] {
        ensure!(shown.contains(text), "{text} is not in:\n{shown}");
    }

    let scrape = "import sys, urllib.request as web; \
                  sys.stdout.buffer.write(web.urlopen('http://127.0.0.1:9938/metrics').read())";
    let metrics = run(stage.edge.command("/usr/bin/python3").args(["-c", scrape]))?;
    inert("the metrics", metrics.as_bytes())?;
    for word in ["evil", "owned", "script", address] {
        ensure!(!metrics.contains(word), "the metrics repeat {word:?}");
    }
    let read = |name: &str| fs::read(stage.file(name)).with_context(|| name.to_owned());
    let ban = format!("banned {address}");
    for name in ["heard-human", "heard-json", "events.ndjson", "told"] {
        eventually(&format!("{name} tells of the ban"), LIMIT, || {
            Ok(String::from_utf8_lossy(&read(name)?).contains(&ban))
        })?;
    }
    agent.terminate()?;
    for name in ["heard-json", "events.ndjson", "told"] {
        inert_json(name, &read(name)?)?;
    }
    for name in ["heard-human", "fail2ban.log", "agent.log"] {
        inert(name, &read(name)?)?;
    }
    // one line a ban and a failure, whatever line ends the attacker forged
    let lines = String::from_utf8(read("fail2ban.log")?)?;
    let of_his = lines.lines().filter(|line| line.contains("[door]")).count();
    ensure!(of_his == PAYLOADS.len() + 1, "{lines}");
    ensure!(!lines.contains("198.51.100."), "a forged ban: {lines}");
    Ok(())
}
