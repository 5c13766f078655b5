//! Whom a jail ignores without knowing the address: those in a file, and those that a command
//! vouches for.

use std::{
    fs::{self, File},
    io::Write as _,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{agent::Agent, privilege, process::eventually, stage::Stage};

const LIMIT: Duration = Duration::from_secs(40);

fn ignored(agent: &Agent<'_>) -> Result<u64> {
    let status = agent.json(&["status", "door"])?;
    let jail = status.pointer("/jails/0/ignored").and_then(Value::as_u64);
    jail.context("no count of what was ignored")
}

#[test]
fn a_file_and_a_command_vouch() -> Result<()> {
    if !privilege::ready("ignore") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let (log, friends, asked) =
        (stage.file("door.log"), stage.file("friends"), stage.file("asked"));
    let evil = stage.file("evil");
    let mut writer = File::options().create(true).append(true).open(&log)?;
    fs::write(&friends, "203.0.113.1 # a friend\n")?;
    let command = format!(
        "echo <ip> >> {}; case <ip> in 203.0.113.2) exit 0;; 203.0.113.3) exit 1;; *) exit 7;; esac; \
         test \"<F-USER>\"",
        asked.display()
    );
    let jails = format!(
        "[filters.door]\nfailregex = ['^bad user <F-USER>.*?</F-USER> from <ADDR>$']\n\
         [jails.door]\nlogpath = {log:?}\nmaxretry = 2\nignoreip = [\"file:{}\", \"localhost\"]\n\
         ignorecommand = {command:?}\nignorecache = {{ key = \"<ip>\" }}\n",
        friends.display()
    );
    let agent = Agent::start(&stage, &jails)?;
    let name = format!("$(touch {0}) `touch {0}`", evil.display());
    let mut fail = |address: &str| -> Result<()> {
        for _ in 0..2 {
            writeln!(writer, "bad user {name} from {address}")?;
        }
        Ok(())
    };
    // two failures in the file, four excused; a refusal and a failure of the command are bans
    for address in ["203.0.113.1", "203.0.113.2", "203.0.113.2", "203.0.113.3", "203.0.113.4"] {
        fail(address)?;
    }
    for address in ["203.0.113.3", "203.0.113.4"] {
        agent.await_holders(address, &["door"])?;
    }
    eventually("the friends are counted", LIMIT, || Ok(ignored(&agent)? == 6))?;
    ensure!(agent.banned()?.len() == 2, "a friend was banned: {:?}", agent.banned()?);
    let log = agent.log();
    ensure!(log.contains("ignorecommand of 203.0.113.4 failed: exit status: 7"), "{log}");
    let asked = fs::read_to_string(&asked)?;
    let times = |address: &str| asked.lines().filter(|line| *line == address).count();
    ensure!(times("203.0.113.1") == 0, "asked about one who is in the file: {asked}");
    // at once, both are asked; later, the first answer counts
    ensure!((1..=2).contains(&times("203.0.113.2")), "asked too often: {asked}");

    // whoever is in the file no more is no friend any more
    fs::write(&friends, "# nobody\n")?;
    eventually("the change of the file counts", LIMIT, || {
        fail("203.0.113.1")?;
        Ok(agent.holders("203.0.113.1")? == ["door"])
    })?;
    ensure!(!evil.exists(), "a name was run");
    Ok(())
}

#[test]
fn a_failure_that_waits_for_its_answer_survives_a_crash() -> Result<()> {
    if !privilege::ready("a crash while ignorecommand is asked") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = stage.write("door.log", "")?;
    let (asked, gate) = (stage.file("asked"), stage.file("gate"));
    // a friend, too: once there is somebody to ask
    let command = format!(
        "echo <ip> >> {}; while ! test -e {}; do sleep 0.1; done; test <ip> = 203.0.113.2",
        asked.display(),
        gate.display()
    );
    let jails = format!(
        "[filters.door]\nfailregex = ['^\\s*bad user from <ADDR>$']\n\
         [jails.door]\nlogpath = {log:?}\nmaxretry = 2\nignorecommand = {command:?}\n"
    );
    let mut agent = Agent::start(&stage, &jails)?;
    let mut writer = File::options().append(true).open(&log)?;
    let mut fail = |addresses: &[&str]| -> Result<()> {
        let time = jiff::Timestamp::now().strftime("%FT%TZ");
        let lines = addresses.iter().map(|address| format!("{time} bad user from {address}\n"));
        // read together
        Ok(writer.write_all(lines.collect::<String>().as_bytes())?)
    };
    fail(&["203.0.113.1", "203.0.113.1", "203.0.113.2", "203.0.113.2"])?;
    eventually("both are asked about", LIMIT, || {
        let asked = fs::read_to_string(&asked).unwrap_or_default();
        Ok(["203.0.113.1", "203.0.113.2"].iter().all(|address| asked.contains(address)))
    })
    .with_context(|| format!("the agent said:\n{}", agent.log()))?;
    // what comes later waits, and longer than a place waits to be recorded
    fail(&["203.0.113.3"])?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(agent.banned()?.is_empty(), "nobody has answered yet: {:?}", agent.banned()?);
    agent.kill()?;
    fs::write(&gate, "")?;
    agent.run()?;
    agent.await_holders("203.0.113.1", &["door"])?;
    eventually("the friend is counted", LIMIT, || Ok(ignored(&agent)? == 2))?;
    // a line that was read twice was counted once
    ensure!(agent.banned()?.len() == 1, "not only the offender: {:?}", agent.banned()?);
    fail(&["203.0.113.3"])?;
    agent.await_holders("203.0.113.3", &["door"])
}
