//! Who is banned again and again is banned for long, without any log of bans.

use std::{fs::File, io::Write as _};

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tests::{agent::Agent, privilege, stage::Stage};

/// When the long ban of the address ends.
fn end(agent: &Agent<'_>, address: &str) -> Result<Timestamp> {
    let ban = agent.ban(address)?.context("not banned")?;
    let holders = ban.get("holders").and_then(Value::as_array).context("no holders")?;
    let long = holders.iter().find(|holder| holder.get("jail") == Some(&"recidive".into()));
    let until = long.and_then(|holder| holder.get("until")?.as_str()).context("no end")?;
    Ok(until.parse()?)
}

#[test]
fn repeated_bans_become_a_long_one() -> Result<()> {
    if !privilege::ready("recidive") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let logs = ["a.log", "b.log"].map(|name| stage.file(name));
    let mut jails = "[filters.door]\nfailregex = ['^ ?bad user from <ADDR>$']\n".to_owned();
    for (jail, log) in ["front", "back"].into_iter().zip(&logs) {
        File::create(log)?;
        jails += &format!("[jails.{jail}]\nfilter = \"door\"\nlogpath = {log:?}\nmaxretry = 1\n");
    }
    jails += "[jails.recidive]\nmaxretry = 3\n";
    let agent = Agent::start(&stage, &jails)?;
    let fail = |log: usize, address: &str| -> Result<()> {
        let path = logs.get(log).context("no such log")?;
        let mut file = File::options().append(true).open(path)?;
        Ok(writeln!(file, "bad user from {address}")?)
    };
    // an IPv6 offender is counted by his /64, and is somebody else in it each time
    let offenders = [
        (["203.0.113.7"; 3], "203.0.113.7", "203.0.113.7", ("203.0.113.8", "203.0.113.8")),
        (
            ["2001:db8:7::1", "2001:db8:7::2", "2001:db8:7::3"],
            "2001:db8:7::/64",
            "2001:db8:7::",
            ("2001:db8:8::1", "2001:db8:8::"),
        ),
    ];
    for ([first, second, third], prefix, shown, (other, other_shown)) in offenders {
        // over all jails, and twice by one
        for (log, jail, address) in [(0, "front", first), (1, "back", second)] {
            fail(log, address)?;
            agent.await_holders(shown, &[jail])?;
            ensure!(agent.verb(&["unban", prefix, "--jail", jail])?.status.success(), "unban");
        }
        fail(0, other)?;
        fail(0, third)?;
        agent.await_holders(shown, &["front", "recidive"])?;
        agent.await_holders(other_shown, &["front"])?;
        let left = end(&agent, shown)?.duration_since(Timestamp::now());
        ensure!(left > SignedDuration::from_hours(24 * 7 - 1), "only for {left}");
    }
    // its own bans are not among what it counts: 4 of each family
    let status = agent.json(&["status"])?;
    let sources = status.get("sources").and_then(Value::as_array).context("no sources")?;
    let own = sources.iter().find(|source| source.get("origin") == Some(&"own bans".into()));
    let lines = own.and_then(|own| own.pointer("/counters/lines").or_else(|| own.get("lines")));
    ensure!(lines.and_then(Value::as_u64) == Some(8), "{status}");
    let shown = agent.json(&["show", "203.0.113.7"])?.to_string();
    ensure!(shown.contains("[back] Ban 203.0.113.7"), "the reasons are not shown: {shown}");

    // the same in a replay: three times within a day, each time after the last ban's end
    let past = |hours: i64| -> Result<String> {
        let time = Timestamp::now().checked_sub(SignedDuration::from_hours(hours))?;
        Ok(format!("{} bad user from 203.0.113.9\n", time.strftime("%Y-%m-%dT%H:%M:%SZ")))
    };
    let file = stage.write("past.log", &[past(20)?, past(15)?, past(10)?].concat())?;
    let file = file.display().to_string();
    let jails = |words: &[&str]| -> Result<Vec<String>> {
        let replayed = agent.json(&[&["replay"], words, &[file.as_str()]].concat())?;
        let bans = replayed.get("bans").and_then(Value::as_array).context("no bans")?;
        let jail = |ban: &Value| ban.get("jail").and_then(Value::as_str).map(str::to_owned);
        Ok(bans.iter().filter_map(jail).collect())
    };
    ensure!(jails(&["front"])? == ["front"; 3], "{:?}", jails(&["front"])?);
    ensure!(jails(&["recidive"])? == ["recidive"], "{:?}", jails(&["recidive"])?);
    ensure!(jails(&[])?.len() == 7, "{:?}", jails(&[])?);
    Ok(())
}
