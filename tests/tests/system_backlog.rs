//! What a log held before anybody followed it: old failures ban nobody, whether their lines have a
//! date or not; what is written from now on counts.

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
