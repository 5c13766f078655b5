//! An agent that has nothing to do looks once a second whether what enforces its bans is in place,
//! and does nothing else: no timer, no poll, whoever listens.

use std::{
    fs,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tests::{
    agent::{Agent, LIMIT, binary},
    privilege,
    process::{Process, eventually},
    stage::Stage,
};

/// Anything that recurs within it is seen.
const SPAN: Duration = Duration::from_secs(3);
/// How often its threads may go to sleep meanwhile: with each look the timer's thread, the core's,
/// and those that they hand work to.
const LOOKS: u64 = 24;

/// How often the agent's threads went to sleep so far.
fn sleeps(pid: u64) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum += line.context("no count of switches")?.trim().parse::<u64>()?;
    }
    Ok(sum)
}

#[test]
fn an_idle_agent_sleeps_also_with_listeners() -> Result<()> {
    if !privilege::ready("an idle agent") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let door = stage.write("door.log", "")?;
    let agent = Agent::start(
        &stage,
        &format!(
            "[metrics]\nlisten = \"127.0.0.1:9938\"\n\
             [events]\nfile = {:?}\ninclude = [\"failures\", \"drops\"]\n\
             [hooks.program]\ncommand = [\"/bin/true\"]\nevery = \"1s\"\n\
             [filters.door]\nfailregex = ['^<ADDR> knocks$']\ndatepattern = ['{{NONE}}']\n\
             [jails.door]\nlogpath = {door:?}\n",
            stage.file("events.ndjson"),
        ),
    )?;
    let mut watch = stage.edge.command(binary()?);
    watch.arg("--socket").arg(stage.file("control.sock")).args(["watch", "--failures", "--drops"]);
    watch.stdin(Stdio::null()).stdout(fs::File::create(stage.file("heard"))?);
    let _watcher = Process::spawn("ban-agent watch", &mut watch)?;
    eventually("the watcher listens", LIMIT, || {
        for words in [&["ban", "203.0.113.9", "--for", "1h"][..], &["unban", "203.0.113.9"]] {
            agent.verb(words)?;
        }
        Ok(fs::read_to_string(stage.file("heard"))?.contains("203.0.113.9"))
    })?;
    let pid = agent.json(&["status"])?.get("pid").and_then(serde_json::Value::as_u64);
    let pid = pid.context("no process id")?;
    // a new link is settling for a while, and so are the messages of the ban
    let since = Instant::now();
    while since.elapsed() < LIMIT {
        let before = sleeps(pid)?;
        thread::sleep(SPAN);
        let slept = sleeps(pid)? - before;
        println!("{slept} wake-ups in {SPAN:?}");
        if slept <= LOOKS {
            return Ok(());
        }
    }
    bail!("in {LIMIT:?} there were no {SPAN:?} with {LOOKS} wake-ups or less")
}
