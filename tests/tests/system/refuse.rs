//! What is wrong is said in one line with a hint and a documented exit code, and nothing was
//! changed, nothing half-attached.

use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use tests::{
    agent::{Agent, binary, configure, verb},
    privilege,
    stage::{DEVICE, Stage},
};

const FAILURE: i32 = 2;
const NOT_RUNNING: i32 = 3;
const NOT_PERMITTED: i32 = 4;
const BAD_CONFIG: i32 = 78;

/// The cause on one line that holds all of `words`, a hint on the next, this exit code.
fn refused(done: &Output, code: i32, words: &[&str]) -> Result<()> {
    let said = String::from_utf8_lossy(&done.stderr);
    let what = || format!("{:?} and said:\n{said}", done.status);
    ensure!(done.status.code() == Some(code), "expected {code}, it ended with {}", what());
    // log lines may stand before it
    let lines: Vec<_> = said.lines().skip_while(|line| !line.starts_with("ban-agent: ")).collect();
    let [cause, hint] = lines[..] else {
        bail!("expected a cause and a hint, it ended with {}", what());
    };
    for word in words {
        ensure!(cause.contains(word), "the cause does not name {word}, {}", what());
    }
    ensure!(hint.starts_with("hint: "), "no hint, {}", what());
    Ok(())
}

/// No program on the link, no pins.
fn untouched(stage: &Stage) -> Result<()> {
    ensure!(!stage.attached()?, "a program was attached");
    ensure!(!stage.pins().exists(), "pins were left in {}", stage.pins().display());
    Ok(())
}

#[test]
fn bad_configurations_are_refused_with_their_place() -> Result<()> {
    if !privilege::ready("bad configurations") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = "logpath = \"/var/log/auth.log\"";
    for (text, words) in [
        (format!("[jails.sshd]\nmaxretri = 3\n{log}"), &["config.toml:", "maxretri"][..]),
        (format!("[jails.sshd]\nignoreip = [\"192.0.2.0/40\"]\n{log}"), &["192.0.2.0/40"]),
        (format!("[jails.sshd]\nbantime = \"soon\"\n{log}"), &["soon"]),
        (
            format!("[filters.own]\nfailregex = [\"^(<ADDR>\"]\n[jails.own]\n{log}"),
            &["own", "failregex"],
        ),
        (
            format!("[filters.own]\nfailregex = [\"^no address$\"]\n[jails.own]\n{log}"),
            &["own", "no address"],
        ),
        (format!("[jails.unknown]\n{log}"), &["unknown"]),
    ] {
        configure(&stage, &text)?;
        for words_of_verb in [&["check"][..], &["run"]] {
            let done = verb(&stage, words_of_verb)?;
            refused(&done, BAD_CONFIG, words)
                .with_context(|| format!("{words_of_verb:?} {text}"))?;
        }
        untouched(&stage)?;
    }
    std::fs::remove_file(stage.file("config.toml"))?;
    refused(&verb(&stage, &["run"])?, BAD_CONFIG, &["config.toml"])?;
    untouched(&stage)
}

#[test]
fn what_cannot_be_attached_is_refused() -> Result<()> {
    if !privilege::ready("missing interface, no bpffs") {
        return Ok(());
    }
    let stage = Stage::build()?;
    configure(&stage, "")?;
    refused(&verb(&stage, &["run", "-i", "eth9"])?, FAILURE, &["eth9"])?;
    untouched(&stage)?;

    let own = stage.file("no-bpffs");
    let config = configure(&stage, "")?;
    let text = std::fs::read_to_string(&config)?;
    let pins = format!("{:?}", stage.pins());
    stage.write("config.toml", &text.replace(&pins, &format!("{own:?}")))?;
    refused(&verb(&stage, &["run"])?, FAILURE, &["no-bpffs"])?;
    untouched(&stage)?;
    refused(&verb(&stage, &["list"])?, NOT_RUNNING, &["control.sock"])
}

#[test]
fn a_taken_slot_or_socket_is_refused_and_left_alone() -> Result<()> {
    if !privilege::ready("slot taken, agent running") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let agent = Agent::start(&stage, "")?;
    let done = agent.verb(&["ban", "192.0.2.66", "--for", "1h"])?;
    ensure!(done.status.success(), "ban failed");
    let program = program(&stage)?;

    refused(&agent.verb(&["run"])?, FAILURE, &["control.sock"])?;

    // another socket, the same pins
    let text = std::fs::read_to_string(stage.file("config.toml"))?;
    let others = text.replace("control.sock", "other.sock").replace("state.sqlite", "other.sqlite");
    let config = stage.write("other.toml", &others)?;
    let mut command = stage.edge.command(binary()?);
    let done = command.arg("--config").arg(config).arg("run").stdin(Stdio::null()).output()?;
    refused(&done, FAILURE, &[])?;
    ensure!(agent.banned()? == ["192.0.2.66"], "the running agent was disturbed");

    // another agent with everything of its own but the interface
    let pins = stage.pins().display().to_string();
    let others = text
        .replace(&pins, &format!("{pins}-other"))
        .replace("control.sock", "other.sock")
        .replace("state.sqlite", "other.sqlite");
    let config = stage.write("other.toml", &others)?;
    let mut command = stage.edge.command(binary()?);
    let done = command.arg("--config").arg(config).arg("run").stdin(Stdio::null()).output()?;
    refused(&done, FAILURE, &[DEVICE])?;
    ensure!(!std::path::Path::new(&format!("{pins}-other")).exists(), "pins were left");
    ensure!(self::program(&stage)? == program, "the slot changed hands");
    ensure!(agent.banned()? == ["192.0.2.66"], "the running agent was disturbed");
    ensure!(!stage.attacker().pings(tests::host::Family::V4, tests::stage::EDGE)?, "no ban");
    Ok(())
}

/// Which program is attached.
fn program(stage: &Stage) -> Result<String> {
    let shown = stage.edge.ip(&format!("-details link show {DEVICE}"))?;
    let line = shown.lines().find(|line| line.contains("prog/xdp id"));
    line.map(|line| line.trim().to_owned()).context("no program is attached")
}

#[test]
fn without_capabilities_the_agent_says_so() -> Result<()> {
    if !privilege::ready("missing capabilities") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let config = configure(&stage, "")?;
    let mut command: Command = stage.edge.command("setpriv");
    command.args(["--inh-caps=-all", "--bounding-set=-all"]).arg(binary()?);
    let done = command.arg("--config").arg(config).arg("run").stdin(Stdio::null()).output()?;
    refused(&done, NOT_PERMITTED, &[])?;
    untouched(&stage)
}
