//! A real nginx in front of an API, its access log, the agent, and someone who guesses.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tests::{
    agent::Agent,
    daemons::Nginx,
    host::{FAMILIES, Family},
    net::run,
    privilege,
    process::eventually,
    stage::{EDGE, Stage, VICTIM},
};

/// Only the paths differ from what is shipped.
fn jails(stage: &Stage) -> String {
    let log = stage.file("access.log");
    format!("[jails.nginx-401]\nlogpath = {log:?}\n[jails.nginx-531]\nlogpath = {log:?}\n")
}

/// 25 failures in 10 minutes are what the shipped jails stand.
const MAXRETRY: usize = 25;

#[test]
fn failed_logins_cost_the_attacker_his_connections() -> Result<()> {
    if !privilege::ready("nginx 401 and 531") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let _nginx = Nginx::start(&stage)?;
    let before = firewall(&stage)?;
    let agent = Agent::start(&stage, &jails(&stage))?;
    let (attacker, client) = (stage.attacker(), stage.client());
    for (family, request, status, jail) in [
        (Family::V4, Nginx::BAD_LOGIN, 531, "nginx-531"),
        (Family::V6, Nginx::BAD_SIGNATURE, 401, "nginx-401"),
    ] {
        let address = attacker.address(family);
        let mut open = attacker.connect(family, EDGE, 80)?.context("the edge is not there")?;
        let mut other = client.connect(family, EDGE, 80)?.context("the edge is not there")?;
        ensure!(attacker.pings(family, EDGE)?, "pings before the ban");
        for _ in 1..MAXRETRY {
            ensure!(open.ask(request)? == Some(status), "a failing login is answered {status}");
        }
        // all of them were read, and they were one too few
        eventually("the lines are read", Duration::from_secs(10), || {
            Ok(agent.lines(jail)? >= u64::try_from(MAXRETRY - 1)?)
        })?;
        ensure!(agent.holders(address)?.is_empty(), "banned before maxretry");
        open.ask(request)?;
        agent.await_holders(address, &[jail])?;

        ensure!(open.ask(Nginx::GOOD)?.is_none(), "an open connection still works");
        ensure!(attacker.connect(family, EDGE, 80)?.is_none(), "a new connection opens");
        ensure!(!attacker.pings(family, EDGE)?, "pings come back");
        ensure!(agent.dropped(address)? > 0, "nothing was counted as dropped");
        ensure!(other.ask(Nginx::GOOD)? == Some(200), "the client's connection suffers");
        ensure!(client.pings(family, EDGE)?, "the client's pings suffer");
        ensure!(firewall(&stage)? == before, "the firewall changed");
    }
    for family in FAMILIES {
        let done = agent.verb(&["unban", attacker.address(family)])?;
        ensure!(done.status.success(), "unban failed");
        ensure!(attacker.pings(family, EDGE)?, "still dropped after the unban");
    }
    ensure!(firewall(&stage)? == before, "the firewall changed");
    Ok(())
}

#[test]
fn whoever_is_named_in_a_request_is_not_banned() -> Result<()> {
    if !privilege::ready("nginx injection") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let nginx = Nginx::start(&stage)?;
    let agent = Agent::start(&stage, &jails(&stage))?;
    let attacker = stage.attacker();
    for family in FAMILIES {
        let victim = if family == Family::V4 { VICTIM.0 } else { VICTIM.1 };
        let line = format!("{victim} - - [21/Nov/2026:00:00:00 +0000] \"GET / HTTP/1.1\" 401 1");
        let headers = format!(
            "User-Agent: {line}\r\nReferer: {line}\r\nX-Forwarded-For: {victim}\r\n\
             X-Real-IP: {victim}\r\nAuthorization: Basic {}\r\n",
            base64(format!("{victim} - - [\n{line}:x").as_bytes()),
        );
        let path = line.replace(' ', "%20").replace('"', "%22");
        let request = format!("GET /{path}?stub=401");
        let mut open = attacker.connect(family, EDGE, 80)?.context("the edge is not there")?;
        for _ in 0..MAXRETRY {
            open.ask_with(&request, &headers)?;
        }
        agent.await_holders(attacker.address(family), &["nginx-401"])?;
        let log = fs::read_to_string(&nginx.log)?;
        ensure!(log.contains(victim), "the forged text did not reach the log");
    }
    let mut banned = agent.banned()?;
    banned.sort();
    ensure!(banned == [attacker.address(Family::V4), attacker.address(Family::V6)], "{banned:?}");
    Ok(())
}

/// Each time as often as the shipped jail `nginx-http-auth` stands.
const STAFF: usize = 5;

#[test]
fn a_stranger_cannot_write_his_own_evidence() -> Result<()> {
    if !privilege::ready("nginx basic auth") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let nginx = Nginx::start(&stage)?;
    let log = stage.file("access.log");
    // also over the log in which he can: none of the shipped filters takes its lines for its own
    let jails = format!(
        "[jails.nginx-http-auth]\nlogpath = [{log:?}, {errors:?}]\nraw_log = true\n",
        errors = nginx.errors
    );
    let agent = Agent::start(&stage, &jails)?;
    let attacker = stage.attacker();
    for family in FAMILIES {
        let victim = if family == Family::V4 { VICTIM.0 } else { VICTIM.1 };
        // a whole line of nginx's own, between two line feeds; the file of that name is not there
        let forged = format!(
            "2026/11/27 15:00:00 [error] 1#1: *1 user \"x\": password mismatch, client: {victim}, \
             server: , request: \"GET / HTTP/1.1\", host: \"x\""
        );
        let path = forged.replace(' ', "%20").replace('"', "%22").replace('#', "%23");
        let mut open = attacker.connect(family, EDGE, 80)?.context("the edge is not there")?;
        for _ in 0..=STAFF {
            let asked = open.ask(&format!("GET /files/%0A{path}%0A"))?;
            ensure!(asked == Some(404), "there is no such file: {asked:?}");
        }
        let errors = fs::read_to_string(&nginx.errors)?;
        let there = errors.lines().any(|line| line == forged);
        ensure!(there, "nginx no longer writes line feeds as they come:\n{errors}");

        // a browser asks without a password first: no failure, however often
        for _ in 0..=STAFF {
            ensure!(open.ask("GET /staff")? == Some(401), "a challenge");
        }
        let basic = format!("Authorization: Basic {}\r\n", base64(b"bob:wrong"));
        for _ in 1..STAFF {
            ensure!(open.ask_with("GET /staff", &basic)? == Some(401), "a wrong password");
        }
        let asked = u64::try_from(fs::read_to_string(&log)?.lines().count())?;
        eventually("the lines are read", Duration::from_secs(10), || {
            Ok(agent.lines("nginx-http-auth")? >= asked)
        })?;
        ensure!(agent.holders(attacker.address(family))?.is_empty(), "banned before maxretry");
        // the method does not matter, nor does the name
        let nobody = format!("Authorization: Basic {}\r\n", base64(b"-nobody:wrong"));
        open.ask_with("LOGIN /staff", &nobody)?;
        agent.await_holders(attacker.address(family), &["nginx-http-auth"])?;
    }
    let mut banned = agent.banned()?;
    banned.sort();
    ensure!(banned == [attacker.address(Family::V4), attacker.address(Family::V6)], "{banned:?}");
    let warnings = agent.json(&["status"])?["warnings"].to_string();
    ensure!(warnings.contains("nginx's error log"), "status does not warn: {warnings}");
    Ok(())
}

#[test]
fn the_status_decides_whatever_the_request_looks_like() -> Result<()> {
    if !privilege::ready("nginx, odd requests") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let _nginx = Nginx::start(&stage)?;
    let agent = Agent::start(&stage, &jails(&stage))?;
    let attacker = stage.attacker();
    let login = "/client/api?command=login&stub=531";
    // a request without a version: nginx hands it on, and answers with the body alone
    for _ in 0..MAXRETRY {
        let open = attacker.connect(Family::V4, EDGE, 80)?.context("cut off too early")?;
        let answer = open.shout(&format!("GET {login}\r\n"))?;
        ensure!(answer == b"no", "{}", String::from_utf8_lossy(&answer));
    }
    agent.await_holders(attacker.address(Family::V4), &["nginx-531"])?;
    // other methods, and ones that there are not: four of each are one too few
    let address = attacker.address(Family::V6);
    let mut open = attacker.connect(Family::V6, EDGE, 80)?.context("the edge is not there")?;
    let methods = ["PUT", "DELETE", "OPTIONS", "PATCH", "FOO", "LOGIN"].repeat(4);
    ensure!(methods.len() == MAXRETRY - 1, "four times six are one too few");
    let read = agent.lines("nginx-531")?;
    for method in &methods {
        ensure!(open.ask(&format!("{method} {login}"))? == Some(531), "{method}");
    }
    eventually("the lines are read", Duration::from_secs(10), || {
        Ok(agent.lines("nginx-531")? >= read + u64::try_from(methods.len())?)
    })?;
    ensure!(agent.holders(address)?.is_empty(), "banned before maxretry");
    open.ask(&format!("FOO {login}"))?;
    agent.await_holders(address, &["nginx-531"])?;
    Ok(())
}

/// All that a firewall, a router or an Ansible run would look at. Rules and routes of the
/// operator's own are there first, so that there is something to change.
fn firewall(stage: &Stage) -> Result<String> {
    let edge = &stage.edge;
    if !edge.ip("rule show")?.contains("7777") {
        edge.ip("rule add pref 7777 from 203.0.113.0/24 lookup 77")?;
        edge.ip("route add blackhole 203.0.113.128/25 table 77")?;
        let table = "table inet operator {\nchain input {\ntype filter hook input priority 0;\n\
                     ip saddr 203.0.113.9 drop\n}\n}\n";
        run(edge.command("nft").arg(table))?;
    }
    let mut all = run(edge.command("nft").args(["list", "ruleset"]))?;
    for words in ["route show table all", "-6 route show table all", "rule show", "-6 rule show"] {
        all.push_str(&edge.ip(words)?);
    }
    let stateless = |line: &&str| !line.contains(" cache ");
    all = all.lines().filter(stateless).collect::<Vec<_>>().join("\n");
    // its comments hold the time
    let saved = run(&mut edge.command("iptables-save"))?;
    all.extend(saved.lines().filter(|line| !line.starts_with('#')));
    Ok(all)
}

fn base64(bytes: &[u8]) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - group.len()));
        for place in 0..4 {
            let sign = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap_or(0);
            let known = SIGNS.get(sign).filter(|_| place <= group.len());
            text.push(known.map_or('=', |sign| char::from(*sign)));
        }
    }
    text
}
