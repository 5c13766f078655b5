//! Real servers on the edge, each with its own configuration in the stage's folder. Ended when
//! dropped.

mod apache;
mod haproxy;
mod nginx;
mod sshd;

use std::{
    fs::File,
    process::{Command, Stdio},
};

use anyhow::{Result, bail};

pub use apache::Apache;
pub use haproxy::Haproxy;
pub use nginx::Nginx;
pub use sshd::{Sshd, guess, log_in};

use crate::{
    agent::LIMIT,
    host::FAMILIES,
    process::{Process, eventually},
    stage::{EDGE, Stage},
};

/// Starts a daemon, its output in `NAME.out`.
fn spawn(stage: &Stage, name: &str, command: &mut Command) -> Result<Process> {
    let file = File::create(stage.file(&format!("{name}.out")))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    Process::spawn(name, command)
}

/// Waits until it accepts connections over both families.
fn await_port(stage: &Stage, name: &str, process: &mut Process, port: u16) -> Result<()> {
    eventually(&format!("{name} listens"), LIMIT, || {
        if let Some(status) = process.ended()? {
            let said = std::fs::read_to_string(stage.file(&format!("{name}.out")))?;
            bail!("{name} ended with {status}: {said}");
        }
        // refused is an error of connect, and means: not yet
        Ok(FAMILIES
            .iter()
            .all(|family| matches!(stage.client().connect(*family, EDGE, port), Ok(Some(_)))))
    })
}
