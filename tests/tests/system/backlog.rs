//! What a log held before anybody followed it: old failures ban nobody, whether their lines have a
//! date or not; what is written from now on counts, whatever clock its stamps are of.

use std::{fs, fs::File, io::Write as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use jiff::Zoned;
use tests::{agent::Agent, privilege, process::eventually, stage::Stage};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn an_old_log_bans_nobody() -> Result<()> {
    if !privilege::ready("backlog") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let (log, bare) = (stage.file("door.log"), stage.file("bare.log"));
    let failure = |address: &str| format!("bad user from {address}\n");
    let date = |minutes: i64| -> Result<String> {
        let time = Zoned::now().checked_sub(jiff::SignedDuration::from_mins(minutes))?;
        Ok(time.strftime("%Y-%m-%d %H:%M:%S").to_string())
    };
    // undated lines behind an old date, and behind one that still counts; and no date at all
    let old = format!("{} hello\n{}", date(90)?, failure("203.0.113.1").repeat(5));
    let young = format!("{} hello\n{}", date(5)?, failure("203.0.113.2").repeat(5));
    fs::write(&log, old + &young)?;
    fs::write(&bare, failure("203.0.113.3").repeat(5))?;
    let jails = format!(
        "[filters.door]\nfailregex = ['^ ?bad user from <ADDR>$']\n\
         [jails.door]\nlogpath = [{log:?}, {bare:?}]\nmaxretry = 3\nfindtime = \"1h\"\n"
    );
    let agent = Agent::start(&stage, &jails)?;
    agent.await_holders("203.0.113.2", &["door"])?;
    eventually("all is read", LIMIT, || Ok(agent.lines("door")? == 17))?;
    ensure!(agent.banned()? == ["203.0.113.2"], "banned by the past: {:?}", agent.banned()?);
    let status = agent.json(&["status"])?;
    let warnings = status.get("warnings").context("no warnings")?.to_string();
    ensure!(warnings.contains("5 failures without a date"), "not told: {warnings}");
    // from now on an undated line is of now
    let mut file = File::options().append(true).open(&bare)?;
    file.write_all(failure("203.0.113.3").repeat(3).as_bytes())?;
    agent.await_holders("203.0.113.3", &["door"])?;
    Ok(())
}

#[test]
fn the_clock_of_a_log_may_be_another() -> Result<()> {
    if !privilege::ready("another clock") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = stage.file("door.log");
    let now = || Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC);
    let line = |format: &str, minutes: i64, address: &str| -> Result<String> {
        let time = now().checked_sub(jiff::SignedDuration::from_mins(minutes))?;
        Ok(format!("{} bad user from {address}\n", time.strftime(format)))
    };
    // what is there keeps its own time: too old
    let bare = "%Y-%m-%d %H:%M:%S";
    fs::write(&log, line(bare, 120, "203.0.113.1")?.repeat(5))?;
    let jails = format!(
        "[filters.door]\nfailregex = ['^ ?bad user from <ADDR>$']\nlogtimezone = \"UTC\"\n\
         [jails.door]\nlogpath = [{log:?}]\nmaxretry = 3\nfindtime = \"10m\"\n"
    );
    let agent = Agent::start(&stage, &jails)?;
    eventually("all is read", LIMIT, || Ok(agent.lines("door")? == 5))?;
    ensure!(agent.banned()?.is_empty(), "banned by the past: {:?}", agent.banned()?);
    let mut file = File::options().append(true).open(&log)?;
    for (minutes, address) in [(15, "203.0.113.2"), (120, "203.0.113.3"), (300, "203.0.113.4")] {
        // one by one: the first of them may be read together with what was there
        for _ in 0..4 {
            file.write_all(line(bare, minutes, address)?.as_bytes())?;
            let lines = agent.lines("door")?;
            eventually("it is read", LIMIT, || Ok(agent.lines("door")? >= lines))?;
        }
        agent.await_holders(address, &["door"])?;
    }
    // a stamp that names its zone is believed, and the operator is told
    file.write_all(line("%Y-%m-%dT%H:%M:%S%:z", 120, "203.0.113.5")?.repeat(5).as_bytes())?;
    let total = u64::try_from(fs::read_to_string(&log)?.lines().count())?;
    eventually("all is read", LIMIT, || Ok(agent.lines("door")? == total))?;
    ensure!(agent.holders("203.0.113.5")?.is_empty(), "banned by late news");
    let alarms = agent.json(&["status"])?["alarms"].to_string();
    ensure!(alarms.contains("stamped by a clock that is off"), "not told: {alarms}");
    ensure!(alarms.contains("5 failures were older than findtime"), "not told: {alarms}");
    Ok(())
}
