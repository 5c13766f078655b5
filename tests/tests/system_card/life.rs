//! What outlives the agent and what does not: bans end on time without it, SIGTERM leaves them,
//! a restart adopts them, `detach` takes everything away.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use tests::{
    agent::{Agent, LIMIT},
    host::{FAMILIES, Family},
    privilege,
    process::eventually,
    stage::{EDGE, Stage},
};

#[test]
fn a_ban_ends_on_time_also_when_the_agent_was_killed() -> Result<()> {
    if !privilege::ready("expiry after kill -9") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let mut agent = Agent::start(&stage, "")?;
    let attacker = stage.attacker();
    for family in FAMILIES {
        let address = attacker.address(family);
        let done = agent.verb(&["ban", address, "--for", "3s"])?;
        ensure!(done.status.success(), "ban failed");
        ensure!(!attacker.pings(family, EDGE)?, "not dropped");
        // with the agent alive
        await_pings(&stage)?;
        eventually("the ban leaves the list", LIMIT, || Ok(agent.ban(address)?.is_none()))?;
    }
    for family in FAMILIES {
        let done = agent.verb(&["ban", attacker.address(family), "--for", "5s"])?;
        ensure!(done.status.success(), "ban failed");
    }
    agent.kill()?;
    ensure!(stage.attached()?, "the program left with the agent");
    for family in FAMILIES {
        ensure!(!attacker.pings(family, EDGE)?, "not dropped while the agent is dead");
    }
    await_pings(&stage)?;
    agent.run()?;
    ensure!(agent.banned()?.is_empty(), "an ended ban came back");
    Ok(())
}

fn await_pings(stage: &Stage) -> Result<()> {
    let attacker = stage.attacker();
    eventually("packets come through again", Duration::from_secs(15), || {
        Ok(FAMILIES.iter().all(|family| matches!(attacker.pings(*family, EDGE), Ok(true))))
    })
}

#[test]
fn enforcement_outlives_the_agent_until_detach() -> Result<()> {
    if !privilege::ready("SIGTERM, restart, detach") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let mut agent = Agent::start(&stage, "")?;
    let attacker = stage.attacker();
    for family in FAMILIES {
        let done = agent.verb(&["ban", attacker.address(family), "--for", "1h"])?;
        ensure!(done.status.success(), "ban failed");
        ensure!(!attacker.pings(family, EDGE)?, "not dropped");
    }
    let ends = ends(&stage, &agent)?;
    agent.terminate()?;
    ensure!(stage.attached()?, "SIGTERM took the program away");
    for family in FAMILIES {
        ensure!(!attacker.pings(family, EDGE)?, "SIGTERM ended the ban");
    }
    agent.run()?;
    same(&ends, &self::ends(&stage, &agent)?)?;
    agent.kill()?;
    agent.run()?;
    same(&ends, &self::ends(&stage, &agent)?)?;
    for family in FAMILIES {
        ensure!(!attacker.pings(family, EDGE)?, "the restart ended the ban");
        let packets = agent.dropped(attacker.address(family))?;
        ensure!(packets >= 3, "the restart lost the counters: {packets}");
    }
    let done = agent.verb(&["detach"])?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    // at the answer, not some time after it
    gone(&stage)?;
    agent.await_end()?;

    // without a running agent as well
    agent.run()?;
    agent.terminate()?;
    ensure!(stage.attached()?, "nothing to take away");
    let done = agent.verb(&["detach"])?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    gone(&stage)
}

/// When the attacker's bans end.
fn ends(stage: &Stage, agent: &Agent<'_>) -> Result<Vec<Timestamp>> {
    let end = |family: &Family| -> Result<Timestamp> {
        let address = stage.attacker().address(*family);
        let ban = agent.ban(address)?.with_context(|| format!("{address} is not banned"))?;
        let until = ban.get("until").and_then(|until| until.as_str()).context("no end")?;
        Ok(until.parse()?)
    };
    FAMILIES.iter().map(end).collect()
}

/// The kernel keeps a deadline of its own clock: the wall clock's end is told from it, to some
/// milliseconds.
fn same(one: &[Timestamp], other: &[Timestamp]) -> Result<()> {
    for (one, other) in one.iter().zip(other) {
        let apart = one.duration_since(*other).abs();
        ensure!(apart < SignedDuration::from_millis(500), "the end moved from {one} to {other}");
    }
    Ok(())
}

/// Nothing is left of the agent in the kernel.
fn gone(stage: &Stage) -> Result<()> {
    ensure!(!stage.attached()?, "detach left the program");
    let left = std::fs::read_dir(stage.pins()).map(Iterator::count).unwrap_or(0);
    ensure!(left == 0, "detach left pins in {}", stage.pins().display());
    for family in FAMILIES {
        ensure!(stage.attacker().pings(family, EDGE)?, "still dropped after detach");
    }
    Ok(())
}

#[test]
fn a_ban_names_what_it_did() -> Result<()> {
    if !privilege::ready("ban and unban") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let agent = Agent::start(&stage, "")?;
    let code = |words: &[&str]| -> Result<i32> {
        agent.verb(words)?.status.code().context("ended by a signal")
    };
    ensure!(code(&["show", "192.0.2.66"])? == 1, "show of nobody");
    ensure!(code(&["ban", "192.0.2.66", "--for", "1h"])? == 0, "ban");
    ensure!(code(&["show", "192.0.2.66"])? == 0, "show");
    ensure!(code(&["ban", EDGE.0])? != 0, "the edge's own address was banned");
    ensure!(agent.banned()? == ["192.0.2.66"], "{:?}", agent.banned()?);
    ensure!(code(&["unban", "192.0.2.66"])? == 0, "unban");
    ensure!(agent.banned()?.is_empty(), "unban left it");
    Ok(())
}

#[test]
fn the_service_has_every_capability_that_it_needs() -> Result<()> {
    if !privilege::ready("the capabilities of the unit") {
        return Ok(());
    }
    let unit = include_str!("../../../dist/ban-agent.service");
    let named = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let named = named.context("the unit bounds no capabilities")?.replace("CAP_", "+");
    let capabilities = format!("-all {named}").to_lowercase().replace(' ', ",");
    let stage = Stage::build()?;
    let mut agent = Agent::start(&stage, "")?;
    agent.terminate()?;
    agent.run_with(&capabilities)?;
    let attacker = stage.attacker();
    for family in FAMILIES {
        let done = agent.verb(&["ban", attacker.address(family), "--for", "1h"])?;
        ensure!(done.status.success(), "ban failed");
        ensure!(!attacker.pings(family, EDGE)?, "not dropped");
    }
    agent.kill()?;
    agent.run_with(&capabilities)?;
    let done = agent.verb(&["unban", "--all"])?;
    ensure!(done.status.success(), "unban failed");
    await_pings(&stage)?;
    let done = agent.verb(&["detach"])?;
    ensure!(done.status.success(), "detach failed");
    ensure!(!stage.attached()?, "the program was left");
    Ok(())
}

#[test]
fn a_running_agent_keeps_no_capability_that_it_does_not_need() -> Result<()> {
    if !privilege::ready("the agent's capabilities") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let mut agent = Agent::start(&stage, "")?;
    let pid = agent.json(&["status"])?.get("pid").and_then(serde_json::Value::as_u64);
    let pid = pid.context("no pid")?;
    let tasks = format!("/proc/{pid}/task");
    // DAC_READ_SEARCH, NET_BIND_SERVICE, NET_ADMIN, PERFMON, BPF
    let needed = [2, 10, 12, 38, 39].into_iter().fold(0_u64, |mask, bit| mask | 1 << bit);
    for task in std::fs::read_dir(tasks)? {
        let status = std::fs::read_to_string(task?.path().join("status"))?;
        for set in ["CapEff:", "CapPrm:"] {
            let line = status.lines().find_map(|line| line.strip_prefix(set));
            let held = u64::from_str_radix(line.context("no capabilities")?.trim(), 16)?;
            ensure!(held & !needed == 0, "{set} {held:x}\n{status}");
            // the thread that writes the log needs nothing at all
            let none = status.starts_with("Name:\tlog\n");
            ensure!(
                (held == 0) == none && (none || held & (1 << 39) != 0),
                "{set} {held:x}\n{status}"
            );
        }
        // no command of the operator needs more: nobody gets it again
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let bound = u64::from_str_radix(field("CapBnd:").context("no bounding set")?, 16)?;
        ensure!(bound & !needed == 0, "CapBnd {bound:x}\n{status}");
        ensure!(field("NoNewPrivs:") == Some("1"), "{status}");
    }
    // who may see whose sockets are whose reads no log; and its memory is closed to the agent
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let helper: u32 = children.trim().parse().with_context(|| format!("{children:?}"))?;
    let status = std::fs::read_to_string(format!("/proc/{helper}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    let held = u64::from_str_radix(line.context("no capabilities")?.trim(), 16)?;
    ensure!(held == 1 << 19 | 1 << 2, "the helper has {held:x}");
    agent.kill()?;
    eventually("the helper goes with the agent", LIMIT, || {
        Ok(!std::path::Path::new(&format!("/proc/{helper}")).exists())
    })
}

#[test]
fn a_lost_state_file_lifts_no_ban() -> Result<()> {
    if !privilege::ready("adoption from the kernel") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let mut agent = Agent::start(&stage, "")?;
    for words in [&["ban", "192.0.2.66"][..], &["ban", "192.0.2.67", "--port", "tcp/22"]] {
        ensure!(agent.verb(words)?.status.success(), "ban failed");
    }
    agent.kill()?;
    for file in std::fs::read_dir(stage.file(""))?.flatten() {
        if file.file_name().to_string_lossy().starts_with("state") {
            std::fs::remove_file(file.path())?;
        }
    }
    agent.run()?;
    let ports = |address: &str| -> Result<serde_json::Value> {
        let ban = agent.ban(address)?.with_context(|| format!("{address} was forgotten"))?;
        ban.get("ports").cloned().context("no ports")
    };
    ensure!(
        ports("192.0.2.66")? == serde_json::json!([]),
        "all traffic became {:?}",
        ports("192.0.2.66")
    );
    ensure!(ports("192.0.2.67")? == serde_json::json!(["tcp/22"]), "the port was lost");
    Ok(())
}
