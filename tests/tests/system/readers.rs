//! Those who may only look, at their worst: as a real user of the socket's group, against the real
//! agent. Whatever they do, the operator is served and attackers are banned.

use std::{
    fs::{self, File},
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tests::{
    agent::{Agent, LIMIT, configure},
    host::Family,
    privilege,
    process::{Process, eventually},
    stage::Stage,
};

/// The user and group of those who may only look.
const READER: [&str; 5] = ["--reuid", "nobody", "--regid", "daemon", "--clear-groups"];

/// What an operator's command may take while others do their worst. Before there were limits it took
/// minutes, or never came back.
const AMPLE: &str = "30";

/// Ways to misuse the socket; each prints `ready` once it has begun, and lasts until it is ended.
const MISUSE: &str = r#"
import resource, select, socket, sys, time
path, way, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
LIST = b'{"verb":"list","jail":null,"limit":null}\n'
DRIFT = b'{"verb":"drift"}\n'

def connect():
    while True:
        try:
            one = socket.socket(socket.AF_UNIX)
            one.settimeout(10)
            one.connect(path)
            return one
        except OSError:
            one.close()
            time.sleep(0.01)

def begin(words):
    one = connect()
    try:
        one.sendall(words)
    except OSError:
        pass
    return one

def ready():
    print('ready', flush=True)

if way == 'spam':
    # ask, and leave or stay without reading
    told, kept = 0, []
    while True:
        one = begin(LIST if told % 3 else DRIFT)
        told += 1
        if told % 2:
            kept.append(one)
        else:
            one.close()
        if len(kept) > 200:
            for one in kept:
                one.close()
            kept = []
        if told == count:
            ready()
elif way == 'deaf':
    kept = [begin(LIST) for _ in range(count)]
    ready()
    time.sleep(600)
elif way == 'half':
    kept = [begin(b'{"verb":"li') for _ in range(count)]
    ready()
    # until all of them are cut off
    poll = select.poll()
    for one in kept:
        poll.register(one.fileno(), select.POLLRDHUP)
    left = {one.fileno() for one in kept}
    while left:
        for number, _ in poll.poll():
            poll.unregister(number)
            left.discard(number)
    print('cut off', flush=True)
elif way == 'hog':
    # half requests again and again, in place of those that were cut off
    ready()
    while True:
        kept = [begin(b'{"verb":"li') for _ in range(count)]
        time.sleep(1)
"#;

/// Somebody who may only look and does his worst.
struct Misuse<'a> {
    stage: &'a Stage,
    way: &'static str,
    // ended when it is dropped
    _process: Process,
}

impl<'a> Misuse<'a> {
    fn begin(stage: &'a Stage, way: &'static str, count: usize) -> Result<Misuse<'a>> {
        let mut command = Command::new("setpriv");
        command.args(READER).args(["/usr/bin/python3", "-c", MISUSE]);
        command.arg(stage.file("control.sock")).args([way, &count.to_string()]);
        let said = File::create(stage.file(way))?;
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let misuse = Misuse { stage, way, _process: Process::spawn(way, &mut command)? };
        misuse.await_word("ready")?;
        Ok(misuse)
    }

    fn await_word(&self, word: &str) -> Result<()> {
        eventually(&format!("{} says {word}", self.way), LIMIT, || {
            let said = fs::read_to_string(self.stage.file(self.way))?;
            ensure!(!said.contains("Error"), "{said}");
            Ok(said.contains(word))
        })
    }
}

const JAIL: &str = "[filters.door]\nfailregex = ['^<ADDR> knocks$']\ndatepattern = ['{NONE}']\n";

const NO_LIMITS: &[&str] = &["--core=0"];

/// An agent whose socket others may open, with a jail and so many bans.
fn begin<'a>(stage: &'a Stage, bans: u32, limits: &[&str]) -> Result<Agent<'a>> {
    let log = stage.write("door.log", "")?;
    let jails = format!("{JAIL}[jails.door]\nmaxretry = 2\nbantime = \"1h\"\nlogpath = {log:?}\n");
    let config = configure(stage, &jails)?;
    let text = fs::read_to_string(&config)?;
    let text = text.replacen("[agent]", "[agent]\nsocket_group = \"daemon\"", 1);
    fs::write(&config, text.replacen("max_bans = 4096", "max_bans = 65536", 1))?;
    let mut agent = Agent::idle(stage);
    // prlimit(1) runs what comes after its own words
    let plain = agent.command()?;
    let mut command = Command::new("prlimit");
    command.args(limits).arg(plain.get_program()).args(plain.get_args());
    agent.launch(command)?;
    agent.await_answer()?;
    let addresses: Vec<String> = (0..bans)
        .map(|number| std::net::Ipv4Addr::from(0x0b00_0000 + number).to_string())
        .collect();
    let list = stage.write("list", &addresses.join("\n"))?;
    let mut ban = Command::new(tests::agent::binary()?);
    ban.arg("--socket").arg(stage.file("control.sock")).args(["ban", "--for", "1h", "-"]);
    let done = ban.stdin(File::open(list)?).stdout(Stdio::null()).status()?;
    ensure!(done.success(), "the bans were not made");
    Ok(agent)
}

/// `ban-agent ban`, which is ended if it takes too long.
fn ban(stage: &Stage, words: &[&str]) -> Result<Command> {
    let mut command = Command::new("timeout");
    command.arg(AMPLE).arg(tests::agent::binary()?).arg("--socket").arg(stage.file("control.sock"));
    command.args(["ban", "--for", "1h"]).args(words);
    Ok(command)
}

/// The operator bans, and a log line does.
fn acts(stage: &Stage, number: usize) -> Result<()> {
    let by_hand = format!("198.51.100.{number}");
    let done = ban(stage, &[&by_hand])?.output()?;
    ensure!(
        done.status.success(),
        "ban: {} {}",
        done.status,
        String::from_utf8_lossy(&done.stderr)
    );
    let address = format!("203.0.113.{number}");
    let mut log = File::options().append(true).create(true).open(stage.file("door.log"))?;
    write!(log, "{address} knocks\n{address} knocks\n")?;
    eventually(&format!("{address} is banned"), Duration::from_secs(30), || {
        let shown = tests::agent::verb(stage, &["show", &address])?;
        ensure!(shown.status.code() != Some(3), "{}", String::from_utf8_lossy(&shown.stderr));
        Ok(shown.status.success())
    })
}

#[test]
fn lists_without_end_hold_nobody_up() -> Result<()> {
    if !privilege::ready("other users") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let agent = begin(&stage, 50_000, NO_LIMITS)?;
    let _misuse = Misuse::begin(&stage, "spam", 5000)?;
    for number in 1..=5 {
        acts(&stage, number).with_context(|| format!("the agent said:\n{}", agent.last_words()))?;
    }
    Ok(())
}

#[test]
fn those_who_never_read_cost_no_memory() -> Result<()> {
    if !privilege::ready("other users") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let agent = begin(&stage, 50_000, NO_LIMITS)?;
    ensure!(agent.banned()?.len() == 50_000, "not all are banned");
    let before = agent.memory()?;
    let _misuse = Misuse::begin(&stage, "deaf", 30)?;
    acts(&stage, 1)?;
    ensure!(agent.banned()?.len() == 50_002, "the operator's list is not whole");
    let after = agent.memory()?;
    println!("30 who never read: {before} KiB before, {after} KiB with them");
    ensure!(after < before + (100 << 10), "{before} KiB before, {after} KiB with them");
    Ok(())
}

#[test]
fn half_requests_are_cut_off() -> Result<()> {
    if !privilege::ready("other users") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let agent = begin(&stage, 10, NO_LIMITS)?;
    let misuse = Misuse::begin(&stage, "half", 10_000)?;
    acts(&stage, 1)?;
    misuse.await_word("cut off")?;
    // then there is room for others of them again
    let mut command = Command::new("setpriv");
    command.args(READER).args(["/usr/bin/python3", "-c", ASK]).arg(stage.file("control.sock"));
    let answer = tests::net::run(&mut command)?;
    ensure!(answer.contains("\"done\""), "{answer}");
    ensure!(agent.verb(&["status"])?.status.success(), "status failed");
    Ok(())
}

const ASK: &str = r#"
import socket, sys
one = socket.socket(socket.AF_UNIX)
one.connect(sys.argv[1])
one.sendall(b'{"verb":"status","jail":null}\n')
print(one.makefile().readline())
"#;

#[test]
fn logs_are_followed_when_all_descriptors_are_wanted() -> Result<()> {
    if !privilege::ready("other users") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let agent = begin(&stage, 10, &["--nofile=256:256"])?;
    let _misuse = Misuse::begin(&stage, "hog", 400)?;
    for number in 1..=3 {
        fs::rename(stage.file("door.log"), stage.file(&format!("door.log.{number}")))?;
        acts(&stage, number).with_context(|| format!("the agent said:\n{}", agent.last_words()))?;
    }
    let full = agent.log().matches("Too many open files").count();
    ensure!(full < 10, "it said {full} times that there are no descriptors");
    Ok(())
}

#[test]
fn a_hung_agent_is_told_from_none_and_detached_by_its_pins() -> Result<()> {
    if !privilege::ready("the agent, stopped") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let mut agent = begin(&stage, 10, NO_LIMITS)?;
    ensure!(agent.verb(&["ban", stage.attacker().address(Family::V4)])?.status.success());
    ensure!(stage.attached()?, "not attached");
    agent.signal(Signal::STOP)?;
    for words in
        [&["status"][..], &["list"], &["ban", "192.0.2.9"], &["unban", "--all"], &["reload"]]
    {
        let done = agent.verb(words)?;
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(done.status.code() == Some(3), "{words:?}: {} {told}", done.status);
        ensure!(told.contains("hangs") && told.contains("hint: "), "{words:?}: {told}");
    }
    let doctor = agent.verb(&["doctor"])?;
    let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
    ensure!(told.contains("BAD   agent") && told.contains("hangs"), "{told}");
    let done = agent.verb(&["detach"])?;
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    ensure!(done.status.success() && told.contains("hangs"), "{told}");
    ensure!(!stage.attached()?, "still attached");
    let left: Vec<_> = fs::read_dir(stage.pins())?.flatten().map(|it| it.file_name()).collect();
    ensure!(left == ["detached"], "pins are left: {left:?}");
    // it looks after what it has attached once a second, and must not put this back
    agent.signal(Signal::CONT)?;
    agent.await_end()?;
    ensure!(agent.log().contains("it was detached by force"), "{}", agent.last_words());
    ensure!(!stage.attached()?, "attached again");
    agent.run()?;
    ensure!(stage.attached()?, "another one does not attach");
    ensure!(!stage.pins().join("detached").exists(), "the mark is left");
    Ok(())
}
