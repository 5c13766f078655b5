//! `ban-agent detach`: the emergency exit. It works with a running agent, which ends, with one that
//! hangs, and without one.

use std::{process::ExitCode, time::Duration};

use super::{
    Cli,
    failure::{Failure, chain},
    tell,
};
use crate::{
    config,
    control::{CallError, Document, Request, SCHEMA, Text, call_within},
    dataplane,
};

/// How long a running agent may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    let hangs = match call_within(&cli.socket(), &Request::Detach, PATIENCE) {
        Ok(document) => return tell(cli, document),
        Err(CallError::NotRunning { .. }) => None,
        Err(error @ CallError::Hangs { .. }) => Some(error),
        Err(error) => return Err(error.into()),
    };
    // a broken configuration must not keep anybody locked out
    let agent = match config::load_sound(&cli.config) {
        Ok((config, _)) => config.agent,
        Err(error) => {
            log::warn!("{error}; using the default pins");
            config::shipped()?.agent
        }
    };
    let detach = if hangs.is_some() { dataplane::detach_by_force } else { dataplane::detach };
    let removed = detach(&agent.pins).map_err(|error| {
        let hint = error.hint().unwrap_or_default();
        Failure::new(if error.is_permission() { 4 } else { 2 }, chain(&error)).hint(hint)
    })?;
    let mut message = if removed.is_empty() {
        format!("nothing was attached under {}", agent.pins.display())
    } else {
        format!("detached from {}; no ban is enforced any more", removed.join(", "))
    };
    if let Some(error) = hangs {
        message.push_str(&format!(
            "; {error}: if it goes on, it sees this and ends; `systemctl stop ban-agent`, or kill -9, \
             ends it now"
        ));
    }
    tell(cli, Document::Text(Text { schema: SCHEMA, message }))
}
