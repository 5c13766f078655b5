//! docs/operations.md, followed to the letter on a clean machine: every block marked `sh`, in order.

use anyhow::{Context as _, Result, ensure};
use tests::{machine::Machine, privilege, stage::Stage};

const PAGE: &str = include_str!("../../../docs/operations.md");

/// Logs are written beside what they tell of: on a busy machine a line comes a moment later.
const PATIENT: &str = "grep() { tries=0; until command grep \"$@\"; do \
                       tries=$((tries + 1)); [ $tries -lt 150 ]; sleep 0.2; done; }";

/// The blocks, each with the line it begins in.
fn blocks() -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in PAGE.lines().enumerate() {
        match (&mut open, line) {
            (None, "```sh") => open = Some((number + 2, String::new())),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some((_, text)), _) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, _) => {}
        }
    }
    blocks
}

#[test]
fn every_command_of_the_page_does_what_it_says() -> Result<()> {
    if !privilege::ready("docs/operations.md") {
        return Ok(());
    }
    let blocks = blocks();
    ensure!(blocks.len() > 10, "only {} blocks were found", blocks.len());
    let stage = Stage::build()?;
    let mut machine = Machine::build(&stage)?;
    std::fs::rename(machine.file("ban-agent.deb"), machine.file("ban-agent_1_any.deb"))?;
    machine.boot()?;
    for (line, block) in blocks {
        let script = format!("cd /\n{PATIENT}\n{block}");
        let said = machine
            .done(&["sh", "-exc", &script])
            .with_context(|| format!("docs/operations.md:{line}"))?;
        println!("{block}{said}");
    }
    let left = machine.done(&["find", "/usr", "/var/lib", "-xdev", "-name", "*ban-agent*"])?;
    ensure!(left.is_empty(), "left behind:\n{left}");
    ensure!(!stage.attached()?, "the program was left");
    Ok(())
}
