//! A reload is all or nothing, on the command line and by SIGHUP; nobody's ban suffers.

use std::{fs::File, io::Write as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use rustix::process::Signal;
use tests::{
    agent::{Agent, LIMIT, binary, configure},
    daemons::Nginx,
    host::Family,
    net::run,
    privilege,
    process::eventually,
    stage::{EDGE, Stage},
};

#[test]
fn a_reload_is_all_or_nothing() -> Result<()> {
    if !privilege::ready("reload") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let _nginx = Nginx::start(&stage)?;
    let log = stage.file("access.log");
    let jail = |maxretry: u32| {
        format!("[jails.nginx-401]\nlogpath = {log:?}\nmaxretry = {maxretry}\nbantime = \"1h\"\n")
    };
    let agent = Agent::start(&stage, &jail(1000))?;
    let banned = "192.0.2.200";
    ensure!(agent.verb(&["ban", banned, "--for", "1h"])?.status.success(), "ban failed");

    configure(&stage, &format!("{}maxretri = 2\n", jail(2)))?;
    let done = agent.verb(&["reload"])?;
    ensure!(done.status.code() == Some(78), "a bad configuration was taken: {done:?}");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(said.contains("maxretri"), "the cause is not named: {said}");
    let mut open = stage.attacker().connect(Family::V4, EDGE, 80)?.context("no nginx")?;
    for _ in 0..3 {
        ensure!(open.ask(Nginx::BAD_SIGNATURE)? == Some(401), "refused before the reload");
    }
    eventually("the lines are read", Duration::from_secs(10), || {
        Ok(agent.lines("nginx-401")? >= 3)
    })?;
    ensure!(agent.banned()? == [banned], "half of a bad configuration was taken");

    // by the signal that the service manager sends
    configure(&stage, &jail(2))?;
    agent.signal(Signal::HUP)?;
    eventually("the new maxretry counts", Duration::from_secs(20), || {
        if agent.holders(stage.attacker().address(Family::V4))? == ["nginx-401"] {
            return Ok(true);
        }
        open.ask(Nginx::BAD_SIGNATURE)?;
        Ok(false)
    })?;
    ensure!(agent.holders(banned)? == ["manual"], "the reload cost a ban");

    // a jail that is gone bans nobody else
    configure(&stage, "")?;
    ensure!(agent.verb(&["reload"])?.status.success(), "the reload failed");
    let mut open = stage.client().connect(Family::V4, EDGE, 80)?.context("no nginx")?;
    for _ in 0..5 {
        ensure!(open.ask(Nginx::BAD_SIGNATURE)? == Some(401), "banned by a jail that is gone");
    }
    Ok(())
}

#[test]
fn a_reload_loses_neither_lines_nor_counts() -> Result<()> {
    const OFFENDERS: u32 = 1500;
    if !privilege::ready("lines while reloading") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = stage.file("app.log");
    let jail = |findtime: u32| {
        format!(
            "[filters.app]\nfailregex = ['^\\s*bad login from <ADDR>$']\n\
             [jails.app]\nlogpath = {log:?}\nmaxretry = 3\nfindtime = \"{findtime}h\"\nbantime = \"1h\"\n"
        )
    };
    let mut file = File::create(&log)?;
    let agent = Agent::start(&stage, &jail(1))?;
    let mut rounds = 0;
    for round in 0..3 {
        for number in 0..OFFENDERS {
            let address = std::net::Ipv4Addr::from(0xc612_0000 + number);
            writeln!(file, "{:.3} bad login from {address}", Timestamp::now())?;
            if number % 150 == 75 {
                rounds += 1;
                configure(&stage, &jail(1 + round + rounds))?;
                ensure!(agent.verb(&["reload"])?.status.success(), "the reload failed");
            }
        }
    }
    eventually("all offenders are banned", LIMIT, || {
        Ok(agent.banned()?.len() == usize::try_from(OFFENDERS)?)
    })
    .with_context(|| format!("{:?} are", agent.banned().map(|all| all.len())))
}

#[test]
fn a_reload_makes_room_for_more_bans() -> Result<()> {
    if !privilege::ready("room by reload") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let agent = Agent::start(&stage, "")?;
    let path = stage.file("config.toml");
    let text = std::fs::read_to_string(&path)?;
    std::fs::write(&path, text.replace("max_bans = 4096", "max_bans = 8192"))?;
    let attacker = stage.attacker().address(Family::V4);
    ensure!(agent.verb(&["ban", attacker, "--for", "1h"])?.status.success(), "ban failed");
    ensure!(agent.verb(&["reload"])?.status.success(), "the reload failed");
    ensure!(!agent.log().contains("in effect at the next start alone"), "{}", agent.log());

    let list: String =
        (0..6_000_u32).map(|n| format!("198.18.{}.{}\n", n / 250, n % 250)).collect();
    let list = stage.write("list", &list)?;
    let done = stage
        .edge
        .command(binary()?)
        .arg("--socket")
        .arg(stage.file("control.sock"))
        .args(["ban", "-", "--for", "1h"])
        .stdin(File::open(list)?)
        .output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    ensure!(agent.banned()?.len() == 6_001, "bans had to make room for others");
    let nobody = stage.attacker().connect(Family::V4, EDGE, 80)?;
    ensure!(nobody.is_none(), "a ban was lost on the way to larger maps");
    Ok(())
}

/// What a user who is in the socket's group hears when he asks for a reload.
fn asked_by_a_member(stage: &Stage) -> Result<String> {
    const ASK: &str = "import socket, sys\none = socket.socket(socket.AF_UNIX)\none.settimeout(30)\n\
                       one.connect(sys.argv[1])\none.sendall(b'{\"verb\":\"reload\"}\\n')\n\
                       print(one.makefile().readline())";
    let mut command = stage.edge.command("setpriv");
    command.args([
        "--reuid",
        "nobody",
        "--regid",
        "daemon",
        "--clear-groups",
        "/usr/bin/python3",
        "-c",
        ASK,
    ]);
    run(command.arg(stage.file("control.sock")))
}

#[test]
fn operators_change_with_a_reload() -> Result<()> {
    if !privilege::ready("operators by reload") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let path = configure(&stage, "")?;
    let text = std::fs::read_to_string(&path)?;
    let with = |more: &str| {
        let agent = format!("[agent]\nsocket_group = \"daemon\"\n{more}");
        std::fs::write(&path, text.replace("[agent]\n", &agent))
    };
    with("")?;
    let mut agent = Agent::idle(&stage);
    agent.run()?;
    let said = asked_by_a_member(&stage)?;
    ensure!(said.contains("not permitted"), "{said}");
    with("operators = [\"nobody\"]\n")?;
    let done = agent.verb(&["reload"])?;
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    ensure!(done.status.success() && !told.contains("next start"), "{told}");
    let said = asked_by_a_member(&stage)?;
    ensure!(said.contains("reloaded"), "{said}");
    // one that nobody has leaves all as it was
    with("operators = [\"no-such-user-here\"]\n")?;
    ensure!(!agent.verb(&["reload"])?.status.success(), "a user that there is not was taken");
    with("")?;
    let said = asked_by_a_member(&stage)?;
    ensure!(said.contains("reloaded"), "{said}");
    let said = asked_by_a_member(&stage)?;
    ensure!(said.contains("not permitted"), "still an operator: {said}");
    agent.terminate()
}

#[test]
fn what_an_operator_cannot_have_meant_is_refused() -> Result<()> {
    if !privilege::ready("slips of an operator") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = stage.write("door.log", "")?;
    let jails = format!(
        "[events]\nfile = {:?}\n[filters.door]\nfailregex = ['^<ADDR> knocks$']\n\
         [jails.door]\nlogpath = {log:?}\n",
        stage.file("events.ndjson")
    );
    let mut agent = Agent::start(&stage, &jails)?;
    for (words, said) in [
        (&["ban", "10.0.0.1/8"][..], "'10.0.0.1/8' is no network"),
        (&["ban", "10.0.0.0/8"], "it is wider than a /16; use --force to ban it anyway"),
        (&["ban", "2001::/16"], "it is wider than a /32; use --force to ban it anyway"),
        (&["list", "--jail", "dor"], "did you mean 'door'?"),
        (&["status", "dorr"], "did you mean 'door'?"),
        (&["unban", "--all", "--jail", "doo"], "did you mean 'door'?"),
        (&["resume", "odor"], "did you mean 'door'?"),
    ] {
        let done = agent.verb(words)?;
        let all = [done.stdout, done.stderr].concat();
        let told = String::from_utf8_lossy(&all).into_owned();
        ensure!(!done.status.success() && told.contains(said), "{words:?}: {told}");
    }
    ensure!(agent.banned()?.is_empty(), "{:?}", agent.banned()?);
    ensure!(agent.verb(&["ban", "10.0.0.0/8", "--force"])?.status.success(), "not by force");
    // the reason holds for as long as the ban does
    for more in [&["--for", "1h", "--reason", "a whim"][..], &["--for", "2h"]] {
        let done = agent.verb(&[&["ban", "203.0.113.9"], more].concat())?;
        ensure!(done.status.success(), "{done:?}");
    }
    eventually("both are told with the reason", LIMIT, || {
        let text = std::fs::read_to_string(stage.file("events.ndjson")).unwrap_or_default();
        let of = |line: &&str| line.contains("203.0.113.9") && line.contains("a whim");
        Ok(text.lines().filter(of).count() == 2)
    })?;
    let shown = agent.verb(&["show", "203.0.113.9"])?.stdout;
    let shown = String::from_utf8_lossy(&shown).into_owned();
    ensure!(shown.contains("a whim"), "the reason is forgotten: {shown}");
    agent.terminate()
}
