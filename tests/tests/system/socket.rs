//! Who may do what through the control socket, as real users: the group looks, operators change,
//! others get nothing.

use std::{fs, path::Path, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use tests::{
    agent::{Agent, binary, configure},
    privilege,
    stage::Stage,
};

const NOT_PERMITTED: i32 = 4;

/// Runs a verb as this user and group, with no other groups; the exit code.
fn verb(stage: &Stage, program: &Path, who: (&str, &str), words: &[&str]) -> Result<i32> {
    let mut command = stage.edge.command("setpriv");
    command.args(["--reuid", who.0, "--regid", who.1, "--clear-groups"]);
    command.arg(program).arg("--socket").arg(stage.file("control.sock"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status()?.code().context("ended by a signal")
}

#[test]
fn the_group_looks_and_operators_change() -> Result<()> {
    if !privilege::ready("other users") {
        return Ok(());
    }
    let stage = Stage::build()?;
    // where it was built others may not look
    let program = stage.file("ban-agent");
    fs::copy(binary()?, &program)?;
    let config = configure(&stage, "")?;
    let text = fs::read_to_string(&config)?;
    let group = "[agent]\nsocket_group = \"daemon\"\noperators = [\"bin\"]";
    fs::write(&config, text.replacen("[agent]", group, 1))?;
    let mut agent = Agent::idle(&stage);
    agent.run()?;

    let (member, operator) = (("nobody", "daemon"), ("bin", "daemon"));
    let stranger = ("nobody", "nogroup");
    let ban = ["ban", "192.0.2.66", "--for", "1h"];
    for (who, words, expected) in [
        (member, &["status"][..], 0),
        (member, &["list"], 0),
        (member, &["show", "192.0.2.66"], 1),
        (member, &ban, NOT_PERMITTED),
        (member, &["unban", "--all"], NOT_PERMITTED),
        (member, &["reload"], NOT_PERMITTED),
        (member, &["resume"], NOT_PERMITTED),
        (member, &["confirm"], NOT_PERMITTED),
        (member, &["detach"], NOT_PERMITTED),
        (member, &["allow", "add", "192.0.2.66"], NOT_PERMITTED),
        (member, &["jail", "disable", "sshd"], NOT_PERMITTED),
        (stranger, &["status"], NOT_PERMITTED),
        (stranger, &ban, NOT_PERMITTED),
        // an operator who is not in the group cannot open it
        (("bin", "nogroup"), &ban, NOT_PERMITTED),
        (operator, &ban, 0),
        (member, &["show", "192.0.2.66"], 0),
        (operator, &["unban", "192.0.2.66"], 0),
    ] {
        let code = verb(&stage, &program, who, words)?;
        ensure!(code == expected, "{who:?} {words:?}: {code}, not {expected}");
    }
    ensure!(stage.attached()?, "somebody has detached it");
    Ok(())
}
