//! What an operator asks and does in a day, each by one command.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    agent::{Agent, LIMIT},
    mmdb, privilege,
    process::eventually,
    stage::Stage,
};

/// A verb that has to end with this code; what it printed.
fn says(agent: &Agent<'_>, words: &[&str], code: i32) -> Result<String> {
    let done = agent.verb(words)?;
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    ensure!(done.status.code() == Some(code), "{words:?}: {}: {out}{err}", done.status);
    Ok(out.into_owned())
}

/// The first word of each line of a table.
fn names(table: &str) -> Vec<&str> {
    table.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect()
}

#[test]
fn a_list_is_chosen_ordered_and_let_go_by_network() -> Result<()> {
    if !privilege::ready("lists") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let database = stage.file("city.mmdb");
    let places = [
        ("198.51.100.0", 24, mmdb::city("NL", "Amsterdam", (52.37, 4.9))),
        ("203.0.113.0", 24, mmdb::city("FR", "Paris", (48.85, 2.35))),
    ];
    fs::write(&database, mmdb::database(&places)?)?;
    let agent = Agent::start(&stage, &format!("[geoip]\ndatabase = {database:?}\n"))?;
    let ban =
        ["ban", "198.51.100.7", "198.51.100.9", "--for", "2h", "--reason", "=cmd|\"knocked\""];
    says(&agent, &ban, 0)?;
    says(&agent, &["ban", "203.0.113.5", "2001:db8:bad::/48", "--for", "1h"], 0)?;

    let list = says(&agent, &["list", "--sort", "address"], 0)?;
    ensure!(
        names(&list) == ["198.51.100.7", "198.51.100.9", "203.0.113.5", "2001:db8:bad::/48"],
        "{list}"
    );
    ensure!(list.contains("COUNTRY") && list.contains("NL") && list.contains("knocked"), "{list}");
    ensure!(!list.contains("PORTS"), "a column of nothing: {list}");
    let country = says(&agent, &["list", "--country", "nl", "--holder", "manual"], 0)?;
    ensure!(names(&country) == ["198.51.100.7", "198.51.100.9"], "{country}");
    let within = says(&agent, &["list", "--within", "203.0.113.0/24"], 0)?;
    ensure!(names(&within) == ["203.0.113.5"], "{within}");
    let some = says(&agent, &["list", "--limit", "1", "--sort", "since"], 0)?;
    ensure!(some.ends_with("… and 3 more of 4 bans\n"), "{some}");
    let table = says(&agent, &["-o", "csv", "list", "--within", "198.51.100.7"], 0)?;
    ensure!(table.starts_with("address,prefix,until,"), "{table}");
    ensure!(table.contains(",NL,") && table.contains("\"'=cmd|\"\"knocked\"\"\""), "{table}");
    says(&agent, &["-o", "csv", "status"], 2)?;
    let document = agent.json(&["list", "--sort", "packets", "--limit", "2"])?;
    ensure!(document.get("total") == Some(&4.into()), "{document}");

    let shown = says(&agent, &["show", "198.51.100.0/24"], 0)?;
    ensure!(
        shown.contains("2 bans inside it") && names(&shown).contains(&"198.51.100.9"),
        "{shown}"
    );
    says(&agent, &["show", "192.0.2.0/25"], 1)?;
    says(&agent, &["unban", "--within", "198.51.100.0/24"], 0)?;
    says(&agent, &["unban", "--within", "198.51.100.0/24"], 1)?;
    ensure!(agent.banned()?.len() == 2, "{:?}", agent.banned()?);
    says(&agent, &["unban", "--all", "--yes"], 0)?;
    ensure!(agent.banned()?.is_empty(), "{:?}", agent.banned()?);
    Ok(())
}

#[test]
fn who_did_what_and_why_is_on_record() -> Result<()> {
    if !privilege::ready("history") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = stage.write("door.log", "")?;
    let jail = format!(
        "[filters.door]\nfailregex = ['^<ADDR> knocks as <F-USER>.*</F-USER>$']\n\
         datepattern = ['{{NONE}}']\n[jails.door]\nlogpath = {log:?}\nmaxretry = 2\n"
    );
    let mut agent = Agent::start(&stage, &jail)?;
    fs::write(&log, "198.51.100.7 knocks as bob\n198.51.100.7 knocks as \u{1b}[2Jeve\n")?;
    agent.await_holders("198.51.100.7", &["door"])?;
    let words = ["unban", "198.51.100.7", "--reason", "a caller\u{1b}[2J"];
    says(&agent, &words, 0)?;
    says(&agent, &["ban", "203.0.113.0/24", "--for", "2h", "--comment", "hostile network"], 0)?;
    says(&agent, &["reload"], 0)?;

    let told = says(&agent, &["history", "198.51.100.7"], 0)?;
    let lines: Vec<&str> = told.lines().collect();
    let [_, ban, unban] = lines[..] else { anyhow::bail!("{told}") };
    ensure!(
        ban.contains(" ban ") && ban.contains("the agent") && ban.contains("2 failures"),
        "{told}"
    );
    ensure!(unban.contains(" unban ") && unban.contains("root"), "{told}");
    ensure!(unban.contains("a caller") && !told.contains('\u{1b}'), "{told}");
    let shown = says(&agent, &["show", "198.51.100.7"], 1)?;
    ensure!(shown.contains("last done to it") && shown.contains("a caller"), "{shown}");

    // it outlives the agent, once it is written
    let recorded = || -> Result<usize> {
        let all = agent.json(&["history", "--since", "1h"])?;
        Ok(all.get("deeds").and_then(Value::as_array).map_or(0, Vec::len))
    };
    eventually("all is on record", LIMIT, || Ok(recorded()? == 4))?;
    agent.kill()?;
    agent.run()?;
    let all = agent.json(&["history", "--since", "1h"])?;
    let deeds = all.get("deeds").and_then(Value::as_array).context("no deeds")?;
    let what = |deed: &Value| deed.get("what").and_then(Value::as_str).map(ToOwned::to_owned);
    let verbs: Vec<String> = deeds.iter().filter_map(what).collect();
    ensure!(verbs == ["ban", "unban", "ban", "reload"], "{verbs:?}");
    ensure!(deeds.iter().skip(1).all(|deed| deed.pointer("/by/user") == Some(&0.into())), "{all}");
    says(&agent, &["history", "192.0.2.200"], 1)?;

    for (by, name) in [
        ("jail", "door"),
        ("address", "198.51.100.7"),
        ("prefix", "198.51.100.0/24"),
        ("country", "unknown"),
        ("user", "\\u{1b}[2Jeve"),
    ] {
        let stats = says(&agent, &["stats", "--by", by, "--since", "24h"], 0)?;
        let known = stats.lines().skip(1).any(|line| line.trim_start().starts_with(name));
        ensure!(known, "{by}: {stats}");
    }
    let table = says(&agent, &["-o", "csv", "stats", "--by", "jail"], 0)?;
    ensure!(table.starts_with("jail,bans,failures\n"), "{table}");
    ensure!(table.contains("door,1,2\n") && table.contains("manual,1,0\n"), "{table}");
    let stats = agent.json(&["stats"])?;
    ensure!(stats.get("bans") == Some(&2.into()), "{stats}");
    Ok(())
}

#[test]
fn orders_at_run_time_hold_over_a_restart_and_end() -> Result<()> {
    if !privilege::ready("orders") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = stage.write("door.log", "")?;
    let filter = "[filters.door]\nfailregex = ['^<ADDR> knocks$']\ndatepattern = ['{NONE}']\n";
    let jail = |name: &str| {
        format!("[jails.{name}]\nfilter = \"door\"\nlogpath = {log:?}\nmaxretry = 1\n")
    };
    let mut agent = Agent::start(&stage, &format!("{filter}{}{}", jail("dry"), jail("wet")))?;
    says(&agent, &["ban", "203.0.113.9", "--for", "1h"], 0)?;

    says(&agent, &["jail", "dry-run", "dri"], 2)?;
    says(&agent, &["jail", "enable", "dry"], 1)?;
    let dry = ["jail", "dry-run", "dry", "--for", "7d", "--reason", "to see\u{1b}[2J"];
    says(&agent, &dry, 0)?;
    says(&agent, &["allow", "add", "203.0.113.0/28", "--reason", "the office"], 0)?;
    says(&agent, &["allow", "add", "0.0.0.0/0"], 2)?;
    eventually("what was banned there is let through", LIMIT, || Ok(agent.banned()?.is_empty()))?;

    agent.kill()?;
    agent.run()?;
    let status = says(&agent, &["status"], 0)?;
    ensure!(status.contains("the jail dry only counts") && !status.contains('\u{1b}'), "{status}");
    let allowed = says(&agent, &["allow", "list"], 0)?;
    ensure!(names(&allowed) == ["203.0.113.0/28"] && allowed.contains("the office"), "{allowed}");

    // the other jail enforces on
    fs::write(&log, "198.51.100.7 knocks\n203.0.113.5 knocks\n")?;
    agent.await_holders("198.51.100.7", &["wet"])?;
    let withheld = || -> Result<Option<Value>> {
        Ok(agent.json(&["status", "dry"])?.pointer("/jails/0/withheld").cloned())
    };
    eventually("the dry one counts", LIMIT, || Ok(withheld()?.is_some()))?;
    ensure!(agent.ban("203.0.113.5")?.is_none(), "it is allowed");
    ensure!(agent.holders("198.51.100.7")? == ["wet"], "{:?}", agent.holders("198.51.100.7")?);

    says(&agent, &["jail", "enable", "dry"], 0)?;
    says(&agent, &["allow", "remove", "203.0.113.0/28"], 0)?;
    says(&agent, &["allow", "remove", "203.0.113.0/28"], 1)?;
    // one second is over within a second or two
    says(&agent, &["jail", "disable", "wet", "--for", "1s"], 0)?;
    eventually("the order has ended", LIMIT, || {
        Ok(agent.json(&["status"])?.get("orders").is_none())
    })?;
    let history = says(&agent, &["history"], 0)?;
    for word in ["dry-run", "disallow", "disable", "enable"] {
        ensure!(history.contains(&format!(" {word} ")), "{word}: {history}");
    }
    Ok(())
}

const COOKBOOK: &str = include_str!("../../../docs/cookbook.md");

/// The commands of the cookbook, in order.
fn commands() -> Vec<&'static str> {
    let mut inside = false;
    let mut commands = Vec::new();
    for line in COOKBOOK.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            command if inside => commands.push(command),
            _ => {}
        }
    }
    commands
}

#[test]
fn every_command_of_the_cookbook_does_its_work() -> Result<()> {
    if !privilege::ready("the cookbook") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let line = |user: &str, from: &str| {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S+00:00");
        format!("{now} edge sshd[7]: Failed password for {user} from {from} port 4711 ssh2\n")
    };
    let log = stage.write("auth.log", "")?;
    let old = line("root", "203.0.113.66").repeat(9);
    fs::write(stage.write("auth.log.2", &old)?, &old)?;
    let zipped = stage.edge.command("gzip").arg(stage.file("auth.log.2")).status()?;
    ensure!(zipped.success(), "gzip: {zipped}");
    stage.write("auth.log.1", &old)?;
    stage.write("blocklist.txt", "203.0.113.200 # one\n203.0.113.201\n")?;
    let web = stage.write("web.log", "")?;
    let jails = format!(
        "[jails.sshd]\nlogpath = {log:?}\n[filters.web]\nfailregex = ['^<ADDR> denied$']\n\
         [jails.web]\nlogpath = {web:?}\n"
    );
    let agent = Agent::start(&stage, &jails)?;
    fs::write(&log, line("root", "203.0.113.66").repeat(9))?;
    agent.await_holders("203.0.113.66", &["sshd"])?;
    says(&agent, &["ban", "198.51.100.7", "198.51.100.8", "--for", "1h"], 0)?;

    let [socket, config] = ["control.sock", "config.toml"].map(|name| stage.file(name));
    let binary = tests::agent::binary()?;
    let shell =
        format!("ban-agent() {{ {binary:?} --socket {socket:?} --config {config:?} \"$@\"; }}\n");
    let folder = format!("{}/", stage.file("").display().to_string().trim_end_matches('/'));
    let commands = commands();
    ensure!(commands.len() >= 20, "{} commands", commands.len());
    for command in commands {
        let script = format!("{shell}cd {folder:?}\n{}", command.replace("/var/log/", &folder));
        let done = stage.edge.command("bash").args(["-ec", &script]).output()?;
        let (out, err) =
            (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        ensure!(done.status.success(), "{command}: {}\n{out}{err}", done.status);
    }
    let banned = agent.banned()?;
    ensure!(banned.contains(&"198.18.0.0".to_owned()), "{banned:?}");
    ensure!(!banned.iter().any(|address| address.starts_with("198.51.100.")), "{banned:?}");
    Ok(())
}
