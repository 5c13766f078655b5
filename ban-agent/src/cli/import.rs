//! `ban-agent import fail2ban`: takes over live bans and history from fail2ban's database, which
//! stays as it is; fail2ban may run meanwhile.

use std::{path::Path, process::ExitCode};

use super::{
    Cli, ban,
    failure::{Failure, chain},
    output,
};
use crate::{control::Request, store::import};

pub(super) fn run(cli: &Cli, db: &Path) -> Result<ExitCode, Failure> {
    let imported = import::fail2ban(db).map_err(|error| {
        Failure::new(2, chain(&error)).hint("name fail2ban's dbfile with --db; nothing was changed")
    })?;
    let count = imported.formers.len();
    let code = ban::changes(cli, &Request::Import { formers: imported.formers })?;
    if !cli.json() && !cli.quiet {
        output::print(&format!(
            "{count} addresses with their history taken over, {} rows are not of an address\n",
            imported.skipped
        ))?;
    }
    Ok(code)
}
