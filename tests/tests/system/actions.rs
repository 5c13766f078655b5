//! Actions beside the ban: run for what jails ban and let go, never in the way of a ban, and deaf to
//! what an attacker wrote.

use std::{
    fs::{self, File},
    io::Write as _,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;
use tests::{agent::Agent, privilege, process::eventually, stage::Stage};

const LIMIT: Duration = Duration::from_secs(30);

fn action<'s>(status: &'s Value, name: &str) -> Result<&'s Value> {
    let jails = status.get("jails").and_then(Value::as_array).context("no jails")?;
    let actions = jails.iter().filter_map(|jail| jail.get("actions")?.as_array()).flatten();
    let mut named = actions.filter(|action| action.get("name") == Some(&name.into()));
    named.next().with_context(|| format!("no action {name} in {status}"))
}

#[test]
fn actions_run_beside_the_bans() -> Result<()> {
    if !privilege::ready("actions") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let (log, told, evil) = (stage.file("door.log"), stage.file("told"), stage.file("evil"));
    let mailed = stage.file("mailed");
    let mut writer = File::options().create(true).append(true).open(&log)?;
    let theirs = stage.file("fail2ban");
    fs::create_dir_all(theirs.join("filter.d"))?;
    fs::create_dir_all(theirs.join("action.d"))?;
    fs::write(
        theirs.join("filter.d/door.conf"),
        "[Definition]\nfailregex = ^\\s*bad user <F-USER>.*?</F-USER> from <ADDR>$\n",
    )?;
    fs::write(
        theirs.join("action.d/tell.conf"),
        "[Definition]\nactionstart = echo start <name> >> <file>\n\
         actionstop = echo stop <name> >> <file>\n\
         actionban = printf '%%s\\n' \"ban <ip> <failures> <restored> <F-USER>\" >> <file>\n\
         actionunban = printf '%%s\\n' \"unban <ip> <failures> <bancount> <F-USER>\" >> <file>\nactionflush = echo flush <name> >> <file>\n",
    )?;
    fs::write(
        theirs.join("action.d/hang.conf"),
        "[Definition]\nactionban = echo hanging; sleep 1000\n[Init]\ntimeout = 1\n",
    )?;
    fs::write(
        theirs.join("jail.conf"),
        format!(
            "[door]\nenabled = true\nlogpath = {}\nmaxretry = 2\nbanaction = iptables\n\
             action = %(banaction)s\n  hang\n  tell[file={}]\n\
             [mailer]\nenabled = true\nfilter = door\nlogpath = {0}\nmaxretry = 2\n\
             action = tell[file={}]\n",
            log.display(),
            told.display(),
            mailed.display()
        ),
    )?;
    // a table of its own may follow the keys of [agent] that the stage writes
    let jails = "[jails]\n";
    let mut agent = Agent::start(&stage, jails)?;
    let config = fs::read_to_string(stage.file("config.toml"))?;
    let named = format!("[agent]\nfail2ban = {theirs:?}\nfail2ban_only_tell = true");
    fs::write(stage.file("config.toml"), config.replace("[agent]", &named))?;
    ensure!(agent.verb(&["reload"])?.status.success(), "the reload failed: {}", agent.log());
    let told = || fs::read_to_string(&told).unwrap_or_default();
    eventually("actionstart has run", LIMIT, || Ok(told() == "start door\n"))?;

    // with their time: the jail may run before its log is followed, and what is in it by then
    // counts by its date alone
    let name = format!("$(touch {0}) `touch {0}` '; touch {0} #", evil.display());
    for address in ["203.0.113.1", "203.0.113.2", "2001:db8::3"] {
        for _ in 0..2 {
            writeln!(writer, "{} bad user {name} from {address}", Timestamp::now())?;
        }
    }
    // the first one hangs, and holds up nobody
    for address in ["203.0.113.1", "203.0.113.2", "2001:db8::3"] {
        agent.await_holders(address, &["door"])?;
    }
    let ban = |address: &str, restored: u8| format!("ban {address} 2 {restored} {name}\n");
    let expected = ["203.0.113.1", "203.0.113.2", "2001:db8::3"].map(|address| ban(address, 0));
    eventually("all are told", LIMIT, || Ok(expected.iter().all(|line| told().contains(line))))
        .with_context(told)?;
    eventually("the hanging commands are given up", LIMIT, || {
        let status = agent.json(&["status"])?;
        // twice each: what failed is tried once more
        Ok(action(&status, "hang")?.get("failed") == Some(&6.into()))
    })?;
    let status = agent.json(&["status"])?;
    let alarms = status.get("alarms").context("no alarms")?.to_string();
    ensure!(alarms.contains("killed after 1s: hanging"), "the failure is not shown: {alarms}");
    ensure!(action(&status, "tell")?.get("failed") == Some(&0.into()), "tell failed: {status}");

    let shown = agent.verb(&["status"])?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let row = shown.lines().find(|line| line.starts_with("hang ")).context("no row")?;
    let cells: Vec<_> = row.split_whitespace().collect();
    ensure!(cells == ["hang", "door", "0", "6", "0"], "{shown}");
    ensure!(agent.verb(&["unban", "203.0.113.1"])?.status.success(), "unban failed");
    // with what the ban was told with
    let unban = format!("unban 203.0.113.1 2 1 {name}\n");
    eventually("the unban is told", LIMIT, || Ok(told().ends_with(&unban))).with_context(told)?;
    // the other jail bans nobody, and tells once
    let mailed = || fs::read_to_string(&mailed).unwrap_or_default();
    eventually("the mails are written", LIMIT, || {
        Ok(expected.iter().all(|line| mailed().matches(line.as_str()).count() == 1))
    })
    .with_context(mailed)?;
    ensure!(!mailed().contains("unban"), "the end of no ban is told: {}", mailed());

    // a stop lifts no ban, so none is told; a start tells what goes on
    agent.terminate()?;
    ensure!(told().ends_with("stop door\n") && told().matches("unban").count() == 1, "{}", told());
    agent.run()?;
    let restored = ["203.0.113.2", "2001:db8::3"].map(|address| ban(address, 1));
    eventually("what goes on is told, and why", LIMIT, || {
        Ok(restored.iter().all(|line| told().contains(line)))
    })
    .with_context(told)?;
    ensure!(!evil.exists(), "a name was run");
    // as far as it is on record
    ensure!(agent.verb(&["unban", "203.0.113.2"])?.status.success(), "unban failed");
    let unban = format!("unban 203.0.113.2 2 1 {name}\n");
    eventually("the end of an older ban is told", LIMIT, || Ok(told().ends_with(&unban)))
        .with_context(told)?;
    ensure!(agent.verb(&["unban", "--all"])?.status.success(), "unban failed");
    eventually("all are let go at once", LIMIT, || Ok(told().ends_with("flush door\n")))
        .with_context(told)?;
    ensure!(told().matches("unban").count() == 2, "told of each: {}", told());

    // what actions do is real, so a dry run does none of it
    agent.terminate()?;
    let before = told();
    let config = fs::read_to_string(stage.file("config.toml"))?;
    fs::write(stage.file("config.toml"), config.replace("[agent]", "[agent]\ndry_run = true"))?;
    agent.run()?;
    for _ in 0..2 {
        writeln!(writer, "{} bad user x from 203.0.113.9", Timestamp::now())?;
    }
    agent.await_holders("203.0.113.9", &["door"])?;
    agent.terminate()?;
    ensure!(told() == before, "a dry run told: {}", told());
    Ok(())
}

#[test]
fn what_an_action_started_ends_with_the_agent() -> Result<()> {
    if !privilege::ready("actions") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let (log, pids) = (stage.write("door.log", "")?, stage.file("pids"));
    // two that hear of the end, one that does not want to
    let script = format!(
        "sleep 61 & echo $! >> {0}; sh -c 'trap \"\" TERM; sleep 62 & echo $! >> {0}; wait'; wait",
        pids.display()
    );
    let jails = format!(
        "[filters.door]\nfailregex = ['^<ADDR> knocks$']\ndatepattern = ['{{NONE}}']\n\
         [actions.hang]\nban = {script:?}\ntimeout = \"1h\"\n\
         [hooks.hang]\ncommand = [\"/bin/sh\", \"-c\", {hook:?}]\ntimeout = \"1h\"\n\
         [jails.door]\nmaxretry = 1\nlogpath = {log:?}\nactions = \"hang\"\n",
        hook = format!("sleep 63 & echo $! >> {}; wait", pids.display()),
    );
    // not a child of systemd's, which would clean up
    let mut agent = Agent::start(&stage, &jails)?;
    writeln!(File::options().append(true).open(&log)?, "203.0.113.1 knocks")?;
    let begun = || fs::read_to_string(&pids).unwrap_or_default().lines().count();
    eventually("all have begun", LIMIT, || Ok(begun() == 3))?;
    agent.terminate()?;
    eventually("all have ended", LIMIT, || {
        let pids = fs::read_to_string(&pids)?;
        let lives = |pid: &str| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
        };
        Ok(!pids.lines().any(lives))
    })
}
