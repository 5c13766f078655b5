//! What an agent that was taken over can reach, outside of systemd too.

use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _, process::Command};

use anyhow::{Context as _, Result, ensure};
use tests::{
    agent::{Agent, LIMIT, configure},
    host::Family,
    privilege,
    process::{Process, eventually},
    stage::Stage,
};

/// The program that reads the journal for the agent is under its rules, and stands for whoever got
/// hold of the agent: it finds no way into files and processes that are not the agent's.
#[test]
fn who_gets_hold_of_the_agent_writes_nowhere_else() -> Result<()> {
    if !privilege::ready("what the agent may write") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let foreign = tempfile::tempdir()?;
    let mut other = Process::spawn("sleep", Command::new("sleep").arg("1000"))?;
    let other = other.child().context("no process")?.id();
    let script = format!(
        "#!/bin/sh\nexec 3>{tried}.new\n\
         try() {{ name=$1; shift; \"$@\" && echo \"$name\" >&3; }}\n\
         touched() {{ echo x > \"$1\"; }}\n\
         try own touched {own}\n\
         try foreign touched {foreign}\n\
         try log sh -c ': >> {log}'\n\
         try memory sh -c ': > /proc/{other}/mem'\n\
         try root touched /proc/{other}/root/{foreign}\n\
         try program readlink /proc/{other}/exe\n\
         mv {tried}.new {tried}\n\
         exec sleep 1000\n",
        tried = stage.file("tried").display(),
        own = stage.file("own").display(),
        foreign = foreign.path().join("new").display(),
        log = foreign.path().join("app.log").display(),
    );
    fs::create_dir(stage.file("bin"))?;
    let program = stage.write("bin/journalctl", &script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    // what the agent reads it does not write
    fs::write(foreign.path().join("app.log"), "")?;
    let jails = format!(
        "[filters.app]\nfailregex = ['^slow <ADDR>$']\n[jails.app]\nlogpath = {:?}\n\
         [jails.kept]\nfilter = \"app\"\njournalmatch = \"_COMM=app\"\n",
        foreign.path().join("app.log")
    );
    configure(&stage, &jails)?;
    let tried = |command: &mut Command| -> Result<String> {
        let _ = fs::remove_file(stage.file("tried"));
        let mut process = Process::spawn("sh", command)?;
        eventually("everything was tried", LIMIT, || {
            ensure!(process.ended()?.is_none(), "the program ended");
            Ok(stage.file("tried").exists())
        })?;
        Ok(fs::read_to_string(stage.file("tried"))?)
    };
    let outside = tried(&mut Command::new(&program))?;
    ensure!(outside == "own\nforeign\nlog\nmemory\nroot\nprogram\n", "outside: {outside}");
    fs::remove_file(stage.file("tried"))?;
    let mut agent = Agent::idle(&stage);
    let mut command = agent.command()?;
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", stage.file("bin").display()));
    agent.launch(command)?;
    agent.await_answer()?;
    eventually("everything was tried", LIMIT, || Ok(stage.file("tried").exists()))
        .with_context(|| agent.log())?;
    let inside = fs::read_to_string(stage.file("tried"))?;
    ensure!(inside == "own\n", "from within the agent: {inside}\n{}", agent.log());
    // and does what it is there for
    let mut log = fs::File::options().append(true).open(foreign.path().join("app.log"))?;
    (0..5).try_for_each(|_| writeln!(log, "slow {}", stage.attacker().address(Family::V4)))?;
    agent.await_holders(stage.attacker().address(Family::V4), &["app"])
}
