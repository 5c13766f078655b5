//! Configurations that run in the field today, as they stand in fail2ban's folders beside those of
//! its package: the real daemons write their logs, and the real agent does what fail2ban would.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use tests::{
    agent::{Agent, LIMIT, configure},
    daemons::{Nginx, Sshd, guess},
    host::{FAMILIES, Family},
    privilege,
    process::eventually,
    stage::{EDGE, Stage},
};

const FAIL2BAN: &str = "/etc/fail2ban";

/// The same jail and filter for each status that the API answers to a failed login.
const NGINX_JAIL: &str = "\
[nginx-STATUS]
enabled  = true
port     = http,https
filter   = nginx-STATUS
action   = iptables-allports
logpath  = %(nginx_access_log)s
bantime  = 3600
findtime = 600
maxretry = 25
ignoreip = 127.0.0.1/8
";
const NGINX_FILTER: &str = "\
[Definition]
failregex = ^<HOST> -.*\"(GET|POST|HEAD).*HTTP.*\" STATUS
ignoreregex =
";
const SSHD_JAILS: &str = "\
[sshd]
enabled  = true
filter   = sshd
logpath  = /var/log/auth.log
maxretry = 3
findtime = 180
bantime  = 1200
action   = route

[sshd-hourly]
enabled  = true
filter   = sshd
logpath  = /var/log/auth.log
maxretry = 5
findtime = 3600
bantime  = 86400
action   = route
";

/// The package's folder with no jail on; `None` if the package is not installed.
fn folder(stage: &Stage) -> Result<Option<PathBuf>> {
    if !Path::new(FAIL2BAN).join("jail.conf").exists() {
        ensure!(std::env::var_os("CI").is_none(), "the package fail2ban is not installed");
        println!("SKIPPED: the package fail2ban is not installed");
        return Ok(None);
    }
    let folder = stage.file("fail2ban");
    let copied = Command::new("cp").arg("-a").arg(FAIL2BAN).arg(&folder).status()?;
    ensure!(copied.success(), "cannot copy {FAIL2BAN}");
    fs::remove_dir_all(folder.join("jail.d"))?;
    fs::create_dir(folder.join("jail.d"))?;
    Ok(Some(folder))
}

/// The agent with nothing of its own but the way to these files.
fn agent<'s>(stage: &'s Stage, folder: &Path) -> Result<Agent<'s>> {
    let path = configure(stage, "")?;
    let text = fs::read_to_string(&path)?;
    fs::write(&path, text.replace("[agent]", &format!("[agent]\nfail2ban = {folder:?}")))?;
    let mut agent = Agent::idle(stage);
    agent.run()?;
    Ok(agent)
}

/// For how many seconds this jail holds the address yet, and on which ports it is banned.
fn held(agent: &Agent<'_>, address: &str, jail: &str) -> Result<(i64, Value)> {
    let ban = agent.ban(address)?.with_context(|| format!("{address} is not banned"))?;
    let holders = ban.get("holders").and_then(Value::as_array).context("no holders")?;
    let holder = holders.iter().find(|holder| holder.get("jail") == Some(&jail.into()));
    let until = holder.and_then(|holder| holder.get("until")?.as_str()).context("no end")?;
    let left = until.parse::<Timestamp>()?.duration_since(Timestamp::now()).as_secs();
    Ok((left, ban.get("ports").cloned().unwrap_or_default()))
}

#[test]
fn failed_logins_at_an_api_behind_nginx() -> Result<()> {
    if !privilege::ready("the recipe for nginx") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let Some(folder) = folder(&stage)? else { return Ok(()) };
    for status in ["401", "531"] {
        let write =
            |name: &str, text: &str| fs::write(folder.join(name), text.replace("STATUS", status));
        write(&format!("jail.d/nginx-{status}.conf"), NGINX_JAIL)?;
        write(&format!("filter.d/nginx-{status}.conf"), NGINX_FILTER)?;
    }
    let log = stage.file("access.log").display().to_string();
    fs::write(folder.join("jail.local"), format!("[DEFAULT]\nnginx_access_log = {log}\n"))?;
    let _nginx = Nginx::start(&stage)?;
    let agent = agent(&stage, &folder)?;
    let (attacker, client) = (stage.attacker(), stage.client());
    for (family, request, jail) in [
        (Family::V4, Nginx::BAD_LOGIN, "nginx-531"),
        (Family::V6, Nginx::BAD_SIGNATURE, "nginx-401"),
    ] {
        let address = attacker.address(family);
        let mut open = attacker.connect(family, EDGE, 80)?.context("the edge is not there")?;
        for _ in 1..25 {
            open.ask(request)?;
        }
        eventually("the lines are read", LIMIT, || Ok(agent.lines(jail)? >= 24))?;
        ensure!(agent.holders(address)?.is_empty(), "banned before maxretry");
        open.ask(request)?;
        agent.await_holders(address, &[jail])?;
        let (left, ports) = held(&agent, address, jail)?;
        ensure!((3500..=3600).contains(&left), "banned for {left} s");
        ensure!(ports == json!([]), "not on all ports, though the action says so: {ports}");
        ensure!(open.ask(Nginx::GOOD)?.is_none(), "an open connection still works");
        ensure!(!attacker.pings(family, EDGE)?, "pings come back");
        ensure!(client.pings(family, EDGE)?, "the client suffers");
    }
    Ok(())
}

#[test]
fn two_jails_over_one_log_whose_action_is_a_route() -> Result<()> {
    if !privilege::ready("the recipe for sshd") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let Some(folder) = folder(&stage)? else { return Ok(()) };
    let log = stage.file("auth.log").display().to_string();
    let jails = SSHD_JAILS.replace("/var/log/auth.log", &log);
    // Debian's default is the journal; the recipe names a file
    fs::write(folder.join("jail.local"), format!("[DEFAULT]\nbackend = auto\n{jails}"))?;
    let _sshd = Sshd::start(&stage)?;
    let agent = agent(&stage, &folder)?;
    let attacker = stage.attacker();
    for family in FAMILIES {
        let address = attacker.address(family);
        guess(&stage, attacker, family, "root", 3)?;
        agent.await_holders(address, &["sshd"])?;
        let (left, ports) = held(&agent, address, "sshd")?;
        ensure!((1100..=1200).contains(&left) && ports == json!([]), "{left} s, {ports}");
        ensure!(!attacker.pings(family, EDGE)?, "pings come back");
        // as if its twenty minutes were over: the other jail still counts to five
        ensure!(agent.verb(&["unban", address, "--jail", "sshd"])?.status.success(), "unban");
        ensure!(attacker.pings(family, EDGE)?, "still banned");
        guess(&stage, attacker, family, "root", 2)?;
        agent.await_holders(address, &["sshd-hourly"])?;
        let (left, _) = held(&agent, address, "sshd-hourly")?;
        ensure!((86_300..=86_400).contains(&left), "banned for {left} s");
        // the short jail's end leaves the long one's ban where it is
        let again = agent.verb(&["ban", address, "--jail", "sshd", "--for", "1s"])?;
        ensure!(again.status.success(), "ban");
        agent.await_holders(address, &["sshd-hourly"])?;
        ensure!(!attacker.pings(family, EDGE)?, "the short ban's end lifted the long one");
    }
    Ok(())
}
