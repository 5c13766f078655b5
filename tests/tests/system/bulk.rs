//! What is about very many bans holds nobody up: while a block list is banned, listed, compared and
//! lifted, the bans of a log go on, and the engine is never held for long.

use std::{
    fs::File,
    io::Write as _,
    net::Ipv4Addr,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    agent::{Agent, LIMIT, binary, configure},
    patience,
    process::{Process, eventually},
    stage::Stage,
};

const BANS: u32 = 50_000;

#[test]
fn a_long_list_holds_no_ban_of_a_log_up() -> Result<()> {
    let stage = Stage::build()?;
    let log = stage.write("door.log", "")?;
    let jails = format!(
        "[filters.door]\nfailregex = ['^<ADDR> knocks$']\ndatepattern = ['{{NONE}}']\n\
         [jails.door]\nmaxretry = 1\nbantime = \"1h\"\nlogpath = {log:?}\n"
    );
    let path = configure(&stage, &jails)?;
    let text = std::fs::read_to_string(&path)?;
    std::fs::write(path, text.replace("max_bans = 4096", "max_bans = 200000"))?;
    let mut agent = Agent::idle(&stage);
    agent.run()?;
    let list: String =
        (0..BANS).map(|number| format!("{}\n", Ipv4Addr::from(0x1000_0000 + number))).collect();
    let list = stage.write("list", &list)?;
    let mut accused = 0_u32;
    let steps: [(&[&str], u64); 5] = [
        (&["ban", "--for", "1h", "-"], u64::from(BANS)),
        (&["ban", "--for", "30m", "-"], u64::from(BANS)),
        (&["-o", "json", "list"], u64::from(BANS)),
        (&["doctor"], u64::from(BANS)),
        (&["unban", "--all"], 0),
    ];
    for (words, least) in steps {
        let mut command: Command = stage.edge.command(binary()?);
        command.arg("--socket").arg(stage.file("control.sock"));
        command.arg("--config").arg(stage.file("config.toml")).args(words);
        command.stdin(File::open(&list)?).stdout(File::create(stage.file("answer"))?);
        command.stderr(Stdio::inherit());
        let mut step = Process::spawn("bulk", &mut command)?;
        // lines all the while: each bans somebody
        let mut log = File::options().append(true).open(&log)?;
        eventually(&format!("{words:?} ends"), LIMIT, || {
            writeln!(log, "{} knocks", Ipv4Addr::from(0x2000_0000 + accused))?;
            accused += 1;
            Ok(step.ended()?.is_some())
        })?;
        let status = agent.json(&["status"])?;
        let held = status.pointer("/bans/v4").and_then(Value::as_u64).context("no bans")?;
        ensure!(held >= least, "{held} are banned after {words:?}");
        ensure!(status.get("store") == Some(&"ok".into()), "after {words:?}: {status}");
        let hold = status.get("longest_hold").context("no hold")?;
        let seconds = hold.get("seconds").and_then(Value::as_f64).context("no seconds")?;
        let limit = patience::hold().as_secs_f64();
        ensure!(seconds <= limit, "by {words:?} the engine was held for {hold}, over {limit} s");
    }
    let answer = std::fs::read_to_string(stage.file("answer"))?;
    ensure!(answer.contains(" more unbanned"), "{answer}");
    eventually("every line has banned", LIMIT, || {
        let status = agent.json(&["status", "door"])?;
        Ok(status.pointer("/jails/0/total").and_then(Value::as_u64) == Some(u64::from(accused)))
    })
    .with_context(|| agent.last_words())?;
    agent.terminate()
}
