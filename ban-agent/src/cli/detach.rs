//! `ban-agent detach`: the emergency exit. It works with a running agent, which ends, and
//! without one.

use std::process::ExitCode;

use super::{
    Cli,
    failure::{Failure, chain},
    output, tell,
};
use crate::{
    config,
    control::{CallError, Document, Request, SCHEMA, Text, call},
    kernel,
};

pub(super) fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    match call(&cli.socket(), &Request::Status { jail: None }) {
        Ok(_) => return tell(cli, &Request::Detach),
        Err(CallError::NotRunning { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    // a broken configuration must not keep anybody locked out
    let agent = match config::load(&cli.config) {
        Ok(config) => config.agent,
        Err(error) => {
            log::warn!("{error}; using the default pins");
            config::shipped()?.agent
        }
    };
    let removed = kernel::detach(&agent.pins).map_err(|error| {
        let hint = error.hint().unwrap_or_default();
        Failure::new(if error.is_permission() { 4 } else { 2 }, chain(&error)).hint(hint)
    })?;
    let message = if removed.is_empty() {
        format!("nothing was attached under {}", agent.pins.display())
    } else {
        format!("detached from {}; no ban is enforced any more", removed.join(", "))
    };
    if cli.json() {
        output::json(&Document::Text(Text { schema: SCHEMA, message }))?;
    } else {
        output::print(&format!("{message}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
